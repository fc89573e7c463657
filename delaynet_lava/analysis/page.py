"""One HTML page that needs nothing but a browser: text, tables and pictures in a single file.

No scripts, no fonts, no links to anywhere: pictures are inside as data URIs, and the page itself forbids
the browser to load more. It follows the reader's light or dark setting, pictures too: they have no ground of
their own, and in the dark their lightness is turned over and their hue is not. On paper it is light.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from delaynet_lava.files import replace_file
from delaynet_lava.tables import Table, as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Section", "Table", "Verdict", "page", "write_page"]

_WIDE = 480  # pixels; a wider picture keeps a size that can be read on a phone, and is moved sideways there
# Likewise: a table of more letters side by side than these is of this class.
_BROAD = ((110, "widest"), (72, "wider"), (56, "wide"))
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6670; --line: #d5dade; --ground: #ffffff;
  --stripe: #f4f6f8; --accent: #2d5f93; --good: #1c6b3a; --good-ground: #e6f4ea; --warn: #7a4d00;
  --warn-ground: #fdf2dc; --bad: #9c1f1f; --bad-ground: #fbe9e9; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e3e7ea; --soft: #9aa5ae; --line: #3a434b;
  --ground: #161a1e; --stripe: #1e2429; --accent: #8ab8e6; --good: #8fd6a6; --good-ground: #17301f;
  --warn: #f0c36d; --warn-ground: #33270d; --bad: #f2a3a3; --bad-ground: #3a1919; }
  figure img { filter: invert(.92) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.verdict { max-width: none; margin: 1rem 0; padding: .6rem .9rem; border-left: .35rem solid;
  border-radius: 4px; }
.verdict strong { margin-right: .6rem; }
.good { color: var(--good); background: var(--good-ground); }
.warn { color: var(--warn); background: var(--warn-ground); }
.bad { color: var(--bad); background: var(--bad-ground); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-top: 1rem; }
a { color: var(--accent); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: var(--soft); font-size: .875rem; padding: .25rem 0; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th[scope=row] + td { overflow-wrap: anywhere; }
thead th { vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--stripe); }
.n { text-align: right; white-space: nowrap; }
thead .n { white-space: normal; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 3rem; }
  td, th { padding: .3rem .45rem; }
  .wide table { min-width: 34rem; }
  .wider table { min-width: 46rem; }
  .widest table { min-width: 60rem; }
  .wide img { max-width: none; width: 34rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .35rem; }
  h2 { break-after: avoid; }
  tr, figure, .verdict { break-inside: avoid; }
  .verdict, tbody tr:nth-child(even) { print-color-adjust: exact; }
}
"""


@dataclass(frozen=True)
class Verdict:
    """What a reader in a hurry wants: a word, and what it is about.

    Attributes:
        kind: "good", "warn" or "bad", which is the colour; the word says it without one.
    """

    kind: str
    word: str
    text: str


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
    # What its cells hold side by side; on a phone such a table is moved sideways instead of squeezed.
    width = sum(max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True))
    kinds = [name for letters, name in _BROAD if len(table.columns) > 2 and width > letters]
    return f'<div class="{" ".join(["scroll", *kinds[:1]])}" tabindex="0">{as_html(table)}</div>\n'


def _picture(picture: Picture) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without salt and date the same figure gives another file each time.
    with rc_context({"svg.hashsalt": "delaynet"}):
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = escape(picture.caption)
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    image = f'<img alt="{caption}" width="{width}" height="{height}" src="data:image/svg+xml;base64,{data}">'
    wide = ' class="wide"' * (width > _WIDE)
    return (
        f'<figure{wide}><div class="scroll" tabindex="0">{image}</div>'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    word, text = escape(verdict.word), escape(verdict.text)
    return f'<p class="verdict {escape(verdict.kind)}"><strong>{word}</strong>{text}</p>\n'


def page(title: str, sections: Sequence[Section], text: str = "", verdict: Verdict | None = None) -> str:
    """The page as HTML; every string is shown as it is, none is read as markup.

    Args:
        title: heading and window title.
        text: below the heading; verdict: below the text.

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
        f"<h1>{escape(title)}</h1>\n{_paragraphs(text)}{_verdict(verdict)}"
        + (f"<nav>\n{links}</nav>\n" if len(sections) > 2 else "")
        + f"{body}</body>\n</html>\n"
    )


def write_page(
    path: str | os.PathLike,
    title: str,
    sections: Sequence[Section],
    text: str = "",
    verdict: Verdict | None = None,
) -> None:
    """Write :func:`page`, as a whole or not at all.

    Raises:
        InputError: the place can't be written.
    """
    replace_file(path, page(title, sections, text, verdict).encode(errors="backslashreplace"))
