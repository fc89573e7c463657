"""Recipes as TOML: those that the package ships, a user's own, and changes on a command line."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Any

import tomli

from delaynet_lava.errors import InputError, InputErrors, shown
from delaynet_lava.training.recipe import SECTIONS, Allowed, Recipe, allowed, nearest, plain, recipe_of

__all__ = [
    "MAX_BYTES",
    "changed",
    "changes_from",
    "command_line",
    "load_recipe",
    "read_toml",
    "recipe_names",
    "text_of",
    "toml_of",
]

MAX_BYTES = 1 << 20
"""Larger files are no recipes."""


def recipe_names() -> list[str]:
    """The recipes that the package ships."""
    folder = resources.files("delaynet_lava.training") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by its name, or that of a TOML file.

    A file has the sections and keys that ``toml_of`` writes; what it does not name is as in the recipe
    that its key ``base`` names, or in ``default``.

    Raises:
        InputError: there is no such recipe, or everything that is wrong with it.
    """
    if name in recipe_names():
        file = resources.files("delaynet_lava.training") / "recipes" / f"{name}.toml"
        return _parsed(file.read_text("utf-8"), f"recipe {name}")
    if not name.endswith(".toml") and not os.path.exists(name):
        raise InputError(
            "--recipe", f"{shown(name)} is not one of {', '.join(recipe_names())}", "or give a file.toml"
        )
    return _parsed(read_toml(name), name)


def read_toml(path: str) -> str:
    """The text of a small file.

    Raises:
        InputError: it can't be read, or is too large.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(path, f"has more than {MAX_BYTES} bytes", "give a TOML file")
        return content.decode()
    except OSError as error:
        raise InputError(
            path, f"cannot be read ({error.strerror or error})", "give the path of a file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(path, f"is not TOML ({error})") from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        InputError: it is not TOML.
    """
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
        raise InputError(where, f"is not TOML ({error})") from error


def _parsed(text: str, where: str) -> Recipe:
    table = parse_toml(text, where)
    base = table.pop("base", "default")
    if not isinstance(base, str) or base not in recipe_names():
        raise InputError(where, f"base: {shown(base)} is not one of {', '.join(recipe_names())}")
    return recipe_of(table, Recipe() if base == "default" else load_recipe(base), where)


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """A recipe with some keys changed, each ``"section.key=value"``; the value as TOML has it.

    Texts need no quotes and lists no brackets: ``network.delays=0,50,62``.

    Raises:
        InputError: all changes that can't be made.
    """
    table: dict[str, dict[str, Any]] = {}
    problems = []
    for change in changes:
        name, sign, text = change.partition("=")
        section, dot, key = name.partition(".")
        if not sign or not dot or section not in SECTIONS or key not in allowed(section):
            problems.append(f"{change}: is not SECTION.KEY=VALUE with a known key{nearest(name)}")
            continue
        table.setdefault(section, {})[key] = _value(text.strip(), allowed(section)[key])
    try:
        made = recipe_of(table, recipe, "--set")
    except InputErrors as error:
        problems += error.problems
    if problems:
        raise InputErrors("--set", problems, "--show prints all keys")
    return made


def _value(text: str, rule: Allowed) -> Any:
    several = rule.many or (rule.each and "," in text)
    if rule.kind is str and not several and not text.startswith("["):
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    words = ", ".join(f'"{word}"' for word in text.split(","))
    for written in (text, f"[{text}]", f"[{words}]")[: 3 if several else 1]:
        try:
            value = tomli.loads(f"value = {written}")["value"]
        except (ValueError, RecursionError):
            continue
        return [value] if rule.many and not isinstance(value, list) else value
    return text


def toml_of(recipe: Recipe) -> str:
    """The recipe as TOML, with all its keys and what they mean."""
    blocks = []
    for name, values in plain(recipe).items():
        lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
        width = min(32, max(map(len, lines)))
        notes = [_note(rule) for rule in allowed(name).values()]
        about = (SECTIONS[name].__doc__ or "").strip()
        rows = [f"{line:<{width}}  # {note}" for line, note in zip(lines, notes, strict=True)]
        blocks.append("\n".join([f"# {about}", f"[{name}]", *rows]))
    head = "# [each]: one value for all hidden layers, or a list with one for each."
    return "\n\n".join([head, *blocks]) + "\n"


def _note(rule: Allowed) -> str:
    choices = f" ({', '.join(rule.choices)})" if rule.choices else ""
    return rule.about + choices + (" [each]" if rule.each else "")


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, which has one more.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def text_of(value: Any) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, (tuple, list)):
        nested = any(isinstance(part, (tuple, list)) for part in value)
        text = _toml(list(map(_as_list, value))).replace(" ", "")
        return text if nested or len(value) < 2 or isinstance(value[0], str) else text[1:-1]
    if not isinstance(value, str):
        return _toml(value)
    # What would be stripped, or taken for a quoted text or a list.
    return f'"{value}"' if value != value.strip() or value[:1] in ("[", '"') else value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def changes_from(base: Recipe, recipe: Recipe) -> list[str]:
    """What ``--set`` needs, to come from one recipe to another."""
    before = plain(base)
    return [
        f"{section}.{key}={text_of(value)}"
        for section, values in plain(recipe).items()
        for key, value in values.items()
        if value != before[section][key]
    ]


def command_line(word: str, name: str, recipe: Recipe, seed: int, processes: int = 1) -> str:
    """The command that trains on a task with a recipe, given as the changes from the one of that name."""
    program = ["delaynet"]
    if processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "delaynet_lava"]
    words = [*program, "train", word, "--recipe", name, "--seed", str(seed)]
    for change in changes_from(load_recipe(name), recipe):
        words += ["--set", change]
    return shlex.join(words)
