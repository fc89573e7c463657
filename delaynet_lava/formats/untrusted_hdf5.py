"""Files from strangers: HDF5 groups with bounds, and errors that name file, layer and key.

Sizes are checked before anything is unpacked, what is unpacked is paid for from a budget that grows with
the file, and nothing leads out of the file: soft and external links, external raw data and virtual datasets
are refused. The file is read into memory once, so
what was checked is what is read. This module knows no key; :mod:`delaynet_lava.formats.netx_read` does.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.files import read_file
from delaynet_lava.formats.hdf5_format import Dataset, FormatError, Reader

__all__ = ["MAX_BYTES", "MAX_ELEMENTS", "Group", "Rows", "open_untrusted", "root_of"]

MAX_ELEMENTS = 1 << 28
"""Elements of one dataset: a matrix of 16384 x 16384."""
MAX_BYTES = 1 << 31
"""Bytes of a file."""
FREE_BYTES, WORK_BYTES = 1 << 28, 8
"""Bytes that may be unpacked from any file, and those that checking one element takes beside its own. A file
that is not compressed, however large, stays within ``FREE_BYTES + (1 + WORK_BYTES) * its size``."""
MAX_FEW = 1 << 6
"""Elements of what should be one value, or a few."""
MAX_TEXTS = 1 << 18
"""Elements of an array of strings."""
MAX_KEYS = 1 << 13
"""Entries of one group."""
MAX_NAME = 1 << 8
"""Bytes of an attribute that is text."""

_OTHERS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, which stands for a file",
        "fetch the file itself: git lfs pull",
    ),
    (b"PK\x03\x04", "a zip archive (a model.pt, .npz or .keras)", "a model.pt goes to delaynet export"),
)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise InputError(where, str(error)) from error


class _File:
    """A file in memory, and how many more bytes may be unpacked from it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.reader = content, Reader(content)
        self.limit = self.budget = FREE_BYTES + (1 + WORK_BYTES) * len(content)


class Group:
    """A group of an untrusted file.

    Attributes:
        where: how error messages name the part of the file it belongs to.
        keys: names of its entries.
    """

    def __init__(self, file: _File, address: int, where: str, prefix: str = "") -> None:
        self._file, self.where, self._prefix = file, where, prefix
        self._own = address
        with _named(self.name):
            self._links = file.reader.links(address, MAX_KEYS)
        self.keys = frozenset(self._links)

    @property
    def name(self) -> str:
        """How error messages name the group itself."""
        return self.at("").rstrip(": /")

    def at(self, key: str) -> str:
        """How error messages name an entry."""
        return f"{self.where}: {self._prefix}{key}"

    def label(self, where: str) -> None:
        """Name the group in error messages from now on."""
        self.where = where

    def refuse(self, key: str, problem: str, remedy: str = "") -> InputError:
        """An error about an entry, to be raised."""
        return InputError(self.at(key), problem, remedy)

    def _address(self, key: str) -> int:
        if key not in self._links:
            raise self.refuse(key, "is missing")
        address = self._links[key]
        if address is None:
            remedy = "store the data in the file itself"
            raise self.refuse(key, "is a soft or external link, which is not followed", remedy)
        return address

    def is_group(self, key: str) -> bool:
        """True where an entry is a group.

        Raises:
            InputError: it is missing, a link, or damaged.
        """
        address = self._address(key)
        with _named(self.at(key)):
            return self._file.reader.is_group(address)

    def has_value(self, key: str) -> bool:
        """True where an entry is there and is no dataset without a value.

        Raises:
            InputError: it is a link, or damaged.
        """
        if key not in self.keys:
            return False
        address = self._address(key)
        with _named(self.at(key)):
            return not self._file.reader.is_null(address)

    def group(self, key: str, where: str | None = None) -> Group:
        """A group inside this one.

        Args:
            key: its name.
            where: how error messages name it; None: as part of this group.

        Raises:
            InputError: it is missing, not a group, a link, or damaged.
        """
        if not self.is_group(key):
            raise self.refuse(key, "is not a group")
        if where is None:
            return Group(self._file, self._address(key), self.where, f"{self._prefix}{key}/")
        return Group(self._file, self._address(key), where)

    def _dataset(self, key: str, limit: int) -> Dataset:
        address = self._address(key)
        with _named(self.at(key)):
            dataset = self._file.reader.dataset(address)
        elements = math.prod(n or 1 for n in dataset.shape)
        if elements > limit:
            raise self.refuse(key, f"has shape {dataset.shape}, more than {limit} elements")
        self._file.budget -= dataset.cost + WORK_BYTES * elements
        if self._file.budget < 0:
            raise self.refuse(
                key,
                f"takes what is unpacked beyond {self._file.limit} bytes, too many for a file of this size",
                "store it once, and without compression",
            )
        return dataset

    def is_text(self, key: str) -> bool:
        """True where an entry holds strings.

        Raises:
            InputError: it is missing, a link, not a dataset, or damaged.
        """
        address = self._address(key)
        with _named(self.at(key)):
            dtype = self._file.reader.dataset(address).dtype
        return dtype is None or dtype.kind == "S"

    def again(self) -> Group:
        """The root of the same file, with a budget of its own."""
        return root_of(self._file.content, self.where)

    def _attribute(self, name: str) -> bytes | np.ndarray | None:
        with _named(self.name):
            return self._file.reader.attribute(self._own, name)

    def attribute_text(self, name: str) -> str:
        """An attribute of the group itself, a string (UTF-8); "" where there is none of that name.

        Raises:
            InputError: not a string, not UTF-8, or damaged.
        """
        value = self._attribute(name)
        if value is None:
            return ""
        if not isinstance(value, bytes) or len(value) > MAX_NAME:
            raise self.refuse(name, f"is no text of at most {MAX_NAME} bytes")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(name, "is not UTF-8 text") from error

    def attribute_number(self, name: str) -> float:
        """An attribute of the group itself, one finite number.

        Raises:
            InputError: missing, or anything else.
        """
        value = self._attribute(name)
        if value is None:
            raise self.refuse(name, "is missing")
        if isinstance(value, bytes) or value.size != 1 or not np.isfinite(value).all():
            raise self.refuse(name, "is not one finite number")
        return float(value.reshape(-1)[0])

    def array(self, key: str, limit: int = MAX_ELEMENTS) -> np.ndarray:
        """Numbers, as stored: integer or float of at most 64 bits, any shape; do not write to it.

        Args:
            limit: elements it may have.

        Raises:
            InputError: missing, not numbers, too large, kept outside the file, or damaged.
        """
        dataset = self._dataset(key, limit)
        if dataset.row is not None:
            raise self.refuse(key, "holds rows of numbers, expected an array")
        if dataset.dtype is None or dataset.dtype.kind == "S":
            raise self.refuse(key, "is text, expected numbers")
        with _named(self.at(key)):
            return self._file.reader.read(dataset)

    def rows(self, key: str) -> Rows:
        """A list of rows of numbers that differ in length; a row is read when asked for.

        Raises:
            InputError: missing, not such a list, too large, kept outside the file, or damaged.
        """
        dataset = self._dataset(key, MAX_ELEMENTS)
        with _named(self.at(key)):
            references = self._file.reader.references(dataset)
        assert dataset.row is not None
        return Rows(self._file.reader, references, dataset.row, self.at(key))

    def text(self, key: str, limit: int = 64) -> str:
        """One string (UTF-8), a scalar or the only element of an array.

        Raises:
            InputError: missing, not one string, longer than ``limit`` bytes, not UTF-8, or damaged.
        """
        dataset = self._dataset(key, MAX_FEW)
        if dataset.dtype is not None and dataset.dtype.itemsize > limit:
            raise self.refuse(key, f"has room for {dataset.dtype.itemsize} bytes, more than {limit}")
        with _named(self.at(key)):
            value = self._file.reader.text(dataset)
        if len(value) > limit:
            raise self.refuse(key, f"has {len(value)} bytes, more than {limit}")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(key, "is not UTF-8 text") from error

    def texts(self, key: str, shape: tuple[int | None, ...], limit: int = 1 << 20) -> list[str]:
        """An array of strings (UTF-8), in order.

        Args:
            shape: what the array has to have; None: any length.
            limit: bytes of all different ones together.

        Raises:
            InputError: missing, not strings, of another shape, too long, not UTF-8, or damaged.
        """
        dataset = self._dataset(key, MAX_TEXTS)
        if len(dataset.shape) != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, dataset.shape, strict=True)
        ):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise self.refuse(key, f"has shape {dataset.shape}, expected ({wanted})")
        with _named(self.at(key)):
            values = self._file.reader.texts(dataset, limit)
        try:
            return [value.decode("utf-8") for value in values]
        except UnicodeDecodeError as error:
            raise self.refuse(key, "is not UTF-8 text") from error


class Rows:
    """Rows of numbers in an untrusted file, read one at a time."""

    def __init__(self, reader: Reader, references: np.ndarray, dtype: np.dtype, where: str) -> None:
        self._reader, self._references, self._dtype, self._where = reader, references, dtype, where

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, index: int) -> np.ndarray:
        with _named(f"{self._where}: row {index}"):
            return self._reader.row(self._references[index], self._dtype)


def open_untrusted(path: str | os.PathLike) -> Group:
    """The root group of an HDF5 file.

    Raises:
        InputError: missing, not a plain file, not HDF5, damaged, or larger than 2 GiB.
    """
    name = os.fspath(path)
    content = read_file(path, MAX_BYTES, "give the path of a net.h5")
    for start, kind, remedy in _OTHERS:
        if content.startswith(start):
            raise InputError(name, f"is {kind}, not HDF5", remedy)
    return root_of(content, name)


def root_of(content: bytes, name: str) -> Group:
    """The root group of a file in memory, called ``name`` in errors.

    Raises:
        InputError: not HDF5, or damaged.
    """
    with _named(name):
        opened = _File(content)
    return Group(opened, opened.reader.root, name)
