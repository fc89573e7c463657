"""How a thing is measured: in a process of its own, after a warm-up, as the median of its runs.

A process of its own makes the peak of memory the thing's own, keeps what one package does to
threads and allocators away from the next, and lets a failure be a line in the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

__all__ = ["Figure", "Job", "LeftOut", "Timing", "Work", "installed", "measure", "take"]

# The same for everything that is measured. Waiting threads sleep: those that spin take the cores from
# the ones at work wherever two runtimes, or two programs, share a machine. The heap keeps the large
# arrays of a pass for the next one instead of mapping fresh pages each time, as `delaynet train` has it.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
TRIALS, TRIAL_S = 3, 3.0
MOST_RUNS, FILL_S = 25, 3.0


@dataclass
class Work:
    """What a workload hands over to be measured.

    Attributes:
        run: one run.
        amount: sample-steps of a run (samples times time steps).
        facts: asked once after the last run; figures that belong beside the time, such as
            "rate", the spikes of a hidden neuron in a step.
        close: ends what must not outlive the measurement.
        threads: False where the number of threads makes no difference to it.
        fill: False where every measurement must have the same number of runs.
    """

    run: Callable[[], Any]
    amount: float
    facts: Callable[[], dict[str, Any]] = dict
    close: Callable[[], None] = lambda: None
    threads: bool = True
    fill: bool = True


@dataclass(frozen=True)
class Timing:
    """Seconds of a measurement.

    Attributes:
        warm_up_s: of the first run, which is not counted. runs_s: of those that are.
        threads: the number that they had.
        trials_s: the best of a few runs with each number of threads, from which it was chosen.
    """

    warm_up_s: float
    runs_s: list[float]
    threads: int
    trials_s: dict[int, float]


def take(
    run: Callable[[], Any],
    repeats: int,
    threads: Sequence[int] = (1,),
    use_threads: Callable[[int], None] = lambda n: None,
    fill: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time a thing: one run to warm up, a few to choose among numbers of threads, then the runs.

    Small operations are often faster on one thread than on all, by factors: everything is measured
    with the number of threads that is best for it.

    Args:
        repeats: runs that count, at least.
        threads: the numbers to choose from.
        fill: whether short runs go on until they fill three seconds.
    """

    def once() -> float:
        started = clock()
        run()
        return clock() - started

    use_threads(threads[-1])
    warm_up = once()
    best = {}
    for number in threads if len(threads) > 1 else ():
        use_threads(number)
        tries = [once()]
        while len(tries) < TRIALS and sum(tries) < TRIAL_S:
            tries.append(once())
        best[number] = min(tries)
    chosen = min(best, key=lambda n: best[n]) if best else threads[0]
    use_threads(chosen)
    runs = [once() for _ in range(repeats)]
    while fill and len(runs) < MOST_RUNS and sum(runs) < FILL_S:
        runs.append(once())
    return Timing(warm_up, runs, chosen, best)


@dataclass(frozen=True)
class Job:
    """A thing to measure.

    Attributes:
        name: as it is printed; unique within a report.
        workload: name in :data:`delaynet_lava.bench.worker.WORKLOADS`.
        options: its arguments, plain values.
        needs: modules without which it is left out, by the name of their package.
        repeats: runs that count, at least.
        timeout_s: ended and left out after this long.
    """

    name: str
    workload: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    repeats: int = 5
    timeout_s: float = 1800.0


@dataclass(frozen=True)
class Figure:
    """What was measured of a thing.

    Attributes:
        runs_s: seconds of each run that counts. warm_up_s: of the one before them.
        amount: sample-steps of a run.
        threads: as chosen; None where there is no choice. trials_s: see :class:`Timing`.
        memory_mib: resident memory before the first run, packages and inputs included.
        peak_memory_mib: the most there ever was, of the largest process.
        facts: what the workload says of itself.
    """

    name: str
    runs_s: list[float]
    warm_up_s: float
    amount: float
    threads: int | None
    memory_mib: float | None
    peak_memory_mib: float | None
    facts: dict[str, Any] = field(default_factory=dict)
    trials_s: dict[str, float] = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """Median of the runs."""
        return statistics.median(self.runs_s)

    @property
    def speed(self) -> float:
        """Sample-steps a second."""
        return self.amount / self.median_s

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "median_s": self.median_s, "sample_steps_per_s": self.speed}


@dataclass(frozen=True)
class LeftOut:
    """A thing that was not measured, and why."""

    name: str
    reason: str


def installed(module: str) -> bool:
    """Whether a module can be found; nothing of it is run, except its parent packages."""
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def measure(job: Job) -> Figure | LeftOut:
    """Run a job in a process of its own."""
    missing = [package for package, module in job.needs.items() if not installed(module)]
    if missing:
        return LeftOut(job.name, f"{' and '.join(missing)} not installed")
    with tempfile.TemporaryDirectory(prefix="delaynet-bench-") as folder:
        result = Path(folder, "result.json")
        content = {"workload": job.workload, "options": job.options, "repeats": job.repeats}
        Path(folder, "job.json").write_text(json.dumps(content))
        command = [sys.executable, "-m", "delaynet_lava.bench.worker", folder]
        problem = _run(command, job.timeout_s)
        if problem:
            return LeftOut(job.name, problem)
        return Figure(name=job.name, **json.loads(result.read_text()))


def _run(command: list[str], timeout_s: float) -> str:
    """Run a command in a process group that does not outlive it; what went wrong, or nothing."""
    environment = {**os.environ, **ENVIRONMENT}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"took more than {timeout_s:.0f} s"
        finally:
            # Lava's processes are children of the one that ran, and may have outlived it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "was killed; is memory short?"
    return lines[-1] if lines else f"ended with exit code {code}"
