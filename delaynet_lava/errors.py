"""Errors that a user can act on: one line that says what, where, which limit and what to do."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "MAX_MESSAGE",
    "BackendMissing",
    "DelayNetError",
    "InputError",
    "InputErrors",
    "MismatchError",
    "one_line",
    "printable",
    "reason",
    "shown",
]

MAX_MESSAGE = 400
"""Characters of a message."""


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor, change its colours or reverse the line.

    It is written as Python writes it (``\\x1b``).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Text that a terminal can be given, whoever wrote it: one line of at most ``limit`` characters.

    Runs of white space become one blank; see :func:`printable`. Of a longer text the beginning and the end
    are kept.
    """
    # A character becomes at most ten; what is cut away need not be looked at.
    if len(text) > 4 * limit:
        text = f"{text[: 2 * limit]} ... {text[-2 * limit :]}"
    shown = printable(" ".join(text.split()))
    if len(shown) <= limit:
        return shown
    tail = limit * 2 // 5
    return f"{shown[: limit - tail - 5]} ... {shown[-tail:]}"


def shown(value: object, limit: int = 60) -> str:
    """A value as Python writes it, cut to ``limit`` characters; its type where it can't be written."""
    try:
        return one_line(repr(value), limit)
    except Exception:  # an integer of thousands of digits, an object that does not like to be asked
        return f"something of type {type(value).__name__}"


def reason(error: BaseException, limit: int = 120) -> str:
    """What code that is not ours raised, the user's own say: its type, and the first line of its words.

    torch's have many, with tensors and places in its sources in them; ``--debug`` shows all.
    """
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return one_line(f"{type(error).__name__}: {first}" if first else type(error).__name__, limit)


class DelayNetError(Exception):
    """Base of every error this package raises on purpose; ``str()`` is always a single line.

    However long and strange the names and values in it, it is that of :func:`one_line`.

    Attributes:
        exit_code: what a command returns when this error ends it (2: bad usage or bad input).
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


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


class InputErrors(InputError):
    """Several mistakes of one object, told together: those that a message has room for, and how many more.

    Attributes:
        problems: one sentence for each mistake.
    """

    def __init__(self, where: str, problems: Sequence[str], remedy: str = "") -> None:
        self.problems = [one_line(problem, MAX_MESSAGE // 2) for problem in problems]
        room = MAX_MESSAGE - len(one_line(f"{where}: ; {remedy}")) - len("; and 1000000 mistakes more")
        told, used = 0, 0
        for problem in self.problems:
            used += len(problem) + 2
            told += used <= room or not told
        more = len(self.problems) - told
        rest = [f"and {more} mistake{'s' * (more > 1)} more"] if more else []
        super().__init__(where, "; ".join([*self.problems[:told], *rest]), remedy)


class BackendMissing(DelayNetError):
    """An optional package (Lava, SLAYER, torch) is needed for what was asked and is not there."""

    def __init__(self, what: str, package: str, cause: str = "") -> None:
        detail = f" ({cause})" if cause else ""
        super().__init__(
            f"{what} needs {package}, which cannot be imported{detail}; "
            "'delaynet setup-lava' installs lava-nc and lava-dl, 'delaynet doctor' says what is here"
        )


class MismatchError(DelayNetError):
    """Two executions of the same network differ; the message says where they first do."""

    exit_code = 1
