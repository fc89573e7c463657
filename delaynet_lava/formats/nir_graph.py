"""``graph.nir``: the graphs of the Neuromorphic Intermediate Representation, read and written as they are.

A file holds ``version`` and ``node``, a graph: ``type``, ``edges`` (N, 2) of names, ``nodes/<name>`` with a
``type`` and numbers of its own. A node may be a graph itself. What the nodes mean to a chip is said in
:mod:`delaynet_lava.export.nir_import`; this module knows only names, types and numbers.

Source: Pedersen et al., doi 10.1038/s41467-024-52259-9, and the package ``nir`` 1.0.4 to 1.0.8.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.files import replace_file
from delaynet_lava.formats.untrusted_hdf5 import Group, open_untrusted

__all__ = ["METADATA", "NeuralGraph", "Node", "from_object", "read", "to_object", "write"]

MAX_NODES, MAX_EDGES, MAX_DEPTH, MAX_METADATA = 4096, 1 << 16, 8, 1 << 24
METADATA = "delaynet"
"""Key of the graph's metadata under which this package keeps, as JSON, what the format has no word for."""
# The version of the format that `nir` 1.0.4 writes; later releases read it.
_VERSION = "1.0.4"


@dataclass(frozen=True, eq=False)
class Node:
    """One node: its type and its numbers by name (``weight``, ``tau_mem``, ``shape``, ...)."""

    kind: str
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NeuralGraph:
    """A graph without subgraphs: those of a file are laid open, their nodes called ``graph/node``.

    Attributes:
        nodes: by name.
        edges: (from, to) by name, each once.
        where: how errors call the graph.
        metadata: what this package kept in it; empty in others' graphs.
    """

    nodes: Mapping[str, Node]
    edges: tuple[tuple[str, str], ...]
    where: str = "graph"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def refuse(self, name: str, problem: str, remedy: str = "") -> InputError:
        """An error about a node, to be raised: its name, type and what is wrong."""
        kind = f" ({self.nodes[name].kind})" if name in self.nodes else ""
        return InputError(f"{self.where}: node {name[:60]!r}{kind}", problem, remedy)


def read(path: str | os.PathLike) -> NeuralGraph:
    """Read a ``graph.nir`` as a stranger's file: bounded, and neither ``h5py`` nor ``nir`` sees it.

    Raises:
        InputError: not a NIR file, damaged, too large, or a graph whose edges do not fit its nodes.
    """
    root = open_untrusted(path)
    if "node" not in root.keys and root.attribute_text("__type__") == "NIRGraphData":
        raise InputError(root.where, "is NIRData, samples and no graph", "give it to --task")
    if "node" not in root.keys:
        raise InputError(root.where, "is HDF5 but has no 'node', so it is no NIR graph")
    graph = root.group("node")
    if graph.text("type") != "NIRGraph":
        raise graph.refuse("type", f"is {graph.text('type')!r}, expected NIRGraph")
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    _lay_open(graph, root.where, "", nodes, edges)
    metadata = {}
    if "metadata" in graph.keys and METADATA in graph.group("metadata").keys:
        metadata = _metadata(graph.group("metadata").text(METADATA, MAX_METADATA), root.where)
    return NeuralGraph(nodes, tuple(edges), root.where, metadata)


def _metadata(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: metadata/{METADATA}", f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: metadata/{METADATA}", f"holds a {type(value).__name__}")
    return value


def _lay_open(
    graph: Group, where: str, prefix: str, nodes: dict[str, Node], edges: list[tuple[str, str]]
) -> None:
    """Nodes and edges of a graph and of the graphs in it."""
    _not_too_deep(prefix, where)
    group = graph.group("nodes")
    inner: set[str] = set()
    for key in sorted(group.keys):
        name = prefix + key
        _not_too_many(nodes, where)
        node = group.group(key, f"{where}: node {name[:60]!r}")
        kind = node.text("type")
        if kind == "NIRGraph":
            inner.add(key)
            _lay_open(node, where, f"{name}/", nodes, edges)
            continue
        nodes[name] = Node(kind, {k: _numbers(node, k) for k in sorted(node.keys) if _kept(node, k)})
    text = graph.texts("edges", (None, 2), 1 << 20) if "edges" in graph.keys else []
    own = list(zip(text[::2], text[1::2], strict=True))
    if len(own) + len(edges) > MAX_EDGES:
        raise InputError(where, f"has more than {MAX_EDGES} edges")
    edges += [_joined(edge, prefix, inner, nodes, where) for edge in _once(own, where)]


def _not_too_deep(prefix: str, where: str) -> None:
    if prefix.count("/") > MAX_DEPTH:
        raise InputError(where, f"has graphs in graphs, more than {MAX_DEPTH} deep")


def _not_too_many(nodes: Mapping[str, Node], where: str) -> None:
    if len(nodes) >= MAX_NODES:
        raise InputError(where, f"has more than {MAX_NODES} nodes")


def _kept(node: Group, key: str) -> bool:
    # What a Flatten says of its input's shape is "None" in some files, and follows from the graph.
    return key not in ("type", "metadata", "input_type", "input_shape")


def _numbers(node: Group, key: str) -> np.ndarray:
    array = node.array(key)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise node.refuse(key, "holds a value that is not a finite number")
    return array


def _once(edges: list[tuple[str, str]], where: str) -> list[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    for edge in edges:
        if edge in seen:
            raise InputError(where, f"has the edge {edge[0][:60]!r} to {edge[1][:60]!r} twice")
        seen.add(edge)
    return edges


def _joined(
    edge: tuple[str, str], prefix: str, inner: set[str], nodes: Mapping[str, Node], where: str
) -> tuple[str, str]:
    """An edge with both ends as nodes of the open graph: a graph stands for its Input or its Output."""
    ends = []
    for end, kind in zip(edge, ("Output", "Input"), strict=True):
        name = prefix + end
        if end in inner:
            found = [k for k, n in nodes.items() if k.rpartition("/")[0] == name and n.kind == kind]
            if len(found) != 1:
                raise InputError(
                    f"{where}: node {name[:60]!r} (NIRGraph)", f"has {len(found)} {kind} nodes, expected one"
                )
            name = found[0]
        elif name not in nodes:
            # Some writers name a subgraph's own end: "block.input".
            head, dot, tail = end.rpartition(".")
            name = f"{prefix}{head}/{tail}"
            if not dot or head not in inner or name not in nodes:
                raise InputError(where, f"has an edge to a node {end[:60]!r} that is not there")
        ends.append(name)
    return ends[0], ends[1]


def from_object(graph: Any, where: str = "graph") -> NeuralGraph:
    """The graph of a ``nir.NIRGraph``.

    Raises:
        InputError: as :func:`read`, or another object.
    """
    if not all(hasattr(graph, name) for name in ("nodes", "edges", "to_dict")):
        raise InputError(where, f"is a {type(graph).__name__}, expected a nir.NIRGraph or a path")
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    _lay_object_open(graph, where, "", nodes, edges)
    text = (graph.metadata or {}).get(METADATA)
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    return NeuralGraph(nodes, tuple(edges), where, _metadata(text, where) if text else {})


def _lay_object_open(
    graph: Any, where: str, prefix: str, nodes: dict[str, Node], edges: list[tuple[str, str]]
) -> None:
    _not_too_deep(prefix, where)
    inner = set()
    for key, node in graph.nodes.items():
        name = prefix + key
        _not_too_many(nodes, where)
        if hasattr(node, "nodes"):
            inner.add(key)
            _lay_object_open(node, where, f"{name}/", nodes, edges)
            continue
        values = {}
        for label, value in node.to_dict().items():
            array = np.asarray(value)
            if array.dtype.kind in "biuf" and label not in ("input_type", "input_shape"):
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise InputError(f"{where}: node {name!r}: {label}", "is not finite")
                values[label] = array
        nodes[name] = Node(type(node).__name__, values)
    own = _once([(str(a), str(b)) for a, b in graph.edges], where)
    edges += [_joined(edge, prefix, inner, nodes, where) for edge in own]


def to_object(graph: NeuralGraph) -> Any:
    """A ``nir.NIRGraph``.

    Raises:
        InputError: the package ``nir`` is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise InputError("nir", "is not installed", "pip install nir") from error
    made = {}
    for name, node in graph.nodes.items():
        values = dict(node.values)
        if node.kind == "Input":
            made[name] = nir.Input(input_type={"input": values["shape"]})
        elif node.kind == "Output":
            made[name] = nir.Output(output_type={"output": values["shape"]})
        else:
            made[name] = getattr(nir, node.kind)(**values)
    metadata = {METADATA: json.dumps(dict(graph.metadata))} if graph.metadata else {}
    return nir.NIRGraph(nodes=made, edges=list(graph.edges), metadata=metadata)


def write(graph: NeuralGraph, path: str | os.PathLike) -> None:
    """Write a ``graph.nir`` that ``nir`` 1.0.4 and later read; the same graph gives the same bytes.

    ``nir`` 1.0.4, which some frameworks pin, does not know ``v_reset``: it is written where it is not zero.

    Raises:
        InputError: the place can't be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v108")) as file:
        file.create_dataset("version", data=_VERSION, dtype=h5py.string_dtype())
        node = file.create_group("node")
        node.create_dataset("type", data="NIRGraph", dtype=h5py.string_dtype())
        _write_edges(node, graph.edges)
        nodes = node.create_group("nodes")
        for name, one in graph.nodes.items():
            group = nodes.create_group(_flat(name))
            group.create_dataset("type", data=one.kind, dtype=h5py.string_dtype())
            for key, value in one.values.items():
                if key == "v_reset" and not np.any(value):
                    continue
                packed = {"compression": "gzip"} if value.size > 64 else {}
                group.create_dataset(key, data=value, **packed)
        if graph.metadata:
            text = json.dumps(dict(graph.metadata))
            node.create_group("metadata").create_dataset(METADATA, data=text, dtype=h5py.string_dtype())
    replace_file(path, buffer.getvalue())


def _flat(name: str) -> str:
    # HDF5 would make a group of what stands before a slash.
    return name.replace("/", ".")


def _write_edges(group: h5py.Group, edges: Iterable[tuple[str, str]]) -> None:
    data = np.array([[_flat(a).encode(), _flat(b).encode()] for a, b in edges], dtype=object)
    group.create_dataset("edges", data=data, dtype=h5py.string_dtype())
