"""What a task is: a seeded or stored source of samples, whoever asks for them and however often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from delaynet_lava.errors import InputError, shown

__all__ = ["SPLITS", "Task", "batches", "require_samples", "require_split"]

SPLITS = ("train", "validation", "test")
_BATCH_BYTES = 256 << 20


class Task:
    """Base of all tasks: what stands here without a value every task gives, the rest it may.

    Sample ``i`` of a split is the same on every call.

    Attributes:
        name: short, for people: "cue", "mine.npz".
        word: what :func:`delaynet_lava.task` makes this task of again: "cue:cues=11,wait_ms=3000".
        channels: of the input.
        steps: of the longest sample; shorter ones are silent behind their end, see :meth:`lengths`.
        classes: labels are whole numbers from 0 to below it; None: there are no classes.
        dt_ms: length of a step.
        payload_bits: 0: inputs are spikes, 0 or 1. Else whole numbers of so many bits.
        payload_signed: whether one of those bits is the sign.
        seed: of what is drawn; None: nothing is, the samples are stored.
    """

    name: str
    word: str
    channels: int
    steps: int
    classes: int | None
    dt_ms: float = 1.0
    payload_bits: int = 0
    payload_signed: bool = False
    seed: int | None = None

    def __repr__(self) -> str:
        classes = "no classes" if self.classes is None else f"{self.classes} classes"
        return f"<Task {self.word}: {self.channels} channels, {self.steps} steps, {classes}>"

    def size(self, split: str) -> int | None:
        """Samples of "train", "validation" or "test"; None: as many as are asked for.

        Raises:
            InputError: another split.
        """
        require_split(self, split)
        return None

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples ``first`` to ``first + count - 1`` of a split.

        Returns:
            Inputs (count, steps, channels), uint8 where they are spikes and int32 where they are payloads;
            labels int64 (count,).

        Raises:
            InputError: another split, or samples that there are not.
        """
        raise NotImplementedError

    def lengths(self, split: str, first: int, count: int) -> np.ndarray:
        """int64 (count,), steps of each of these samples before the silence that fills it up."""
        require_samples(self, split, first, count)
        return np.full(count, self.steps, np.int64)

    def renewed(self, walk: int) -> Task:
        """The task as a training sees it the time ``walk``, from 0 on, that it walks through all samples.

        What is drawn, such as the spikes that code an image, is drawn anew. A stored sample stays what it is.
        """
        return self

    def curriculum(self) -> Sequence[Task]:
        """Stages of a training, from easy to this task itself, which is the last."""
        return [self]

    def easier(self) -> Task:
        """What a training may mix in at this stage, so that it is not forgotten; itself: nothing easier."""
        return self

    def variations(self) -> Sequence[Task]:
        """Others of its kind that a sweep runs beside it, such as shorter and longer ones."""
        return []

    def references(self) -> Mapping[str, float]:
        """Accuracies of observers that are worth a comparison, by what they are called."""
        return {}

    def describe(self, label: int) -> str:
        """A label in words."""
        return str(label)


def require_split(task: Task, split: str) -> None:
    """Refuse another split than those in :data:`SPLITS`.

    Raises:
        InputError: for that reason.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise InputError(f"task {task.word}: split", f"{shown(split)} is not one of {', '.join(SPLITS)}")


def require_samples(task: Task, split: str, first: int, count: int) -> None:
    """Refuse samples that a task has not.

    Raises:
        InputError: with the number asked for and the number there is.
    """
    size = task.size(split)
    if first < 0 or count < 0:
        raise InputError(f"task {task.word}", f"{count} samples from number {first} on were asked for")
    if size is not None and first + count > size:
        raise InputError(
            f"task {task.word}",
            f"{first + count} samples of the split {split} were asked for, it has {size}",
            f"ask for at most {size}" if size else "use another split",
        )


def batches(
    task: Task, split: str, samples: int, size: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first ``samples`` of a split in order, a bounded amount of memory at a time.

    Args:
        size: samples a batch; None: as many as fit 256 MiB, at most 256.
    """
    require_samples(task, split, 0, samples)
    if size is None:
        value_bytes = 4 if task.payload_bits else 1
        size = int(np.clip(_BATCH_BYTES // (task.steps * task.channels * value_bytes), 1, 256))
    for first in range(0, samples, size):
        yield task.batch(split, first, min(size, samples - first))
