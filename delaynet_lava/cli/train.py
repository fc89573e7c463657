"""``delaynet train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from delaynet_lava.cli.output import (
    complain,
    duration,
    figures,
    progress,
    require_folder,
    say,
    speak_warnings,
    write_json,
)
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import WORDS
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training.recipe import Recipe, plain
from delaynet_lava.training.recipe_file import changed, command_line, load_recipe, recipe_names, toml_of
from delaynet_lava.training.samples import pools, what_trains

if TYPE_CHECKING:
    from delaynet_lava.training.trainer import Epoch

RECIPE_HELP = f"A recipe.toml, or one of: {', '.join(recipe_names())}."
SET_HELP = "Change a key of the recipe: SECTION.KEY=VALUE; repeatable."
TASK_HELP = f"Where samples come from: {WORDS}."


def recipe_with(name: str, changes: list[str] | None) -> Recipe:
    """The recipe of ``--recipe``, with the changes of ``--set``."""
    return changed(load_recipe(name), changes or [])


def train(
    task: Annotated[str, typer.Argument(help=TASK_HELP)],
    output: Annotated[str, typer.Option("-o", "--output", help="The model.pt to write.")] = "model.pt",
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, lattice and samples.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    init: Annotated[
        str | None, typer.Option(help="A model.pt or model:NAME to go on from; short for --set init.model=.")
    ] = None,
    membrane_bits: Annotated[
        int | None,
        typer.Option(help="Train with membranes of so few bits; short for --set network.membrane_bits=."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as TOML, then stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the model.pt that is there.")] = False,
    tensorboard: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write event files for TensorBoard here.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Write recipe and figures here; - is stdout.")
    ] = None,
) -> int:
    """Train a network; a killed training goes on where it was when called again.

    Example: delaynet train cue --recipe loihi2 --seed 1 -o model.pt

    A recipe of your own: delaynet train mine.npz --show > mine.toml, edit it, then
    delaynet train mine.npz --recipe mine.toml -o model.pt

    On several processes, which share each batch:
    torchrun --nproc-per-node 2 -m delaynet_lava train cue --recipe loihi2 -o model.pt
    """
    short = {"init.model": init, "network.membrane_bits": membrane_bits}
    changes = [f"{name}={value}" for name, value in short.items() if value is not None]
    made = recipe_with(recipe, (set_ or []) + changes)
    if show:
        say(toml_of(made).rstrip(), fold=False)
        return 0
    source = task_of(task, seed)
    require_folder("--output", output)
    require_folder("--json", json)
    from delaynet_lava.training.checkpoint import path_of

    if output == "-":
        raise InputError("-o -", "a training goes on from a file beside its model", "name a model.pt")
    # A checkpoint beside it says that the training that was to replace it is under way.
    if Path(output).exists() and not path_of(Path(output)).exists() and not force:
        raise InputError(f"-o {output}", "is there already", "name another file, or --force to train it anew")
    from delaynet_lava.training.distributed import process_group
    from delaynet_lava.training.events import event_writer
    from delaynet_lava.training.trainer import Outlook, train

    with process_group() as group:
        command = command_line(source.word, recipe, made, seed, group.size)
        if group.rank > 0:
            train(made, source, output, seed, group=group, command=command)
            return 0
        write = event_writer(tensorboard) if tensorboard is not None else None
        say(what_trains(*pools(source, seed, made.schedule.held_out)))
        epochs, shown = made.schedule.epochs, 0
        with progress("training", epochs) as advance:

            def report(epoch: Epoch, outlook: Outlook) -> None:
                nonlocal shown
                over, left = round(epochs * outlook.done), f"{duration(outlook.left_s)} left"
                advance(over - shown, f"epoch {epoch.number}, {left}")
                shown = over
                if write is not None:
                    write(epoch)
                say(f"{_told(epoch)}, {left}")

            try:
                with speak_warnings("delaynet train"):
                    model = train(made, source, output, seed, report, group, command)
            except KeyboardInterrupt:
                kept = path_of(Path(output))
                what = f"{kept} is kept, call again to go on" if kept.exists() else "nothing is kept"
                complain("delaynet train", f"interrupted; {what}")
                return 130
    metrics = model.provenance["metrics"]
    write_json(json, {"model": output, "task": source.word, "seed": seed, "recipe": plain(made), **metrics})
    figures([("model", output), *((k.replace("_", " "), str(v)) for k, v in metrics.items())])
    return 0


def _told(epoch: Epoch) -> str:
    text = (
        f"epoch {epoch.number}: {epoch.task}, accuracy {epoch.accuracy:.3f}, loss {epoch.loss:.3f}, "
        f"rate {epoch.rate:.4f}, gradient {epoch.gradient:.1e}"
    )
    if epoch.validation is not None:
        text += f", validation {epoch.validation:.4f}"
    if epoch.skipped:
        text += f", {epoch.skipped} steps left out: their gradient is not finite"
    return text
