"""Files with NetX's keys, written by hand or spoilt, and networks compared by everything they hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx, netx_read, untrusted_hdf5
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Src, Synapse

__all__ = [
    "NEURON",
    "Edit",
    "a_network",
    "arrays",
    "put",
    "put_keys",
    "read_quietly",
    "refused",
    "reseal",
    "stock_file",
]

Edit = Callable[[h5py.File], None]
NEURON = {"type": "CUBA", "iDecay": 1024, "vDecay": 128, "vThMant": 80}


def arrays(network: Network) -> dict[str, Any]:
    """Everything a network holds, as bytes with type and shape or as plain values."""
    found: dict[str, Any] = {
        name: getattr(network, name)
        for name in ("input_shape", "average", "dt_ms", "task", "profile", "provenance")
    }

    def put(name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value = (value.dtype, value.shape, value.tobytes())
        found[name] = value

    for k, layer in enumerate(network.layers):
        put(f"{k} type", type(layer).__name__)
        for part in ("neuron", "synapse", "recurrent"):
            for name, value in vars(getattr(layer, part) or object.__new__(Neuron)).items():
                put(f"{k} {part} {name}", value)
        if isinstance(layer, Encoder):
            put(f"{k} transform", (layer.size, layer.weight, layer.bias))
    return found


def put_keys(group: h5py.Group, values: dict[str, Any]) -> None:
    """Write a dict as NetX would: nested ones as groups, layer types as arrays of ten bytes."""
    for key, value in values.items():
        if isinstance(value, dict):
            put_keys(group.create_group(str(key)), value)
        elif key == "type" and not group.name.endswith("neuron"):
            group.create_dataset(key, (1,), "S10", [value.encode()])
        else:
            group[key] = value


def stock_file(path: Path, *layers: dict[str, Any], **root: Any) -> Path:
    """A file with NetX's keys alone."""
    with h5py.File(path, "w") as file:
        put_keys(file, {"layer": dict(enumerate(layers)), **root})
    return path


def read_quietly(path: Path) -> Network:
    """Read a file that must give no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return netx.read(path)


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


def cells() -> Network:
    """Spiking Recurrent Cells, with every key that they have."""
    weight = 2 * np.arange(-8, 8).reshape(4, 4)
    bias = np.array([-24576, -28000, -32768, -25000])
    first = Src(bias, 300, 3, "sign", "clip", 8, 4)
    return Network(
        (
            Dense(Synapse(weight, 3), first, Synapse(weight, weight % 9)),
            Dense(Synapse(weight), Src(-20480, shift=-1)),
        )
    )


def put(key: str, value: Any) -> Edit:
    """Replace a dataset, or with None remove what is there."""

    def edit(file: h5py.File) -> None:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value

    return edit


def reseal(path: Path) -> None:
    """Make an edited file's content hash that of its content."""
    with h5py.File(path, "a") as file:
        file["delaynet/sha256"][()] = b"0" * 64
    found = netx_read.seal(untrusted_hdf5.open_untrusted(path)).found
    with h5py.File(path, "a") as file:
        file["delaynet/sha256"][()] = found.encode()


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
