"""Loops that are compiled once for all processes, and anew when any of their sources changes.

Numba keeps what it compiled beside the source, and takes it for current as long as the file of the function
is the same. Of the functions that it calls nothing is asked: after an update of the package whose only change
is in :mod:`delaynet_lava.fixedpoint`, the loops would go on with the old arithmetic.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import config
from numba.core.caching import FunctionCache, NullCache
from numba.extending import register_jitable

from delaynet_lava import fixedpoint

__all__ = ["compiled", "inner"]

_HERE = Path(__file__).resolve().parent
_LOG = logging.getLogger(__name__)


def _digest() -> str:
    """Of all that a compiled loop may hold: the integer arithmetic and the modules of this package."""
    digest = hashlib.sha256()
    for path in (_HERE.parent / "fixedpoint.py", *sorted(_HERE.glob("*.py"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


_SOURCES = _digest()
for _function in fixedpoint.COMPILED:
    register_jitable(_function)


class _Cache(FunctionCache):
    """Numba's cache, without which everything still runs: damaged files in it are made again."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(function)
        self._loop = name

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling half a file raises
            with contextlib.suppress(OSError):
                self.flush()
        if found is None:
            _LOG.info("compiling %s for this processor, once: it is kept in %s", self._loop, self.cache_path)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk, say
            super().save_overload(sig, data)


@functools.cache
def _elsewhere() -> str | None:
    """Folder for what is compiled, where neither the package's nor the user's can be written; None: none.

    Loading it runs its code: it must belong to this user, and to nobody else a place to write.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = None
    with contextlib.suppress(OSError):
        path = os.path.join(tempfile.gettempdir(), f"delaynet-numba-{user}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022:
            folder = path if os.access(path, os.W_OK) else None
    warnings.warn(
        "neither the folder of delaynet_lava nor that of the user's cache can be written: compiled loops are "
        + (f"kept in {folder}" if folder else "not kept, so that each process takes seconds for them")
        + "; NUMBA_CACHE_DIR chooses another folder",
        RuntimeWarning,
        stacklevel=2,
    )
    return folder


def _cache(function: Callable[..., Any], name: str) -> FunctionCache | NullCache:
    try:
        return _Cache(function, name)
    except RuntimeError:  # no place that can be written
        folder, before = _elsewhere(), config.CACHE_DIR  # type: ignore[attr-defined]
        if folder is None:
            return NullCache()
        try:
            config.CACHE_DIR = folder  # type: ignore[attr-defined]
            return _Cache(function, name)
        except (RuntimeError, OSError):
            return NullCache()
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]


# An option that Numba's own annotations leave out.
inner: Callable[..., Any] = functools.partial(nb.njit, no_cfunc_wrapper=True)  # type: ignore[call-overload]
"""``numba.njit`` of what compiled loops call; an entry for C would take a tenth of the time to compile."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with a cache that belongs to the sources as they are.

    While it runs the loop lets go of Python's lock; see :func:`kernels.threads.spread`.

    Args:
        options: of ``numba.njit``, beside ``cache`` and ``nogil``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        name = function.__qualname__
        # Files of the cache are named by this.
        function.__qualname__ = f"{name}_{_SOURCES}"
        loop = inner(nogil=True, **options)(function)
        loop._cache = _cache(function, name)
        return loop

    return decorate
