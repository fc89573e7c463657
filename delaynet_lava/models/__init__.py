"""Trained networks that come with the package, by name: ``model:cue_loihi2`` wherever a ``model.pt`` is read.

``delaynet_lava.load_model("model:cue_loihi2")`` is the torch network; commands take the same word. What they
were trained on and how often they are right stands in docs/results.md, and in each file's provenance.
"""

from __future__ import annotations

import os
from pathlib import Path

from delaynet_lava.errors import InputError, shown

__all__ = ["PREFIX", "located", "names", "path", "stem"]

PREFIX = "model:"
_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """What may stand behind ``model:``, in alphabetical order."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.pt")))


def path(name: str) -> Path:
    """The ``model.pt`` of this name.

    Raises:
        InputError: there is none, with the names that there are.
    """
    if name not in names():
        known = ", ".join(PREFIX + one for one in names())
        raise InputError(f"{PREFIX}{name}", f"no {shown(name)} comes with the package", f"there are {known}")
    return _FOLDER / f"{name}.pt"


def located(word: str | os.PathLike) -> str:
    """The path that a user means: of ``model:NAME`` that of the shipped file, of anything else itself.

    Raises:
        InputError: no model has this name.
    """
    text = os.fspath(word)
    return str(path(text.removeprefix(PREFIX))) if text.startswith(PREFIX) else text


def stem(word: str | os.PathLike) -> str:
    """A file name without its ending, for what is made of it: ``cue_loihi2`` of ``model:cue_loihi2``."""
    return Path(located(word)).stem
