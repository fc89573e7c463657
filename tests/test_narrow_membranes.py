"""Membranes of fewer bits: one arithmetic in emulator, training and file, against plain integers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor, trunc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

from delaynet_lava import fixedpoint
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.network import Dense, Network, Neuron, Synapse


def plain(layer: Dense, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """One sample of one layer: spikes, membranes in the chip's unit, and saturations."""
    neuron, steps = layer.neuron, len(inputs)
    unit = Fraction(2**neuron.full_scale_exp, 2 ** (neuron.membrane_bits - 1))
    most = 2 ** (neuron.membrane_bits - 1) - 1
    level = floor((neuron.vth * 64) / unit)
    spikes, voltage = np.zeros((2, steps, layer.size), np.int64)
    u, m, clips = [0] * layer.size, [0] * layer.size, 0
    for t in range(steps):
        for i in range(layer.size):
            a = 0
            for synapse, sent in ((layer.synapse, inputs), (layer.recurrent, spikes)):
                for j in range(synapse.shape[1] if synapse else 0):
                    at = t - 1 - int(synapse.delay[i, j])
                    a += int(synapse.weight[i, j]) * 2**synapse.weight_exp * int(at >= 0 and sent[at, j])
            u[i] = trunc(Fraction(u[i] * (4096 - neuron.du), 4096)) + 64 * a
            bias = int(np.broadcast_to(neuron.bias, (layer.size,))[i]) * 2**neuron.bias_exp
            came = floor((u[i] + bias) / unit + Fraction(1, 2))
            m[i] = trunc(Fraction(m[i] * (4096 - neuron.dv), 4096)) + came
            clips += abs(m[i]) > most
            m[i] = max(-most, min(most, m[i]))
            if m[i] > level:
                spikes[t, i] = 1
                m[i] = 0 if neuron.reset == "zero" else m[i] - level
            voltage[t, i] = m[i] * unit
    return spikes, voltage, clips


def narrowed(network: Network, bits: int, above: int) -> Network:
    """All membranes with so many bits, or what their full scale leaves of them."""
    layers = []
    for layer in network.layers:
        k = min(fixedpoint.full_scale_above(layer.neuron.vth) + above, fixedpoint.FULL_SCALE_EXP)
        word = {"membrane_bits": max(2, min(bits, k + 1)), "full_scale_exp": max(k, 1)}
        layers.append(replace(layer, neuron=replace(layer.neuron, **word)))
    return network.with_(layers=tuple(layers))


@settings(max_examples=30)
@given(
    networks(max_layers=1, max_neurons=6, encoder=False), st.integers(2, 16), st.integers(0, 3), st.integers()
)
def test_emulator_is_the_plain_arithmetic(network, bits, above, seed):
    network = narrowed(network, bits, above)
    inputs = inputs_for(network, steps=70, batch=2, rate=0.3, seed=seed % 2**32)
    trace = emulate(network, inputs, ("spikes", "voltage"))
    expected = [plain(network.layers[0], x) for x in inputs]
    assert trace.u_wraps == [0]
    np.testing.assert_array_equal(trace.spikes[0], [s for s, _, _ in expected])
    np.testing.assert_array_equal(trace.voltage[0], [v for _, v, _ in expected])
    assert trace.v_saturations == [sum(c for _, _, c in expected)]


@settings(max_examples=12)
@given(networks(max_neurons=8, max_layers=3), st.integers(0, 2**32 - 1))
def test_24_bits_in_the_narrow_arithmetic_are_the_chip(network, seed):
    rng = np.random.default_rng(seed)
    v, u = rng.integers(-(2**23) + 1, 2**23, (2, 500))
    bias, dv = rng.integers(-(2**19), 2**19, 500), network.layers[0].neuron.dv
    narrow = fixedpoint.narrow_membrane_update(v, u, bias, dv, 0)
    np.testing.assert_array_equal(narrow, fixedpoint.membrane_update(v, u, bias, dv))
    assert fixedpoint.membrane_grid(24, 23) == (0, fixedpoint.V_MAX)


def test_fewer_bits_change_the_result():
    weight = 2 * np.random.default_rng(0).integers(-60, 60, (20, 20))
    layer = Dense(Synapse(weight), Neuron(300, 4096, 100), Synapse(weight))
    network = Network((layer,))
    inputs = inputs_for(network, 200, 4)
    wide = emulate(network, inputs)
    for bits, above in ((6, 0), (6, 1), (8, 0)):
        assert not wide.compare(emulate(narrowed(network, bits, above), inputs))
    assert not emulate(narrowed(network, 6, 0), inputs).compare(emulate(narrowed(network, 6, 1), inputs))


@settings(max_examples=12)
@given(networks(max_neurons=8), st.integers(2, 16), st.integers(0, 3))
def test_the_file_carries_the_word(tmp_path_factory, network, bits, above):
    path = tmp_path_factory.mktemp("narrow") / "net.h5"
    network = narrowed(network, bits, above)
    netx.write(network, path)
    for ours, read in zip(network.layers, netx.read(path).layers, strict=True):
        assert (ours.neuron.membrane_bits, ours.neuron.full_scale_exp) == (
            read.neuron.membrane_bits,
            read.neuron.full_scale_exp,
        )


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ({"membrane_bits": 1}, "membrane_bits: .* outside 2 to 24"),
        ({"membrane_bits": 25}, "membrane_bits: .* outside 2 to 24"),
        ({"membrane_bits": 8, "full_scale_exp": 6}, "full_scale_exp: .* 6, outside 7 to 23"),
        ({"membrane_bits": 8, "full_scale_exp": 24}, "full_scale_exp: .* 24, outside 7 to 23"),
        ({"full_scale_exp": 22}, "full_scale_exp: .* 22, outside 23 to 23"),
    ],
)
def test_words_that_do_not_exist_are_refused(word, problem):
    with pytest.raises(InputError, match=problem):
        Neuron(100, 4096, 100, **word)


def test_lava_refuses_a_narrow_membrane():
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    from delaynet_lava.lava import run

    network = narrowed(Network((Dense(Synapse([[100]]), Neuron(100, 4096, 100)),)), 8, 0)
    with pytest.raises(InputError, match="layer 0: membrane_bits: 8, but Lava"):
        run(network, inputs_for(network, 5))


# ---------------------------------------------------------------- training


def trained(bits, above, reset, seed):
    """A hidden layer and a readout with narrow membranes, both active."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    from delaynet_lava.nn import DelayRecurrent, Readout

    torch.manual_seed(seed)
    threshold = float(torch.rand(()) * 4 + 0.5)
    k = fixedpoint.full_scale_above(int(64 * threshold)) + above
    word = {"membrane_bits": min(bits, k + 1), "full_scale_exp": k}
    decays = {"current_decay": float(torch.rand(())), "voltage_decay": float(torch.rand(())) / 4}
    delay = np.random.default_rng(seed).integers(0, 20, 30)
    hidden = DelayRecurrent(
        decays | word | {"threshold": threshold}, 12, 30, delay, weight_scale=threshold, reset=reset
    )
    readout = Readout({"current_decay": 1.0, "voltage_decay": 0.05} | word, 30, 3)
    return torch.nn.Sequential(hidden, readout), (torch.rand(2, 12, 80) < 0.3).float()


@settings(max_examples=12)
@given(
    st.integers(3, 14),
    st.integers(0, 2),
    st.sampled_from(["zero", "subtract"]),
    st.integers(0, 2**16),
)
def test_trained_integers_are_those_that_run(bits, above, reset, seed):
    net, x = trained(bits, above, reset, seed)
    from delaynet_lava.export.extract import extract
    from delaynet_lava.nn.model import build, describe

    spikes = net[0](x)
    out = net[1](spikes)
    network = extract(describe(net))
    assert [layer.neuron.membrane_bits for layer in network.layers] == [net[0].neuron.membrane_bits] * 2
    # The blocks' outputs are late by one step: their last step is one that they do not return.
    later = np.pad(x.transpose(1, 2).numpy().astype(np.uint8), ((0, 0), (0, 1), (0, 0)))
    trace = emulate(network, later, ("spikes", "voltage"))
    fired, membranes = (part[:, :-1].transpose(0, 2, 1) for part in (trace.spikes[0], trace.voltage[1]))
    np.testing.assert_array_equal(spikes.detach().numpy(), fired)
    np.testing.assert_array_equal(out.detach().numpy() * 4096, membranes)
    assert trace.v_saturations == [int(block.overflows[1]) for block in net]
    again = build(describe(net))
    np.testing.assert_array_equal(again(x).detach().numpy(), out.detach().numpy())


def test_a_wide_emulation_of_a_narrow_training_differs():
    net, x = trained(6, 0, "zero", 1)
    wide = Network(
        tuple(
            replace(layer, neuron=replace(layer.neuron, membrane_bits=24, full_scale_exp=23))
            for layer in (block.layer() for block in net)
        )
    )
    trace = emulate(wide, x.transpose(1, 2).numpy().astype(np.uint8))
    spikes = net[0](x).detach().numpy()
    assert 0.02 < spikes.mean() < 0.7
    assert np.any(spikes != trace.spikes[0].transpose(0, 2, 1))


def test_gpu_refuses_a_narrow_membrane():
    torch = pytest.importorskip("torch")
    from delaynet_lava.kernels.autograd import delayed_recurrence
    from delaynet_lava.kernels.dynamics import Dynamics

    dynamics = Dynamics(np.zeros(2, np.int32), membrane_bits=8, full_scale_exp=12)
    x, weight, one = (torch.zeros(shape, device="meta") for shape in ((1, 5, 3), (2, 3), (1,)))
    with pytest.raises(InputError, match="layer on meta: has membranes of 8 bits"):
        delayed_recurrence(x, weight, None, one, one, one, dynamics)
