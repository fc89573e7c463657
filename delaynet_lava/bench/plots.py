"""Pictures of what was measured: pure functions from results to a matplotlib Figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delaynet_lava.bench.ratios import Ratio
from delaynet_lava.bench.scaling import Series
from delaynet_lava.pictures import COLOURS, GREY, bare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_ratios", "draw_scaling"]

BAR, GOAL = COLOURS[:2]
PANELS = {
    "steps": "time steps",
    "samples": "samples in a batch",
    "neurons": "neurons in the hidden layer",
    "spikes": "spikes of the hidden layer",
}


def draw_ratios(ratios: list[Ratio], title: str) -> Figure:
    """A bar a ratio on a logarithmic axis, its goal as a line across."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The longest text ends where the layout takes the picture to end.
    layout = ConstrainedLayoutEngine(w_pad=0.15)
    figure = Figure(figsize=(9.0, 1.3 + 0.5 * max(1, len(ratios))), layout=layout)
    axes = figure.add_subplot()
    bare(axes)
    axes.set_xscale("log")
    ends = [v for r in ratios for v in (r.value, r.goal) if v]
    low, high = min([1.0, *ends]) / 1.3, max([10.0, *ends])
    axes.set_xlim(low, high * 12)
    for place, ratio in enumerate(ratios):
        axes.barh(place, ratio.value - low, left=low, height=0.55, color=BAR)
        text = ratio.text
        end = ratio.value
        if ratio.goal is not None:
            axes.plot([ratio.goal] * 2, [place - 0.42, place + 0.42], color=GOAL, linewidth=2)
            text += f"  (goal: at {'most' if ratio.at_most else 'least'} {ratio.goal:,g})"
            end = max(end, ratio.goal)
        axes.text(end * 1.15, place, text, va="center", fontsize=9, color=GREY)
    axes.set_yticks(range(len(ratios)), [r.name for r in ratios], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("ratio")
    axes.set_title(title, fontsize=10, loc="left", wrap=True)
    return figure


def draw_scaling(series: list[Series], title: str) -> Figure:
    """A panel for each thing that was varied, logarithmic both ways, with the fitted slopes."""
    from matplotlib.figure import Figure

    shown = [over for over in PANELS if any(s.over == over for s in series)]
    rows = (len(shown) + 1) // 2
    figure = Figure(figsize=(10.0, 0.6 + 4.2 * max(1, rows)), layout="constrained")
    for place, over in enumerate(shown):
        axes = figure.add_subplot(rows, 2 if len(shown) > 1 else 1, place + 1)
        bare(axes)
        axes.set_xscale("log")
        axes.set_yscale("log")
        of_panel = [s for s in series if s.over == over]
        for one, colour in zip(of_panel, COLOURS, strict=False):
            name = one.name.replace(f" over {over}", "")
            label = name if one.slope is None else f"{name}: slope {one.slope:.2f}"
            axes.plot(one.x, [f.median_s for f in one.figures], "o-", color=colour, label=label, ms=4)
        xs = [x for s in of_panel for x in s.x]
        ys = [f.median_s for s in of_panel for f in s.figures]
        guide = min(ys) / 2
        axes.plot(
            [min(xs), max(xs)],
            [guide, guide * max(xs) / min(xs)],
            ":",
            color="#999999",
            label="slope 1",
        )
        axes.set_xlabel(PANELS[over])
        axes.set_ylabel("seconds a run")
        axes.grid(True, which="major", color="#e5e5e5", linewidth=0.6)
        # Curves rise to the right: above them on the left there is room for their names.
        axes.set_ylim(guide / 1.5, max(ys) * (max(ys) / guide) ** (0.09 * (1 + len(of_panel))))
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    figure.suptitle(title, fontsize=10)
    return figure
