"""One HTML page that needs nothing but a browser: text, tables and pictures in a single file.

No scripts, no fonts, no links to anywhere: pictures are inside as data URIs, and the page itself forbids
the browser to load more. It follows the reader's light or dark setting; pictures stay on a white card, as
they are drawn for paper.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from delaynet_lava.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Section", "Table", "page", "write_page"]

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?\(?[\w%.,]+\)?)?|-|")
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6670; --line: #d5dade; --ground: #ffffff;
  --stripe: #f4f6f8; --accent: #2d5f93; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ea; --soft: #9aa5ae; --line: #3a434b;
  --ground: #161a1e; --stripe: #1e2429; --accent: #8ab8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-top: 1rem; }
a { color: var(--accent); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: var(--soft); font-size: .875rem; padding: .25rem 0; }
th, td { padding: .3rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
td { min-width: 6.5rem; }
.n { text-align: right; white-space: nowrap; min-width: 0; }
figure { margin: .75rem 0; }
figure img { display: block; width: 100%; max-width: 56rem; min-width: 34rem; padding: .5rem;
  background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
"""


@dataclass(frozen=True)
class Table:
    """A header, rows of the same length, and a line above; columns of numbers are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, and the line below it, which also stands for it where it can't be seen."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with text (a blank line starts a paragraph), tables, then pictures."""

    title: str
    text: str = ""
    tables: Sequence[Table] = field(default_factory=tuple)
    pictures: Sequence[Picture] = field(default_factory=tuple)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part.strip())}</p>\n" for part in text.split("\n\n") if part.strip())


def _table(table: Table) -> str:
    rows = [[str(cell) for cell in row] for row in table.rows]
    columns = zip(*rows, strict=True) if rows else [()] * len(table.columns)
    classes = [' class="n"' if c and all(map(_NUMBER.fullmatch, c)) else "" for c in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(table.columns, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(c)}</td>" for c, kind in zip(row, classes, strict=True))
        + "</tr>\n"
        for row in rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _picture(picture: Picture) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without salt and date the same figure gives another file each time.
    with rc_context({"svg.hashsalt": "delaynet"}):
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = escape(picture.caption)
    image = f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
    return (
        f'<figure><div class="scroll" tabindex="0">{image}</div><figcaption>{caption}</figcaption></figure>\n'
    )


def page(title: str, sections: Sequence[Section], text: str = "") -> str:
    """The page as HTML; every string is shown as it is, none is read as markup.

    Args:
        title: heading and window title.
        text: below the heading.

    Raises:
        ValueError: a row and its header differ in length.
    """
    links = "".join(f'<a href="#s{k}">{escape(s.title)}</a>\n' for k, s in enumerate(sections))
    body = "".join(
        f'<section id="s{k}">\n<h2>{escape(section.title)}</h2>\n{_paragraphs(section.text)}'
        + "".join(map(_table, section.tables))
        + "".join(map(_picture, section.pictures))
        + "</section>\n"
        for k, section in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{_paragraphs(text)}"
        + (f"<nav>\n{links}</nav>\n" if len(sections) > 2 else "")
        + f"{body}</body>\n</html>\n"
    )


def write_page(path: str | os.PathLike, title: str, sections: Sequence[Section], text: str = "") -> None:
    """Write :func:`page`, as a whole or not at all.

    Raises:
        InputError: the place can't be written.
    """
    replace_file(path, page(title, sections, text).encode(errors="backslashreplace"))
