"""Training on stored samples: every sample once a round, in a seeded order; what validates does not train."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.nn import Readout
from delaynet_lava.tasks.base import Task
from delaynet_lava.training.events import event_writer
from delaynet_lava.training.loss import loss_of
from delaynet_lava.training.recipe import Recipe
from delaynet_lava.training.recipe_file import changed
from delaynet_lava.training.samples import Pool, epoch_borders, pools
from delaynet_lava.training.trainer import Epoch, train


class Numbers(Task):
    """Sample i has its number as its label and one spike at step i."""

    name = word = "numbers"
    channels, classes = 1, 10**6

    def __init__(self, train: int, validation: int = 0) -> None:
        self.sizes = {"train": train, "validation": validation, "test": 0}
        self.steps = max(train, validation)

    def size(self, split: str) -> int:
        return self.sizes[split]

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        assert first + count <= self.sizes[split]
        labels = np.arange(first, first + count)
        return (labels[:, None, None] == np.arange(self.steps)[:, None]).astype(np.uint8), labels


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 12), st.integers(0, 3))
def test_each_round_has_every_sample_once_in_an_order_of_its_own(size, rounds, batch, seed):
    pool = Pool(Numbers(2 * size), "train", np.arange(size) * 2)
    taken, at = [], 0
    while at < rounds * size and len(taken) < 400:
        inputs, labels = pool.ordered(seed, at, batch)
        assert np.array_equal(inputs.argmax(axis=1)[:, 0], labels)
        taken += labels.tolist()
        at += batch
    for first in range(0, len(taken) - size + 1, size):
        assert sorted(taken[first : first + size]) == list(range(0, 2 * size, 2))
    # Where one goes on is a number: nothing else is remembered.
    half = len(taken) // 2
    assert pool.ordered(seed, half, len(taken) - half)[1].tolist() == taken[half:]


def test_seeds_have_orders_of_their_own():
    pool = pools(Numbers(50), 0, 0.1)[0]
    orders = {tuple(pool.ordered(seed, first, 45)[1]) for seed in (0, 1) for first in (0, 45)}
    assert len(orders) == 4


@given(st.integers(1, 3000), st.integers(1, 300))
def test_batches_leave_nothing_out_and_differ_by_one(samples, batch):
    sizes = np.diff(epoch_borders(samples, batch))
    assert sizes.sum() == samples and sizes.min() >= 1 and sizes.max() <= batch
    assert sizes.max() - sizes.min() <= 1 and len(sizes) == -(-samples // batch)


def test_what_validates_does_not_train():
    training, validation = pools(Numbers(50), 3, 0.1)
    assert (training.size, validation.size, validation.held_out) == (45, 5, True)
    assert sorted([*training.numbers, *validation.numbers]) == list(range(50))
    assert list(pools(Numbers(50), 3, 0.1)[1].numbers) == list(validation.numbers)
    assert list(pools(Numbers(50), 4, 0.1)[1].numbers) != list(validation.numbers)
    training, validation = pools(Numbers(50, 7), 3, 0.1)
    assert (training.size, validation.split, validation.size) == (50, "validation", 7)
    assert (validation.most(0), validation.most(3), validation.most(99)) == (7, 3, 7)
    assert Pool(Numbers(1), "train", None).most(0) == 1024
    with pytest.raises(InputError, match="has 1 training samples; give it at least 2"):
        pools(Numbers(1), 0, 0.1)


def five_classes(path: Path, samples: int = 300) -> Path:
    """Events of five classes, each with spikes of its own at its own times."""
    rng = np.random.default_rng(1)
    times = rng.integers(5, 50, (5, 12))
    labels = rng.integers(0, 5, samples)
    inputs = rng.random((samples, 60, 12)) < 0.01
    for k, label in enumerate(labels):
        jitter = np.clip(times[label] + rng.integers(-2, 3, 12), 0, 59)
        inputs[k, jitter, np.arange(12)] = rng.random(12) < 0.9
    np.savez(path, inputs=inputs.astype(np.uint8), labels=labels)
    return path


def test_the_default_recipe_learns_events_of_ones_own(tmp_path, capsys):
    path = five_classes(tmp_path / "mine.npz")
    with pytest.raises(SystemExit) as stop:
        main(["train", str(path), "--set", "schedule.epochs=15", "-o", str(tmp_path / "m.pt")])
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "samples train, 30 of the split validation validate" in out
    lines = [line for line in out.splitlines() if line.startswith("validation accuracy")]
    assert float(lines[0].split()[-1]) > 0.85


class Killed(Exception):
    pass


def test_a_finite_training_goes_on_to_the_same_weights(tmp_path):
    word = str(five_classes(tmp_path / "mine.npz", 60))
    changes = ["network.layers=12", "schedule.epochs=4", "schedule.batch=11", "schedule.epoch_samples=31"]
    recipe = changed(Recipe(), changes)

    def kill(epoch, _):
        if epoch.number == 2:
            raise Killed

    whole = train(recipe, word, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        train(recipe, word, tmp_path / "cut.pt", on_epoch=kill)
    again = train(recipe, word, tmp_path / "cut.pt")
    assert all(tensor.equal(again.state_dict[name]) for name, tensor in whole.state_dict.items())
    assert again.provenance["history"] == whole.provenance["history"]


@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
def test_a_readout_passes_on_what_is_not_finite(worst):
    block = Readout({"current_decay": 1.0, "voltage_decay": 0.1}, 4, 2)
    x = (torch.rand(3, 4, 30) < 0.3).float()
    x[1, :, 5] = 1
    x.requires_grad_()
    (block(x) * torch.where(torch.arange(30) == 9, worst, 0.5)).sum().backward()
    assert not torch.isfinite(x.grad[..., 5]).any() and not torch.isfinite(block.synapse.weight.grad).any()
    assert torch.isfinite(x.grad[..., 10:]).all()


def test_steps_without_a_finite_gradient_are_told(tmp_path, monkeypatch, capsys):
    word = str(five_classes(tmp_path / "mine.npz", 60))
    losses = iter(range(100))

    def loss(*args):
        return loss_of(*args) * (float("nan") if next(losses) in (1, 2) else 1.0)

    monkeypatch.setattr("delaynet_lava.training.trainer.loss_of", loss)
    changes = ["network.layers=12", "schedule.epochs=2", "schedule.batch=18", "schedule.epoch_samples=54"]
    with pytest.raises(SystemExit) as stop:
        main(["train", word, *(f"--set={change}" for change in changes), "-o", str(tmp_path / "m.pt")])
    assert not stop.value.code
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert "2 steps left out: their gradient is not finite" in first and "nan" not in first
    assert "left out" not in second
    model = load_model(tmp_path / "m.pt")
    assert [epoch["skipped"] for epoch in model.provenance["history"]] == [2, 0]
    assert all(np.isfinite(tensor.numpy()).all() for tensor in model.state_dict.values())


def an_epoch(number: int) -> Epoch:
    return Epoch(number, "cue", 0, 1, 0.5, 0.75, 0.02, 1.0, 0.3, 0.9, None if number % 2 else 0.8)


def test_event_files_hold_the_figures(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = event_writer(str(tmp_path / "runs"))
    for number in (1, 2):
        write(an_epoch(number))
    found = EventAccumulator(str(tmp_path / "runs"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("accuracy")] == [(1, 0.75), (2, 0.75)]
    assert [(e.step, round(e.value, 6)) for e in found.Scalars("validation")] == [(2, 0.8)]


def test_without_tensorboard_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stop:
        main(["train", "cue", "--tensorboard", str(tmp_path / "runs"), "-o", str(tmp_path / "m.pt")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'delaynet_lava[tensorboard]'" in line
    assert not list(tmp_path.iterdir())
