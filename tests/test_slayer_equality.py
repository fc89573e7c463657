"""The emulator computes what SLAYER computed: spikes and membranes of random models, every step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.export import extract  # noqa: E402
from delaynet_lava.export.extract import quantize_weight  # noqa: E402
from delaynet_lava.nn import DelayRecurrent, Readout  # noqa: E402
from delaynet_lava.nn.model import build, describe, load_model, save_model  # noqa: E402
from delaynet_lava.nn.parts import Cuba  # noqa: E402

cuba = slayer.block.cuba
STEPS = 90
KINDS = ["dense", "delayed dense", "recurrent", "delayed recurrent", "ours", "ours", "ours", "normed"]


@st.composite
def neurons(draw, spiking=True):
    params = {
        "threshold": draw(st.floats(0.3, 6.0)),
        "current_decay": draw(st.sampled_from([1.0, 0.0, 0.25, 0.7])),
        "voltage_decay": draw(st.sampled_from([0.0, 0.01, 0.1, 1.0])),
    }
    # A current and a membrane that never decay integrate twice; over many steps that overflows.
    if params["current_decay"] == 0.0:
        params["voltage_decay"] = 1.0
    return params


def _delayed(block, values):
    """Give a stock block with delay=True its learnt delays, which the first pass would draw."""
    block.delay.delay.data = torch.tensor(values, dtype=torch.float32)
    block.delay.init = True


@st.composite
def models(draw):
    """Up to three spiking layers and a readout: stock SLAYER blocks and ours, in any order."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    sizes = draw(st.lists(st.integers(2, 12), min_size=2, max_size=4))
    reset = draw(st.sampled_from(["zero", "subtract"]))
    blocks, delayed = [], []
    for pre, post in pairwise(sizes):
        kind = draw(st.sampled_from(KINDS))
        params = draw(neurons())
        delays = draw(st.lists(st.integers(0, 62), min_size=post, max_size=post))
        if kind == "ours":
            block = DelayRecurrent(
                params, pre, post, np.array(delays), weight_scale=3, reset=reset,
                self_connection=draw(st.booleans()), weight_norm=draw(st.booleans()),
            )  # fmt: skip
        elif "recurrent" in kind:
            block = cuba.Recurrent(params, pre, post, weight_scale=3, delay=kind == "delayed recurrent")
        elif kind == "delayed dense":
            block = cuba.Dense(params, pre, post, weight_scale=3, delay=True)
        else:
            block = cuba.Dense(params, pre, post, weight_scale=3, weight_norm=kind == "normed")
        if kind.startswith("delayed"):
            _delayed(block, [d + draw(st.floats(0, 0.9)) for d in delays])
        blocks.append(block)
        delayed.append(kind.startswith("delayed"))
    # SLAYER delays the spikes that leave a recurrent layer, which needs a layer that receives them.
    ends = ["readout", "affine"] if kind == "delayed recurrent" else ["readout", "affine", "none"]
    last = draw(st.sampled_from(ends))
    if last != "none":
        make = Readout if last == "readout" else cuba.Affine
        blocks.append(make(draw(neurons()), sizes[-1], 3, weight_scale=3))
    return torch.nn.Sequential(*blocks), delayed, last


def _outputs(model, x):
    """Output of every block."""
    outputs = []
    with torch.no_grad():
        for block in model:
            x = block(x)
            outputs.append(x)
    return outputs


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(models(), st.integers(0, 10**6), st.sampled_from([0.1, 0.4]))
def test_emulator_equals_slayer(drawn, seed, rate):
    model, delayed, last = drawn
    x = np.random.default_rng(seed).random((3, STEPS, model_inputs(model))) < rate
    outputs = _outputs(model, torch.from_numpy(x).transpose(1, 2).float())
    trace = emulate(extract(describe(model)), x, record=("spikes", "voltage"))
    assert trace.u_wraps == [0] * len(outputs)
    assert trace.v_saturations == [0] * len(outputs)
    for k, output in enumerate(outputs):
        expected = output.numpy().transpose(0, 2, 1)
        if k == len(delayed):
            membrane = (expected * 4096).astype(np.int64)
            # SLAYER's Affine lacks the step that every other block adds.
            late = int(last == "affine")
            assert np.array_equal(trace.voltage[k][:, late:], membrane)
            continue
        spikes = trace.spikes[k][:, :STEPS]
        if delayed[k] and k < len(outputs) - 1:
            # SLAYER delays behind the layer, the network in the synapses that follow.
            lags = torch.floor(model[k].delay.delay.detach()).to(int).tolist()
            spikes = np.stack([_shifted(spikes[:, :, n], lag) for n, lag in enumerate(lags)], axis=2)
        assert np.array_equal(spikes, expected)


def model_inputs(model):
    first = model[0]
    part = first.input_synapse if hasattr(first, "input_synapse") else first.synapse
    return part.weight.shape[1]


def _shifted(spikes, lag):
    out = np.zeros_like(spikes)
    out[:, lag:] = spikes[:, : spikes.shape[1] - lag]
    return out


@settings(max_examples=200)
@given(st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=50))
def test_weights_are_rounded_as_slayer_rounds_them(values):
    weight = torch.tensor(values)
    neuron = slayer.neuron.cuba.Neuron(1.0, 1.0, 0.1)
    expected = neuron.quantize_8bit(weight, descale=True)
    assert np.array_equal(quantize_weight(weight), expected.numpy())


def test_ties_and_limits_are_rounded_as_slayer_rounds_them():
    weight = torch.arange(-300, 301, dtype=torch.float32) / 64
    neuron = slayer.neuron.cuba.Neuron(1.0, 1.0, 0.1)
    assert np.array_equal(quantize_weight(weight), neuron.quantize_8bit(weight, descale=True).numpy())
    assert quantize_weight(weight).min() == -256
    assert quantize_weight(weight).max() == 254


def test_an_encoder_in_front_is_a_step_earlier_and_what_follows_is_not():
    """SLAYER's Input block adds a step of its own; here it is a delay of the synapses behind."""
    torch.manual_seed(1)
    params = dict(threshold=1.5, current_decay=1.0, voltage_decay=0.1)
    model = torch.nn.Sequential(
        cuba.Input(dict(params), weight=1.0, bias=0.25), cuba.Dense(dict(params), 6, 5, weight_scale=3)
    )
    x = np.random.default_rng(1).integers(0, 3, (3, STEPS, 6)).astype(np.uint8)
    outputs = _outputs(model, torch.from_numpy(x).transpose(1, 2).float())
    trace = emulate(extract(describe(model)), x)
    assert 0.05 < float(outputs[0].mean()) < 0.9
    first, second = (y.numpy().transpose(0, 2, 1) for y in outputs)
    assert np.array_equal(trace.spikes[0][:, :-1], first[:, 1:])
    assert np.array_equal(trace.spikes[1], second)


def test_mean_only_normalisation_becomes_a_bias():
    torch.manual_seed(2)
    params = dict(threshold=1.0, current_decay=0.5, voltage_decay=0.1)
    params["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
    model = torch.nn.Sequential(cuba.Dense(params, 6, 5, weight_scale=4))
    x = np.random.default_rng(2).random((3, STEPS, 6)) < 0.4
    signal = torch.from_numpy(x).transpose(1, 2).float()
    model(signal)
    model.eval()
    network = extract(describe(model))
    assert np.any(network.layers[0].neuron.bias)
    expected = _outputs(model, signal)[0]
    assert 0.01 < float(expected.mean()) < 0.9
    assert np.array_equal(emulate(network, x).spikes[0], expected.numpy().transpose(0, 2, 1))


def test_slayer_loses_the_strict_threshold_from_64_on_and_the_network_does_not():
    """v = threshold exactly: SLAYER's small offset vanishes in float32, the chip does not spike."""
    for threshold, slayer_spikes in ((32.0, 0.0), (64.0, 1.0)):
        block = cuba.Dense(dict(threshold=threshold, current_decay=1.0, voltage_decay=1.0), 32, 1)
        block.synapse.weight.data.fill_(threshold / 32)
        x = torch.ones(1, 32, 2)
        assert float(block(x).detach()[0, 0, 1]) == slayer_spikes
        trace = emulate(extract(describe(torch.nn.Sequential(block))), np.ones((1, 2, 32), np.uint8))
        assert trace.spikes[0][0, 1, 0] == 0


def test_a_delay_behind_the_last_layer_shifts_its_inputs_or_is_refused():
    torch.manual_seed(3)
    params = dict(threshold=1.0, current_decay=0.5, voltage_decay=0.1)
    model = torch.nn.Sequential(cuba.Dense(dict(params), 6, 4, weight_scale=4, delay=True))
    _delayed(model[0], [0.0, 3.7, 62.0, 1.0])
    x = np.random.default_rng(3).random((3, STEPS, 6)) < 0.4
    expected = _outputs(model, torch.from_numpy(x).transpose(1, 2).float())[0]
    assert expected[:, 2].any()
    assert np.array_equal(emulate(extract(describe(model)), x).spikes[0], expected.numpy().transpose(0, 2, 1))
    model = torch.nn.Sequential(cuba.Recurrent(dict(params), 6, 4, weight_scale=4, delay=True))
    _delayed(model[0], [0.0, 3.7, 62.0, 1.0])
    with pytest.raises(InputError, match="delays its output by up to 62 steps"):
        extract(describe(model))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: slayer.block.alif.Dense(
            dict(p, threshold_decay=0.1, threshold_step=0.1, refractory_decay=0.1), 4, 3), "is a alif Dense"),
        (lambda p: cuba.Conv(dict(p), 2, 3, 3), "is a cuba Conv"),
        (lambda p: cuba.Dense(dict(p), (2, 2, 1), 3), "flatten its input"),
        (lambda p: cuba.Dense(dict(p, shared_param=False), 4, 3), "shared_param=True"),
        (lambda p: cuba.Dense(dict(p, graded_spike=True), 4, 3), "graded spikes"),
        (lambda p: cuba.Dense(dict(p, norm=slayer.neuron.norm.WgtScaleBatchNorm), 4, 3), "MeanOnlyBatchNorm"),
        (lambda p: cuba.Dense(dict(p), 4, 3, pre_hook_fx=None), "quantize_8bit"),
        (lambda p: torch.nn.Linear(4, 3), "is a linear Linear"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_by_place_and_reason(make, reason):
    params = dict(threshold=1.0, current_decay=0.5, voltage_decay=0.1)
    with pytest.raises(InputError, match=reason):
        describe(torch.nn.Sequential(make(params)))


def test_zero_lag_between_layers_is_refused():
    params = dict(threshold=1.0, current_decay=0.5, voltage_decay=0.1)
    model = torch.nn.Sequential(
        cuba.Dense(dict(params), 4, 3, delay_shift=False), cuba.Dense(dict(params), 3, 2)
    )
    with pytest.raises(InputError, match="delay_shift=False"):
        extract(describe(model))


def test_build_restores_what_describe_saw():
    torch.manual_seed(4)
    params = dict(threshold=2.0, current_decay=1.0, voltage_decay=0.1, requires_grad=True, tau_grad=1.3)
    model = torch.nn.Sequential(
        DelayRecurrent(
            params, 6, 5, [0, 1, 5, 9, 62], weight_scale=4, self_connection=False, feedback_grad=0.3
        ),
        Readout(dict(current_decay=1.0, voltage_decay=0.05), 5, 2),
    )
    model[0].neuron.vth.data.fill_(1.51)
    again = build(describe(model))
    x = (torch.rand(3, 6, STEPS) < 0.4).float()
    assert torch.equal(model(x), again(x))
    incoming = torch.randn(3, 2, STEPS)
    model(x).backward(incoming)
    again(x).backward(incoming)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            assert torch.equal(ours.grad, theirs.grad)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(models(), st.integers(0, 10**6), st.booleans())
def test_a_file_gives_back_the_network_that_was_saved(tmp_path_factory, drawn, seed, normalised):
    model, _, _ = drawn
    x = torch.from_numpy(np.random.default_rng(seed).random((3, model_inputs(model), STEPS)) < 0.3).float()
    if normalised and type(model[0]) is cuba.Dense:
        norm = slayer.neuron.norm.MeanOnlyBatchNorm(pre_hook_fx=model[0].neuron.quantize_8bit)
        model[0].neuron.norm = norm
        model(x)
        model.eval()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(model, path, task="cue")
    before = torch.random.get_rng_state()
    again = load_model(path)
    assert torch.equal(before, torch.random.get_rng_state())
    for block in model:
        # The pass that measured the mean left its last state behind.
        block.neuron.current_state, block.neuron.voltage_state = torch.zeros(1), torch.zeros(1)
    for ours, theirs in zip(_outputs(model, x), _outputs(again, x), strict=True):
        assert torch.equal(ours, theirs)


def test_where_slayer_goes_on_the_block_wraps_as_the_chip_does():
    """SLAYER's integers have no end; the block, the emulator and the chip wrap u, and count it."""
    torch.manual_seed(6)
    params = dict(threshold=60.0, current_decay=0.001, voltage_decay=1.0)
    theirs = cuba.Recurrent(dict(params), 40, 6, weight_scale=20)
    theirs.input_synapse.weight.data.abs_()
    ours = DelayRecurrent(dict(params), 40, 6, 0)
    for name in ("input_synapse", "recurrent_synapse"):
        getattr(ours, name).weight.data.copy_(getattr(theirs, name).weight.data)
    x = np.random.default_rng(6).random((2, 200, 40)) < 0.7
    signal = torch.from_numpy(x).transpose(1, 2).float()
    ours.want_voltage = True
    spikes = ours(signal).detach()
    trace = emulate(extract(describe(torch.nn.Sequential(ours))), x, ("spikes", "voltage"))
    assert np.array_equal(trace.spikes[0], spikes.numpy().transpose(0, 2, 1))
    assert trace.u_wraps[0] > 0
    assert ours.overflows.tolist() == [trace.u_wraps[0], trace.v_saturations[0]]
    assert not torch.equal(theirs(signal), spikes)


@pytest.mark.parametrize("of", ["ours", "SLAYER's"])
def test_the_gradient_of_a_weight_at_its_bound_is_that_of_any_other(of: str) -> None:
    # torch 2.14's clamp has none there: a weight that has come to 254 or -256 would stay for ever.
    params = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.04}
    neuron = Cuba(**params) if of == "ours" else slayer.neuron.cuba.Neuron(**params)
    weight = torch.tensor([-5.0, -4.0, -3.9, 1.0, 254 / 64, 4.5], requires_grad=True)
    words = neuron.quantize_8bit(weight, descale=True)
    words.sum().backward()
    assert words.tolist() == [-256, -256, -250, 64, 254, 254]
    assert weight.grad.tolist() == [0, 64, 64, 64, 64, 0]
