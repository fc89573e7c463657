"""What a single cell does, and the check of a network of cells before its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from delaynet_lava.analysis.cell import alone, frequencies
from delaynet_lava.analysis.initial import examine
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.nn.model import save_model
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training.curriculum import stages_of
from delaynet_lava.training.networks import build_network
from delaynet_lava.training.recipe_file import changed, load_recipe

WORD = "cue:cues=1,wait_ms=150"
SMALL = ["network.layers=8,8,8", "network.weight_exp=2", "init.kind=relay", "curriculum.walk=false"]


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0


def test_cells_that_training_may_have_are_silent_and_others_are_not() -> None:
    found = alone(np.array([-8.0, -6.0, -5.0, -4.0]))
    assert found.ranges() == ["silent", "silent", "silent", "pacemaker"]


def test_frequency_rises_from_a_current_of_about_one_and_a_half() -> None:
    seen = frequencies(np.array([0.0, 1.3, 1.8, 4.0]), -6.0)
    assert not seen[:2].any() and 0 < seen[2] < seen[3] < 0.2


def test_plot_cell(tmp_path: Path) -> None:
    run("plot", "cell", "-o", str(tmp_path / "cell.png"))
    assert (tmp_path / "cell.png").stat().st_size > 20_000


@pytest.mark.parametrize("noise, silent", [(False, False), (True, True)])
def test_init_says_which_layers_are_silent(noise: bool, silent: bool) -> None:
    recipe, task = changed(load_recipe("src"), SMALL), task_of(WORD, 0)
    net = build_network(recipe, stages_of(recipe, task, 0)[-1].pool, 0)
    if noise:
        net[1].synapse.weight.data.fill_(-0.5)
    report = examine(net, recipe, task, 0)
    assert (
        len(report.layer_rates) == 3 and len(report.layer_gradients) == 4 and report.pacemakers == [0, 0, 0]
    )
    assert any("silent" in one for one in report.problems) == silent


@pytest.mark.parametrize("shallow, deep", [("src", "src-deep"), ("src-lif", "src-deep-lif")])
def test_a_deeper_network_begins_as_a_shallower_one_and_relays(
    tmp_path: Path, shallow: str, deep: str
) -> None:
    task, layers = task_of(WORD, 0), "curriculum.walk=false"
    one = changed(load_recipe(shallow), ["network.layers=8", layers])
    pool = stages_of(one, task, 0)[-1].pool
    start = build_network(one, pool, 0)
    save_model(start, tmp_path / "one.pt", task=WORD)
    recipe = changed(
        load_recipe(deep),
        ["network.layers=8,8,8", layers, "init.noise=0", f"init.model={tmp_path / 'one.pt'}"],
    )
    net = build_network(recipe, pool, 1)
    scale = [2.0 ** (getattr(block, "weight_exp", 0)) for block in (start[0], net[0])]
    assert torch.equal(net[0].synapse.weight / scale[1], start[0].synapse.weight / scale[0])
    assert torch.equal(net[-1].synapse.weight, start[-1].synapse.weight)
    for block in net[1:-1]:
        weight = block.synapse.weight.detach().reshape(8, 8)
        assert weight[0, 0] > 0 and torch.equal(weight, weight[0, 0] * torch.eye(8))
    # Without relays there is nothing that its layers could begin as.
    with pytest.raises(InputError, match="does not fit the network"):
        build_network(changed(recipe, ["init.kind=uniform"]), pool, 1)


def test_cells_train_through_the_command(tmp_path: Path) -> None:
    small = ["network.layers=9", "network.recurrent=true", "network.delays=0,3", "curriculum.walk=false"]
    small += ["schedule.epochs=1", "schedule.epoch_samples=32", "schedule.validation=16", "schedule.batch=16"]
    changes = [word for one in small for word in ("--set", one)]
    path = str(tmp_path / "m.pt")
    run("train", WORD, "--recipe", "src", "-o", path, *changes)
    again = [*changes, "--set", "network.weight_exp=1", "--set", "network.weight_bits=4"]
    run("train", WORD, "--recipe", "src", "--init", path, "-o", str(tmp_path / "n.pt"), *again)
