"""Biases, and readouts a step ahead: from the first step on the network does what SLAYER does."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.export import export_netx, extract  # noqa: E402
from delaynet_lava.export.agreement import _from_rest, _through  # noqa: E402
from delaynet_lava.export.differences import differences  # noqa: E402
from delaynet_lava.formats import netx  # noqa: E402
from delaynet_lava.network import Payload  # noqa: E402
from delaynet_lava.nn.model import describe  # noqa: E402
from delaynet_lava.trace import scores  # noqa: E402

cuba = slayer.block.cuba
STEPS = 120


def neuron(draw, normed: bool = True) -> dict:
    params = {
        "threshold": draw(st.floats(0.5, 3.0)),
        "current_decay": draw(st.sampled_from([1.0, 0.5, 0.1])),
        # Slow membranes: a bias that starts a step early is seen for long.
        "voltage_decay": draw(st.sampled_from([0.002, 0.01, 0.03, 0.1, 0.5])),
    }
    return params | ({"norm": slayer.neuron.norm.MeanOnlyBatchNorm} if normed else {})


@st.composite
def normed_models(draw):
    """One to three layers of stock SLAYER blocks, most with a norm, and what may follow them."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    sizes = draw(st.lists(st.integers(4, 16), min_size=2, max_size=4))
    blocks = []
    if draw(st.booleans()):
        # SLAYER's own fails without neurons and with a shift.
        blocks.append(cuba.Input(delay_shift=False))
    for pre, post in pairwise(sizes):
        make = draw(st.sampled_from([cuba.Dense, cuba.Dense, cuba.Recurrent]))
        params = neuron(draw, draw(st.integers(0, 3)) > 0)
        if make is cuba.Recurrent and "norm" in params:
            params["current_decay"] = 1.0  # with another one it can't be exact, which is a finding
        blocks.append(make(params, pre, post, weight_scale=4))
    end = draw(st.sampled_from(["affine", "normed affine", "currents", "unshifted", "none"]))
    if "affine" in end:
        blocks.append(cuba.Affine(neuron(draw, end != "affine"), sizes[-1], 3, weight_scale=3))
    elif end == "currents":
        blocks.append(cuba.Affine(neuron(draw, False), sizes[-1], 3, weight_scale=3, dynamics=False))
    elif end == "unshifted":
        last = cuba.Dense(neuron(draw), sizes[-1], 4, weight_scale=4, delay_shift=False)
        blocks.append(last)
    return torch.nn.Sequential(*blocks)


def prepared(model: torch.nn.Sequential, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of all blocks, (batch, steps, neurons), with running means such as a training leaves."""
    signal = torch.from_numpy(x).transpose(1, 2).float()
    with torch.no_grad():
        model(signal)  # norms take their shape from what they see first
        for part in model.modules():
            if hasattr(part, "running_mean"):
                part.running_mean = torch.rand(part.running_mean.shape) - 0.7
        model.eval()
        _from_rest(model)
        return [out.numpy().transpose(0, 2, 1) for out in _through(list(model), signal)]


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(normed_models(), st.integers(0, 10**6), st.sampled_from([0.02, 0.05, 0.1, 0.4]), st.booleans())
def test_no_spike_and_no_membrane_differs_from_slayers(model, seed, rate, graded):
    rng = np.random.default_rng(seed)
    first = next(block for block in model if not isinstance(block, cuba.Input))
    channels = getattr(first, "synapse", getattr(first, "input_synapse", None)).weight.shape[1]
    x = (rng.random((3, STEPS, channels)) < rate).astype(np.int32)
    payload = Payload(3, True) if graded else Payload()
    if graded:
        x *= rng.integers(-4, 4, x.shape, dtype=np.int32)
    outputs = prepared(model, x)
    network = extract(describe(model, payload=payload))
    assert "differs" not in network.provenance
    trace = emulate(network, x, ("spikes", "voltage"))
    assert trace.steps == STEPS + network.tail
    layers = [out for block, out in zip(model, outputs, strict=True) if not isinstance(block, cuba.Input)]
    for k, output in enumerate(layers):
        last = k == len(layers) - 1
        ahead = network.tail if last else 0
        record = trace.spikes[k]
        if last and network.layers[-1].neuron.is_readout:
            record, output = trace.voltage[k], np.rint(output * 4096)
        assert np.array_equal(record[:, ahead : STEPS + ahead], output)
        if ahead and all(layer.neuron.starts_quiet for layer in network.layers):
            assert not record[:, 0].any()
    answer = network.answer
    wanted = layers[-1][:, -1] if answer.kind == "last" else layers[-1].sum(axis=1)
    scale = 4096 if network.layers[-1].neuron.is_readout else 1
    if network.layers[-1].neuron.starts_quiet:
        assert np.array_equal(scores(network, trace), np.rint(wanted.astype(np.float64) * scale))


def normed(voltage_decay: float, threshold: float = 1.0) -> tuple[torch.nn.Sequential, np.ndarray]:
    torch.manual_seed(7)
    params = {"threshold": threshold, "current_decay": 0.5, "voltage_decay": voltage_decay}
    params["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
    model = torch.nn.Sequential(cuba.Dense(params, 20, 30, weight_scale=4))
    x = (np.random.default_rng(7).random((4, 300, 20)) < 0.05).astype(np.uint8)
    return model, x


def test_without_the_initial_state_spikes_differ():
    model, x = normed(0.01)
    output = prepared(model, x)[0]
    network = extract(describe(model))
    assert np.array_equal(emulate(network, x).spikes[0], output)
    layer = network.layers[0]
    at_rest = replace(layer, neuron=replace(layer.neuron, v_init=0))
    wrong = network.with_(layers=(at_rest,))
    assert (emulate(wrong, x).spikes[0] != output).any()
    assert [f.rule for f in differences(wrong)] == ["initial-state"]
    assert not differences(network)


@pytest.mark.parametrize(("decay", "said"), [(4095 / 4096, True), (0.9, False)])
def test_a_start_that_no_membrane_has_is_a_finding(tmp_path, decay, said):
    model, x = normed(decay)
    prepared(model, x)
    model[0].neuron.norm.running_mean = torch.full((30,), -0.9)
    report = export_netx(model, tmp_path / "net.h5", force=True)
    found = [f for f in report.findings if f.rule == "initial-state"]
    assert bool(found) == said
    kept = netx.read(tmp_path / "net.h5").provenance["export"]["findings"]
    assert [f["rule"] for f in kept] == [f.rule for f in report.findings]


def test_a_norm_within_a_lasting_current_is_a_finding(tmp_path):
    torch.manual_seed(3)
    params = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.05}
    params["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
    model = torch.nn.Sequential(cuba.Recurrent(params, 20, 8, weight_scale=4))
    x = (np.random.default_rng(7).random((4, 200, 20)) < 0.05).astype(np.uint8)
    output = prepared(model, x)[0]
    report = export_netx(model, tmp_path / "net.h5")
    assert [f.rule for f in report.findings] == ["slayer"] and "current_decay=1" in str(report.findings[0])
    assert (emulate(report.network, x).spikes[0] != output).any()


def test_what_slayer_does_otherwise_is_a_finding(tmp_path):
    params = {"threshold": 70.0, "current_decay": 1.0, "voltage_decay": 0.1}
    model = torch.nn.Sequential(cuba.Dense(params, 9, 4, weight_scale=4))
    model(torch.zeros(1, 9, 2))
    report = export_netx(model, tmp_path / "net.h5")
    assert [f.rule for f in report.findings] == ["slayer"]
    assert "4480" in report.findings[0].problem and "differs" not in report.network.provenance
    file = describe(model, payload=Payload(24))
    report = export_netx(file, tmp_path / "net.h5")
    assert "float32" in str(report.findings[1]) and report.findings[2].rule == "synaptic-sum"
