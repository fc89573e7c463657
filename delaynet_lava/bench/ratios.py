"""The ratios that the engine must reach, and what is measured for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from delaynet_lava.bench.harness import Figure, Job, LeftOut, groups, installed, measure
from delaynet_lava.bench.subject import RATE, TASK, Subject, calibrated, task_inputs
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import task

__all__ = ["PARTS", "SLAYER", "Plan", "Ratio", "Report", "measure_ratios", "plan_ratios"]

PARTS = ("training", "emulator", "lava")

LAVA = {"lava-nc": "lava.magma", "lava-dl": "lava.lib.dl.slayer"}
SLAYER = {"lava-dl": "lava.lib.dl.slayer"}
OURS, LARGE = "delaynet_lava", 512
# name of the peer, its workload, the packages it needs
PEERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("SLAYER", "slayer", SLAYER),
    ("plain loop", "loop", {}),
    ("tuned loop", "tuned", {}),
    ("snnTorch", "snntorch", {"snntorch": "snntorch"}),
    ("Norse", "norse", {"norse": "norse"}),
    ("SpikingJelly", "spikingjelly", {"spikingjelly": "spikingjelly"}),
)


@dataclass(frozen=True)
class Sizes:
    """How much is run: samples and steps of a training step and of the emulator, Lava's steps; how often."""

    train_samples: int
    train_steps: int
    emulator_samples: int
    emulator_steps: int
    lava_steps: int
    repeats: int
    fill_s: float


FULL = Sizes(64, 2250, 256, 2250, 300, 5, 3.0)
QUICK = Sizes(16, 150, 64, 300, 50, 2, 0.2)


@dataclass(frozen=True)
class Ratio:
    """How two measured things compare, by the time of a sample-step.

    Attributes:
        ours, theirs: names of the figures.
        value: how many times faster ours is; where ``at_most``, how many times longer ours takes.
        goal: what the value should be at least, or at most; None: only shown.
    """

    name: str
    ours: str
    theirs: str
    value: float
    goal: float | None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @property
    def text(self) -> str:
        """The value with the digits that mean something."""
        return f"{self.value:,.{2 if self.value < 10 else 1 if self.value < 100 else 0}f}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class _Pair:
    name: str
    ours: str
    theirs: str
    goal: float | None = None
    at_most: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        network: on which network, and how often its hidden neurons spike.
    """

    network: dict[str, Any]
    sizes: Sizes
    jobs: list[Job]
    pairs: list[_Pair]

    @property
    def groups(self) -> list[list[Job]]:
        """The jobs, those that take turns together."""
        return groups(self.jobs)


@dataclass(frozen=True)
class Report:
    """What was measured, and how it compares."""

    network: dict[str, Any]
    sizes: Sizes
    figures: list[Figure]
    ratios: list[Ratio]
    left_out: list[LeftOut]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "network": self.network,
            "sizes": asdict(self.sizes),
            "figures": [f.as_dict() for f in self.figures],
            "ratios": [r.as_dict() for r in self.ratios],
            "left_out": [asdict(one) for one in self.left_out],
        }


def _training(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    options = {
        "subject": subject.options(),
        "samples": sizes.train_samples,
        "steps": sizes.train_steps,
    }
    ours = f"training: {OURS}"
    jobs = [Job(ours, "training", options, SLAYER, sizes.repeats, sizes.fill_s)]
    pairs = []
    for name, workload, needs in PEERS:
        jobs.append(Job(f"training: {name}", workload, options, needs, sizes.repeats, sizes.fill_s))
        goal = 25.0 if workload in ("slayer", "loop") else None
        pairs.append(_Pair(f"training vs {name}", ours, jobs[-1].name, goal))
    return jobs, pairs


def _lava_job(name: str, subject: Subject, sizes: Sizes, **options: Any) -> Job:
    options = {"subject": subject.options(), "steps": sizes.lava_steps, **options}
    # A step is a dozen messages between processes; how long one takes changes from minute to minute.
    turns = f"Lava, {subject.neurons}"
    return Job(f"Lava: {name}", "lava", options, LAVA, sizes.repeats, sizes.fill_s, turns=turns)


def _emulator(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    options = {
        "subject": subject.options(),
        "samples": sizes.emulator_samples,
        "steps": sizes.emulator_steps,
    }
    jobs = [
        Job(f"emulator: {OURS}", "emulator", options, {}, sizes.repeats, sizes.fill_s),
        _lava_job("stock", subject, sizes, models="stock"),
    ]
    return jobs, [_Pair("emulator vs stock Lava", jobs[0].name, jobs[1].name, 20000.0)]


def _lava(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    large = replace(subject, model=None, neurons=LARGE, vth=-1)
    if all(installed(module) for module in LAVA.values()):
        large, _ = calibrated(large, task_inputs(4, word=subject.task)[0])
    jobs = [
        _lava_job("FastDelayDense", subject, sizes, models="fast"),
        _lava_job("stock", subject, sizes, models="stock"),
        _lava_job("undelayed", subject, sizes, models="stock", delayed=False),
        _lava_job(f"FastDelayDense, {LARGE}", large, sizes, models="fast"),
        _lava_job(f"stock, {LARGE}", large, sizes, models="stock"),
    ]
    fast, stock, plain, fast_large, stock_large = (job.name for job in jobs)
    return jobs, [
        _Pair("Lava: FastDelayDense vs stock", fast, stock, 5.0),
        _Pair("Lava: FastDelayDense, time vs undelayed", fast, plain, 1.15, at_most=True),
        _Pair(f"Lava: FastDelayDense vs stock, {LARGE}", fast_large, stock_large, 40.0),
    ]


_PLANS = {"training": _training, "emulator": _emulator, "lava": _lava}


def _ratio(pair: _Pair, figures: dict[str, Figure]) -> Ratio:
    times_faster = figures[pair.ours].speed / figures[pair.theirs].speed
    value = 1 / times_faster if pair.at_most else times_faster
    return Ratio(pair.name, pair.ours, pair.theirs, value, pair.goal, pair.at_most)


def _for_task(sizes: Sizes, word: str) -> Sizes:
    """As many steps and samples as the task has.

    Raises:
        InputError: inputs that the peers do not take, or no classes.
    """
    source = task(word)
    if source.payload_bits or source.classes is None:
        raise InputError(f"task {word}", "sends payloads or has no classes", "name one of spikes and classes")
    size = source.size("test")
    return replace(
        sizes,
        train_samples=min(sizes.train_samples, size or sizes.train_samples),
        train_steps=min(sizes.train_steps, source.steps),
        emulator_samples=min(sizes.emulator_samples, size or sizes.emulator_samples),
        emulator_steps=min(sizes.emulator_steps, source.steps),
    )


def plan_ratios(
    model: str | None = None, quick: bool = False, parts: Sequence[str] = PARTS, word: str | None = None
) -> Plan:
    """What to measure for the ratios.

    Args:
        model: a model.pt or net.h5 of the task's shape; None: a seeded network of the shipped
            model's shape whose neurons spike as often.
        quick: few and short runs, for a look; the ratios are not those of the goals.
        parts: which of :data:`PARTS`.
        word: of the task whose inputs are run; None: the one that the goals are for.

    Raises:
        InputError: a model that can't be read or has another shape, or a task of payloads.
    """
    word = word or TASK
    sizes = _for_task(QUICK if quick else FULL, word)
    probe, _ = task_inputs(min(16, sizes.emulator_samples), sizes.train_steps, word)
    subject, rate = calibrated(Subject(model, task=word), probe)
    plans = [_PLANS[part](subject, sizes) for part in PARTS if part in parts]
    about = {"summary": subject.network().summary(), "rate": rate, "rate_wanted": RATE, **subject.options()}
    jobs = {job.name: job for jobs, _ in plans for job in jobs}
    return Plan(about, sizes, list(jobs.values()), [pair for _, pairs in plans for pair in pairs])


def measure_ratios(plan: Plan, start: Callable[[str], None] = lambda name: None) -> Report:
    """Measure a plan, one thing after the other; what takes turns, together.

    Args:
        start: called with the names of each group of things before it is measured.
    """
    results = []
    for group in plan.groups:
        start(" / ".join(job.name for job in group))
        results += measure(group)
    figures = {r.name: r for r in results if isinstance(r, Figure)}
    return Report(
        network=plan.network,
        sizes=plan.sizes,
        figures=list(figures.values()),
        ratios=[_ratio(p, figures) for p in plan.pairs if p.ours in figures and p.theirs in figures],
        left_out=[r for r in results if isinstance(r, LeftOut)],
    )
