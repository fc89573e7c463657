"""The networks that DelayNet is compared with: what they are made of, and that they learn one cue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.emulator import emulate
from delaynet_lava.export import extract
from delaynet_lava.nn import AdaptiveRecurrent, DelayRecurrent, Dense
from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.nn.model import describe
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training.baselines.eprop import eprop_step
from delaynet_lava.training.networks import build_network
from delaynet_lava.training.recipe_file import changed, load_recipe
from delaynet_lava.training.samples import pools

NETWORKS = {
    "lif": ("lif-2s", ["init.input_gain=0.1"], DelayRecurrent),
    "lif-ff": ("lif-2s-ff", ["init.input_gain=0.1"], Dense),
    "lsnn": ("lsnn", [], AdaptiveRecurrent),
    "lsnn-ff": ("lsnn-ff", [], AdaptiveRecurrent),
}


def build(name, *changes, seed=0):
    recipe, more, _ = NETWORKS[name]
    made = changed(load_recipe(recipe), ["network.layers=40", *more, *changes])
    return build_network(made, pools(CueAccumulation(1, 150), seed, 0.1)[0], seed)


def samples(first, count, split="train"):
    spikes, labels = CueAccumulation(1, 150, 0).batch(split, first, count)
    return torch.from_numpy(spikes).transpose(1, 2).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_what_they_are_called_and_follow_from_the_seed(name):
    net, again, other = build(name), build(name), build(name, seed=1)
    assert type(net[0]) is NETWORKS[name][2]
    trained = {k for k, p in net.named_parameters() if p.requires_grad}
    assert len(trained) == (2 if name.endswith("ff") else 3) and all(k.endswith("weight") for k in trained)
    x, _ = samples(0, 4)
    y = net(x)
    assert y.shape == (4, 2, 300) and net[0](x).mean() > 1e-4
    assert torch.equal(y, again(x)) and not torch.equal(y, other(x))


@pytest.mark.parametrize("name", ["lif", "lsnn"])
def test_recurrent_weights_have_the_radius_asked_for_and_no_diagonal(name):
    hidden = build(name, "init.radius=0.7")[0]
    weight = hidden.recurrent_weight if name == "lsnn" else hidden.recurrent_synapse.weight.flatten(1)
    threshold = hidden.threshold if name == "lsnn" else hidden.neuron.threshold
    assert spectral_radius(weight.abs()) == pytest.approx(0.7 * threshold, rel=1e-4)
    assert not weight.diagonal().any()


@pytest.mark.parametrize("name", ["lif", "lif-ff"])
def test_lif_networks_run_as_the_integers_that_were_trained(name):
    net = build(name)
    x, _ = samples(0, 4)
    trace = emulate(extract(describe(net)), x.transpose(1, 2).numpy().astype(np.uint8), ("spikes",))
    assert np.array_equal(trace.spikes[0], net[0](x).detach().numpy().transpose(0, 2, 1))
    assert np.array_equal(trace.final_voltage[1][:, :2], (net(x)[..., -1].detach().numpy() * 4096))
    assert extract(describe(net)).layers[0].neuron.dv == 2


@pytest.mark.parametrize(
    ("name", "rule"), [("lif", "bptt"), ("lif", "symmetric"), ("lif", "random"), ("lsnn", "bptt")]
)
def test_one_cue_is_learnt(name, rule):
    net = build(name, f"init.input_gain={0.3 if name == 'lif' else 0.8}")
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-2 if name == "lif" else 1e-2)
    test, target = samples(0, 256, "test")
    before = float((net(test)[..., -1].argmax(1) == target).float().mean())
    for step in range(20):
        x, labels = samples(16 * step, 16)
        optimiser.zero_grad()
        if rule == "bptt":
            torch.nn.functional.cross_entropy(net(x)[..., -1], labels).backward()
        else:
            eprop_step(net, x, labels, feedback=rule)
        optimiser.step()
    after = float((net(test)[..., -1].argmax(1) == target).float().mean())
    assert before < 0.6 and after > 0.75
