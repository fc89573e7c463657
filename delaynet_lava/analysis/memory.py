"""How far a network's memory reaches: accuracy over the wait and over the number of cues (Fig. 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.evaluation import evaluate, unwanted
from delaynet_lava.export.retime import at_step_of
from delaynet_lava.network import Network
from delaynet_lava.pictures import COLOURS, GREY, bare
from delaynet_lava.tasks.cue import CueAccumulation, last_cues_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Point", "draw_memory", "measure", "wilson"]

REMEMBERED = 7
_Z95 = 1.959963984540054


def wilson(right: int, samples: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``
    """
    p, z2 = right / samples, _Z95**2
    centre = p + z2 / (2 * samples)
    spread = _Z95 * np.sqrt(p * (1 - p) / samples + z2 / (4 * samples**2))
    scale = 1 + z2 / samples
    return float(max(0.0, (centre - spread) / scale)), float(min(1.0, (centre + spread) / scale))


@dataclass(frozen=True)
class Point:
    """One network at one setting of the task, over all seeds of samples.

    Attributes:
        net: the network's name. cues, wait_ms: of the task.
        right, samples: decisions.
        rate: spikes of a neuron of the first layer in a step.
        u_wraps, v_saturations: over all layers; saturations not of narrow membranes, which clip by design.
    """

    net: str
    cues: int
    wait_ms: int
    right: int
    samples: int
    rate: float
    u_wraps: int
    v_saturations: int

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return self.right / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % confidence interval."""
        return wilson(self.right, self.samples)

    @property
    def model(self) -> float:
        """Accuracy of one who knows the last seven cues only."""
        return last_cues_accuracy(self.cues, REMEMBERED)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **vars(self),
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "last_cues_model": self.model,
            "margin": self.accuracy - self.model,
        }


def measure(
    networks: dict[str, Network],
    settings: Sequence[tuple[int, int]],
    samples: int,
    seeds: Sequence[int],
    on_point: Callable[[str], None] | None = None,
) -> list[Point]:
    """Run every network at every setting (cues, wait_ms) on fresh test samples of every seed.

    All networks see the same samples.

    Args:
        samples: for each seed.
        on_point: called with what is to be run, before it is.
    """
    points = []
    for cues, wait_ms in settings:
        for name, network in networks.items():
            if on_point is not None:
                on_point(f"{name}: {cues} cues, {wait_ms} ms")
            tasks = [at_step_of(network, CueAccumulation(cues, wait_ms, seed)) for seed in seeds]
            runs = [evaluate(network, task, samples) for task in tasks]
            points.append(
                Point(
                    name, cues, wait_ms,
                    right=sum(r.right for r in runs),
                    samples=samples * len(runs),
                    rate=float(np.mean([r.spikes_per_neuron_step[0] for r in runs])),
                    u_wraps=sum(sum(r.u_wraps) for r in runs),
                    v_saturations=sum(sum(unwanted(network, r.v_saturations)) for r in runs),
                )
            )  # fmt: skip
    return points


def draw_memory(over_wait: Sequence[Point], over_cues: Sequence[Point]) -> Figure:
    """Accuracy over the wait, and over cues beside the model of the last seven; bars are 95 % intervals."""
    from matplotlib.figure import Figure

    panels = [(over_wait, "wait, s"), (over_cues, "cues")]
    panels = [(points, label) for points, label in panels if points]
    figure = Figure(figsize=(5.2 * len(panels), 4.0), layout="constrained")
    for place, (points, label) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        bare(axes)
        for name, colour in zip(dict.fromkeys(p.net for p in points), COLOURS * 9, strict=False):
            mine = sorted((p for p in points if p.net == name), key=lambda p: (p.cues, p.wait_ms))
            x = [p.cues if points is over_cues else p.wait_ms / 1000 for p in mine]
            y = np.array([p.accuracy for p in mine])
            low, high = np.array([p.interval for p in mine]).T
            # An interval holds its share, but for rounding.
            bars = np.maximum([y - low, high - y], 0)
            axes.errorbar(x, y, bars, fmt="o-", color=colour, label=name, ms=4, capsize=2, lw=1.5)
        if points is over_cues:
            counts = sorted({p.cues for p in points})
            model = [last_cues_accuracy(n, REMEMBERED) for n in counts]
            axes.plot(counts, model, "--", color=GREY, label=f"knows the last {REMEMBERED} cues only")
        else:
            axes.set_xscale("log")
            waits = sorted({p.wait_ms / 1000 for p in points})
            axes.set_xticks(waits, [f"{wait:g}" for wait in waits])
            axes.set_xticks([], minor=True)
        axes.axhline(0.5, color="#bbbbbb", lw=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        axes.set_ylim(0.45, 1.01)
        axes.grid(True, color="#e5e5e5", linewidth=0.6)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure
