"""Ctrl-C, also where Python drops it."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["interrupts_arrive"]

_LATER_S = 0.05


def _interrupt() -> None:
    # As the keyboard does it, so that a wait ends.
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def interrupts_arrive() -> Iterator[None]:
    """Send an interrupt once more that came while a destructor ran, out of which Python lets nothing."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # Not at once: it would be raised in here, and be dropped again.
        again = threading.Timer(_LATER_S, _interrupt)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
