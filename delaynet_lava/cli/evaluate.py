"""``delaynet evaluate``."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from delaynet_lava import models
from delaynet_lava.cli.networks import open_network
from delaynet_lava.cli.output import (
    complain,
    draw,
    lines,
    progress,
    require_folder,
    require_picture,
    say,
    speak_warnings,
    write_json,
)
from delaynet_lava.cli.samples import TASK, named_word, number, source
from delaynet_lava.errors import InputError
from delaynet_lava.network import Network
from delaynet_lava.tasks.registry import varied

if TYPE_CHECKING:
    from delaynet_lava.analysis import memory

SAMPLES, SEED = 256, 2026


def _seeds(text: str | None) -> list[int] | None:
    """``"1,2,3"`` as integers."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError("--seeds", f"{text!r} is not a list of whole numbers", "write 3,5,7") from error


def _axes(vary: list[str]) -> dict[str, list[str]]:
    """``["wait_ms=1200,3000"]`` as values by name."""
    axes: dict[str, list[str]] = {}
    for text in vary:
        name, sign, values = text.partition("=")
        if not sign or not name.isidentifier() or not all(values.split(",")):
            raise InputError(f"--vary {text}", "is not NAME=VALUE,VALUE,...", "write wait_ms=1200,3000")
        if name in axes:
            raise InputError(f"--vary {text}", f"{name} varies twice", "give all its values at once")
        axes[name] = list(dict.fromkeys(values.split(",")))
    return axes


def _name(path: str, taken: Collection[str]) -> str:
    stem = models.stem(path)
    return path if stem in taken else stem


def evaluate(
    nets: Annotated[
        list[str], typer.Argument(help="Networks (net.h5, model.pt or model:NAME); all see the same samples.")
    ],
    task: Annotated[str | None, TASK] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of an option of the task, NAME=VALUE,VALUE,...; repeatable, one at a time."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Test samples a seed. [default: {SAMPLES}, or all of a smaller task]")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help=f"Seeds of the samples. [default: {SEED}]")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw them here: .png, .svg or .pdf; - is stdout, as SVG.")
    ] = None,
) -> int:
    """Accuracy of networks on one task, also while options of the task vary.

    Where a task knows observers that are worth a comparison, they stand beside it. Example:
    delaynet evaluate net.h5 --task cue --vary wait_ms=1200,3000,30000 --vary cues=3,7,11 --plot memory.png
    """
    from delaynet_lava.analysis import memory

    require_picture("--plot", plot)
    require_folder("--json", json)
    axes, wanted = _axes(vary or []), _seeds(seeds)
    networks: dict[str, Network] = {}
    with speak_warnings("delaynet evaluate"):
        for path in nets:
            networks[_name(path, networks)] = open_network(path)
    word = named_word(task, next(iter(networks.values())).task, nets[0])
    words = [(varied(word, **{name: value}), name, value) for name in axes for value in axes[name]]
    settings = []
    for one, name, value in words or [(word, "", "")]:
        for network, path in zip(networks.values(), nets, strict=True):
            of = source(one, network, path, None if wanted is None else wanted[0])
        settings.append(memory.Setting(one, number(of, samples, SAMPLES), name, value))
    drawn = [SEED] if wanted is None else wanted
    done = iter([0])
    with progress("evaluating", len(settings) * len(networks)) as advance:
        points = memory.measure(networks, settings, drawn, lambda text: advance(next(done, 1), text))
    # Files first: who reads the table may go away.
    write_json(json, {"task": word, "seeds": points[0].seeds, "points": [p.as_dict() for p in points]})
    if plot is not None:
        draw(memory.draw_memory(points), plot)
    _tell(points)
    for point in points:
        for note in point.silence.notes():
            complain("delaynet evaluate", f"note: {point.net}, {point.task}: {note}")
        if point.u_wraps or point.v_saturations:
            complain(
                "delaynet evaluate",
                f"warning: {point.net}, {point.task}: u wrapped {point.u_wraps} times, v saturated "
                f"{point.v_saturations} times",
            )
    return 0


def _tell(points: list[memory.Point]) -> None:
    from delaynet_lava.evaluation import class_rows

    seeds = f" of each seed ({', '.join(map(str, points[0].seeds))})" if points[0].seeds else ""
    say(f"{points[0].samples // max(1, len(points[0].seeds))} test samples{seeds}, emulator")
    observers = list(dict.fromkeys(name for point in points for name in point.references))
    heads = [head for name in observers for head in (name, "margin")]
    lines(
        ["net", "task", "right", "95 % interval", *heads, "rate"],
        [_row(point, observers) for point in points],
    )
    if len(points) == 1:
        lines(*class_rows(np.array(points[0].confusion), points[0].class_names))


def _row(point: memory.Point, observers: list[str]) -> list[str]:
    low, high = point.interval
    beside = []
    for name in observers:
        known = name in point.references
        beside += (
            [f"{100 * point.references[name]:.2f}", f"{100 * point.margins[name]:+.2f}"]
            if known
            else ["", ""]
        )
    return [
        point.net, point.task, f"{100 * point.accuracy:.2f} % of {point.samples}",
        f"{100 * low:.2f} to {100 * high:.2f}", *beside, f"{point.rate:.4f}",
    ]  # fmt: skip
