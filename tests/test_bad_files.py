"""Files that are not what they should be: one error with path, layer and key, and nothing else."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from netx_tools import NEURON, a_network, arrays, put, read_quietly, refused, reseal, stock_file

from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx, netx_read, untrusted_hdf5

Layer = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file, to be spoilt."""
    netx.write(a_network(), tmp_path / "net.h5")
    assert arrays(read_quietly(tmp_path / "net.h5")) == arrays(a_network())
    return tmp_path / "net.h5"


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
    with pytest.raises(InputError, match=r"a\\x00b: cannot be read \("):
        netx.read(tmp_path / "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(path: Path) -> None:
    path.chmod(0)
    assert refused(path) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has 0 bytes, expected 1 to 2147483648"),
        (b"PK\x03\x04", "is a zip archive"),
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
        if name not in ("delaynet", "delaynet/sha256"):
            reseal(path)
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
    metadata = {"dt_ms", "task", "profile", "provenance", "sha256"}
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
        ("weight", np.full((5, 6), 129), "weight: has odd values, 129 is one, and reaches from 129"),
        ("weight", np.full((5, 6), 0.5), "weight: value at (0, 0) is 0.5, not an integer"),
        ("weight", np.full((6, 5), 2), "weight: has shape (6, 5), but the layer has 5 neurons"),
        ("weight", np.full((5, 7), 2), "inFeatures: is 6 but the weights have shape (5, 7)"),
        ("weight", np.full((5, 6, 1), 2), "weight: has shape (5, 6, 1), but the layer has 5 neurons"),
        ("weight", np.full(31, 2), "weight: has shape (31,), but the layer has 5 neurons"),
        ("weight", np.zeros((5, 0)), "inFeatures: is 6 but"),
        ("weight", 2, "weight: has shape (), but the layer has 5 neurons"),
        ("weight_rec", np.full((5, 6), 2), "weight_rec: has shape (5, 6), expected (5, 5)"),
        ("weight_rec", np.full((5, 5), -129), "weight_rec: has odd values, -129 is one, and reaches"),
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
        ("neuron/iDecay", [1, 2, 2, 3], "neuron/iDecay: has shape (4,), expected (5,)"),
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
