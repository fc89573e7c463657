"""Import lava-dl without the lines that it and torch print about parts nobody asked for."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

__all__ = ["quiet_import"]

# Printed whenever slayer is imported without a data set toolbox of its object detection demo, and
# whenever torch's extension builder is imported on a machine without a GPU.
NOISE = ("Prophesee", "prophesee", "No CUDA runtime is found")


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Drop the known lines of noise from what is printed inside; everything else is passed on."""
    captured = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(captured[0]), contextlib.redirect_stderr(captured[1]):
            yield
    finally:
        for text, stream in zip(captured, (sys.stdout, sys.stderr), strict=True):
            for line in text.getvalue().splitlines(keepends=True):
                if not any(mark in line for mark in NOISE):
                    stream.write(line)
