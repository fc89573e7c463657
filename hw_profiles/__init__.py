"""Hardware profiles: what a chip can hold, one TOML file a chip, every value with its source.

A value that the public record does not give is unknown: it is written down as such, without a value, and
no rule pretends to know it. ``generic.toml`` is a template that explains every key.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli

from delaynet_lava.errors import InputError, InputErrors
from delaynet_lava.files import read_file
from delaynet_lava.tables import Table, as_html

__all__ = [
    "FITTED",
    "KEYS",
    "STATUSES",
    "HardwareProfile",
    "Limit",
    "System",
    "load_profile",
    "profile_names",
]

MAX_BYTES = 1 << 20
STATUSES = ("documented", "measured", "inferred", "unknown")
_WORDS = {"neuron_kinds": ("lif", "readout", "encoder"), "resets": ("zero", "subtract")}
# Name -> unit, type, closed range. Energies and times are positive, which the type float stands for.
_NUMBERS: dict[str, tuple[str, type, float, float]] = {
    "weight_min": ("1", int, -(2**31), 0),
    "weight_max": ("1", int, 0, 2**31),
    "weight_step": ("1", int, 1, 256),
    "weight_bits": ("bit", int, 1, 32),
    "weight_exp_min": ("bit", int, -32, 0),
    "weight_exp_max": ("bit", int, 0, 32),
    "delay_max": ("time step", int, 0, 2**15 - 1),
    "delay_bits": ("bit", int, 0, 15),
    "synaptic_sum_bits": ("bit", int, 2, 64),
    "payload_bits_max": ("bit", int, 0, 64),
    "microcode": ("1", int, 0, 1),
    "state_bits": ("bit", int, 2, 64),
    "threshold_max": ("1", int, 0, 2**32),
    "current_decay_min": ("1/4096 per time step", int, 0, 4096),
    "current_decay_max": ("1/4096 per time step", int, 0, 4096),
    "voltage_decay_max": ("1/4096 per time step", int, 0, 4096),
    "decays_per_population_max": ("pairs of decays", int, 1, 1 << 20),
    "bias_mantissa_min": ("1", int, -(2**31), 0),
    "bias_mantissa_max": ("1", int, 0, 2**31),
    "bias_exp_max": ("bit", int, 0, 32),
    "neurons_per_core": ("neuron", int, 1, 2**31),
    "synapse_memory_per_core": ("word", int, 1, 2**31),
    "synapse_word_bits": ("bit", int, 1, 2**16),
    "axons_in_per_core": ("axon", int, 1, 2**31),
    "axons_out_per_core": ("axon", int, 1, 2**31),
    "cores_per_chip": ("core", int, 1, 2**31),
    "cores_per_chip_usable": ("core", int, 1, 2**31),
    "energy_per_synaptic_op": ("pJ", float, 0, math.inf),
    "energy_per_neuron_update": ("pJ", float, 0, math.inf),
    "power_static": ("W", float, 0, math.inf),
    "energy_dynamic_per_step": ("nJ", float, 0, math.inf),
    "time_per_step": ("us", float, 0, math.inf),
}
KEYS: tuple[str, ...] = (*_NUMBERS, *_WORDS)
"""Every limit that a profile may state."""
# Prices that somebody fitted to measurements, and how far the fit is off.
_FITTED: dict[str, tuple[str, type, float, float]] = {
    "energy_per_synaptic_op": ("pJ", float, 0, math.inf),
    "energy_per_neuron_update": ("pJ", float, 0, math.inf),
    "energy_per_spike": ("pJ", float, 0, math.inf),
    "energy_per_message": ("pJ", float, 0, math.inf),
    "energy_error": ("%", float, 0, math.inf),
    "time_per_synaptic_op": ("ns", float, 0, math.inf),
    "time_per_neuron_update": ("ns", float, 0, math.inf),
    "time_error": ("%", float, 0, math.inf),
}
FITTED: tuple[str, ...] = (*_FITTED,)
"""Every price that a profile may have in its table ``fitted``."""
_ORDERED = (
    ("weight_min", "weight_max"),
    ("current_decay_min", "current_decay_max"),
    ("bias_mantissa_min", "bias_mantissa_max"),
    ("cores_per_chip_usable", "cores_per_chip"),
)


@dataclass(frozen=True)
class Limit:
    """One figure of a chip.

    Attributes:
        value: a number or a tuple of words; None where it is unknown.
        unit: of the value.
        status: documented, measured, inferred or unknown.
        source: where it is from, or where one looked in vain.
    """

    value: float | int | tuple[str, ...] | None
    unit: str
    status: str
    source: str


@dataclass(frozen=True)
class System:
    """A board or machine of several chips.

    Attributes:
        chips: how many; cores: in all, None where they are not stated.
        status, source: as for a :class:`Limit`, never unknown.
    """

    chips: int
    cores: int | None
    status: str
    source: str


@dataclass(frozen=True)
class HardwareProfile:
    """A chip's limits and figures by name.

    Attributes:
        name: short name; title: what the chip is.
        limits: name -> :class:`Limit`, unknown ones too where the file lists them.
        systems: name -> :class:`System`.
        fitted: name -> :class:`Limit`, prices of :data:`FITTED` that a model of the chip was fitted with.
    """

    name: str
    title: str
    limits: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))
    systems: Mapping[str, System] = field(default_factory=lambda: MappingProxyType({}))
    fitted: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return (
            f"<HardwareProfile {self.name}: {self.title}, {len(self.unknown)} of {len(KEYS)} limits unknown>"
        )

    def _repr_html_(self) -> str:
        rows = [
            [key, "-" if one.value is None else str(one.value), one.unit, one.status, one.source]
            for key, one in self.limits.items()
        ]
        heads = ("limit", "value", "unit", "status", "source")
        # Whole, for it is asked for to look something up.
        return (
            f"<p><strong>{escape(self.name)}: {escape(self.title)}</strong></p>{as_html(Table(heads, rows))}"
        )

    def get(self, key: str) -> Any:
        """Value of a limit, or None where it is unknown.

        Raises:
            KeyError: no limit has this name.
        """
        if key not in KEYS:
            raise KeyError(key)
        limit = self.limits.get(key)
        return None if limit is None else limit.value

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of all limits without a value."""
        return tuple(key for key in KEYS if self.get(key) is None)

    def cores(self, system: str) -> int | None:
        """Cores of a system: as stated, or chips times the cores that are used; None if unknown."""
        one = self.systems[system]
        if one.cores is not None:
            return one.cores
        a_chip = self.get("cores_per_chip_usable") or self.get("cores_per_chip")
        return None if a_chip is None else one.chips * a_chip


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
            raw = read_file(text, MAX_BYTES)
        except InputError as error:
            raise InputError(
                f"profile {text!r}",
                f"is neither a profile of the package ({', '.join(profile_names())}) nor a file that can be "
                f"read ({error.problem})",
            ) from error
    try:
        table = tomli.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise InputError(text, f"is not valid TOML ({error})") from error
    mistakes = list(_mistakes(table))
    if mistakes:
        raise InputErrors(text, mistakes, "generic.toml explains every key")
    limits, fitted = _limits(table["limits"]), _limits(table.get("fitted", {}))
    systems = {
        name: System(entry["chips"], entry.get("cores"), entry["status"], entry["source"])
        for name, entry in table.get("systems", {}).items()
    }
    return HardwareProfile(
        table["name"],
        table["title"],
        MappingProxyType(limits),
        MappingProxyType(systems),
        MappingProxyType(fitted),
    )


def _limits(table: dict[str, Any]) -> dict[str, Limit]:
    found = {}
    for key, entry in table.items():
        value = entry.get("value")
        value = tuple(value) if isinstance(value, list) else value
        found[key] = Limit(value, entry["unit"], entry["status"], entry["source"])
    return found


def _mistakes(table: dict[str, Any]) -> Iterator[str]:
    """Everything that is wrong with a profile's content."""
    for key in ("name", "title"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            yield f"{key!r} is missing or not a text"
    yield from _unknown_keys("", table, {"name", "title", "limits", "systems", "fitted"})
    limits = table.get("limits")
    if not isinstance(limits, dict) or not limits:
        yield "[limits] is missing or empty"
        limits = {}
    yield from _unknown_keys("limits: ", limits, set(KEYS))
    sound = {}
    for key in [key for key in KEYS if key in limits]:
        mistakes = list(_limit_mistakes(key, limits[key]))
        yield from (f"limits.{key}: {mistake}" for mistake in mistakes)
        if not mistakes:
            sound[key] = limits[key].get("value")
    for low, high in _ORDERED:
        least, most = sound.get(low), sound.get(high)
        if least is not None and most is not None and least > most:
            yield f"limits.{low}: {least} exceeds {high} {most}"
    fitted = table.get("fitted", {})
    if not isinstance(fitted, dict):
        yield "[fitted] is not a table"
        fitted = {}
    yield from _unknown_keys("fitted: ", fitted, set(FITTED))
    for key in [key for key in FITTED if key in fitted]:
        mistakes = list(_limit_mistakes(key, fitted[key], _FITTED))
        if not mistakes and "value" not in fitted[key]:
            mistakes = ["has no value; leave out what is not known"]
        yield from (f"fitted.{key}: {mistake}" for mistake in mistakes)
    for kind in ("energy", "time"):
        if f"{kind}_error" not in fitted and any(key.startswith(f"{kind}_per") for key in fitted):
            yield f"fitted.{kind}_error: is missing, how far the fitted figures are off"
    systems = table.get("systems", {})
    if not isinstance(systems, dict):
        yield "[systems] is not a table"
        systems = {}
    for name, entry in systems.items():
        yield from (f"systems.{name}: {mistake}" for mistake in _system_mistakes(entry))


def _unknown_keys(where: str, entry: dict[str, Any], known: set[str]) -> Iterator[str]:
    extra = sorted(entry.keys() - known)
    if extra:
        yield f"{where}unknown keys {extra}"


def _entry_mistakes(entry: Any, keys: set[str], statuses: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with keys, status and source of a limit or a system."""
    if not isinstance(entry, dict):
        yield f"is {entry!r}, expected a table of {sorted(keys)}"
        return
    yield from _unknown_keys("", entry, keys)
    if entry.get("status") not in statuses:
        yield f"status is {entry.get('status')!r}, expected one of {list(statuses)}"
    if not isinstance(entry.get("source"), str) or not entry["source"].strip():
        yield "source is missing or not a text"


def _number_mistakes(name: str, value: Any, kind: type, low: float, high: float) -> Iterator[str]:
    accepted = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, accepted):
        yield f"{name} is {value!r}, expected {'a number' if kind is float else 'a whole number'}"
    elif kind is float and not (low < value < high):
        yield f"{name} is {value}, expected a positive number"
    elif not low <= value <= high:
        yield f"{name} is {value}, outside {low} to {high}"


def _limit_mistakes(
    key: str, entry: Any, numbers: Mapping[str, tuple[str, type, float, float]] = _NUMBERS
) -> Iterator[str]:
    yield from _entry_mistakes(entry, {"value", "unit", "status", "source"}, STATUSES)
    if not isinstance(entry, dict):
        return
    unit, kind, low, high = numbers.get(key, ("1", list, 0, 0))
    if entry.get("unit") != unit:
        yield f"unit is {entry.get('unit')!r}, expected {unit!r}"
    if entry.get("status") == "unknown":
        if "value" in entry:
            yield "has a value although its status is unknown"
    elif "value" not in entry:
        yield "has no value; where it is not known, status is 'unknown'"
    elif kind is not list:
        yield from _number_mistakes("value", entry["value"], kind, low, high)
    else:
        words, known = entry["value"], _WORDS[key]
        if not isinstance(words, list) or not words or any(word not in known for word in words):
            yield f"value is {words!r}, expected a list out of {list(known)}"


def _system_mistakes(entry: Any) -> Iterator[str]:
    yield from _entry_mistakes(entry, {"chips", "cores", "status", "source"}, STATUSES[:-1])
    if isinstance(entry, dict):
        yield from _number_mistakes("chips", entry.get("chips"), int, 1, 2**31)
        if "cores" in entry:
            yield from _number_mistakes("cores", entry["cores"], int, 1, 2**31)
