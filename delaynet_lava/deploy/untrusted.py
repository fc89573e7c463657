"""Files that come back from elsewhere: plain ones, of the size and hash stated, JSON and arrays.

Every function raises InputError with the name of the file at fault, and takes no more memory than what
was expected needs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats.npz import unpack

__all__ = [
    "MAX_BYTES",
    "Extent",
    "Fields",
    "Part",
    "checked_bytes",
    "read_arrays",
    "read_json",
]

MAX_JSON = 1 << 20
MAX_BYTES = 1 << 31
"""Of one file, and of one array once it is unpacked."""
_NPY_HEADER = 1 << 12
MAX_ENTRIES = 1 << 14
_DAMAGED = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, zlib.error,
    struct.error,
)  # fmt: skip

Extent = tuple[tuple[int, ...], type]
"""Shape and type of an array."""


@dataclass(frozen=True)
class Part:
    """Hash and size of a file."""

    sha256: str
    size: int

    @staticmethod
    def of(content: bytes) -> Part:
        """Of this content."""
        return Part(hashlib.sha256(content).hexdigest(), len(content))


def plain_bytes(path: Path, limit: int) -> bytes:
    """A file's content; links are not followed.

    Raises:
        InputError: missing, not a plain file, or larger than ``limit``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(str(path), "is not a plain file")
            if status.st_size > limit:
                raise InputError(str(path), f"has {status.st_size} bytes, more than {limit}")
            return file.read(status.st_size)
    except FileNotFoundError:
        raise InputError(str(path), "does not exist") from None
    except OSError as error:
        reason = "is a link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise InputError(str(path), reason) from error


def read_json(path: Path, limit: int = MAX_JSON) -> tuple[dict[str, Any], bytes]:
    """A JSON object, and the bytes it was read from.

    Raises:
        InputError: see :func:`plain_bytes`; or not a JSON object.
    """

    def refuse(text: str) -> float:
        raise ValueError(f"{text} is not a number of JSON")

    content = plain_bytes(path, limit)
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"is not JSON ({error})", "fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(str(path), f"holds a JSON {type(value).__name__}, expected an object")
    return value, content


class Fields:
    """Values of a JSON object, each checked for its type and range.

    Args:
        where: how error messages name the object.
        known: all the keys it must have.
    """

    def __init__(self, values: Any, where: str, known: Collection[str]) -> None:
        if not isinstance(values, dict):
            raise InputError(where, f"is a JSON {type(values).__name__}, expected an object")
        missing, unknown = set(known) - set(values), set(values) - set(known)
        if missing or unknown:
            odd = sorted(missing or unknown)[0]
            raise InputError(where, f"{'lacks' if missing else 'has the unknown'} key {odd[:40]!a}")
        self.values, self.where = values, where

    def refuse(self, key: str, expected: str) -> InputError:
        """An error about a value, to be raised."""
        return InputError(f"{self.where}: {key}", f"is {self.values[key]!r:.100}, expected {expected}")

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number in a closed range."""
        value = self.values[key]
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str) -> float:
        """A number that is not negative."""
        value = self.values[key]
        if type(value) not in (int, float) or not 0 <= value < 1e18:
            raise self.refuse(key, "a number")
        return float(value)

    def text(self, key: str, pattern: str = ".{0,1000}") -> str:
        """A printable string that matches all of a pattern; by default one line."""
        value = self.values[key]
        if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
            raise self.refuse(key, f"text like {pattern}")
        return value

    def strings(self, key: str) -> dict[str, str]:
        """An object of short strings."""
        value = self.values[key]
        if not isinstance(value, dict) or not all(
            isinstance(v, str) and (k + v).isprintable() and len(k + v) < 200 for k, v in value.items()
        ):
            raise self.refuse(key, "names and versions")
        return value


def checked_bytes(path: Path, part: Part) -> bytes:
    """A file of the size and hash that were stated.

    Raises:
        InputError: see :func:`plain_bytes`; or truncated, or altered.
    """
    content = plain_bytes(path, MAX_BYTES)
    found = Part.of(content)
    if found.size != part.size:
        raise InputError(
            str(path),
            f"has {found.size} bytes, {part.size} were written",
            "it is not whole, fetch it again",
        )
    if found != part:
        raise InputError(str(path), "was altered: its hash is another one", "fetch it again")
    return content


def read_arrays(content: bytes, where: str, expected: Mapping[str, Extent]) -> dict[str, np.ndarray]:
    """Arrays of a .npz file that must have exactly the names, shapes and types stated.

    Raises:
        InputError: something else is in it; nothing larger than expected was unpacked.
    """
    if content.count(b"PK\1\2") > MAX_ENTRIES:  # zipfile makes an object of each before it says how many
        raise InputError(where, f"has more than {MAX_ENTRIES} entries", "fetch it again")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist())
            if names != sorted(f"{name}.npy" for name in expected):
                raise InputError(where, f"holds {names[:6]!r:.200}, expected {sorted(expected)}")
            return {
                name: _array(archive, name, f"{where}: {name}", shape, np.dtype(kind))
                for name, (shape, kind) in expected.items()
            }
    except _DAMAGED as error:
        raise InputError(where, f"is not a whole .npz file ({error})", "fetch it again") from error


def _array(
    archive: zipfile.ZipFile, name: str, where: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > MAX_BYTES:
        raise InputError(where, f"would have {size} bytes, more than {MAX_BYTES}", "use more shards")
    with archive.open(f"{name}.npy") as member:
        stream = io.BytesIO(member.read(_NPY_HEADER))
        if np.lib.format.read_magic(stream) != (1, 0):
            raise InputError(where, "is in another version of NumPy's format")
        try:
            found, by_columns, kind = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # a header is a Python literal: its parser raises much
            raise InputError(
                where, f"has a damaged header ({type(error).__name__})", "fetch it again"
            ) from error
        if found != shape or by_columns or kind != dtype:
            raise InputError(where, f"is {kind} {found}, expected {dtype} {shape}")
        length = archive.getinfo(f"{name}.npy").file_size - stream.tell()
        if length != size:
            raise InputError(where, f"has {length} bytes, expected {size}", "fetch it again")
        member.seek(0)
        content = unpack(member, stream.tell() + size, where)
    array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    array.flags.writeable = False
    return array
