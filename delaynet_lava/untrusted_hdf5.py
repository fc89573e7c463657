"""Reading HDF5 that someone else made: bounded, inside the file, nothing of it is run.

HDF5 can point outside itself (external links, external raw data, virtual datasets), can name
filters that the library loads as plugins, and can claim terabytes in a few bytes. None of that is
followed. The file is read into memory once, so what is checked is what is read. This module knows
no key; :mod:`delaynet_lava.netx_read` does.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import struct
from collections.abc import Iterator

import h5py
import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["MAX_BYTES", "MAX_ELEMENTS", "Group", "open_untrusted"]

MAX_ELEMENTS = 1 << 28
"""Elements of one dataset: a matrix of 16384 x 16384."""
MAX_BYTES = 1 << 31
"""Bytes of a file, and of everything that is read from it once unpacked."""
MAX_KEYS = 1 << 13
"""Entries of one group."""
MAX_PACKED = 1 << 21
"""Bytes of one packed chunk; deflate unpacks them to at most 1032 times as many."""
MAX_CHUNKS = 1 << 12
"""Packed chunks of one dataset."""

_INSIDE = "store the data in the file itself"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}
# What h5py raises for damaged files depends on the byte that is wrong.
_H5PY_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    struct.error,
    ArithmeticError,
    MemoryError,
    SystemError,
)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except _H5PY_ERRORS as error:
        lines = str(error).splitlines() or [""]
        detail = f"{type(error).__name__}: {lines[0][:120]}"
        raise InputError(where, f"cannot be read ({detail})", "the file is damaged") from error


class _File:
    """The bytes of the file, and how many more may be unpacked from it."""

    def __init__(self, content: bytes, base: int) -> None:
        self._content, self._base, self.budget = content, base, MAX_BYTES

    def heap_string(self, offset: int) -> bytes:
        """A string of variable length, whose place in the global heap stands at ``offset``.

        The library's own reader of the heap can loop forever on a damaged one. A heap is "GCOL", a
        version, its size, and objects of a 16-byte header (number, references, size) and content
        padded to 8 bytes; number 0 ends it.

        Raises:
            ValueError: not there.
        """
        length, address, number = struct.unpack_from("<IQI", self._content, offset)
        heap = self._base + address
        if self._content[heap : heap + 5] != b"GCOL\x01":
            raise ValueError("no global heap")
        end = min(heap + struct.unpack_from("<Q", self._content, heap + 8)[0], len(self._content))
        at = heap + 16
        for _ in range(1 << 16):
            if at + 16 > end:
                break
            found, size = struct.unpack_from("<H6xQ", self._content, at)
            if found == 0:
                break
            if found == number and length <= size <= end - at - 16:
                return self._content[at + 16 : at + 16 + length].split(b"\0")[0]
            at += 16 + (size + 7) // 8 * 8
        raise ValueError(f"object {number} is not in the global heap")


class Group:
    """A group of an untrusted file.

    Attributes:
        where: how error messages name it, from the file inwards.
        keys: names of its entries.
    """

    def __init__(self, group: h5py.Group, where: str, prefix: str, file: _File) -> None:
        self._group, self.where, self._prefix, self._file = group, where, prefix, file
        with _readable(self.name):
            count = len(group)
            if count > MAX_KEYS:
                raise InputError(self.name, f"has {count} entries, more than {MAX_KEYS}")
            # A name that is not UTF-8 comes as bytes; it is kept so that it can be reported.
            self.keys = frozenset(str(name) for name in group)

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

    def _open(self, key: str) -> h5py.Group | h5py.Dataset | h5py.Datatype:
        if key not in self.keys:
            raise self.refuse(key, "is missing")
        with _readable(self.at(key)):
            # Asking h5py's Group about a link already opens the file it leads to.
            link = self._group.id.links.get_info(key.encode()).type
            if link != h5py.h5l.TYPE_HARD:
                kind = "an external link" if link == h5py.h5l.TYPE_EXTERNAL else "a soft link"
                raise self.refuse(key, f"is {kind}, which is not followed", _INSIDE)
            return self._group[key]

    def is_group(self, key: str) -> bool:
        """True where an entry is a group.

        Raises:
            InputError: it is missing, a link out of the group, or unreadable.
        """
        return isinstance(self._open(key), h5py.Group)

    def group(self, key: str, where: str | None = None) -> Group:
        """A group inside this one.

        Args:
            key: its name.
            where: how error messages name it; None: as part of this group.

        Raises:
            InputError: it is missing, not a group, a link, or unreadable.
        """
        item = self._open(key)
        if not isinstance(item, h5py.Group):
            raise self.refuse(key, "is not a group")
        if where is None:
            return Group(item, self.where, f"{self._prefix}{key}/", self._file)
        return Group(item, where, "", self._file)

    def _dataset(self, key: str) -> h5py.Dataset:
        item = self._open(key)
        if not isinstance(item, h5py.Dataset):
            raise self.refuse(key, "is not a dataset")
        with _readable(self.at(key)):
            storage = item.id.get_create_plist()
            # Asking a virtual dataset for its shape already opens the files it is made of.
            if storage.get_layout() == h5py.h5d.VIRTUAL or storage.get_external_count() > 0:
                raise self.refuse(key, "keeps its data in another file, which is not opened", _INSIDE)
            self._check_packing(key, item.id, storage)
            shape, itemsize = item.shape, item.dtype.itemsize
            if shape is None:
                raise self.refuse(key, "is empty")
            for extent in (shape, item.chunks or ()):
                if math.prod(extent) > MAX_ELEMENTS:
                    raise self.refuse(key, f"has shape {tuple(extent)}, more than {MAX_ELEMENTS} elements")
            self._file.budget -= math.prod(shape) * itemsize
            if self._file.budget < 0:
                raise self.refuse(key, f"takes the file beyond {MAX_BYTES} bytes of content")
        return item

    def _check_packing(self, key: str, item: h5py.h5d.DatasetID, storage: h5py.h5p.PropDCID) -> None:
        filters = {storage.get_filter(k)[0] for k in range(storage.get_nfilters())}
        if not filters:
            return
        if filters - _FILTERS:
            raise self.refuse(key, f"is packed with filter {min(filters - _FILTERS)}", "use gzip or none")
        chunks = item.get_num_chunks()
        if chunks > MAX_CHUNKS:
            raise self.refuse(
                key, f"is packed in {chunks} chunks, more than {MAX_CHUNKS}", "use fewer or none"
            )
        size = max((item.get_chunk_info(k).size for k in range(chunks)), default=0)
        if size > MAX_PACKED:
            raise self.refuse(
                key, f"has a packed chunk of {size} bytes, more than {MAX_PACKED}", "use smaller ones"
            )

    def array(self, key: str) -> np.ndarray:
        """Numbers, as stored: integer, float or bool of at most 64 bits, any shape.

        Raises:
            InputError: missing, not numbers, too large, kept outside the file, or unreadable.
        """
        dataset = self._dataset(key)
        with _readable(self.at(key)):
            if dataset.dtype.kind not in "iufb" or dataset.dtype.itemsize > 8:
                raise self.refuse(key, f"has type {dataset.dtype}, expected numbers")
            return np.asarray(dataset[()])

    def text(self, key: str, limit: int = 64) -> str:
        """One string (UTF-8), a scalar or the only element of an array.

        Raises:
            InputError: missing, not one string, longer than ``limit`` bytes, not UTF-8, or
                unreadable.
        """
        dataset = self._dataset(key)
        with _readable(self.at(key)):
            form = h5py.check_string_dtype(dataset.dtype)
            if form is None:
                raise self.refuse(key, f"has type {dataset.dtype}, expected a string")
            if math.prod(dataset.shape) != 1:
                raise self.refuse(key, f"has shape {dataset.shape}, expected one string")
            if form.length is not None:
                value = bytes(np.asarray(dataset[()]).reshape(-1)[0])
            elif (offset := dataset.id.get_offset()) is not None:
                value = self._file.heap_string(offset)
            else:
                raise self.refuse(key, "is a string of variable length in chunks", "store it contiguously")
            if len(value) > limit:
                raise self.refuse(key, f"has {len(value)} bytes, more than {limit}")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(key, "is not UTF-8 text") from error


def _content(path: str) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise InputError(path, "is a directory" if stat.S_ISDIR(mode) else "is not a plain file")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(path, "does not exist", "check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(content) > MAX_BYTES:
        raise InputError(path, f"has more than {MAX_BYTES} bytes")
    if not content:
        raise InputError(path, "is empty")
    return content


@contextlib.contextmanager
def open_untrusted(path: str | os.PathLike) -> Iterator[Group]:
    """The root group of an HDF5 file.

    Raises:
        InputError: missing, not a plain file, not HDF5, damaged, or larger than 2 GiB.
    """
    name = os.fspath(path)
    content = _content(name)
    try:
        handle = h5py.h5f.open_file_image(content)
    except _H5PY_ERRORS as error:
        problem = "is not an HDF5 file"
        if content.startswith(_SIGNATURE):
            problem = "is a damaged or truncated HDF5 file"
        raise InputError(name, problem, "give a net.h5 as NetX reads it") from error
    with _readable(name):
        file = h5py.File(handle)
    try:
        with _readable(name):
            inside = _File(content, file.userblock_size)
            sizes = file.id.get_create_plist().get_sizes()
        if sizes != (8, 8):
            raise InputError(name, f"has addresses of {sizes} bytes, expected (8, 8)")
        yield Group(file, name, "", inside)
    finally:
        with contextlib.suppress(*_H5PY_ERRORS):
            file.close()
