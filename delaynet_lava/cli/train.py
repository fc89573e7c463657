"""``delaynet train``."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Annotated, Any

import typer

from delaynet_lava.cli.output import figures, grid, progress, say, write_json
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training.options import PRESETS, CueOptions, explained


def _parse(name: str, text: str, like: Any) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(like, tuple):
            return tuple(type(like[0])(part) for part in text.split(","))
        return type(like)(text)
    except (ValueError, KeyError) as error:
        raise InputError(f"--set {name}", f"{text!r} is not a {type(like).__name__}") from error


def parse_options(preset: str, seed: int, changes: list[str]) -> CueOptions:
    """Options of a preset with some changed, each ``"name=value"``.

    Raises:
        InputError: an unknown preset or name, or a value of another type.
    """
    if preset not in PRESETS:
        raise InputError("--preset", f"{preset!r} is not one of {list(PRESETS)}")
    options = replace(PRESETS[preset], seed=seed)
    names = {f.name for f in fields(options)} - {"seed"}
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign or name not in names:
            raise InputError(
                f"--set {change}", "is not NAME=VALUE with a known name", f"names: {sorted(names)}"
            )
        options = replace(options, **{name: _parse(name, text, getattr(options, name))})
    return options


def train(
    task: Annotated[str, typer.Argument(help="Benchmark: cue.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The model.pt to write.")] = "model.pt",
    preset: Annotated[str, typer.Option(help=f"One of: {', '.join(PRESETS)}.")] = "loihi2",
    seed: Annotated[int, typer.Option(help="Seed of weights, lattice and samples.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change an option: NAME=VALUE; repeatable.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="A model.pt to go on from; short for --set init=.")] = None,
    membrane_bits: Annotated[
        int | None, typer.Option(help="Train with membranes of so few bits; short for --set membrane_bits=.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the options, then stop.")] = False,
    json: Annotated[
        str | None, typer.Option("--json", help="Write options and figures here; - is stdout.")
    ] = None,
) -> int:
    """Train a DelayNet; a killed training goes on where it was when called again.

    Example: delaynet train cue --seed 1 -o model.pt

    On several processes, which share each batch:
    torchrun --nproc-per-node 2 -m delaynet_lava train cue --seed 1 -o model.pt
    """
    task_of(task)
    short = {"init": init, "membrane_bits": membrane_bits}
    changes = [f"{name}={value}" for name, value in short.items() if value is not None]
    options = parse_options(preset, seed, (set_ or []) + changes)
    if show:
        grid(["option", "value", "meaning"], [list(row) for row in explained(options)], left=True)
        return 0
    from delaynet_lava.training.distributed import process_group
    from delaynet_lava.training.trainer import Epoch, train_cue

    with process_group() as group:
        if group.rank > 0:
            train_cue(options, output, preset, group=group)
            return 0
        with progress("training", options.max_epochs + options.anneal_epochs) as advance:

            def report(epoch: Epoch, annealed: float) -> None:
                text = (
                    f"epoch {epoch.number}: {epoch.cues} cues, {epoch.wait_ms} ms wait, "
                    f"accuracy {epoch.accuracy:.3f}, loss {epoch.loss:.3f}, rate {epoch.rate:.4f}, "
                    f"gradient {epoch.gradient:.1e}"
                )
                if epoch.validation is not None:
                    text += f", validation {epoch.validation:.4f}"
                advance(1, f"{100 * annealed:.0f} % annealed")
                if json != "-":
                    say(text)

            model = train_cue(options, output, preset, report, group)
    metrics = model.provenance["metrics"]
    if json != "-":
        figures([("model", output), *((k.replace("_", " "), str(v)) for k, v in metrics.items())])
    write_json(json, {"model": output, "options": asdict(options), **metrics})
    return 0
