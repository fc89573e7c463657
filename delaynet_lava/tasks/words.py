"""The grammar of a task's word: ``HEAD`` or ``HEAD:key=value,key=value``.

The options begin at the first colon that a ``key=`` follows, and each at a comma that one follows, so
values may hold colons and commas: ``tonic:SHD:root=C:/data,dt_ms=1``, ``mine.npz:split=0.8,0.1,0.1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from delaynet_lava.errors import InputError

__all__ = ["join_word", "read_options", "split_word", "text_of"]

_WORD = re.compile(r"(?P<head>.*?)(?::(?P<options>[A-Za-z_]\w*=.*))?", re.DOTALL)


def split_word(word: str) -> tuple[str, dict[str, str]]:
    """Head and options of a word.

    Raises:
        InputError: no head, or an option that is given twice.
    """
    match = _WORD.fullmatch(word)
    assert match is not None  # the head takes everything
    options: dict[str, str] = {}
    for part in re.split(r",(?=[A-Za-z_]\w*=)", match["options"] or ""):
        name, _, value = part.partition("=")
        if name in options:
            raise InputError(f"task {word}", f"{name} is given twice")
        if name:
            options[name] = value
    if not match["head"]:
        raise InputError("task", f"{word!r} names none", "write cue, mine.npz or package.module:Name")
    return match["head"], options


def join_word(head: str, options: Mapping[str, Any]) -> str:
    """The word of a head and options, in the order they have."""
    listed = ",".join(f"{name}={text_of(value)}" for name, value in options.items())
    return f"{head}:{listed}" if listed else head


def text_of(value: Any) -> str:
    """An option's value as a word holds it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return ",".join(map(text_of, value)) if isinstance(value, tuple) else str(value)


def read_options(word: str, texts: Mapping[str, str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Options as values of the types that the usual ones have; those that are not given keep them.

    A tuple is a list of values like its first.

    Raises:
        InputError: unknown names and wrong values, all in one line.
    """
    found, faults = dict(usual), []
    for name, text in texts.items():
        if name not in usual:
            faults.append(f"{name} is not one of its options ({', '.join(usual) or 'it has none'})")
            continue
        try:
            found[name] = _value(text, usual[name])
        except (ValueError, KeyError):
            faults.append(f"{name}: {text!r} is not {_KINDS[type(usual[name])]}")
    if faults:
        raise InputError(f"task {word}", "; ".join(faults))
    return found


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of numbers such as 0.8,0.1,0.1",
}


def _value(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return {"true": True, "false": False}[text.lower()]
    if isinstance(like, tuple):
        return tuple(_value(part, like[0]) for part in text.split(","))
    return type(like)(text)
