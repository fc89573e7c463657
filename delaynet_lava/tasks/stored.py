"""Tasks whose samples are stored: what a source of samples is, labels, and which sample is in which split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import Task, require_samples

__all__ = ["MAX_CLASSES", "Part", "Source", "Stored", "labels_of", "parted"]

MAX_CLASSES = 1 << 16
TRAIN_AND_VALIDATION, THREE = (0.9, 0.1), (0.8, 0.1, 0.1)


class Source(Protocol):
    """Samples in a fixed order, read when asked for.

    Attributes:
        channels, steps: of the longest sample.
        labels: int64 (samples,).
    """

    channels: int
    steps: int
    labels: np.ndarray

    def sample(self, index: int) -> np.ndarray:
        """(steps of this sample, channels), uint8 for spikes and int32 for payloads."""

    def length(self, index: int) -> int:
        """Steps of this sample."""


@dataclass(frozen=True)
class Part:
    """Some samples of a source, in the order of a split: int64 indices."""

    source: Source
    indices: np.ndarray


class Stored(Task):
    """A finite task.

    Args:
        parts: samples of each split; a split that is not there is empty.
        more: ``dt_ms``, ``payload_bits``, ``payload_signed``, and ``names`` of the classes.
    """

    def __init__(
        self, name: str, word: str, parts: Mapping[str, Part], classes: int | None, **more: Any
    ) -> None:
        self.name, self.word, self.classes = name, word, classes
        self.dt_ms = more.get("dt_ms", 1.0)
        self.payload_bits = more.get("payload_bits", 0)
        self.payload_signed = more.get("payload_signed", False)
        self._parts = dict(parts)
        self._names = list(more.get("names", ()))
        sources = [part.source for part in self._parts.values()]
        self.channels = max(source.channels for source in sources)
        self.steps = max(source.steps for source in sources)

    def size(self, split: str) -> int:
        """Samples of a split."""
        super().size(split)
        return len(self._parts[split].indices) if split in self._parts else 0

    def _chosen(self, split: str, first: int, count: int) -> tuple[Source, np.ndarray]:
        require_samples(self, split, first, count)
        part = self._parts.get(split) or next(iter(self._parts.values()))
        return part.source, part.indices[first : first + count]

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """These samples, silent behind their end; and their labels."""
        source, indices = self._chosen(split, first, count)
        inputs = np.zeros((count, self.steps, self.channels), np.int32 if self.payload_bits else np.uint8)
        for row, index in zip(inputs, indices, strict=True):
            sample = source.sample(int(index))
            row[: sample.shape[0], : sample.shape[1]] = sample
        return inputs, source.labels[indices]

    def lengths(self, split: str, first: int, count: int) -> np.ndarray:
        """int64 (count,), steps of each sample."""
        source, indices = self._chosen(split, first, count)
        return np.array([source.length(int(index)) for index in indices], np.int64)

    def describe(self, label: int) -> str:
        """The name of a class, or its number."""
        return self._names[label] if label < len(self._names) else str(label)


def labels_of(raw: np.ndarray, where: str, classes: int = 0) -> np.ndarray:
    """Labels as int64 (samples,): whole numbers, or rows with a single one (one-hot).

    Args:
        classes: labels are below it; 0: not known.

    Raises:
        InputError: anything else, naming the first at fault.
    """
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind not in "iuf":
        raise InputError(where, f"have type {values.dtype}", "give whole numbers from 0 on")
    if values.ndim == 2:
        if not values.size:  # of no rows too, which then have no largest value
            raise InputError(where, f"have shape {values.shape}", "give one whole number a sample")
        bad = ((values != 0) & (values != 1)).any(axis=1) | (values.sum(axis=1) != 1)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{where}: row {at}",
                "is not one-hot, a single 1 among zeros",
                "give one whole number a sample",
            )
        if classes and values.shape[1] > classes:
            raise InputError(where, f"are one-hot over {values.shape[1]} classes, {classes} were asked for")
        return values.argmax(axis=1).astype(np.int64)
    if values.ndim != 1:
        raise InputError(where, f"have shape {values.shape}", "give one whole number a sample")
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values) | (values != np.rint(values))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise InputError(f"{where}: number {at}", f"is {values[at]}, not a whole number")
    limit = classes or MAX_CLASSES
    bad = (values < 0) | (values >= limit)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{where}: number {at}",
            f"is {int(values[at])}, outside 0 to {limit - 1}",
            "count classes from 0 on" if not classes else "raise classes, or count from 0 on",
        )
    return values.astype(np.int64)


def parted(
    sources: Mapping[str, Source], shares: tuple[float, ...], where: str
) -> tuple[dict[str, Part], tuple[float, ...]]:
    """Samples of each split, and the shares they were divided by; () where the file divides them itself.

    Which sample goes where depends on its number alone, never on a seed: the test samples of a training and
    of a later run are the same.

    Args:
        sources: by split; "" for one that is to be divided among the splits that have none.
        shares: asked for; (): 0.8, 0.1, 0.1 of train, validation and test, or 0.9, 0.1 of train and
            validation where test samples are there.

    Raises:
        InputError: shares that are not these, or are asked for although the file divides itself.
    """
    parts = {split: Part(one, np.arange(len(one.labels))) for split, one in sources.items() if split}
    whole = sources.get("")
    missing = [split for split in ("train", "validation", "test") if split not in sources]
    if whole is None:
        if "train" not in sources or "validation" in sources:
            if shares:
                raise InputError(where, "split: the samples are divided already", "leave split out")
            return parts, ()
        whole, missing = sources["train"], ["train", "validation"]
    usual = THREE if len(missing) == 3 else TRAIN_AND_VALIDATION if len(missing) == 2 else (1.0,)
    if missing == ["train", "test"]:
        usual = (1.0, 0.0)
    shares = shares or usual
    if len(shares) != len(missing) or any(not 0 <= share <= 1 for share in shares):
        raise InputError(
            where, f"split: {len(shares)} shares, expected {len(missing)} from 0 to 1 ({', '.join(missing)})"
        )
    if abs(sum(shares) - 1) > 1e-6:
        raise InputError(where, f"split: the shares add up to {sum(shares):g}, not to 1")
    count = len(whole.labels)
    # Raw words of a bit generator are the same in all releases of NumPy, permutations are not.
    order = np.argsort(np.random.SFC64(0).random_raw(count), kind="stable")
    ends = np.floor(np.cumsum(shares) * count + 0.5).astype(int)
    for split, first, last in zip(missing, [0, *ends], ends, strict=False):
        parts[split] = Part(whole, np.sort(order[first:last]))
    return parts, shares
