"""How a thing is measured: in a process of its own, after a warm-up, as the median of its runs.

A process of its own makes the peak of memory the thing's own, keeps what one package does to
threads and allocators away from the next, and lets a failure be a line in the report. Things whose times
hang on the mood of the machine share a process and take turns, so that each meets the same minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import util
from pathlib import Path
from typing import IO, Any

from delaynet_lava.bench.turns import ALONE, Turns, pair_of_ends
from delaynet_lava.processes import command_of

__all__ = ["Figure", "Job", "LeftOut", "Timing", "Work", "groups", "installed", "measure", "take"]

# The same for everything that is measured. Waiting threads sleep after 0.1 ms: those that spin take the cores
# from the ones at work wherever two runtimes, or two programs, share a machine. The heap keeps the large
# arrays of a pass for the next one instead of mapping fresh pages each time, as `delaynet train` has it.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
TRIALS, SHORT_S, TRIAL_S = 3, 0.3, 3.0
"""Turns of each number of threads, the seconds that their runs fill together, and those after which it gets
no more turns."""
MOST_RUNS = 500


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
    """

    run: Callable[[], Any]
    amount: float
    facts: Callable[[], dict[str, Any]] = dict
    close: Callable[[], None] = lambda: None
    threads: bool = True


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
    runs: Sequence[Callable[[], Any]],
    repeats: int,
    fill_s: float,
    threads: Sequence[Sequence[int]],
    use_threads: Callable[[int], None] = lambda n: None,
    clock: Callable[[], float] = time.perf_counter,
    turns: Turns = ALONE,
) -> list[Timing]:
    """Time things in turns: a warm-up and a few runs to choose a number of threads for each, then rounds.

    Small operations are often faster on one thread than on all, by factors: everything is measured
    with the number of threads that is best for it.

    Args:
        runs: the things; in a round each runs once.
        repeats: rounds that count, at least.
        fill_s: rounds go on until the runs of each thing fill so many seconds, or are :data:`MOST_RUNS`.
        threads: for each thing, the numbers to choose from.
        turns: with another process, of which this one has one, for its warm-up. Each later one is a round,
            in which things run until they fill it; rounds go on until the other has enough, too.
    """

    def once(run: Callable[[], Any]) -> float:
        started = clock()
        run()
        return clock() - started

    timings: list[Timing] = []
    for run, numbers in zip(runs, threads, strict=True):
        use_threads(numbers[-1])
        warm_up = once(run)
        tries: dict[int, list[float]] = {number: [] for number in numbers if len(numbers) > 1}
        # In turns: another program may have a core for a tenth of a second.
        for number in [*tries] * TRIALS:
            use_threads(number)
            until = min(sum(tries[number]) + SHORT_S / TRIALS, TRIAL_S)
            while sum(tries[number]) < until:
                tries[number].append(once(run))
        best = {number: min(taken) for number, taken in tries.items()}
        timings.append(Timing(warm_up, [], min(best, key=lambda n: best[n]) if best else numbers[0], best))
    enough, rounds = False, 0
    turns.hand_over(enough)
    while turns.wait() or not enough:
        for run, timing in zip(runs, timings, strict=True):
            use_threads(timing.threads)
            burst = [once(run)]
            while sum(burst) < turns.burst_s:
                burst.append(once(run))
            timing.runs_s.extend(burst)
        rounds += 1
        filled = all(sum(one.runs_s) >= fill_s or len(one.runs_s) >= MOST_RUNS for one in timings)
        enough = rounds >= repeats and filled
        turns.hand_over(enough)
    turns.hand_over(True)
    return timings


@dataclass(frozen=True)
class Job:
    """A thing to measure.

    Attributes:
        name: as it is printed; unique within a report.
        workload: name in :data:`delaynet_lava.bench.worker.WORKLOADS`.
        options: its arguments, plain values.
        needs: modules without which it is left out, by the name of their package.
        repeats: runs that count, at least. fill_s: seconds that they fill, at least, unless they are many.
        timeout_s: ended and left out after this long.
        turns: name of a group that shares a process and takes turns; "": alone.
        beside: name of a pair that takes turns, each in a process of its own; "": of none.
    """

    name: str
    workload: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    repeats: int = 5
    fill_s: float = 3.0
    timeout_s: float = 1800.0
    turns: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Figure:
    """What was measured of a thing.

    Attributes:
        runs_s: seconds of each run that counts. warm_up_s: of the one before them.
        amount: sample-steps of a run.
        threads: as chosen; None where there is no choice. trials_s: see :class:`Timing`.
        memory_mib: resident memory before the first run, packages and inputs included.
        peak_memory_mib: the most there ever was, of the largest process; one figure for all that take turns.
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


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that are measured at the same time, in turns, in the order of the first of each."""
    found: dict[tuple[str, str, str], list[Job]] = {}
    for job in jobs:
        alone = "" if job.turns or job.beside else job.name
        found.setdefault((job.turns, job.beside, alone), []).append(job)
    return list(found.values())


def measure(jobs: Sequence[Job]) -> list[Figure | LeftOut]:
    """Run a group of jobs: in a process of its own, or in one for each of a pair.

    Of a pair of which something is not installed only that is told: nothing of it is run.
    """
    missing = {job.name: [p for p, module in job.needs.items() if not installed(module)] for job in jobs}
    left_out = {
        name: LeftOut(name, f"{' and '.join(packages)} not installed")
        for name, packages in missing.items()
        if packages
    }
    there = [job for job in jobs if job.name not in left_out]
    found: dict[str, Figure | LeftOut] = dict(left_out)
    with contextlib.ExitStack() as stack:
        if not jobs[0].beside:
            works = [_working(there)] if there else []
        else:
            pair = [] if left_out else zip(jobs, pair_of_ends(), strict=True)
            works = [_working([job], ends) for job, ends in pair]
        for results in [stack.enter_context(work) for work in works]:
            found |= {result.name: result for result in results()}
    return [found[job.name] for job in jobs if job.name in found]


@contextlib.contextmanager
def _working(
    jobs: Sequence[Job], ends: tuple[int, int] | None = None
) -> Iterator[Callable[[], list[Figure | LeftOut]]]:
    """Run jobs in one process, for what waits for their results.

    Args:
        ends: what it takes turns with, see :mod:`bench.turns`.
    """
    content = {
        "works": [[job.workload, job.options] for job in jobs],
        "repeats": max(job.repeats for job in jobs),
        "fill_s": max(job.fill_s for job in jobs),
        "ends": ends,
    }
    # Most of the time of one of a pair is that of the other.
    timeout_s = sum(job.timeout_s for job in jobs) * (1 if ends is None else 2)
    with tempfile.TemporaryDirectory(prefix="delaynet-bench-") as folder:
        Path(folder, "jobs.json").write_text(json.dumps(content))
        with _running([*command_of("delaynet_lava.bench.worker"), folder], ends or ()) as ended:

            def results() -> list[Figure | LeftOut]:
                problem = ended(timeout_s)
                if problem:
                    return [LeftOut(job.name, problem) for job in jobs]
                seen = json.loads(Path(folder, "results.json").read_text())
                return [Figure(job.name, **one) for job, one in zip(jobs, seen, strict=True)]

            yield results


@contextlib.contextmanager
def _running(command: list[str], ends: Sequence[int] = ()) -> Iterator[Callable[[float], str]]:
    """A command in a process group that is ended here at the latest, for what waits for it.

    That takes the seconds to wait at most, and gives what went wrong, or nothing.

    Args:
        ends: file descriptors that the command takes over.
    """
    environment = {**os.environ, **ENVIRONMENT}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
            pass_fds=ends,
        )
        for end in ends:
            os.close(end)
        try:
            yield lambda timeout_s: _problem(process, errors, timeout_s)
        finally:
            # Lava's processes are children of the one that ran, and may have outlived it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _problem(process: subprocess.Popen[bytes], errors: IO[bytes], timeout_s: float) -> str:
    """What went wrong with a process, once it has ended."""
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return f"took more than {timeout_s:.0f} s"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "was killed; is memory short?"
    return lines[-1] if lines else f"ended with exit code {code}"
