#!/usr/bin/env python3
"""Fails where a page below a folder makes a browser ask another machine for anything.

    .ci/offline.py build/site

Looked at are pages (scripts, styles, pictures, frames, forms, what scripts in a page import or fetch) and
style sheets. Links that a reader follows are none of it. The theme's own script would fetch a drawing
program for a diagram of class "mermaid": there is to be none.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_AWAY = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s;]+)", re.IGNORECASE)
_IN_SCRIPT = re.compile(r"[\"'`]((?:https?:|wss?:)?//[\w-]+\.[^\"'`\s]+)[\"'`]", re.IGNORECASE)
_ATTRIBUTES = {"src", "srcset", "poster", "data", "background", "action", "formaction", "xlink:href"}
# A link is fetched by what it is; an address for machines that read pages is not.
_FETCHED = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "modulepreload",
    "manifest",
    "preconnect",
    "dns-prefetch",
}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        given = {name: value or "" for name, value in attrs}
        fetched = [given[name] for name in _ATTRIBUTES & given.keys()]
        if tag == "link" and _FETCHED & set(given.get("rel", "").lower().split()):
            fetched.append(given.get("href", ""))
        if tag in ("image", "use"):
            fetched.append(given.get("href", ""))
        self.found += [f"<{tag}> {value}" for value in fetched if _AWAY.match(value) or ", //" in value]
        self.found += [f"<{tag}> {value}" for value in _IN_STYLE.findall(given.get("style", ""))]
        if "mermaid" in given.get("class", "").lower().split():
            self.found.append(f"<{tag}> of class mermaid")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.found += [f"script: {value}" for value in _IN_SCRIPT.findall(data)]
        if self._inside == "style":
            self.found += [f"style: {value}" for value in _IN_STYLE.findall(data)]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def requests(path: Path) -> list[str]:
    """What a page or a style sheet would ask other machines for."""
    text = path.read_text(encoding="utf-8")
    return _IN_STYLE.findall(text) if path.suffix == ".css" else _Page(text).found


def main(folder: str) -> int:
    """Exit code: 1 where anything is asked for, or nothing is there to look at."""
    files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix in (".html", ".css")]
    said = [f"{path}: {found}" for path in files for found in requests(path)]
    print("\n".join(said) or f"{len(files)} pages and style sheets, none asks another machine")
    return int(bool(said) or not files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
