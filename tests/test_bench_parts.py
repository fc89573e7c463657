"""The benchmark's other reports: the parts of a training step, and what it takes to start a command."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from delaynet_lava.bench import limits, ratios, startup
from delaynet_lava.bench.shapes import SHAPES
from delaynet_lava.cli import main
from delaynet_lava.errors import DelayNetError
from delaynet_lava.kernels.vectors import BLOCK


def call(*args: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    return int(stop.value.code or 0)


@pytest.mark.parametrize("shape", limits.LIMITED)
def test_the_parts_of_a_step_and_what_the_machine_needs_for_them(shape, tmp_path, capsys):
    assert call("bench", "--limits", "--quick", "--shape", shape, "--json", str(tmp_path / "a.json")) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    names = [part["name"] for part in found["parts"]]
    ordered = ["hidden layer, forward", "readout, forward", "readout, backward", "hidden layer, backward"]
    assert [name for name in names if name in ordered] == ordered and names[-1] == "everything else"
    assert sum(part["seconds"] for part in found["parts"]) == pytest.approx(found["step_s"])
    sizes, kind = ratios.sizes_of(shape, quick=True), SHAPES[shape]
    (products,) = (part for part in found["parts"] if part["name"] == "hidden layer, backward")
    columns = -(-kind.layers[0] // BLOCK) * BLOCK
    flops = 2 * sizes.train_samples * sizes.train_steps * kind.layers[0] * columns
    assert products["gflop"] == pytest.approx(flops / 1e9) and products["bound_s"] > 0
    assert all(name in shown for name in names) and "GFLOP/s" in shown


def test_what_it_takes_to_start(tmp_path, capsys, monkeypatch):
    names = [
        "import numpy",
        "import torch",
        "delaynet --version",
        "an option that there is not",
        "delaynet run net.h5",
    ]
    chosen = {name: startup.COMMANDS[name] for name in names}
    monkeypatch.setattr(startup, "COMMANDS", chosen)
    assert call("bench", "--startup", "--quick", "--json", str(tmp_path / "a.json")) == 0
    shown = capsys.readouterr().out
    starts = {one["name"]: one for one in json.loads((tmp_path / "a.json").read_text())["starts"]}
    assert list(starts) == names and all(name in shown for name in names)
    assert starts["import numpy"]["numpy"] == starts["import torch"]["torch"] == 1
    assert 0 < starts["delaynet --version"]["torch"] < 1 < starts["import torch"]["numpy"]
    # What ends otherwise than it should is no figure.
    wrong = replace(chosen["delaynet --version"], fails=True)
    monkeypatch.setattr(startup, "COMMANDS", chosen | {"delaynet --version": wrong})
    with pytest.raises(DelayNetError, match="delaynet --version: ended with exit code 0 and said"):
        startup.measure_starts(quick=True)
    assert call("bench", "--startup", "--limits") == 2


def test_what_has_no_known_parts_is_told(capsys):
    assert call("bench", "--limits", "--shape", "src") == 2
    assert call("bench", "--limits", "--scaling") == 2
    assert "one of cue, psmnist" in capsys.readouterr().err
