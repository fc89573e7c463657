"""Training: it learns, resumes to the same weights, and says in the model file how it was made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.cli import main
from delaynet_lava.decision import Decision
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import MAX_MESSAGE, InputError
from delaynet_lava.export import extract
from delaynet_lava.formats.model_file import load_model, load_tensors, write_tensors
from delaynet_lava.nn import delay_groups, lattice_delays, lattice_positions
from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.trace import decide
from delaynet_lava.training.distributed import Group
from delaynet_lava.training.loss import loss_of, scores
from delaynet_lava.training.networks import build_network
from delaynet_lava.training.optimisers import OPTIMISERS, share_of_rate
from delaynet_lava.training.recipe import Recipe, Schedule, allowed, recipe_of
from delaynet_lava.training.recipe_file import changed, load_recipe
from delaynet_lava.training.samples import pools
from delaynet_lava.training.trainer import _Trainer, accuracy, train

TASK = CueAccumulation(1, 150)
WORD = "cue:cues=1,wait_ms=150"
SMOKE = changed(load_recipe("smoke"), ["schedule.epochs=3"])


def build(recipe: Recipe, task: CueAccumulation = TASK, seed: int = 0) -> torch.nn.Sequential:
    return build_network(recipe, pools(task, seed, 0.1)[0], seed)


class Killed(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    whole = train(SMOKE, WORD, tmp_path / "whole.pt")

    def kill(epoch, _):
        if epoch.number == 2:
            raise Killed

    with pytest.raises(Killed):
        train(SMOKE, WORD, tmp_path / "cut.pt", on_epoch=kill)
    assert not (tmp_path / "cut.pt").exists()
    numbers = []
    resumed = train(SMOKE, WORD, tmp_path / "cut.pt", on_epoch=lambda epoch, _: numbers.append(epoch.number))
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
        train(SMOKE, WORD, tmp_path / "m.pt", on_epoch=kill)
    kept = (tmp_path / "m.pt.checkpoint").read_bytes()
    with pytest.raises(InputError, match=r"another training \(not the same: task, seed, optimiser\.lr\)"):
        train(changed(SMOKE, ["optimiser.lr=0.5"]), "cue:cues=1,wait_ms=300", tmp_path / "m.pt", 9)
    assert (tmp_path / "m.pt.checkpoint").read_bytes() == kept
    (tmp_path / "m.pt.checkpoint").write_bytes(kept[:100])
    with pytest.raises(InputError, match="not a torch file"):
        train(SMOKE, WORD, tmp_path / "m.pt")
    write_tensors(tmp_path / "m.pt.checkpoint", {"format": "delaynet_lava.checkpoint", "options": {}})
    with pytest.raises(InputError, match=r"of another release.*; delete it to start over"):
        train(SMOKE, WORD, tmp_path / "m.pt")


def test_a_checkpoint_that_does_not_fit_its_training_is_refused_in_one_line(tmp_path):
    recipe = changed(
        SMOKE, ["network.layers=6", "network.delays=0", "network.shares=1.0", "schedule.batch=4"]
    )

    def fresh(name="adam"):
        made = changed(recipe, [f"optimiser.name={name}"])
        return _Trainer(made, CueAccumulation(1, 150, 0), 0, Group())

    def a_step(made):
        for parameter in made.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.optimiser.step()

    path = tmp_path / "m.pt.checkpoint"

    def restore(change, made):
        content = load_tensors(whole)
        change(content["state"])
        write_tensors(path, content)
        made.restore(path)

    def put(*keys, value=None, drop=False):
        def change(state):
            for key in keys[:-1]:
                state = state[key]
            if drop:
                del state[keys[-1]]
            else:
                state[keys[-1]] = value(state[keys[-1]]) if callable(value) else value

        return change

    whole = tmp_path / "whole.checkpoint"
    for name in ("adam", "adamw", "madgrad"):
        made = fresh(name)
        a_step(made)
        made.save(whole)
        again = fresh(name)
        restore(lambda state: None, again)
        a_step(again)
    made = fresh()
    a_step(made)
    made.best, made.progress["best"] = made.average, 0.5
    made.save(whole)
    weight, moment = "0.input_synapse.weight", ("optimiser", "state", 0, "exp_avg")
    assert weight in made.average
    wrong = {
        "shape of an average": put("average", weight, value=lambda t: t[:1].clone()),
        "type of an average": put("average", weight, value=lambda t: t.double()),
        "no average": put("average", weight, drop=True),
        "average of another name": put("average", "x", value=torch.ones(1)),
        "average that is none": put("average", value=[]),
        "average of NaN": put("average", weight, value=lambda t: t * torch.nan),
        "text for a tensor": put("best", weight, value="a"),
        "no best": put("best", value={}),
        "type of a weight": put("net", weight, value=lambda t: t.half()),
        "shape of a moment": put(*moment, value=lambda t: t[None]),
        "type of a moment": put(*moment, value=lambda t: t.int()),
        "no moment": put(*moment, drop=True),
        "moment of infinity": put(*moment, value=lambda t: t + torch.inf),
        "no steps": put("optimiser", "state", 0, "step", drop=True),
        "steps that are true": put("optimiser", "state", 0, "step", value=torch.tensor(True)),
        "steps": put("optimiser", "state", 0, "step", value=torch.ones(2)),
        "steps before the first": put("optimiser", "state", 0, "step", value=torch.tensor(-1.0)),
        "state of a stranger": put("optimiser", "state", 99, value={}),
        "state that is none": put("optimiser", "state", 0, value=3),
        "no state": put("optimiser", "state", drop=True),
        "optimiser that is none": put("optimiser", value=7),
        "stage": put("progress", "stage", value=1000),
        "epochs": put("progress", "epoch", value=-1),
        "samples": put("progress", "used", value=1.5),
        "no progress": put("progress", value=None),
        "history": put("history", value=[1]),
        "feedback": put("feedback", value=float("nan")),
    }
    untouched = fresh()
    before = {name: value.clone() for name, value in untouched.net.state_dict().items()}
    for name, change in wrong.items():
        with pytest.raises(InputError) as error:
            restore(change, untouched)
        assert str(error.value).startswith(f"{path}: "), name
        assert str(error.value).endswith("; delete it to start over"), name
        assert len(str(error.value)) <= MAX_MESSAGE, name
    assert all(torch.equal(value, untouched.net.state_dict()[name]) for name, value in before.items())
    # The options of the optimiser are the recipe's, whatever the file says.
    restore(put("optimiser", "param_groups", 0, "amsgrad", value=True), untouched)
    assert untouched.optimiser.param_groups[0]["amsgrad"] is False


def test_the_command_trains_and_the_file_says_how(tmp_path, capsys):
    path = tmp_path / "model.pt"
    with pytest.raises(SystemExit) as stop:
        main(
            ["train", WORD, "--recipe", "smoke", "--seed", "4", "--set", "optimiser.lr=0.02", "-o", str(path)]
        )
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "fresh samples without end train, others validate" in out
    assert "epoch 2: cue:cues=1,wait_ms=150,right_p=0.5,0.5, accuracy" in out
    assert " s left\n" in out
    model = load_model(path)
    made = model.provenance
    assert made["command"] == f"delaynet train {WORD} --recipe smoke --seed 4 --set optimiser.lr=0.02"
    assert made["seed"] == 4
    assert {"delaynet_lava", "torch", "lava-dl", "numpy", "numba", "python"} <= set(made["versions"])
    assert made["metrics"]["epochs"] == len(made["history"]) == 2
    assert (made["task"], model.config["decision"]) == (WORD, "last")

    # The trainer's own accuracy is that of the emulator on the exported integers.
    recipe = recipe_of(made["recipe"])
    assert recipe == changed(load_recipe("smoke"), ["optimiser.lr=0.02"])
    network = extract(model)
    x, labels = CueAccumulation(1, 150, 4).batch("validation", 0, recipe.schedule.validation)
    trace = emulate(network, x)
    assert np.mean(decide(network, trace) == labels) == made["metrics"]["validation_accuracy"]
    assert trace.u_wraps == [0, 0]


def test_training_learns_one_cue(tmp_path):
    changes = ["schedule.epoch_samples=512", "schedule.epochs=6", "schedule.validation=128"]
    changes += ["network.layers=64", "optimiser.lr=0.01", "schedule.lr_end=0.3", "averaging.decay=0.97"]
    recipe = changed(SMOKE, [*changes, "loss.rate=0"])
    model = train(recipe, WORD, tmp_path / "m.pt")
    losses = [epoch["loss"] for epoch in model.provenance["history"]]
    assert losses[-1] < losses[0] - 0.2
    assert model.provenance["metrics"]["validation_accuracy"] > 0.9
    assert accuracy(build(recipe), pools(TASK, 0, 0.1)[1], 128, recipe.decision) < 0.7


def test_the_initial_network_is_what_the_recipe_says():
    recipe = load_recipe("loihi2")
    hidden, readout = build(recipe, seed=3)
    weight = hidden.recurrent_synapse.weight.detach().view(125, 125)
    assert spectral_radius(weight.abs() / 8.0) == pytest.approx(1.2, rel=1e-4)
    assert not weight.diagonal().any()
    assert hidden.input_synapse.weight.abs().max() <= 0.4 * 8
    assert readout.synapse.weight.abs().max() <= 0.8
    assert set(hidden.delay.tolist()) == {0, 50, 62}
    other = build(recipe, seed=4)
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


def test_a_training_can_go_on_from_a_model(tmp_path, capsys):
    first = train(SMOKE, WORD, tmp_path / "a.pt")
    changes = [f"init.model={tmp_path / 'a.pt'}", "optimiser.lr=0", "averaging.decay=0"]
    second = train(changed(SMOKE, changes), "cue:cues=1,wait_ms=300", tmp_path / "b.pt", 5)
    assert {(e["task"], e["stages"]) for e in second.provenance["history"]} == {
        ("cue:cues=1,wait_ms=300,right_p=0.5,0.5", 1)
    }
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name]), name
    with pytest.raises(SystemExit) as stop:
        main(["train", WORD, "--init", str(tmp_path / "a.pt"), "-o", str(tmp_path / "c.pt")])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "does not fit the network" in message
    assert message.count("\n") == 1


def test_the_spike_rate_and_the_published_branching_loss_are_what_they_say():
    changes = ["loss.branching=0.5", "loss.branching_over=batch", "loss.rate=2", "loss.temperature=4"]
    loss = changed(SMOKE, changes).loss
    spikes = (torch.rand(3, 27, 40) < 0.2).float()
    total = spikes.sum(dim=1)
    out, labels = torch.randn(3, 2, 5), torch.tensor([0, 1, 1])
    population = spikes.numpy().sum(axis=(0, 1))
    known = float(torch.nn.functional.cross_entropy(out[..., -1] / 4, labels) + 2 * spikes.mean())
    expected = known + 0.5 * float((np.diff(population) ** 2).sum())
    assert float(loss_of(loss, [total], 27, out, labels)) == pytest.approx(expected, rel=1e-5)
    per_sample = (np.diff(spikes.numpy().sum(axis=1), axis=1) ** 2).sum(axis=1).mean()
    loss = replace(loss, branching_over="sample")
    expected = known + 0.5 / 64 * per_sample
    assert float(loss_of(loss, [total], 27, out, labels)) == pytest.approx(expected, rel=1e-5)
    # Two layers: each has its own change, and the rate is over the neurons of both.
    more = float(loss_of(replace(loss, rate=0.0), [total, total], 54, out, labels))
    alone = float(loss_of(replace(loss, rate=0.0), [total], 54, out, labels))
    assert more - alone == pytest.approx(0.5 / 64 * per_sample, rel=1e-4)
    rates = [
        float(loss_of(replace(loss, branching=0.0, rate=r), [total, total], 54, out, labels)) for r in (0, 2)
    ]
    assert rates[1] - rates[0] == pytest.approx(2 * float(spikes.mean()), rel=1e-4)


def test_scores_follow_the_decision_and_spike_rates_are_wanted_ones():
    out, labels = torch.randn(4, 3, 20), torch.tensor([0, 2, 1, 1])
    for text, expected in (
        ("last", out[..., -1]),
        ("sum:5:", out[..., 5:].sum(-1)),
        ("mean", out.mean(-1)),
        ("count::8", out[..., :8].sum(-1)),
    ):
        torch.testing.assert_close(scores(out, Decision.parse(text)), expected)
    loss = changed(Recipe(), ["loss.readout=count:4:", "loss.kind=spike-rate"]).loss
    spikes = (out > 0).float()
    wanted = np.full((4, 3), 0.02)
    wanted[range(4), labels] = 0.2
    expected = ((spikes[..., 4:].mean(-1).numpy() - wanted) ** 2).sum(1).mean()
    assert float(loss_of(loss, [], 9, spikes, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("share", "short"), [(0.0, []), (0.5, [1, 3, 5, 7]), (0.25, [3, 7]), (0.9, [1, 2, 3, 4, 5, 6, 7])]
)
def test_steps_with_the_shortest_wait_are_spread_evenly(monkeypatch, share, short):
    recipe = changed(SMOKE, ["curriculum.walk=false", "schedule.batch=16", f"curriculum.easy={share}"])
    trainer = _Trainer(recipe, CueAccumulation(1, 300), 0, Group())
    waits = []
    monkeypatch.setattr(trainer, "_step", lambda pool, count: waits.append(pool.task.wait_ms) or (0.0,) * 5)
    trainer.epoch()
    assert [k for k, wait in enumerate(waits) if wait == 150] == short
    assert sorted(set(waits) - {150}) == [300]
    assert len(waits) == 8


def test_the_curriculum_walks_on_by_accuracy_and_gives_way(monkeypatch):
    recipe = changed(SMOKE, ["curriculum.advance=0.9", "curriculum.most_epochs=6"])
    trainer = _Trainer(recipe, CueAccumulation(3, 450), 0, Group())
    right = iter([0.95, 0.5, 0.5, 0.95, 0.5, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr(
        trainer, "_step", lambda pool, count: (0.5, next(rights), 0.1, 1.0, 1.0) if count else None
    )
    monkeypatch.setattr(trainer, "_validate", lambda: 0.5)
    stages = []
    while not trainer.done():
        one = next(right)
        rights = iter([one] * 9)
        record = trainer.epoch()
        stages.append((record.stage, record.task.removesuffix(",right_p=0.5,0.5")))
        assert record.stages == 4
    words = [
        "cue:cues=1,wait_ms=150",
        "cue:cues=3,wait_ms=150",
        "cue:cues=3,wait_ms=300",
        "cue:cues=3,wait_ms=450",
    ]
    assert [s for s, _ in stages] == [0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [w for _, w in stages] == [words[s] for s, _ in stages]


def test_a_recipe_that_adds_to_the_task_is_refused_where_the_task_has_not_that():
    with pytest.raises(InputError, match=r"curriculum.training 'left_p=1'.*left_p is not one of its options"):
        _Trainer(changed(SMOKE, ["curriculum.training=left_p=1"]), TASK, 0, Group())


def test_rates_fall_as_the_schedule_says():
    shares = {
        name: [share_of_rate(Schedule(annealing=name, lr_end=0.04), left) for left in (1.0, 0.5, 0.0)]
        for name in allowed("schedule")["annealing"].choices
    }
    assert shares == {
        "constant": [1, 1, 1],
        "linear": pytest.approx([1, 0.52, 0.04]),
        "exponential": pytest.approx([1, 0.2, 0.04]),
        "cosine": pytest.approx([1, 0.52, 0.04]),
    }
    assert share_of_rate(Schedule(annealing="cosine"), 0.75) > share_of_rate(
        Schedule(annealing="linear"), 0.75
    )
    assert set(OPTIMISERS) == set(allowed("optimiser")["name"].choices)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_train_within_the_bounds_of_tau(name, tmp_path):
    changes = [f"optimiser.name={name}", "optimiser.lr=0.05", "optimiser.weight_decay=0.01"]
    changes += ["network.tau_ms=20", "network.tau_max_ms=20", "network.tau_out_ms=5", "network.tau_min_ms=5"]
    model = train(changed(SMOKE, changes), WORD, tmp_path / "m.pt")
    hidden, out = (float(model.state_dict[f"{k}.neuron.voltage_decay"]) / 4096 for k in (0, 1))
    low, high = (1 - np.exp(-1 / tau) for tau in (20.0, 5.0))
    assert low - 1e-6 <= hidden <= high + 1e-6
    assert low - 1e-6 <= out <= high + 1e-6
    losses = [epoch["loss"] for epoch in model.provenance["history"]]
    assert len(set(losses)) == len(losses)
    assert all(0 < epoch["branching"] < 5 for epoch in model.provenance["history"])


def validated_by_the_emulator(model, recipe, task=TASK):
    """The validation accuracy that the exported integers have."""
    network = extract(model)
    x, labels = task.batch("validation", 0, recipe.schedule.validation)
    trace = emulate(network, x)
    assert not any(trace.u_wraps)
    return np.mean(decide(network, trace) == labels)


@pytest.mark.parametrize("name", ["lif-2s", "lif-2s-ff", "lif-20ms", "lif-2s-eprop", "lsnn", "lsnn-ff"])
def test_baselines_train_under_the_same_trainer(name, tmp_path):
    changes = ["schedule.epoch_samples=128", "schedule.epochs=2", "schedule.validation=64"]
    recipe = changed(load_recipe(name), changes)
    model = train(recipe, WORD, tmp_path / "m.pt")
    history = model.provenance["history"]
    assert len(history) == 2
    assert history[0]["loss"] != history[1]["loss"]
    assert all(0 < epoch["rate"] < 0.5 for epoch in history)
    assert load_model(tmp_path / "m.pt").config["layers"][0]["out_neurons"] == 100
    before = build(recipe).state_dict()
    moved = {k for k, v in model.state_dict.items() if not torch.equal(v, before[k])}
    assert moved
    assert all(k.endswith("weight") for k in moved)
    if name.startswith("lsnn"):
        with pytest.raises(InputError, match="not a layer type that this release exports"):
            extract(model)
    else:
        accuracy = model.provenance["metrics"]["validation_accuracy"]
        assert validated_by_the_emulator(model, recipe) == accuracy


def test_the_papers_own_settings_train_in_integers(tmp_path):
    changes = ["network.layers=27", "curriculum.walk=false", "schedule.epoch_samples=64", "schedule.epochs=1"]
    recipe = changed(load_recipe("paper"), changes)
    train(recipe, WORD, tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt")
    network = extract(model)
    assert network.layers[0].neuron.reset == "subtract"
    assert set(np.unique(network.layers[0].recurrent.delay)) == {0, 79, 99}
    assert model.provenance["recipe"]["optimiser"]["name"] == "madgrad"
    accuracy = model.provenance["metrics"]["validation_accuracy"]
    assert validated_by_the_emulator(model, recipe) == accuracy


STACKS = {
    "recurrent, mean": ["network.layers=20,16", "loss.readout=mean:50:"],
    "mixed, sum": ["network.layers=20,16,12", "network.recurrent=true,false,true", "loss.readout=sum"],
    "feed-forward, spike rates": [
        "network.layers=20,16", "network.recurrent=false", "loss.readout=count", "loss.kind=spike-rate",
        "network.reset=zero,subtract",
    ],
    "recurrent, counted": [
        "network.layers=20,16", "network.delays=[[0, 9], [3]]", "network.shares=[]",
        "loss.readout=count:100:",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_stacks_of_any_depth_train_to_what_the_emulator_runs(name, tmp_path):
    changes = [*STACKS[name], "schedule.epochs=2", "schedule.epoch_samples=96", "schedule.validation=64"]
    recipe = changed(SMOKE, ["init.rate=0.05", *changes])
    model = train(recipe, WORD, tmp_path / "m.pt")
    network = extract(load_model(tmp_path / "m.pt"))
    assert str(network.decision) == recipe.loss.readout
    assert len(network.layers) == len(recipe.network.layers) + 1
    accuracy = model.provenance["metrics"]["validation_accuracy"]
    assert validated_by_the_emulator(model, recipe) == accuracy
    before = build(recipe).state_dict()
    moved = {k for k, v in model.state_dict.items() if not torch.equal(v, before[k])}
    weights = {k for k in before if k.endswith("synapse.weight")}
    assert weights <= moved


def test_input_weights_are_scaled_to_the_rate_that_is_asked_for():
    changes = ["network.layers=40,30", "loss.readout=count", "init.rate=0.02", "init.input_gain=0.001"]
    net = build(changed(SMOKE, changes), CueAccumulation(1, 300))
    x = CueAccumulation(1, 300).batch("train", 0, 64)[0]
    y = torch.from_numpy(x).transpose(1, 2).float()
    for block in net:
        y = block(y)
        assert float(y.mean()) == pytest.approx(0.02, rel=0.1)
    radius = spectral_radius(net[0].recurrent_matrix().detach().abs() / net[0].neuron.threshold)
    assert radius == pytest.approx(1.2, rel=0.05)


def test_a_narrow_membrane_trains_with_its_own_integers(tmp_path):
    train(SMOKE, WORD, tmp_path / "wide.pt")
    recipe = changed(SMOKE, [f"init.model={tmp_path / 'wide.pt'}", "network.membrane_bits=7"])
    model = train(recipe, WORD, tmp_path / "narrow.pt")
    network = extract(model)
    hidden, readout = (layer.neuron for layer in network.layers)
    assert (hidden.membrane_bits, readout.membrane_bits) == (7, 7)
    assert hidden.vth << 6 < 1 << hidden.full_scale_exp <= 4 * hidden.vth << 6
    accuracy = model.provenance["metrics"]["validation_accuracy"]
    assert validated_by_the_emulator(model, recipe) == accuracy
    wide, x = extract(load_model(tmp_path / "wide.pt")), TASK.batch("validation", 0, 64)[0]
    assert emulate(network, x).compare(emulate(wide, x)).mismatches
