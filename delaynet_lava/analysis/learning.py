"""How trainings went: accuracy and branching factor over epochs, from the histories in model files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Training", "draw_branching", "draw_delays", "draw_learning", "training"]


@dataclass(frozen=True)
class Training:
    """One training: what it was of, its seed, and a record an epoch."""

    name: str
    seed: int
    epochs: list[dict[str, Any]]

    def values(self, key: str) -> np.ndarray:
        """float64 (epochs,)."""
        return np.array([epoch[key] for epoch in self.epochs], float)


def training(model: ModelFile, where: str) -> Training:
    """The training that a ``model.pt`` comes from; those that differ in the seed alone share a name.

    Raises:
        InputError: the file keeps no history.
    """
    made = model.provenance
    history = made.get("history")
    if not isinstance(history, list) or not history:
        raise InputError(where, "keeps no history of its training", "train it with delaynet train")
    # "delaynet train TASK --recipe NAME --seed 0 --set a=1 ...": what is not the seed tells trainings apart.
    # Earlier releases had presets.
    words = str(made.get("command", where)).split()
    for option in ("--recipe", "--preset"):
        if option in words:
            words = words[words.index(option) + 1 :]
    if "--seed" in words:
        at = words.index("--seed")
        del words[at : at + 2]
    words = [word for word in words if word != "--set"]
    return Training(" ".join(words), int(made.get("seed", 0)), history)


def _axes(label: str) -> tuple[Figure, Any]:
    figure = new_figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    axes.grid(True, color="#e5e5e5", linewidth=0.6)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    return figure, axes


def _curves(axes: Any, trainings: Sequence[Training], key: str) -> None:
    """A line a name: the mean over its seeds, between the least and the most of them."""
    for name, colour in zip(dict.fromkeys(t.name for t in trainings), COLOURS * 9, strict=False):
        runs = [t.values(key) for t in trainings if t.name == name]
        length = max(len(run) for run in runs)
        # A seed whose curriculum went faster has fewer epochs; its last value stands for the rest.
        values = np.array([np.pad(run, (0, length - len(run)), mode="edge") for run in runs])
        epochs = np.arange(1, length + 1)
        label = name if len(runs) == 1 else f"{name} ({len(runs)} seeds)"
        axes.plot(epochs, values.mean(axis=0), color=colour, lw=1.5, label=fill(label, 60))
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, lw=0)


def draw_learning(trainings: Sequence[Training]) -> Figure:
    """Accuracy of each epoch's fresh training samples (the paper's Fig. 5); a band spans the seeds."""
    figure, axes = _axes("accuracy")
    _curves(axes, trainings, "accuracy")
    axes.axhline(0.5, color="#bbbbbb", lw=0.8)
    axes.set_ylim(0.4, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="center right")
    return figure


def draw_branching(trainings: Sequence[Training]) -> Figure:
    """Branching factor over training; 1 is critical."""
    figure, axes = _axes("branching factor")
    _curves(axes, trainings, "branching")
    axes.axhline(1.0, color=GREY, lw=0.8, ls="--")
    # Beside the axes: no curve goes there.
    beside = ("axes fraction", "data")
    axes.annotate(
        "critical", (1, 1), (4, 0), beside, "offset points", va="center", fontsize=8, color=GREY
    )  # fmt: skip
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def draw_delays(model: ModelFile, where: str) -> Figure:
    """For all delays that were learned: how many senders have which, before and after, and their moves.

    Raises:
        InputError: no delays were learned.
    """
    noted = model.provenance.get("first_delays")
    pairs = {}
    for name, delays in noted.items() if isinstance(noted, dict) else ():
        held = model.state_dict.get(name)
        whole = isinstance(delays, list) and all(type(d) is int for d in delays)
        if whole and held is not None and held.shape == (len(delays),):
            pairs[name] = np.array(delays), held.numpy()
    if not pairs:
        raise InputError(where, "keeps no delays from before they were learned", "train with learn_delays")
    figure = new_figure(figsize=(9.6, 3.6 * len(pairs)), layout="constrained")
    rows: Any = figure.subplots(len(pairs), 2, squeeze=False)
    for (left, right), (name, (first, last)) in zip(rows, pairs.items(), strict=True):
        block, of, _ = name.partition(".axon.")
        layer = block.partition(".")[0]
        left.set_title(f"into layer {layer}" if of else f"within layer {layer}", fontsize=9)
        edges = np.arange(max(first.max(), last.max()) + 2) - 0.5
        left.hist([first, last], edges, label=["before", "after"], color=[GREY, COLOURS[0]])
        left.set(xlabel="delay (steps)", ylabel="neurons")
        left.legend(frameon=False)
        right.plot([0, first.max()], [0, first.max()], color=GREY, linewidth=1)
        right.scatter(first, last, s=12, color=COLOURS[0])
        right.set(xlabel="before (steps)", ylabel="after (steps)")
        bare(left)
        bare(right)
    return figure
