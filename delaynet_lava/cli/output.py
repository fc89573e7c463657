"""What all commands print with: tables, progress, JSON, one-line complaints."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from delaynet_lava.files import replace_file

__all__ = ["complain", "figures", "progress", "say", "speak_warnings", "write_json"]

# A pipe has no width; tables in it are for people and for grep.
_console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 160)
_stderr = Console(stderr=True, soft_wrap=True, highlight=False)


def complain(name: str, message: str) -> None:
    """One line on stderr."""
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)


def say(text: str) -> None:
    """One line on stdout."""
    print(text)


def figures(rows: list[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, value)
    _console.print(table)


def grid(columns: list[str], rows: list[list[str]], left: bool = False) -> None:
    """A table with a header; the first column is text, the others numbers, or text with ``left``."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k == 0 or left else "right")
    for row in rows:
        table.add_row(*row)
    _console.print(table)


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
