"""Other processes of this package."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

__all__ = ["command_of", "end_with_parent"]

WATCH_S = 0.5
"""Between two looks at whether a parent is still there."""


def command_of(module: str) -> list[str]:
    """What runs a module of this package in a process of its own, as ``python -m`` does; arguments follow.

    The process looks for modules where this one does. ``-m`` would look in the current folder first, and run
    whatever lies there under the name of a library.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; import runpy; "
    return [sys.executable, "-c", code + f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"]


def end_with_parent() -> None:
    """From now on, end this process, and the group that it leads, once the one that started it is gone."""
    parent, leads = os.getppid(), hasattr(os, "getpgid") and os.getpgid(0) == os.getpid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        if leads:
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
