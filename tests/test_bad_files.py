"""Files that are not what they should be: one error with path, layer and key, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from netx_tools import NEURON, arrays, read_quietly, stock_file

from delaynet_lava import netx, netx_read, untrusted_hdf5
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse

Edit = Callable[[h5py.File], None]
Layer = dict[str, Any]


def a_network() -> Network:
    """One that needs every key: layers input, flatten, dense_rec, dense, average."""
    rng = np.random.default_rng(1)
    weight = lambda *shape: rng.integers(-100, 100, shape) * 2  # noqa: E731
    delay = lambda *shape: rng.integers(1, 60, shape)  # noqa: E731
    bias = np.arange(1, 6)
    layers = (
        Encoder(Neuron(80, 4096, 123), 6, 10, 3),
        Dense(
            Synapse(weight(5, 6), delay(5, 6), 1),
            Neuron(100, 4096, 100, bias=bias, bias_exp=3, reset="subtract"),
            Synapse(weight(5, 5), delay(5, 5), 2),
        ),
        Dense(Synapse(weight(4, 5), delay(4, 5)), Neuron(131071, 4096, 10)),
    )
    return Network(layers, (2, 3, 1), 2, 1.0, {"name": "cue"}, "loihi2", {"seed": 1})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file, to be spoilt."""
    netx.write(a_network(), tmp_path / "net.h5")
    assert arrays(read_quietly(tmp_path / "net.h5")) == arrays(a_network())
    return tmp_path / "net.h5"


def put(key: str, value: Any) -> Edit:
    """Replace a dataset, or with None remove what is there."""

    def edit(file: h5py.File) -> None:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value

    return edit


def refused(path: Path, *edits: Edit) -> str:
    """The message after the path, once the file has been edited."""
    if edits:
        with h5py.File(path, "a") as file:
            for edit in edits:
                edit(file)
    with pytest.raises(InputError) as caught:
        netx.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message and len(message) < 600
    return message.removeprefix(f"{path}: ")


# The file itself.


def test_no_such_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "net.h5") == "does not exist; check the path"
    assert refused(tmp_path / "folder" / "net.h5") == "does not exist; check the path"


def test_not_a_plain_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == "is a directory; give the path of a net.h5"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "is not a plain file; give the path of a net.h5"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused(tmp_path / "loop").startswith("cannot be read (")
    assert refused(tmp_path / "a\0b").startswith("cannot be read (")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(path: Path) -> None:
    path.chmod(0)
    assert refused(path) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has 0 bytes, expected 1 to 2147483648"),
        (b"PK\x03\x04", "is not an HDF5 file"),
        (b"layer: 1\n" * 500, "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "is damaged: it points beyond the end of the file"),
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 5000, "has version 255 of the HDF5 superblock"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 5000, "does not have addresses of 8 bytes"),
    ],
)
def test_not_hdf5(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.h5").write_bytes(content)
    assert refused(tmp_path / "net.h5").startswith(message)


def test_truncated(path: Path) -> None:
    content = path.read_bytes()
    for length in [*range(1, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:length])
        message = refused(path)
        assert message.startswith(("is truncated", "is damaged", "is not an HDF5 file")), message


def test_larger_than_any_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = path.stat().st_size
    monkeypatch.setattr(untrusted_hdf5, "MAX_BYTES", limit - 1)
    assert refused(path) == f"has {limit} bytes, expected 1 to {limit - 1}"


# Keys.


def test_every_key_that_netx_needs_is_needed(path: Path) -> None:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
    content, optional = path.read_bytes(), set()
    for name in names:
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            del file[name]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                netx.read(path)
            optional.add(name)
        except InputError as error:
            place, key = str(error), name.split("/")[-1]
            if name.startswith("layer/") and key not in "01234":
                number, key = name.removeprefix("layer/").split("/", 1)
                assert place.startswith(f"{path}: layer {number}"), name
                assert key in ("neuron", "delay_rec") or f"{key}: is missing" in place, place
    dense = {"delay", "inFeatures", "outFeatures", "neuron"}
    neuron = {"neuron/refDelay", "neuron/gradedSpike"}
    metadata = {"dt_ms", "task", "profile", "provenance"}
    assert optional == (
        # Without its neuron the encoder is a plain input, and without the average there are no groups.
        {"delaynet", "layer/0/neuron", "layer/4"}
        | {f"delaynet/{key}" for key in metadata}
        | {f"layer/0/{key}" for key in ("weight", "bias", *neuron)}
        | {"layer/1/shape"}
        | {f"layer/2/{key}" for key in dense | neuron}
        | {f"layer/2/{key}" for key in ("bias", "weight_exp", "weight_rec_exp")}
        | {"layer/2/neuron/biasExp", "layer/2/neuron/reset"}
        | {f"layer/3/{key}" for key in dense | neuron}
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("weight", np.full((5, 6), np.nan), "weight: value at (0, 0) is nan, not a number"),
        ("weight", np.full((5, 6), np.inf), "weight: value at (0, 0) is inf, not a number"),
        ("weight", np.full((5, 6), 256), "weight: value at (0, 0) is 256, outside -256 to 254"),
        ("weight", np.full((5, 6), -258), "weight: value at (0, 0) is -258, outside -256 to 254"),
        ("weight", np.full((5, 6), 1 << 62), "weight: value at (0, 0) is 4611686018427387904, outside"),
        ("weight", np.full((5, 6), (1 << 64) - 2, np.uint64), "weight: value at (0, 0) is 184467440737"),
        ("weight", np.full((5, 6), 1e300), "weight: value at (0, 0) is 1000"),
        ("weight", np.full((5, 6), 3), "weight: value at (0, 0) is 3, odd (30 such)"),
        ("weight", np.full((5, 6), 0.5), "weight: value at (0, 0) is 0.5, not an integer"),
        ("weight", np.full((5, 6), True), "weight: value at (0, 0) is 1, odd (30 such)"),
        ("weight", np.full((6, 5), 2), "weight: has shape (6, 5), but the layer has 5 neurons"),
        ("weight", np.full((5, 7), 2), "inFeatures: is 6 but the weights have shape (5, 7)"),
        ("weight", np.full((5, 6, 1), 2), "weight: has shape (5, 6, 1), but the layer has 5 neurons"),
        ("weight", np.full(31, 2), "weight: has shape (31,), but the layer has 5 neurons"),
        ("weight", np.zeros((5, 0)), "inFeatures: is 6 but"),
        ("weight", 2, "weight: has shape (), but the layer has 5 neurons"),
        ("weight_rec", np.full((5, 6), 2), "weight_rec: has shape (5, 6), expected (5, 5)"),
        ("weight_rec", np.full((5, 5), 7), "weight_rec: value at (0, 0) is 7, odd (25 such)"),
        ("weight_rec", np.full((5, 5), np.nan), "weight_rec: value at (0, 0) is nan"),
        ("delay", np.full((5, 6), -1), "delay: value at (0, 0) is -1, outside 0 to 32767 (30 such)"),
        ("delay", np.full((5, 6), 32768), "delay: value at (0, 0) is 32768, outside"),
        ("delay", np.full((5, 6), 1.5), "delay: value at (0, 0) is 1.5, not an integer"),
        ("delay", np.full((5, 6), np.nan), "delay: value at (0, 0) is nan"),
        ("delay", np.full((6, 5), 1), "delay: has shape (6, 5) but the weights have (5, 6)"),
        ("delay", np.full(7, 1), "delay: has shape (7,) but the weights have (5, 6)"),
        ("delay", np.full((5, 1), 1), "delay: has shape (5, 1) but the weights have (5, 6)"),
        ("delay", -1.0, "delay: value at () is -1, outside"),
        ("delay_rec", np.full((5, 5), -1), "delay_rec: value at (0, 0) is -1, outside"),
        ("delay_rec", np.full((5, 6), 1), "delay_rec: has shape (5, 6) but the weights have (5, 5)"),
        ("delay_rec", np.full(5, 1), "delay_rec: has shape (5,) but the weights have (5, 5)"),
        ("weight_exp", 8, "weight_exp: is 8, expected whole numbers from 0 to 7"),
        ("weight_exp", -1, "weight_exp: is -1, expected"),
        ("weight_exp", [1, 2], "weight_exp: has shape (2,), expected one value"),
        ("weight_rec_exp", 0.5, "weight_rec_exp: is 0.5, expected"),
        ("bias", np.full(5, 4096), "bias: value at (0,) is 4096, outside -4096 to 4095"),
        ("bias", np.full(5, np.nan), "bias: value at (0,) is nan"),
        ("bias", np.full(4, 1), "bias: has shape (4,), expected (5,)"),
        ("bias", np.full((5, 1), 1), "bias: has shape (5, 1), expected (neurons,)"),
        ("shape", [4], "weight: has shape (5, 6), but the layer has 4 neurons"),
        ("shape", [0], "shape: is 0, expected whole numbers from 1 to"),
        ("shape", [-5], "shape: is -5, expected"),
        ("shape", [5.5], "shape: is 5.5, expected"),
        ("shape", [np.nan], "shape: is nan, expected"),
        ("shape", [1 << 28, 1 << 28], "shape: is (268435456, 268435456), more than"),
        ("shape", [1] * 9, "shape: is (1, 1, 1, 1, 1, 1, 1, 1), more than"),
        ("shape", np.zeros(0, int), "shape: is empty"),
        ("inFeatures", 7, "inFeatures: is 7 but the weights have shape (5, 6)"),
        ("inFeatures", 0, "inFeatures: is 0, expected whole"),
        ("outFeatures", 6, "outFeatures: is 6 but the weights have shape (5, 6)"),
        ("neuron/vThMant", -1, "neuron/vThMant: value at () is -1, outside 0 to"),
        ("neuron/vThMant", 1e9, "neuron/vThMant: value at () is 1000000000, outside"),
        ("neuron/vThMant", np.zeros(0), "neuron/vThMant: is empty"),
        ("neuron/iDecay", 4097, "neuron/iDecay: value at () is 4097, outside 0 to 4096"),
        ("neuron/iDecay", [1, 2, 2, 3, 3], "neuron/iDecay: has 3 different values in shape (5,), expected"),
        ("neuron/vDecay", 0.5, "neuron/vDecay: value at () is 0.5, not an integer"),
        ("neuron/vDecay", np.nan, "neuron/vDecay: value at () is nan"),
        ("neuron/biasExp", 8, "neuron/biasExp: value at () is 8, outside 0 to 7"),
        ("neuron/biasExp", [1, 1], "neuron/biasExp: has shape (2,), expected one value"),
        ("neuron/reset", "none", "neuron/reset: is 'none', expected one of ['zero', 'subtract']"),
        ("neuron/reset", 1, "neuron/reset: has type int64, expected a string"),
        ("neuron/reset", "z" * 65, "neuron/reset: has 65 bytes, more than 64"),
        ("neuron", 1, "neuron: is not a group"),
    ],
)  # fmt: skip
def test_values_of_a_layer(path: Path, key: str, value: Any, message: str) -> None:
    assert refused(path, put(f"layer/2/{key}", value)).startswith(f"layer 2 (dense_rec): {message}")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("layer/0/weight", 300, "layer 0 (input): weight: is 300, expected whole numbers from -256 to 254"),
        ("layer/0/weight", [1, 2], "layer 0 (input): weight: has shape (2,), expected one value"),
        ("layer/0/bias", 0.5, "layer 0 (input): bias: is 0.5, expected"),
        ("layer/0/shape", [7], "layer 1 (flatten): shape: is (6, 1, 1), but 7 values come in"),
        ("layer/0/shape", [1 << 25], "layer 0 (input): shape: value at () is 33554432, outside"),
        ("layer/0/neuron/iDecay", -1, "layer 0 (input): neuron/iDecay: value at () is -1"),
        ("layer/1/shape", [6, 2], "layer 1 (flatten): shape: is (6, 2), but 6 values come in"),
        ("layer/3/weight", np.full((4, 4), 2), "layer 3 (dense): inFeatures: is 5 but"),
        ("layer/4/shape", [3], "layer 4 (average): shape: asks for 3 equal groups of 4 neurons"),
        ("layer/4/shape", [0], "layer 4 (average): shape: is 0, expected"),
        ("delaynet/version", 2, "delaynet/version: is 2, this release reads 1; update delaynet_lava"),
        ("delaynet/version", 0, "delaynet/version: is 0"),
        ("delaynet/version", None, "delaynet/version: is missing"),
        ("delaynet/version", "1", "delaynet/version: is text, expected numbers"),
        ("delaynet/dt_ms", 0, "delaynet/dt_ms: is [0], expected one positive number"),
        ("delaynet/dt_ms", np.inf, "delaynet/dt_ms: is [inf], expected"),
        ("delaynet/dt_ms", np.nan, "delaynet/dt_ms: is [nan], expected"),
        ("delaynet/dt_ms", [1.0, 1.0], "delaynet/dt_ms: is [1. 1.], expected"),
        ("delaynet/task", "{", "delaynet/task: is not JSON"),
        ("delaynet/task", "[]", "delaynet/task: holds a JSON list, expected an object"),
        ("delaynet/task", '{"a": NaN}', "delaynet/task: is not JSON (NaN is not"),
        ("delaynet/provenance", '{"a":' * 100_000, "delaynet/provenance: is not JSON"),
        ("delaynet/provenance", '{"a": 1' + "0" * 10_000 + "}", "delaynet/provenance: is not JSON"),
        ("delaynet/provenance", 1, "delaynet/provenance: has type int64, expected a string"),
        ("delaynet/profile", b"\xff", "delaynet/profile: is not UTF-8 text"),
        ("delaynet/profile", ["a", "b"], "delaynet/profile: has shape (2,), expected one string"),
        ("delaynet", 1, "delaynet: is not a group"),
        ("layer", 1, "layer: is not a group"),
        ("layer", None, "layer: is missing"),
        ("simulation", 1, "simulation: is not a group"),
    ],
)  # fmt: skip
def test_values_elsewhere(path: Path, key: str, value: Any, message: str) -> None:
    assert refused(path, put(key, value)).startswith(message)


def test_features_are_checked_against_what_comes_in(path: Path) -> None:
    edits = [put("layer/3/weight", np.full((4, 4), 2)), put("layer/3/inFeatures", 4), put("layer/3/delay", 1)]
    assert refused(path, *edits) == "layer 3 (dense): weight: has shape (4, 4), but 5 values come in"


# Layers.

DENSE: Layer = {"type": "dense", "shape": [2], "weight": np.full((2, 6), 2), "neuron": NEURON}


@pytest.mark.parametrize(
    "layers, message",
    [
        ([], "layer: holds 0 layers, none of them with neurons"),
        ([{"type": "input", "shape": [6]}], "layer: holds 1 layers, none of them with neurons"),
        ([DENSE, {"type": "input", "shape": [2]}], "layer 1 (input): type: is 'input', which only layer 0"),
        ([{"type": "average", "shape": [1]}], "layer 0 (average): type: is 'average', but no layer with"),
        (
            [DENSE, {"type": "average", "shape": [1]}, {"type": "flatten"}],
            "layer 2: type: is 'flatten' behind an average",
        ),
        (
            [{"type": "input", "shape": [1, 2, 3]}, DENSE],
            "layer 1 (dense): type: is 'dense' behind an input of shape (1, 2, 3) that nothing flattens",
        ),
        (
            [{"type": "input", "shape": [1, 2, 3], "neuron": NEURON}, DENSE],
            "layer 1 (dense): type: is 'dense' behind an input of shape (1, 2, 3) that nothing flattens",
        ),
        ([{"type": "input", "shape": [7]}, DENSE], "layer 1 (dense): weight: has shape (2, 6), but 7 values"),
        ([{"type": "conv"}], "layer 0: type: is 'conv' (convolutions); only input"),
        ([{"type": "convT"}], "layer 0: type: is 'convT' (transposed convolutions)"),
        ([{"type": "pool"}], "layer 0: type: is 'pool' (pooling)"),
        ([{"type": "unpool"}], "layer 0: type: is 'unpool' (unpooling)"),
        ([{"type": "concat"}], "layer 0: type: is 'concat' (skip connections)"),
        ([{"type": "dense_comp"}], "layer 0: type: is 'dense_comp' (complex weights)"),
        ([DENSE, {"type": "Dense"}], "layer 1: type: is 'Dense' (unknown to this package)"),
        (
            [{**DENSE, "weight": {"real": np.full((2, 6), 2), "imag": np.full((2, 6), 2)}}],
            "layer 0 (dense): weight: is a group: complex weights",
        ),
    ],
)  # fmt: skip
def test_layers_that_are_no_network(tmp_path: Path, layers: list[Layer], message: str) -> None:
    assert refused(stock_file(tmp_path / "net.h5", *layers)).startswith(message)


@pytest.mark.parametrize(
    "neuron, message",
    [
        ({"type": "SDNN"}, "type: is 'SDNN' (sigma-delta neurons); only CUBA"),
        ({"type": "RF"}, "type: is 'RF' (resonate-and-fire neurons)"),
        ({"type": "RF_PHASE"}, "type: is 'RF_PHASE' (resonate-and-fire neurons)"),
        ({"type": "RF_IZHIKEVICH"}, "type: is 'RF_IZHIKEVICH' (resonate-and-fire neurons)"),
        ({"type": "ALIF"}, "type: is 'ALIF' (adaptive thresholds)"),
        ({"type": "ADRF_PHASE"}, "type: is 'ADRF_PHASE' (adaptive resonate"),
        ({"type": "ADRF_IZHIKEVICH"}, "type: is 'ADRF_IZHIKEVICH' (adaptive resonate"),
        ({"type": "cuba"}, "type: is 'cuba' (unknown to this package)"),
        ({"gradedSpike": True}, "gradedSpike: is not zero: graded spikes"),
        ({"messageBits": 16}, "messageBits: is not zero: graded spikes"),
    ],
)
def test_neurons_that_are_no_lif(tmp_path: Path, neuron: Layer, message: str) -> None:
    layer = {**DENSE, "neuron": NEURON | neuron}
    expected = f"layer 0 (dense): neuron/{message}"
    assert refused(stock_file(tmp_path / "net.h5", layer)).startswith(expected)
    first = {"type": "input", "shape": [6], "neuron": NEURON | neuron}
    expected = f"layer 0 (input): neuron/{message}"
    assert refused(stock_file(tmp_path / "net.h5", first, DENSE)).startswith(expected)


@pytest.mark.parametrize("name", ["5", "-1", "00", "a", "\u0663", "4294967296"])
def test_gaps_and_strangers_among_the_layers(path: Path, name: str) -> None:
    def rename(file: h5py.File) -> None:
        file.move("layer/4", f"layer/{name}")

    assert refused(path, rename) == f"layer: holds {name!a}, expected layers numbered 0 to 4"


def test_a_name_that_is_not_unicode(path: Path) -> None:
    def rename(file: h5py.File) -> None:
        file.move("layer/4", b"layer/\xff\xfe")

    assert "xff" in refused(path, rename)


def test_too_many_layers_and_entries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netx_read, "MAX_LAYERS", 4)
    assert refused(path) == "layer: holds 5 layers, more than 4"
    monkeypatch.setattr(untrusted_hdf5, "MAX_KEYS", 4)
    assert refused(path) == "delaynet: has more than 4 entries"


# How HDF5 can mislead.


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
            data[rng.integers(len(data), size=rng.integers(1, 40))] ^= 1 << rng.integers(8)
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
