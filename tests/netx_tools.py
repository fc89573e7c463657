"""Files with NetX's keys, written by hand, and networks compared by everything they hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from delaynet_lava import netx
from delaynet_lava.network import Encoder, Network, Neuron

__all__ = ["NEURON", "arrays", "put_keys", "read_quietly", "stock_file"]

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
