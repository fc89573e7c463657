"""HDF5 made to mislead, and files damaged at random: a network or an InputError, soon, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from netx_tools import Edit, a_network, arrays, put, read_quietly, refused

from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx, untrusted_hdf5
from delaynet_lava.network import Network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file, to be spoilt."""
    netx.write(a_network(), tmp_path / "net.h5")
    assert arrays(read_quietly(tmp_path / "net.h5")) == arrays(a_network())
    return tmp_path / "net.h5"


def dataset(key: str, *args: Any, **options: Any) -> Edit:
    """Replace a dataset by one with unusual storage."""

    def edit(file: h5py.File) -> None:
        del file[key]
        file.create_dataset(key, *args, **options)

    return edit


@pytest.mark.parametrize("key", ["layer", "layer/3", "layer/3/weight", "layer/3/neuron", "delaynet/task"])
def test_links_are_not_followed(path: Path, key: str) -> None:
    content = path.read_bytes()
    (path.parent / "other.h5").write_bytes(content)
    place = key.replace("layer/3/", "layer 3 (dense): ")
    # With an external link, HDF5 keeps a group in its newer form: compact for up to 8 entries.
    few = (put("layer/3/inFeatures", None), put("layer/3/outFeatures", None))
    for link in (h5py.SoftLink("/elsewhere"), h5py.ExternalLink("other.h5", key)):

        def edit(file: h5py.File, link: Any = link) -> None:
            file.move(key, "elsewhere")
            file[key] = link

        path.write_bytes(content)
        message = refused(path, *few, edit)
        assert message == (
            f"{place}: is a soft or external link, which is not followed; store the data in the file itself"
        )


def test_data_in_other_files_is_not_opened(path: Path) -> None:
    shape, secret = (5, 6), path.parent / "secret.bin"
    secret.write_bytes(np.full(shape, 2, np.int64).tobytes())
    outside = dataset("layer/2/weight", shape, np.int64, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    expected = "layer 2 (dense_rec): weight: keeps its data in another "
    content = path.read_bytes()
    assert refused(path, outside).startswith(expected)
    with h5py.File(path) as file:
        assert (file["layer/2/weight"][()] == 2).all()
    path.write_bytes(content)

    def virtual(file: h5py.File) -> None:
        del file["layer/2/weight"]
        layout = h5py.VirtualLayout(shape, np.int16, maxshape=(None, 6))
        layout[:] = h5py.VirtualSource("other.h5", "layer/2/weight", shape)
        file.create_virtual_dataset("layer/2/weight", layout)

    assert refused(path, virtual).startswith(expected)


SQUARE = (1 << 14, 1 << 14)


@pytest.mark.parametrize(
    "edit, message",
    [
        (dataset("layer/2/weight", (1 << 15, 1 << 15), "i2", chunks=True), "has shape (32768, 32768), more"),
        (dataset("layer/2/weight", (1 << 62,), "i2", chunks=(8,)), "is stored in 576460752303423488"),
        (dataset("layer/2/weight", SQUARE, "f8", chunks=(1 << 14, 2)), "takes the file beyond"),
        (dataset("layer/2/weight", (1 << 14, 1 << 14), "i2", chunks=True), "has 4096 chunks that were never"),
        (dataset("layer/2/weight", (5, 6), "i2"), "was never written"),
        (dataset("layer/2/weight", (5, 6), "i2", chunks=(1 << 15, 1 << 15), maxshape=(None, None)),
         "takes the file beyond"),
        (dataset("layer/2/weight", (5, 6), "f8", scaleoffset=2), "is packed with filter 6; use gzip or"),
        (dataset("layer/2/weight", data=h5py.Empty("i2")), "is empty"),
        (dataset("layer/2/weight", (5, 6), np.longdouble), "has an unusual type"),
        (dataset("layer/2/weight", (5, 6), np.complex64), "has a compound type, expected"),
        (dataset("layer/2/weight", (5, 6), [("a", "i2")]), "has a compound type, expected"),
        (dataset("layer/2/weight", (5,), np.dtype("(6,)i2")), "has an array type, expected"),
        (dataset("layer/2/weight", (5,), h5py.vlen_dtype(np.int16)), "has an unusual type"),
        (dataset("layer/2/weight", (5, 6), h5py.ref_dtype), "has a reference type, expected"),
        (dataset("layer/2/weight", (5, 6), "S5"), "is text, expected numbers"),
        (dataset("layer/2/weight", (5, 6), "V5"), "has an opaque type, expected"),
        (put("layer/2/weight", np.dtype("i2")), "is not a dataset"),
    ],
)  # fmt: skip
def test_storage_that_is_not_read(path: Path, edit: Edit, message: str) -> None:
    started = time.perf_counter()
    found = refused(path, edit, put("layer/2/shape", [1 << 14]))
    assert time.perf_counter() - started < 5
    assert found.startswith(f"layer 2 (dense_rec): weight: {message}")


@pytest.mark.parametrize("chunks", [(1, 6), (5, 6), (2, 4), (8, 8)])
@pytest.mark.parametrize("packing", [{}, {"shuffle": True}, {"compression": "gzip", "shuffle": True}])
def test_chunks(path: Path, chunks: tuple[int, int], packing: dict) -> None:
    weight = a_network().layers[1].synapse.weight
    with h5py.File(path, "a") as file:
        dataset("layer/2/weight", data=weight, chunks=chunks, maxshape=(None, None), **packing)(file)
    assert arrays(read_quietly(path)) == arrays(a_network())


def test_a_chunk_that_unpacks_to_more_than_it_may(path: Path) -> None:
    def bomb(file: h5py.File) -> None:
        dataset("layer/2/weight", (5, 6), "i2", chunks=(5, 6), compression="gzip")(file)
        packed = zlib.compress(bytes(50_000_000))
        file["layer/2/weight"].id.write_direct_chunk((0, 0), packed)

    tracemalloc.start()
    expected = "layer 2 (dense_rec): weight: is damaged: a chunk does not hold 60 bytes"
    assert refused(path, bomb) == expected
    assert tracemalloc.get_traced_memory()[1] < 60_000_000  # the test's own bytes, once
    tracemalloc.stop()


def test_the_whole_content_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_hdf5, "MAX_BYTES", 200_000)
    large = dataset("layer/2/bias", data=np.zeros(10_000), compression="gzip")
    expected = "layer 2 (dense_rec): bias: has shape (10000,), expected (5,)"
    assert refused(path, large) == expected
    monkeypatch.setattr(untrusted_hdf5, "MAX_BYTES", 80_000)
    assert refused(path) == "layer 2 (dense_rec): bias: takes the file beyond 80000 bytes of content"


def test_strings_of_every_kind(path: Path) -> None:
    content = path.read_bytes()
    for options in (
        {"data": "CUBA"},
        {"data": b"CUBA"},
        {"data": np.array([b"CUBA"])},
        {"data": np.array("CUBA", "S10")},
        {"data": ["CUBA"], "dtype": h5py.string_dtype("utf-8")},
        {"data": "CUBA", "dtype": h5py.string_dtype("utf-8", 20)},
        {"data": [b"CUBA"], "chunks": (1,), "dtype": "S4"},
    ):
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            dataset("layer/2/neuron/type", **options)(file)
        assert arrays(read_quietly(path)) == arrays(a_network())
    chunked = dataset("layer/2/neuron/type", data=["CUBA"], chunks=(1,), dtype=h5py.string_dtype())
    expected = "layer 2 (dense_rec): neuron/type: is a string of variable length in chunks; store it contig"
    assert refused(path, chunked).startswith(expected)


def test_a_file_with_a_user_block_reads_as_without(path: Path) -> None:
    with h5py.File(path) as file, h5py.File(path.parent / "b.h5", "w", userblock_size=512) as copy:
        for key in file:
            file.copy(key, copy)
    assert arrays(read_quietly(path.parent / "b.h5")) == arrays(a_network())


def test_damage_on_which_the_hdf5_library_does_not_return(path: Path) -> None:
    """A heap of strings it searches for ever, and a tree that holds itself until the stack is full."""
    content = path.read_bytes()
    heap, tree = content.index(b"GCOL"), content.index(b"TREE")
    outcomes = set()
    for offset, value in itertools.product(range(4, 48), (0, 255)):
        damaged = bytearray(content)
        damaged[heap + offset] = value
        path.write_bytes(damaged)
        outcomes.add(outcome(path))
    assert outcomes == {"read", "refused"}
    for level in (0, 1, 2):
        damaged = bytearray(content)
        damaged[tree + 5] = level
        damaged[tree + 32 : tree + 40] = tree.to_bytes(8, "little")
        path.write_bytes(damaged)
        assert refused(path).startswith("is damaged: ")


# Mutations.


def outcome(path: Path) -> str:
    """Read a mutated file; anything but a network or an InputError fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert isinstance(netx.read(path), Network)
        except InputError as error:
            assert str(error).startswith(str(path))
            return "refused"
    return "read"


@pytest.mark.parametrize("kind", ["bytes", "bits", "block", "header", "pointers"])
def test_mutated_bytes(path: Path, kind: str) -> None:
    content, outcomes = path.read_bytes(), []
    nodes = [m.start() for m in re.finditer(b"TREE|SNOD|HEAP|GCOL", content)]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        data = np.frombuffer(content, np.uint8).copy()
        if kind == "bytes":
            data[rng.integers(len(data), size=rng.integers(1, 4))] = rng.integers(256)
        elif kind == "bits":
            data[rng.integers(len(data), size=rng.integers(1, 40))] ^= np.uint8(1 << int(rng.integers(8)))
        elif kind == "block":
            start = rng.integers(len(data) - 64)
            data[start : start + rng.integers(1, 64)] = rng.integers(256)
        elif kind == "header":
            data[rng.integers(4096)] = rng.choice([0, 127, 128, 255])
        else:
            words = data[: len(data) // 8 * 8].view("<u8")
            pointers = np.flatnonzero((words > 40) & (words < len(data)))
            words[rng.choice(pointers)] = words[rng.choice(pointers)] if seed % 2 else rng.choice(nodes)
        path.write_bytes(data.tobytes())
        outcomes.append(outcome(path))
    assert set(outcomes) == {"read", "refused"}


STRANGE = [
    0, -1, 1, 1 << 40, 0.5, np.nan, np.inf, "", "dense", "input", "CUBA", b"\xff", True, [], [1, 2],
    np.zeros((2, 2)), np.full((5, 6), 2), np.full(5, 7), h5py.Empty("f4"), h5py.SoftLink("/layer"),
    h5py.SoftLink("/nowhere"), h5py.ExternalLink("net.h5", "/"), np.dtype("i4"), {},
]  # fmt: skip


def mutate(file: h5py.File, name: str, target: str, value: Any, action: int) -> None:
    """Remove an entry, move it elsewhere, or put something strange in its place."""
    if action == 1:
        file.move(name, target)
        return
    del file[name]
    if action > 1:
        if isinstance(value, dict):
            file.create_group(name)
        else:
            file[name] = value


def test_mutated_keys(path: Path) -> None:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
    content, outcomes = path.read_bytes(), []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            for _ in range(rng.integers(1, 4)):
                name, target, value = (x[rng.integers(len(x))] for x in (names, names, STRANGE))
                # What is no longer there, or can't go there, stays as it is.
                with contextlib.suppress(KeyError, ValueError, RuntimeError, OSError):
                    mutate(file, name, target, value, int(rng.integers(5)))
        outcomes.append(outcome(path))
    assert set(outcomes) == {"read", "refused"}
