"""A training on disk, written after each epoch: another process goes on from it to the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import load_tensors, require_plain, write_tensors

__all__ = ["differences", "path_of", "restore", "save"]

_FORMAT, _VERSION = "delaynet_lava.checkpoint", 2
_REMEDY = "delete it to start over"


def path_of(model: Path) -> Path:
    """Where the checkpoint of a ``model.pt`` is."""
    return model.with_name(model.name + ".checkpoint")


def save(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the state of a training, tensors and plain values, as a whole or not at all.

    Args:
        identity: what a training that goes on from it must have in common.

    Raises:
        InputError: the place can't be written.
    """
    write_tensors(path, {"format": _FORMAT, "version": _VERSION, "identity": identity, "state": state})


def restore(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The state that :func:`save` wrote.

    Raises:
        InputError: it can't be read, is of an earlier release, or of another training.
    """
    content = load_tensors(path)
    require_plain({key: content.get(key) for key in ("format", "version", "identity")}, str(path))
    if content.get("format") != _FORMAT:
        raise InputError(str(path), "is not a checkpoint of this package", _REMEDY)
    if content.get("version") != _VERSION:
        raise InputError(
            str(path), "is a checkpoint of another release, which alone can go on from it", _REMEDY
        )
    theirs, state = content.get("identity"), content.get("state")
    if not isinstance(theirs, dict) or not isinstance(state, dict):
        raise InputError(str(path), "is damaged", _REMEDY)
    require_plain({key: state.get(key) for key in ("progress", "history", "feedback")}, str(path))
    changed = [name.removeprefix("recipe.") for name in differences(identity, theirs)]
    if changed:
        raise InputError(
            str(path),
            f"belongs to another training (not the same: {', '.join(changed)})",
            f"ask for the same, or {_REMEDY}",
        )
    return state


def differences(mine: dict[str, Any], theirs: dict[str, Any], within: str = "") -> list[str]:
    """Names of the values in which two nested tables differ, sections before them: "network.layers"."""
    found = []
    for key in dict.fromkeys([*mine, *theirs]):
        a, b = mine.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{within}{key}.")
        elif a != b:
            found.append(f"{within}{key}")
    return found
