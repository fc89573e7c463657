"""The feed-forward block: its integers are the emulator's, its gradients those of the recurrent block."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

import delaynet_lava  # noqa: E402
from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.export import export_netx, extract  # noqa: E402
from delaynet_lava.nn import Axon, DelayRecurrent, Dense, Readout, SpikingRecurrentCell  # noqa: E402
from delaynet_lava.nn.blocks import leave_as_bits  # noqa: E402
from delaynet_lava.nn.model import build, describe  # noqa: E402

STEPS = 120
NEURON = {"threshold": 1.5, "current_decay": 0.3, "voltage_decay": 0.1, "requires_grad": True}


def spikes(channels, batch=3, steps=STEPS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, channels, steps, generator=generator) < 0.3).float()


@st.composite
def models(draw):
    torch.manual_seed(draw(st.integers(0, 10**6)))
    sizes = draw(st.lists(st.integers(1, 20), min_size=2, max_size=4))
    blocks = []
    for pre, post in pairwise(sizes):
        params = {
            "threshold": draw(st.floats(0.3, 4.0)),
            "current_decay": draw(st.sampled_from([1.0, 0.25])),
            "voltage_decay": draw(st.sampled_from([0.0005, 0.01, 0.1, 1.0])),
        }
        options = {
            "weight_scale": 3,
            "reset": draw(st.sampled_from(["zero", "subtract"])),
            "weight_norm": draw(st.booleans()),
        }
        if blocks and draw(st.booleans()):
            blocks.append(DelayRecurrent(params, pre, post, 5, **options))
        else:
            blocks.append(Dense(params, pre, post, recompute=draw(st.booleans()), **options))
    readout = {"current_decay": 1.0, "voltage_decay": 0.05}
    return torch.nn.Sequential(*blocks, Readout(readout, sizes[-1], 2, weight_scale=3))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(models(), st.integers(0, 99))
def test_the_emulator_computes_what_was_trained(model, seed):
    signal = x = spikes(model[0].synapse.weight.shape[1], seed=seed)
    trace = emulate(
        extract(describe(model)), x.transpose(1, 2).numpy().astype(np.uint8), ("spikes", "voltage")
    )
    for k, block in enumerate(model[:-1]):
        block.want_voltage = True
        signal = block(signal).detach()
        assert np.array_equal(trace.spikes[k], signal.numpy().transpose(0, 2, 1))
        assert block.overflows.tolist() == [trace.u_wraps[k], trace.v_saturations[k]]
    membrane = (model[-1](signal).detach().numpy().transpose(0, 2, 1) * 4096).astype(np.int64)
    assert np.array_equal(trace.voltage[len(model) - 1], membrane)


def test_the_file_holds_the_layer_and_a_reset_of_another_kind_is_seen(tmp_path):
    torch.manual_seed(0)
    block = Dense(NEURON, 6, 9, weight_scale=3, reset="subtract")
    model = torch.nn.Sequential(block, Readout(NEURON, 9, 2))
    export_netx(model, tmp_path / "net.h5", force=True)
    network = delaynet_lava.load(tmp_path / "net.h5")
    x = spikes(6)
    inputs = x.transpose(1, 2).numpy().astype(np.uint8)
    expected = block(x).detach().numpy().transpose(0, 2, 1)
    assert 0.05 < expected.mean() < 0.9
    assert np.array_equal(emulate(network, inputs).spikes[0], expected)
    layer = block.layer()
    assert layer.recurrent is None and np.array_equal(layer.synapse.weight, network.layers[0].synapse.weight)
    block.reset = "zero"
    assert not np.array_equal(emulate(extract(describe(model)), inputs).spikes[0], expected)


def gradients(block, x):
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(torch.sin(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape))
    part = block.input_synapse if isinstance(block, DelayRecurrent) else block.synapse
    neuron = block.neuron
    found = (part.weight, neuron.vth, neuron.current_decay, neuron.voltage_decay)
    return [y.detach(), x.grad, *(p.grad for p in found)]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("surrogate", ["paper", "slayer"])
def test_gradients_are_those_of_a_recurrent_layer_whose_recurrent_weights_are_zero(reset, surrogate):
    torch.manual_seed(1)
    options = {"weight_scale": 2, "reset": reset, "surrogate": surrogate}
    block, recurrent = Dense(NEURON, 6, 9, **options), DelayRecurrent(NEURON, 6, 9, 3, **options)
    with torch.no_grad():
        recurrent.input_synapse.weight.copy_(block.synapse.weight)
        recurrent.recurrent_synapse.weight.zero_()
    x = spikes(6)
    ours, theirs = gradients(block, x), gradients(recurrent, x)
    assert 0.05 < ours[0].mean() < 0.9
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    block.zero_grad()
    block.membrane_grad = False
    cut = gradients(block, x)
    assert torch.equal(cut[0], ours[0]) and not torch.equal(cut[1], ours[1])


def test_spikes_that_the_next_layer_reads_as_bits_need_no_numbers():
    torch.manual_seed(4)
    net = torch.nn.Sequential(
        DelayRecurrent(NEURON, 6, 20, np.arange(20), weight_scale=3),
        Dense(NEURON, 20, 9, weight_scale=3),
        Dense(NEURON, 9, 9, weight_scale=3, axon=Axon(2, 9)),
        SpikingRecurrentCell({}, 9, 9, weight_exp=-2),
        Readout(NEURON, 9, 4),
    )
    x, found = spikes(6).requires_grad_(), []
    for left in (False, True):
        net.zero_grad()
        x.grad = None
        if left:
            leave_as_bits(net)
        hidden = []
        for block in net:
            hidden.append(block(hidden[-1] if hidden else x))
        crowd = sum((k + 1) * out.population.square().mean() for k, out in enumerate(hidden[:3]))
        (hidden[-1][..., -1].square().sum() + crowd).backward()
        found.append([out.detach() for out in hidden[:-1]] + [out.population.detach() for out in hidden[:3]])
        found[-1] += [
            hidden[-1].detach(),
            x.grad,
            *(p.grad.clone() for p in net.parameters() if p.requires_grad),
        ]
    for k in (3, 0):  # the next one reads bits
        assert found[1].pop(k).isnan().all() and found[0].pop(k).mean() > 0.01
    assert len(found[0]) == len(found[1]) > 15
    for numbers, bits in zip(*found, strict=True):
        assert torch.equal(numbers, bits) and numbers.any()
    # Who asks for the mean gets it.
    net[0].count_log = True
    assert 0 < net[0](x)[1] < 1


def test_with_the_reset_to_zero_the_block_spikes_as_slayers_dense():
    torch.manual_seed(2)
    params = {"threshold": 1.5, "current_decay": 0.3, "voltage_decay": 0.1}
    theirs = slayer.block.cuba.Dense(dict(params), 6, 9, weight_scale=3)
    ours = Dense(dict(params), 6, 9)
    ours.synapse.weight.data.copy_(theirs.synapse.weight.data)
    x = spikes(6)
    assert theirs(x).mean() > 0.05
    assert torch.equal(ours(x), theirs(x))
    ours.reset = "subtract"
    assert not torch.equal(ours(x), theirs(x))


def test_build_restores_what_describe_saw():
    torch.manual_seed(3)
    block = Dense(NEURON, 6, 5, weight_scale=4, reset="subtract", surrogate="slayer", reset_grad=0.5)
    model = torch.nn.Sequential(block, Readout(NEURON, 5, 2))
    block.neuron.vth.data.fill_(1.51)
    again = build(describe(model))
    x = spikes(6)
    for net in (model, again):
        net(x).square().sum().backward()
    assert torch.equal(model(x), again(x))
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)
    assert block.synapse.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reset": "half"}, "Dense: reset: is 'half'"),
        ({"surrogate": "exact"}, "Dense: surrogate: is 'exact'"),
    ],
)
def test_bad_options_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        Dense(NEURON, 4, 3, **options)
