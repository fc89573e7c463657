"""Tables as HTML, for the report's page and for notebooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Table", "as_html", "notebook"]

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?\(?[\w%.,]+\)?)?|-|")
_NOTEBOOK_ROWS = 24  # of a table in a notebook


@dataclass(frozen=True)
class Table:
    """A header, rows of the same length, and a line above; columns of numbers are set to the right.

    Where the first column has no name it is one of names, and there is no header.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


def as_html(table: Table) -> str:
    """The table as HTML; every string is shown as it is, none is read as markup.

    Raises:
        ValueError: a row and its header differ in length.
    """
    rows = [[str(cell) for cell in row] for row in table.rows]
    columns = zip(*rows, strict=True) if rows else [()] * len(table.columns)
    pairs = zip(table.columns, columns, strict=True)
    kinds = [(name, ' class="n"' if c and all(map(_NUMBER.fullmatch, c)) else "") for name, c in pairs]
    headed = bool(table.columns and table.columns[0])
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in kinds)
    tag = [("td", kind) for _, kind in kinds]
    if not headed and tag:
        tag = [("th", ' scope="row"'), *(("td", "") for _ in tag[1:])]
    body = "".join(
        "<tr>"
        + "".join(f"<{t}{kind}>{escape(c)}</{t}>" for c, (t, kind) in zip(row, tag, strict=True))
        + "</tr>\n"
        for row in rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    top = f"<thead><tr>{head}</tr></thead>\n" if headed else ""
    return f"<table>{caption}{top}<tbody>{body}</tbody></table>"


def notebook(title: str, tables: Sequence[Table]) -> str:
    """A heading and tables as a notebook shows them, which brings its own style; long ones are cut."""
    shown = []
    for table in tables:
        rows, more = table.rows[:_NOTEBOOK_ROWS], len(table.rows) - _NOTEBOOK_ROWS
        shown.append(as_html(Table(table.columns, rows, table.caption)))
        if more > 0:
            shown.append(f"<p>and {more} more rows</p>")
    return f"<div><p><strong>{escape(title)}</strong></p>{''.join(shown)}</div>"
