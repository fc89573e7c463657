"""How the benchmark times: runs, turns, numbers of threads, and processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delaynet_lava.bench import harness, machine, ratios
from delaynet_lava.bench.harness import Figure, Job, LeftOut, take
from delaynet_lava.bench.turns import BURST_S, Turns, pair_of_ends


class FakeWork:
    """Runs that take given times on a clock of their own, or so long with so many threads."""

    def __init__(self, *seconds: float, by_threads: dict[int, float] | None = None) -> None:
        self.now, self.seconds, self.by_threads = 0.0, list(seconds), by_threads or {}
        self.threads, self.runs = 0, 0

    def clock(self) -> float:
        return self.now

    def use_threads(self, number: int) -> None:
        self.threads = number

    def __call__(self) -> None:
        self.runs += 1
        self.now += self.by_threads[self.threads] if self.by_threads else self.seconds.pop(0)


# How a thing is timed


def timed(work: FakeWork, repeats: int = 5, threads: tuple[int, ...] = (1,)) -> harness.Timing:
    (timing,) = take([work], repeats, 3.0, [threads], work.use_threads, work.clock)
    return timing


def test_the_warm_up_is_not_counted_and_the_median_is_of_the_rest():
    timing = timed(FakeWork(50.0, 3.0, 1.0, 2.0, 10.0, 4.0))
    assert timing.warm_up_s == 50.0
    assert timing.runs_s == [3.0, 1.0, 2.0, 10.0, 4.0]
    measured = Figure("a", timing.runs_s, 9.0, 100.0, 1, 10.0, 20.0, {})
    assert measured.median_s == 3.0
    assert measured.speed == 100.0 / 3.0


def test_short_runs_fill_three_seconds_or_are_many():
    assert len(timed(FakeWork(*[0.125] * 99)).runs_s) == 24
    assert len(timed(FakeWork(*[0.001] * 999)).runs_s) == harness.MOST_RUNS
    assert len(timed(FakeWork(*[0.001] * 999), repeats=600).runs_s) == 600


def test_things_take_turns_until_the_shortest_has_filled_its_time():
    order: list[str] = []
    now = [0.0]

    def work(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            now[0] += seconds

        return run

    pair = take([work("a", 0.5), work("b", 9.0)], 2, 3.0, [(1,), (1,)], clock=lambda: now[0])
    assert order == ["a", "b"] * 7  # the first of each to warm up
    assert [timing.runs_s for timing in pair] == [[0.5] * 6, [9.0] * 6]


def test_processes_take_turns_until_both_have_enough():
    clock, order = [0.0], []
    handed: list[bool] = []

    class Other(Turns):
        """Works for nine turns, the first of which is its warm-up."""

        burst_s = 0.25

        def __init__(self) -> None:
            pass

        def wait(self) -> bool:
            order.append("other")
            return order.count("other") < 9

        def hand_over(self, enough: bool) -> None:
            handed.append(enough)

    def run() -> None:
        order.append("mine")
        clock[0] += 0.1

    (timing,) = take([run], 2, 0.5, [(1,)], clock=lambda: clock[0], turns=Other())
    # A warm-up; then turns of three runs each, which fill the quarter of a second.
    assert order == ["mine", *(["other"] + ["mine"] * 3) * 8, "other"]
    assert handed == [False, False, *[True] * 8] and len(timing.runs_s) == 24


def test_the_turn_goes_from_process_to_process():
    first, second = (Turns(ends) for ends in pair_of_ends())
    assert first.wait()
    first.hand_over(enough=False)
    assert second.wait()
    second.hand_over(enough=True)
    assert not first.wait()
    assert Turns().wait() is False


def test_one_that_has_ended_asks_for_no_more_turns():
    (takes, gives), ends = pair_of_ends()
    os.close(takes)
    os.close(gives)
    left = Turns(ends)
    assert not left.wait()
    left.hand_over(enough=False)


@pytest.mark.parametrize(("times", "best"), [({1: 2.0, 2: 3.0}, 1), ({1: 3.0, 2: 2.0}, 2)])
def test_each_thing_gets_the_number_of_threads_that_suits_it(times, best):
    timing = timed(FakeWork(by_threads=times), threads=(1, 2))
    assert timing.threads == best and timing.trials_s == times
    assert timing.runs_s == [2.0] * 5


def test_numbers_of_threads_are_tried_in_turns_until_their_runs_fill_a_time():
    one, two = [0.5, 0.6, 0.4], [[0.2], [0.1], [0.05, 0.01, 0.05]]
    tries = [seconds for first, rest in zip(one, two, strict=True) for seconds in (first, *rest)]
    timing = timed(FakeWork(1.0, *tries, *[0.2] * 999), threads=(1, 2))
    assert timing.trials_s == pytest.approx({1: 0.4, 2: 0.01})
    assert timing.threads == 2 and timing.runs_s == pytest.approx([0.2] * 15)


def test_long_runs_are_tried_for_some_seconds_only():
    assert timed(FakeWork(9.0, 2.0, 4.0, 2.0, *[1.0] * 5), threads=(1, 2)).trials_s == {1: 2.0, 2: 4.0}


def test_what_takes_turns_is_one_group_where_the_first_of_it_stands():
    jobs = [Job("a", "w"), Job("b", "w", turns="t"), Job("c", "w"), Job("d", "w", turns="t")]
    assert [[job.name for job in group] for group in harness.groups(jobs)] == [["a"], ["b", "d"], ["c"]]
    plan = ratios.plan_ratios(quick=True)
    lava = {job.name: job.turns for job in plan.jobs if job.workload == "lava"}
    assert sorted(lava.values()) == ["Lava, 125"] * 3 + ["Lava, 512"] * 2
    assert [job.name for job in plan.groups[1]] == [
        "training: delaynet_lava beside plain loop", "training: plain loop"
    ]  # fmt: skip


# A process of its own


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def ran(command: list[str], timeout_s: float) -> str:
    """What went wrong with a command."""
    with harness._running(command) as ended:
        return ended(timeout_s)


def test_a_failure_is_told_in_its_own_words():
    assert ran(python("pass"), 60) == ""
    assert ran(python("print(1); raise ValueError('odd')"), 60) == "ValueError: odd"
    assert ran(python("import sys; sys.exit(3)"), 60) == "ended with exit code 3"
    assert "memory" in ran(python("import os; os.kill(os.getpid(), 9)"), 60)


def gone(pid: int) -> bool:
    """Whether a process has ended, or does within some seconds; a zombie has."""
    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
FORKS = """
import os, sys, time
child = os.fork()
if child:
    open(sys.argv[1], "w").write(f"{os.getpid()} {child}")
time.sleep(60)
"""


@needs_proc
def test_what_takes_too_long_is_ended_with_its_children(tmp_path):
    path = tmp_path / "pids"
    assert ran([*python(FORKS), str(path)], 8.0) == "took more than 8 s"
    assert all(gone(int(pid)) for pid in path.read_text().split())


@needs_proc
def test_nothing_remains_where_the_command_itself_is_killed(tmp_path):
    path = tmp_path / "pid"
    worker = (
        "import os, time; from delaynet_lava.processes import end_with_parent; end_with_parent(); "
        f"open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    code = (
        "from delaynet_lava.bench.harness import _running\n"
        f"with _running([{sys.executable!r}, '-c', {worker!r}]) as ended: ended(60)"
    )
    parent = subprocess.Popen(python(code))
    try:
        for _ in range(1200):
            if path.exists() and path.read_text():
                break
            time.sleep(0.1)
        pid = int(path.read_text())
        os.kill(pid, 0)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(pid)


@needs_proc
def test_an_interrupt_ends_both_of_a_pair(tmp_path):
    code = (
        "import signal; from delaynet_lava.bench.harness import Job, measure; "
        # What a shell starts in the background ignores it.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "measure([Job(name, 'cells', repeats=10**9, beside='pair') for name in 'ab'])"
    )
    parent = subprocess.Popen(
        python(code), stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    children: list[int] = []
    try:
        for _ in range(1200):
            listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            children = [int(pid) for pid in listed]
            if len(children) == 2:
                break
            time.sleep(0.1)
        assert len(children) == 2
        parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=30)
    finally:
        parent.kill()
        parent.wait()
    assert b"KeyboardInterrupt" in said and all(gone(pid) for pid in children)
    assert not list(tmp_path.iterdir())


def test_the_memory_of_a_process_is_its_own(tmp_path):
    if machine.memory_mib() is None:
        pytest.skip("this system does not tell")
    ballast = np.ones(64 << 20, np.uint8)
    grown = "import numpy; from delaynet_lava.bench.machine import memory_mib as m; a = m(); "
    grown += "x = numpy.ones(64 << 20, numpy.uint8); y = m(); del x; print(a, y, m(), m(True))"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(python(grown), capture_output=True, text=True, check=True, env=plain).stdout
    before, held, after, peak = (float(n) for n in told.split())
    assert held - before == pytest.approx(64, abs=4)
    assert after < held - 60 and peak == pytest.approx(held, abs=4)
    # The peak of this process, which started the other one, is no part of it.
    assert peak < machine.memory_mib(peak=True) and ballast.all()


def test_a_pair_runs_in_two_processes_at_the_same_time():
    options, few = {"samples": 4, "steps": 20}, {"repeats": 2, "fill_s": 0.0, "beside": "pair"}
    jobs = [Job("ours", "cells", options, **few), Job("theirs", "cells integers", options, **few)]
    ours, theirs = harness.measure(jobs)
    assert isinstance(ours, Figure) and isinstance(theirs, Figure), (ours, theirs)
    # Two turns at least, each of which fills a quarter of a second.
    assert all(sum(one.runs_s) >= 2 * BURST_S and one.facts["gradient_finite"] for one in (ours, theirs))


def test_of_a_pair_one_runs_on_where_the_other_fails():
    options, few = {"samples": 4, "steps": 20}, {"repeats": 1, "fill_s": 0.0, "beside": "pair"}
    ours, broken = Job("ours", "cells", options, **few), Job("broken", "cells loop", {"what": 1}, **few)
    seen, failed = harness.measure([ours, broken])
    assert isinstance(seen, Figure) and isinstance(failed, LeftOut)
    assert "unexpected keyword argument 'what'" in failed.reason
    absent = replace(broken, needs={"nothing": "nothing_of_this_name"})
    assert harness.measure([ours, absent]) == [LeftOut("broken", "nothing not installed")]
