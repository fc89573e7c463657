"""The ratios that the engine must reach, and what is measured for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from delaynet_lava.bench.harness import Figure, Job, LeftOut, groups, installed, measure
from delaynet_lava.bench.shapes import CELLS, SHAPES
from delaynet_lava.bench.subject import Subject, calibrated, probe, task_inputs
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import task

__all__ = ["PARTS", "Plan", "Ratio", "Report", "measure_ratios", "parts_of", "plan_ratios"]

PARTS = ("training", "emulator", "lava")

LAVA = {"lava-nc": "lava.magma", "lava-dl": "lava.lib.dl.slayer"}
SLAYER = {"lava-dl": "lava.lib.dl.slayer"}
JAX = {"jax": "jax"}
OURS, LARGE = "delaynet_lava", 512
# name of the peer, its workload, the packages it needs
PEERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("SLAYER", "slayer", SLAYER),
    ("plain loop", "loop", {}),
    ("tuned loop", "tuned", {}),
    ("torch.compile", "compiled", {}),
    ("JAX scan", "scan", JAX),
    ("Spyx", "spyx", {"spyx": "spyx"}),
    ("snnTorch", "snntorch", {"snntorch": "snntorch"}),
    ("Norse", "norse", {"norse": "norse"}),
    ("SpikingJelly", "spikingjelly", {"spikingjelly": "spikingjelly"}),
)
CELL_PEERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("plain loop, our integers", "cells integers", {}),
    ("plain loop", "cells loop", {}),
    ("tuned loop", "cells tuned", {}),
    ("torch.compile", "cells compiled", {}),
    ("JAX scan", "cells scan", JAX),
)
GOALS = {
    "cue": {"slayer": 25.0, "loop": 55.0, "scan": 17.0},
    "psmnist": {workload: 10.0 for _, workload, _ in PEERS},
    CELLS: {"cells integers": 12.0},
}


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


QUICK = Sizes(16, 150, 64, 300, 50, 2, 0.2)
LAVA_STEPS, REPEATS, FILL_S = 300, 5, 3.0


def sizes_of(shape: str, quick: bool) -> Sizes:
    """Of a shape's runs; quick ones are at most those of :data:`QUICK`."""
    if shape == CELLS:
        from delaynet_lava.bench.cells import SAMPLES, STEPS

        samples, steps, emulated = SAMPLES, STEPS, SAMPLES
    else:
        kind = SHAPES[shape]
        samples, steps, emulated = kind.samples, kind.steps, kind.emulator_samples
    if not quick:
        return Sizes(samples, steps, emulated, steps, LAVA_STEPS, REPEATS, FILL_S)
    return replace(
        QUICK,
        train_samples=min(QUICK.train_samples, samples),
        train_steps=min(QUICK.train_steps, steps),
        emulator_samples=min(QUICK.emulator_samples, emulated),
        emulator_steps=min(QUICK.emulator_steps, steps),
    )


def parts_of(shape: str) -> tuple[str, ...]:
    """What can be measured of a shape.

    Raises:
        InputError: there is no such shape.
    """
    if shape == CELLS:
        return ("training", "emulator")
    if shape not in SHAPES:
        raise InputError("--shape", f"{shape!r} is not known", f"choose from: {', '.join([*SHAPES, CELLS])}")
    return SHAPES[shape].parts


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
        networks: on which networks, and how often their hidden neurons spike.
    """

    networks: list[dict[str, Any]]
    sizes: Sizes
    jobs: list[Job]
    pairs: list[_Pair]

    @property
    def groups(self) -> list[list[Job]]:
        """The jobs, those together that take turns."""
        return groups(self.jobs)


@dataclass(frozen=True)
class Report:
    """What was measured, and how it compares."""

    networks: list[dict[str, Any]]
    sizes: Sizes
    figures: list[Figure]
    ratios: list[Ratio]
    left_out: list[LeftOut]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "networks": self.networks,
            "sizes": asdict(self.sizes),
            "figures": [f.as_dict() for f in self.figures],
            "ratios": [r.as_dict() for r in self.ratios],
            "left_out": [asdict(one) for one in self.left_out],
        }


def _named(part: str, subject: Subject) -> str:
    """A second network's figures are called by its layers."""
    return f"{part} {'-'.join(map(str, subject.layers))}" if subject.layers else part


def _against(
    name: str, workload: str, options: dict[str, Any], sizes: Sizes, shape: str
) -> tuple[list[Job], list[_Pair]]:
    """A training step of ours, beside that of each peer; both are called by ``name``."""
    jobs, pairs = [], []
    for peer, work, needs in CELL_PEERS if shape == CELLS else PEERS:
        theirs = f"{name}: {peer}"
        ours = f"{name}: {OURS} beside {peer}"
        jobs += [
            Job(ours, workload, options, {}, sizes.repeats, sizes.fill_s, beside=theirs),
            Job(theirs, work, options, needs, sizes.repeats, sizes.fill_s, beside=theirs),
        ]
        pairs.append(_Pair(f"{name} vs {peer}", ours, theirs, GOALS.get(shape, {}).get(work)))
    return jobs, pairs


def _training(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    options = {
        "subject": subject.options(),
        "samples": sizes.train_samples,
        "steps": sizes.train_steps,
    }
    return _against(_named("training", subject), "training", options, sizes, subject.shape)


def _lava_job(name: str, subject: Subject, sizes: Sizes, **options: Any) -> Job:
    options = {"subject": subject.options(), "steps": sizes.lava_steps, **options}
    # A step is a dozen messages between processes; how long one takes changes from minute to minute.
    turns = f"Lava, {'-'.join(map(str, subject.layers or subject.kind.layers))}"
    return Job(f"Lava: {name}", "lava", options, LAVA, sizes.repeats, sizes.fill_s, turns=turns)


def _emulator(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    options = {
        "subject": subject.options(),
        "samples": sizes.emulator_samples,
        "steps": sizes.emulator_steps,
    }
    name = f"{_named('emulator', subject)}: {OURS}"
    jobs = [Job(name, "emulator", options, {}, sizes.repeats, sizes.fill_s)]
    if "lava" not in subject.kind.parts:
        return jobs, []
    jobs.append(_lava_job("stock", subject, sizes, models="stock"))
    return jobs, [_Pair("emulator vs stock Lava", jobs[0].name, jobs[1].name, 50000.0)]


def _lava(subject: Subject, sizes: Sizes) -> tuple[list[Job], list[_Pair]]:
    large = replace(subject, model=None, layers=(LARGE,), vth=())
    if all(installed(module) for module in LAVA.values()):
        large, _ = calibrated(large, task_inputs(4, word=subject.word)[0])
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


def _for_task(sizes: Sizes, word: str, payloads: bool) -> Sizes:
    """As many steps and samples as the task has.

    Raises:
        InputError: inputs that the peers do not take, or no classes.
    """
    source = task(word)
    if (source.payload_bits and not payloads) or source.classes is None:
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
    model: str | None = None,
    quick: bool = False,
    parts: Sequence[str] = PARTS,
    word: str | None = None,
    shape: str = "cue",
) -> Plan:
    """What to measure for the ratios.

    Args:
        model: a model.pt or net.h5 of the shape of cue; None: a seeded network of the shape whose neurons
            spike as often as they should.
        quick: few and short runs, for a look; the ratios are not those of the goals.
        parts: which of :data:`PARTS`; those that the shape has.
        word: of the task whose inputs are run; None: the shape's.
        shape: of :data:`bench.shapes.SHAPES`, or :data:`bench.shapes.CELLS`.

    Raises:
        InputError: a model that can't be read or has another shape, an unknown shape, a task of payloads.
    """
    known, sizes = parts_of(shape), sizes_of(shape, quick)
    if model and shape != "cue":
        raise InputError("--model", f"goes with the shape cue, not {shape}", "leave one of them out")
    if shape == CELLS:
        if word:
            raise InputError("--task", f"the shape {CELLS} has its own inputs", "leave it out")
        return _plan_cells(sizes, parts)
    first = Subject(model, shape, task=word or "")
    if first.word:
        sizes = _for_task(sizes, first.word, bool(SHAPES[shape].payload_bits))
    about, pairs = [], []
    jobs: dict[str, Job] = {}
    deeper = SHAPES[shape].deeper
    for subject in [first, *([replace(first, layers=deeper)] if deeper else [])]:
        shown, _ = probe(subject, min(16, sizes.emulator_samples), sizes.train_steps)
        subject, rate = calibrated(subject, shown)
        about.append(
            {"summary": subject.network().summary(), "rate": rate, "rate_wanted": subject.kind.rate}
            | subject.options()
        )
        for part in known:
            if part in parts:
                planned, compared = _PLANS[part](subject, sizes)
                jobs |= {job.name: job for job in planned}
                pairs += compared
    return Plan(about, sizes, list(jobs.values()), pairs)


def _plan_cells(sizes: Sizes, parts: Sequence[str]) -> Plan:
    from delaynet_lava.bench import cells

    options = {"samples": sizes.train_samples, "steps": sizes.train_steps}
    jobs, pairs = _against("training", "cells", options, sizes, CELLS) if "training" in parts else ([], [])
    if "emulator" in parts:
        options = {"samples": sizes.emulator_samples, "steps": sizes.emulator_steps}
        name = f"emulator: {OURS}"
        jobs.append(Job(name, "cells emulator", options, {}, sizes.repeats, sizes.fill_s))
    channels, neurons, classes = cells.SIZES
    about = {"summary": f"{channels} - {neurons} Spiking Recurrent Cells - {classes}", "shape": CELLS}
    work = cells.ours(sizes.train_samples, sizes.train_steps)
    work.run()
    return Plan([about | {"rate": work.facts()["rate"], "model": None, "seed": 0}], sizes, jobs, pairs)


def measure_ratios(plan: Plan, start: Callable[[str], None] = lambda name: None) -> Report:
    """Measure a plan, one group after the other.

    Args:
        start: called with the names of each group of things before it is measured.
    """
    results = []
    for group in plan.groups:
        start(" / ".join(job.name for job in group))
        results += measure(group)
    figures = {r.name: r for r in results if isinstance(r, Figure)}
    return Report(
        networks=plan.networks,
        sizes=plan.sizes,
        figures=list(figures.values()),
        ratios=[_ratio(p, figures) for p in plan.pairs if p.ours in figures and p.theirs in figures],
        left_out=[r for r in results if isinstance(r, LeftOut)],
    )
