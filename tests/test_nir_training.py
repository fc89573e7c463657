"""From somebody's graph to a model.pt, trained on from there, exported and checked: command by command."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava.cli import main

nir = pytest.importorskip("nir")
pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

N, STEPS = 12, 40
WORD = "task.npz:split=0.6,0.2,0.2"
NETWORK = ("--set", f"network.layers={N}", "--set", "network.delays=0,5", "--set", "schedule.batch=16")


def graph(path: str) -> None:
    """Six inputs, a recurrent layer with a delay in its loop and connections to itself, a readout."""
    rng = np.random.default_rng(0)
    full = lambda n, value: np.full(n, value)  # noqa: E731
    lif = nir.CubaLIF(tau_syn=full(N, 2e-3), tau_mem=full(N, 1e-2), r=full(N, 10.0), v_leak=full(N, 0.0),
                      v_threshold=full(N, 3.3), w_in=full(N, 2.0))  # fmt: skip
    nodes = {
        "input": nir.Input(np.array([6])), "output": nir.Output(np.array([2])),
        "fc": nir.Linear(rng.normal(0.3, 0.5, (N, 6))), "lif": lif,
        "d": nir.Delay(np.where(np.arange(N) % 2, 0, 5e-3)), "rec": nir.Linear(rng.normal(0, 0.2, (N, N))),
        "out": nir.Linear(rng.normal(0, 0.3, (2, N))),
        "li": nir.LI(tau=full(2, 1e-2), r=full(2, 10.0), v_leak=full(2, 0.0)),
    }  # fmt: skip
    chain = ["input", "fc", "lif", "out", "li", "output"]
    nir.write(path, nir.NIRGraph(nodes, [*pairwise(chain), ("lif", "d"), ("d", "rec"), ("rec", "lif")]))


def samples(path: str) -> None:
    """Two classes: the first or the last three channels are busier."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 160)
    rate = np.where((np.arange(6) < 3)[None] == (labels == 1)[:, None], 0.15, 0.05)
    inputs = rng.random((160, STEPS, 6)) < rate[:, None]
    np.savez(path, inputs=inputs.astype(np.uint8), labels=labels)


def code(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    return int(stopped.value.code or 0)


def integers(path: str) -> list[list]:
    layers = delaynet_lava.load(path).layers
    # A delay counts where there is a synapse.
    return [
        [
            a.tolist()
            for s in (n.synapse, n.recurrent)
            if s
            for a in (s.units, np.where(s.weight != 0, s.delay, 0))
        ]
        + [n.neuron.vth, n.neuron.du, n.neuron.dv, n.neuron.reset]
        for n in layers
    ]


def accuracy(path: str) -> float:
    assert code("run", path, "--task", WORD, "--split", "train", "--json", "run.json") == 0
    return json.loads(Path("run.json").read_text())["accuracy"]


@pytest.fixture
def imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph("graph.nir")
    samples("task.npz")
    assert code("import", "graph.nir", "-o", "model.pt", "--task", WORD) == 0
    assert code("export", "model.pt", "-o", "before.h5") == 0


def test_training_goes_on_from_the_imported_integers_and_learns(imported, capsys):
    at_rest = (*NETWORK, "--set", "optimiser.lr=1e-9", "--set", "schedule.epochs=1")
    assert code("train", WORD, "--init", "model.pt", *at_rest, "-o", "same.pt") == 0
    assert code("export", "same.pt", "-o", "same.h5") == 0
    assert integers("same.h5") == integers("before.h5")
    assert np.diagonal(delaynet_lava.load("same.h5").layers[0].recurrent.weight).any()
    assert "was made for" not in capsys.readouterr().err

    more = (*NETWORK, "--set", "schedule.epochs=15", "--set", "optimiser.lr=0.03")
    assert code("train", WORD, "--init", "model.pt", *more, "-o", "tuned.pt") == 0
    assert code("export", "tuned.pt", "-o", "tuned.h5") == 0
    assert code("check", "tuned.pt", "--task", WORD, "--json", "check.json", "--lava-samples", "1") == 0
    found = json.loads(Path("check.json").read_text())
    assert found["agree"] and found["differing"] == 0 and found["layers"][0]["spikes"] > 100
    before, after = accuracy("before.h5"), accuracy("tuned.h5")
    assert after > before + 0.15 and after > 0.85
    # And out again, as a graph that others read.
    assert code("export", "tuned.h5", "-o", "tuned.nir") == 0
    assert code("import", "tuned.nir", "-o", "again.h5") == 0
    assert integers("again.h5") == integers("tuned.h5")


@pytest.mark.filterwarnings("always::UserWarning:delaynet_lava")
def test_another_reset_or_step_is_said(imported, capsys):
    assert code("import", "graph.nir", "-o", "soft.pt", "--reset", "subtract", "--dt-ms", "0.5") == 0
    capsys.readouterr()
    epochs = ("--set", "schedule.epochs=1")
    assert code("train", WORD, "--init", "soft.pt", *NETWORK, *epochs, "-o", "hard.pt") == 0
    said = capsys.readouterr().err
    assert "soft.pt: layer 0 was made for the reset subtract, the recipe trains it with zero" in said
    assert "soft.pt: a step lasts 0.5 ms there, 1 ms in the task" in said
    kept = (*NETWORK, *epochs, "--set", "network.reset=subtract")
    assert code("train", WORD, "--init", "soft.pt", *kept, "-o", "kept.pt") == 0
    assert "was made for the reset" not in capsys.readouterr().err
