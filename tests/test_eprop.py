"""E-prop is back-propagation through time without the paths through other neurons and the reset."""

from __future__ import annotations

import tracemalloc

import numba
import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.errors import InputError
from delaynet_lava.nn import DelayRecurrent, Dense, Readout
from delaynet_lava.training.baselines import eprop
from delaynet_lava.training.baselines.eprop import eprop_step

CHANNELS, NEURONS, CLASSES = 20, 70, 3
NEURON = {"threshold": 1.5, "current_decay": 1.0, "requires_grad": True, "tau_grad": 1.3, "scale_grad": 0.9}


def network(kind="mixed", seed=0, reset="subtract", decay=0.05, shift=True, **options):
    """A random network whose back-propagation leaves out what e-prop leaves out."""
    torch.manual_seed(seed)
    neuron = NEURON | {"voltage_decay": decay}
    options = {"weight_scale": 1.5, "reset": reset, "reset_grad": 0.0, "delay_shift": shift} | options
    if kind == "dense":
        hidden = Dense(neuron, CHANNELS, NEURONS, **options)
    else:
        delay = np.arange(NEURONS) % 63 if kind == "mixed" else 0
        options = {"feedback_grad": 0.0, "self_connection": False} | options
        hidden = DelayRecurrent(neuron, CHANNELS, NEURONS, delay, **options)
    readout = {"current_decay": 1.0, "voltage_decay": 0.04, "requires_grad": True}
    return torch.nn.Sequential(hidden, Readout(readout, NEURONS, CLASSES, delay_shift=shift))


def batch(samples=5, steps=300, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(samples, CHANNELS, steps, generator=generator) < 0.05).float()
    return x, torch.randint(CLASSES, (samples,), generator=generator)


def weights(net):
    return {name: p.grad.clone() for name, p in net.named_parameters() if name.endswith("weight")}


def through_time(net, x, labels, temperature=1.0, rate_weight=0.0):
    """Gradients of the weights by back-propagation, and what the loss saw."""
    net.zero_grad()
    hidden = net[0](x)
    assert 0.005 < hidden.mean() < 0.6
    out = net[1](hidden)[..., -1]
    loss = torch.nn.functional.cross_entropy(out / temperature, labels)
    (loss + rate_weight * hidden.mean()).backward()
    return weights(net), hidden.detach(), out.detach()


def online(net, x, labels, **options):
    net.zero_grad()
    step = eprop_step(net, x, labels, **options)
    return weights(net), step


def apart(ours, theirs):
    """Largest difference of two gradients, relative to the largest entry."""
    return {k: float((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()) for k in theirs}


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["mixed", "no delay", "dense"])
@pytest.mark.parametrize("seed", [0, 1])
def test_eprop_is_back_propagation_without_feedback_and_reset(kind, reset, seed):
    shift = seed == 0
    net = network(kind, seed, reset, [0.0005, 0.05][seed], shift)
    x, labels = batch(seed=seed)
    expected, hidden, out = through_time(net, x, labels)
    ours, step = online(net, x, labels)
    assert torch.equal(step.out, out)
    assert torch.equal(step.population[:, : 300 - shift], hidden.sum(dim=1)[:, int(shift) :])
    assert max(apart(ours, expected).values()) < 2e-5, apart(ours, expected)
    net[0].reset_grad = net[0].feedback_grad = 1.0
    complete = through_time(net, x, labels)[0]
    assert max(apart(complete, expected).values()) > 0.05
    assert torch.equal(complete["1.synapse.weight"], expected["1.synapse.weight"])


def test_thresholds_and_decays_get_no_gradient_and_the_diagonal_stays_zero():
    net = network("no delay")
    eprop_step(net, *batch())
    assert net[0].neuron.vth.grad is None and net[0].neuron.voltage_decay.grad is None
    recurrent = net[0].recurrent_synapse.weight.grad.view(NEURONS, NEURONS)
    assert not recurrent.diagonal().any() and recurrent.abs().max() > 0


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_the_gradient_of_the_spike_rate_is_taken_too(reset):
    net = network(reset=reset, shift=False)
    x, labels = batch()
    options = {"temperature": 2.0, "rate_weight": 20.0}
    expected, _, _ = through_time(net, x, labels, **options)
    assert max(apart(online(net, x, labels, **options)[0], expected).values()) < 2e-5
    assert apart(online(net, x, labels)[0], expected)["0.input_synapse.weight"] > 0.05


def test_random_feedback_is_fixed_and_leaves_the_readout_its_own_gradient():
    net, (x, labels) = network(), batch()
    symmetric, _ = online(net, x, labels)
    random, _ = online(net, x, labels, feedback="random", seed=3)
    again, _ = online(net, x, labels, feedback="random", seed=3)
    other, _ = online(net, x, labels, feedback="random", seed=4)
    assert all(torch.equal(random[k], again[k]) for k in random)
    readout, entering = "1.synapse.weight", "0.input_synapse.weight"
    assert torch.equal(random[readout], symmetric[readout])
    assert not torch.equal(random[entering], symmetric[entering])
    assert not torch.equal(random[entering], other[entering])


def test_threads_and_pieces_of_time_change_nothing():
    net, (x, labels) = network(reset="zero"), batch()
    options = {"rate_weight": 1.0}
    whole, _ = online(net, x, labels, **options)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one, _ = online(net, x, labels, **options)
    finally:
        numba.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eprop, "_CHUNK", 64)
        pieces, _ = online(net, x, labels, **options)
    assert all(torch.equal(whole[k], one[k]) and torch.equal(whole[k], pieces[k]) for k in whole)


def peak_memory(steps):
    net, (x, labels) = network(), batch(steps=steps)
    online(net, x, labels)
    tracemalloc.start()
    online(net, x, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_grows_by_bits():
    """Kept of a step and sample: spikes of 20 inputs, 70 neurons and 3 readouts, and how many fired."""
    bits = 5 * (1 + 2 + 1) * 8 + 2 * 5 * 4
    short, long = peak_memory(2_000), peak_memory(12_000)
    assert long - short < 1.2 * 10_000 * bits


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"feedback": "none"}, "feedback: is 'none', expected one of"),
        ({"x": torch.full((2, CHANNELS, 9), 0.5)}, "holds more than spikes"),
        ({"x": torch.zeros(2, 4, 9)}, r"shape \(2, 4, 9\), expected \(N, 20, T\)"),
        ({"net": torch.nn.Sequential(torch.nn.Linear(1, 1))}, "is Linear, expected DelayRecurrent or Dense"),
    ],
)
def test_what_the_rule_does_not_cover_is_refused(change, problem):
    options = {"net": network(), "x": torch.zeros(2, CHANNELS, 9), "labels": torch.tensor([0, 1])} | change
    with pytest.raises(InputError, match=problem):
        eprop_step(**options)


def test_a_current_with_memory_is_refused():
    net = network()
    net[0].neuron.current_decay.data.fill_(1000)
    with pytest.raises(InputError, match="block 0: remembers its current"):
        eprop_step(net, *batch())
