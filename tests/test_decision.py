"""Networks say how they answer, and every execution answers so: exactly, over the window that is named."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

from delaynet_lava import fixedpoint as fx
from delaynet_lava.decision import Decision
from delaynet_lava.deploy.bundle import write_bundle
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.export.extract import extract
from delaynet_lava.export.retime import retime
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.trace import decide, scores

STEPS = 120


@st.composite
def decisions(draw, readout: bool) -> Decision:
    kind = draw(st.sampled_from(["last", "sum", "mean"] if readout else ["last", "sum", "mean", "count"]))
    if kind == "last":
        return Decision(kind)
    start = draw(st.integers(0, STEPS - 1))
    return Decision(kind, start, draw(st.one_of(st.none(), st.integers(start + 1, STEPS))))


@st.composite
def deciding(draw, **options) -> Network:
    network = draw(networks(**options))
    return network.with_(decision=draw(decisions(network.layers[-1].neuron.is_readout)))


def expected(network: Network, x: np.ndarray) -> np.ndarray:
    """From all that was recorded, as the definition says."""
    last, answer = len(network.layers) - 1, network.answer
    trace = emulate(network, x, ("spikes", "voltage"))
    if answer.kind == "last":
        return trace.voltage[last][:, -1].astype(np.int64)
    of = trace.spikes if answer.kind == "count" else trace.voltage
    return of[last][:, answer.start : answer.stop].astype(np.int64).sum(axis=1)


@settings(max_examples=60)
@given(deciding(), st.integers(0, 99), st.lists(st.integers(1, STEPS - 1), max_size=4))
def test_the_emulator_answers_as_defined_in_parts_too(network, seed, cuts):
    x = inputs_for(network, STEPS, seed=seed)
    wanted = expected(network, x)
    edges = [0, *sorted(set(cuts)), STEPS]
    parts = (x[:, a:b] for a, b in pairwise(edges))
    for trace in (emulate(network, x, ()), emulate(network, parts, ())):
        assert not trace.voltage and not trace.spikes
        assert np.array_equal(scores(network, trace), wanted)
        assert np.array_equal(decide(network, trace), wanted.argmax(axis=1))


def test_a_window_that_is_off_by_one_is_seen():
    weight = np.array([[20, 40, -60]] * 3) * np.array([[1], [2], [-1]])
    layer = Dense(Synapse(weight), Neuron(fx.VTH_MAX, 800, 300))
    x = inputs_for(Network((layer,)), STEPS, 4, 0.3)
    at = {
        text: scores(network, emulate(network, x, ()))
        for text in ("sum:40:80", "sum:39:80", "sum:40:81", "sum:41:80")
        for network in [Network((layer,), decision=Decision.parse(text))]
    }
    right = at.pop("sum:40:80")
    assert all((wrong != right).any() for wrong in at.values())


def test_sums_beyond_32_bits_are_exact():
    layer = Dense(Synapse(np.array([[254], [-256]]), weight_exp=7), Neuron(fx.VTH_MAX + 1, 4096, 0))
    network = Network((layer,), decision="sum")
    trace = emulate(network, np.ones((1, 2000, 1), np.uint8), ("voltage",))
    assert scores(network, trace)[0, 0] == trace.voltage[0][0, :, 0].sum(dtype=np.int64) > 1 << 33


def test_what_a_network_without_a_decision_answers_by():
    spiking = Dense(Synapse(np.full((2, 2), 100)), Neuron(50, 4096, 4096))
    readout = replace(spiking, neuron=Neuron(fx.VTH_MAX, 4096, 0))
    assert str(Network((spiking,)).answer) == "count"
    assert str(Network((spiking, readout)).answer) == "last"
    assert Network((spiking, readout)).with_(layers=(spiking,)).answer.kind == "count"
    with pytest.raises(InputError, match="counts the spikes of a readout"):
        Network((readout,), decision=Decision("count"))


@pytest.mark.parametrize("text", ["last", "sum", "mean:100:", "count:0:500", "sum:3:4"])
def test_texts(text):
    assert str(Decision.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("first", "'first' is not one of"),
        ("last:3:", "'last' takes no window"),
        ("sum:5:5", "holds no step"),
        ("sum:9", "is none"),
        ("mean:-1:", "is none"),
        ("count:0:5\n", "is none"),
        ("", "is none"),
    ],
)
def test_texts_that_are_no_decision(text, problem):
    with pytest.raises(InputError, match=problem):
        Decision.parse(text)


def test_a_run_shorter_than_the_window_has_no_answer():
    layer = Dense(Synapse(np.full((2, 2), 100)), Neuron(fx.VTH_MAX, 4096, 0))
    for text in ("sum:30:", "mean:0:31"):
        network = Network((layer,), decision=text)
        trace = emulate(network, np.ones((1, 30, 2), np.uint8))
        with pytest.raises(InputError, match="the samples have 30"):
            decide(network, trace)


@settings(max_examples=15)
@given(deciding(max_layers=2, max_neurons=6))
def test_files_keep_it(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("net") / "net.h5"
    netx.write(network, path)
    assert netx.read(path).decision == network.decision


def test_a_damaged_text_in_a_file_is_refused_by_name(tmp_path):
    import h5py

    path = tmp_path / "net.h5"
    netx.write(Network((Dense(Synapse(np.full((2, 2), 100)), Neuron(50, 4096, 4096)),), decision="sum"), path)
    with h5py.File(path, "a") as file:
        del file["delaynet/decision"]
        file["delaynet/decision"] = "sum:x:"
    with pytest.raises(InputError, match=r"delaynet/decision.*'sum:x:' is none"):
        netx.read(path)


def test_a_model_file_hands_it_on():
    torch = pytest.importorskip("torch")
    config = {
        "layers": [{"type": "Affine", "neuron": {}}],
        "decision": "mean:10:20",
    }
    state = {
        "0.synapse.weight": torch.ones(2, 3, 1, 1, 1),
        "0.neuron.current_decay": torch.tensor(4096.0),
        "0.neuron.voltage_decay": torch.tensor(100.0),
    }
    # SLAYER's Affine is a step ahead of the chip, whose window is the later by it.
    assert str(extract(ModelFile(config, state)).decision) == "mean:11:21"
    config["layers"] = [{"type": "Readout", "neuron": {}}]
    assert str(extract(ModelFile(config, state)).decision) == "mean:10:20"
    with pytest.raises(InputError, match="model: decision"):
        extract(ModelFile(config | {"decision": "often"}, state))
    with pytest.raises(InputError, match="model: decision"):
        extract(ModelFile(config | {"decision": 3}, state))


def test_a_coarser_step_takes_the_window_along():
    layer = Dense(Synapse(np.full((2, 2), 100), np.full((2, 2), 100)), Neuron(fx.VTH_MAX, 4096, 100))
    coarse, report = retime(Network((layer,), decision="sum:11:21"))
    assert report.factor == 2 and str(coarse.decision) == "sum:5:11"


@settings(max_examples=8)
@given(data=st.data())
def test_lava_answers_as_the_emulator(data):
    lava = pytest.importorskip("delaynet_lava.lava")
    network = data.draw(deciding(max_layers=2, max_neurons=8))
    x = inputs_for(network, STEPS, seed=data.draw(st.integers(0, 99)))
    ours, theirs = emulate(network, x), lava.run(network, x)
    assert ours.compare(theirs).mismatches == 0
    assert np.array_equal(scores(network, theirs), expected(network, x))
    if network.answer.kind != "last":
        theirs.scores[1, 0] += 1
        assert ours.compare(theirs).mismatches == 1


@pytest.mark.parametrize("text", ["sum:5:17", "mean:3:", "count:4:25", "last"])
def test_a_bundle_answers_as_the_emulator(tmp_path, text):
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    from bundle_tools import run_bundle

    from delaynet_lava.deploy import results

    rng = np.random.default_rng(4)
    hidden = Dense(
        Synapse(2 * rng.integers(-20, 60, (9, 6)), rng.integers(0, 9, (9, 6))), Neuron(200, 900, 300)
    )
    vth = 150 if text.startswith("count") else fx.VTH_MAX
    out = Dense(Synapse(2 * rng.integers(-40, 60, (4, 9))), Neuron(vth, 4096, 200))
    network = Network((hidden, out), decision=text)
    x = inputs_for(network, 30, 3, 0.3)
    write_bundle(tmp_path / "b", network, x, np.zeros(3, int), name="b")
    assert run_bundle(tmp_path / "b", "--shard", "0")[0] == 0
    outcome = results.merge(tmp_path / "b")
    assert np.array_equal(scores(network, outcome.trace), expected(network, x))
    assert np.array_equal(outcome.decisions, expected(network, x).argmax(axis=1))
    assert results.compare_with_emulator(network, tmp_path / "b").mismatches == 0
    with pytest.raises(InputError, match="the bundle by"):
        results.compare_with_emulator(network.with_(decision="sum:0:2"), tmp_path / "b")


def test_a_bundle_of_samples_shorter_than_the_window_is_not_written(tmp_path):
    network = Network(
        (Dense(Synapse(np.full((2, 2), 100)), Neuron(fx.VTH_MAX, 4096, 0)),), decision="sum:0:40"
    )
    with pytest.raises(InputError, match="the samples have 30"):
        write_bundle(tmp_path / "b", network, np.ones((1, 30, 2), np.uint8), np.zeros(1, int), name="b")
    assert not (tmp_path / "b").exists()
