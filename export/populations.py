"""From a NIR graph to a stack of populations: what lies between two neuron nodes becomes one matrix.

Between two nodes with neurons, ``Linear``, ``Affine``, ``Scale``, ``Delay`` and ``Flatten`` are linear, so
each way from a sender to a receiver is a matrix of weights and one of delays; ways that meet add up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats.nir_graph import NeuralGraph
from delaynet_lava.formats.untrusted_hdf5 import MAX_ELEMENTS
from delaynet_lava.network import DELAY_LIMIT

__all__ = ["NEURONS", "Population", "Way", "stack"]

NEURONS = {
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "LI": ("tau", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "w_in"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
}
"""Nodes that become neurons, and the numbers that each needs."""
_OPTIONAL = {"w_in": 1.0}
_LINEAR = ("Linear", "Affine", "Scale", "Delay", "Flatten", "Input", "Output")
_REFUSED = {
    "IF": "it forgets nothing, and frameworks do not agree on its gain a step; use LIF with a long tau",
    "I": "it forgets nothing, and frameworks do not agree on its gain a step; use LI with a long tau",
    "Threshold": "a threshold without a membrane is no neuron of the chip",
    "Conv1d": "convolutions are not run; write it as a Linear",
    "Conv2d": "convolutions are not run; write it as a Linear",
    "SumPool2d": "pooling is not run; write it as a Linear",
    "AvgPool2d": "pooling is not run; write it as a Linear",
}
MAX_SIZE = 1 << 20
FREE_ELEMENTS, WORK_ELEMENTS, WAY_ELEMENTS = 1 << 24, 16, 256
"""Weights that any graph may multiply out to, those it may beside for each number of its file, and what one
more way through the graph counts, however small."""


@dataclass(frozen=True, eq=False)
class Way:
    """``y_i[t] = sum_j weight[i, j] x_j[t - delay[i, j]]``; both of one dimension: only i = j."""

    weight: np.ndarray
    delay: np.ndarray

    def dense(self) -> Way:
        """The same with two dimensions."""
        if self.weight.ndim == 2:
            return self
        return Way(np.diag(self.weight), np.diag(self.delay))


@dataclass(frozen=True, eq=False)
class _Signal:
    """What arrives at a node: ways by sender ("": the input), and a constant."""

    ways: dict[str, list[Way]]
    bias: np.ndarray

    @property
    def size(self) -> int:
        return len(self.bias)


@dataclass(frozen=True, eq=False)
class Population:
    """One layer: a node with neurons, or what leads to the output without any.

    Attributes:
        name, kind: of the node; kind "" for an output without neurons.
        values: float64 (neurons,) by name.
        forward: way from the layer before, or from the input.
        loop: way from itself; None: not recurrent.
        bias: float64 (neurons,), what arrives at every step.
    """

    name: str
    kind: str
    values: dict[str, np.ndarray]
    forward: Way
    loop: Way | None
    bias: np.ndarray

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.bias)


class _Walk:
    def __init__(self, graph: NeuralGraph, dt: float, notes: list[str]) -> None:
        self.graph, self.dt, self.notes = graph, dt, notes
        self.into: dict[str, list[str]] = defaultdict(list)
        for source, target in graph.edges:
            self.into[target].append(source)
        self.known: dict[str, _Signal] = {}
        stored = sum(array.size for node in graph.nodes.values() for array in node.values.values())
        self.budget = FREE_ELEMENTS + WORK_ELEMENTS * stored

    def spend(self, name: str, elements: int) -> None:
        """Refuse graphs that multiply out to far more than their file holds, before they do."""
        self.budget -= elements
        if self.budget < 0:
            raise self.graph.refuse(
                name,
                "multiplies out to far more weights than its file holds",
                "write the product as one Linear",
            )

    def numbers(self, name: str, key: str, ndim: int | None = None) -> np.ndarray:
        values = self.graph.nodes[name].values
        if key not in values:
            raise self.graph.refuse(name, f"has no {key!r}")
        array = np.asarray(values[key], np.float64)
        if ndim is not None and array.ndim != ndim:
            raise self.graph.refuse(name, f"{key} has shape {array.shape}, expected {ndim} dimensions")
        if array.size == 0 or array.size > MAX_ELEMENTS:
            raise self.graph.refuse(name, f"{key} has shape {array.shape}")
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(n) for n in self.numbers(name, "shape").reshape(-1))
        if min(shape) < 1 or math.prod(shape) > MAX_SIZE:
            raise self.graph.refuse(name, f"has shape {shape[:8]}, expected 1 to {MAX_SIZE} values")
        return shape

    def size(self, name: str) -> int:
        """How many values a node gives, as far as the nodes before it say without going round a loop."""
        waiting, seen = [name], {name}
        while waiting:
            here = waiting.pop(0)
            kind, values = self.graph.nodes[here].kind, self.graph.nodes[here].values
            if kind in ("Linear", "Affine"):
                return len(self.numbers(here, "weight", 2))
            if kind == "Input":
                return math.prod(self.shape(here))
            largest = max(
                (values[key].size for key in values if kind in ("Delay", "Scale", *NEURONS)), default=1
            )
            if largest > 1:
                return largest
            for one in self.into[here]:
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return 1

    def signal(self, name: str, passed: tuple[str, ...] = ()) -> _Signal:
        """What a node gives."""
        if name in passed:
            raise self.graph.refuse(name, "is in a loop without neurons")
        if name not in self.known:
            self.known[name] = self._signal(name, (*passed, name))
        return self.known[name]

    def _signal(self, name: str, passed: tuple[str, ...]) -> _Signal:
        kind = self.graph.nodes[name].kind
        if kind in NEURONS or (kind == "Input" and not self.into[name]):
            sender = "" if kind == "Input" else name
            n = self.size(name)
            self.spend(name, n)
            return _Signal({sender: [Way(np.ones(n), np.zeros(n, np.int64))]}, np.zeros(n))
        if kind not in _LINEAR:
            why = _REFUSED.get(kind, "this type is not known here")
            raise self.graph.refuse(name, f"can't be run: {why}")
        signal = self.arriving(name, passed)
        if kind in ("Linear", "Affine"):
            return self._linear(name, signal)
        if kind in ("Scale", "Delay"):
            return self._each(name, signal, kind)
        return signal

    def arriving(self, name: str, passed: tuple[str, ...] = ()) -> _Signal:
        """The sum of what comes into a node."""
        if not self.into[name]:
            raise self.graph.refuse(name, "gets no input: no edge leads to it")
        parts = [self.signal(source, passed) for source in self.into[name]]
        sizes = {part.size for part in parts}
        if len(sizes) > 1:
            raise self.graph.refuse(name, f"gets inputs of different sizes: {sorted(sizes)}")
        every = (way for part in parts for some in part.ways.values() for way in some)
        self.spend(name, sum(WAY_ELEMENTS + way.weight.size for way in every))
        ways: dict[str, list[Way]] = {}
        for part in parts:
            for sender, some in part.ways.items():
                ways.setdefault(sender, []).extend(some)
        return _Signal(ways, np.sum([part.bias for part in parts], axis=0))

    def _linear(self, name: str, signal: _Signal) -> _Signal:
        matrix = self.numbers(name, "weight", 2)
        if matrix.shape[1] != signal.size:
            raise self.graph.refuse(
                name, f"has weights of shape {matrix.shape}, but {signal.size} values come in"
            )
        bias = matrix @ signal.bias
        if self.graph.nodes[name].kind == "Affine":
            bias = bias + self._broadcast(name, "bias", len(matrix))
        ways = {s: [self._through(name, matrix, way) for way in some] for s, some in signal.ways.items()}
        return _Signal(ways, bias)

    def _through(self, name: str, matrix: np.ndarray, way: Way) -> Way:
        self.spend(name, len(matrix) * way.weight.shape[-1])
        if way.weight.ndim == 1:
            return Way(matrix * way.weight, np.broadcast_to(way.delay, matrix.shape))
        used = way.weight != 0
        low = np.where(used, way.delay, DELAY_LIMIT).min(axis=0)
        high = np.where(used, way.delay, 0).max(axis=0)
        if np.any(low < high):
            raise self.graph.refuse(
                name,
                "mixes values of one sender that come with different delays",
                "delay behind it, or split it",
            )
        weight = matrix @ way.weight
        return Way(weight, np.broadcast_to(np.minimum(low, high), weight.shape))

    def _each(self, name: str, signal: _Signal, kind: str) -> _Signal:
        if kind == "Scale":
            scale = self._broadcast(name, "scale", signal.size)
            ways = {
                s: [replace(w, weight=(w.weight.T * scale).T) for w in some]
                for s, some in signal.ways.items()
            }
            return _Signal(ways, signal.bias * scale)
        exact = self._broadcast(name, "delay", signal.size) / self.dt
        steps = np.rint(exact)
        if steps.min() < 0 or steps.max() > DELAY_LIMIT:
            raise self.graph.refuse(
                name, f"delays by {exact.min():.6g} to {exact.max():.6g} steps, outside 0 to {DELAY_LIMIT}"
            )
        off = float(np.abs(exact - steps).max())
        if off > 1e-3:
            self.notes.append(f"node {name!r} (Delay): delays are rounded to whole steps, by up to {off:.2f}")
        whole = steps.astype(np.int64)
        ways = {s: [replace(w, delay=(w.delay.T + whole).T) for w in some] for s, some in signal.ways.items()}
        return _Signal(ways, signal.bias)

    def _broadcast(self, name: str, key: str, size: int) -> np.ndarray:
        array = self.numbers(name, key).reshape(-1)
        if array.size not in (1, size):
            raise self.graph.refuse(name, f"{key} has {array.size} values, but {size} come in")
        return np.broadcast_to(array, (size,))

    def population(self, name: str, before: str) -> Population:
        """The layer of a node, behind the node or the input ``before``."""
        node, arriving = self.graph.nodes[name], self.arriving(name)
        known = {name, before}
        strange = [sender or "the input" for sender in arriving.ways if sender not in known]
        if strange:
            raise self.graph.refuse(
                name,
                f"takes from {before or 'the input'!r} and from {strange[0]!r}; a layer takes from one other "
                "layer and from itself",
                "send the second one through the first, or merge the two",
            )
        values = {}
        for key in NEURONS.get(node.kind, ()):
            if key in _OPTIONAL and key not in node.values:
                values[key] = np.full(arriving.size, _OPTIONAL[key])
            else:
                values[key] = self._broadcast(name, key, arriving.size)
        self._check(name, values)
        loop = self._merge(name, arriving.ways[name]) if name in arriving.ways else None
        forward = self._merge(name, arriving.ways[before])
        return Population(name, node.kind, values, forward, loop, arriving.bias)

    def _check(self, name: str, values: dict[str, np.ndarray]) -> None:
        for key, array in values.items():
            if key.startswith("tau") and array.min() <= 0:
                raise self.graph.refuse(name, f"{key} is {array.min():g}, expected more than 0")
        if "v_threshold" in values and values["v_threshold"].min() < 0:
            raise self.graph.refuse(
                name, f"v_threshold is {values['v_threshold'].min():g}, the chip's is 0 or more"
            )
        reset = self.graph.nodes[name].values.get("v_reset")
        if reset is not None and np.any(reset):
            raise self.graph.refuse(
                name, f"v_reset is {np.ravel(reset)[np.flatnonzero(reset)[0]]:g}, the chip resets to 0",
                "shift threshold and v_leak by it, and set it to 0",
            )  # fmt: skip

    def _merge(self, name: str, ways: list[Way]) -> Way:
        """The sum of several ways, where no synapse has two delays."""
        self.spend(name, sum(w.weight.size ** (3 - w.weight.ndim) for w in ways))
        parts = [way.dense() for way in ways]
        weight = np.zeros(parts[0].weight.shape)
        delay = np.zeros(weight.shape, np.int64)
        taken = np.zeros(weight.shape, bool)
        for part in parts:
            used = part.weight != 0
            if np.any(used & taken & (part.delay != delay)):
                raise self.graph.refuse(
                    name, "has a synapse with two delays: two ways from the same sender to the same neuron",
                    "keep one of them",
                )  # fmt: skip
            weight += part.weight
            delay = np.where(used, part.delay, delay)
            taken |= used
        return Way(weight, delay)


def _senders(walk: _Walk, name: str) -> list[str]:
    return [sender for sender in walk.arriving(name).ways if sender != name]


def stack(graph: NeuralGraph, dt: float) -> tuple[tuple[int, ...], list[Population], list[str]]:
    """The layers of a graph, from its input to its output.

    Args:
        dt: a time step, in the graph's unit of time.

    Returns:
        The input's shape, the layers, and notes on what was rounded or left out.

    Raises:
        InputError: by node, type and reason: what can't be run, or is no stack of layers.
    """
    try:
        return _stack(graph, dt)
    except RecursionError:
        raise InputError(graph.where, "has hundreds of nodes in a row without neurons") from None


def _stack(graph: NeuralGraph, dt: float) -> tuple[tuple[int, ...], list[Population], list[str]]:
    notes: list[str] = []
    walk = _Walk(graph, dt, notes)
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, node in graph.nodes.items():
        if node.kind not in (*_LINEAR, *NEURONS):
            walk.signal(name)  # refuses it
        kinds[node.kind].append(name)
    inputs = [name for name in kinds["Input"] if not walk.into[name]]
    sources = {source for source, _ in graph.edges}
    outputs = [name for name in kinds["Output"] if name not in sources]
    for what, found in (("Input", inputs), ("Output", outputs)):
        if len(found) != 1:
            raise InputError(graph.where, f"has {len(found)} {what} nodes at its ends, expected one")
    shape = walk.shape(inputs[0])
    if len(shape) > 1:
        notes.append(f"the input of shape {shape} is taken row by row, the last index first")
    # Backwards from the output, each layer names the one before it.
    order, last = [], outputs[0]
    senders = _senders(walk, last)
    plain = walk.arriving(last)
    direct = len(senders) == 1 and senders[0] and _is_identity(plain, senders[0])
    here = senders[0] if direct else last
    while here:
        order.append(here)
        senders = _senders(walk, here)
        before = [s for s in senders if s not in order]
        if len(senders) != 1 or (not before and senders[0]):
            raise graph.refuse(here, _no_stack(senders, order))
        here = senders[0]
    layers = []
    for name, earlier in zip(order, [*order[1:], ""], strict=True):
        layers.append(walk.population(name, earlier))
    unused = sorted({n for kind in NEURONS for n in kinds[kind]} - set(order))
    if unused:
        raise graph.refuse(unused[0], "leads to no output", "remove it, or connect it")
    return shape, layers[::-1], notes


def _is_identity(signal: _Signal, sender: str) -> bool:
    ways = signal.ways[sender]
    if len(ways) != 1 or ways[0].weight.ndim != 1 or np.any(signal.bias):
        return False
    return bool(np.all(ways[0].weight == 1) and not np.any(ways[0].delay))


def _no_stack(senders: list[str], order: list[str]) -> str:
    if not senders:
        return "gets nothing from the input"
    back = [s for s in senders if s in order]
    if back:
        return f"is in a loop with {back[0]!r}; a loop may hold one node with neurons"
    names = ", ".join(repr(s or "the input") for s in senders)
    return f"takes from {names}; a layer takes from one other layer and from itself"
