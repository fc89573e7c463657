"""IDX, the format of MNIST and its relatives: a magic number, the extents, then bytes; plain or gzipped.

``00 00 08 n``, then n extents as big-endian 32-bit numbers, then unsigned bytes, the last extent fastest.
Nothing else is accepted: no other type, no byte too few or too many.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.files import read_file

__all__ = ["MAX_BYTES", "read_idx"]

MAX_BYTES = 256 << 20
"""Of a file, packed or not. MNIST's largest has 47 MB."""

_BYTES = 8
_GZIP = b"\x1f\x8b"


def read_idx(path: str | os.PathLike, dimensions: int) -> np.ndarray:
    """uint8 array of so many dimensions, read-only.

    Raises:
        InputError: missing, damaged, of another type or number of dimensions, or too large.
    """
    where = os.fspath(path)
    image = read_file(path, MAX_BYTES)
    if image[:2] == _GZIP:
        image = _unpacked(where, image)
    header = 4 + 4 * dimensions
    if len(image) < header:
        raise InputError(where, f"has {len(image)} bytes, its header alone {header}", "download it again")
    if image[:4] != bytes((0, 0, _BYTES, dimensions)):
        raise InputError(
            where,
            f"begins with {image[:4].hex()}, expected {bytes((0, 0, _BYTES, dimensions)).hex()}",
            f"give an IDX file of bytes with {dimensions} extents",
        )
    shape = struct.unpack(f">{dimensions}I", image[4:header])
    count = 1
    for extent in shape:
        count *= extent
    if len(image) != header + count:
        raise InputError(
            where, f"has {len(image) - header} values, its extents {shape} say {count}", "download it again"
        )
    return np.frombuffer(image, np.uint8, offset=header).reshape(shape)


def _unpacked(where: str, image: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(image)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(where, f"is a damaged gzip file ({error})", "download it again") from error
    if len(content) > MAX_BYTES:
        raise InputError(where, f"unpacks to more than {MAX_BYTES} bytes", "give MNIST's own files")
    return content
