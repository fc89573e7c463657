"""A search in one picture: how it went, and accuracy over each option that it varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from delaynet_lava.search.coordinator import Record
    from delaynet_lava.search.space import Space

__all__ = ["draw_search"]

_COLUMNS = 4


def draw_search(records: Sequence[Record], space: Space) -> Figure:
    """Validation accuracy of each trial and the best so far; below, accuracy over each option.

    Later trials are darker: where they gather is what the sampler came to prefer.

    Raises:
        InputError: no trial was trained to its end.
    """
    whole = [r for r in records if r.accuracy is not None]
    if not whole:
        raise InputError("the search", "has no trial that was trained to its end", "search on")
    names = sorted({name for record in whole for name in record.params})
    rows = -(-len(names) // _COLUMNS)
    figure = new_figure(figsize=(9.6, 2.6 + 2.3 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, _COLUMNS)
    _history(figure.add_subplot(grid[0, :]), records)
    numbers = np.array([r.trial for r in whole], float)
    accuracy = np.array([r.accuracy for r in whole], float)
    first = None
    for k, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + k // _COLUMNS, k % _COLUMNS], sharey=first)
        first = first or axes
        _slice(axes, name, [r.params.get(name) for r in whole], accuracy, numbers, space)
        if k % _COLUMNS == 0:
            axes.set_ylabel("accuracy")
    return figure


def _history(axes: Any, records: Sequence[Record]) -> None:
    bare(axes)
    whole = [r for r in records if r.accuracy is not None]
    numbers = [r.trial for r in whole]
    accuracy = np.array([r.accuracy for r in whole], float)
    axes.plot(numbers, accuracy, "o", color=COLOURS[0], ms=4, label="trial")
    axes.step(numbers, np.maximum.accumulate(accuracy), where="post", color=COLOURS[1], lw=1.4, label="best")
    pruned = [r.trial for r in records if r.accuracy is None]
    if pruned:
        axes.plot(pruned, [accuracy.min()] * len(pruned), "x", color=GREY, ms=4, label="pruned")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def _slice(
    axes: Any, name: str, values: list[Any], accuracy: np.ndarray, numbers: np.ndarray, space: Space
) -> None:
    bare(axes)
    shade = 0.25 + 0.75 * numbers / max(1.0, numbers.max())
    here = [k for k, value in enumerate(values) if value is not None]
    shown = [values[k] for k in here]
    if any(isinstance(value, (str, bool)) for value in shown):
        # Text has no scale of its own: a place each.
        places = sorted({str(value) for value in shown})
        positions = np.array([places.index(str(value)) for value in shown], float)
        axes.set_xticks(range(len(places)), places, fontsize=7, rotation=20 if len(places) > 2 else 0)
        axes.set_xlim(-0.5, len(places) - 0.5)
    else:
        positions = np.array(shown, float)
        part = _range(space, name)
        if part.get("log"):
            axes.set_xscale("log")
            # The whole range, so that two powers of ten are in it as a rule; numbers between them overlap.
            axes.set_xlim(part["low"] / 1.2, part["high"] * 1.2)
            axes.xaxis.set_minor_formatter("")
    axes.scatter(positions, accuracy[here], s=16, color=COLOURS[0], alpha=shade[here], linewidths=0)
    axes.set_xlabel(name)


def _range(space: Space, name: str) -> dict[str, Any]:
    """The range that a value was drawn from; empty where it was drawn from choices, or is a fixed item."""
    part, item = space.get(name, {}), ""
    if not part:
        option, _, item = name.rpartition(".")
        part = space.get(option, {})
    found = part["items"][int(item)] if item and "items" in part else part
    return found if isinstance(found, dict) and "low" in found else {}
