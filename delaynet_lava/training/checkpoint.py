"""A training on disk, written after each epoch: another process goes on from it to the same weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from delaynet_lava.errors import InputError, shown
from delaynet_lava.formats.model_file import load_tensors, require_plain, write_tensors

__all__ = [
    "differences",
    "path_of",
    "require_moments",
    "require_numbers",
    "require_tensors",
    "restore",
    "save",
]

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


def require_tensors(found: Any, wanted: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse tensors that have not the names, shapes and types of others, or values that are not finite.

    Raises:
        InputError: naming the first of them.
    """
    if not isinstance(found, Mapping) or set(found) != set(wanted):
        names = set(found) if isinstance(found, Mapping) else set()
        odd = min(names ^ set(wanted), key=str, default="")
        raise InputError(where, f"is damaged: {shown(odd)} is missing, or is too much", _REMEDY)
    for name, like in wanted.items():
        one = found[name]
        if not isinstance(one, torch.Tensor):
            raise InputError(f"{where}: {name}", f"is a {type(one).__name__}, expected a tensor", _REMEDY)
        if one.shape != like.shape or one.dtype != like.dtype:
            kinds = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (one, like)]
            raise InputError(f"{where}: {name}", f"is {kinds[0]}, expected {kinds[1]}", _REMEDY)
        if one.is_floating_point() and not one.isfinite().all():
            raise InputError(f"{where}: {name}", "has values that are not finite", _REMEDY)


def require_moments(
    found: Any, parameters: Mapping[int, torch.Tensor], moments: Sequence[str], where: str
) -> None:
    """Refuse the state of an optimiser that does not fit its parameters.

    Args:
        found: by the number of a parameter, which has a state or none yet; beside them there may be counts
            of steps.
        moments: what a state holds: "step" is a count, all others are like the parameter.

    Raises:
        InputError: naming the first that does not fit.
    """
    if not isinstance(found, dict):
        raise InputError(where, "is damaged: no state of an optimiser", _REMEDY)
    for number, state in found.items():
        if number not in parameters:
            _require_count(state, f"{where}: {shown(number)}")
            continue
        if not isinstance(state, dict):
            raise InputError(f"{where}: parameter {number}", f"is a {type(state).__name__}", _REMEDY)
        if not state:
            continue
        like = {name: parameters[number] for name in moments}
        if "step" in like:
            _require_count(state.get("step"), f"{where}: parameter {number}: step")
            like["step"] = state["step"]
        require_tensors(state, like, f"{where}: parameter {number}")


def _require_count(value: Any, where: str) -> None:
    counts = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.int64)
    if not counts or value.numel() != 1 or not 0 <= float(value) < math.inf:
        raise InputError(where, "is no count of steps", _REMEDY)


def require_numbers(found: Any, most: Mapping[str, float], where: str) -> None:
    """Refuse numbers that a training can't have come to.

    Args:
        most: what each may be at most; where that is whole, so is the number. None is below 0.

    Raises:
        InputError: naming the first of them.
    """
    if not isinstance(found, Mapping) or set(found) != set(most):
        raise InputError(where, f"is damaged: expected {', '.join(most)}", _REMEDY)
    for name, limit in most.items():
        value, kinds = found[name], (int,) if type(limit) is int else (int, float)
        if type(value) not in kinds or not 0 <= value <= limit:
            raise InputError(f"{where}: {name}", f"is {shown(value)}, outside 0 to {limit}", _REMEDY)
