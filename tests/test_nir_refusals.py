"""Refusals and notes of NIR graphs that a well-meant file meets seldom: each is reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.export.nir_export import graph_of, left_out
from delaynet_lava.export.nir_import import import_nir
from delaynet_lava.formats import nir_graph
from delaynet_lava.formats.nir_graph import NeuralGraph, Node


def lif(n: int = 3, **changes: Any) -> Node:
    values = {"tau": 2e-2, "r": 20.0, "v_leak": 0.0, "v_threshold": 5.0} | changes
    return Node("LIF", {k: np.full(n, v) if np.isscalar(v) else v for k, v in values.items()})


def graph(edges: str = "input>fc fc>lif lif>output", **nodes: Node) -> NeuralGraph:
    usual = {
        "input": Node("Input", {"shape": np.array([2])}),
        "fc": Node("Linear", {"weight": np.full((3, 2), 0.37)}),
        "lif": lif(),
        "output": Node("Output", {"shape": np.array([3])}),
    }
    pairs = [edge.split(">") for edge in edges.split()]
    return NeuralGraph(usual | nodes, tuple((a, b) for a, b in pairs))


CHAIN = "input>fc fc>lif lif>output"
FC, SQUARE = (Node("Linear", {"weight": np.ones((3, n))}) for n in (2, 3))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (graph(fc=Node("Linear", {"weight": np.ones(3)})), "weight has shape (3,), expected 2 dim"),
        (graph(fc=Node("Linear", {"weight": np.ones((3, 0))})), "'fc' (Linear): weight has shape (3, 0)"),
        (graph(input=Node("Input", {"shape": np.array([0])})), "(Input): has shape (0,), expected 1"),
        (graph(f"{CHAIN} input>lif"), "'lif' (LIF): gets inputs of different sizes: [2, 3]"),
        (graph(fc=Node("Linear", {})), "'fc' (Linear): has no 'weight'"),
        (graph(f"{CHAIN} input>more more>two two>lif", more=FC, two=lif()), "takes from"),
        (graph("fc>lif lif>fc2 fc2>fc lif>output input>fc3 fc3>output",
               fc=SQUARE, fc2=SQUARE, fc3=FC), "takes from"),
        (graph("fc>lif lif>fc lif>output input>fc3", fc=SQUARE, fc3=FC), "gets nothing from the input"),
        (graph(fc=Node("Linear", {"weight": np.zeros((3, 2))}), lif=lif(v_threshold=0.3)), "weights: are 0"),
    ],
)  # fmt: skip
def test_graphs(found, message):
    with pytest.raises(InputError) as error:
        import_nir(found)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_delays_between_steps_are_rounded_and_said():
    found = graph("input>d d>fc fc>lif lif>output", d=Node("Delay", {"delay": np.array([1e-3, 2.4e-3])}))
    notes = import_nir(found).notes
    assert "node 'd' (Delay): delays are rounded to whole steps, by up to 0.40" in notes


def test_an_input_of_nodes_beyond_the_limit(monkeypatch, tmp_path):
    nir_graph.write(graph_of(network()), tmp_path / "g.nir")
    monkeypatch.setattr(nir_graph, "MAX_NODES", 3)
    with pytest.raises(InputError, match="has more than 3 nodes"):
        nir_graph.read(tmp_path / "g.nir")


def network(**changes: Any) -> Network:
    return Network((Dense(Synapse([[2, 4], [6, 8]]), Neuron(10, 4096, 100, **changes)),))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "holds a list")])
def test_metadata_that_is_not_ours(tmp_path, text, message):
    h5py = pytest.importorskip("h5py")
    nir_graph.write(graph_of(network()), tmp_path / "g.nir")
    with h5py.File(tmp_path / "g.nir", "a") as file:
        del file["node/metadata/delaynet"]
        file["node/metadata/delaynet"] = text
    with pytest.raises(InputError, match=f"metadata/delaynet: {message}"):
        nir_graph.read(tmp_path / "g.nir")


def test_what_nir_cannot_say_is_named():
    texts = left_out(
        network(membrane_bits=8, full_scale_exp=16, v_init=np.array([512, 0])).with_(tail=2, average=1)
    )
    assert any("NIR has no membranes of 8 bits" in text for text in texts)
    assert any("NIR has no initial states; with others neurons begin at rest" in text for text in texts)
    assert "the file leaves out that the network runs 2 steps beyond its samples" in texts
    assert "NIR has no average over 1 groups of outputs" in texts
    assert fx.MEMBRANE_BITS == 24
