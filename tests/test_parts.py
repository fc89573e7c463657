"""Our blocks' parts against SLAYER's: numbers, names and gradients; and training without SLAYER."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delaynet_lava.nn import parts

NEURON = {"threshold": 1.3, "current_decay": 0.31, "voltage_decay": 0.047, "requires_grad": True}


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    from delaynet_lava.nn import slayer

    return slayer


def test_the_surrogates_factors_are_slayers(theirs):
    assert parts.SURROGATE_WIDTH == theirs.neuron.TAU_RHO_MULT
    assert parts.SURROGATE_HEIGHT == theirs.neuron.SCALE_RHO_MULT


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("scale", [1, 3.5])
def test_a_synapse_draws_slayers_weights_under_slayers_names(theirs, norm, scale):
    states = []
    for make in (parts.Synapse, theirs.synapse.Dense):
        torch.manual_seed(7)
        states.append((make(11, 5, scale, norm).state_dict(), torch.rand(3)))
    (ours, after), (slayers, expected) = states
    assert list(ours) == list(slayers)
    assert all(torch.equal(ours[key], slayers[key]) for key in ours)
    assert torch.equal(after, expected)  # as many random numbers were drawn


@given(st.floats(0.01, 100), st.floats(0, 1), st.floats(0, 1))
def test_a_neuron_has_slayers_integers(theirs, threshold, current, voltage):
    ours = parts.Cuba(threshold, current, voltage, requires_grad=True)
    slayers = theirs.neuron.Neuron(threshold, current, voltage, requires_grad=True)
    assert ours.device_params == slayers.device_params
    assert (ours.w_scale, ours.s_scale, ours.p_scale) == (slayers.w_scale, slayers.s_scale, slayers.p_scale)
    assert list(ours.state_dict()) == list(slayers.state_dict())


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 4.0]))
def test_quantised_weights_and_their_gradients_are_slayers(theirs, seed, size):
    generator = torch.Generator().manual_seed(seed)
    start = size * torch.randn(40, generator=generator)
    start[:4] = torch.tensor([1 / 64, -3 / 64, 3.96875 + 1 / 64, -4.1])  # halves, and beyond both ends
    grad, found = torch.randn(40, generator=generator), []
    for neuron in (parts.Cuba(1.0, 0.5, 0.5), theirs.neuron.Neuron(1.0, 0.5, 0.5)):
        weight = start.clone().requires_grad_()
        words = neuron.quantize_8bit(weight)
        words.backward(grad)
        found.append((words.detach(), weight.grad, neuron.quantize_8bit(weight, descale=True).detach()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_half_a_step_goes_to_the_even_one():
    assert parts.quantize(torch.tensor([0.5, 1.5, -0.5, 2.5])).tolist() == [0.0, 2.0, -0.0, 2.0]


def test_a_synapse_without_norm_again():
    made = parts.Synapse(4, 3, weight_norm=True)
    before = made.weight.detach().clone()
    made.disable_weight_norm()
    assert list(made.state_dict()) == ["weight"] and torch.allclose(made.weight, before)
    assert made.grad_norm == 0
    made.weight.sum().backward()
    assert made.grad_norm == pytest.approx(np.sqrt(12) / 12)


# Lava is blocked as if it were not installed: a network is trained, described, saved, loaded, exported, run.
WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "lava" or name.startswith("lava."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import delaynet_lava, torch
from delaynet_lava.errors import BackendMissing
from delaynet_lava.cli import main

word = "cue:cues=1,wait_ms=150"
try:
    main(["train", word, "--recipe", "smoke", "-o", "m.pt"])
except SystemExit as stop:
    assert not stop.code, stop.code
net = delaynet_lava.load_model("m.pt")
assert delaynet_lava.check(net, delaynet_lava.task(word), samples=4, lava_samples=0).differing == 0
file = delaynet_lava.formats.model_file.load_model("m.pt")
file.config["layers"][0]["type"] = "Recurrent"
try:
    delaynet_lava.nn.model.build(file)
except BackendMissing as error:
    print(error)
assert not any(name.partition(".")[0] == "lava" for name in sys.modules)
"""


def test_without_slayer_everything_but_its_own_blocks_works(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert "SLAYER's own block needs lava-dl" in last and "setup-lava" in last
