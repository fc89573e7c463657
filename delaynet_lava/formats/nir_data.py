"""NIRData: what nodes of a NIR graph sent and held, as ``nir.read_data`` and ``nir.write_data`` keep it.

A file holds nodes by name, graphs among them, and of each its observables ("spikes", "voltage", ...), which
are of two kinds:

- gridded: ``data`` (samples, steps, neurons), and ``dt``, the length of a step;
- events: ``idx`` and ``time`` (samples, events), -1 and infinite where a sample has no more; ``n_neurons``,
  ``t_max``, and perhaps ``value``.

Times are in the unit of the graph, which no file says: seconds in almost all. ``labels``, a dataset at the
root, and the group ``delaynet`` are this package's own; ``nir`` passes them over.

Source: the package ``nir`` 1.0.8 (1.0.4 has no NIRData).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.files import replace_file
from delaynet_lava.formats.untrusted_hdf5 import Group, open_untrusted

__all__ = ["OWN", "Events", "Gridded", "NirData", "node_name", "read", "write"]

MAX_NODES, MAX_DEPTH, MAX_OWN = 4096, 8, 1 << 24
OWN = "delaynet"
"""Group of what this package keeps in a file beside the observables."""
_MIXED = "NIRGraphData, as nir.write_data writes it"


def node_name(index: int, readout: bool) -> str:
    """What the node of a layer is called, in graphs and in data."""
    return f"li{index}" if readout else f"lif{index}"


@dataclass(frozen=True, eq=False)
class Gridded:
    """A value for every step: ``data`` (samples, steps, neurons), a step lasts ``dt``."""

    data: np.ndarray
    dt: float


@dataclass(frozen=True, eq=False)
class Events:
    """Events: neuron and time, both (samples, events), padded with -1; the recording lasts ``t_max``."""

    idx: np.ndarray
    time: np.ndarray
    neurons: int
    t_max: float


@dataclass(frozen=True, eq=False)
class NirData:
    """An open file; an observable is read when it is asked for.

    Attributes:
        where: its name, for errors.
        names: observables by node, in the order of their names.
        labels: whole numbers (samples,) as stored; None: the file has none.
        own: the group that this package wrote; None: somebody else's file.
    """

    where: str
    names: Mapping[str, tuple[str, ...]]
    labels: np.ndarray | None
    own: Group | None
    groups: Mapping[tuple[str, str], Group] = field(default_factory=dict, repr=False)

    def get(self, node: str, observable: str) -> Gridded | Events:
        """What a node's observable was.

        Raises:
            InputError: there is none, or its arrays do not fit each other.
        """
        group = self.groups.get((node, observable))
        if group is None:
            known = ", ".join(f"{n} ({', '.join(names)})" for n, names in list(self.names.items())[:12])
            raise InputError(self.where, f"has no observable {observable[:60]!r} of {node[:60]!r}",
                             f"it has: {known or 'none'}")  # fmt: skip
        kind = group.attribute_text("__type__")
        if kind == "TimeGriddedData":
            return _gridded(group)
        if kind == "EventData":
            return _events(group)
        if kind == "ValuedEventData":
            raise group.refuse("__type__", "is ValuedEventData, events with values, which are not read",
                               "write it as TimeGriddedData: to_time_gridded(dt)")  # fmt: skip
        raise group.refuse("__type__", f"is {kind[:40]!r}, expected TimeGriddedData or EventData")


def _gridded(group: Group) -> Gridded:
    data, dt = group.array("data"), group.attribute_number("dt")
    if data.ndim != 3 or 0 in data.shape:
        raise group.refuse("data", f"has shape {data.shape}, expected (samples, steps, neurons)")
    if dt <= 0:
        raise group.refuse("dt", f"is {dt:g}, expected more than 0")
    return Gridded(data, dt)


def _events(group: Group) -> Events:
    idx, time = group.array("idx"), group.array("time")
    if idx.ndim != 2 or idx.shape != time.shape:
        raise group.refuse("idx", f"and time have shapes {idx.shape} and {time.shape}, expected one of both")
    if idx.dtype.kind not in "iu":
        raise group.refuse("idx", f"has type {idx.dtype}, expected whole numbers")
    neurons, t_max = group.attribute_number("n_neurons"), group.attribute_number("t_max")
    if not (0 < neurons < 1 << 31 and neurons == int(neurons)):
        raise group.refuse("n_neurons", f"is {neurons:g}, expected a whole number from 1 on")
    if t_max <= 0:
        raise group.refuse("t_max", f"is {t_max:g}, expected more than 0")
    return Events(idx, time, int(neurons), t_max)


def read(path: str | os.PathLike) -> NirData:
    """Open NIRData as a stranger's file: bounded, and neither ``h5py`` nor ``nir`` sees it.

    Raises:
        InputError: not NIRData, damaged, or too large.
    """
    root = open_untrusted(path)
    kind = root.attribute_text("__type__")
    if kind != "NIRGraphData":
        if "node" in root.keys:
            raise InputError(root.where, "is a NIR graph, not NIRData", "delaynet import reads it")
        raise InputError(root.where, f"is HDF5 of the type {kind[:40]!r}, not {_MIXED}")
    groups: dict[tuple[str, str], Group] = {}
    _walk(root, root.where, "", groups)
    names: dict[str, tuple[str, ...]] = {}
    for node, observable in groups:
        names[node] = (*names.get(node, ()), observable)
    labels = root.array("labels") if "labels" in root.keys else None
    return NirData(root.where, names, labels, root.group(OWN) if OWN in root.keys else None, groups)


def _walk(graph: Group, where: str, prefix: str, groups: dict[tuple[str, str], Group]) -> None:
    if prefix.count("/") > MAX_DEPTH:
        raise InputError(where, f"has graphs in graphs, more than {MAX_DEPTH} deep")
    nodes = graph.group("nodes")
    for key in sorted(nodes.keys):
        name = prefix + key
        node = nodes.group(key, f"{where}: node {name[:60]!r}")
        kind = node.attribute_text("__type__")
        if kind == "NIRGraphData":
            _walk(node, where, f"{name}/", groups)
        elif kind != "NIRNodeData":
            raise node.refuse("__type__", f"is {kind[:40]!r}, expected NIRNodeData or NIRGraphData")
        else:
            observables = node.group("observables")
            for one in sorted(observables.keys):
                if len(groups) >= MAX_NODES:
                    raise InputError(where, f"has more than {MAX_NODES} observables")
                groups[name, one] = observables.group(one, f"{where}: node {name[:60]!r}: {one[:60]!r}")


def own_values(data: NirData) -> tuple[dict[str, Any], Group]:
    """What :func:`write` was given as ``own``: plain values, and the group that holds the arrays.

    Raises:
        InputError: the file has none, or it is damaged.
    """
    if data.own is None:
        raise InputError(data.where, "is NIRData that Trace.save did not write, so it is no trace",
                         "use it as a task, or read its observables: formats.nir_data.read")  # fmt: skip
    text = data.own.text("values", MAX_OWN)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise data.own.refuse("values", f"is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise data.own.refuse("values", f"holds a {type(values).__name__}")
    return values, data.own


def write(
    path: str | os.PathLike,
    nodes: Mapping[str, Mapping[str, Gridded]],
    labels: np.ndarray | None = None,
    own: tuple[Mapping[str, Any], Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Write NIRData that ``nir.read_data`` reads; the same content gives the same bytes.

    Args:
        nodes: observables by node.
        labels: int64 (samples,), kept at the root.
        own: plain values and arrays of this package's.

    Raises:
        InputError: the place can't be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v108")) as file:
        file.attrs["__type__"] = "NIRGraphData"
        group = file.create_group("nodes")
        for name, observables in nodes.items():
            node = group.create_group(name.replace("/", "."))  # HDF5 makes groups of slashes
            node.attrs["__type__"] = "NIRNodeData"
            held = node.create_group("observables")
            for label, one in observables.items():
                entry = held.create_group(label)
                entry.attrs["__type__"] = "TimeGriddedData"
                entry.attrs["dt"] = float(one.dt)
                entry.create_dataset("data", data=one.data, compression="gzip", shuffle=True)
        if labels is not None:
            file["labels"] = np.asarray(labels, np.int64)
        if own is not None:
            kept = file.create_group(OWN)
            kept.create_dataset("values", data=json.dumps(dict(own[0])), dtype=h5py.string_dtype())
            for name, array in own[1].items():
                kept[name] = array
    replace_file(path, buffer.getvalue())
