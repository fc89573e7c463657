"""Other processes of this package."""

from __future__ import annotations

import sys

__all__ = ["command_of"]


def command_of(module: str) -> list[str]:
    """What runs a module of this package in a process of its own, as ``python -m`` does; arguments follow.

    The process looks for modules where this one does. ``-m`` would look in the current folder first, and run
    whatever lies there under the name of a library.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; import runpy; "
    return [sys.executable, "-c", code + f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"]
