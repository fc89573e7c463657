"""How wide a terminal is, and tables and sentences that fit into it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

__all__ = ["paragraph", "table", "width"]

GAP = 2  # between columns
BREAK = 24  # a longer word, a path say, may go over several lines
HEAD_LINES = 3  # of a header, at most
NARROWEST = 40


def width() -> int | None:
    """Columns of the terminal, or of ``COLUMNS``; None in a pipe, which has no width."""
    if not (os.environ.get("COLUMNS") or sys.stdout.isatty()):
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def paragraph(text: str, columns: int | None) -> list[str]:
    """Lines of at most so many columns; a longer word stays whole."""
    if columns is None or len(text) <= columns:
        return [text]
    return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)


def _is_number(column: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or cell[:1] in "+-" for cell in column)


def _least(column: Sequence[str], columns: int) -> int:
    """The narrowest that a column can be: no word broken in two, a header of a few lines; two fit always."""
    most = (columns - GAP) // 2
    least = max((min(BREAK, most, len(word)) for cell in column for word in cell.split()), default=0)
    while len(_fold(column[0], least)) > HEAD_LINES and least < most:
        least += 1
    return least


class _Wrapper(textwrap.TextWrapper):
    """Breaks a word that is too long for a line behind its points and strokes, such as a path."""

    def _split(self, text: str) -> list[str]:
        parts: list[str] = []
        for chunk in super()._split(text):
            parts += re.findall(r"[^._/:]*[._/:]+|[^._/:]+", chunk) if len(chunk) > self.width else [chunk]
        return parts


def _fold(cell: str, columns: int) -> list[str]:
    return _Wrapper(max(1, columns), break_on_hyphens=False).wrap(cell) or [""]


def _shrunk(widest: Sequence[int], least: Sequence[int], columns: int) -> list[int]:
    """Widths that fit: the widest column gives first."""
    widths = list(widest)
    room = columns - GAP * (len(widths) - 1)
    while sum(widths) > room:
        k = max((k for k in range(len(widths)) if widths[k] > least[k]), key=lambda k: widths[k])
        widths[k] -= 1
    return widths


def _groups(least: Sequence[int], columns: int) -> list[list[int]]:
    """Numbers of the columns that go beside each other; the first is in every group."""
    groups, room = [[0]], columns - least[0]
    for k in range(1, len(least)):
        if least[k] + GAP > room and len(groups[-1]) > 1:
            groups.append([0])
            room = columns - least[0]
        groups[-1].append(k)
        room -= least[k] + GAP
    return groups


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None = None, numbers: bool = True
) -> list[str]:
    """Lines of a table: a line a row where that fits, or where ``columns`` is None, however long.

    Where it does not fit, cells and headers are folded, texts before numbers; and where that is not enough,
    the columns are shown in several tables below each other, each with the first column. A table whose first
    column has no name is one of names and values, without a header.

    Args:
        numbers: set columns of numbers to the right.
    """
    upright = list(zip(heads, *rows, strict=True))
    right = [numbers and k > 0 and _is_number(column[1:]) for k, column in enumerate(upright)]
    shown = upright if heads[0] else [("", *column[1:]) for column in upright]
    widest = [max(map(len, column)) for column in shown]
    if columns is None or sum(widest) + GAP * (len(widest) - 1) <= columns:
        groups = [list(range(len(shown)))]
        widths = widest
    else:
        least = [_least(column, columns) for column in shown]
        groups = _groups(least, columns)
        widths = list(least)
        for group in groups:
            # The first column is as wide in all of them.
            wish = [widest[k] if k or len(groups) == 1 else least[0] for k in group]
            for k, value in zip(group, _shrunk(wish, [least[k] for k in group], columns), strict=True):
                widths[k] = value
    lines: list[str] = []
    for group in groups:
        lines += [""] * bool(lines)
        for row in list(zip(*shown, strict=True))[0 if heads[0] else 1 :]:
            folded = [[row[k]] if len(row[k]) <= widths[k] else _fold(row[k], widths[k]) for k in group]
            for n in range(max(map(len, folded))):
                parts = [cell[n] if n < len(cell) else "" for cell in folded]
                set_ = [
                    p.rjust(widths[k]) if right[k] else p.ljust(widths[k])
                    for p, k in zip(parts, group, strict=True)
                ]
                lines.append((" " * GAP).join(set_).rstrip())
    return lines
