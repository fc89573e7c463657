"""What it takes to start: whole processes, from an empty interpreter to the end of the command."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delaynet_lava.errors import DelayNetError

__all__ = ["COMMANDS", "Start", "measure_starts"]

REPEATS, QUICK = 5, 1
WORD = "cue:cues=1,wait_ms=150"
_OURS = ("-m", "delaynet_lava")
_RUN = (*_OURS, "run", "net.h5", "--samples", "1")
_EXPORT = (*_OURS, "export", "model:cue_loihi2", "-o", "net.h5")
_TRAIN = (*_OURS, "train", WORD, "--recipe", "smoke", "--force", "-o", "model.pt")
_NOTHING = "nothing compiled yet"


@dataclass(frozen=True)
class _Command:
    """Arguments of the interpreter; cold: where no loop was compiled before; fails: it ends with 2."""

    arguments: tuple[str, ...]
    cold: bool = False
    fails: bool = False


COMMANDS = {
    "import numpy": _Command(("-c", "import numpy")),
    "import torch": _Command(("-c", "import torch")),
    "import delaynet_lava": _Command(("-c", "import delaynet_lava")),
    "delaynet --help": _Command((*_OURS, "--help")),
    "delaynet --version": _Command((*_OURS, "--version")),
    "an option that there is not": _Command((*_OURS, "train", "--no-such"), fails=True),
    "delaynet run net.h5": _Command(_RUN),
    f"delaynet run net.h5, {_NOTHING}": _Command(_RUN, cold=True),
    "delaynet train, a small one": _Command(_TRAIN),
    f"delaynet train, {_NOTHING}": _Command(_TRAIN, cold=True),
}
"""What is started, by what it is called; the first two are for comparison."""


@dataclass(frozen=True)
class Start:
    """Medians of a command.

    Attributes:
        wall_s: from its start to its end. cpu_s: of all its threads, user and system.
        numpy, torch: cpu_s in that of ``import numpy`` and of ``import torch`` in the same run.
    """

    name: str
    wall_s: float
    cpu_s: float
    numpy: float
    torch: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _once(name: str, command: _Command, folder: Path) -> tuple[float, float]:
    environment = dict(os.environ)
    if command.cold:
        environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=folder)
    started = time.perf_counter()
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command.arguments], cwd=folder, env=environment, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (2 if command.fails else 0):
        said = (folder / "output").read_text(errors="replace").strip().splitlines()
        last = said[-1] if said else "nothing"
        raise DelayNetError(f"bench: {name}: ended with exit code {process.returncode} and said: {last}")
    return wall, used.ru_utime + used.ru_stime


def measure_starts(quick: bool = False, start: Callable[[str], None] = lambda name: None) -> list[Start]:
    """Measure all of :data:`COMMANDS`, in turns; a round that warms up the disk is not counted.

    Args:
        quick: one round. start: called with the name of each before it runs.

    Raises:
        DelayNetError: one of them did not end as it should.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="delaynet-start-") as folder:
        _once("delaynet export", _Command(_EXPORT), Path(folder))
        for _ in range(1 + (QUICK if quick else REPEATS)):
            for name, command in COMMANDS.items():
                start(name)
                seen[name].append(_once(name, command, Path(folder)))
    medians = {
        name: [statistics.median(values) for values in zip(*runs[1:], strict=True)]
        for name, runs in seen.items()
    }
    numpy, torch = (medians[f"import {name}"][1] for name in ("numpy", "torch"))
    return [Start(name, wall, cpu, cpu / numpy, cpu / torch) for name, (wall, cpu) in medians.items()]
