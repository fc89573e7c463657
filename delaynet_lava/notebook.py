"""Progress in a notebook, drawn by the notebook's own HTML: no widgets, nothing to install."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

__all__ = ["Bar", "bar", "is_notebook", "no_bar"]

_PAUSE_S = 0.1  # between two drawings


def is_notebook() -> bool:
    """Whether a kernel runs this, whose front end shows HTML; a terminal's IPython does not."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get is None else get()
    return shell is not None and hasattr(shell, "kernel")


class Bar:
    """A bar that grows.

    Args:
        label: beside it. total: what is all.
    """

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total, self.done = label, total, 0.0
        self._drawn = 0.0
        self._handle: Any = None
        self._show(label)

    def __call__(self, count: float = 1, text: str | None = None) -> None:
        """Advance by ``count``."""
        self.to(self.done + count, text)

    def to(self, done: float, text: str | None = None) -> None:
        """Stand at ``done`` of the total; drawn ten times a second at most, and at the end."""
        self.done = done
        if done >= self.total or time.monotonic() - self._drawn >= _PAUSE_S:
            self._show(text or f"{self.label}: {done:,.0f} of {self.total:,.0f}")

    def _show(self, text: str) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        shown = HTML(f'<progress value="{self.done:g}" max="{self.total:g}"></progress> {escape(text)}')
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


def bar(label: str, total: float) -> Callable[[int], None] | None:
    """A :class:`Bar` in a notebook; None elsewhere."""
    return Bar(label, total) if is_notebook() else None


def no_bar(count: int) -> None:
    """For work that is part of another, which has a bar."""
