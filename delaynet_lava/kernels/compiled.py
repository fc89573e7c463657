"""Loops that are compiled once for all processes, and anew when any of their sources changes.

Numba keeps what it compiled beside the source, and takes it for current as long as the file of the function
is the same. Of the functions that it calls nothing is asked: after an update of the package whose only change
is in :mod:`delaynet_lava.fixedpoint`, the loops would go on with the old arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb

__all__ = ["compiled"]

_HERE = Path(__file__).resolve().parent


def _digest() -> str:
    """Of all that a compiled loop may hold: the integer arithmetic and the modules of this package."""
    digest = hashlib.sha256()
    for path in (_HERE.parent / "fixedpoint.py", *sorted(_HERE.glob("*.py"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


_SOURCES = _digest()


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with a cache that belongs to the sources as they are.

    Args:
        options: of ``numba.njit``, beside ``cache``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        # Files of the cache are named by this.
        function.__qualname__ += f"_{_SOURCES}"
        return nb.njit(cache=True, **options)(function)

    return decorate
