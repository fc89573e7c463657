"""Pictures of which classes a network takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from delaynet_lava.analysis.memory import wilson
from delaynet_lava.evaluation import SHOWN
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DRAWN", "draw_classes", "draw_confusion"]

DRAWN = 64
"""Most classes that a picture shows."""


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Samples by label (down) and decision (across); the colour is the share of the label's samples."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(9.0, 2.5 + 0.45 * len(names))
    figure = new_figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    room = 12 * (side - 1) / len(names)  # letters that have room below a column
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > room else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("decision")
    axes.set_ylabel("label")
    if len(names) <= SHOWN:
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if shares[row, column] > 0.5 else "#333333"
            axes.text(column, row, str(int(count)), ha="center", va="center", fontsize=8, color=shade)
    return figure


def draw_classes(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Share of each class's samples that are right, with its 95 % interval (Wilson)."""
    counts = np.asarray(confusion)
    samples, right = counts.sum(axis=1), np.diag(counts)
    figure = new_figure(figsize=(7.5, 0.8 + 0.26 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    for k, (count, hits) in enumerate(zip(samples.tolist(), right.tolist(), strict=True)):
        if count:
            share, (low, high) = hits / count, wilson(hits, count)
            axes.barh(k, 100 * share, 0.7, color=COLOURS[0], alpha=0.45)
            ends = [[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]]
            axes.errorbar(100 * share, k, xerr=ends, color="black", capsize=3, lw=1.2)
        axes.text(102, k, f"{hits:,} of {count:,}", va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% right, with the 95 % interval", fontsize=8)
    return figure
