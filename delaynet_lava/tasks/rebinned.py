"""A task at a coarser time step than its own, for networks that were made so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import Task

__all__ = ["Rebinned", "at_step_of", "rebin"]


def rebin(spikes: np.ndarray, factor: int) -> tuple[np.ndarray, int]:
    """Spikes at a time step ``factor`` times as long: one where the bin holds any.

    Args:
        spikes: uint8 or bool (batch, steps, channels), 0 or 1; a last bin that is not full is kept.

    Returns:
        uint8 (batch, ceil(steps / factor), channels), and how many spikes merged into another.

    Raises:
        InputError: values other than 0 and 1, or another shape.
    """
    x = np.asarray(spikes)
    if x.ndim != 3 or x.dtype not in (np.uint8, np.bool_):
        raise InputError(
            "inputs", f"have type {x.dtype} and shape {x.shape}", "give uint8 (batch, steps, channels)"
        )
    if factor < 1:
        raise InputError("factor", f"{factor} is below 1")
    if x.size and x.max() > 1:
        raise InputError("inputs", f"hold the value {x.max()}, spikes are 0 or 1")
    batch, steps, channels = x.shape
    padded = np.zeros((batch, -(-steps // factor) * factor, channels), np.uint8)
    padded[:, :steps] = x
    binned = padded.reshape(batch, -1, factor, channels).max(axis=2)
    return binned, int(x.sum(dtype=np.int64) - binned.sum(dtype=np.int64))


@dataclass
class Rebinned(Task):
    """A task at a coarser time step.

    Attributes:
        task: the task at its own step. factor: its steps in one.
        spikes, merged: input spikes so far, and how many of them merged into another.

    Raises:
        InputError: its inputs are payloads.
    """

    task: Task
    factor: int
    spikes: int = 0
    merged: int = 0

    def __post_init__(self) -> None:
        if self.task.payload_bits:
            raise InputError(
                f"task {self.task.word}",
                "has whole numbers as inputs, and those of several steps don't merge into one as spikes do",
                "run a network of its own time step",
            )
        self.name, self.word, self.seed = self.task.name, self.task.word, self.task.seed
        self.channels, self.classes = self.task.channels, self.task.classes
        self.dt_ms = self.task.dt_ms * self.factor
        self.steps = -(-self.task.steps // self.factor)

    def size(self, split: str) -> int | None:
        """As many as at its own step."""
        return self.task.size(split)

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples ``first`` to ``first + count - 1``, rebinned, with their labels."""
        x, y = self.task.batch(split, first, count)
        binned, merged = rebin(x, self.factor)
        self.spikes += int(x.sum(dtype=np.int64))
        self.merged += merged
        return binned, y

    def lengths(self, split: str, first: int, count: int) -> np.ndarray:
        """In coarse steps."""
        return -(-self.task.lengths(split, first, count) // self.factor)

    def variations(self) -> Sequence[Task]:
        """Those of the task, at the same coarse step."""
        return [Rebinned(task, self.factor) for task in self.task.variations()]

    def references(self) -> Mapping[str, float]:
        """Those of the task."""
        return self.task.references()

    def describe(self, label: int) -> str:
        """As the task does."""
        return self.task.describe(label)


def at_step_of(dt_ms: float, task: Task) -> Task:
    """The task at a network's time step: itself, or :class:`Rebinned`.

    Raises:
        InputError: the network's step is not a whole number of the task's.
    """
    factor = round(dt_ms / task.dt_ms)
    if factor < 1 or abs(factor * task.dt_ms - dt_ms) > 1e-9:
        raise InputError(
            "time step",
            f"the network's is {dt_ms:g} ms, the task's {task.dt_ms:g} ms: no whole number of them",
            "retime the network to one",
        )
    return task if factor == 1 else Rebinned(task, factor)
