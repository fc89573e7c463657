"""Refusals and notes of NIR graphs that a well-meant file meets seldom: each is reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.export.float_layers import FloatLayer, bias_word, quantise, words
from delaynet_lava.export.nir_export import graph_of, left_out
from delaynet_lava.export.nir_import import Readings, import_nir
from delaynet_lava.formats import nir_graph
from delaynet_lava.formats.nir_graph import NeuralGraph, Node
from delaynet_lava.network import DELAY_LIMIT
from delaynet_lava.payloads import Payload

nir = pytest.importorskip("nir")


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
LATEST = Node("Delay", {"delay": np.full(2, DELAY_LIMIT * 1e-3)})


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
        (graph("input>fc fc>s s>lif lif>output", fc=Node("Linear", {"weight": np.full((3, 2), 1e300)}),
               s=Node("Scale", {"scale": np.full(3, 1e300)})),
         "'lif' (LIF): multiplies out to numbers beyond float64; scale"),
        (graph(lif=lif(v_threshold=1e-310)), "lif: weights: are inf to inf thresholds; scale them down"),
        (graph(lif=lif(v_leak=1e9)), "'lif': lif: bias: "),
        (graph("input>d d>e e>fc fc>lif lif>output", d=LATEST, e=LATEST), "lif: has delays of 65534 to "),
    ],
)  # fmt: skip
def test_graphs(found, message):
    with pytest.raises(InputError) as error:
        import_nir(found)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_old_order_takes_a_step_that_the_longest_delay_has_not():
    cuba = {"tau_syn": 4e-3, "w_in": 4.0, "tau_mem": 2e-2, "r": 20.0, "v_leak": 0.0, "v_threshold": 5.0}
    node = Node("CubaLIF", {key: np.full(3, value) for key, value in cuba.items()})
    found = graph("input>d d>fc fc>lif lif>output", d=LATEST, lif=node)
    assert import_nir(found).network.layers[0].synapse.max_delay == DELAY_LIMIT
    with pytest.raises(InputError, match="'lif': lif: has delays of 32768 to 32768 steps"):
        import_nir(found, Readings(order="old"))


def floats(**changes: Any) -> FloatLayer:
    values = {
        "weight": np.array([[0.3, 0.7]]), "delay": np.zeros((1, 2), int), "weight_rec": None,
        "delay_rec": None, "keep_u": np.array([0.5]), "keep_v": np.array([0.9]), "bias_u": np.zeros(1),
        "bias_v": np.zeros(1), "threshold": np.array([1.1]),
    }  # fmt: skip
    return FloatLayer("a", **(values | changes))


ALONE, NEVER = np.array([[0.2]]), np.array([1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quantise(floats(keep_u=NEVER, bias_u=np.array([0.1]))),
         "a: adds a bias to a current that forgets nothing, which grows for ever"),
        (lambda: quantise(floats(bias_v=np.array([1e6]))), r"a: bias: \d+ exceeds"),
        (lambda: quantise(floats(delay=np.array([[0, -1]]))), "a: has delays of -1 to 0 steps"),
        (lambda: quantise(floats(delay=np.array([[3, DELAY_LIMIT + 1]]))), "a: has delays of 3 to 32768"),
        (lambda: quantise(floats(weight_rec=ALONE, delay_rec=np.array([[-2]]))), "a: has delays of -2 to -2"),
        (lambda: quantise(floats(threshold=np.array([0.0]))), "v_threshold: is 0, to which no weights"),
        (lambda: words(ALONE, fx.WEIGHT_EXP_MAX + 1), "weight_exp: 8 exceeds 7; use more bits a weight"),
        (lambda: bias_word(np.array([1e12]), "a"), "a: bias: 1000000000000 exceeds"),
    ],
)  # fmt: skip
def test_layers_that_no_integers_stand_for(make, message):
    with pytest.raises(InputError, match=message):
        make()
    made, rounding = quantise(floats())
    assert made.neuron.vth >= 512 and not rounding.exact


CELL = {"lif": nir.LIF(**dict(lif().values))}
IN, OUT = {"input": nir.Input(np.array([3]))}, {"output": nir.Output(np.array([3]))}


def an_object(nodes: dict, *edges: str) -> Any:
    pairs = [tuple(edge.split(">")) for edge in edges]
    return nir.NIRGraph(nodes=nodes, edges=pairs, type_check=False)


def around(inner: Any) -> Any:
    return an_object({**IN, "sub": inner, **OUT}, "input>sub", "sub>output")


def deep(levels: int) -> Any:
    made = an_object({**IN, **CELL, **OUT}, "input>lif", "lif>output")
    for _ in range(levels):
        made = around(made)
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (deep(nir_graph.MAX_DEPTH + 1), "graph: has graphs in graphs, more than 8 deep"),
        (an_object({**IN, "lif": nir.LIF(**dict(lif(v_leak=np.array([0, np.nan, 0])).values)), **OUT},
                   "input>lif", "lif>output"), "graph: node 'lif': v_leak: is not finite"),
        (around(an_object(IN | CELL, "input>lif")),
         r"graph: node 'sub' \(NIRGraph\): has 0 Output nodes, expected one"),
        (around(an_object(CELL | OUT, "lif>output")),
         r"graph: node 'sub' \(NIRGraph\): has 0 Input nodes, expected one"),
        (around(an_object({**IN, "more": IN["input"], **CELL, **OUT}, "input>lif", "more>lif", "lif>output")),
         r"graph: node 'sub' \(NIRGraph\): has 2 Input nodes, expected one"),
        (3, "graph: is a int, expected a nir.NIRGraph or a path"),
    ],
)  # fmt: skip
def test_objects_of_the_package_nir(made, message):
    with pytest.raises(InputError, match=message):
        import_nir(made)


def test_an_object_as_deep_as_it_may_be_is_read(monkeypatch):
    assert (
        "/".join(["sub"] * nir_graph.MAX_DEPTH) + "/lif"
        in nir_graph.from_object(deep(nir_graph.MAX_DEPTH)).nodes
    )
    monkeypatch.setattr(nir_graph, "MAX_NODES", 3)
    with pytest.raises(InputError, match="has more than 3 nodes"):
        nir_graph.from_object(deep(1))


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
    (text,) = left_out(network().with_(input_payload=Payload(8)))
    assert text.startswith("NIR does not say what comes in; the file leaves out that it is ")
    assert fx.MEMBRANE_BITS == 24
