"""When a loop may be spread over threads, and what becomes of it in a process where it may not."""

from __future__ import annotations

import os
import subprocess
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numba as nb
from numba.core.errors import NumbaSystemWarning

__all__ = ["Spread"]


_SURVIVE_FORK = ("tbb", "workqueue")
_TAKE_ALL = ("tbb", "omp")
"""Layers that several threads may call at once."""


class _Process:
    """What this process knows of its threads.

    Attributes:
        turn: held while threads are started, and for as long as a loop runs where only one may.
        alone: whether loops must run on one thread here: this process was forked, and the threads of GNU's
            OpenMP, which torch may have started too, do not come along. What then asks for them waits for
            ever or is ended.
    """

    def __init__(self, alone: bool = False) -> None:
        self.turn, self.alone = threading.RLock(), alone


def _layer() -> str | None:
    """Numba's word for what starts the threads; None before they are."""
    try:
        return str(nb.threading_layer())
    except ValueError:
        return None


_here = _Process()


def _after_fork() -> None:
    global _here
    _here = _Process(alone=_here.alone or _layer() not in _SURVIVE_FORK)


if hasattr(os, "register_at_fork"):
    # Forked while another thread starts them, the process would have half of what it needs.
    os.register_at_fork(
        before=lambda: _here.turn.acquire(),
        after_in_parent=lambda: _here.turn.release(),
        after_in_child=_after_fork,
    )


class Spread:
    """A compiled loop over samples, on all threads that may be used.

    Several threads may call it at the same time; where Numba has no more than its own work queue, which
    ends the process then, they take turns. In a process that was forked from one whose threads it can't
    use, it runs on the calling thread: the numbers are the same.

    Args:
        loop: compiled for many threads.
        alone: compiles it for one, when that is needed.
    """

    def __init__(self, loop: Any, alone: Callable[[], Any]) -> None:
        self._loop, self._make = loop, alone
        self._single: Any = None
        self._other: subprocess.Popen[bytes] | None = None
        self.py_func = loop.py_func

    @property
    def signatures(self) -> list[Any]:
        """Types of arguments that it was compiled for, or found compiled, in this process."""
        return list(self._loop.signatures)

    def kept(self) -> bool:
        """Whether it was compiled before, for any types, by this process or another."""
        return bool(self.signatures) or self._loop._cache.holds_any()

    def wait_for(self, other: subprocess.Popen[bytes]) -> None:
        """Let the next call wait for a process that is compiling it."""
        self._other = other

    def __call__(self, *arguments: Any) -> Any:
        process = _here
        if self._other is not None:
            other, self._other = self._other, None
            other.wait()
        if process.alone:
            if self._single is None:
                self._single = self._make()
            return self._single(*arguments)
        if _layer() in _TAKE_ALL:
            return self._loop(*arguments)
        with process.turn, warnings.catch_warnings():
            # Without /dev/shm Numba can't keep forked processes from starting at once, which does no harm.
            warnings.simplefilter("ignore", NumbaSystemWarning)
            return self._loop(*arguments)
