"""``delaynet evaluate``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from delaynet_lava import pictures
from delaynet_lava.analysis import memory
from delaynet_lava.cli.output import complain, grid, progress, require_folder, say, speak_warnings, write_json
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import require_fit
from delaynet_lava.formats import netx
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.tasks.registry import task as task_of

COLUMNS = ["net", "cues", "wait ms", "right", "95 % interval", "last 7 cues", "margin", "rate"]


def whole_numbers(option: str, text: str) -> list[int]:
    """``"1,2,3"`` as integers.

    Raises:
        InputError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(option, f"{text!r} is not a list of whole numbers", "write 3,5,7") from error


def _name(path: str, taken: Collection[str]) -> str:
    stem = Path(path).stem
    return path if stem in taken else stem


def evaluate(
    nets: Annotated[list[str], typer.Argument(help="Exported networks; all see the same samples.")],
    task: Annotated[str, typer.Option(help="Benchmark: cue.")] = "cue",
    waits: Annotated[str, typer.Option(help="Waits in ms, at the first number of --base.")] = "1200",
    cues: Annotated[str, typer.Option(help="Numbers of cues, at the second number of --base.")] = "",
    base: Annotated[
        str, typer.Option(help="Cues and wait of the task where the other one varies.")
    ] = "7,1200",
    samples: Annotated[int, typer.Option(help="Fresh test samples a seed.")] = 256,
    seeds: Annotated[str, typer.Option(help="Seeds of the samples.")] = "2026",
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw them here: .png, .svg or .pdf.")] = None,
) -> int:
    """How far networks remember: accuracy over waits and numbers of cues, beside a model of the last 7.

    The model knows the last 7 cues perfectly and answers by their majority. Example:
    delaynet evaluate net.h5 --waits 1200,3000,30000 --cues 3,7,11,21,31 --plot memory.png
    """
    if plot is not None:
        pictures.check_format(plot)
    for option, path in (("--plot", plot), ("--json", json)):
        require_folder(option, path)
    if samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
    at = whole_numbers("--base", base)
    if len(at) != 2:
        raise InputError("--base", f"{base!r} has {len(at)} numbers, expected cues and wait", "write 7,1200")
    task_of(task)
    networks: dict[str, netx.Network] = {}
    with speak_warnings("delaynet evaluate"):
        for path in nets:
            network = netx.read(path)
            require_fit(network, CueAccumulation(*at), path)
            networks[_name(path, networks)] = network
    over_wait = [(at[0], wait) for wait in (whole_numbers("--waits", waits) if waits else [])]
    over_cues = [(count, at[1]) for count in (whole_numbers("--cues", cues) if cues else [])]
    settings = list(dict.fromkeys(over_wait + over_cues))
    if not settings:
        raise InputError("--waits and --cues", "are both empty", "give numbers to one of them")
    done = iter([0])
    with progress("evaluating", len(settings) * len(networks)) as advance:
        points = memory.measure(
            networks, settings, samples, whole_numbers("--seeds", seeds),
            lambda text: advance(next(done, 1), text),
        )  # fmt: skip
    if json != "-":
        say(f"{samples} fresh samples of each seed ({seeds}), emulator")
        grid(COLUMNS, [_row(point) for point in points])
    write_json(json, {"seeds": whole_numbers("--seeds", seeds), "points": [p.as_dict() for p in points]})
    for point in points:
        if point.u_wraps or point.v_saturations:
            complain(
                "delaynet evaluate",
                f"warning: {point.net}, {point.cues} cues, {point.wait_ms} ms: u wrapped {point.u_wraps} "
                f"times, v saturated {point.v_saturations} times",
            )
    if plot is not None:
        # A single wait or number of cues is no curve, unless there is nothing else.
        longest = max(len(over_wait), len(over_cues))
        panels = [some if len(some) > min(1, longest - 1) else [] for some in (over_wait, over_cues)]
        of_wait, of_cues = ([p for p in points if (p.cues, p.wait_ms) in some] for some in panels)
        pictures.write(memory.draw_memory(of_wait, of_cues), plot)
    return 0


def _row(point: memory.Point) -> list[str]:
    low, high = point.interval
    return [
        point.net, str(point.cues), str(point.wait_ms), f"{100 * point.accuracy:.2f} % of {point.samples}",
        f"{100 * low:.2f} to {100 * high:.2f}", f"{100 * point.model:.2f}",
        f"{100 * (point.accuracy - point.model):+.2f}", f"{point.rate:.4f}",
    ]  # fmt: skip
