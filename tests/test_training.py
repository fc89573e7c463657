"""Training: it learns, resumes to the same weights, and says in the model file how it was made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.cli import main
from delaynet_lava.cli.train import parse_options
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.export import extract
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.nn import delay_groups, lattice_delays, lattice_positions
from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.trace import decide
from delaynet_lava.training.distributed import Group
from delaynet_lava.training.loss import loss_of
from delaynet_lava.training.trainer import PRESETS, CueOptions, _Trainer, accuracy, delaynet, train_cue

SMOKE = replace(PRESETS["smoke"], anneal_epochs=3)


class Killed(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    whole = train_cue(SMOKE, tmp_path / "whole.pt")

    def kill(epoch, _):
        if epoch.number == 2:
            raise Killed

    with pytest.raises(Killed):
        train_cue(SMOKE, tmp_path / "cut.pt", on_epoch=kill)
    assert not (tmp_path / "cut.pt").exists()
    numbers = []
    resumed = train_cue(SMOKE, tmp_path / "cut.pt", on_epoch=lambda epoch, _: numbers.append(epoch.number))
    assert numbers == [3]
    for name, tensor in whole.state_dict.items():
        assert torch.equal(tensor, resumed.state_dict[name]), name
    assert [e["loss"] for e in whole.provenance["history"]] == [
        e["loss"] for e in resumed.provenance["history"]
    ]
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_checkpoint_of_other_options_is_not_touched(tmp_path):
    def kill(epoch, _):
        raise Killed

    with pytest.raises(Killed):
        train_cue(SMOKE, tmp_path / "m.pt", on_epoch=kill)
    kept = (tmp_path / "m.pt.checkpoint").read_bytes()
    with pytest.raises(InputError, match=r"other options \(lr, seed\)"):
        train_cue(replace(SMOKE, seed=9, lr=0.5), tmp_path / "m.pt")
    assert (tmp_path / "m.pt.checkpoint").read_bytes() == kept
    (tmp_path / "m.pt.checkpoint").write_bytes(kept[:100])
    with pytest.raises(InputError, match="not a torch file"):
        train_cue(SMOKE, tmp_path / "m.pt")


def test_the_command_trains_and_the_file_says_how(tmp_path, capsys):
    path = tmp_path / "model.pt"
    with pytest.raises(SystemExit) as stop:
        main(["train", "cue", "--preset", "smoke", "--seed", "4", "--set", "lr=0.02", "-o", str(path)])
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "epoch 2: 1 cues, 150 ms wait" in out
    model = load_model(path)
    made = model.provenance
    assert made["command"] == "delaynet train cue --preset smoke --seed 4 --set lr=0.02"
    assert made["seed"] == 4
    assert {"delaynet_lava", "torch", "lava-dl", "numpy", "numba", "python"} <= set(made["versions"])
    assert made["metrics"]["epochs"] == len(made["history"]) == 2
    assert model.config["task"] == {"name": "cue", "cues": 1, "wait_ms": 150}

    # The trainer's own accuracy is that of the emulator on the exported integers.
    options = CueOptions(**made["options"])
    task = CueAccumulation(options.cues, options.wait_ms, options.seed)
    network = extract(model)
    x, labels = task.batch("validation", 0, options.validation)
    trace = emulate(network, x)
    assert np.mean(decide(network, trace) == labels) == made["metrics"]["validation_accuracy"]
    assert trace.u_wraps == [0, 0]


def test_training_learns_one_cue(tmp_path):
    options = replace(
        SMOKE,
        epoch_samples=512,
        max_epochs=6,
        anneal_epochs=6,
        neurons=64,
        validation=128,
        lr=0.01,
        lr_end=0.3,
        average=0.97,
        rate_weight=0.0,
    )
    model = train_cue(options, tmp_path / "m.pt")
    losses = [epoch["loss"] for epoch in model.provenance["history"]]
    assert losses[-1] < losses[0] - 0.2
    assert model.provenance["metrics"]["validation_accuracy"] > 0.9
    assert accuracy(delaynet.build(options), CueAccumulation(1, 150), 128) < 0.7


def test_the_initial_network_is_what_the_options_say():
    options = CueOptions(seed=3)
    hidden, readout = delaynet.build(options)
    weight = hidden.recurrent_synapse.weight.detach().view(125, 125)
    assert spectral_radius(weight.abs() / 8.0) == pytest.approx(1.2, rel=1e-4)
    assert not weight.diagonal().any()
    assert hidden.input_synapse.weight.abs().max() <= 0.4 * 8
    assert readout.synapse.weight.abs().max() <= 0.8
    assert set(hidden.delay.tolist()) == {0, 50, 62}
    other = delaynet.build(replace(options, seed=4))
    assert not torch.equal(other[0].input_synapse.weight, hidden.input_synapse.weight)


def test_delay_groups_have_the_papers_sizes():
    delays = delay_groups(125, (0, 79, 99))
    assert [int((delays == d).sum()) for d in (0, 79, 99)] == [22, 53, 50]
    lattice, positions = lattice_delays(125, (0, 79, 99), seed=1), lattice_positions(125, seed=1)
    assert sorted(lattice) == sorted(delays)
    distance = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
    shells = [distance[lattice == d] for d in (0, 79, 99)]
    assert shells[0].max() <= shells[1].min()
    assert shells[1].max() <= shells[2].min()
    with pytest.raises(InputError, match="sum to 1"):
        delay_groups(10, (0, 1), (0.5, 0.6))
    with pytest.raises(InputError, match="2 values but 3 shares"):
        lattice_delays(10, (0, 1), 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["bogus=1"], "known name"),
        (["lr"], "NAME=VALUE"),
        (["lr=fast"], "'fast' is not a float"),
        (["batch=0"], "0 is below 1"),
    ],
)
def test_bad_options_are_refused(changes, problem):
    with pytest.raises(InputError, match=problem):
        parse_options("smoke", 0, changes)
    with pytest.raises(InputError, match="'big' is not one of"):
        parse_options("big", 0, [])


def test_options_are_read_as_their_types():
    options = parse_options("loihi2", 2, ["delays=0,30,62", "lr=0.5", "neurons=64"])
    assert (options.delays, options.lr, options.neurons, options.seed) == ((0, 30, 62), 0.5, 64, 2)


def test_a_training_can_go_on_from_a_model(tmp_path, capsys):
    first = train_cue(SMOKE, tmp_path / "a.pt")
    options = replace(SMOKE, init=str(tmp_path / "a.pt"), seed=5, lr=0.0, wait_ms=300, average=0.0)
    second = train_cue(options, tmp_path / "b.pt")
    assert {(e["cues"], e["wait_ms"]) for e in second.provenance["history"]} == {(1, 300)}
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name]), name
    assert f"--set init={tmp_path / 'a.pt'}" in second.provenance["command"]
    with pytest.raises(SystemExit) as stop:
        main(["train", "cue", "--init", str(tmp_path / "a.pt"), "-o", str(tmp_path / "c.pt")])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "does not fit the network" in message
    assert message.count("\n") == 1


def test_the_spike_rate_and_the_published_branching_loss_are_what_they_say(tmp_path):
    options = replace(SMOKE, branching=0.5, branching_over="batch", rate_weight=2.0, temperature=4.0)
    spikes = (torch.rand(3, 27, 40) < 0.2).float()
    total = spikes.sum(dim=1)
    out, labels = torch.randn(3, 2, 5), torch.tensor([0, 1, 1])
    population = spikes.numpy().sum(axis=(0, 1))
    loss = torch.nn.functional.cross_entropy(out[..., -1] / 4, labels) + 2 * spikes.mean()
    expected = float(loss) + 0.5 * float((np.diff(population) ** 2).sum())
    assert float(loss_of(options, total, out, labels)) == pytest.approx(expected, rel=1e-5)
    per_sample = (np.diff(spikes.numpy().sum(axis=1), axis=1) ** 2).sum(axis=1).mean()
    options = replace(options, branching_over="sample")
    assert float(loss_of(options, total, out, labels)) == pytest.approx(
        float(loss) + 0.5 / 64 * per_sample, rel=1e-5
    )


@pytest.mark.parametrize(
    ("share", "short"), [(0.0, []), (0.5, [1, 3, 5, 7]), (0.25, [3, 7]), (0.9, [1, 2, 3, 4, 5, 6, 7])]
)
def test_steps_with_the_shortest_wait_are_spread_evenly(monkeypatch, share, short):
    options = replace(SMOKE, wait_ms=300, curriculum=False, batch=16, short_waits=share)
    trainer = _Trainer(options, Group())
    waits = []
    monkeypatch.setattr(trainer, "_step", lambda task: waits.append(task.wait_ms) or (0.0,) * 5)
    trainer.epoch()
    assert [k for k, wait in enumerate(waits) if wait == 150] == short
    assert sorted(set(waits) - {150}) == [300]
    assert len(waits) == 8


def test_madgrad_trains_within_the_bounds_of_tau(tmp_path):
    options = replace(
        SMOKE, optimiser="madgrad", lr=0.05, tau_ms=20.0, tau_max_ms=20.0, tau_out_ms=5.0, tau_min_ms=5.0
    )
    model = train_cue(options, tmp_path / "m.pt")
    hidden, out = (float(model.state_dict[f"{k}.neuron.voltage_decay"]) / 4096 for k in (0, 1))
    low, high = (1 - np.exp(-1 / tau) for tau in (20.0, 5.0))
    assert low - 1e-6 <= hidden <= high + 1e-6
    assert low - 1e-6 <= out <= high + 1e-6
    losses = [epoch["loss"] for epoch in model.provenance["history"]]
    assert len(set(losses)) == len(losses)
    assert all(0 < epoch["branching"] < 5 for epoch in model.provenance["history"])


@pytest.mark.parametrize("preset", ["lif-2s", "lif-2s-ff", "lif-20ms", "lif-2s-eprop", "lsnn", "lsnn-ff"])
def test_baselines_train_under_the_same_trainer(preset, tmp_path):
    options = replace(PRESETS[preset], cues=1, wait_ms=150, epoch_samples=128, anneal_epochs=2, validation=64)
    model = train_cue(options, tmp_path / "m.pt", preset)
    history = model.provenance["history"]
    assert len(history) == 2
    assert history[0]["loss"] != history[1]["loss"]
    assert all(0 < epoch["rate"] < 0.5 for epoch in history)
    assert load_model(tmp_path / "m.pt").config["layers"][0]["out_neurons"] == 100
    before = _Trainer(options, Group()).net.state_dict()
    moved = {k for k, v in model.state_dict.items() if not torch.equal(v, before[k])}
    assert moved
    assert all(k.endswith("weight") for k in moved)
    if preset.startswith("lsnn"):
        with pytest.raises(InputError, match="not a layer type that this release exports"):
            extract(model)
    else:
        task = CueAccumulation(1, 150, options.seed)
        x, labels = task.batch("validation", 0, options.validation)
        decisions = decide(extract(model), emulate(extract(model), x))
        assert np.mean(decisions == labels) == model.provenance["metrics"]["validation_accuracy"]


def test_the_papers_own_settings_train_in_integers(tmp_path):
    options = replace(
        PRESETS["paper"], neurons=27, cues=1, wait_ms=150, curriculum=False, epoch_samples=64, anneal_epochs=1
    )
    network = extract(train_cue(options, tmp_path / "m.pt", "paper"))
    assert network.layers[0].neuron.reset == "subtract"
    assert set(np.unique(network.layers[0].recurrent.delay)) == {0, 79, 99}
    model = load_model(tmp_path / "m.pt")
    assert model.provenance["options"]["optimiser"] == "madgrad"
    x, labels = CueAccumulation(1, 150, 0).batch("validation", 0, options.validation)
    right = np.mean(decide(network, emulate(network, x)) == labels)
    assert right == model.provenance["metrics"]["validation_accuracy"]


def test_a_narrow_membrane_trains_with_its_own_integers(tmp_path):
    train_cue(SMOKE, tmp_path / "wide.pt")
    options = replace(SMOKE, init=str(tmp_path / "wide.pt"), membrane_bits=7)
    model = train_cue(options, tmp_path / "narrow.pt")
    network = extract(model)
    hidden, readout = (layer.neuron for layer in network.layers)
    assert (hidden.membrane_bits, readout.membrane_bits) == (7, 7)
    assert hidden.vth << 6 < 1 << hidden.full_scale_exp <= 4 * hidden.vth << 6
    x, labels = CueAccumulation(1, 150, options.seed).batch("validation", 0, options.validation)
    trace = emulate(network, x)
    assert np.mean(decide(network, trace) == labels) == model.provenance["metrics"]["validation_accuracy"]
    wide = extract(load_model(tmp_path / "wide.pt"))
    assert trace.compare(emulate(wide, x)).mismatches


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"network": "lstm"}, "'lstm' is not one of"),
        ({"rule": "eprop"}, "no branching"),
        ({"rule": "eprop", "network": "lsnn", "branching": 0.0}, "knows no lsnn"),
        ({"tau_min_ms": 9.0, "tau_max_ms": 5.0}, "hold no time constant"),
        ({"optimiser": "sgd"}, "'sgd' is not one of adam, madgrad"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, problem):
    with pytest.raises(InputError, match=problem):
        replace(SMOKE, **changes)
