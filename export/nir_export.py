"""A :class:`Network` as a NIR graph: Euler's step of its equations is our recurrence before it truncates.

With a step of ``dt``:

    tau_syn = dt 4096 / du, w_in = 4096 / du        tau_mem = dt 4096 / dv, r = 4096 / dv

so every step adds a synapse's weight, exponent included, to the current and the current to the membrane,
and ``dt = tau_mem / r`` comes back from the file. A bias of the membrane is ``v_leak``.
"""

from __future__ import annotations

import os
import warnings
from itertools import pairwise
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.export.nir_import import DEFAULTS, NirWarning
from delaynet_lava.formats import nir_graph
from delaynet_lava.formats.nir_data import node_name
from delaynet_lava.formats.nir_graph import NeuralGraph, Node
from delaynet_lava.network import Dense, Network, Neuron, Synapse, lif

__all__ = ["graph_of", "left_out", "to_nir", "write_nir"]

# A state that never decays has an infinite time constant. A float32 of this one still loses nothing in a
# step, and `tau / r` is still the step.
_NEVER = float(1 << 40)


def graph_of(network: Network) -> NeuralGraph:
    """The graph of a network, times in seconds.

    Recurrent delays are ``Delay`` nodes in the loop, whose own step NIR leaves implicit. What NIR has no
    word for (soft reset, narrow membranes, initial states, exponents, average, decision) is kept in the
    graph's metadata, which other tools do not read; :func:`left_out` names what of it changes the network.

    Raises:
        InputError: an encoder, or Spiking Recurrent Cells: no node of NIR is such.
    """
    dt = network.dt_ms * 1e-3
    nodes = {"input": Node("Input", {"shape": np.array([network.channels])})}
    edges: list[tuple[str, str]] = []
    before = "input"
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Dense):
            raise InputError(
                f"layer {index}", "is an encoder, whose inputs are values of its bias: NIR has no such node",
                "export the network without it",
            )  # fmt: skip
        lif(layer, f"layer {index}", "which no node of NIR is", "write a net.h5, which can say it")
        name = node_name(index, layer.neuron.is_readout)
        nodes[name] = _neurons(layer, dt)
        edges += _connect(nodes, before, name, layer.synapse, f"fc{index}", dt)
        if layer.recurrent is not None:
            edges += _connect(nodes, name, name, layer.recurrent, f"{name}.w_rec", dt)
        before = name
    nodes["output"] = Node("Output", {"shape": np.array([network.layers[-1].size])})
    edges.append((before, "output"))
    return NeuralGraph(nodes, tuple(edges), "graph", _metadata(network))


def to_nir(network: Network) -> Any:
    """A ``nir.NIRGraph`` of a network.

    Raises:
        InputError: as :func:`graph_of`, or the package ``nir`` is not installed.

    Warns:
        NirWarning: NIR can't say all of it.
    """
    for text in left_out(network):
        warnings.warn(text, NirWarning, stacklevel=2)
    return nir_graph.to_object(graph_of(network))


def write_nir(network: Network, path: str | os.PathLike) -> list[str]:
    """Write a ``graph.nir``; returns what NIR can't say of the network.

    Raises:
        InputError: as :func:`graph_of`, or a place that can't be written.
    """
    nir_graph.write(graph_of(network), path)
    return left_out(network)


def left_out(network: Network) -> list[str]:
    """What another reader of the graph will get wrong, a line each."""
    texts = []
    for index, layer in enumerate(network.layers):
        where = f"layer {index}"
        neuron = lif(layer, where, "which no node of NIR is")
        if neuron.is_readout and not neuron.forgetful:
            texts.append(
                f"{where}: nir 1.0.4 has no CubaLI, a readout with a current; 1.0.5 and later read it"
            )
        if neuron.reset != "zero" and not neuron.is_readout:
            texts.append(f"{where}: NIR has no soft reset; others will reset the membrane to 0")
        if neuron.membrane_bits != fx.MEMBRANE_BITS:
            texts.append(f"{where}: NIR has no membranes of {neuron.membrane_bits} bits")
        if np.any(neuron.v_init) or np.any(neuron.u_init):
            texts.append(f"{where}: NIR has no initial states; with others neurons begin at rest")
    if network.payload.bits:
        texts.append(f"NIR does not say what comes in; the file leaves out that it is {network.payload}")
    if network.tail:
        texts.append(f"the file leaves out that the network runs {network.tail} steps beyond its samples")
    if network.average is not None:
        texts.append(f"NIR has no average over {network.average} groups of outputs")
    return texts


def _metadata(network: Network) -> dict[str, Any]:
    layers = []
    for layer in network.layers:
        neuron = lif(layer, "layer", "which no node of NIR is")
        one: dict[str, Any] = {"reset": neuron.reset, "bias_exp": neuron.bias_exp}
        if neuron.is_readout:
            one["vth"] = neuron.vth
        if neuron.membrane_bits != fx.MEMBRANE_BITS:
            one |= {"membrane_bits": neuron.membrane_bits, "full_scale_exp": neuron.full_scale_exp}
        for key in ("v_init", "u_init"):
            if np.any(state := getattr(neuron, key)):
                one[key] = state.tolist()
        if isinstance(layer, Dense):
            one["weight_exp"] = layer.synapse.weight_exp
            if layer.recurrent is not None:
                one["weight_rec_exp"] = layer.recurrent.weight_exp
        layers.append(one)
    found: dict[str, Any] = {
        "dt_ms": network.dt_ms,
        "readings": dict(DEFAULTS),
        "layers": layers,
        "profile": network.profile,
        "task": network.task,
        "provenance": network.provenance,
    }
    if network.average is not None:
        found["average"] = network.average
    if network.decision is not None:
        found["decision"] = str(network.decision)
    return found


def _slow(decays: np.ndarray) -> np.ndarray:
    return np.where(decays == 0, _NEVER, fx.DECAY_ONE / np.maximum(decays, 1))


def _neurons(layer: Dense, dt: float) -> Node:
    neuron, size = lif(layer, "layer", "which no node of NIR is"), layer.size
    full = _parameters(neuron, size, dt)
    # Per step the membrane takes v_leak dv / 4096; the weights count 64 of its units.
    bias = neuron.shifted_bias(size) / (1 << fx.STATE_SHIFT)
    full["v_leak"] = bias * _slow(neuron.decays(size)[1])
    kind = ("Cuba" if "tau_syn" in full else "") + ("LI" if neuron.is_readout else "LIF")
    if not neuron.is_readout:
        full["v_threshold"] = np.full(size, float(neuron.vth))
    return Node(kind, full)


def _parameters(neuron: Neuron, size: int, dt: float) -> dict[str, np.ndarray]:
    slow_u, slow_v = _slow(neuron.decays(size))
    if neuron.forgetful:
        return {"tau": dt * slow_v, "r": slow_v}
    return {"tau_syn": dt * slow_u, "w_in": slow_u, "tau_mem": dt * slow_v, "r": slow_v}


def _connect(
    nodes: dict[str, Node], source: str, target: str, synapse: Synapse, name: str, dt: float
) -> list[tuple[str, str]]:
    """Nodes and edges of one synapse: delays before the weights where each sender has one, behind them where
    each receiver has one, else a way for each delay."""
    weight = synapse.weight.astype(np.float64) * 2.0**synapse.weight_exp
    used = synapse.weight != 0
    low = np.where(used, synapse.delay.astype(np.int64), fx.V_MAX)
    high = np.where(used, synapse.delay.astype(np.int64), 0)
    if not high.any():
        nodes[name] = Node("Linear", {"weight": weight})
        return [(source, name), (name, target)]
    for axis, forward in ((0, True), (1, False)):
        if np.all(np.minimum(low.min(axis=axis), high.max(axis=axis)) == high.max(axis=axis)):
            delay = Node("Delay", {"delay": high.max(axis=axis) * dt})
            nodes[name], nodes[f"{name}.delay"] = Node("Linear", {"weight": weight}), delay
            chain = (
                [source, f"{name}.delay", name, target]
                if forward
                else [source, name, f"{name}.delay", target]
            )
            return list(pairwise(chain))
    edges = []
    for steps in np.unique(synapse.delay[used]):
        part = f"{name}.{steps}"
        nodes[part] = Node("Linear", {"weight": np.where(synapse.delay == steps, weight, 0.0)})
        before = source
        if steps:
            size = synapse.shape[1]
            nodes[f"{part}.delay"] = Node("Delay", {"delay": np.full(size, steps * dt)})
            edges.append((source, f"{part}.delay"))
            before = f"{part}.delay"
        edges += [(before, part), (part, target)]
    return edges
