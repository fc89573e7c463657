"""Stdout that may go away: closed, full, or a pipe whose reader has seen enough."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["PIPE_CLOSED", "Lasting", "lasting_stdout", "write_stdout"]

PIPE_CLOSED = 141
"""Exit code where the reader of stdout went away: what a shell says of a program that SIGPIPE ended."""


def _open_closed() -> None:
    """Put something behind descriptors 0 to 2 that the caller has closed.

    Else the first file that is opened has such a number, and what a library prints goes into it. Writing to
    stdout fails afterwards, as it should; writing to stderr is lost, for there is nobody to tell.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
            if found != number:
                os.dup2(found, number)
                os.close(found)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


class Lasting:
    """A stream that never fails: after the first failure what is written is dropped, and the failure kept.

    So a command goes on to write the files it was asked for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or drop it."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self.failure = error
        return len(text)

    def write_bytes(self, content: bytes) -> None:
        """Write a file as it is, or drop it."""
        self.flush()
        if self.failure is None:
            try:
                self._stream.buffer.write(content)
            except OSError as error:
                self.failure = error

    def flush(self) -> None:
        """Flush, or note that it can't be done."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def reason(self) -> str:
        """Why it failed; empty where it did not, or where nobody was left to read."""
        if self.failure is None or self.failure.errno == errno.EPIPE:
            return ""
        return self.failure.strerror or type(self.failure).__name__


def write_stdout(content: bytes) -> None:
    """A file to stdout, as it is."""
    if isinstance(sys.stdout, Lasting):
        sys.stdout.write_bytes(content)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


@contextlib.contextmanager
def lasting_stdout() -> Iterator[Lasting]:
    """Make stdout :class:`Lasting` inside, and any text printable, a name of a file that is not UTF-8 too."""
    plain = sys.stdout
    with contextlib.suppress(AttributeError, ValueError):
        plain.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    stream = Lasting(plain)
    sys.stdout = stream  # type: ignore[assignment]
    try:
        yield stream
        stream.flush()
    finally:
        sys.stdout = plain
        if stream.failure is not None:
            # What is still in the buffer would fail once more when the interpreter ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, plain.fileno())
                os.close(nowhere)


# When it is imported, which is before anything else opens a file.
_open_closed()
