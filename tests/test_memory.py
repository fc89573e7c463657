"""Memory over waits and cues: the model of the last cues, intervals, the sweep and its command."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from delaynet_lava.analysis import memory
from delaynet_lava.cli import main
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats.netx import write
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.tasks.cue import RIGHT_P, CueAccumulation, last_cues_accuracy
from delaynet_lava.tasks.registry import task, varied
from delaynet_lava.trace import decide


def by_enumeration(cues: int, remembered: int) -> float:
    """Every sequence of sides, one by one."""
    right = total = 0.0
    for p in RIGHT_P:
        for sides in itertools.product((0, 1), repeat=cues):
            if 2 * sum(sides) == cues:
                continue
            chance = np.prod([p if side else 1 - p for side in sides])
            known = sides[-remembered:]
            answer = np.sign(2 * sum(known) - len(known))
            right += chance * (0.5 if answer == 0 else answer == np.sign(2 * sum(sides) - cues))
            total += chance
    return right / total


@pytest.mark.parametrize(
    ("cues", "remembered"), [(1, 7), (3, 7), (7, 7), (8, 7), (11, 7), (12, 7), (9, 4), (6, 2)]
)
def test_the_model_of_the_last_cues_is_the_sum_over_all_sequences(cues, remembered):
    assert last_cues_accuracy(cues, remembered) == pytest.approx(by_enumeration(cues, remembered), abs=1e-12)


def test_the_model_of_the_last_cues_is_what_the_task_draws():
    task, samples = CueAccumulation(11, 150, seed=5), 4000
    right = 0
    for i in range(samples):
        sides = task.sides("test", i)
        right += (2 * sides[-7:].sum() > 7) == (2 * sides.sum() > 11)
    low, high = memory.wilson(int(right), samples)
    assert low - 0.01 < last_cues_accuracy(11) < high + 0.01
    assert last_cues_accuracy(7) == 1.0 > last_cues_accuracy(9) > last_cues_accuracy(31) > 0.8
    with pytest.raises(InputError, match="0 cues"):
        last_cues_accuracy(0)


@pytest.mark.parametrize(("right", "samples"), [(0, 5), (5, 5), (7, 10), (2040, 2048), (1, 1)])
def test_the_interval_solves_the_score_equation(right, samples):
    low, high = memory.wilson(right, samples)
    p = right / samples
    assert 0 <= low <= p <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(p - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / samples), rel=1e-5)


def network(sign: int = 1) -> Network:
    """Counts the spikes of both sides in membranes that do not forget."""
    weight = np.zeros((2, 40), int)
    weight[0, :10] = weight[1, 10:20] = 2 * sign
    return Network((Dense(Synapse(weight), Neuron(131071, 4096, 0)),))


WORDS = ("cue:cues=3,wait_ms=150", "cue:cues=1,wait_ms=300")


def test_a_sweep_counts_the_right_decisions_of_every_seed(tmp_path):
    points = memory.measure(
        {"sum": network(), "other": network(-1)}, [memory.Setting(word, 8) for word in WORDS], (1, 2)
    )
    assert [(p.net, p.task) for p in points] == [(net, word) for word in WORDS for net in ("sum", "other")]
    for point in points:
        net = network() if point.net == "sum" else network(-1)
        right = 0
        for seed in (1, 2):
            x, labels = task(point.task, seed).batch("test", 0, 8)
            right += int((decide(net, emulate(net, x)) == labels).sum())
        assert (point.right, point.samples) == (right, 16)
    assert points[0].accuracy > 0.9 > 0.2 > points[1].accuracy


def test_the_command_prints_writes_and_draws(tmp_path, capsys):
    path, report, picture = tmp_path / "net.h5", tmp_path / "r.json", tmp_path / "p.svg"
    write(network(), path)
    command = ["evaluate", str(path), str(path), "--task", "cue:cues=3,wait_ms=150"]
    command += ["--vary", "wait_ms=150,450", "--vary", "cues=3,7,9"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--samples", "6", "--seeds", "1,2", "--json", str(report), "--plot", str(picture)])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "last 7 cues" in out and "of 12" in out
    content = json.loads(report.read_text())
    points = content["points"]
    assert (content["task"], content["seeds"]) == ("cue:cues=3,wait_ms=150", [1, 2])
    assert [(p["varied"], p["value"]) for p in points[::2]] == [
        ("wait_ms", "150"), ("wait_ms", "450"), ("cues", "3"), ("cues", "7"), ("cues", "9"),
    ]  # fmt: skip
    assert points[4]["task"] == "cue:cues=3,wait_ms=150" and points[4]["right"] == points[0]["right"]
    assert points[-1]["margins"] == {
        "last 7 cues": pytest.approx(points[-1]["accuracy"] - last_cues_accuracy(9))
    }
    assert "knows the last 7 cues only" in picture.read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--task", "cue", "--vary", "wait_ms=1s"], "wait_ms: '1s' is not a whole number"),
        (["--vary", "wait_ms"], "is not NAME=VALUE,VALUE,..."),
        (["--vary", "wait_ms=1200,"], "is not NAME=VALUE,VALUE,..."),
        (["--vary", "cues=1", "--vary", "cues=3"], "cues varies twice"),
        (["--task", "cue", "--vary", "noise=1"], "noise is not one of its options"),
        (["--seeds", "x"], "'x' is not a list of whole numbers"),
        ([], "does not say what task it is for; name one with --task"),
        (["--task", "cue", "--samples", "0"], "0 is below 1"),
        (["--plot", "x.gif"], "ends in '.gif'"),
        (["--task", "queue"], "'queue' is not known"),
        (["--task", "cue", "--vary", "wait_ms=100"], "100 ms is below 150 ms"),
    ],
)
def test_bad_settings_are_one_line(options, problem, tmp_path, capsys):
    path = tmp_path / "net.h5"
    write(network(), path)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(path), *options])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert problem in message and message.count("\n") == 1


def test_a_picture_shows_only_what_varies():
    base = "cue:cues=1,wait_ms=150"
    ways = [("wait_ms", "150"), ("wait_ms", "300"), ("cues", "3"), ("cues", "1")]
    settings = [memory.Setting(varied(base, **{name: value}), 4, name, value) for name, value in ways]
    points = memory.measure({"sum": network()}, settings, (0,))
    (axes,) = memory.draw_memory(points[:3]).axes
    assert axes.get_xlabel() == "wait_ms"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["150", "300"]
    assert [axes.get_xlabel() for axes in memory.draw_memory(points).axes] == ["wait_ms", "cues"]
    (alone,) = memory.draw_memory(memory.measure({"sum": network()}, [memory.Setting(base, 4)], (0,))).axes
    assert alone.get_xlabel() == base
