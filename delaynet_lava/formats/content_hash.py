"""A hash of what a file holds, whichever library wrote it and however it is stored.

SHA-256 over this encoding, which depends on values alone (numbers little-endian, sizes 8 bytes without
sign), of everything in the file but the hash itself:

    content     "delaynet_lava content 1" and a line feed, then a value
    nothing     N          true, false     T, F
    integer     I size digits              of its decimal notation
    float       D 8 bytes                  IEEE 754
    text        S size bytes               UTF-8
    list, tuple L count values
    table       M count (key value)...     entries in the order of their encoded keys
    numbers     A kind rank sizes values   of 8 bytes each; kind i: integers and booleans; u: integers of a
                                           type of 8 bytes without sign; f: floats

In a ``net.h5`` a group is a table, a string or an array of one string is a text, other data are numbers.
In a torch file a tensor is numbers. Integers and floats keep their value in 8 bytes, so neither the width of
a type nor compression, chunks, or the order of entries changes the hash. It tells of damage and of edits; it
is no signature, for whoever edits a file can write the hash anew.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["KEY", "Altered", "Digest", "NoHashWarning", "Seal", "hash_of"]

KEY = "sha256"
"""The entry that holds the hash: of the group ``delaynet`` of a ``net.h5``, of the dict of a torch file."""
_PIECE = 1 << 17
_DEEPEST = 64


class Altered(InputError):
    """A file whose content is not what its hash was made of."""


class NoHashWarning(UserWarning):
    """A file of this package from before files had a hash: damage to it would not be seen."""


@dataclass(frozen=True)
class Seal:
    """What a file says of its content's hash (None: nothing), and what it is."""

    stated: str | None
    found: str

    @property
    def holds(self) -> bool:
        """Whether the file has a hash, and it is that of the content."""
        return self.stated == self.found

    def require(self, where: str) -> str:
        """A note where there is no hash to hold.

        Raises:
            Altered: the content is another one.
        """
        if self.stated is None:
            return f"{where}: has no content hash, so damage to it would not be seen; write it again for one"
        if not self.holds:
            raise Altered(
                where,
                f"was damaged or edited: its content has hash {self.found[:12]}..., it was written with "
                f"{self.stated[:12]!a}...",
                "fetch it again, or write it with this package",
            )
        return ""


def _size(count: int) -> bytes:
    return struct.pack("<Q", count)


def _key(key: Any) -> bytes:
    if isinstance(key, str):
        content = key.encode("utf-8", "surrogatepass")
        return b"S" + _size(len(content)) + content
    if key is None or isinstance(key, bool):
        return {None: b"N", True: b"T", False: b"F"}[key]
    if isinstance(key, int):
        return b"I" + _size(len(str(key))) + str(key).encode()
    if isinstance(key, float):
        return b"D" + struct.pack("<d", key)
    raise TypeError(f"a {type(key).__name__} has no place in a file")


class Digest:
    """Takes in values, one after the other, in the encoding above."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(b"delaynet_lava content 1\n")

    def hexdigest(self) -> str:
        """The hash, 64 hexadecimal digits."""
        return self._sha.hexdigest()

    def table(self, keys: Iterable[Any], put: Callable[[Any], None]) -> None:
        """A table; ``put(key)`` takes in the value of a key."""
        encoded = sorted((_key(key), k, key) for k, key in enumerate(keys))
        self._sha.update(b"M" + _size(len(encoded)))
        for content, _, key in encoded:
            self._sha.update(content)
            put(key)

    def numbers(self, array: np.ndarray) -> None:
        """Booleans, integers or floats."""
        kind = {"b": "i", "i": "i", "u": "i" if array.itemsize < 8 else "u", "f": "f"}[array.dtype.kind]
        self._sha.update(b"A" + kind.encode() + b"".join(map(_size, (array.ndim, *array.shape))))
        flat = array.reshape(-1)
        for first in range(0, flat.size, _PIECE):
            self._sha.update(flat[first : first + _PIECE].astype(f"<{kind}8").tobytes())

    def value(self, value: Any, depth: int = 0) -> None:
        """A plain value, an array, or tables and lists of them.

        Raises:
            TypeError: of another kind, or of more than 64 levels.
        """
        if depth > _DEEPEST:
            raise TypeError(f"more than {_DEEPEST} levels have no place in a file")
        if isinstance(value, np.ndarray):
            self.numbers(value)
        elif isinstance(value, Mapping):
            self.table(value, lambda key: self.value(value[key], depth + 1))
        elif isinstance(value, list | tuple):
            self._sha.update(b"L" + _size(len(value)))
            for one in value:
                self.value(one, depth + 1)
        else:
            self._sha.update(_key(value))


def hash_of(value: Any) -> str:
    """The hash of a value; see :meth:`Digest.value`."""
    digest = Digest()
    digest.value(value)
    return digest.hexdigest()
