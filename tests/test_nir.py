"""NIR graphs: our networks out and in again, other people's files, and what is refused."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

import delaynet_lava
from delaynet_lava import Dense, Encoder, Network, Neuron, Synapse
from delaynet_lava import fixedpoint as fx
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.export.float_layers import run
from delaynet_lava.export.nir_check import against_floats
from delaynet_lava.export.nir_export import graph_of, write_nir
from delaynet_lava.export.nir_import import NirWarning, Readings, import_nir
from delaynet_lava.export.trainable import model_of
from delaynet_lava.formats import nir_graph

nir = pytest.importorskip("nir")


def parts(network: Network) -> list[tuple]:
    """What of a network acts, layer by layer: delays count where there is a synapse."""
    found = []
    for layer in network.layers:
        for synapse in (layer.synapse, layer.recurrent):
            if synapse is not None:
                delay = np.where(synapse.weight != 0, synapse.delay, 0)
                found.append((synapse.weight.tolist(), synapse.weight_exp, delay.tolist()))
        n = layer.neuron
        bias = n.shifted_bias(layer.size).tolist()
        found.append((n.vth, n.du, n.dv, bias, n.membrane_bits, n.full_scale_exp))
        found.append(n.reset)
    return found


@settings(max_examples=20, deadline=None)
@given(network=networks(encoder=False), data=st.data())
def test_our_networks_come_back_with_the_same_integers(tmp_path_factory, network, data):
    network = network.with_(dt_ms=data.draw(st.sampled_from([1.0, 0.1, 2.5, 1e-3])), task="cue:cues=11")
    path = tmp_path_factory.mktemp("nir") / "graph.nir"
    write_nir(network, path)
    found = import_nir(path)
    assert parts(found.network) == parts(network)
    assert all(rounding.exact for rounding in found.roundings)
    assert (found.network.dt_ms, found.network.task) == (network.dt_ms, network.task)
    assert "default" not in found.sources.values()
    x = inputs_for(network, 60)
    one, two = (delaynet_lava.emulate(n, x, ("spikes", "voltage")) for n in (network, found.network))
    assert one.compare(two)


def in_float32(node: nir_graph.Node) -> nir_graph.Node:
    values = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in node.values.items()}
    return nir_graph.Node(node.kind, values)


@settings(max_examples=20, deadline=None)
@given(network=networks(encoder=False, resets=("zero",)))
def test_without_our_metadata_and_in_float32_the_network_is_still_the_same(network):
    """What another framework keeps: nodes, edges and 32-bit floats. The step comes back from tau / r.

    A readout comes back with the chip's largest threshold, and a spike where its membrane saturates.
    """
    last = network.layers[-1]
    if last.neuron.is_readout:
        last = replace(last, neuron=replace(last.neuron, vth=fx.VTH_MAX))
        network = network.with_(layers=(*network.layers[:-1], last))
    graph = graph_of(network)
    bare = nir_graph.NeuralGraph({name: in_float32(node) for name, node in graph.nodes.items()}, graph.edges)
    slow = all(n.neuron.du == 4096 == n.neuron.dv for n in network.layers)
    found = import_nir(bare, Readings(dt_ms=1.0), frozenset({"dt_ms"})) if slow else import_nir(bare)
    assert all(rounding.exact for rounding in found.roundings)
    assert found.network.dt_ms == pytest.approx(1.0, rel=1e-5)
    x = inputs_for(network, 60)
    one, two = (delaynet_lava.emulate(n, x, ("spikes", "voltage")) for n in (network, found.network))
    assert one.compare(two)


@settings(max_examples=8, deadline=None)
@given(network=networks(encoder=False))
def test_the_package_nir_carries_them_too(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("nir") / "graph.nir"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nir.write(path, delaynet_lava.to_nir(network))
        for source in (path, nir.read(path)):
            assert parts(delaynet_lava.from_nir(source)) == parts(network)


def test_the_comparison_notices_one_step_of_delay():
    """Negative control."""
    eye = 64 * np.eye(3, dtype=int)
    network = Network((Dense(Synapse(eye), Neuron(60, 4096, 100), Synapse(eye, np.array(3))),))
    graph = graph_of(network)
    delay = graph.nodes["lif0.w_rec.delay"]
    late = nir_graph.Node("Delay", {"delay": delay.values["delay"] + 1e-3})
    other = nir_graph.NeuralGraph(
        {**graph.nodes, "lif0.w_rec.delay": late}, graph.edges, "graph", graph.metadata
    )
    assert parts(import_nir(graph).network) == parts(network)
    assert parts(import_nir(other).network) != parts(network)


def graph(nodes: dict, edges: list, path) -> str:
    """A file that the package nir wrote."""
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    return str(path)


def ones(n: int, value: float = 1.0) -> np.ndarray:
    return np.full(n, value)


def cuba(n: int, **changes) -> object:
    values = {"tau_syn": 4e-3, "tau_mem": 2e-2, "r": 20.0, "v_leak": 0.0, "v_threshold": 5.0, "w_in": 4.0}
    return nir.CubaLIF(**{k: ones(n, v) for k, v in (values | changes).items()})


def ends(n_in: int, n_out: int) -> dict:
    return {"input": nir.Input(np.array([n_in])), "output": nir.Output(np.array([n_out]))}


def test_a_loop_with_a_delay_a_scale_a_flatten_and_a_subgraph(tmp_path):
    """Names with dots, graphs in graphs, two ways that add up: one recurrent layer and a readout."""
    inner = nir.NIRGraph(
        nodes={
            **ends(3, 3),
            "lif.cell": cuba(3),
            "delay": nir.Delay(np.array([0.0, 3e-3, 7e-3])),
            "w_rec": nir.Affine(np.array([[2.0, 4, 0], [0, -2, 8], [6, 0, 2]]), np.array([1.0, 0, 2])),
            "w_more": nir.Linear(np.array([[2.0, 0, 0], [0, 0, 0], [0, 0, 0]])),
        },
        edges=[
            ("input", "lif.cell"), ("lif.cell", "delay"), ("delay", "w_rec"), ("w_rec", "lif.cell"),
            ("lif.cell", "w_more"), ("w_more", "lif.cell"), ("lif.cell", "output"),
        ],
        type_check=False,
    )  # fmt: skip
    flat = nir.Flatten(start_dim=0, end_dim=-1, input_type={"input": np.array([1, 2])})
    nodes = {
        **ends(2, 2), "flat": flat, "fc": nir.Linear(np.array([[2.0, 4], [6, 8], [-2, 0]])),
        "scale": nir.Scale(np.array([1.0, 2.0, 3.0])), "block": inner,
        "out": nir.Linear(np.array([[2.0, 0, 0], [0, 4, 6]])),
        "li": nir.LI(tau=ones(2, 1e-2), r=ones(2, 10.0), v_leak=ones(2, 0.0)),
    }  # fmt: skip
    nodes["input"] = nir.Input(np.array([1, 2]))
    order = ["input", "flat", "fc", "scale", "block", "out", "li", "output"]
    path = graph(nodes, list(pairwise(order)), tmp_path / "g.nir")
    found = import_nir(path, Readings(reset="subtract"), frozenset({"reset"}))
    hidden, readout = found.network.layers
    assert found.network.dt_ms == pytest.approx(1.0)
    assert found.sources == {
        "unit": "default", "dt_ms": "file", "order": "default", "decay": "default", "reset": "option",
        "loop": "default",
    }  # fmt: skip
    scale = hidden.neuron.vth / 5
    words = lambda s: s.weight * 2.0**s.weight_exp / scale  # noqa: E731
    step = 1.01 * 2**hidden.synapse.weight_exp / scale
    assert np.abs(words(hidden.synapse) - [[2, 4], [12, 16], [-6, 0]]).max() < step
    assert np.abs(words(hidden.recurrent) - [[4, 4, 0], [0, -2, 8], [6, 0, 2]]).max() < step
    assert (hidden.neuron.du, hidden.neuron.dv, readout.neuron.dv) == (1024, 205, 410)
    assert [hidden.recurrent.delay[0, 0], hidden.recurrent.delay[0, 1], hidden.recurrent.delay[2, 2]] == [
        0,
        3,
        7,
    ]
    assert hidden.neuron.reset == "subtract" and readout.neuron.is_readout
    # The bias goes through the current's filter: 1 / (1 - keep_u) = 4 times as much arrives.
    assert hidden.neuron.shifted_bias(3) / 64 / scale == pytest.approx([4, 0, 8], abs=0.05)
    assert any("(1, 2)" in note for note in found.notes)


def refused(nodes: dict, edges: list, tmp_path, **readings) -> str:
    with pytest.raises(InputError) as error:
        import_nir(graph(nodes, edges, tmp_path / "bad.nir"), Readings(**readings), frozenset(readings))
    return str(error.value).removeprefix(f"{tmp_path / 'bad.nir'}: ")


CHAIN = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
LOOP = [*CHAIN, ("lif", "rec"), ("rec", "lif")]


def chain(**nodes) -> dict:
    return {**ends(2, 3), "fc": nir.Linear(np.ones((3, 2))), "lif": cuba(3), **nodes}


@pytest.mark.parametrize(
    ("nodes", "edges", "readings", "message"),
    [
        (chain(fc=nir.Conv1d(2, np.ones((1, 1, 1)), 1, 0, 1, 1, np.ones(1))), CHAIN, {},
         "'fc' (Conv1d): can't be run: conv"),
        (chain(lif=nir.IF(r=ones(3), v_threshold=ones(3))), CHAIN, {},
         "'lif' (IF): can't be run: it forgets nothing"),
        (chain(lif=nir.Threshold(ones(3))), CHAIN, {},
         "'lif' (Threshold): can't be run: a threshold without"),
        (chain(lif=cuba(3, v_reset=0.5)), CHAIN, {},
         "'lif' (CubaLIF): v_reset is 0.5, the chip resets to 0; shift"),
        (chain(lif=cuba(3, tau_mem=0.0)), CHAIN, {}, "'lif' (CubaLIF): tau_mem is 0, expected more than 0"),
        (chain(lif=cuba(3, v_threshold=-1.0)), CHAIN, {},
         "'lif' (CubaLIF): v_threshold is -1, the chip's is 0 or"),
        (chain(lif=cuba(3, v_threshold=0.0), fc=nir.Linear(np.full((3, 2), 0.3))), CHAIN, {},
         "'lif': v_threshold: is 0"),
        (chain(lif=cuba(4)), CHAIN, {}, "'lif' (CubaLIF): tau_syn has 4 values, but 3 come in"),
        (chain(), CHAIN, {"dt_ms": 5.0},
         "'lif' (CubaLIF): tau_syn is 0.004, less than the step of 0.005, with which"),
        (chain(rec=nir.Linear(np.eye(3))), LOOP, {"loop": "explicit"},
         "'lif' (CubaLIF): has a loop without a Delay"),
        (chain(rec=nir.Linear(np.ones((3, 2)))), LOOP, {},
         "'rec' (Linear): has weights of shape (3, 2), but 3"),
        (chain(rec=nir.Linear(np.eye(3)), d=nir.Delay(ones(3, 5e-3))),
         [*LOOP, ("lif", "d"), ("d", "lif")], {}, "'lif' (CubaLIF): has a synapse with two delays"),
        (chain(rec=nir.Linear(np.eye(3)), d=nir.Delay(ones(3, -5e-3))),
         [*LOOP, ("lif", "d"), ("d", "lif")],
         {}, "'d' (Delay): delays by -5 to -5 steps, outside 0 to 32767"),
        (chain(d=nir.Delay(np.array([0, 1e-3, 2e-3])), mix=nir.Linear(np.ones((3, 3)))),
         [("input", "fc"), ("fc", "d"), ("d", "mix"), ("mix", "lif"), ("lif", "output")], {},
         "'mix' (Linear): mixes values of one sender that come with different delays"),
        (chain(rec=nir.Linear(np.eye(3)), two=cuba(3)),
         [("input", "fc"), ("fc", "lif"), ("lif", "two"), ("two", "rec"), ("rec", "lif"), ("two", "output")],
         {},
         "'lif' (CubaLIF): is in a loop with 'two'; a loop may hold one node"),
        (chain(rec=nir.Linear(np.eye(3)), two=cuba(3)),
         [*CHAIN[:2], ("lif", "two"), ("fc", "two"), ("two", "output")], {},
         "'two' (CubaLIF): takes from 'lif', 'the input'; a layer takes from one other layer"),
        (chain(two=cuba(3)), [*CHAIN, ("lif", "two")], {}, "'two' (CubaLIF): leads to no output"),
        (chain(one=nir.Linear(np.eye(3))), [("one", "one"), ("one", "lif"), *CHAIN], {},
         "'one' (Linear): is in a loop wi"),
        (chain(), CHAIN[1:], {}, "'fc' (Linear): gets no input: no edge leads to it"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_by_node_type_and_reason(tmp_path, nodes, edges, readings, message):
    assert refused(nodes, edges, tmp_path, **readings).startswith(f"node {message}")


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({**chain(), "more": nir.Input(np.array([1]))}, CHAIN, "has 2 Input nodes at its ends, expected one"),
        (chain(), CHAIN[:2], "node 'output' (Output): gets no input"),
    ],
)
def test_graphs_that_are_no_stack(tmp_path, nodes, edges, message):
    assert refused(nodes, edges, tmp_path).startswith(message)


def spoilt(tmp_path, edit) -> str:
    path = tmp_path / "spoilt.nir"
    graph(chain(), CHAIN, path)
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(InputError) as error:
        nir_graph.read(path)
    return str(error.value).removeprefix(f"{path}: ")


def put(name: str, value):
    def edit(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return edit


STRANGE = h5py.string_dtype()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("node", None), "is HDF5 but has no 'node', so it is no NIR graph"),
        (put("node/type", "Linear"), "type: is 'Linear', expected NIRGraph"),
        (put("node/edges", np.array([["input", "fc"], ["input", "fc"]], object).astype("S")),
         "has the edge 'input' to 'fc' twice"),
        (put("node/edges", np.array([["input", "nobody"]], object).astype("S")),
         "has an edge to a node 'nobody' that is not there"),
        (put("node/edges", np.array(["input", "fc"], "S")), "node/edges: has shape (2,), expected (any, 2)"),
        (put("node/edges", np.ones((2, 2))), "node/edges: has type float64, expected strings"),
        (put("node/edges", h5py.ExternalLink("x.nir", "/node/edges")),
         "node/edges: is a soft or external link"),
        (put("node/nodes/lif/type", None), "node 'lif': type: is missing"),
        (put("node/nodes/lif/r", np.array([np.nan])),
         "node 'lif': r: holds a value that is not a finite number"),
        (put("node/nodes/lif/r", "many"), "node 'lif': r: is text, expected numbers"),
        (put("node/nodes", np.ones(3)), "nodes: is not a group"),
    ],
)  # fmt: skip
def test_hostile_graphs(tmp_path, edit, message):
    found = spoilt(tmp_path, edit)
    assert message.removeprefix("node/") in found


def test_graphs_in_graphs_without_end_and_edges_without_number(tmp_path):
    def nest(file: h5py.File) -> None:
        here = file["node"]
        for _ in range(12):
            here = here.require_group("nodes").create_group("sub")
            here["type"] = "NIRGraph"

    assert spoilt(tmp_path, nest).startswith("has graphs in graphs, more than 8 deep")
    long = np.array([["x" * 300, str(k)] for k in range(5000)], object)

    def text(file: h5py.File) -> None:
        del file["node/edges"]
        file["node"].create_dataset("edges", data=long, dtype=STRANGE)

    assert "holds more text than is read" in spoilt(tmp_path, text)
    many = np.tile(np.array([[b"input", b"fc"]], "S5"), (70_000, 1))
    assert "has more than 65536 edges" in spoilt(tmp_path, put("node/edges", many))


def test_damaged_bytes_give_a_graph_or_one_line(tmp_path):
    content, outcomes = Path(graph(chain(), CHAIN, tmp_path / "g.nir")).read_bytes(), set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        data = np.frombuffer(content, np.uint8).copy()
        data[rng.integers(len(data), size=rng.integers(1, 20))] ^= np.uint8(1 << rng.integers(8))
        (tmp_path / "bad.nir").write_bytes(data.tobytes())
        try:
            import_nir(tmp_path / "bad.nir")
            outcomes.add("read")
        except InputError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_the_commands_take_a_graph_to_integers_and_back(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    eye = 64 * np.eye(4, dtype=int)
    network = Network(
        (
            Dense(
                Synapse(eye[:, :3] + 2), Neuron(100, 1024, 300, reset="subtract"), Synapse(eye, np.array(5))
            ),
            Dense(Synapse(eye[:2]), Neuron(fx.VTH_MAX, 4096, 40)),
        )
    )
    delaynet_lava.save(network, "net.h5")
    assert main_code("export", "net.h5", "-o", "graph.nir") == 0
    assert "layer 0: NIR has no soft reset; others will reset the membrane to 0" in capsys.readouterr().err
    assert main_code("import", "graph.nir", "-o", "back.h5", "--check-readings", "--json", "r.json") == 0
    out, err = capsys.readouterr()
    assert "a step lasts 1 ms (dt_ms: file)" in out and "nothing is rounded" in out
    assert "assumed" not in err and "error [reset-kind] layer 0" in err
    assert parts(delaynet_lava.load("back.h5")) == parts(network)
    report = json.loads(Path("r.json").read_text())
    assert report["sources"]["reset"] == "file"
    assert {d["name"] for d in report["others"]} == {
        "order old", "decay exponential", "reset subtract", "loop explicit"
    }  # fmt: skip
    changed = {d["name"]: d["changed"] for d in report["others"]}
    assert changed["loop explicit"][0] > 0 and changed["order old"][0] > 0

    assert main_code("import", "graph.nir", "-o", "model.pt") == 0
    assert main_code("export", "model.pt", "-o", "again.h5", "--force") == 0
    assert parts(delaynet_lava.load("again.h5")) == parts(network)
    assert main_code("import", "graph.nir", "-o", "x.txt") == 2
    assert main_code("inspect", "graph.nir") == 2
    assert "graph.nir: is a NIR graph, not NetX; read it with delaynet import" in capsys.readouterr().err


def main_code(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.array([3])}, "layer 0: bias: is not 0, which no block of ours trains; write a net.h5"),
        ({"vth": fx.VTH_MAX}, "layer 0: is a recurrent readout, which no block of ours is"),
    ],
)
def test_what_a_model_file_cannot_hold(change, message):
    layer = Dense(Synapse([[2]]), replace(Neuron(10, 4096, 10), **change), Synapse([[2]]))
    with pytest.raises(InputError, match=message):
        model_of(Network((layer,)))


def test_delays_and_exponents_that_a_model_file_cannot_hold():
    neuron = Neuron(10, 4096, 10)
    some = [[2, 4], [6, 8]]
    for layer, message in (
        (Dense(Synapse(some, np.array(3)), neuron), "layer 0: delay: is not 0, but only recurrent delays"),
        (
            Dense(Synapse([[64, 254]], 0, 1), neuron),
            "layer 0: weight: has the exponent 1, a model.pt has none",
        ),
        (
            Dense(Synapse(some), neuron, Synapse(some, [[1, 2], [3, 2]])),
            "layer 0: delay_rec: differs between",
        ),
    ):
        with pytest.raises(InputError, match=message):
            model_of(Network((layer,)))


def test_an_encoder_has_no_node():
    with pytest.raises(InputError, match="layer 0: is an encoder, whose inputs are values of its bias"):
        graph_of(Network((Encoder(Neuron(10, 4096, 10), 3),)))
    with pytest.raises(InputError, match="layer 0: is an encoder, which no block of ours trains"):
        model_of(Network((Encoder(Neuron(10, 4096, 10), 3),)))


def test_from_nir_says_what_it_assumed(tmp_path):
    path = graph(chain(), CHAIN, tmp_path / "g.nir")
    with pytest.warns(NirWarning) as found:
        network = delaynet_lava.from_nir(path, order="old")
    texts = [str(w.message) for w in found]
    assert (
        "assumed: a spike sets the membrane to 0" in texts
        and "assumed: times of the graph are seconds" in texts
    )
    assert not any("current of the" in text for text in texts)
    assert network.layers[0].synapse.max_delay == 1
    with pytest.raises(InputError, match="readings: has no 'oder'; choose from: unit, dt_ms"):
        delaynet_lava.from_nir(path, oder="old")
    with pytest.raises(InputError, match="order: is 'odd'; choose from: new, old"):
        delaynet_lava.from_nir(path, order="odd")
    with pytest.raises(InputError, match="dt_ms: is -1"):
        delaynet_lava.from_nir(path, dt_ms=-1)
    with pytest.raises(InputError, match=r"is a int, expected a nir\.NIRGraph or a path"):
        delaynet_lava.from_nir(3)


@pytest.mark.parametrize("order", ["new", "old"])
@pytest.mark.parametrize("decay", ["euler", "exponential"])
@pytest.mark.parametrize("loop", ["implicit", "explicit"])
def test_each_reading_is_what_it_says(tmp_path, order, decay, loop):
    """Against NIR's equations, stepped here once more in plain Python."""
    rec, delay = np.array([[0.0, -3, 2], [4, 0, 0], [0, 2, 0]]), np.array([1e-3, 2e-3, 4e-3])
    fc = nir.Linear(np.array([[4.0, 1], [0, 5], [3, 3]]))
    # A threshold that no sum of weights meets.
    nodes = chain(rec=nir.Linear(rec), d=nir.Delay(delay), fc=fc, lif=cuba(3, v_threshold=5.037))
    path = graph(nodes, [*CHAIN, ("lif", "d"), ("d", "rec"), ("rec", "lif")], tmp_path / "g.nir")
    readings = Readings(order=order, decay=decay, loop=loop, dt_ms=1.0)
    found = import_nir(path, readings, frozenset(vars(readings)))
    x = (np.random.default_rng(1).random((1, 200, 2)) < 0.1).astype(np.uint8)
    keep = [1 - 1e-3 / t if decay == "euler" else np.exp(-1e-3 / t) for t in (4e-3, 2e-2)]
    i, v, sent = np.zeros(3), np.zeros(3), np.zeros((200, 3))
    for t in range(200):
        lags = np.rint(delay * 1e3).astype(int) + (loop == "implicit")
        back = np.array([sent[t - k, n] if t >= k else 0 for n, k in enumerate(lags)])
        before = i
        i = keep[0] * i + (1 - keep[0]) * 4 * (nodes["fc"].weight @ x[0, t] + rec @ back)
        v = keep[1] * v + (1 - keep[1]) * 20 * (i if order == "new" else before)
        sent[t] = v > 5.037
        v = np.where(v > 5.037, 0, v)
    assert sent.sum() > 20
    ((spikes, _),) = run(found.layers, x)
    assert np.array_equal(spikes[0], sent)
    result = against_floats(found, x)
    first = next(t for t, n in enumerate([*result.changed_per_step[0], 1]) if n)
    assert first >= 20 and max(result.membrane_error[0][:first]) < 0.2
    assert result.spikes[0] == pytest.approx(sent.sum(), rel=0.2)
    wrong = import_nir(path, replace(readings, loop="implicit" if loop == "explicit" else "explicit"))
    assert not np.array_equal(run(wrong.layers, x)[0][0][0], sent)


def test_a_step_too_long_or_a_unit_that_is_wrong_is_named(tmp_path):
    nodes = chain(lif=nir.LIF(tau=ones(3, 20.0), r=ones(3), v_leak=ones(3, 0.0), v_threshold=ones(3)))
    path = graph(nodes, CHAIN, tmp_path / "g.nir")
    notes = import_nir(path).notes
    assert any(
        "its membrane loses 0.02 of 4096 in a step, which rounds to nothing; are the unit" in n for n in notes
    )
    right = import_nir(path, Readings(unit="ms", dt_ms=1.0), frozenset({"unit", "dt_ms"}))
    assert right.network.layers[0].neuron.dv == round(4096 / 20)


def test_small_files_that_multiply_out_to_large_networks_are_refused(tmp_path):
    """An outer product, twice as many ways at every stage, an identity of a million, a chain without end."""
    n = 1 << 14
    wide = {**ends(n, n), "a": nir.Linear(np.ones((1, n))), "b": nir.Linear(np.ones((n, 1))), "lif": cuba(1)}
    found = refused(wide, list(pairwise(["input", "a", "b", "lif", "output"])), tmp_path)
    assert found.startswith("node 'b' (Linear): multiplies out to far more weights than its file holds")
    huge = {**ends(1 << 20, 1 << 20), "lif": cuba(1)}
    found = refused(huge, list(pairwise(["input", "lif", "output"])), tmp_path)
    assert found.startswith("node 'lif' (CubaLIF): multiplies out")
    stages = [f"{k:03}" for k in range(60)]
    diamonds = {
        **ends(3, 3),
        "lif": cuba(3),
        **{f"s{k}{side}": nir.Scale(ones(3)) for k in stages for side in "ab"},
    }
    edges = [(f"s{k}{a}", f"s{m}{b}") for k, m in pairwise(stages) for a in "ab" for b in "ab"]
    edges += [("input", "s000a"), ("input", "s000b"), ("s059a", "lif"), ("s059b", "lif"), ("lif", "output")]
    assert "multiplies out to far more" in refused(diamonds, edges, tmp_path)
    names = [f"s{k:04}" for k in range(400)]
    chain_of = {**ends(3, 3), "lif": cuba(3), **{name: nir.Scale(ones(3)) for name in names}}
    found = refused(chain_of, list(pairwise(["input", *names, "lif", "output"])), tmp_path)
    assert found == "has hundreds of nodes in a row without neurons"
