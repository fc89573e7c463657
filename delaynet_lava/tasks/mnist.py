"""MNIST and Fashion-MNIST, from the IDX files that a user has: as sequences of pixels and as spikes.

- ``smnist``: one pixel a step, 784 steps, graded; ``psmnist``: the same in one fixed random order.
- ``mnist``, ``fashion``: all 784 pixels at once, rate-coded spikes or (``coding=direct``) graded.

The last twelfth of the training images (5,000 of 60,000) is for validation; images come in the order of the
file.
"""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats.idx import read_idx
from delaynet_lava.kernels.coding import keys_of, rate_coded
from delaynet_lava.tasks.base import SPLITS, Task, require_samples
from delaynet_lava.tasks.words import join_word

__all__ = ["Coded", "Pixels"]

PIXELS, SIDE, CLASSES, VALIDATION = 784, 28, 10, 12
_MOVES = 1 << 32
"""What is drawn for them differs in this from what is drawn for the spikes."""
GARMENTS = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip
_FOLDERS = {
    "mnist": ("MNIST/raw", "mnist", "."),
    "fashion": ("FashionMNIST/raw", "fashion-mnist", "fashion", "."),
}
"""Below the root, where torchvision, Debian and people's own downloads leave the files."""


def _find(root: Path, collection: str, name: str) -> Path:
    for folder in _FOLDERS[collection]:
        for spelling in (name, name.replace("-idx", ".idx")):
            for ending in ("", ".gz"):
                path = root / folder / (spelling + ending)
                if os.path.isfile(path):
                    return path
    places = " or ".join(str(root / folder) for folder in _FOLDERS[collection])
    raise InputError(
        f"task {collection}",
        f"{name} is not in {places}, plain or .gz",
        "put the four IDX files of the data set there, or name their folder with root= or DELAYNET_DATA",
    )


class _Images:
    """The images of a data set, read when first asked for."""

    def __init__(self, collection: str, root: str) -> None:
        self.collection = collection
        self.root = Path(root or os.environ.get("DELAYNET_DATA") or ".")
        self._read: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (images, 784) and (images,)."""
        part = "t10k" if split == "test" else "train"
        if part not in self._read:
            self._read[part] = self._load(part)
        images, labels = self._read[part]
        if split == "test":
            return images, labels
        first = len(images) - len(images) // VALIDATION
        chosen = slice(None, first) if split == "train" else slice(first, None)
        return images[chosen], labels[chosen]

    def _load(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        path = _find(self.root, self.collection, f"{part}-images-idx3-ubyte")
        images = read_idx(path, 3)
        if images.shape[1:] != (28, 28):
            raise InputError(str(path), f"holds images of {images.shape[1:]}, expected (28, 28)")
        labelled = _find(self.root, self.collection, f"{part}-labels-idx1-ubyte")
        labels = read_idx(labelled, 1)
        if len(labels) != len(images):
            raise InputError(
                str(labelled), f"has {len(labels)} labels, {path.name} {len(images)} images", "give a pair"
            )
        if not len(labels) or labels.max() >= CLASSES:
            largest = labels.max() if len(labels) else "none"
            raise InputError(str(labelled), f"its largest label is {largest}, expected 0 to {CLASSES - 1}")
        return images.reshape(len(images), PIXELS), labels


@dataclass(frozen=True, eq=False)
class _MnistTask(Task):
    """What both kinds have in common.

    Attributes:
        collection: "mnist" or "fashion". root: where the files are; "": DELAYNET_DATA, or here.
        bits: of a pixel that is sent as a payload, 1 to 8: its highest ones.
        depth: so many of these are used, the highest ones, the others are 0; 0: all. Payloads stay as large
            as they were, so that it can vary below a network that was trained.
        shift: images that train are moved by up to so many pixels along both axes, by others each time; what
            leaves the frame is lost. Those that validate and test stay as they are.
        seed: of what is drawn. A training that walks through the images again and again draws it anew each
            time (:meth:`renewed`); with the same spikes every time it learns them by heart.
    """

    name: str
    collection: str
    root: str = ""
    bits: int = 8
    depth: int = 0
    shift: int = 0
    seed: int | None = 0
    images: _Images = field(init=False, repr=False)
    walk: int = field(init=False, default=0)

    classes = CLASSES

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InputError(f"task {self.name}: bits", f"{self.bits} is not 1 to 8")
        if not 0 <= self.depth <= self.bits:
            raise InputError(f"task {self.name}: depth", f"{self.depth} is not 0 to {self.bits}, its bits")
        if not 0 <= self.shift < SIDE:
            raise InputError(f"task {self.name}: shift", f"{self.shift} is not 0 to {SIDE - 1} pixels")
        object.__setattr__(self, "images", _Images(self.collection, self.root))

    def size(self, split: str) -> int:
        """Images of a split."""
        if split not in SPLITS:
            super().size(split)
        return len(self.images.of(split)[1])

    def describe(self, label: int) -> str:
        """The digit, or the garment."""
        return GARMENTS[label] if self.collection == "fashion" else str(label)

    def _pixels(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        require_samples(self, split, first, count)
        images, labels = self.images.of(split)
        chosen = slice(first, first + count)
        pixels = images[chosen]
        if split == "train" and self.shift:
            pixels = _moved(pixels, self._keys(split, first, count, _MOVES), self.shift)
        return pixels, labels[chosen].astype(np.int64)

    def _payloads(self, pixels: np.ndarray) -> np.ndarray:
        depth = self.depth or self.bits
        return pixels >> (8 - depth) << (self.bits - depth)

    def _keys(self, split: str, first: int, count: int, what: int = 0) -> np.ndarray:
        """uint64 (count,): where the random numbers of each sample begin."""
        seeds = np.array([self.seed or 0, SPLITS.index(split), self.walk + what], np.uint64)
        keys = np.empty(count, np.uint64)
        keys_of(seeds, np.arange(first, first + count, dtype=np.uint64), keys)
        return keys

    def _settle(self, usual: dict[str, Any], drawn: bool) -> None:
        """Set the word, with the options that are not the usual ones, and forget a seed of nothing."""
        options = {key: getattr(self, key) for key in usual if getattr(self, key) != usual[key]}
        object.__setattr__(self, "word", join_word(self.name, options))
        if not drawn:
            object.__setattr__(self, "seed", None)

    def renewed(self, walk: int) -> _MnistTask:
        """The same images, elsewhere in the frame where they are moved, and in other spikes."""
        if not walk or self.seed is None:
            return self
        other = copy(self)
        object.__setattr__(other, "walk", walk)
        return other


def _moved(pixels: np.ndarray, keys: np.ndarray, most: int) -> np.ndarray:
    """Images (N, 784), each moved by its key along both axes, at most so far."""
    wide = np.pad(pixels.reshape(-1, SIDE, SIDE), ((0, 0), (most, most), (most, most)))
    rows, columns = ((keys >> np.uint64(half)) % np.uint64(2 * most + 1) for half in (0, 32))
    moved = np.empty((len(pixels), SIDE, SIDE), pixels.dtype)
    for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        moved[k] = wide[k, row : row + SIDE, column : column + SIDE]
    return moved.reshape(-1, PIXELS)


@dataclass(frozen=True, eq=False)
class Pixels(_MnistTask):
    """One pixel a step, 784 steps of one channel, as a payload of ``bits``.

    Attributes:
        permutation: the order of the pixels is ``torch.randperm(784)`` of this seed (0: the published one of
            DelayNet); -1: row by row.
    """

    permutation: int = -1

    channels = 1
    steps = PIXELS
    order: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.permutation < -1:
            raise InputError(f"task {self.name}: permutation", f"{self.permutation} is not a seed")
        ordered = {"permutation": 0} if self.permutation >= 0 else {}
        self._settle({"root": "", **ordered, "bits": 8, "depth": 0, "shift": 0}, drawn=self.shift > 0)
        object.__setattr__(self, "payload_bits", self.bits)
        object.__setattr__(self, "order", _permutation(self.permutation))

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """int32 (count, 784, 1), int64 (count,)."""
        pixels, labels = self._pixels(split, first, count)
        return self._payloads(pixels[:, self.order]).astype(np.int32)[:, :, None], labels


def _permutation(seed: int) -> np.ndarray:
    if seed < 0:
        return np.arange(PIXELS)
    import torch  # seconds, and only this order is defined by it

    return torch.randperm(PIXELS, generator=torch.Generator().manual_seed(seed)).numpy()


@dataclass(frozen=True, eq=False)
class Coded(_MnistTask):
    """All pixels at once: 784 channels.

    Attributes:
        coding: "rate": a spike with probability ``gain * pixel / 255`` at each step; "direct": the pixel
            itself, as a payload of ``bits``, at each step.
        length: steps with input. blank: silent steps before them.
    """

    coding: str = "rate"
    length: int = 200
    blank: int = 0
    gain: float = 0.25

    channels = PIXELS

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = []
        if self.coding not in ("rate", "direct"):
            faults.append(f"coding {self.coding!r} is not rate or direct")
        if self.length < 1 or self.blank < 0:
            faults.append(f"length {self.length} and blank {self.blank} are no number of steps")
        if not 0 < self.gain <= 1:
            faults.append(f"gain {self.gain} is not above 0 and at most 1")
        if faults:
            raise InputError(f"task {self.name}", "; ".join(faults))
        usual = {"root": "", "coding": "rate", "length": 200, "blank": 0, "gain": 0.25, "bits": 8}
        usual |= {"depth": 0, "shift": 0}
        self._settle(usual, drawn=self.coding == "rate" or self.shift > 0)
        object.__setattr__(self, "steps", self.length + self.blank)
        if self.coding == "direct":
            object.__setattr__(self, "payload_bits", self.bits)

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 or int32 (count, steps, 784), int64 (count,)."""
        pixels, labels = self._pixels(split, first, count)
        if self.coding == "direct":
            inputs = np.zeros((count, self.steps, PIXELS), np.int32)
            inputs[:, self.blank :] = self._payloads(pixels)[:, None]
            return inputs, labels
        inputs = np.zeros((count, self.steps, PIXELS), np.uint8)
        chances = np.rint(self.gain / 255 * (1 << 24) * pixels).astype(np.int64)
        rate_coded(chances, self._keys(split, first, count), inputs[:, self.blank :])
        return inputs, labels
