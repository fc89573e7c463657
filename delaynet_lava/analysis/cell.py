"""What one Spiking Recurrent Cell does: over a drive, over currents, and by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.kernels import src_training
from delaynet_lava.kernels.events import padded
from delaynet_lava.nn.cell import BIAS_MAX, BIAS_MIN, SpikingRecurrentCell, rest
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Alone", "alone", "draw_cell", "frequencies"]

_STEPS, _KICK = 4000, 40
_QUIET, _ON = 20, 150


@dataclass(frozen=True)
class Alone:
    """Spikes a step of cells without input, by b_h.

    Attributes:
        bias: float64 (N,). from_rest, after_kick: float64 (N,), from the state of rest, and after a current
            of 3 for 40 steps.
    """

    bias: np.ndarray
    from_rest: np.ndarray
    after_kick: np.ndarray

    def ranges(self) -> list[str]:
        """Of each b_h: "silent"; "bistable", where a kick is answered for ever; "pacemaker"."""
        return [
            "pacemaker" if before else "bistable" if after else "silent"
            for before, after in zip(self.from_rest > 0, self.after_kick > 0, strict=True)
        ]


def _form() -> fx.SrcForm:
    # Forgets all in a step, and takes sums as they are: what arrives is the current.
    return SpikingRecurrentCell({"current_decay": 1.0}, 1, 1, weight_exp=6).form()


def _watched(
    arriving: np.ndarray, level: np.ndarray, form: fx.SrcForm, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """int32 (4, T, N), i, h, h_s and what is sent, of sums that arrive (T, N); and the state at the end."""
    cells, lanes = len(level), padded(len(level))
    rows = np.full(lanes, fx.SRC_BIAS_MIN, np.int32), np.zeros((3, lanes), np.int32)
    rows[0][:cells], rows[1][:, :cells] = level, state
    sums = np.zeros((len(arriving), lanes), np.int64)
    sums[:, :cells] = arriving
    seen = np.empty((4, *sums.shape), np.int32)
    src_training.watch(sums, rows[0], form, rows[1], seen)
    return seen[..., :cells], rows[1][:, :cells]


def _run(
    current: np.ndarray, bias: np.ndarray, state: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """int32 (4, T, N): i, h, h_s, spikes under currents (T, N) in ones; and the state at the end."""
    level = np.rint(bias * fx.DECAY_ONE).astype(np.int32)
    arriving = np.rint(current * fx.DECAY_ONE)
    return _watched(arriving, level, _form(), rest(level, _form()) if state is None else state)


def alone(bias: np.ndarray) -> Alone:
    """Run cells of these b_h without input, from rest and after a kick; half of 4000 steps counts."""
    nothing = np.zeros((_STEPS, len(bias)))
    seen, state = _run(nothing, bias)
    _, kicked = _run(np.full((_KICK, len(bias)), 3.0), bias, state)
    again, _ = _run(nothing, bias, kicked)
    late = slice(_STEPS // 2, None)
    return Alone(bias, seen[3, late].mean(axis=0), again[3, late].mean(axis=0))


def frequencies(current: np.ndarray, bias: float) -> np.ndarray:
    """Spikes a step, float64 (N,), under constant currents i; the last half of 4000 steps counts."""
    seen, _ = _run(np.broadcast_to(current, (_STEPS, len(current))), np.full(len(current), bias))
    return seen[3, _STEPS // 2 :].mean(axis=0)


def draw_cell(bias: float = -6.0, drive: float = 0.25) -> Figure:
    """A cell over a drive (its i, h, h_s and spikes), its frequency over a current, and the ranges of b_h.

    Args:
        bias: b_h of the cell. drive: what arrives at i in each of 150 steps.

    Raises:
        InputError: a b_h outside -8 to -5.
    """
    if not BIAS_MIN <= bias <= BIAS_MAX:
        raise InputError(
            "--bias", f"is {bias}, expected {BIAS_MIN} to {BIAS_MAX}", "above, the cell never rests"
        )
    figure = new_figure(figsize=(9, 7), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=[2, 0.5, 2])
    _draw_drive(figure, grid, bias, drive)
    _draw_frequency(figure.add_subplot(grid[2, 0]), bias)
    _draw_ranges(figure.add_subplot(grid[2, 1]))
    return figure


def _draw_drive(figure: Figure, grid: Any, bias: float, drive: float) -> None:
    cell = SpikingRecurrentCell({"bias": bias}, 1, 1, weight_exp=6)
    arriving = np.zeros((2 * _QUIET + _ON + 60, 1), np.int32)
    arriving[_QUIET : _QUIET + _ON] = round(drive * fx.DECAY_ONE)
    level = np.array([round(bias * fx.DECAY_ONE)], np.int32)
    seen, _ = _watched(arriving, level, cell.form(), rest(level, cell.form()))
    above = figure.add_subplot(grid[0, :])
    for name, values, colour in zip(("i", "h", "h_s"), seen[:3, :, 0] / fx.DECAY_ONE, COLOURS, strict=False):
        above.plot(values, color=colour, label=name, linewidth=1.2)
    above.axvspan(_QUIET, _QUIET + _ON, color=GREY, alpha=0.08, linewidth=0)
    above.set_title(f"b_h {bias:g}, {drive:g} arriving at i in the shaded steps", fontsize=10)
    above.legend(frameon=False, ncols=3, loc="upper right")
    above.tick_params(labelbottom=False)
    below = figure.add_subplot(grid[1, :], sharex=above)
    below.vlines(np.flatnonzero(seen[3, :, 0]), 0, 1, color=GREY, linewidth=1.2)
    below.set_yticks([])
    below.set_ylabel("spikes")
    below.set_xlabel("step")
    bare(above)
    bare(below)


def _draw_frequency(axes: Any, bias: float) -> None:
    current = np.linspace(0, 8, 161)
    for one, colour in zip(sorted({BIAS_MIN, bias, BIAS_MAX}), COLOURS, strict=False):
        axes.plot(current, frequencies(current, one), color=colour, label=f"b_h {one:g}")
    axes.set_xlabel("constant current i")
    axes.set_ylabel("spikes a step")
    axes.legend(frameon=False)
    bare(axes)


def _draw_ranges(axes: Any) -> None:
    found = alone(np.arange(-9, -2.999, 0.05))
    named = np.array(found.ranges())
    for name, colour in zip(("silent", "bistable", "pacemaker"), COLOURS, strict=False):
        here = found.bias[named == name]
        if len(here):
            axes.axvspan(
                here.min() - 0.025, here.max() + 0.025, color=colour, alpha=0.2, linewidth=0, label=name
            )
    axes.plot(found.bias, found.after_kick, color=GREY, linewidth=1.2, label="after a kick")
    axes.axvspan(BIAS_MIN, BIAS_MAX, ymax=0.03, color=GREY, label="kept in training")
    axes.set_xlabel("b_h")
    axes.set_ylabel("spikes a step without input")
    axes.legend(frameon=False, loc="upper left")
    bare(axes)
