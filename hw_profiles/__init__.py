"""Hardware profiles: what a chip can hold, one TOML file a chip, every value with its source.

A value that the public record does not give is absent, and no rule pretends to know it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli

from delaynet_lava.errors import InputError

__all__ = ["HardwareProfile", "Limit", "load_profile", "profile_names"]

STATUSES = ("documented", "measured", "inferred")
_KEYS = {"value", "unit", "source", "status"}


@dataclass(frozen=True)
class Limit:
    """One figure of a chip: value, unit, where it is from, and how sure it is."""

    value: float | int | str | list
    unit: str
    source: str
    status: str


@dataclass(frozen=True)
class HardwareProfile:
    """A chip's limits and figures by name.

    Attributes:
        name: short name, also that of the file.
        title: what the chip is.
        limits: name -> :class:`Limit`.
    """

    name: str
    title: str
    limits: MappingProxyType[str, Limit] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, key: str) -> Any:
        """Value of a limit, or None where the profile does not know it."""
        limit = self.limits.get(key)
        return None if limit is None else limit.value


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    files = resources.files(__package__).iterdir()
    return sorted(Path(f.name).stem for f in files if f.name.endswith(".toml"))


def load_profile(name_or_path: str | os.PathLike) -> HardwareProfile:
    """Read a profile by the name of one that comes with the package, or by a file's path.

    Raises:
        InputError: no such profile, not TOML, or mistakes in it (all of them in one message).
    """
    text = os.fspath(name_or_path)
    if text in profile_names():
        raw = resources.files(__package__).joinpath(f"{text}.toml").read_bytes()
    else:
        try:
            raw = Path(text).read_bytes()
        except OSError as error:
            raise InputError(
                f"profile {text!r}",
                f"is neither a profile of the package ({', '.join(profile_names())}) nor a file that can be "
                f"read ({error.strerror})",
            ) from error
    try:
        table = tomli.loads(raw.decode())
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(text, f"is not valid TOML ({error})") from error
    return _check(table, text)


def _check(table: dict[str, Any], where: str) -> HardwareProfile:
    mistakes = [
        f"{key!r} is missing or not a string"
        for key in ("name", "title")
        if not isinstance(table.get(key), str)
    ]
    limits: dict[str, Limit] = {}
    entries = table.get("limits")
    if not isinstance(entries, dict) or not entries:
        mistakes.append("[limits] is missing or empty")
        entries = {}
    for key, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            mistakes.append(f"limits.{key} needs exactly {sorted(_KEYS)}")
            continue
        value = entry["value"]
        if isinstance(value, bool) or not isinstance(value, (int, float, str, list)):
            mistakes.append(f"limits.{key}.value has type {type(value).__name__}")
        elif isinstance(value, float) and not math.isfinite(value):
            mistakes.append(f"limits.{key}.value is {value}")
        if entry["status"] not in STATUSES:
            mistakes.append(f"limits.{key}.status is {entry['status']!r}, expected one of {list(STATUSES)}")
        if not all(isinstance(entry[k], str) for k in ("unit", "source")):
            mistakes.append(f"limits.{key}: unit and source must be strings")
        limits[key] = Limit(**entry)
    extra = set(table) - {"name", "title", "limits"}
    if extra:
        mistakes.append(f"unknown keys {sorted(extra)}")
    if mistakes:
        raise InputError(where, "; ".join(mistakes))
    return HardwareProfile(table["name"], table["title"], MappingProxyType(limits))
