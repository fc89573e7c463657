"""The networks that come with the package, by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import delaynet_lava
from delaynet_lava import models
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.formats.content_hash import NoHashWarning


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


def test_every_name_is_a_model_that_loads():
    cells = {"cue_src": "SpikingRecurrentCell", "mnist_src": "SpikingRecurrentCell", "mnist_lif": "Dense"}
    expected = ("cue_6bit", "cue_dense", "cue_loihi2", "cue_paper", "cue_src", "mnist_lif", "mnist_src")
    expected += ("psmnist",)
    assert models.names() == expected
    for name in models.names():
        net = delaynet_lava.load_model(f"model:{name}")
        first = cells.get(name, "DelayRecurrent")
        assert [type(block).__name__ for block in net] == [first, "Readout"]


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(
        InputError, match=r"model:cue_dence: no 'cue_dence' .* there are model:cue_6bit, model:"
    ):
        delaynet_lava.load_model("model:cue_dence")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "model:nobody"),
        ("evaluate", "model:nobody"),
        ("inspect", "model:nobody"),
        ("plot", "lattice", "model:nobody"),
        ("plot", "activity", "model:nobody"),
        ("plot", "learning", "model:nobody"),
        ("plot", "branching", "model:nobody"),
        ("export", "model:nobody"),
        ("check", "model:nobody"),
        ("verify", "model:nobody"),
        ("deploy", "model:nobody", "--dry-run"),
        ("train", "cue", "--recipe", "loihi2", "--init", "model:nobody", "-o", "m.pt"),
    ],
    ids=" ".join,
)
def test_every_command_says_it(words, capsys, tmp_path):
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model:nobody" in said and "model:cue_loihi2" in said
    assert not list(tmp_path.iterdir())


def test_export_writes_here_and_not_into_the_package(tmp_path):
    assert command("export", "model:cue_loihi2") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cue_loihi2.h5"]


def test_the_name_the_file_and_the_export_are_one_network(tmp_path, capsys):
    (tmp_path / "mine.pt").write_bytes(models.path("cue_loihi2").read_bytes())
    assert command("export", "mine.pt") == 0
    found = []
    for word in ("model:cue_loihi2", "mine.pt", "mine.h5"):
        capsys.readouterr()
        assert command("run", word, "--task", "cue:cues=1,wait_ms=150", "--samples", "4", "--json", "-") == 0
        figures = json.loads(capsys.readouterr().out)
        found.append((figures["spikes"], figures["decisions"]))
        assert figures["spikes"][0] > 0
    assert found[0] == found[1] == found[2]


def test_other_commands_take_the_word(tmp_path, capsys):
    task = ("--task", "cue:cues=1,wait_ms=150", "--samples", "4")
    assert command("evaluate", "model:cue_loihi2", "model:cue_dense", *task) == 0
    said = capsys.readouterr().out
    assert "cue_loihi2" in said and "cue_dense" in said and "model:" not in said
    assert command("check", "model:cue_loihi2", *task, "--lava-samples", "0") == 0
    assert command("verify", "model:cue_loihi2") == 0
    assert "holds" in capsys.readouterr().out
    assert command("plot", "learning", "model:cue_loihi2") == 0
    assert (tmp_path / "learning.png").stat().st_size > 1000


def test_a_file_without_a_hash_is_named_by_its_word(recwarn):
    delaynet_lava.load_model("model:cue_paper")
    assert not [one for one in recwarn if issubclass(one.category, NoHashWarning)]
