"""HDF5 files that may come from strangers: net.h5, NIR graphs, NIRData, events."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
from bundle_tools import NETWORK
from mutate import damage, strange, twist
from netx_tools import NEURON, a_network, cells, stock_file
from samples import read_samples

from delaynet_lava.emulator import emulate
from delaynet_lava.export.nir_export import write_nir
from delaynet_lava.formats import netx
from delaynet_lava.trace import Trace

__all__ = ["events", "graphs", "hdf5_case", "nets", "read_recordings", "recordings"]

_ATTRIBUTES = "@"  # of a group, among the names of what is in it


def _strange_array(rng: Random) -> Any:
    shape = tuple(rng.choice((0, 1, 2, 4, 5, 6)) for _ in range(rng.randrange(4)))
    kind = rng.choice(("i1", "i2", "i4", "i8", "u1", "u8", "f2", "f4", "f8", ">i4", "bool"))
    values = np.random.default_rng(rng.randrange(1 << 32)).integers(-300, 300, shape)
    return values.astype(kind)


def _into(group: h5py.Group, tree: dict[str, Any], rng: Random) -> None:
    for key, value in tree.items():
        try:
            if key == _ATTRIBUTES and isinstance(value, dict):
                for name, held in value.items():
                    group.attrs[str(name)] = held
            elif isinstance(value, dict):
                _into(group.create_group(str(key)), value, rng)
            elif rng.random() < 0.1:
                kind = rng.choice((h5py.SoftLink("/layer"), h5py.ExternalLink("a", "/b"), h5py.Empty("f4")))
                group[str(key)] = kind
            elif rng.random() < 0.1 and np.ndim(value):
                chunks = tuple(max(1, rng.randrange(1, 2 * n + 1)) for n in np.shape(value))
                group.create_dataset(
                    str(key),
                    data=value,
                    chunks=chunks,
                    maxshape=(None,) * np.ndim(value),
                    compression=rng.choice((None, "gzip")),
                    shuffle=rng.random() < 0.5,
                )
            else:
                group[str(key)] = value
        except (TypeError, ValueError, OSError, RuntimeError, UnicodeError, OverflowError):
            continue  # not a value that HDF5 can hold


def _tree(group: h5py.Group) -> dict[str, Any]:
    found = {k: _tree(v) if isinstance(v, h5py.Group) else v[()] for k, v in group.items()}
    return {**found, _ATTRIBUTES: dict(group.attrs)} if group.attrs else found


def nets(folder: Path) -> Any:
    """A ``net.h5`` of this package, one of Spiking Recurrent Cells, and one of lava-dl."""
    netx.write(a_network(), folder / "net.h5")
    whole = (folder / "net.h5").read_bytes()
    dense = {
        "type": "dense",
        "shape": [3],
        "weight": np.full((3, 4), 2),
        "delay": 3,
        "bias": [1, 2, 3],
        "neuron": NEURON,
    }
    stock_file(folder / "net.h5", {"type": "input", "shape": [4]}, dense)
    stock = (folder / "net.h5").read_bytes()
    netx.write(cells(), folder / "net.h5")
    return _hdf5(folder / "net.h5", whole, stock, (folder / "net.h5").read_bytes())


def _hdf5(path: Path, *contents: bytes) -> Any:
    trees = []
    for content in contents:
        with h5py.File(io.BytesIO(content)) as file:
            trees.append(_tree(file))
    return SimpleNamespace(path=path, pool=list(contents), own=len(contents), trees=trees)


def graphs(folder: Path) -> Any:
    """A NIR graph."""
    path = folder / "graph.nir"
    write_nir(NETWORK.with_(layers=NETWORK.layers[1:2], input_shape=()), path)
    return _hdf5(path, path.read_bytes())


def recordings(folder: Path) -> Any:
    """NIRData: a trace that this package wrote, and events of somebody else."""
    path = folder / "data.nir"
    inputs = (np.random.default_rng(1).random((2, 9, NETWORK.channels)) < 0.3).astype(np.uint8)
    emulate(NETWORK, inputs, record=("spikes", "voltage")).save(path, NETWORK, inputs)
    own = path.read_bytes()
    with h5py.File(path, "w") as file:
        for place, kind in (("/", "NIRGraphData"), ("nodes/input", "NIRNodeData")):
            file.require_group(place).attrs["__type__"] = kind
        events = file.create_group("nodes/input/observables/spikes")
        events.attrs.update({"__type__": "EventData", "n_neurons": 3, "t_max": 0.009})
        events["idx"], events["time"] = np.zeros((2, 4), int), np.arange(8.0).reshape(2, 4) / 1000
        file["labels"] = np.arange(2)
    return _hdf5(path, own, path.read_bytes())


def read_recordings(state: Any) -> None:
    """As a task and as a trace."""
    try:
        read_samples(state)
    finally:
        Trace.load(state.path)


def events(folder: Path) -> Any:
    """Events in HDF5."""
    path, rng = folder / "events.h5", np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for name, kind, scale in (("times", "f4", 0.01), ("units", "i4", 1)):
            rows = file.create_dataset(f"spikes/{name}", (6,), h5py.vlen_dtype(np.dtype(kind)))
            for k in range(6):
                rows[k] = (np.sort(rng.integers(0, 9, 5)) * scale).astype(kind)
        file["labels"] = np.arange(6) % 2
    content = path.read_bytes()
    return SimpleNamespace(
        path=path, pool=[content], own=1, trees=[{"labels": np.arange(6) % 2, "spikes": {}}]
    )


def hdf5_case(state: Any, rng: Random) -> bytes:
    """A file with strange values at places that exist, or with damaged bytes."""
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        put = lambda rng: _strange_array(rng) if rng.random() < 0.5 else strange(rng)  # noqa: E731
        with h5py.File(buffer, "w", libver=rng.choice((("earliest", "v108"), ("latest", "latest")))) as file:
            _into(file, twist(copy.deepcopy(rng.choice(state.trees)), rng, put), rng)
        content = buffer.getvalue()
        state.pool = [*state.pool[: state.own], *state.pool[state.own :][-60:], content]
        if rng.random() < 0.3:
            content = damage(content, rng)
    else:
        content = damage(rng.choice(state.pool), rng, state.pool[0])
    state.path.write_bytes(content)
    return content
