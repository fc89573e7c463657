"""``delaynet check``: the model's own forward pass beside the emulator and Lava."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

import delaynet_lava  # noqa: E402
from delaynet_lava.cli import main  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.export import agreement, export_netx  # noqa: E402
from delaynet_lava.nn import DelayRecurrent, Readout  # noqa: E402
from delaynet_lava.tasks.base import Task  # noqa: E402

cuba = slayer.block.cuba
NEURON = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.05}


class Noise(Task):
    """Spikes at a rate, labels at random."""

    name = word = "noise"
    channels, steps, classes = 6, 80, 3

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = [], []
        for k in range(first, first + count):
            rng = np.random.default_rng(k)
            inputs.append(rng.random((self.steps, self.channels)) < self.rate)
            labels.append(rng.integers(3))
        return np.array(inputs, np.uint8), np.array(labels)


def drawn(*blocks: torch.nn.Module) -> torch.nn.Sequential:
    """A network whose delays were learnt: SLAYER makes them in the first pass."""
    net = torch.nn.Sequential(*blocks)
    net((torch.rand(2, 6, 30) < 0.3).float())
    for block in net:
        if getattr(block, "delay", None) is not None and isinstance(block.delay, torch.nn.Module):
            block.delay.delay.data = torch.rand(block.delay.delay.shape) * 30
    return net.eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def networks() -> dict[str, torch.nn.Sequential]:
    torch.manual_seed(0)
    first = cuba.Dense(NEURON, 6, 9, weight_scale=4)
    return {
        "ours": drawn(
            DelayRecurrent(NEURON, 6, 9, [0, 5, 62] * 3, weight_scale=4),
            Readout(NEURON, 9, 3, weight_scale=3),
        ),
        "stock": drawn(
            cuba.Dense(NEURON, 6, 9, weight_scale=4, delay=True),
            cuba.Recurrent(dict(NEURON), 9, 8, weight_scale=3, delay=True),
            cuba.Dense(NEURON, 8, 3, weight_scale=4, weight_norm=True),
        ),
        "affine": drawn(first, cuba.Affine(NEURON, 9, 3, weight_scale=3)),
        "average": drawn(first, cuba.Average(3)),
        "encoder": drawn(
            cuba.Input(NEURON | {"current_decay": 1.0}, weight=1.0), cuba.Dense(NEURON, 6, 3, weight_scale=4)
        ),
    }


@pytest.mark.parametrize("name", ["ours", "stock", "affine", "average", "encoder"])
def test_a_model_agrees_with_its_integers(name: str) -> None:
    found = delaynet_lava.check(networks()[name], Noise(), samples=20, lava_samples=1)
    assert found, found
    assert found.differing == 0 and found.decisions == 20
    assert found.lava is not None and found.lava.compared > 1000
    assert sum(layer.spikes for layer in found.layers) > 100
    assert 0 <= found.right <= 20
    assert found.notes == []


def test_recurrent_state_of_earlier_passes_plays_no_part() -> None:
    net = networks()["stock"]
    task = Noise()
    net(torch.from_numpy(task.batch("test", 0, 20)[0]).transpose(1, 2).float())
    assert delaynet_lava.check(net, task, samples=20)


def test_a_spike_that_differs_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate = agreement.emulate

    def wrong(network, x, **options):
        trace = emulate(network, x, **options)
        trace.spikes[0][1, 40, 5] ^= 1
        trace.voltage[1][2, 50, 1] += 1
        return trace

    monkeypatch.setattr(agreement, "emulate", wrong)
    found = delaynet_lava.check(networks()["ours"], Noise(), samples=3)
    assert not found and found.differing == 2
    assert found.first is not None
    assert (found.first.layer, found.first.sample, found.first.step, found.first.neuron) == (0, 1, 40, 5)


def test_a_forward_of_her_own_is_compared_too() -> None:
    class Own(torch.nn.Module):
        def __init__(self, what) -> None:
            super().__init__()
            self.blocks, self.what = torch.nn.ModuleList(networks()["ours"]), what

        def forward(self, x):
            return self.what(self.blocks, x)

    def in_order(blocks, x):
        return blocks[1](blocks[0](x)), None

    def mean(blocks, x):
        return in_order(blocks, x)[0].mean(-1)

    def twice(blocks, x):
        return 2 * in_order(blocks, x)[0]

    def broken(blocks, x):
        raise ValueError("no")

    for what, note in ((in_order, None), (mean, "gives"), (twice, "something else"), (broken, "ValueError")):
        found = agreement.check(Own(what), Noise(), samples=2)
        assert found.differing == 0
        assert (note is None) == (found.notes == [])
        assert note is None or note in found.notes[0]


def test_too_few_samples_are_refused() -> None:
    for samples, lava in ((0, 0), (2, 3), (2, -1)):
        with pytest.raises(InputError, match="samples"):
            agreement.check(networks()["ours"], Noise(), samples=samples, lava_samples=lava)


def test_a_threshold_that_slayer_cannot_hold_strictly_is_found() -> None:
    """From a threshold of 64 on SLAYER spikes where the membrane equals it; the chip does not."""
    for threshold, differing in ((32.0, 0), (64.0, 1)):
        block = cuba.Dense({"threshold": threshold, "current_decay": 1.0, "voltage_decay": 1.0}, 32, 1)
        block.synapse.weight.data.fill_(threshold / 32)
        task = Noise(rate=1.0)
        task.channels, task.steps = 32, 3
        found = agreement.check(torch.nn.Sequential(block), task, samples=1)
        assert bool(found) is not bool(differing)
        assert found.differing == 2 * differing


def test_the_command_says_what_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(
        DelayRecurrent(NEURON, 40, 9, [0, 5, 62] * 3, weight_scale=4), Readout(NEURON, 9, 2, weight_scale=3)
    )
    word = "cue:cues=1,wait_ms=150"
    delaynet_lava.save_model(net, "model.pt", task=word)
    with pytest.raises(SystemExit) as stop:
        main(["check", "model.pt", "--samples", "8", "--lava-samples", "1", "--json", "c.json"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    assert "0 mismatches between emulator and lava" in out and "layer 1 voltage" in out
    content = json.loads(Path("c.json").read_text())
    assert content["agree"] and content["differing"] == 0 and content["task"] == word
    # Answers are compared, and counted as right, in the way that the file says.
    right = set()
    for decision in ("last", "mean:50:200", "sum::60"):
        delaynet_lava.save_model(net, "decided.pt", task=word, decision=decision)
        with pytest.raises(SystemExit) as stop:
            main(["check", "decided.pt", "--samples", "64", "--lava-samples", "0", "--json", "c.json"])
        assert stop.value.code == 0
        export_netx("decided.pt", "decided.h5")
        with pytest.raises(SystemExit):
            main(["run", "decided.h5", "--samples", "64", "--json", "r.json"])
        found, ran = (json.loads(Path(name).read_text()) for name in ("c.json", "r.json"))
        assert found["right"] / 64 == ran["accuracy"]
        right.add(found["right"])
    assert len(right) > 1
    for words, line in (
        (["bare.pt"], "--task"),
        (["net.h5"], "delaynet run --check"),
        (["model.pt", "--task", "x"], "x"),
    ):
        delaynet_lava.save_model(net, "bare.pt")
        export_netx(net, "net.h5")
        with pytest.raises(SystemExit) as stop:
            main(["check", *words])
        assert stop.value.code == 2
        assert line in capsys.readouterr().err
