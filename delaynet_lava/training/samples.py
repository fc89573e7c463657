"""Which samples a training sees, and in which order: a pool of numbers, walked through by a seed.

Of a task without end, each sample is seen once. A finite split is walked through again and again, each time
in another order; where a training has got to is one number, the samples used so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import Task

__all__ = ["ENDLESS", "Pool", "epoch_borders", "pools", "what_trains"]

ENDLESS = 1024
"""Samples of an epoch, and of a validation, where the recipe does not say and the split has no end."""
_HELD_OUT, _ORDER = 1, 2


@lru_cache(maxsize=2)
def _order(seed: int, walk: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, walk]).permutation(size)


@dataclass(frozen=True)
class Pool:
    """Samples of a split of a task: those of the given numbers, or all of an endless one.

    Attributes:
        numbers: int64 (n,), of samples; None: the split has no end.
        held_out: the pool is a part of the training split that does not train.
    """

    task: Task
    split: str
    numbers: np.ndarray | None
    held_out: bool = False

    @property
    def size(self) -> int | None:
        """Samples in it; None: without end."""
        return None if self.numbers is None else len(self.numbers)

    def most(self, wanted: int) -> int:
        """How many samples are taken where so many are wanted; 0: all, or 1024 without end."""
        return min(wanted or self.size or ENDLESS, self.size or wanted or ENDLESS)

    def first(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """``count`` samples from the one at ``start`` on, in their own order; see :meth:`Task.batch`."""
        if self.numbers is None:
            return self.task.batch(self.split, start, count)
        return self._of(self.task, self.numbers[start : start + count])

    def ordered(self, seed: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`first`, of an endless walk through the pool, each round in an order of its own.

        What a task draws is drawn anew in each round, see :meth:`Task.renewed`.
        """
        if self.numbers is None:
            return self.task.batch(self.split, start, count)
        size, parts = len(self.numbers), []
        while count:
            walk, at = divmod(start, size)
            taken = min(count, size - at)
            order = _order(seed, walk, size)
            parts.append(self._of(self.task.renewed(walk), self.numbers[order[at : at + taken]]))
            start, count = start + taken, count - taken
        return _joined(parts) if parts else self._of(self.task, self.numbers[:0])

    def _of(self, task: Task, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Neighbours are asked for together.
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        runs = [run for run in np.split(numbers, ends) if len(run)]
        if not runs:
            return task.batch(self.split, 0, 0)
        return _joined([task.batch(self.split, int(run[0]), len(run)) for run in runs])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    inputs, labels = zip(*parts, strict=True)
    return np.concatenate(inputs), np.concatenate(labels)


def pools(task: Task, seed: int, held_out: float) -> tuple[Pool, Pool]:
    """Samples for training and for validation.

    Where the task has no validation samples, a share of the training samples validates instead, drawn by
    the seed.

    Raises:
        InputError: the task has no classes, or not enough samples.
    """
    where = f"task {task.word}"
    if task.classes is None:
        raise InputError(where, "has no classes, and training is towards labels", "give it labels")
    size, other = task.size("train"), task.size("validation")
    if size is not None and size < 2:
        raise InputError(where, f"has {size} training samples", "give it at least 2")
    numbers = None if size is None else np.arange(size)
    if other is None or other > 0:
        return Pool(task, "train", numbers), Pool(
            task, "validation", None if other is None else np.arange(other)
        )
    if numbers is None:
        raise InputError(where, "has training samples without end and none to validate", "give it some")
    kept = max(1, round(held_out * len(numbers)))
    order = np.random.default_rng([seed, _HELD_OUT]).permutation(len(numbers))
    return (
        Pool(task, "train", np.sort(order[kept:])),
        Pool(task, "train", np.sort(order[:kept]), held_out=True),
    )


def what_trains(training: Pool, validation: Pool) -> str:
    """For people: how many samples train, and which ones validate."""
    if training.size is None:
        return "fresh samples without end train, others validate"
    if validation.held_out:
        return (
            f"{training.size} samples train, {validation.size} more of the same split validate: "
            "the task has no split for that"
        )
    others = "fresh ones" if validation.size is None else str(validation.size)
    return f"{training.size} samples train, {others} of the split validation validate"


def epoch_borders(samples: int, batch: int) -> np.ndarray:
    """Where the batches of an epoch begin and end: as few as can be, as even as can be.

    Returns:
        int64 (batches + 1,), from 0 to ``samples``.
    """
    batches = -(-samples // batch)
    return np.arange(batches + 1) * samples // batches
