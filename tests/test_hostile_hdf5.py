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
        (dataset("layer/2/weight", SQUARE, "f8", chunks=(1 << 14, 2)), "takes what is unpacked beyond"),
        (dataset("layer/2/weight", SQUARE, "i2", chunks=True), "takes what is unpacked beyond"),
        (dataset("layer/2/weight", (4096, 4096), "i2", chunks=(64, 64)), "has 4096 chunks that were never"),
        (dataset("layer/2/weight", (5, 6), "i2"), "was never written"),
        (dataset("layer/2/weight", (5, 6), "i2", chunks=(1 << 15, 1 << 15), maxshape=(None, None)),
         "takes what is unpacked beyond"),
        (dataset("layer/2/weight", (5, 6), "f8", scaleoffset=2), "is packed with filter 6; use gzip or"),
        (dataset("layer/2/weight", data=h5py.Empty("i2")), "is empty"),
        (dataset("layer/2/weight", (5, 6), np.longdouble), "has an unusual type"),
        (dataset("layer/2/weight", (5, 6), np.complex64), "has a compound type, expected"),
        (dataset("layer/2/weight", (5, 6), [("a", "i2")]), "has a compound type, expected"),
        (dataset("layer/2/weight", (5,), np.dtype("(6,)i2")), "has an array type, expected"),
        (dataset("layer/2/weight", (5,), h5py.vlen_dtype(np.int16)), "holds rows of numbers, expected"),
        (dataset("layer/2/weight", (5, 6), h5py.ref_dtype), "has a reference type, expected"),
        (dataset("layer/2/weight", (5, 6), "S5"), "is text, expected numbers"),
        (dataset("layer/2/weight", (5, 6), "V5"), "has an opaque type, expected"),
        (put("layer/2/weight", np.dtype("i2")), "is not a dataset"),
    ],
)  # fmt: skip
def test_storage_that_is_not_read(path: Path, edit: Edit, message: str) -> None:
    started = time.process_time()
    found = refused(path, edit, put("layer/2/shape", [1 << 14]))
    assert time.process_time() - started < 10
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
        packed = zlib.compress(zlib.compress(bytes(50_000_000), 9))
        assert len(packed) < 1000
        file["layer/2/weight"].id.write_direct_chunk((0, 0), packed)

    tracemalloc.start()
    expected = "layer 2 (dense_rec): weight: is damaged: a chunk does not hold 60 bytes"
    assert refused(path, bomb) == expected
    assert tracemalloc.get_traced_memory()[1] < 60_000_000  # the test's own bytes, once
    tracemalloc.stop()


def test_a_chunk_that_takes_more_than_it_holds(path: Path) -> None:
    def bomb(file: h5py.File) -> None:
        dataset("layer/2/weight", (5, 6), "i2", chunks=(5, 6), compression="gzip")(file)
        file["layer/2/weight"].id.write_direct_chunk((0, 0), bytes(50_000))

    expected = "layer 2 (dense_rec): weight: is damaged: a chunk takes 50000 bytes to hold 60"
    assert refused(path, bomb) == expected


def test_the_whole_content_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_hdf5, "FREE_BYTES", 0)
    assert arrays(read_quietly(path)) == arrays(a_network())
    large = dataset("layer/2/bias", data=np.zeros(100_000), compression="gzip")
    assert refused(path, large).startswith("layer 2 (dense_rec): bias: takes what is unpacked beyond ")


# Little that stands for much.


def bombs() -> dict[str, tuple[Edit, str]]:
    def text(file: h5py.File) -> None:
        for key in ("task", "profile", "provenance"):
            options = {"chunks": (1,), "compression": "gzip"}
            dataset(f"delaynet/{key}", (1,), "S2000000000", **options)(file)

    def long_text(file: h5py.File) -> None:
        dataset("delaynet/provenance", (1,), "S5000000", chunks=(1,), compression="gzip")(file)

    def one_value(file: h5py.File) -> None:
        options = {"chunks": (1 << 24,), "compression": "gzip"}
        dataset("layer/2/weight_exp", (1 << 28,), "i1", **options)(file)

    def shared(file: h5py.File) -> None:
        dataset("layer/2/neuron/iDecay", (1 << 28,), "i1", chunks=(1 << 24,))(file)

    def linked(file: h5py.File) -> None:
        del file["layer"]
        weight = file.create_dataset("w", (1000, 1000), "i1", chunks=(1000, 1000), compression="gzip")
        weight[()] = 2
        for k in range(400):
            layer = file.create_group(f"layer/{k}")
            layer["type"], layer["shape"], layer["weight"] = "dense", [1000], weight

    def looped(file: h5py.File) -> None:
        del file["layer"]
        layers = file.create_group("layer")
        first = file.create_group("first")
        first["type"], first["shape"], first["weight"] = "dense", [1], np.array([[2]], np.int8)
        for k in range(600):
            first[f"unknown-{k}"] = 0
        for k in range(4000):
            layers[str(k)] = first

    def delayed(file: h5py.File) -> None:
        del file["layer"]
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"], layer["delay"] = "dense", [4000], 32767
        layer.create_dataset("weight", data=np.full((4000, 1), 2, np.int8), compression="gzip")

    return {
        "text": (text, "delaynet/task: takes what is unpacked beyond"),
        "long text": (long_text, "delaynet/provenance: has room for 5000000 bytes, more than 4194304"),
        "one value": (one_value, "layer 2 (dense_rec): weight_exp: has shape (268435456,), more than 64 ele"),
        "shared": (shared, "layer 2 (dense_rec): neuron/iDecay: has shape (268435456,), more than 1048576 e"),
        "linked": (linked, "layer 30 (dense): weight: takes what is unpacked beyond"),
        "looped": (looped, "takes more than"),
        "delayed": (delayed, "layer: keeps 131068000 inputs pending, more than 33554432"),
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_bombs(path: Path, name: str) -> None:
    edit, expected = bombs()[name]
    with h5py.File(path, "a") as file:
        edit(file)
    assert path.stat().st_size < 2_000_000
    if name != "looped":  # which takes time, not memory
        tracemalloc.start()
    started = time.process_time()
    found = refused(path)
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected in found
    assert seconds < 10 and peak < 300_000_000  # some 0.5 s where nobody else computes


def test_a_tree_of_80_levels(path: Path) -> None:
    content = path.read_bytes()
    tree = content.index(b"TREE")
    nodes, at = b"", len(content)
    for level in range(1, 80):
        child = tree if level == 1 else at + 48 * (level - 2)
        header = b"TREE\0" + bytes([level]) + (1).to_bytes(2, "little") + b"\xff" * 16
        nodes += header + bytes(8) + child.to_bytes(8, "little") + bytes(8)
    top = (at + 48 * 78).to_bytes(8, "little")
    damaged = bytearray(content.replace(tree.to_bytes(8, "little"), top) + nodes)
    end = damaged.index(len(content).to_bytes(8, "little"))
    damaged[end : end + 8] = len(damaged).to_bytes(8, "little")
    path.write_bytes(damaged)
    assert refused(path) == "is damaged: a tree in it does not end"


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
