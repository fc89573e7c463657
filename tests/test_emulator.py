"""The emulator against the integer contract, written here as plainly as it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain
from strategies import inputs_for, networks

from delaynet_lava import emulator, fixedpoint
from delaynet_lava.emulator import emulate, extremes
from delaynet_lava.errors import InputError, MismatchError
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.trace import Trace, decide


def assert_is_the_contract(network: Network, inputs: np.ndarray) -> None:
    trace, found = plain(network, inputs)
    emulate(network, inputs, ("spikes", "voltage")).require_equal(trace)
    np.testing.assert_equal(extremes(network, inputs), found)


@settings(max_examples=40)
@given(networks(max_neurons=6, max_layers=3), st.integers(0, 10**6))
def test_emulator_is_the_contract(network, seed):
    inputs = inputs_for(network, steps=90, batch=2, rate=0.3, seed=seed)
    assert_is_the_contract(network, inputs)


@settings(max_examples=20)
@given(networks(max_neurons=6, max_layers=2, overflow=True), st.integers(0, 10**6))
def test_overflow_is_the_contract_and_is_counted(network, seed):
    inputs = inputs_for(network, steps=60, batch=2, rate=0.5, seed=seed)
    assert_is_the_contract(network, inputs)


def test_a_wrap_and_a_clip_are_each_counted_once():
    synapse = Synapse([[254]], 0, 7)
    x = np.zeros((1, 8, 1), np.uint8)
    x[0, :6] = 1
    # The current grows by 254 * 2**13 = 2080768 a step and leaves 24 bits with the fifth.
    wrapping = Network((Dense(synapse, Neuron(vth=131071, du=0, dv=4096)),))
    trace = emulate(wrapping, x, ("voltage",))
    assert trace.u_wraps == [1]
    assert trace.v_saturations == [0]
    assert trace.voltage[0][0, :, 0].tolist() == [0, *(2080768 * k for k in (1, 2, 3, 4)),
                                                  *(2080768 * k - 2**24 for k in (5, 6, 6))]  # fmt: skip
    clipping = Network((Dense(synapse, Neuron(vth=1 << 18, du=4096, dv=0)),))
    trace = emulate(clipping, x)
    assert trace.u_wraps == [0]
    assert trace.v_saturations == [2]
    assert trace.final_voltage[0][0, 0] == 2**23 - 1


def dense_network(seed: int = 1, delay: int = 62) -> Network:
    rng = np.random.default_rng(seed)
    weight = lambda shape: 2 * rng.integers(-60, 90, shape)  # noqa: E731
    return Network(
        (
            Dense(
                Synapse(weight((9, 5)), rng.integers(0, delay + 1, (9, 5))),
                Neuron(vth=300, du=4096, dv=200, bias=rng.integers(-20, 40, 9)),
                Synapse(weight((9, 9)), rng.integers(0, delay + 1, (9, 9)), 1),
            ),
            Dense(Synapse(weight((3, 9)), 3), Neuron(vth=131071, du=300, dv=300)),
        )
    )


def changed(network: Network, what: str) -> Network:
    first = network.layers[0]
    back = first.recurrent
    other = {
        "a delay that is off by one": Synapse(back.weight, back.delay + 1, back.weight_exp),
        "transposed recurrent weights": Synapse(back.weight.T, back.delay, back.weight_exp),
        "transposed delays": Synapse(back.weight, back.delay.T, back.weight_exp),
        "a dropped exponent": Synapse(back.weight, back.delay, 0),
    }[what]
    return network.with_(layers=(replace(first, recurrent=other), *network.layers[1:]))


@pytest.mark.parametrize(
    "fault",
    ["a delay that is off by one", "transposed recurrent weights", "transposed delays", "a dropped exponent"],
)
def test_the_comparison_sees(fault):
    network = dense_network()
    x = inputs_for(network, steps=200, rate=0.2)
    right, wrong = emulate(network, x), emulate(changed(network, fault), x)
    assert right.compare(emulate(network, x))
    result = right.compare(wrong)
    assert result.mismatches > 0
    assert result.first is not None and result.first.layer == 0
    # Nothing differs before the first difference, and there something does.
    step = result.first.step
    assert np.array_equal(right.spikes[0][:, :step], wrong.spikes[0][:, :step])
    assert not np.array_equal(right.spikes[0][:, step], wrong.spikes[0][:, step])
    with pytest.raises(MismatchError, match=f"step {step}"):
        right.require_equal(wrong)


def test_one_differing_voltage_is_one_mismatch_at_its_place():
    network = dense_network()
    x = inputs_for(network, steps=50)
    one, two = (emulate(network, x, ("spikes", "voltage")) for _ in range(2))
    two.voltage[1][1, 17, 2] += 1
    result = one.compare(two)
    assert result.mismatches == 1
    assert (result.first.layer, result.first.sample, result.first.step, result.first.neuron) == (1, 1, 17, 2)


def test_chunks_batches_and_recording_do_not_change_the_result(monkeypatch):
    network = dense_network()
    x = inputs_for(network, steps=300, batch=5, rate=0.2)
    whole = emulate(network, x, ("spikes", "voltage"))
    assert whole.spike_counts[0].sum() > 100
    monkeypatch.setattr(emulator, "_CHUNK", 7)
    whole.require_equal(emulate(network, x, ("spikes", "voltage")))
    parts = Trace.join([emulate(network, x[k : k + 2], ("spikes", "voltage")) for k in (0, 2, 4)])
    whole.require_equal(parts)
    bare = emulate(network, x, ())
    assert not bare.spikes and not bare.voltage
    whole.require_equal(bare)
    assert set(emulate(network, x, layers=[-1]).spikes) == {1}


def test_what_one_trace_did_not_count_is_not_compared():
    network = dense_network()
    x = inputs_for(network, steps=100, batch=4, rate=0.2)
    whole = emulate(network, x)
    parts = [emulate(network, x[k : k + 2]) for k in (0, 2)]
    for part in parts:
        part.u_wraps, part.v_saturations, part.spike_counts = [], [], []
    board = Trace.join(parts)
    assert (board.u_wraps, board.v_saturations, board.spike_counts) == ([], [], [])
    layers = len(network.layers)
    # Two counters of each layer, and a spike count of each layer and sample.
    expected = whole.compare(whole).compared - layers * (2 + 4)
    for one, other in ((whole, board), (board, whole)):
        result = one.compare(other)
        assert (result.mismatches, result.compared) == (0, expected)
    board.u_wraps = [0] * layers
    whole.u_wraps[0] = 1
    assert whole.compare(board).mismatches == 1


def test_decisions():
    synapse = Synapse(np.diag([100] * 4))
    x = np.zeros((2, 20, 4), np.uint8)
    x[0, ::2, 1] = x[0, ::5, 0] = x[0, ::5, 2] = 1
    x[1, ::3, 2] = x[1, ::3, 3] = 1
    spiking = Network((Dense(synapse, Neuron(vth=50, du=4096, dv=4096)),))
    assert decide(spiking, emulate(spiking, x)).tolist() == [1, 2]
    grouped = spiking.with_(average=2)
    assert decide(grouped, emulate(grouped, x)).tolist() == [0, 1]
    readout = Network((Dense(synapse, Neuron(vth=131071, du=4096, dv=0)),))
    assert decide(readout, emulate(readout, x, ())).tolist() == [1, 2]
    assert decide(spiking, emulate(spiking, x, ())).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (np.zeros((1, 5, 4), np.uint8), "4 channels, the network takes 5"),
        (np.zeros((1, 5, 5)), "type float64"),
        (np.zeros((5, 5), np.uint8), "shape"),
        (np.zeros((1, 0, 5), np.uint8), "empty"),
        (np.full((1, 5, 5), 2, np.uint8), "value 2"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, problem):
    with pytest.raises(InputError, match=problem):
        emulate(dense_network(), inputs)


@settings(max_examples=200)
@given(st.integers(-(2**40), 2**40), st.integers(0, 4096))
def test_decay_rounds_towards_zero(x, k):
    exact = abs(x) * (4096 - k) // 4096
    assert fixedpoint.decay(np.int64(x), k) == (exact if x >= 0 else -exact)


@given(st.integers(-(2**40), 2**40))
def test_wrap_is_modulo_24_bits(u):
    wrapped = int(fixedpoint.wrap_u(u))
    assert (wrapped - u) % 2**24 == 0
    assert -(2**23) < wrapped <= 2**23
    assert bool(fixedpoint.u_overflows(u)) == (wrapped != u)
