"""NIRData: as `nir` writes it, as tasks, as traces, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

import delaynet_lava
from delaynet_lava import Dense, Network, Neuron, Synapse, Trace
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.formats import nir_data

nir = pytest.importorskip("nir")
if not hasattr(nir, "write_data"):
    pytest.skip("nir before 1.0.8 has no NIRData", allow_module_level=True)

RNG = np.random.default_rng(5)
SPIKES = RNG.random((6, 20, 3)) < 0.2
LABELS = RNG.integers(0, 2, 6)
LABELS[0] = 1


def written(path: Path, **nodes: Any) -> Path:
    """A file that the package nir wrote: nodes of observables."""
    made = {name: nir.NIRNodeData(observables=observables) for name, observables in nodes.items()}
    nir.write_data(path, nir.NIRGraphData(nodes=made))
    return path


def small() -> Network:
    hidden = Dense(Synapse(np.full((4, 3), 60)), Neuron(20, 1000, 300), Synapse(10 * np.eye(4, dtype=int), 3))
    return Network((hidden, Dense(Synapse(np.array([[2, 4, 6, 8], [8, 6, 4, 2]])), Neuron(131071, 4096, 9))))


def test_what_nir_writes_is_what_is_read(tmp_path):
    grid = nir.TimeGriddedData(SPIKES, 1e-3)
    floats = nir.TimeGriddedData(RNG.random((6, 20, 3)).astype(np.float32), 5e-4)
    path = written(tmp_path / "d.nir", lif={"spikes": grid, "v": floats}, input={"spikes": grid.to_event(30)})
    data = nir_data.read(path)
    assert data.names == {"lif": ("spikes", "v"), "input": ("spikes",)} and data.labels is None
    found = data.get("lif", "spikes")
    assert np.array_equal(found.data, SPIKES) and found.dt == 1e-3
    assert np.array_equal(data.get("lif", "v").data, floats.data) and data.get("lif", "v").dt == 5e-4
    events = data.get("input", "spikes")
    assert np.array_equal(events.idx, grid.to_event(30).idx) and (events.neurons, events.t_max) == (3, 0.02)
    assert np.array_equal(events.time, grid.to_event(30).time)


@settings(max_examples=15, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_a_trace_comes_back_whole_and_nir_reads_it(tmp_path_factory, network, seed):
    path = tmp_path_factory.mktemp("trace") / "trace.nir"
    x = inputs_for(network, 40, seed=seed)
    trace = delaynet_lava.emulate(network, x, ("spikes", "voltage"))
    trace.save(path, network, x)
    back = Trace.load(path)
    result = trace.compare(back)
    assert result and result.compared > x.shape[0] * x.shape[1]
    assert {k: v for k, v in vars(back).items() if np.isscalar(v)} == {
        k: v for k, v in vars(trace).items() if np.isscalar(v)
    }
    assert (back.u_wraps, back.v_saturations) == (trace.u_wraps, trace.v_saturations)
    for name in ("final_voltage", "spike_counts"):
        for a, b in zip(getattr(trace, name), getattr(back, name), strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype
    theirs = nir.read_data(path)
    for k, layer in enumerate(network.layers):
        node = theirs.nodes[nir_data.node_name(k, layer.neuron.is_readout)].observables
        assert np.array_equal(node["spikes"].data, trace.spikes[k])
        assert np.array_equal(node["voltage"].data, trace.voltage[k])
        assert node["spikes"].dt == network.dt_ms * 1e-3
    assert np.array_equal(theirs.nodes["input"].observables["spikes"].data, x)
    first = path.read_bytes()
    back.save(path, network, x)
    assert path.read_bytes() == first


def test_nodes_of_a_trace_are_those_of_the_graph(tmp_path):
    network, x = small(), SPIKES.astype(np.uint8)
    delaynet_lava.emulate(network, x, ("spikes", "voltage")).save(tmp_path / "t.nir", network, x)
    nir.read_data(tmp_path / "t.nir").check_nodes(delaynet_lava.to_nir(network))


def test_a_changed_membrane_is_noticed(tmp_path):
    """Negative control, and a trace of which little was recorded."""
    network, x = small(), SPIKES.astype(np.uint8)
    trace = delaynet_lava.emulate(network, x, ("voltage",), layers=[0])
    trace.save(tmp_path / "t.nir")
    assert nir_data.read(tmp_path / "t.nir").names == {"lif0": ("voltage",)}
    with h5py.File(tmp_path / "t.nir", "a") as file:
        file["nodes/lif0/observables/voltage/data"][2, 7, 1] += 1
    result = trace.compare(Trace.load(tmp_path / "t.nir"))
    assert (result.mismatches, result.first.step, result.first.neuron) == (1, 7, 1)


def test_gridded_data_is_a_task(tmp_path):
    path = written(tmp_path / "d.nir", input={"spikes": nir.TimeGriddedData(SPIKES, 5e-4)})
    of = delaynet_lava.task(f"{path}:split=0,0,1")
    assert (of.classes, of.dt_ms, of.steps, of.channels, of.payload_bits) == (None, 0.5, 20, 3, 0)
    assert np.array_equal(of.batch("test", 0, 6)[0], SPIKES)
    np.savez(tmp_path / "labels.npz", labels=LABELS)
    named = delaynet_lava.task(f"{path}:labels={tmp_path / 'labels.npz'},unit=ms,split=0,0,1")
    assert named.classes == 2 and named.dt_ms == 5e-4
    assert np.array_equal(named.batch("test", 0, 6)[1], LABELS)
    again = delaynet_lava.task(named.word)
    assert again.word == named.word and np.array_equal(again.batch("test", 0, 6)[1], LABELS)
    nir_data.write(path, {"input": {"spikes": nir_data.Gridded(3 * SPIKES.astype(np.int16), 1e-3)}}, LABELS)
    graded = delaynet_lava.task(str(path))
    assert (graded.classes, graded.payload_bits, graded.dt_ms, graded.size("train")) == (2, 2, 1.0, 5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 16))
def test_events_are_a_task_as_nir_grids_them(tmp_path_factory, seed):
    spikes = np.random.default_rng(seed).random((3, 25, 4)) < 0.1
    # Times in the middle of their steps: nir's own gridding floors what rounding put just before one.
    data = nir.TimeGriddedData(spikes, 1e-3).to_event(60, time_shift=5e-4)
    path = written(tmp_path_factory.mktemp("events") / "e.nir", sensor={"events": data})
    of = delaynet_lava.task(f"{path}:split=0,0,1")
    assert (of.steps, of.channels) == (25, 4)
    assert np.array_equal(of.batch("test", 0, 3)[0], spikes)
    coarse = delaynet_lava.task(f"{path}:dt_ms=5,several=count,split=0,0,1")
    summed = spikes.reshape(3, 5, 5, 4).sum(axis=2)
    assert (coarse.steps, coarse.payload_bits) == (5, 8)
    assert np.array_equal(coarse.batch("test", 0, 3)[0], summed)


def code(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    return int(stopped.value.code or 0)


def test_commands_run_nir_data_and_keep_traces(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = small()
    delaynet_lava.save(network, "net.h5")
    written(Path("d.nir"), input={"spikes": nir.TimeGriddedData(SPIKES, 1e-3)})
    np.savez("l.npz", labels=LABELS)
    word = "d.nir:labels=l.npz,split=0,0,1"
    assert code("run", "net.h5", "--task", word, "--json", "r.json", "--trace", "t.nir") == 0
    report = json.loads(Path("r.json").read_text())
    x = SPIKES.astype(np.uint8)
    expected = delaynet_lava.emulate(network, x, ("spikes", "voltage"))
    assert report["decisions"] == expected.final_voltage[1].argmax(axis=1).tolist() and report["samples"] == 6
    assert Trace.load("t.nir").compare(expected)
    capsys.readouterr()
    # The trace is a task in its turn, of the inputs that it was run on.
    assert np.array_equal(delaynet_lava.task("t.nir:split=0,0,1").batch("test", 0, 6)[0], x)
    assert code("run", "net.h5", "--task", "d.nir:split=0,0,1") == 2
    assert "decides between 2 classes, the task has none" in capsys.readouterr().err
    # Readings are compared on samples without labels, too.
    assert code("export", "net.h5", "-o", "graph.nir") == 0
    options = ("--task", "d.nir:split=0,0,1", "--check-readings", "--json", "i.json")
    assert code("import", "graph.nir", "-o", "back.h5", *options) == 0
    assert json.loads(Path("i.json").read_text())["samples"] == "6 samples of d.nir:split=0,0,1"
    assert code("run", "net.h5", "--task", "graph.nir") == 2
    assert "graph.nir: is a NIR graph, not NIRData; delaynet import reads it" in capsys.readouterr().err
    assert code("import", "d.nir", "-o", "x.h5") == 2
    assert "d.nir: is NIRData, samples and no graph; give it to --task" in capsys.readouterr().err
    assert code("inspect", "d.nir") == 2
    assert "d.nir: is NIRData, samples and no network; give it to --task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("node=lif", "has no observable 'spikes' of 'lif'; it has: a (x, y), b (spikes)"),
        ("", "holds data of 2 nodes, none of them called input; say node=, one of: a, b"),
        ("node=a", "holds 2 observables of 'a', none of them called spikes; say observable=, one of: x, y"),
        ("node=b,dt_ms=2", "is gridded, it has steps of its own; leave it out"),
        ("node=b,unit=h", "unit: 'h' is not one of s, ms, us"),
        ("node=b,labels=none.npz", "none.npz"),
        ("node=b,classes=-1", "classes: -1 is outside 1 to 65536"),
        ("node=a,observable=x,dt_ms=-1", "dt_ms: -1.0 is not the length of a step"),
        ("node=a,observable=y", "holds the value 0.5, inputs are whole numbers"),
        ("node=b,nodes=2", "nodes is not one of its options"),
    ],
)
def test_words_that_fit_no_file(tmp_path, word, message):
    half = nir.TimeGriddedData(np.full((2, 3, 1), 0.5), 1.0)
    events = nir.EventData(np.array([[0]]), np.array([[0.001]]), 1, 0.01)
    path = written(
        tmp_path / "d.nir", a={"x": events, "y": half}, b={"spikes": nir.TimeGriddedData(SPIKES, 1e-3)}
    )
    with pytest.raises(InputError) as found:
        delaynet_lava.task(f"{path}:{word}" if word else str(path))
    assert message in str(found.value) and "\n" not in str(found.value)


def test_labels_that_do_not_fit(tmp_path):
    path = tmp_path / "d.nir"
    nir_data.write(path, {"input": {"spikes": nir_data.Gridded(SPIKES, 1e-3)}}, LABELS[:4])
    with pytest.raises(InputError, match=r"labels: are 4, but there are 6 samples; give one a sample"):
        delaynet_lava.task(str(path))
    np.savez(tmp_path / "l.npz", other=LABELS)
    with pytest.raises(InputError, match=r"labels: is missing; it has: other"):
        delaynet_lava.task(f"{path}:labels={tmp_path / 'l.npz'}")


G, E = "nodes/input/observables/spikes", "nodes/events/observables/spikes"


def attribute(where: str, name: str, value: Any):
    def edit(file: h5py.File) -> None:
        del file[where].attrs[name]
        if value is not None:
            file[where].attrs[name] = value

    return edit


def dataset(where: str, value: Any):
    def edit(file: h5py.File) -> None:
        del file[where]
        if value is not None:
            file[where] = value

    return edit


def nested(file: h5py.File) -> None:
    here = file
    for _ in range(11):
        here = here.require_group("nodes").create_group("graph")
        here.attrs["__type__"] = "NIRGraphData"
    here.create_group("nodes")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (attribute("/", "__type__", None), "is HDF5 of the type '', not NIRGraphData, as nir.write_data"),
        (attribute("/", "__type__", 3), "__type__: is no text of at most 256 bytes"),
        (attribute("/", "__type__", "x" * 300), "__type__: is no text of at most 256 bytes"),
        (attribute("/", "__type__", np.bytes_(b"\xff")), "__type__: is not UTF-8 text"),
        (attribute("nodes/input", "__type__", "Node"), "'input': __type__: is 'Node', expected NIRNodeData"),
        (attribute(G, "__type__", "Data"), "__type__: is 'Data', expected TimeGriddedData or EventData"),
        (attribute(G, "__type__", "ValuedEventData"), "is ValuedEventData, events with values"),
        (attribute(G, "dt", None), "node 'input': 'spikes': dt: is missing"),
        (attribute(G, "dt", np.nan), "dt: is not one finite number"),
        (attribute(G, "dt", "short"), "dt: is not one finite number"),
        (attribute(G, "dt", np.ones(2)), "dt: is not one finite number"),
        (attribute(G, "dt", -1.0), "dt: is -1, expected more than 0"),
        (attribute(G, "dt", h5py.Empty("f8")), "is empty"),
        (attribute(E, "n_neurons", 2.5), "n_neurons: is 2.5, expected a whole number from 1 on"),
        (attribute(E, "t_max", 0.0), "t_max: is 0, expected more than 0"),
        (dataset(f"{G}/data", np.ones((2, 3))), "data: has shape (2, 3), expected (samples, steps, neurons)"),
        (dataset(f"{G}/data", None), "data: is missing"),
        (dataset(f"{G}/data", h5py.ExternalLink("x", "y")), "data: is a soft or external link"),
        (dataset(f"{E}/idx", np.ones((2, 3), int)), "idx: and time have shapes (2, 3) and (6, 30)"),
        (dataset(f"{E}/idx", np.ones((6, 30))), "idx: has type float64, expected whole numbers"),
        (dataset(f"{E}/idx", np.full((6, 30), -3)), "has an event at inf; times count from 0 on"),
        (dataset(f"{E}/time", np.full((6, 30), 9.0)), "has an event in step 9000, the sample ends with"),
        (nested, "has graphs in graphs, more than 8 deep"),
    ],
)  # fmt: skip
def test_hostile_data(tmp_path, edit, message):
    grid = nir.TimeGriddedData(SPIKES, 1e-3)
    path = written(tmp_path / "d.nir", input={"spikes": grid}, events={"spikes": grid.to_event(30)})
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(InputError) as found:
        for node in ("input", "events"):
            of = delaynet_lava.task(f"{path}:node={node},split=0,0,1")
            of.batch("test", 0, 6)
    assert message in str(found.value) and "\n" not in str(found.value)


def values(**changes: Any):
    def edit(file: h5py.File) -> None:
        content = json.loads(file["delaynet/values"][()]) | changes
        del file["delaynet/values"]
        file["delaynet/values"] = json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (dataset("delaynet", None), "is NIRData that Trace.save did not write, so it is no trace"),
        (dataset("delaynet/values", "{"), "values: is not JSON"),
        (dataset("delaynet/values", "[]"), "values: holds a list"),
        (values(steps="many"), "values: steps is 'many'"),
        (values(batch=True), "values: batch is True"),
        (values(u_wraps=[0.5, 1]), "values: u_wraps is [0.5, 1]"),
        (values(u_wraps=[1]), "values: u_wraps has 1 entries for 2 layers"),
        (values(nodes=["lif0", "lif0"]), "values: are of 2 layers"),
        (values(batch=0), "values: are of 2 layers, 0 samples"),
        (values(batch=5), "final_voltage0: has int32 (6, 4), expected whole numbers (5, None)"),
        (dataset("delaynet/final_voltage0", np.full((6, 4), 1 << 40)), "voltage0: has values beyond int32"),
        (dataset("delaynet/spike_counts1", None), "spike_counts: is there for 1 of 2 layers"),
        (dataset("nodes/lif0/observables/voltage/data", np.ones((6, 20, 4))),
         "node 'lif0': voltage: has float64 (6, 20, 4), expected whole numbers (6, 20, 4)"),
        (dataset("nodes/lif0/observables/spikes/data", np.full((6, 20, 4), 2)), "has spikes that are"),
    ],
)  # fmt: skip
def test_hostile_traces(tmp_path, edit, message):
    network, x = small(), SPIKES.astype(np.uint8)
    delaynet_lava.emulate(network, x, ("spikes", "voltage")).save(tmp_path / "t.nir", network, x)
    with h5py.File(tmp_path / "t.nir", "a") as file:
        edit(file)
    with pytest.raises(InputError) as found:
        Trace.load(tmp_path / "t.nir")
    assert message in str(found.value) and "\n" not in str(found.value)


def test_traces_that_do_not_fit_are_not_written(tmp_path):
    network, x = small(), SPIKES.astype(np.uint8)
    trace = delaynet_lava.emulate(network, x, ("spikes",))
    with pytest.raises(InputError, match="network: is not the one of this trace, which has 2 layers"):
        trace.save(tmp_path / "t.nir", Network(network.layers[:1]))
    with pytest.raises(InputError, match=r"inputs: have shape \(5, 20, 3\), the trace is of 6 samples of 20"):
        trace.save(tmp_path / "t.nir", network, x[:5])
    assert not (tmp_path / "t.nir").exists()


def test_damaged_bytes_give_data_or_one_line(tmp_path):
    network, x = small(), SPIKES.astype(np.uint8)
    delaynet_lava.emulate(network, x, ("spikes", "voltage")).save(tmp_path / "t.nir", network, x)
    content, outcomes = (tmp_path / "t.nir").read_bytes(), set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        data = np.frombuffer(content, np.uint8).copy()
        data[rng.integers(len(data), size=rng.integers(1, 20))] ^= np.uint8(1 << rng.integers(8))
        (tmp_path / "bad.nir").write_bytes(data.tobytes())
        for read in (Trace.load, lambda path: delaynet_lava.task(f"{path}:split=0,0,1").batch("test", 0, 1)):
            try:
                read(tmp_path / "bad.nir")
                outcomes.add("read")
            except InputError as error:
                assert "\n" not in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
