"""Accuracy is over what was run, class by class, and nobody runs more than a task has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import call, refused

from delaynet_lava import Dense, Network, Neuron, Synapse, save, task
from delaynet_lava.analysis.confusion import draw_confusion
from delaynet_lava.analysis.sweep import sweep
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import class_rows, evaluate
from delaynet_lava.tasks.base import Task, batches

CLASSES = 5
# Decision of each sample: the channel that spikes. 19 of the first 100 are right.
LABELS = np.arange(100) % CLASSES
DECISIONS = np.where(np.arange(100) < 19, LABELS, (LABELS + 1) % CLASSES)


def network(**more) -> Network:
    """Decides for the class of the channel that spiked most."""
    return Network((Dense(Synapse(64 * np.eye(CLASSES, dtype=int)), Neuron(131071, 4096, 0)),), **more)


@pytest.fixture
def stored(tmp_path: Path) -> str:
    inputs = np.zeros((100, 4, CLASSES), np.uint8)
    inputs[np.arange(100), 1, DECISIONS] = 1
    np.savez(tmp_path / "hundred.npz", inputs=inputs, labels=LABELS)
    return f"{tmp_path / 'hundred.npz'}:split=0,0,1"


@pytest.fixture
def net(tmp_path: Path, stored: str) -> str:
    save(network(task=stored), tmp_path / "net.h5")
    return str(tmp_path / "net.h5")


def test_nineteen_of_a_hundred_are_019_however_many_are_asked_for(stored, net, capsys, tmp_path):
    result = evaluate(network(), task(stored), 100)
    assert (result.accuracy, result.right, result.samples) == (0.19, 19, 100)
    with pytest.raises(
        InputError, match="200 samples of the split test were asked for, it has 100; ask for at"
    ):
        evaluate(network(), task(stored), 200)
    deploy = ["deploy", "--dry-run", "--backend", "lava", "-o", str(tmp_path / "job")]
    inspect = ["inspect"], ["inspect", "--sweep", "weight-bits"]
    for command in (["run"], ["evaluate"], *inspect, ["plot", "activity"], deploy):
        line = refused(capsys, *command, net, "--samples", "200")
        assert f"--samples 200: {stored} has 100 in the split test; ask for at most 100" in line, command
    # Without a number: as many as there are.
    capsys.readouterr()
    assert call("run", net, "--json", "-") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["accuracy"], content["samples"], content["task"], content["seed"]) == (
        0.19,
        100,
        stored,
        None,
    )
    assert call("evaluate", net, "--json", "-") == 0
    (point,) = json.loads(capsys.readouterr().out)["points"]
    assert (point["accuracy"], point["samples"], point["seeds"]) == (0.19, 100, [])


def test_a_task_that_gives_fewer_than_it_is_asked_for_is_refused():
    class Short(Task):
        name = word = "short"
        channels, steps, classes = CLASSES, 4, CLASSES

        def batch(self, split, first, count):
            return np.zeros((max(0, 100 - first), 4, CLASSES), np.uint8)[:count], LABELS[
                first : first + count
            ]

    with pytest.raises(InputError, match="gives 100 inputs and 100 labels, 200 were asked for"):
        evaluate(network(), Short(), 200)


def test_batches_hold_every_sample_once(stored):
    found = list(batches(task(stored), "test", 100, 30))
    assert [len(y) for _, y in found] == [30, 30, 30, 10]
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), LABELS)
    with pytest.raises(InputError, match="it has 100"):
        next(batches(task(stored), "test", 101))


def test_the_confusion_matrix_counts_every_sample_where_it_belongs(net, stored, capsys, tmp_path):
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (LABELS, DECISIONS), 1)
    assert evaluate(network(), task(stored), 100).confusion.tolist() == expected.tolist()
    page, report = tmp_path / "p.html", tmp_path / "r.json"
    for command in (
        ["run", net],
        ["evaluate", net],
        ["inspect", net, "--samples", "100", "--html", str(page)],
    ):
        capsys.readouterr()
        assert call(*command, "--json", str(report)) == 0
        found = json.loads(report.read_text())
        found = found.get("run") or found.get("points", [found])[0]
        assert (found["confusion"], found["class_names"]) == (expected.tolist(), list("01234"))
        assert "as 4" in capsys.readouterr().out
    assert "Samples by label and decision" in page.read_text() and "as 4" in page.read_text()


def test_classes_are_called_what_the_task_calls_them():
    columns, rows = class_rows(np.array([[3, 1], [0, 0]]), ["left", "right"])
    assert columns == ["class", "samples", "right", "as left", "as right"]
    assert rows == [["label left", "4", "75.00 %", "3", "1"], ["label right", "0", "-", "0", "0"]]
    many = np.diag(np.arange(20))
    many[3, 5], many[3, 6] = 2, 9
    columns, rows = class_rows(many, [f"word {k}" for k in range(20)])
    assert columns[-1] == "most often taken for"
    assert rows[3] == ["label word 3", "14", "21.43 %", "word 6 (9)"] and rows[4][-1] == "-"
    (axes,) = draw_confusion(many, [str(k) for k in range(20)]).axes
    assert axes.get_xlabel() == "decision" and len(axes.texts) == 0


def test_a_sweep_of_a_finite_task_chooses_on_samples_of_another_split(stored):
    divided = task(stored.replace("split=0,0,1", "split=0,0.4,0.6"))
    points = sweep(network(), "membrane-bits", [divided], 60, (24, 8))
    assert [point.samples for point in points] == [60, 60]
    assert points[0].right[0] == evaluate(network(), divided, 60).right
    with pytest.raises(InputError, match="has test samples only, and full scales are chosen on others"):
        sweep(network(), "membrane-bits", [task(stored)], 60, (24, 8))


def test_a_seed_for_stored_samples_is_refused(net, capsys):
    assert "are stored, none is drawn; leave it out" in refused(capsys, "run", net, "--seed", "3")


def test_a_task_that_is_not_here_is_named_with_the_network(tmp_path, capsys):
    save(network(task="gone.npz"), tmp_path / "net.h5")
    line = refused(capsys, "run", str(tmp_path / "net.h5"))
    assert "is for the task gone.npz, which cannot be run here (gone.npz: does not exist" in line
    assert "name one with --task" in line


def test_a_split_of_its_own(net, capsys):
    assert "has no samples in the split train" in refused(capsys, "run", net, "--split", "train")
    assert "'tests' is not one of train, validation, test" in refused(capsys, "run", net, "--split", "tests")


def test_what_does_not_fit_says_every_reason(stored, tmp_path, capsys):
    save(Network((Dense(Synapse(np.full((3, 4), 64)), Neuron(131071, 4096, 0)),)), tmp_path / "other.h5")
    line = refused(capsys, "run", str(tmp_path / "other.h5"), "--task", stored)
    assert "takes 4 inputs, the task has 5; gives 3 outputs, the task has 5 classes" in line
