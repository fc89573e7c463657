"""Errors that a user can act on: one line that says what, where, which limit and what to do."""

from __future__ import annotations

__all__ = ["BackendMissing", "DelayNetError", "InputError", "MismatchError"]


class DelayNetError(Exception):
    """Base of every error this package raises on purpose; ``str()`` is always a single line.

    Attributes:
        exit_code: what a command returns when this error ends it (2: bad usage or bad input).
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class InputError(DelayNetError):
    """A file, an array or an option that cannot be used as it is.

    Args:
        where: the object at fault, from the outside in ("net.h5: layer 1: weight").
        problem: what is wrong, with the actual value and the limit.
        remedy: what the user can do about it; empty where there is nothing to add.
    """

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}" + (f"; {remedy}" if remedy else ""))


class BackendMissing(DelayNetError):
    """An optional package (Lava, SLAYER, torch) is needed for what was asked and is not there."""

    def __init__(self, what: str, package: str, cause: str = "") -> None:
        detail = f" ({cause})" if cause else ""
        super().__init__(
            f"{what} needs {package}, which cannot be imported{detail}; "
            "lava-nc and lava-dl run on Python 3.10 only: pip install delaynet_lava there"
        )


class MismatchError(DelayNetError):
    """Two executions of the same network differ; the message says where they first do."""

    exit_code = 1
