"""Checks of the values that a network is made of: each refusal names what, where and the limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from delaynet_lava.errors import InputError, reason

__all__ = ["as_array", "integer", "integers", "require", "require_type", "zero"]


def zero() -> np.ndarray:
    """An array of no dimension, which stands for all synapses or neurons; a plain integer does as well."""
    return np.zeros((), np.int16)


def require(condition: bool, where: str, problem: str, remedy: str = "") -> None:
    """Raise an :class:`InputError` unless the condition holds."""
    if not condition:
        raise InputError(where, problem, remedy)


def as_array(values: Any, where: str) -> np.ndarray:
    """An array of whatever holds numbers.

    Raises:
        InputError: it can't be made one.
    """
    try:
        return np.asarray(values)
    except Exception as error:  # ragged, on a GPU, with a gradient, sparse: whatever the value's own says
        if hasattr(values, "detach"):
            raise InputError(
                where,
                "is a tensor with a gradient, on a GPU, or sparse, of which NumPy makes no array",
                "give tensor.detach().cpu().numpy()",
            ) from error
        raise InputError(where, f"is no array of numbers ({reason(error)})", "give a NumPy array") from error


def integers(values: Any, where: str, low: int, high: int, dtype: type) -> np.ndarray:
    """Check an array against a closed range and freeze it; names the first offender."""
    array = as_array(values, where)
    require(array.dtype.kind in "iuf", where, f"has type {array.dtype}, expected integers")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            at = tuple(int(k) for k in np.argwhere(bad)[0])
            raise InputError(where, f"value at {at} is {array[at]}, not a number", "check the training run")
        bad = array != np.rint(array)
        if bad.any():
            at = tuple(int(k) for k in np.argwhere(bad)[0])
            raise InputError(where, f"value at {at} is {array[at]}, not an integer", "quantise it first")
    bad = (array < low) | (array > high)
    if bad.any():
        at = tuple(int(k) for k in np.argwhere(bad)[0])
        raise InputError(
            where, f"value at {at} is {int(array[at])}, outside {low} to {high} ({int(bad.sum())} such)"
        )
    frozen: np.ndarray = array.astype(dtype, order="C", copy=True)
    frozen.setflags(write=False)
    return frozen


def integer(value: Any, where: str, low: int, high: int) -> int:
    """:func:`integers` of one value, as Python's own."""
    array = integers(value, where, low, high, np.int64)
    require(array.size == 1, where, f"has shape {array.shape}, expected one value")
    return int(array.reshape(-1)[0])


def require_type(value: Any, kind: Any, where: str, expected: str) -> None:
    """Refuse another type, which ``expected`` names."""
    require(isinstance(value, kind), where, f"is of type {type(value).__name__}, expected {expected}")
