"""Pictures of arrays: matrices of weights and delays, rasters and membranes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_matrices", "draw_records"]

_LINES = 8  # neurons of which each membrane is a line of its own


def draw_matrices(synapses: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Weights on the left, blue below zero and red above; delays on the right, where there is a synapse.

    Args:
        synapses: name, weight (post, pre) and delay, an array of that shape or of none, of each.
    """
    figure = new_figure(figsize=(9.0, 2.8 * len(synapses)), layout="constrained")
    panels = figure.subplots(len(synapses), 2, squeeze=False)
    for (left, right), (name, weight, delay) in zip(panels, synapses, strict=True):
        most = max(1, int(np.abs(weight.astype(np.int64)).max()))
        shown = left.imshow(
            weight, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
        )
        figure.colorbar(shown, ax=left, label="weight")
        left.set_title(name, fontsize=10, loc="left")
        there = np.where(weight != 0, np.broadcast_to(delay, weight.shape), np.nan)
        if np.nanmax(there, initial=0) > 0:
            shown = right.imshow(there, cmap="viridis", aspect="auto", interpolation="nearest")
            figure.colorbar(shown, ax=right, label="delay, steps")
        else:
            right.text(0.5, 0.5, "no delays", ha="center", va="center", color=GREY)
            right.set_axis_off()
        for axes in (left, right):
            axes.set_xlabel("from", fontsize=9)
            axes.set_ylabel("to", fontsize=9)
    return figure


def draw_records(records: Sequence[tuple[str, str, np.ndarray]]) -> Figure:
    """A panel a record over the steps of one sample: dots of spikes, lines of membranes.

    Args:
        records: name, "spikes" or "voltage", and the array (steps, neurons) of each.
    """
    figure = new_figure(figsize=(9.0, 0.4 + 1.9 * len(records)), layout="constrained")
    panels: Any = figure.subplots(len(records), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, kind, values) in zip(panels, records, strict=True):
        bare(axes)
        if kind == "spikes":
            step, neuron = np.nonzero(values)
            # As an image: tens of thousands of shapes would take megabytes.
            axes.scatter(step, neuron, s=1.5, color=GREY, linewidths=0, rasterized=True)
            axes.set_ylim(-0.5, values.shape[1] - 0.5)
            axes.set_ylabel("neuron", fontsize=9)
        elif values.shape[1] <= _LINES:
            for k, line in enumerate(values.T):
                axes.plot(line, lw=1, color=COLOURS[k % len(COLOURS)], label=f"neuron {k}")
            axes.legend(fontsize=8, frameon=False, loc="upper left")
            axes.set_ylabel("v", fontsize=9)
        else:
            shown = axes.imshow(values.T, aspect="auto", origin="lower", interpolation="nearest")
            figure.colorbar(shown, ax=axes, label="v")
            axes.set_ylabel("neuron", fontsize=9)
        axes.set_title(name, fontsize=10, loc="left")
    panels[-1].set_xlabel("step")
    return figure
