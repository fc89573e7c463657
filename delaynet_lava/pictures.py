"""What all pictures share: colours, formats, and how a file is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import InputError
from delaynet_lava.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FORMATS", "GREY", "bare", "check_format", "new_figure", "write"]

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#3b6ea5", "#c44e2b", "#4f9a5f", "#8a63a8", "#b58a2a", "#5a9fa8", "#a8577e")
GREY = "#444444"


def bare(axes: Any) -> None:
    """Take the upper and the right border off."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def new_figure(**settings: Any) -> Figure:
    """A figure that a notebook shows, with or without pyplot."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook can ask for its picture."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return Shown(**settings)


def check_format(path: str) -> str:
    """The format that a name's ending stands for.

    Raises:
        InputError: another ending than those of :data:`FORMATS`.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(path, f"ends in {ending!r}", f"choose from {', '.join(FORMATS)}")
    return ending[1:]


def write(figure: Figure, path: str) -> None:
    """Write a picture, as a whole or not at all; the ending of the name is its format.

    Raises:
        InputError: another ending, or the place can't be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=check_format(path), dpi=150)
    replace_file(path, buffer.getvalue())
