"""What a search varies: a range or a list of choices for each key of the recipe.

A TOML file has the recipe's sections, with what is searched instead of values:

    [optimiser]
    lr = { low = 1e-3, high = 1e-2, log = true }               # a range; whole numbers for a whole key

    [schedule]
    batch = { choices = [32, 64] }

    [network]
    delays = { items = [0, { low = 1, high = 62 }, { low = 1, high = 62 }] }   # an item a group
    shares = { items = [1.0, { low = 0.5, high = 4.0 }, { low = 0.5, high = 4.0 }] }

Delays are sorted, so that the shortest comes first and two orders of the same groups are one; shares are
divided by their sum. Inside, a space is a table by ``"section.key"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import MAX_DELAY
from delaynet_lava.training.recipe import SECTIONS, Allowed, Recipe, allowed, recipe_of
from delaynet_lava.training.recipe_file import parse_toml, read_toml, text_of

__all__ = [
    "Space",
    "check",
    "default_space",
    "option_of",
    "paper_space",
    "read_space",
    "suggest",
    "without",
]

Space = dict[str, dict[str, Any]]

_DELAYS = {"items": [0, {"low": 1, "high": MAX_DELAY}, {"low": 1, "high": MAX_DELAY}]}
_DEFAULT: Space = {
    "network.delays": _DELAYS,
    # The paper's own code draws networks from 1.0 to 1.7.
    "init.radius": {"low": 0.8, "high": 1.7},
    "init.input_gain": {"low": 0.1, "high": 0.6},
    "init.rate": {"low": 0.01, "high": 0.1, "log": True},
    "network.tau_ms": {"low": 10.0, "high": 100.0},
    "loss.branching": {"low": 1e-5, "high": 5e-3, "log": True},
    "optimiser.lr": {"low": 1e-3, "high": 1e-2, "log": True},
}
_NOT_SEARCHED = ("init.model",)
_DRAWS = 64


class Suggester(Protocol):
    """The part of Optuna's ``Trial`` that a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of some values."""
        ...


def default_space(base: Recipe) -> Space:
    """What is searched when nothing else is said: these ranges are of DelayNets, other networks share lr."""
    if base.network.kind != "delaynet":
        return {"optimiser.lr": _DEFAULT["optimiser.lr"]}
    # Weights that are scaled to a rate have no gain of their own.
    return without(_DEFAULT, {"init.input_gain"} if base.init.rate else {"init.rate"})


def paper_space() -> Space:
    """The paper's random search: two delays beside a group without, in the shares of the recipe."""
    return {"network.delays": _DELAYS}


def without(space: Space, names: set[str]) -> Space:
    """A space without some options, because they have been given a value."""
    return {name: part for name, part in space.items() if name not in names}


def read_space(path: str) -> Space:
    """The space of a TOML file; :func:`check` says whether it can be searched.

    Raises:
        InputError: it can't be read, is not TOML, or has something else than sections.
    """
    found: Space = {}
    for section, parts in parse_toml(read_toml(path), path).items():
        if not isinstance(parts, dict) or section not in SECTIONS:
            raise InputError(path, f"{section!r} is no section; they are {', '.join(SECTIONS)}")
        found |= {f"{section}.{key}": part for key, part in parts.items()}
    return found


def option_of(name: str) -> tuple[str, str, int | None]:
    """Section, key and item of a name that a sampler knows: "network.delays.1" is the second delay."""
    section, key, *item = name.split(".")
    return section, key, int(item[0]) if item else None


def _rule(name: str) -> Allowed:
    section, key, _ = option_of(name)
    return allowed(section)[key]


def suggest(space: Space, base: Recipe, trial: Suggester) -> Recipe:
    """The recipe of a training: ``base``, changed where the space says so.

    Raises:
        InputError: values that do not go together.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, part in space.items():
        section, key, _ = option_of(name)
        table.setdefault(section, {})[key] = _value(name, part, _rule(name), trial)
    return recipe_of(table, base)


def _value(name: str, part: Mapping[str, Any], rule: Allowed, trial: Suggester) -> Any:
    if "choices" in part:
        choices = part["choices"]
        if not any(isinstance(choice, list) for choice in choices):
            return trial.suggest_categorical(name, choices)
        # A database keeps choices that are text or numbers; a group of numbers goes in as text.
        texts = [text_of(choice) for choice in choices]
        return choices[texts.index(trial.suggest_categorical(name, texts))]
    if "items" not in part:
        return _number(name, part, rule.kind is int, trial)
    values = [
        _number(f"{name}.{k}", item, rule.kind is int, trial) if isinstance(item, Mapping) else item
        for k, item in enumerate(part["items"])
    ]
    if name == "network.delays":
        values.sort()
    if name == "network.shares":
        values = [value / math.fsum(values) for value in values]
    return values


def _number(name: str, part: Mapping[str, Any], whole: bool, trial: Suggester) -> float:
    low, high, log = part["low"], part["high"], part.get("log", False)
    if whole:
        return trial.suggest_int(name, low, high, step=part.get("step", 1), log=log)
    step = part.get("step")
    return trial.suggest_float(name, float(low), float(high), step=step, log=log)


def check(space: Space, base: Recipe, where: str) -> None:
    """Refuse, before the first training, a space that no training could come from.

    Both ends of all ranges and a number of random draws have to make recipes.

    Raises:
        InputError: an unknown key, a part of the wrong form, or values that do not go together.
    """
    if not space:
        raise InputError(where, "holds no key to search", "give at least one a range or choices")
    known = [f"{section}.{key}" for section in SECTIONS for key in allowed(section)]
    for name, part in space.items():
        if name not in known or name in _NOT_SEARCHED:
            raise InputError(
                where, f"{name!r} is no key that can be searched", "delaynet train --show has them"
            )
        _check_part(part, _rule(name), f"{where}: {name}")
    draws: list[Suggester] = [_End(0), _End(-1), *(_Draw(seed) for seed in range(_DRAWS))]
    for draw in draws:
        try:
            suggest(space, base, draw)
        except (InputError, ZeroDivisionError) as error:
            raise InputError(where, f"suggests a recipe that cannot be trained ({error})") from error


def _check_part(part: Any, rule: Allowed, where: str) -> None:
    number = rule.kind in (int, float)
    forms = "{ choices = [...] }"
    if number:
        forms += " or { items = [...] }" if rule.many else " or { low = ..., high = ... }"
    if isinstance(part, dict) and set(part) == {"choices"}:
        choices = part["choices"]
        if not isinstance(choices, list) or not choices:
            raise InputError(where, "choices are no list of values", f"write {forms}")
        for k, choice in enumerate(choices):
            try:
                rule.taken(choice)
            except ValueError:
                raise InputError(where, f"choice {k}: {choice!r} is not {rule.says()}") from None
        if any(choice in choices[:k] for k, choice in enumerate(choices)):
            raise InputError(where, "has a choice twice", "leave one out")
    elif isinstance(part, dict) and set(part) == {"items"} and rule.many and number:
        if not isinstance(part["items"], list) or not part["items"]:
            raise InputError(where, "items are no list of numbers and ranges")
        for k, item in enumerate(part["items"]):
            if isinstance(item, dict):
                _check_range(item, rule.kind, f"{where}: item {k}")
            else:
                _check_number(item, rule.kind, f"{where}: item {k}")
    elif isinstance(part, dict) and "low" in part and number and not rule.many:
        _check_range(part, rule.kind, where)
    else:
        raise InputError(where, "is not of a form that this key can have", f"write {forms}")


def _check_number(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, (int, float) if kind is float else int) or isinstance(value, bool):
        raise InputError(where, f"{value!r} is not {'a number' if kind is float else 'a whole number'}")
    if not math.isfinite(value):
        raise InputError(where, f"{value!r} is no number to train with")


def _check_range(part: Mapping[str, Any], kind: type, where: str) -> None:
    unknown = set(part) - {"low", "high", "log", "step"}
    if unknown or not {"low", "high"} <= set(part):
        raise InputError(
            where, f"has the keys {sorted(part)}", "a range has low and high, and may have log or step"
        )
    for key in ("low", "high", "step"):
        if key in part:
            _check_number(part[key], kind, f"{where}: {key}")
    low, high = part["low"], part["high"]
    if low >= high:
        raise InputError(where, f"low {low} is not below high {high}")
    if not isinstance(part.get("log", False), bool):
        raise InputError(where, f"log is {part['log']!r}", "write true or false")
    if part.get("log") and low <= 0:
        raise InputError(where, f"low {low} has no logarithm", "start above 0")
    if "step" in part and (part["step"] <= 0 or part.get("log")):
        raise InputError(where, "has a step that is not above 0, or a logarithm as well", "leave one out")


class _End:
    """Suggests one end of everything: the least and the first (0), or the most and the last (-1)."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return (low, high)[self.end]

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return (low, high)[self.end]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[self.end]


class _Draw:
    """Suggests anything in range."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return float(self.random.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return int(self.random.integers(low, high + 1))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[self.random.integers(len(choices))]
