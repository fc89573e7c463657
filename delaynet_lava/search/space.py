"""What a search varies: a range or a list of choices for each option of the trainer.

A space is a table by option, as a TOML file holds it:

    lr = { low = 1e-3, high = 1e-2, log = true }               # a range; whole numbers for a whole option
    batch = { choices = [32, 64] }
    delays = { items = [0, { low = 1, high = 62 }, { low = 1, high = 62 }] }   # an item a group
    shares = { items = [1.0, { low = 0.5, high = 4.0 }, { low = 0.5, high = 4.0 }] }

Delays are sorted, so that the shortest comes first and two orders of the same groups are one; shares are
divided by their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tomli

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import MAX_DELAY
from delaynet_lava.nn.lattice import delay_groups
from delaynet_lava.training.options import CueOptions, text_of

__all__ = [
    "Space",
    "check",
    "default_space",
    "options_of",
    "paper_space",
    "plain",
    "read_space",
    "suggest",
    "without",
]

Space = dict[str, dict[str, Any]]

_DELAYS = {"items": [0, {"low": 1, "high": MAX_DELAY}, {"low": 1, "high": MAX_DELAY}]}
_DEFAULT: Space = {
    "delays": _DELAYS,
    # The paper's own code draws networks from 1.0 to 1.7.
    "radius": {"low": 0.8, "high": 1.7},
    "input_gain": {"low": 0.1, "high": 0.6},
    "tau_ms": {"low": 10.0, "high": 100.0},
    "branching": {"low": 1e-5, "high": 5e-3, "log": True},
    "lr": {"low": 1e-3, "high": 1e-2, "log": True},
}
_NOT_SEARCHED = {"seed", "init"}
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


def default_space(base: CueOptions) -> Space:
    """What is searched when nothing else is said: these ranges are of DelayNets, other networks share lr."""
    return dict(_DEFAULT) if base.network == "delaynet" else {"lr": _DEFAULT["lr"]}


def paper_space() -> Space:
    """The paper's random search: two delays beside a group without, in the paper's shares."""
    return {"delays": _DELAYS}


def without(space: Space, names: set[str]) -> Space:
    """A space without some options, because they have been given a value."""
    return {name: part for name, part in space.items() if name not in names}


def read_space(path: str) -> Space:
    """The table of a TOML file; :func:`check` says whether it can be searched.

    Raises:
        InputError: it can't be read, or is not TOML.
    """
    try:
        return tomli.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise InputError(path, f"is not TOML ({error})") from error


def suggest(space: Space, base: CueOptions, trial: Suggester) -> CueOptions:
    """Options of a training: those of ``base``, changed where the space says so.

    Raises:
        InputError: values that do not go together.
    """
    return replace(base, **{name: _value(name, part, base, trial) for name, part in space.items()})


def _value(name: str, part: Mapping[str, Any], base: CueOptions, trial: Suggester) -> Any:
    like = getattr(base, name)
    if "choices" in part:
        if not isinstance(like, tuple):
            return trial.suggest_categorical(name, part["choices"])
        # A database keeps choices that are text or numbers; a group of numbers goes in as text.
        texts = [text_of(tuple(choice)) for choice in part["choices"]]
        return tuple(part["choices"][texts.index(trial.suggest_categorical(name, texts))])
    if "items" not in part:
        return _number(name, part, isinstance(like, int), trial)
    whole = isinstance(like[0], int)
    values = [
        _number(f"{name}.{k}", item, whole, trial) if isinstance(item, Mapping) else item
        for k, item in enumerate(part["items"])
    ]
    if name == "delays":
        values.sort()
    if name == "shares":
        values = [value / math.fsum(values) for value in values]
    return tuple(values)


def _number(name: str, part: Mapping[str, Any], whole: bool, trial: Suggester) -> float:
    low, high, log = part["low"], part["high"], part.get("log", False)
    if whole:
        return trial.suggest_int(name, low, high, step=part.get("step", 1), log=log)
    step = part.get("step")
    return trial.suggest_float(name, float(low), float(high), step=step, log=log)


def check(space: Space, base: CueOptions, where: str) -> None:
    """Refuse, before the first training, a space that no training could come from.

    Both ends of all ranges and a number of random draws have to make options.

    Raises:
        InputError: an unknown option, a part of the wrong form, or values that do not go together.
    """
    if not space:
        raise InputError(where, "holds no option to search", "give at least one a range or choices")
    known = {f.name for f in fields(base)} - _NOT_SEARCHED
    for name, part in space.items():
        if name not in known:
            raise InputError(where, f"{name!r} is no option that can be searched", f"names: {sorted(known)}")
        _check_part(part, getattr(base, name), f"{where}: {name}")
    draws: list[Suggester] = [_End(0), _End(-1), *(_Draw(seed) for seed in range(_DRAWS))]
    for draw in draws:
        try:
            options = suggest(space, base, draw)
            if min(options.delays) < 0:
                raise InputError("delays", f"{min(options.delays)} is negative")
            delay_groups(options.neurons, options.delays, options.shares)
        except (InputError, ZeroDivisionError) as error:
            raise InputError(where, f"suggests options that cannot be trained ({error})") from error


def _check_part(part: Any, like: Any, where: str) -> None:
    forms = "{ choices = [...] }" + (
        " or { items = [...] }"
        if isinstance(like, tuple)
        else "" if isinstance(like, (bool, str)) else " or { low = ..., high = ... }"
    )  # fmt: skip
    if isinstance(part, dict) and set(part) == {"choices"}:
        choices = part["choices"]
        if not isinstance(choices, list) or not choices:
            raise InputError(where, "choices are no list of values", f"write {forms}")
        for k, choice in enumerate(choices):
            if isinstance(like, tuple):
                if not isinstance(choice, list) or not choice:
                    raise InputError(where, f"choice {k} is {choice!r}, expected a list of numbers")
                for value in choice:
                    _check_value(value, like[0], where)
            else:
                _check_value(choice, like, where)
        if any(choice in choices[:k] for k, choice in enumerate(choices)):
            raise InputError(where, "has a choice twice", "leave one out")
    elif isinstance(part, dict) and set(part) == {"items"} and isinstance(like, tuple):
        if not isinstance(part["items"], list) or not part["items"]:
            raise InputError(where, "items are no list of numbers and ranges")
        for k, item in enumerate(part["items"]):
            if isinstance(item, dict):
                _check_range(item, like[0], f"{where}: item {k}")
            else:
                _check_value(item, like[0], f"{where}: item {k}")
    elif isinstance(part, dict) and "low" in part and not isinstance(like, (bool, str, tuple)):
        _check_range(part, like, where)
    else:
        raise InputError(where, "is not of a form that this option can have", f"write {forms}")


def _check_value(value: Any, like: Any, where: str) -> None:
    wanted = (int, float) if type(like) is float else type(like)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(like, bool)):
        raise InputError(where, f"{value!r} is not a {type(like).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(where, f"{value!r} is no number to train with")


def _check_range(part: Mapping[str, Any], like: Any, where: str) -> None:
    unknown = set(part) - {"low", "high", "log", "step"}
    if unknown or not {"low", "high"} <= set(part):
        raise InputError(
            where, f"has the keys {sorted(part)}", "a range has low and high, and may have log or step"
        )
    for key in ("low", "high", "step"):
        if key in part:
            _check_value(part[key], like, f"{where}: {key}")
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


def plain(options: CueOptions) -> dict[str, Any]:
    """Options as JSON holds them."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(options).items()}


def options_of(table: Mapping[str, Any]) -> CueOptions:
    """Options from what :func:`plain` gave.

    Raises:
        TypeError: they have other names.
        InputError: values that no training can have.
    """
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}
    return CueOptions(**values)
