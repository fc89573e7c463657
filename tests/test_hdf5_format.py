"""Our reader of HDF5 and the HDF5 library find the same in the same files."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from delaynet_lava.formats.hdf5_format import FormatError, Reader

OLD = ("earliest", "v108")
TYPES = ["i1", "u1", "?", *(order + kind for order in "<>" for kind in ("i2", "u2", "i4", "u4", "i8", "u8"))]
TYPES += [order + kind for order in "<>" for kind in ("f2", "f4", "f8")]


def written(fill: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def compare(content: bytes) -> int:
    """Walk a file with both readers; the number of datasets that were found equal."""
    reader = Reader(content)

    def walk(address: int, group: h5py.Group) -> int:
        links, count = reader.links(address, 1 << 16), 0
        assert links.keys() == set(group)
        for name, target in links.items():
            assert target is not None
            found = group[name]
            assert reader.is_group(target) == isinstance(found, h5py.Group)
            if isinstance(found, h5py.Group):
                count += walk(target, found)
                continue
            dataset, expected = reader.dataset(target), np.asarray(found[()])
            assert dataset.shape == found.shape
            if h5py.check_string_dtype(found.dtype):
                assert reader.text(dataset) == expected.reshape(-1)[0]
            else:
                values = reader.read(dataset)
                assert dataset.dtype == found.dtype or found.dtype == bool
                assert np.array_equal(values, expected, equal_nan=values.dtype.kind == "f")
            count += 1
        return count

    with h5py.File(io.BytesIO(content)) as file:
        return walk(reader.root, file)


@pytest.mark.parametrize("libver", [OLD, ("v108", "v108"), ("v110", "v110"), "latest"])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_storage(dtype: str, libver: Any) -> None:
    values = np.random.default_rng(2).integers(-100, 100, (7, 5)).astype(dtype)

    def fill(file: h5py.File) -> None:
        file["scalar"], file["row"], file["matrix"], file["none"] = (
            values[0, 0],
            values[0],
            values,
            values[:0],
        )
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT)
        kind, space = h5py.h5t.py_create(values.dtype, logical=True), h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"compact", kind, space, layout).write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        if libver in (OLD, ("v108", "v108")):
            file.create_dataset("chunks", data=values, chunks=(3, 2))
            file.create_dataset("packed", data=values, chunks=(4, 5), compression="gzip", shuffle=True)

    assert compare(written(fill, libver=libver)) == (7 if libver in (OLD, ("v108", "v108")) else 5)


@settings(max_examples=40)
@given(
    hnp.arrays(st.sampled_from(["<i2", ">f4", "u1"]), hnp.array_shapes(max_dims=4, max_side=9)),
    st.data(),
    st.sampled_from([None, "gzip"]),
    st.booleans(),
)
def test_chunks(values: np.ndarray, data: st.DataObject, compression: str | None, shuffle: bool) -> None:
    chunks = tuple(data.draw(st.integers(1, 2 * n), label="chunk") for n in values.shape)
    options = {"chunks": chunks, "maxshape": (None,) * values.ndim, "compression": compression}
    content = written(
        lambda file: file.create_dataset("a", data=values, shuffle=shuffle, **options), libver=OLD
    )
    assert compare(content) == 1


def test_many_groups_long_texts_and_attributes() -> None:
    def fill(file: h5py.File) -> None:
        for k in range(1500):  # a tree of more than one level
            file.create_group(f"groups/{k}")
        file["long"], file["short"], file["none"], file["padded"] = (
            "hellö" * 20_000,
            b"a",
            "",
            np.bytes_(b"ab"),
        )
        for k in range(30):  # a header in several blocks
            file["short"].attrs[f"a{k}"] = np.arange(100)

    assert compare(written(fill, libver=OLD)) == 4
    assert compare(written(fill, libver=OLD, userblock_size=1024)) == 4


@pytest.mark.parametrize(
    "fill, libver, problem",
    [
        (lambda file: [file.create_group(str(k)) for k in range(9)], "latest", "the dense form of newer"),
        (lambda file: file.create_dataset("a", data=[1, 2], chunks=(1,)), "latest", "another form than"),
        (lambda file: file.create_dataset("a", data=[1, 2], fletcher32=True), OLD, "packed with filter 3"),
        (lambda file: file.create_dataset("a", data=[1, 2], compression="lzf"), OLD, "with filter 32000"),
        (lambda file: file.create_dataset("a", data=[1j]), OLD, "a compound type"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_said(fill: Any, libver: Any, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        compare(written(fill, libver=libver))


def test_the_comparison_sees_a_single_bit() -> None:
    values = np.arange(100, 160, dtype="<i2")
    content = written(lambda file: file.create_dataset("a", data=values), libver=OLD)
    reader = Reader(content.replace(values.tobytes(), (values ^ (values == 131)).tobytes()))
    found = reader.read(reader.dataset(reader.links(reader.root, 1)["a"]))
    assert (found != values).sum() == 1
