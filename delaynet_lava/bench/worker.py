"""The process in which something is measured: ``python -m delaynet_lava.bench.worker FOLDER``.

Reads ``jobs.json`` in the folder and writes ``results.json`` there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from delaynet_lava.bench import machine
from delaynet_lava.bench.harness import Work, take
from delaynet_lava.bench.turns import Turns
from delaynet_lava.processes import end_with_parent

__all__ = ["WORKLOADS", "main"]

# Imported only where they run: each belongs to packages that may not be there.
WORKLOADS = {
    "emulator": "workloads:emulator",
    "lava": "workloads:lava",
    "training": "training:training",
    "limits": "limits:workload",
    "slayer": "peers:slayer",
    "loop": "peers:loop",
    "tuned": "peers:tuned",
    "compiled": "peers:compiled",
    "scan": "peers_jax:scan",
    "spyx": "peers_jax:spyx",
    "snntorch": "peers:snntorch",
    "norse": "peers:norse",
    "spikingjelly": "peers:spikingjelly",
    "cells": "cells:ours",
    "cells emulator": "cells:emulator",
    "cells integers": "cells:integers",
    "cells loop": "cells:loop",
    "cells tuned": "cells:tuned",
    "cells compiled": "cells:compiled",
    "cells scan": "cells:scan",
}


def _workload(name: str) -> Callable[..., Work]:
    module, _, function = WORKLOADS[name].partition(":")
    return getattr(import_module(f"delaynet_lava.bench.{module}"), function)


def _use_threads(number: int) -> None:
    """Threads of torch and Numba, where they are loaded."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)
    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))


def run(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure; for each job plain values, the arguments of :class:`~delaynet_lava.bench.harness.Figure`."""
    turns = Turns(content["ends"])
    turns.wait()  # what is imported, or compiled, would disturb the other
    with contextlib.ExitStack() as stack:
        works = []
        for name, options in content["works"]:
            works.append(_workload(name)(**options))
            stack.callback(works[-1].close)
        numbers = [sorted({1, machine.cores()}) if work.threads else [machine.cores()] for work in works]
        before = machine.memory_mib()
        runs = [work.run for work in works]
        timings = take(runs, content["repeats"], content["fill_s"], numbers, _use_threads, turns=turns)
        facts = [work.facts() for work in works]
    return [
        {
            "runs_s": [round(seconds, 7) for seconds in timing.runs_s],  # a report holds thousands
            "warm_up_s": timing.warm_up_s,
            "amount": work.amount,
            "threads": timing.threads if work.threads else None,
            "trials_s": {str(number): seconds for number, seconds in timing.trials_s.items()},
            "memory_mib": before,
            "peak_memory_mib": machine.memory_mib(peak=True),
            "facts": seen,
        }
        for work, timing, seen in zip(works, timings, facts, strict=True)
    ]


def main(folder: str) -> None:
    """Run the jobs of a folder."""
    end_with_parent()
    results = run(json.loads(Path(folder, "jobs.json").read_text()))
    Path(folder, "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
