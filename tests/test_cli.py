"""The commands as a user calls them: figures, JSON, exit codes, and one line for bad input."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import delaynet_lava
from delaynet_lava.cli import COMMANDS, export_main, main
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import ModelFile, save_model, write_tensors
from delaynet_lava.network import Dense, Network, Neuron, Synapse


def make_model(hidden: int = 12, delay: int = 62, spoil: float | None = None, **extra) -> ModelFile:
    """A small untrained cue model, described without SLAYER."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: (torch.rand(*shape, 1, 1, 1, generator=generator) - 0.4) * 3  # noqa: E731
    neuron = {"threshold": 3.0, "current_decay": 1.0, "voltage_decay": 0.05}
    state = {
        "0.input_synapse.weight": draw(hidden, 40),
        "0.recurrent_synapse.weight": draw(hidden, hidden) / 4,
        "0.neuron.current_decay": torch.tensor([4096.0]),
        "0.neuron.voltage_decay": torch.tensor([200.0]),
        "0.neuron.vth": torch.tensor([3.0]),
        "0.delay": torch.full((hidden,), delay, dtype=torch.int32),
        "1.synapse.weight": draw(2, hidden),
        "1.neuron.current_decay": torch.tensor([4096.0]),
        "1.neuron.voltage_decay": torch.tensor([200.0]),
    }
    if spoil is not None:
        state["0.recurrent_synapse.weight"][1, 2] = spoil
    layers = [
        {"type": "DelayRecurrent", "neuron": neuron, "self_connection": False, **extra},
        {"type": "Readout", "neuron": neuron},
    ]
    return ModelFile({"layers": layers, "task": {"name": "cue"}, "dt_ms": 1.0}, state, {"seed": 1})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_model(path, make_model())
    return path


@pytest.fixture
def net(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.h5"
    assert call("export", str(model), "-o", str(path)) == 0
    return path


def call(*args: str, entry=main) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        entry(list(args))
    return int(stop.value.code or 0)


def refused(capsys, *args: str, entry=main) -> str:
    """The single line on stderr of a command that must end with 2."""
    capsys.readouterr()
    code = call(*args, entry=entry)
    streams = capsys.readouterr()
    assert code == 2, streams
    assert streams.out == ""
    lines = streams.err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_export_run_and_inspect_agree_with_the_library(net, capsys, tmp_path):
    report = tmp_path / "run.json"
    capsys.readouterr()
    code = call(
        "run",
        str(net),
        "--samples",
        "5",
        "--seed",
        "3",
        "--task",
        "cue:cues=1,wait_ms=150",
        "--json",
        str(report),
    )
    printed = capsys.readouterr().out
    assert code == 0
    content = json.loads(report.read_text())
    needed = {
        "backend", "samples", "accuracy", "decisions", "labels", "steps", "wall_s", "sample_steps_per_s",
        "spikes_per_neuron_step", "u_wraps", "v_saturations", "mismatches", "seed",
    }  # fmt: skip
    assert needed <= set(content)
    assert (content["backend"], content["samples"], content["steps"], content["seed"]) == (
        "emulator",
        5,
        300,
        3,
    )
    assert content["mismatches"] is None
    assert content["accuracy"] == np.mean(np.equal(content["decisions"], content["labels"]))
    assert f"{content['accuracy']:.4f}" in printed
    assert content["spikes"][0] > 0

    code = call("inspect", str(net), "--json", "-")
    content = json.loads(capsys.readouterr().out)
    assert code == 0
    assert content["layers"][0]["neurons"] == 12
    assert content["synapses"][1]["delays"] == [62]
    assert content["findings"] == []


def test_json_on_stdout_is_nothing_but_json(net, capsys):
    capsys.readouterr()
    call("run", str(net), "--samples", "2", "--task", "cue:cues=1,wait_ms=150", "--json", "-")
    assert json.loads(capsys.readouterr().out)["samples"] == 2


def test_delaynet_export_is_the_same_command(model, tmp_path, capsys):
    assert call(str(model), entry=export_main) == 0
    assert (tmp_path / "model.h5").exists()
    one = netx.read(tmp_path / "model.h5")
    assert one.summary() == "40 - 12 recurrent (delays up to 62) - 2"
    assert one.task == "cue"
    assert one.provenance["seed"] == 1
    assert one.profile == "loihi2"


def test_three_faults_are_reported_together_and_stop_the_export(tmp_path, capsys):
    path, target, report = tmp_path / "model.pt", tmp_path / "net.h5", tmp_path / "report.json"
    model = make_model(delay=99, reset="subtract")
    model.state_dict["0.neuron.voltage_decay"][:] = 4096
    save_model(path, model)
    faults = {
        "delay-range": "layer 0: delay_rec: delay 99 exceeds 62",
        "decay": "layer 0: dv: 4096 exceeds 4095",
        "reset-kind": "layer 0: reset: 'subtract' is not one of ['zero']",
    }
    assert call("export", str(path), "-o", str(target), "--json", str(report)) == 1
    err = capsys.readouterr().err
    assert all(f"error [{rule}] {text}" in err for rule, text in faults.items())
    assert err.splitlines()[-1].endswith("was not written: 3 broken rules (--force writes it)")
    assert not target.exists()
    assert [f["rule"] for f in json.loads(report.read_text())["findings"]] == list(faults)

    assert call("export", str(path), "-o", str(target), "--force") == 0
    capsys.readouterr()
    recorded = netx.read(target).provenance["export"]["findings"]
    assert {f["rule"]: f["severity"] for f in recorded} == dict.fromkeys(faults, "error")
    assert call("inspect", str(target)) == 1
    assert "delay 99 exceeds 62" in capsys.readouterr().out
    assert call("inspect", str(target), "--json", "-") == 1
    assert json.loads(capsys.readouterr().out)["provenance"]["export"]["findings"] == recorded


def test_warnings_are_printed_and_do_not_stop_an_export(model, tmp_path, capsys):
    profile, target = tmp_path / "mine.toml", tmp_path / "net.h5"
    profile.write_text(
        'name = "mine"\ntitle = "sums of 8 bits"\n[limits]\n'
        'synaptic_sum_bits = { value = 8, unit = "bit", status = "documented", source = "a test" }\n'
    )
    assert call("export", str(model), "-o", str(target), "--profile", str(profile)) == 0
    err = capsys.readouterr().err
    assert "warning [synaptic-sum] layer 0: neuron " in err and "error" not in err
    network = netx.read(target)
    assert network.profile == "mine"
    assert {f["severity"] for f in network.provenance["export"]["findings"]} == {"warning"}


def bomb(path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(path.parent / "exploded"),))

    torch.save({"format": "delaynet_lava.model", "config": Bomb()}, path)


def test_opening_a_strangers_model_runs_nothing(tmp_path, capsys):
    path = tmp_path / "model.pt"
    bomb(path)
    line = refused(capsys, "export", str(path))
    assert "was not opened" in line
    path.write_bytes(pickle.dumps(list(range(10))))
    refused(capsys, "export", str(path))
    assert not (tmp_path / "exploded").exists()


def test_model_files_open_with_weights_only(model):
    content = torch.load(model, weights_only=True)
    assert set(content) == {"format", "version", "config", "state_dict", "provenance", "sha256"}


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 500, 2000])
def test_damaged_models_are_refused(model, capsys, keep):
    model.write_bytes(model.read_bytes()[:keep])
    assert str(model) in refused(capsys, "export", str(model))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("format"), "has format None"),
        (lambda c: c.update(version=99), "has version 99"),
        (lambda c: c.pop("state_dict"), "key 'state_dict' is missing"),
        (lambda c: c["config"].pop("layers"), "is not a list of layers"),
        (lambda c: c["config"].update(layers=[]), "has no layers"),
        (lambda c: c["config"]["layers"][0].update(type="Conv"), "layer 0 (Conv): is not a layer type"),
        (lambda c: c["state_dict"].pop("0.delay"), "layer 0 (DelayRecurrent): tensor '0.delay' is missing"),
        (lambda c: c["state_dict"].update({"0.delay": torch.zeros(5)}), "5 delays for 12 neurons"),
        (lambda c: c["state_dict"].update({"1.synapse.weight": torch.zeros(2, 9)}), "takes 9 inputs"),
        (lambda c: c["state_dict"].update({"1.synapse.weight": torch.zeros(4)}), "expected (post, pre)"),
        (lambda c: c["state_dict"].update({"0.neuron.vth": torch.zeros(4)}), "neuron.vth has 4 values"),
        (lambda c: c["state_dict"].update({"0.neuron.vth": torch.tensor([-2.0])}), "threshold"),
        (lambda c: c["state_dict"].update({"x": 1}), "state_dict['x'] is a int"),
    ],
)  # fmt: skip
def test_models_with_wrong_content_are_refused(model, capsys, change, problem):
    content = torch.load(model, weights_only=True)
    change(content)
    write_tensors(model, content)
    assert problem in refused(capsys, "export", str(model))
    assert not model.with_suffix(".h5").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(tmp_path, capsys, value):
    path = tmp_path / "model.pt"
    save_model(path, make_model(spoil=value))
    assert "'0.recurrent_synapse.weight' holds NaN or infinity" in refused(capsys, "export", str(path))


def test_bad_use_of_run(net, capsys, tmp_path):
    assert "--samples: 0 is below 1" in refused(capsys, "run", str(net), "--samples", "0")
    assert "'xyz' is not one of" in refused(capsys, "run", str(net), "--backend", "xyz")
    assert "name another one" in refused(capsys, "run", str(net), "--check", "emulator")
    assert "'queue' is not known" in refused(capsys, "run", str(net), "--task", "queue")
    assert "149 ms is below 150 ms" in refused(capsys, "run", str(net), "--task", "cue:wait_ms=149")
    assert "not a valid int" in refused(capsys, "run", str(net), "--samples", "many")
    assert "No such option" in refused(capsys, "run", str(net), "--sample", "3", "--bogus")
    assert "does not exist" in refused(capsys, "run", str(tmp_path / "none.h5"))
    assert "Missing argument" in refused(capsys, "run")


def test_a_net_that_does_not_fit_the_task_is_refused(tmp_path, capsys):
    path = tmp_path / "narrow.h5"
    netx.write(Network((Dense(Synapse(np.full((2, 7), 2)), Neuron(131071, 4096, 100)),)), path)
    assert "takes 7 inputs, the task has 40" in refused(capsys, "run", str(path), "--task", "cue")
    assert "does not say what task it is for; name one with --task" in refused(capsys, "run", str(path))


def test_nothing_half_written_where_the_output_cannot_be(model, net, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "missing" / "net.h5"):
        assert str(target) in refused(capsys, "export", str(model), "-o", str(target))
    left = sorted(p.name for p in tmp_path.rglob("*"))
    assert left == ["folder", "model.pt", "net.h5"]


def test_a_damaged_net_is_refused(net, capsys):
    with h5py.File(net, "r+") as file:
        weight = file["layer/1/weight"][()].astype(float)
        weight[3, 4] = np.nan
        del file["layer/1/weight"]
        file["layer/1/weight"] = weight
    line = refused(capsys, "run", str(net))
    assert "layer 1" in line and "weight" in line and "(3, 4)" in line


def test_debug_shows_the_traceback(net, capsys):
    code = call("run", str(net), "--samples", "0", "--debug")
    err = capsys.readouterr().err
    assert code == 2
    assert "Traceback" in err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["plot", "lattice"]])
def test_every_command_has_help_with_an_example(command, capsys):
    assert call(*command, "-h") == 0
    out = capsys.readouterr().out
    assert "Usage: delaynet" in out and "\\[" not in out
    words = " ".join(out.split())
    assert " Commands: " in words or "Example: delaynet " + " ".join(command) in words


def test_a_profile_that_is_not_there_is_refused(model, net, capsys):
    for command in (["profiles", "loihi9"], ["export", str(model), "--profile", "loihi9"]):
        assert "neither a profile" in refused(capsys, *command)
    assert "neither a profile" in refused(capsys, "inspect", str(net), "--profile", "loihi9")


def test_python_m_runs_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "delaynet_lava", "profiles"], capture_output=True, text=True, check=True
    )
    assert "loihi2" in done.stdout


def test_a_help_text_and_a_usage_error_bring_neither_torch_nor_a_compiler() -> None:
    program = """
import sys
import delaynet_lava
from delaynet_lava.cli import COMMANDS, main
for words in (["--help"], ["--version"], ["runn"], []):
    try:
        main(words)
    except SystemExit:
        pass
heavy = {"torch", "numba", "scipy", "h5py", "matplotlib", "lava"} & set(sys.modules)
assert not heavy, heavy
for name in COMMANDS:
    try:
        main([name, "--no-such"])
    except SystemExit:
        pass
    heavy = {"torch", "numba", "scipy", "matplotlib", "lava"} & set(sys.modules)
    assert not heavy, (name, heavy)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "delaynet " in result.stdout


def test_public_names_are_there_when_asked_for() -> None:
    for name in delaynet_lava.__all__:
        assert name in dir(delaynet_lava)
        assert getattr(delaynet_lava, name) is not None
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = delaynet_lava.nonesuch
