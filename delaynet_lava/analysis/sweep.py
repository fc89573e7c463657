"""How few bits would do: accuracy of a network with coarser membranes, weights, decays or delays.

Every point is a :class:`Network` of its own, nothing is trained again, and the emulator runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.analysis import KINDS
from delaynet_lava.analysis.memory import wilson
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.network import Dense, Layer, Network, Synapse, lif
from delaynet_lava.notebook import bar, no_bar
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure
from delaynet_lava.tasks.base import Task, require_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "KINDS",
    "Point",
    "clip_delays",
    "draw",
    "narrow_membranes",
    "requantise_decays",
    "requantise_weights",
    "smallest_keeping",
    "sweep",
    "usual_values",
]

MEMBRANE_BITS = (24, 16, 12, 10, 8, 7, 6, 5, 4)
WEIGHT_BITS = (8, 7, 6, 5, 4, 3, 2)
DECAY_BITS = (12, 10, 8, 7, 6, 5, 4, 3)
SCALES = 4
"""Powers of two that are tried as full scale of a layer."""


@dataclass(frozen=True, eq=False)
class Point:
    """A network at one width, or with one limit, and its accuracy.

    Attributes:
        value: bits, or the largest delay.
        right: right decisions of ``samples``, for each task. steps: of a sample, for each task.
        network: what ran.
        full_scale_exps: of each layer, where membranes were swept.
    """

    value: int
    right: tuple[int, ...]
    samples: int
    steps: tuple[int, ...]
    network: Network
    full_scale_exps: tuple[int, ...] = ()

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Share of right decisions, for each task."""
        return tuple(right / self.samples for right in self.right)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {"value": self.value, "samples": self.samples, "accuracy": list(self.accuracy)}
        found["interval"] = [list(wilson(right, self.samples)) for right in self.right]
        found["steps"] = list(self.steps)
        return found | ({"full_scale_exps": list(self.full_scale_exps)} if self.full_scale_exps else {})


# ------------------------------------------------------------------ networks with less

_NO_SWEEP = "whose states have no fewer bits and whose decays are fixed"
_SWEEP = "sweep the bits of weights, or delays"


def narrow_membranes(network: Network, bits: int, full_scale_exps: Sequence[int]) -> Network:
    """All membranes as words of so many bits, each layer with its own full scale."""
    return network.with_(
        layers=tuple(
            _narrowed(layer, bits, exp, f"layer {k}")
            for k, (layer, exp) in enumerate(zip(network.layers, full_scale_exps, strict=True))
        )
    )


def _narrowed(layer: Layer, bits: int, full_scale_exp: int, where: str) -> Layer:
    old = lif(layer, where, _NO_SWEEP, _SWEEP)
    unit_exp, limit = fx.membrane_grid(bits, full_scale_exp)
    # To the nearest multiple of the unit, halves up, as what comes in is rounded.
    start = np.clip(old.v_init + ((1 << unit_exp) >> 1) >> unit_exp << unit_exp, -limit, limit)
    neuron = replace(old, membrane_bits=bits, full_scale_exp=full_scale_exp, v_init=start)
    return replace(layer, neuron=neuron.quietened() if old.starts_quiet else neuron)


def requantise_weights(network: Network, bits: int) -> Network:
    """Weights as words of 2 to 8 bits: ``q 2**e`` with ``-2**(bits - 1) <= q < 2**(bits - 1)``.

    Rounded to the nearest, halves to even, and clipped. The exponent belongs to the matrix, 1 (every
    8-bit word fits as it is) to ``9 - bits``: the one with the least squared error. Without clipping a
    few large weights would take the resolution from all others.

    Raises:
        InputError: other numbers of bits.
    """
    _require("weight bits", bits, 2, 8)
    return _with_synapses(network, lambda synapse: replace(synapse, weight=_coarse(synapse.weight, bits)))


def _coarse(weight: np.ndarray, bits: int) -> np.ndarray:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    tried = []
    for exp in range(1, 10 - bits):
        words = np.clip(np.rint(weight / (1 << exp)).astype(np.int64), least, most) << exp
        tried.append((int(((words - weight) ** 2).sum()), words))
    return min(tried, key=lambda entry: entry[0])[1]


def requantise_decays(network: Network, bits: int) -> Network:
    """Decays of currents and membranes as multiples of ``2**(12 - bits)``, the nearest.

    A decay that is not zero stays at least one unit: zero would never forget.

    Raises:
        InputError: other numbers of bits than 1 to 12.
    """
    _require("decay bits", bits, 1, fx.DECAY_BITS)
    unit = 1 << (fx.DECAY_BITS - bits)

    def nearest(decay: int | np.ndarray) -> np.ndarray:
        units = np.rint(np.asarray(decay) / unit).astype(np.int64)
        return np.where(np.equal(decay, 0), 0, np.maximum(units, 1) * unit)

    layers = []
    for k, layer in enumerate(network.layers):
        old = lif(layer, f"layer {k}", _NO_SWEEP, _SWEEP)
        neuron = replace(old, du=nearest(old.du), dv=nearest(old.dv))
        neuron = neuron.quietened() if old.starts_quiet else neuron
        layers.append(replace(layer, neuron=neuron))
    return network.with_(layers=tuple(layers))


def clip_delays(network: Network, longest: int) -> Network:
    """Delays beyond a limit become the limit.

    Raises:
        InputError: a negative limit.
    """
    _require("longest delay", longest, 0, 1 << 15)
    return _with_synapses(network, lambda synapse: replace(synapse, delay=np.minimum(synapse.delay, longest)))


def _require(where: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(where, f"{value} is outside {low} to {high}")


def _with_synapses(network: Network, change: Callable[[Synapse], Synapse]) -> Network:
    layers: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            back = None if layer.recurrent is None else change(layer.recurrent)
            layer = replace(layer, synapse=change(layer.synapse), recurrent=back)
        layers.append(layer)
    return network.with_(layers=tuple(layers))


# ------------------------------------------------------------------ accuracy


class _Held(Task):
    """Samples of a task kept, so that every point sees them without drawing them again."""

    def __init__(self, task: Task, split: str, first: int, count: int) -> None:
        require_samples(task, split, first, count)
        self.spikes, self.labels = task.batch(split, first, count)
        self.name, self.word, self.steps, self.dt_ms = task.name, task.word, task.steps, task.dt_ms
        self.channels, self.classes = task.channels, task.classes
        self.payload_bits, self.payload_signed = task.payload_bits, task.payload_signed

    def size(self, split: str) -> int:
        return len(self.labels)

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        return self.spikes[first : first + count], self.labels[first : first + count]


def _to_choose_on(task: Task, samples: int) -> _Held:
    """Samples that no result is measured on: those that follow, or of a finite task others."""
    if task.size("test") is None:
        return _Held(task, "test", samples, samples)
    for split in ("validation", "train"):
        there = task.size(split)
        if there != 0:
            return _Held(task, split, 0, samples if there is None else min(samples, there))
    raise InputError(
        f"task {task.word}",
        "has test samples only, and full scales are chosen on others",
        "leave some for validation with split=",
    )


def _full_scales(network: Network, held: _Held) -> list[list[int]]:
    """For each layer the exponents to try.

    A neuron that fires needs its threshold within the scale; those above leave room for what is negative.
    A readout's largest membrane on the samples is tried, and scales that clip it.
    """
    largest = emulate(network, held.spikes, ("voltage",), layers=_readouts(network)).voltage
    found = []
    for k, layer in enumerate(network.layers):
        if k in largest:
            top = int(np.abs(largest[k].astype(np.int64)).max()).bit_length()
            exps = range(top - SCALES + 1, top + 1)
        else:
            first = fx.full_scale_above(lif(layer, f"layer {k}", _NO_SWEEP, _SWEEP).vth)
            exps = range(first, first + SCALES)
        found.append([min(max(exp, 1), fx.FULL_SCALE_EXP) for exp in exps])
    return found


def _readouts(network: Network) -> list[int]:
    return [k for k, layer in enumerate(network.layers) if layer.neuron.is_readout]


def _best_scales(network: Network, bits: int, candidates: list[list[int]], held: _Held) -> Network:
    """Full scales layer by layer, the layers behind as they are; of equals the smallest."""
    for k, exps in enumerate(candidates):
        tried = []
        for exp in sorted({max(exp, bits - 1) for exp in exps}):
            layers = list(network.layers)
            layers[k] = _narrowed(layers[k], bits, exp, f"layer {k}")
            tried.append(network.with_(layers=tuple(layers)))
        if len(tried) == 1:
            network = tried[0]
        else:
            network = max(
                tried, key=lambda one: evaluate(one, held, len(held.labels), on_samples=no_bar).right
            )
    return network


def _membranes(network: Network, choice: _Held, values: Iterable[int]) -> Iterable[tuple[int, Network]]:
    candidates = _full_scales(network, choice)
    for bits in values:
        _require("membrane bits", bits, 2, fx.MEMBRANE_BITS)
        yield bits, _best_scales(network, bits, candidates, choice)


_CHANGES = {"weight-bits": requantise_weights, "decay-bits": requantise_decays, "delay-max": clip_delays}
_USUAL = {"membrane-bits": MEMBRANE_BITS, "weight-bits": WEIGHT_BITS, "decay-bits": DECAY_BITS}


def usual_values(network: Network, kind: str) -> list[int]:
    """The widths of the published tables; for delays, eighths of the network's longest."""
    if kind in _USUAL:
        return list(_USUAL[kind])
    longest = max(
        s.max_delay for layer in network.layers for s in (layer.synapse, layer.recurrent) if s is not None
    )
    return sorted({round(longest * part / 8) for part in range(9)}, reverse=True)


def sweep(
    network: Network,
    kind: str,
    tasks: Sequence[Task],
    samples: int = 256,
    values: Sequence[int] | None = None,
    on_point: Callable[[Point], None] | None = None,
) -> list[Point]:
    """Accuracy of a network with less and less of one thing.

    ``membrane-bits`` tries for each width and layer the powers of two as full scale, on samples that come
    after those of the result in the first task, or of a finite task on those for validation. All layers
    are narrow, readouts too.

    Args:
        kind: one of :data:`KINDS`.
        tasks: the first ``samples`` samples of each are run: one accuracy a task, say of several lengths.
        values: widths or limits; None: :func:`usual_values`.
        on_point: called with every point when it is done.

    Raises:
        InputError: an unknown kind, no task or samples, a value that does not exist.
    """
    if kind not in KINDS:
        raise InputError("sweep", f"{kind!r} is not one of {list(KINDS)}")
    if not tasks:
        raise InputError("sweep", "has no task")
    _require("samples", samples, 1, 1 << 30)
    chosen = values or usual_values(network, kind)
    held = [_Held(task, "test", 0, samples) for task in tasks]
    if kind == "membrane-bits":
        choice = _to_choose_on(tasks[0], samples)
        variants = _membranes(network, choice, chosen)
    else:
        variants = ((value, _CHANGES[kind](network, value)) for value in chosen)
    points = []
    advance = bar(f"sweep of {kind}", len(chosen))
    for value, variant in variants:
        exps = tuple(lif(layer, "layer", _NO_SWEEP).full_scale_exp for layer in variant.layers)
        point = Point(
            value,
            tuple(evaluate(variant, task, samples, on_samples=no_bar).right for task in held),
            samples,
            tuple(task.steps for task in held),
            variant,
            exps if kind == "membrane-bits" else (),
        )
        points.append(point)
        if on_point is not None:
            on_point(point)
        elif advance is not None:
            advance(1)
    return points


def smallest_keeping(points: Sequence[Point], share: float) -> Point | None:
    """The point of the smallest value at which, and at all larger ones, the first task keeps a share.

    None where the largest does not.
    """
    found = None
    for point in sorted(points, key=lambda one: -one.value):
        if point.accuracy[0] < share:
            break
        found = point
    return found


def draw(points: Sequence[Point], kind: str, chance: float | None = None) -> Figure:
    """Accuracy over what was swept; with several tasks, also over the length of their samples.

    Bars are 95 % confidence intervals.

    Args:
        chance: accuracy of a guess; a line across.
    """
    points = sorted(points, key=lambda one: one.value)
    steps = points[0].steps
    figure = new_figure(figsize=(6.0 if len(steps) == 1 else 11.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 1 if len(steps) == 1 else 2, squeeze=False)[0]

    def curve(axes: Any, x: Any, right: Any, colour: Any, label: str) -> None:
        share = np.array(right) / points[0].samples
        ends = np.array([wilson(number, points[0].samples) for number in right]).T
        spread = np.maximum([share - ends[0], ends[1] - share], 0)
        axes.errorbar(
            x, 100 * share, 100 * spread, fmt="o-", color=colour, label=label, markersize=4, elinewidth=0.8
        )

    values = [point.value for point in points]
    for k, length in enumerate(steps):
        label = f"{length:,} steps"
        curve(panels[0], values, [p.right[k] for p in points], COLOURS[k % len(COLOURS)], label)
    panels[0].set_xlabel(KINDS[kind])
    panels[0].set_xticks(values)
    if len(panels) == 2:
        for k, point in enumerate(points):
            pale = 1 - k / max(1, len(points) - 1)
            colour = (0.1 + 0.7 * pale, 0.25 + 0.35 * pale, 0.6 - 0.3 * pale)
            order = np.argsort(steps)
            curve(panels[1], np.array(steps)[order], np.array(point.right)[order], colour, str(point.value))
        panels[1].set_xscale("log")
        panels[1].set_xlabel("steps of a sample")
        panels[1].set_xticks(steps, [f"{length:,}" for length in steps])
        panels[1].set_xticks([], minor=True)
        panels[1].legend(
            frameon=False, fontsize=8, title=KINDS[kind], loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
        panels[0].legend(frameon=False, fontsize=9)
    for axes in panels:
        bare(axes)
        axes.set_ylabel("right decisions (%)")
        if chance is not None:
            axes.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1)
    return figure
