"""What all commands print with: tables, progress, JSON, one-line complaints."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from delaynet_lava import pictures
from delaynet_lava.cli import layout
from delaynet_lava.cli.streams import write_stdout
from delaynet_lava.errors import InputError, printable
from delaynet_lava.files import replace_file

__all__ = [
    "complain",
    "draw",
    "duration",
    "figures",
    "forget_stdout",
    "lines",
    "progress",
    "require_folder",
    "require_picture",
    "say",
    "speak_warnings",
    "tell_of_compiling",
    "write_json",
    "written",
]

_stderr = Console(stderr=True, soft_wrap=True, highlight=False)
_MADE_BY_US = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")  # how a net.h5 and a model.pt begin
_taken: list[str] = []
"""The option whose file goes to stdout, which then has no other lines."""


def forget_stdout() -> None:
    """Stdout is for everybody again: a command has ended."""
    _taken.clear()


def complain(name: str, message: str) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):  # nobody to tell
        print(printable(f"{name}: {' '.join(message.split())}"), file=sys.stderr)


def say(text: str, fold: bool = True) -> None:
    """Lines on stdout, folded on a terminal; what a file put into them can't move the cursor."""
    columns = layout.width() if fold else None
    _print([part for line in text.split("\n") for part in layout.paragraph(printable(line), columns)])


def _print(shown: Sequence[str]) -> None:
    if not _taken:
        print("\n".join(shown))


def figures(rows: list[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    _print(layout.table(("", "value"), _printable(rows), layout.width(), numbers=False))


def _printable(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(str(cell)) for cell in row] for row in rows]


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: on a terminal folded to its width, in a pipe a line a row, so that it can be searched.

    Numbers are set to the right. A table whose first column has no name is one of names and values.
    """
    _print(layout.table(_printable([columns])[0], _printable(rows), layout.width()))


def require_folder(option: str, path: str | None) -> None:
    """Refuse a place to write to before minutes of work, not after them; "-" takes stdout.

    Raises:
        InputError: its folder does not exist or can't be written, it is not a plain file, it holds a network
            or a model, which a report would overwrite; or stdout is taken already.
    """
    if path is None:
        return
    if path == "-":
        if _taken:
            raise InputError(f"{option} -", f"stdout is taken by {_taken[0]}", "name a file for one of them")
        _taken.append(option)
        return
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise InputError(f"{option} {path}", "its folder does not exist", "create it first")
    try:
        mode = os.lstat(target).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise InputError(f"{option} {path}", f"is {kind}", "name a file")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{option} {path}", f"cannot be written ({reason})", "choose another place"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}", "its folder cannot be written", "choose another place")
    if option in ("--json", "--html"):
        with contextlib.suppress(OSError), open(target, "rb") as file:
            if file.read(8).startswith(_MADE_BY_US):
                raise InputError(
                    f"{option} {path}", "holds a network or a model", "name a file that may be overwritten"
                )


def require_picture(option: str, path: str | None) -> None:
    """:func:`require_folder` for a picture, whose ending has to be of a format."""
    if path not in (None, "-"):
        pictures.check_format(str(path))
    require_folder(option, path)


@contextmanager
def written(path: str, ending: str) -> Iterator[str]:
    """Where to write what goes to ``path``: there, or for "-" a file that goes to stdout when it is whole."""
    if path != "-":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, f"stdout{ending}")
        yield str(place)
        write_stdout(place.read_bytes())


def draw(figure: Any, path: str) -> None:
    """Write a picture; to stdout as SVG."""
    with written(path, ".svg") as place:
        pictures.write(figure, place)


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
    # Asked of the stream itself: rich takes a notebook's pipe for a terminal. What is printed meanwhile goes
    # around the bar where both are on one screen, but into the file where stdout is one.
    with Progress(
        *columns,
        console=_stderr,
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n=1, text=None: bar.update(task, advance=n, description=text or label)


def tell_of_compiling(name: str) -> None:
    """One line when the first loop must be compiled, which keeps a command waiting for seconds."""
    import logging  # costs a help text more than it says

    log = logging.getLogger("delaynet_lava.kernels.compiled")

    class Once(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.args, tuple) and not str(record.args[0]).startswith("_"):  # small ones
                log.removeHandler(self)
                complain(name, record.getMessage())

    log.addHandler(Once())
    log.setLevel(logging.INFO)


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
        write_stdout(text.encode())
        return
    replace_file(path, text.encode())
