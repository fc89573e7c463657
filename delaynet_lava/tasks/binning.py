"""Events, a time and a unit each, as samples of steps and channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["EVENT_OPTIONS", "MAX_STEPS", "UNITS_MS", "EventSource", "Events", "step_of"]

UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
MAX_STEPS = 1 << 20
# Bytes; a batch takes as much again, and all is to stay under 1 GiB.
MAX_SAMPLE = 1 << 28
"""Steps times channels of a sample."""
COUNT_BITS = 8
"""Payload bits where events of a bin are counted."""
EVENT_OPTIONS = {"dt_ms": 1.0, "unit": "ms", "steps": 0, "channels": 0, "several": "one", "cut": False}
"""Options of a task of events, and their usual values.

``dt_ms``: length of a step. ``unit``: of the times: s, ms, us. ``steps``, ``channels``: 0: as many as the
events need. ``several``: events of a channel in one step are ``one`` spike, or a payload that ``count``\\ s
them. ``cut``: leave out what comes after ``steps``, instead of refusing it.
"""

Events = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""Times and units of a sample, by its number."""


def step_of(times: np.ndarray, scale: float) -> np.ndarray:
    """Step of each time, float64: ``floor(time * scale)``.

    A time of 32 or 64 bits that rounding put just before a step counts as in it. One of 16 bits, whose
    rounding is as large as a step, is taken as it is.
    """
    values = np.asarray(times)
    steps = values.astype(np.float64) * scale
    if values.dtype.kind == "f" and values.dtype.itemsize > 2:
        steps += np.maximum(1e-6, np.abs(steps) * np.finfo(values.dtype).eps)
    return np.floor(steps)


class EventSource:
    """Samples made of events when asked for.

    Args:
        events: times and units of a sample.
        labels: int64 (samples,).
        extent: steps and channels that the events need, as :func:`step_of` counts; known from one look.
        options: as :data:`EVENT_OPTIONS`.
        where: how errors name the source.

    Raises:
        InputError: options that don't exist, or samples that would be too large.
    """

    def __init__(
        self, events: Events, labels: np.ndarray, extent: tuple[int, int], options: dict, where: str
    ) -> None:
        self._events, self.labels, self.where = events, labels, where
        self._scale = scale_of(options, where)
        self._count, self._cut = options["several"] == "count", options["cut"]
        needed_steps, needed_channels = extent
        self.steps = options["steps"] or needed_steps
        self.channels = options["channels"] or needed_channels
        if not self.steps or not self.channels:
            raise InputError(where, "holds no event, so its extent is not known", "give steps and channels")
        most = MAX_SAMPLE // (4 if self._count else 1)
        if self.steps > MAX_STEPS or self.steps * self.channels > most:
            raise InputError(
                where,
                f"a sample would have {self.steps:,} steps of {self.channels:,} channels, more than "
                f"{MAX_STEPS:,} steps or {most:,} values",
                "check unit, or raise dt_ms",
            )

    def _binned(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 steps and units of a sample's events, checked."""
        times, units = (np.asarray(part) for part in self._events(index))
        where = f"{self.where}: sample {index}"
        if len(times) != len(units):
            raise InputError(where, f"has {len(times)} times and {len(units)} units")
        steps = step_of(times, self._scale)
        if len(steps):
            if not np.isfinite(steps).all() or steps.min() < 0:
                bad = times[~(np.isfinite(steps) & (steps >= 0))][0]
                raise InputError(where, f"has an event at {bad}", "times count from 0 on")
            if units.min() < 0 or units.max() >= self.channels or np.any(units != np.rint(units)):
                bad = units[(units < 0) | (units >= self.channels) | (units != np.rint(units))][0]
                raise InputError(where, f"has an event of unit {bad}, outside 0 to {self.channels - 1}")
            if steps.max() >= self.steps and not self._cut:
                raise InputError(
                    where,
                    f"has an event in step {int(steps.max())}, the sample ends with step {self.steps - 1}",
                    "raise steps, or say cut=true to leave such events out",
                )
        kept = steps < self.steps
        return steps[kept].astype(np.int64), units[kept].astype(np.int64)

    def sample(self, index: int) -> np.ndarray:
        """Spikes uint8, or counts int32, (steps up to its last event, channels)."""
        steps, units = self._binned(index)
        extent = (int(steps.max()) + 1 if len(steps) else 0, self.channels)
        if not self._count:
            spikes = np.zeros(extent, np.uint8)
            spikes[steps, units] = 1
            return spikes
        counts = np.zeros(extent, np.int32)
        np.add.at(counts, (steps, units), 1)
        if counts.size and counts.max() >= 1 << COUNT_BITS:
            raise InputError(
                f"{self.where}: sample {index}",
                f"has {counts.max()} events of a channel in one step, more than {(1 << COUNT_BITS) - 1}",
                "lower dt_ms, or say several=one",
            )
        return counts

    def length(self, index: int) -> int:
        """Steps up to its last event."""
        steps, _ = self._binned(index)
        return int(steps.max()) + 1 if len(steps) else 0


def scale_of(options: dict, where: str) -> float:
    """Steps of a unit of time.

    Raises:
        InputError: options of another kind than :data:`EVENT_OPTIONS` allows.
    """
    if options["unit"] not in UNITS_MS:
        raise InputError(where, f"unit: {options['unit']!r} is not one of {', '.join(UNITS_MS)}")
    if options["several"] not in ("one", "count"):
        raise InputError(where, f"several: {options['several']!r} is not one of one, count")
    if not 0 < options["dt_ms"] < 1e6:
        raise InputError(where, f"dt_ms: {options['dt_ms']} is not the length of a step")
    for name in ("steps", "channels"):
        if options[name] < 0:
            raise InputError(where, f"{name}: {options[name]} is negative")
    return UNITS_MS[options["unit"]] / options["dt_ms"]
