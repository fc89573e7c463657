"""The check of initial weights: its figures against plain computations, and what it objects to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.analysis.initial import examine
from delaynet_lava.cli import main
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training import delaynet
from delaynet_lava.training.branching import branching_factor
from delaynet_lava.training.options import CueOptions

OPTIONS = CueOptions(neurons=27, cues=1, wait_ms=300)
PAPER = dict(surrogate="paper", surrogate_width=1.39, dampening=1.0, curriculum=False, control=0.0)


def test_the_branching_factor_is_the_mean_ratio_of_descendants():
    counts = [[2, 4, 0, 1, 1, 0], [0, 0, 0, 3, 0, 1]]
    expected = np.mean([4 / 2, 0 / 4, 1 / 1, 0 / 1, 0 / 3])
    assert branching_factor(torch.tensor(counts, dtype=torch.float32)) == pytest.approx(expected)
    assert branching_factor(torch.zeros(1, 4)) == 0.0


def test_its_figures_are_those_of_the_network():
    net = delaynet.build(OPTIONS)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    report = examine(net, OPTIONS)
    weight = net[0].recurrent_matrix().detach().numpy() / net[0].neuron.threshold
    assert report.radius == pytest.approx(np.abs(np.linalg.eigvals(weight)).max(), rel=1e-5)
    assert report.absolute_radius == pytest.approx(np.abs(np.linalg.eigvals(abs(weight))).max(), rel=1e-5)
    inputs, _ = CueAccumulation(1, 300, 0).batch("train", 0, 8)
    spikes = net[0](torch.from_numpy(inputs).transpose(1, 2).float())
    assert report.rate == pytest.approx(float(spikes.mean()))
    assert report.loop == 1 + net[0].delay.float().mean()
    assert (report.steps, report.first_steps) == (450, 300)
    assert report.decades == pytest.approx(450 * np.log10(report.growth))
    # Nothing is left behind.
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net[0].feedback_grad == OPTIONS.feedback_grad
    assert all(p.grad is None for p in net.parameters())


def test_without_recurrence_the_gradient_lives_as_long_as_the_membrane():
    # Neither recurrence nor the readout's memory are in its way; the reset passes on a little more or less.
    for tau in (10.0, 40.0):
        options = replace(OPTIONS, radius=0.0, tau_ms=tau, tau_out_ms=1.0, input_gain=0.02)
        report = examine(delaynet.build(options), options)
        assert -1 / np.log(report.growth) == pytest.approx(tau, rel=0.2)


def test_the_gradient_grows_with_the_recurrent_weights():
    growth = [
        examine(delaynet.build(o), o).growth
        for o in (replace(OPTIONS, radius=radius) for radius in (0.5, 4.0, 14.0))
    ]
    assert growth == sorted(growth)
    assert growth[0] < 1 < growth[-1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input_gain": 0.01}, "nearly silent"),
        (PAPER | {"radius": 60.0}, "explodes: times"),
        ({"radius": 0.0, "tau_ms": 2.0, "curriculum": False}, "vanishes"),
    ],
)
def test_what_stands_against_training_is_said(change, problem):
    options = replace(OPTIONS, **change)
    assert any(problem in one for one in examine(delaynet.build(options), options).problems)
    # Steered, the same gradient can be held.
    options = replace(options, control=0.005, curriculum=True)
    assert not any("explodes" in one for one in examine(delaynet.build(options), options).problems)
    assert not examine(delaynet.build(OPTIONS), OPTIONS).problems


def test_the_command_says_it_and_its_exit_code(capsys):
    common = ["--set", "neurons=27", "--set", "cues=1", "--set", "wait_ms=150", "--samples", "4"]
    with pytest.raises(SystemExit) as stop:
        main(["init", "cue", *common])
    assert stop.value.code == 0
    assert "nothing stands against training" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["init", "cue", *common, "--set", "input_gain=0.001", "--json", "-"])
    assert stop.value.code == 1
    streams = capsys.readouterr()
    assert "nearly silent" in streams.err and '"growth"' in streams.out
