"""How time grows with steps, samples, neurons and spikes: one thing varied, the others held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from delaynet_lava.bench.harness import Figure, Job, LeftOut, measure
from delaynet_lava.bench.ratios import FILL_S, QUICK, REPEATS
from delaynet_lava.bench.subject import RATE, Subject, calibrated, random_inputs

__all__ = ["SCALED", "Plan", "Scaling", "Series", "measure_scaling", "plan_scaling"]

SCALED = ("training", "emulator")

SIZES = (125, 256, 512, 1024, 2048, 4096, 8192)
RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
FAN_OUT, QUICK_POINTS = 125, 3
FEEDBACK = 0.2  # where `delaynet train` starts


# Values of what varies, and the options of the workload there.
Points = Sequence[tuple[float, dict[str, Any]]]


@dataclass(frozen=True)
class Plan:
    """A series to be measured.

    Attributes:
        over: see :class:`Series`.
        points: value of what varies, and what to measure there. Of spikes the run says the value.
    """

    name: str
    over: str
    points: list[tuple[float, Job]]


@dataclass(frozen=True)
class Series:
    """A measured series.

    Attributes:
        over: "steps", "samples", "neurons" or "spikes" (of the hidden layer in a run).
        x: values of what varies. figures: one each.
    """

    name: str
    over: str
    x: list[float]
    figures: list[Figure]

    @property
    def slope(self) -> float | None:
        """Exponent k of ``time ~ x**k``, fitted to the medians; None where nothing varied."""
        if len(set(self.x)) < 2:
            return None
        return float(np.polyfit(np.log(self.x), np.log([f.median_s for f in self.figures]), 1)[0])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = [{"x": x, **f.as_dict()} for x, f in zip(self.x, self.figures, strict=True)]
        return {"name": self.name, "over": self.over, "slope": self.slope, "points": points}


@dataclass
class Scaling:
    """What a run of the series found."""

    series: list[Series]
    left_out: list[LeftOut]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "series": [s.as_dict() for s in self.series],
            "left_out": [asdict(one) for one in self.left_out],
        }


def _doubled(first: int, last: int, quick: bool) -> list[int]:
    """first, 2 first, ... up to last; only a few for a quick look."""
    return [first << k for k in range(64) if first << k <= last][: QUICK_POINTS if quick else None]


def _series(name: str, over: str, quick: bool, points: Points) -> Plan:
    part = name.split()[0]
    if part == "training":
        # Over many thousand steps the exact gradient leaves the range of floats.
        points = [(x, {**options, "feedback": FEEDBACK}) for x, options in points]
    repeats, fill_s = (QUICK.repeats, QUICK.fill_s) if quick else (REPEATS, FILL_S)
    jobs = [(x, Job(f"{name}: {x:g}", part, options, {}, repeats, fill_s)) for x, options in points]
    return Plan(name, over, jobs)


def plan_scaling(quick: bool = False, parts: Sequence[str] = SCALED) -> list[Plan]:
    """The series, on seeded networks and random input spikes.

    Args:
        quick: few and small points, for a look.
        parts: which of :data:`SCALED`.
    """
    base, _ = calibrated(Subject(), random_inputs(16, 2000))
    few = 10 if quick else 1  # a quick look takes a tenth of the steps

    def run(subject: Subject, samples: int, steps: int, rate: float | None = None) -> dict[str, Any]:
        varied = {"samples": samples, "steps": steps, "rate": rate}
        return {"subject": subject.options(), "inputs": "random", **varied}

    def sized(samples: int, largest: int, rate: Callable[[int], float], fan_out: int | None = None) -> Points:
        sizes = [n for n in SIZES if n <= largest][: QUICK_POINTS if quick else None]
        return [(n, run(Subject(layers=(n,), fan_out=fan_out), samples, 500 // few, rate(n))) for n in sizes]

    plans: list[tuple[str, str, Points]] = []
    for part, samples, largest in (("training", 4, 128), ("emulator", 32, 1024)):
        lengths, batches = _doubled(2000 // few, 64000, quick), _doubled(samples, largest, quick)
        plans += [
            (f"{part} over steps", "steps", [(t, run(base, samples, t)) for t in lengths]),
            (f"{part} over samples", "samples", [(b, run(base, b, 2000 // few)) for b in batches]),
        ]

    def same(neurons: int) -> float:
        return RATE

    def shared(neurons: int) -> float:
        return RATE * SIZES[0] / neurons

    rates = RATES[: QUICK_POINTS if quick else None]
    by_rate = [(r, run(Subject(layers=(1024,)), 32, 500 // few, r)) for r in rates]
    plans += [
        ("training over neurons, all to all", "neurons", sized(8, 1024, same)),
        (f"emulator over neurons, {FAN_OUT} synapses each", "neurons", sized(32, 8192, same, FAN_OUT)),
        ("emulator over neurons, all to all, as many spikes in all", "neurons", sized(32, 8192, shared)),
        ("emulator over neurons, all to all, as many spikes each", "neurons", sized(32, 2048, same)),
        ("emulator over spikes, 1024 neurons, all to all", "spikes", by_rate),
    ]
    return [_series(name, over, quick, points) for name, over, points in plans if name.split()[0] in parts]


def measure_scaling(plans: Sequence[Plan], start: Callable[[str], None] = lambda name: None) -> Scaling:
    """Measure all series, one point after the other.

    Args:
        start: called with the name of each point before it is measured.
    """
    series, left_out = [], []
    for plan in plans:
        measured = []
        for x, job in plan.points:
            start(job.name)
            (result,) = measure([job])
            if isinstance(result, LeftOut):
                left_out.append(result)
            else:
                measured.append((result.facts["spikes"] if plan.over == "spikes" else x, result))
        if measured:
            xs, figures = zip(*measured, strict=True)
            series.append(Series(plan.name, plan.over, list(xs), list(figures)))
    return Scaling(series, left_out)
