"""Arrays of a ``.npz`` that somebody else made: numbers only, no pickle, sizes checked before reading.

Arrays that were saved with ``numpy.savez`` are mapped, not read, so a file may be larger than memory.
Those of ``numpy.savez_compressed`` are unpacked when first asked for, all together within
:data:`MAX_BYTES`.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Literal

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["MAX_BYTES", "Npz", "unpack"]

MAX_BYTES = 1 << 28
"""Of everything in a file that has to be unpacked: sorting the events of so many takes four times as much."""
_PIECE = 1 << 20
MAX_ENTRIES, MAX_DIRECTORY = 1 << 10, 1 << 20
_HEADER = 1 << 14
_REMEDY = "write it with numpy.savez"


class Npz:
    """An open ``.npz``.

    Attributes:
        where: its name, for errors.
        keys: names of its arrays.

    Raises:
        InputError: missing, not a plain file, not a zip archive, or one with an unusual directory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.where = os.fspath(path)
        with self._named(self.where):
            status = os.stat(self.where)  # before opening: a pipe would wait for a writer
            if not stat.S_ISREG(status.st_mode):
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a plain file"
                raise InputError(self.where, f"is {kind}", "give the path of a .npz")
            if status.st_size == 0:
                raise InputError(self.where, "is empty", _REMEDY)
            self._size = status.st_size
            with open(self.where, "rb") as file:
                self._check_directory(file)
            with zipfile.ZipFile(self.where) as archive:
                members = archive.infolist()
        self._members = {one.filename[:-4]: one for one in members if one.filename.endswith(".npy")}
        if len(self._members) < sum(one.filename.endswith(".npy") for one in members):
            raise InputError(self.where, "holds two arrays of the same name", _REMEDY)
        self.keys = frozenset(self._members)
        self._budget = MAX_BYTES
        self._read: dict[str, np.ndarray] = {}

    @contextlib.contextmanager
    def _named(self, where: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise InputError(self.where, "does not exist", "check the path") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise InputError(where, f"is not a whole .npz file ({error})", _REMEDY) from error
        except (OSError, ValueError, struct.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(where, f"cannot be read ({reason})", _REMEDY) from error

    def _check_directory(self, file: io.BufferedReader) -> None:
        """Bound the directory before zipfile reads it: its end, and what a zip64 record says in its place."""
        if self._size < 22:
            raise InputError(self.where, "is not a .npz file", _REMEDY)
        file.seek(max(0, self._size - 42))
        tail = file.read()
        if tail[-22:-18] != b"PK\5\6":
            raise InputError(self.where, "is not a .npz file, or is cut off", _REMEDY)
        entries, length = struct.unpack("<HI", tail[-12:-6])
        found = [(entries, length)]
        if tail.startswith(b"PK\6\7"):
            file.seek(struct.unpack("<Q", tail[8:16])[0])
            record = file.read(56)
            found.append(struct.unpack("<QQ", record[32:48]))
        if any(count > MAX_ENTRIES or size > MAX_DIRECTORY for count, size in found):
            raise InputError(self.where, f"says it has {max(found)[0]} entries, more than {MAX_ENTRIES}")

    def array(self, key: str) -> np.ndarray:
        """Booleans, integers or floats of at most 64 bits, any shape; read-only.

        Raises:
            InputError: missing, not numbers, too large to unpack, or damaged.
        """
        where = f"{self.where}: {key}"
        if key not in self._members:
            raise InputError(where, "is missing", f"it has: {', '.join(sorted(self.keys)[:12]) or 'nothing'}")
        if key not in self._read:
            member = self._members[key]
            if member.flag_bits & 1:
                raise InputError(where, "is encrypted", _REMEDY)
            with self._named(where):
                if member.compress_type == zipfile.ZIP_STORED:
                    self._read[key] = self._mapped(member, where)
                elif member.compress_type == zipfile.ZIP_DEFLATED:
                    self._read[key] = self._unpacked(member, where)
                else:
                    raise InputError(where, f"is packed by method {member.compress_type}", _REMEDY)
        return self._read[key]

    def _mapped(self, member: zipfile.ZipInfo, where: str) -> np.ndarray:
        with open(self.where, "rb") as file:
            file.seek(member.header_offset)
            local = file.read(30)
            if local[:4] != b"PK\3\4":
                raise InputError(where, "is not where the file says it is", _REMEDY)
            start = member.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
            file.seek(start)
            head = file.read(min(_HEADER, member.file_size))
        if start + member.file_size > self._size or member.file_size != member.compress_size:
            raise InputError(where, "is cut off", _REMEDY)
        shape, order, dtype, at = _header(head, where)
        _require_size(shape, dtype, member.file_size - at, where)
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.where, dtype, "r", start + at, shape, order)

    def _unpacked(self, member: zipfile.ZipInfo, where: str) -> np.ndarray:
        self._budget -= member.file_size
        if self._budget < 0:
            raise InputError(
                where, f"takes the file beyond {MAX_BYTES} bytes unpacked", "write it with numpy.savez"
            )
        with zipfile.ZipFile(self.where) as archive, archive.open(member) as file:
            shape, order, dtype, at = _header(file.read(min(_HEADER, member.file_size)), where)
            _require_size(shape, dtype, member.file_size - at, where)
            file.seek(0)
            content = unpack(file, member.file_size, where)
        array: np.ndarray = np.ndarray(shape, dtype, content, at, order=order)
        array.flags.writeable = False
        return array


def unpack(file: IO[bytes], size: int, where: str) -> bytearray:
    """So many bytes, in as much memory; for ``read`` of a zip archive it takes the square of the time.

    Raises:
        InputError: there are fewer.
    """
    content = bytearray(size)  # pages that nothing is written to take none
    view, at = memoryview(content), 0
    while at < size:
        part = file.read(min(_PIECE, size - at))
        if not part:
            raise InputError(where, f"has {at} of {size} bytes", _REMEDY)
        view[at : at + len(part)] = part
        at += len(part)
    return content


def _header(head: bytes, where: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype, int]:
    """Shape, order, type and where the numbers begin."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise InputError(where, f"is in version {version} of NumPy's format", "save plain numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(stream)
    except Exception as error:  # a header is a Python literal: its parser raises much
        raise InputError(where, f"has a damaged header ({type(error).__name__})", _REMEDY) from error
    if dtype.kind == "O":
        raise InputError(
            where, "holds Python objects, which are never opened", "save numbers, see docs/tasks.md"
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.shape:
        raise InputError(where, f"has type {dtype}, expected numbers of at most 64 bits")
    if any(n < 0 for n in shape) or len(shape) > 8:
        raise InputError(where, f"has shape {shape}")
    return shape, "F" if by_columns else "C", dtype, stream.tell()


def _require_size(shape: tuple[int, ...], dtype: np.dtype, size: int, where: str) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if needed != size:
        raise InputError(where, f"has {size} bytes, its shape {shape} of {dtype} needs {needed}", _REMEDY)
