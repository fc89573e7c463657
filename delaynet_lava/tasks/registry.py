"""From a word to a task: the same word in every command, every file and every report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError, shown
from delaynet_lava.tasks.arrays import ENDINGS, file_task
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.outside import own_task, tonic_task
from delaynet_lava.tasks.words import join_word, read_options, split_word

__all__ = ["BUILT_IN", "WORDS", "is_code", "task", "varied"]

WORDS = "cue:cues=11,wait_ms=3000, mine.npz, file.py:Name"
"""Examples, for the help of commands."""


def _cue(word: str, options: Mapping[str, str], seed: int) -> Task:
    from delaynet_lava.tasks.cue import RIGHT_P, CueAccumulation

    usual = {"cues": 7, "wait_ms": 1200, "right_p": RIGHT_P, "blocked": 0.0}
    return CueAccumulation(seed=seed, **read_options(word, options, usual))


def _pixels(word: str, options: Mapping[str, str], seed: int) -> Task:
    from delaynet_lava.tasks.mnist import Pixels

    name = word.partition(":")[0]
    usual = {"root": "", "bits": 8, "depth": 0, "shift": 0} | (
        {"permutation": 0} if name == "psmnist" else {}
    )
    return Pixels(name=name, collection="mnist", seed=seed, **read_options(word, options, usual))


def _coded(word: str, options: Mapping[str, str], seed: int) -> Task:
    from delaynet_lava.tasks.mnist import Coded

    name = word.partition(":")[0]
    usual = {"root": "", "coding": "rate", "length": 200, "blank": 0, "gain": 0.25, "bits": 8}
    usual |= {"depth": 0, "shift": 0}
    return Coded(name=name, collection=name, seed=seed, **read_options(word, options, usual))


BUILT_IN: dict[str, Callable[[str, Mapping[str, str], int], Task]] = {
    "cue": _cue,
    "psmnist": _pixels,
    "smnist": _pixels,
    "mnist": _coded,
    "fashion": _coded,
}
"""Makes a task of its whole word (for errors), the options in it, and a seed. A new task is a line here."""


def task(word: str, seed: int | None = None) -> Task:
    """The task of a word.

    Args:
        word: one of :data:`BUILT_IN` with options, ``cue:cues=11,wait_ms=3000``; a file, ``mine.npz``; a data
            set, ``tonic:NMNIST:root=DIR``; or the caller's own code, ``file.py:Name``, which is run.
        seed: of what is drawn; None: 0. Where samples are stored, nothing is.

    Raises:
        InputError: no such task, a wrong option, or samples that can't be read.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise InputError("task: seed", f"{shown(seed)} is not a whole number of at least 0")
    head, options = split_word(word)
    if head in BUILT_IN:
        return BUILT_IN[head](word, options, seed or 0)
    if _is_file(head):
        return file_task(word, head, options)
    if head.startswith("tonic:"):
        return tonic_task(word, head.removeprefix("tonic:"), options)
    if is_code(word):
        return own_task(word, head, options, seed or 0)
    raise InputError(
        "task",
        f"{head!r} is not known",
        f"choose from: {', '.join(BUILT_IN)}, FILE{', FILE'.join(ENDINGS)}, tonic:NAME, "
        "package.module:Name, file.py:Name",
    )


def _is_file(head: str) -> bool:
    return os.path.splitext(head)[1].lower() in ENDINGS


def is_code(word: str) -> bool:
    """Whether making the task of a word runs code that the word names: ``package.module:Name``."""
    head, _ = split_word(word)
    return ":" in head and not head.startswith("tonic:") and not _is_file(head)


def varied(word: str, **options: Any) -> str:
    """The word with some options replaced or added."""
    head, mine = split_word(word)
    return join_word(head, {**mine, **options})
