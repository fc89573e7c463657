"""Payloads and initial states: every execution computes what the contract says, integer by integer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bundle_tools import run_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import plain
from strategies import graded_networks, inputs_for, networks, with_initial_states

from delaynet_lava import fixedpoint as fx
from delaynet_lava.deploy import results
from delaynet_lava.deploy.bundle import write_bundle
from delaynet_lava.emulator import emulate, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Payload, Synapse
from delaynet_lava.trace import scores

EVERYTHING = ("spikes", "voltage")
simulated = settings(max_examples=7, suppress_health_check=list(HealthCheck))


@st.composite
def anything(draw, **options) -> Network:
    """Payloads or spikes or an encoder, initial states, a tail, a decision."""
    options = {"max_layers": 3, "max_neurons": 9, **options}
    kind = draw(st.sampled_from(["graded", "graded", "spikes", "encoder"]))
    if kind == "graded":
        network = draw(graded_networks(**options))
    else:
        network = draw(networks(encoder=kind == "encoder", **options))
    network = draw(with_initial_states(network))
    kinds = ["last", "sum:5:", "mean:0:30"] + ["count:3:17"] * (not network.layers[-1].neuron.is_readout)
    return network.with_(decision=draw(st.sampled_from(kinds)), tail=draw(st.sampled_from([0, 0, 1, 3])))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(anything(), st.integers(0, 99), st.booleans())
def test_the_emulator_is_the_contract(network, seed, whole):
    x = inputs_for(network, 45, seed=seed, rate=0.3, whole=whole)
    trace, found = plain(network, x)
    emulate(network, x, EVERYTHING).require_equal(trace)
    np.testing.assert_equal(extremes(network, x), found)
    parts = (part for part in (x[:, :7], x[:, 7:]))
    emulate(network, parts, EVERYTHING).require_equal(trace)


def test_the_largest_payloads_and_weights_add_up_without_a_loss():
    """24 bits, the largest exponent, 9 senders: sums of 2**42, which wrap many times and are counted once."""
    weight = np.full((2, 9), 254) * np.array([[1], [-1]])
    neuron = Neuron(fx.VTH_MAX + 1, 4096, 4096)
    network = Network((Dense(Synapse(weight, weight_exp=7), neuron),), input_payload=Payload(24, False))
    x = np.full((1, 3, 9), (1 << 24) - 1, np.int32)
    trace = emulate(network, x, ("voltage",))
    a = 9 * 254 * 128 * ((1 << 24) - 1) << 6
    assert trace.u_wraps == [4]
    assert trace.voltage[0][0, 1].tolist() == [fx.wrap_u(a), fx.wrap_u(-a)]


@simulated
@given(data=st.data())
def test_lava_is_the_emulator(data):
    lava = pytest.importorskip("delaynet_lava.lava", reason="lava-nc is not installed")
    network = data.draw(anything(max_layers=2))
    x = inputs_for(network, 60, seed=data.draw(st.integers(0, 99)), rate=0.3)
    models = data.draw(st.sampled_from(["fast", "stock"]))
    lava.run(network, x, EVERYTHING, models=models).require_equal(emulate(network, x, EVERYTHING))


@settings(simulated, max_examples=5)
@given(data=st.data())
def test_a_bundle_is_the_emulator(tmp_path_factory, data):
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    network = data.draw(graded_networks(resets=("zero",), max_layers=2, max_neurons=9))
    network = data.draw(with_initial_states(network)).with_(tail=data.draw(st.integers(0, 1)))
    x = inputs_for(network, 40, seed=data.draw(st.integers(0, 99)), rate=0.3)
    folder = tmp_path_factory.mktemp("bundle") / "b"
    write_bundle(folder, network, x, np.zeros(2, int), name="b")
    code, _, errors = run_bundle(folder, "--shard", "0")
    assert code == 0, errors
    comparison = results.compare_with_emulator(network, folder)
    assert comparison.mismatches == 0, comparison
    assert comparison.compared > 2 * 40 * network.layers[-1].size
    expected = emulate(network, x, EVERYTHING)
    assert np.array_equal(scores(network, results.merge(folder).trace), scores(network, expected))


def busy(payload: Payload, **neuron) -> tuple[Network, np.ndarray]:
    rng = np.random.default_rng(3)
    into = Synapse(2 * rng.integers(-9, 20, (6, 5)), rng.integers(0, 9, (6, 5)))
    back = Synapse(2 * rng.integers(-60, 60, (6, 6)), rng.integers(0, 9, (6, 6)))
    layer = Dense(into, Neuron(900, 1500, 300, rng.integers(-30, 40, 6), **neuron), back)
    network = Network((layer,), input_payload=payload)
    return network, inputs_for(network, 60, 3, 0.3)


@pytest.mark.parametrize("change", ["sign", "one off", "as a spike", "a step late"])
def test_a_wrong_payload_is_seen(change):
    network, x = busy(Payload(7, True))
    right = emulate(network, x, EVERYTHING)
    assert 0.02 < right.spikes[0].mean() < 0.6
    at = tuple(np.argwhere(x[:, :40] < -2)[0])
    wrong = x.copy()
    if change == "a step late":
        wrong[:, 1:], wrong[:, 0] = x[:, :-1], 0
    elif change == "as a spike":
        wrong = (x != 0).astype(np.int32)
    else:
        wrong[at] += 1 if change == "one off" else -2 * x[at]
    comparison = emulate(network, wrong, EVERYTHING).compare(right)
    assert comparison.mismatches > 0
    if change == "one off":
        first = comparison.first
        reached = network.layers[0].synapse
        assert first.step >= at[1] + 1 + reached.delay[reached.weight[:, at[2]] != 0, at[2]].min()


@pytest.mark.parametrize("state", ["v_init", "u_init"])
def test_a_wrong_initial_state_is_seen(state):
    network, x = busy(Payload(5), v_init=np.arange(6) * 3000, u_init=np.arange(6) * 100)
    layer = network.layers[0]
    wrong = getattr(layer.neuron, state).copy()
    wrong[2] += 2
    other = network.with_(layers=(replace(layer, neuron=replace(layer.neuron, **{state: wrong})),))
    comparison = emulate(other, x, EVERYTHING).compare(emulate(network, x, EVERYTHING))
    assert comparison.mismatches > 0
    assert (comparison.first.step, comparison.first.neuron) == (0, 2)


@settings(max_examples=200)
@given(st.integers(-(1 << 24), 1 << 24), st.integers(0, fx.DECAY_ONE - 1))
def test_every_state_has_one_before_it(x, k):
    before = int(fx.undecay(np.array(x), k))
    assert fx.decay(before, k) == x
    if before:
        assert abs(fx.decay(before - (1 if before > 0 else -1), k)) < abs(x)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 4095), st.lists(st.integers(-300, 300), min_size=3, max_size=3), st.sampled_from([24, 9])
)
def test_a_quiet_start_is_at_rest_after_a_step_or_says_that_it_is_not(dv, bias, bits):
    neuron = Neuron(
        fx.VTH_MAX, 800, dv, np.array(bias), membrane_bits=bits, full_scale_exp=20 if bits < 24 else 23
    ).quietened()
    network = Network((Dense(Synapse(np.full((3, 2), 10)), neuron),))
    first = emulate(network, np.zeros((1, 1, 2), np.uint8), ("voltage",)).voltage[0]
    assert neuron.starts_quiet == (not first.any())
    if dv < 3900 and bits == 24:
        assert neuron.starts_quiet
    if any(bias) and dv:
        assert not replace(neuron, v_init=0).starts_quiet or bits < 24


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(anything(max_layers=2))
def test_files_keep_everything(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("net")
    netx.write(network, folder / "net.h5")
    again = netx.read(folder / "net.h5")
    assert (again.payload, again.tail, again.answer) == (network.payload, network.tail, network.answer)
    x = inputs_for(network, 20)
    emulate(again, x, EVERYTHING).require_equal(emulate(network, x, EVERYTHING))
    netx.write(again, folder / "again.h5")
    assert (folder / "again.h5").read_bytes() == (folder / "net.h5").read_bytes()


def test_stock_netx_reads_a_file_with_our_keys_and_ignores_them(tmp_path):
    hdf5 = pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")
    network, _ = busy(Payload(5), v_init=3000)
    plain_layer = replace(network.layers[0], recurrent=None)
    netx.write(network.with_(layers=(plain_layer,), tail=1), tmp_path / "net.h5")
    stock = hdf5.Network(str(tmp_path / "net.h5"), input_message_bits=24)
    assert not np.any(stock.layers[0].neuron.v.init)
    assert stock.layers[0].synapse.num_message_bits.init == 24


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("layer/0/messageBits", 25, "layer 0.*messageBits: is 25"),
        ("layer/0/messageBits", 0, "messageSigned: is true, but spikes have no sign"),
        ("layer/0/messageSigned", 2, "messageSigned: is 2"),
        ("layer/1/neuron/vInit", np.zeros(5, int), r"neuron/vInit: has shape \(5,\)"),
        ("layer/1/neuron/vInit", 1 << 23, "neuron/vInit: .*8388608"),
        ("layer/1/neuron/uInit", 0.5, "neuron/uInit"),
        ("delaynet/tail", -1, "tail: is -1"),
    ],
)
def test_damaged_keys_are_refused_by_name(tmp_path, key, value, problem):
    import h5py

    network, _ = busy(Payload(5, True), v_init=np.arange(6), u_init=7)
    netx.write(network.with_(tail=2), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        del file[key]
        file[key] = value
    with pytest.raises(InputError, match=problem):
        netx.read(tmp_path / "net.h5")


@pytest.mark.parametrize(
    ("payload", "low", "high"),
    [
        (Payload(), 0, 1),
        (Payload(1), 0, 1),
        (Payload(1, True), -1, 0),
        (Payload(8), 0, 255),
        (Payload(8, True), -128, 127),
        (Payload(24), 0, (1 << 24) - 1),
        (Payload(24, True), -(1 << 23), (1 << 23) - 1),
    ],
)
def test_what_a_payload_holds(payload, low, high):
    assert (payload.low, payload.high) == (low, high)
    x = np.array([[[low, high]]])
    assert payload.check(x).tolist() == x.tolist()
    for beyond in (low - 1, high + 1):
        with pytest.raises(InputError, match=f"hold the value {beyond}, but the network takes"):
            payload.check(np.array([[[0, beyond]]]))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Payload(25), "25 is no whole number"),
        (lambda: Payload(-1), "-1 is no whole number"),
        (lambda: Payload(0, True), "spikes have no sign"),
        (lambda: Payload(3, 1), "1 is not true or false"),
        (lambda: Neuron(9, 0, 0, v_init=1 << 23), "v_init: value at .* 8388608"),
        (lambda: Neuron(9, 0, 0, membrane_bits=9, full_scale_exp=20, v_init=1), "no multiple"),
        (lambda: Encoder(Neuron(9, 0, 0, u_init=1), 3), "u_init: an encoder has no current"),
        (lambda: Dense(Synapse(np.full((3, 2), 2)), Neuron(9, 0, 0, v_init=[1, 2])), r"shape \(2,\)"),
        (lambda: Network((Dense(Synapse(np.full((3, 2), 2)), Neuron(9, 0, 0)),), tail=-1), "tail"),
    ],
)
def test_what_is_out_of_range_is_refused(make, problem):
    with pytest.raises(InputError, match=problem):
        make()


def test_sums_that_lava_could_wrap_unseen_are_refused(tmp_path):
    lava = pytest.importorskip("delaynet_lava.lava", reason="lava-nc is not installed")
    layer = Dense(Synapse(np.full((2, 1), 254)), Neuron(fx.VTH_MAX, 4096, 100))
    network = Network((layer,), input_payload=Payload(24))
    x = np.full((1, 3, 1), 9 << 20, np.int32)
    with pytest.raises(
        InputError, match=f"add up to {254 * 9 << 20} in a step, and Lava's sums have 32 bits"
    ):
        lava.run(network, x)
    with pytest.raises(InputError, match="have 32 bits"):
        write_bundle(tmp_path / "b", network, x, np.zeros(1, int), name="b")
    assert not (tmp_path / "b").exists()
