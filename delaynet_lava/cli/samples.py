"""Which samples a command runs: the task that was named, or else the network's own."""

from __future__ import annotations

import typer

from delaynet_lava.errors import InputError
from delaynet_lava.network import Network
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.rebinned import at_step_of
from delaynet_lava.tasks.registry import WORDS, is_code, task

__all__ = ["TASK", "named_word", "number", "seed_words", "source"]

TASK = typer.Option("--task", help=f"Where samples come from, such as {WORDS}. [default: the network's own]")


def named_word(word: str | None, own: str, path: str) -> str:
    """The word that was given, or else the one that a file has.

    Args:
        own: what the file at ``path`` says.

    Raises:
        InputError: neither is there; or the file names code, which it is not for a file to do.
    """
    if word is not None:
        return word
    if not own:
        raise InputError(path, "does not say what task it is for", f"name one with --task, such as {WORDS}")
    if is_code(own):
        raise InputError(
            path,
            f"is for the task {own}, which is code, and no file says what code runs here",
            f"if you trust it, say so with --task {own}",
        )
    return own


def source(
    word: str | None, network: Network, path: str, seed: int | None = None, labelled: bool = True
) -> Task:
    """The task that a network is to run, at the network's time step.

    Args:
        word: what ``--task`` says; None: the network's own.
        path: of the network, for errors.
        seed: what ``--seed`` says; None: 0 where samples are drawn.
        labelled: whether the labels have to fit, too.

    Raises:
        InputError: there is no such task, it does not fit the network, or it has no use for a seed.
    """
    from delaynet_lava.evaluation import require_fit  # compiled loops, which a usage error does without

    named = named_word(word, network.task, path)
    try:
        made = task(named, seed)
    except InputError as error:
        if word is not None:
            raise
        raise InputError(
            path, f"is for the task {named}, which cannot be run here ({error})", "name one with --task"
        ) from error
    require_fit(network, made, path, labelled)
    if seed is not None and made.seed is None:
        raise InputError(
            f"--seed {seed}", f"the samples of {made.word} are stored, none is drawn", "leave it out"
        )
    return at_step_of(network.dt_ms, made)


def number(of: Task, asked: int | None, usual: int, split: str = "test") -> int:
    """How many samples to run: what was asked for, or the usual number as far as the task has so many.

    Raises:
        InputError: below 1, or more than the task has.
    """
    size = of.size(split)
    if size == 0:
        raise InputError(f"task {of.word}", f"has no samples in the split {split}")
    if asked is None:
        return usual if size is None else min(usual, size)
    if asked < 1:
        raise InputError("--samples", f"{asked} is below 1")
    if size is not None and asked > size:
        raise InputError(
            f"--samples {asked}", f"{of.word} has {size} in the split {split}", f"ask for at most {size}"
        )
    return asked


def seed_words(of: Task) -> str:
    """The seed, for a line that names the task."""
    return "" if of.seed is None else f", seed {of.seed}"
