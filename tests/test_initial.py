"""The check of initial weights: its figures against plain computations, and what it objects to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.analysis.initial import InitialReport, examine
from delaynet_lava.cli import main
from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training.branching import branching_factor
from delaynet_lava.training.networks import build_network
from delaynet_lava.training.recipe import Recipe
from delaynet_lava.training.recipe_file import changed, load_recipe
from delaynet_lava.training.samples import pools

TASK = CueAccumulation(1, 300)
RECIPE = changed(load_recipe("loihi2"), ["network.layers=27"])
STEEP = ["gradient.surrogate=paper", "gradient.surrogate_width=1.39", "gradient.dampening=1"]
STEEP += ["gradient.control=0", "curriculum.walk=false"]


def build(recipe: Recipe) -> torch.nn.Sequential:
    return build_network(recipe, pools(TASK, 0, 0.1)[0], 0)


def report_on(recipe: Recipe) -> InitialReport:
    return examine(build(recipe), recipe, TASK, 0)


def test_the_branching_factor_is_the_mean_ratio_of_descendants():
    counts = [[2, 4, 0, 1, 1, 0], [0, 0, 0, 3, 0, 1]]
    expected = np.mean([4 / 2, 0 / 4, 1 / 1, 0 / 1, 0 / 3])
    assert branching_factor(torch.tensor(counts, dtype=torch.float32)) == pytest.approx(expected)
    assert branching_factor(torch.zeros(1, 4)) == 0.0


def test_its_figures_are_those_of_the_network():
    # The probe has the samples that train.
    recipe = changed(RECIPE, ["curriculum.training="])
    net = build(recipe)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    report = examine(net, recipe, TASK, 0)
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
    assert net[0].feedback_grad == recipe.gradient.feedback
    assert all(p.grad is None for p in net.parameters())


def test_without_recurrence_the_gradient_lives_as_long_as_the_membrane():
    # Neither recurrence nor the readout's memory are in its way; the reset passes on a little more or less.
    for tau in (10.0, 40.0):
        changes = ["init.radius=0", f"network.tau_ms={tau}", "network.tau_out_ms=1", "init.input_gain=0.02"]
        report = report_on(changed(RECIPE, changes))
        assert -1 / np.log(report.growth) == pytest.approx(tau, rel=0.2)


def test_the_gradient_grows_with_the_recurrent_weights():
    growth = [report_on(changed(RECIPE, [f"init.radius={radius}"])).growth for radius in (0.5, 4.0, 14.0)]
    assert growth == sorted(growth)
    assert growth[0] < 1 < growth[-1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (["init.input_gain=0.01"], "nearly silent"),
        ([*STEEP, "init.radius=60"], "explodes: times"),
        (["init.radius=0", "network.tau_ms=2", "curriculum.walk=false"], "vanishes"),
    ],
)
def test_what_stands_against_training_is_said(change, problem):
    recipe = changed(RECIPE, change)
    assert any(problem in one for one in report_on(recipe).problems)
    # Steered, the same gradient can be held.
    recipe = changed(recipe, ["gradient.control=0.005", "curriculum.walk=true"])
    assert not any("explodes" in one for one in report_on(recipe).problems)
    assert not report_on(RECIPE).problems


def test_stacks_are_examined_as_a_whole():
    recipe = changed(RECIPE, ["network.layers=27,16,9", "network.recurrent=true,false,true"])
    net, report = build(recipe), report_on(recipe)
    radii = [spectral_radius(net[k].recurrent_matrix().detach() / net[k].neuron.threshold) for k in (0, 2)]
    assert report.radius == pytest.approx(max(radii), rel=1e-4)
    assert report.loop == 1 + torch.cat([net[0].delay, net[2].delay]).float().mean()
    fed = report_on(changed(RECIPE, ["network.recurrent=false"]))
    assert (fed.radius, fed.loop) == (0.0, 0.0) and fed.rate > 0


def test_the_command_says_it_and_its_exit_code(capsys):
    common = ["cue:cues=1,wait_ms=150", "--recipe", "loihi2", "--set", "network.layers=27", "--samples", "4"]
    with pytest.raises(SystemExit) as stop:
        main(["init", *common])
    assert stop.value.code == 0
    assert "nothing stands against training" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["init", *common, "--set", "init.input_gain=0.001", "--json", "-"])
    assert stop.value.code == 1
    streams = capsys.readouterr()
    assert "nearly silent" in streams.err and '"growth"' in streams.out
