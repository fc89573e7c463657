"""What docstrings say in Sphinx's way, in the site's: equations as MathML, roles as code."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_MATH = re.compile(r"^\.\. math::\n((?:[ \t]+\S.*\n?|\n(?=[ \t]))+)", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|mod|meth|data|attr|class):`~?([^`]+)`")


def _equation(match: re.Match[str]) -> str:
    latex = inspect.cleandoc(match.group(1)).strip()
    # One line, or Markdown would look into it.
    return (
        "<div>"
        + convert(r"\begin{align*}" + latex + r"\end{align*}", display="block").replace("\n", " ")
        + "</div>\n"
    )


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = _ROLE.sub(r"`\1`", _MATH.sub(_equation, text))
