"""What all commands print with: tables, progress, JSON, one-line complaints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from delaynet_lava.errors import InputError, printable
from delaynet_lava.files import replace_file

__all__ = [
    "complain",
    "duration",
    "figures",
    "lines",
    "progress",
    "require_folder",
    "say",
    "speak_warnings",
    "write_json",
]

# A pipe has no width; tables in it are for people and for grep.
_console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 160)
_stderr = Console(stderr=True, soft_wrap=True, highlight=False)


def complain(name: str, message: str) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):  # nobody to tell
        print(printable(f"{name}: {' '.join(message.split())}"), file=sys.stderr)


def say(text: str) -> None:
    """One line on stdout; what a file put into it can't move the cursor."""
    print("\n".join(map(printable, text.split("\n"))))


def _cell(text: str) -> Text:
    # Not a string: in one, rich would take what stands in brackets for a colour.
    return Text(printable(text))


def figures(rows: list[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(_cell(name), _cell(value))
    _console.print(table)


def grid(columns: list[str], rows: list[list[str]], left: bool = False) -> None:
    """A table with a header; the first column is text, the others numbers, or text with ``left``."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k == 0 or left else "right")
    for row in rows:
        table.add_row(*map(_cell, row))
    _console.print(table)


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of a line a row, however long, so that a pipe can search it; numbers to the right.

    A table whose first column has no name is one of names and values, without a header.
    """
    shown = []
    for k, column in enumerate(zip(columns, *rows, strict=True)):
        width = max(map(len, column))
        number = k > 0 and all(cell[:1].isdigit() or cell[:1] in "-" for cell in column[1:])
        shown.append([cell.rjust(width) if number else cell.ljust(width) for cell in column])
    for row in list(zip(*shown, strict=True))[0 if columns[0] else 1 :]:
        say("  ".join(row).rstrip())


def require_folder(option: str, path: str | None) -> None:
    """Refuse a place to write to before minutes of work, not after them.

    Raises:
        InputError: its folder does not exist, or it can't be the name of a file.
    """
    if path in (None, "-"):
        return
    target = os.path.realpath(str(path))
    if not os.path.isdir(os.path.dirname(target)):
        raise InputError(f"{option} {path}", "its folder does not exist", "create it first")
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{option} {path}", f"cannot be written ({reason})", "choose another place"
        ) from error


def duration(seconds: float) -> str:
    """For people: "40 s", "3 min", "2 h 10 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress(label: str, total: int) -> Iterator[Any]:
    """A progress bar on a terminal, nothing in a pipe; call the value to advance by n."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n=1, text=None: bar.update(task, advance=n, description=text or label)


@contextmanager
def speak_warnings(name: str) -> Iterator[None]:
    """Print this package's warnings as single lines on stderr instead of Python's two."""
    with warnings.catch_warnings():
        plain = warnings.showwarning

        def show(message: Any, category: type, *rest: Any, **more: Any) -> None:
            if category.__module__.startswith("delaynet_lava"):
                complain(name, f"warning: {message}")
            else:
                plain(message, category, *rest, **more)

        warnings.showwarning = show
        yield


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Write a report; "-" is stdout, None nothing.

    Raises:
        InputError: the place can't be written.
    """
    if path is None:
        return
    text = json.dumps(content, default=_plain, indent=2) + "\n"
    if path == "-":
        print(text, end="")
        return
    replace_file(path, text.encode())
