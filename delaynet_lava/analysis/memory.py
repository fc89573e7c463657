"""Accuracy of networks while options of their task vary, such as how long they have to remember (Fig. 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.evaluation import Silence, evaluate, unwanted
from delaynet_lava.network import Network
from delaynet_lava.notebook import no_bar
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure
from delaynet_lava.tasks.rebinned import at_step_of
from delaynet_lava.tasks.registry import task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Point", "Setting", "draw_memory", "measure", "wilson"]

LOGARITHMIC = 20  # a range so wide is drawn on a logarithmic axis
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
class Setting:
    """A task at which networks are measured.

    Attributes:
        word: of the task. samples: of each seed.
        name, value: of the option that varies, and what it is here; empty where none does.
    """

    word: str
    samples: int
    name: str = ""
    value: str = ""


@dataclass(frozen=True)
class Point:
    """One network at one setting of the task, over all seeds of samples.

    Attributes:
        net: the network's name. task: the task's whole word.
        varied, value: the option that varies, and what it is here.
        seeds: of the samples; empty where samples are stored.
        right, samples: decisions. classes: of the task.
        rate: spikes of a neuron of the first layer in a step.
        u_wraps, v_saturations: over all layers; saturations not of narrow membranes, which clip by design.
        references: accuracies of observers that the task offers for comparison, by name.
        class_names, confusion: of the classes; samples by label and decision.
        silence: decisions without a reason.
    """

    net: str
    task: str
    varied: str
    value: str
    seeds: list[int]
    right: int
    samples: int
    classes: int
    rate: float
    u_wraps: int
    v_saturations: int
    references: dict[str, float]
    silence: Silence
    class_names: list[str]
    confusion: list[list[int]]

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return self.right / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % confidence interval."""
        return wilson(self.right, self.samples)

    @property
    def margins(self) -> dict[str, float]:
        """By how much it is above each of the observers."""
        return {name: self.accuracy - other for name, other in self.references.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        extra = {"accuracy": self.accuracy, "interval": list(self.interval), "margins": self.margins}
        plain = {name: value for name, value in vars(self).items() if name != "silence"}
        return {**plain, **extra, **self.silence.as_dict()}


def measure(
    networks: dict[str, Network],
    settings: Sequence[Setting],
    seeds: Sequence[int],
    on_point: Callable[[str], None] | None = None,
) -> list[Point]:
    """Run every network at every setting on test samples of every seed; stored samples once.

    All networks see the same samples.

    Args:
        on_point: called with what is to be run, before it is.

    Raises:
        InputError: a task that does not exist or does not fit a network, or that has fewer samples.
    """
    points: list[Point] = []
    for setting in settings:
        tasks = [task(setting.word, seed) for seed in seeds]
        if tasks[0].seed is None:
            del tasks[1:]
        for name, network in networks.items():
            if on_point is not None:
                on_point(f"{name}: {tasks[0].word}")
            same = [p for p in points if (p.net, p.task) == (name, tasks[0].word)]
            if same:  # two options that vary meet at the task that they vary from
                points.append(replace(same[0], varied=setting.name, value=setting.value))
                continue
            runs = [
                evaluate(network, at_step_of(network.dt_ms, one), setting.samples, on_samples=no_bar)
                for one in tasks
            ]
            points.append(
                Point(
                    name, tasks[0].word, setting.name, setting.value,
                    seeds=[one.seed for one in tasks if one.seed is not None],
                    right=sum(r.right for r in runs),
                    samples=sum(r.samples for r in runs),
                    classes=network.outputs,
                    rate=float(np.mean([r.spikes_per_neuron_step[0] for r in runs])),
                    u_wraps=sum(sum(r.u_wraps) for r in runs),
                    v_saturations=sum(sum(unwanted(network, r.v_saturations)) for r in runs),
                    references=dict(tasks[0].references()),
                    class_names=runs[0].names,
                    confusion=np.sum([r.confusion for r in runs], axis=0).tolist(),
                    silence=sum((r.silence for r in runs), Silence()),
                )
            )  # fmt: skip
    return points


def draw_memory(points: Sequence[Point]) -> Figure:
    """Accuracy over each option that varies, beside the task's observers; bars are 95 % intervals.

    Options with less than two values have no panel, unless there is nothing else.
    """
    panels = {
        name: [p for p in points if p.varied == name] for name in dict.fromkeys(p.varied for p in points)
    }
    panels = {n: some for n, some in panels.items() if len({p.value for p in some}) > 1} or panels
    figure = new_figure(figsize=(5.2 * len(panels), 4.0), layout="constrained")
    for place, (label, some) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place)
        bare(axes)
        _draw_panel(axes, some)
        axes.set_xlabel(label or some[0].task)
        axes.set_ylabel("accuracy")
        axes.grid(True, color="#e5e5e5", linewidth=0.6)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def _draw_panel(axes: Any, points: Sequence[Point]) -> None:
    values = list(dict.fromkeys(p.value for p in points))
    numbers = _numbers(values)
    place = dict(zip(values, range(len(values)) if numbers is None else numbers, strict=True))
    for name, colour in zip(dict.fromkeys(p.net for p in points), COLOURS * 9, strict=False):
        mine = sorted((p for p in points if p.net == name), key=lambda p: place[p.value])
        y = np.array([p.accuracy for p in mine])
        low, high = np.array([p.interval for p in mine]).T
        # An interval holds its share, but for rounding.
        bars = np.maximum([y - low, high - y], 0)
        x = [place[p.value] for p in mine]
        axes.errorbar(x, y, bars, fmt="o-", color=colour, label=name, ms=4, capsize=2, lw=1.5)
    known = {p.value: p.references for p in points}
    order = sorted(known, key=place.__getitem__)
    for name in dict.fromkeys(name for references in known.values() for name in references):
        heights = [known[value].get(name, np.nan) for value in order]
        axes.plot([place[v] for v in order], heights, "--", color=GREY, label=f"knows the {name} only")
    if numbers is not None and min(numbers) > 0 and max(numbers) >= LOGARITHMIC * min(numbers):
        axes.set_xscale("log")
        axes.set_xticks([], minor=True)
    axes.set_xticks([place[value] for value in order], order)
    chance = 1 / points[0].classes
    axes.axhline(chance, color="#bbbbbb", lw=0.8)
    axes.set_ylim(0.9 * min(chance, *(p.accuracy for p in points)), 1.01)


def _numbers(values: Sequence[str]) -> list[float] | None:
    """The values as numbers; None: they are not all numbers."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return None
