"""Two commands in one folder at the same time: each does its work, or says in one line why not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import load_model

TASK = "cue:cues=1,wait_ms=150"
TRAIN = ["train", TASK, "--recipe", "smoke", "-o", "m.pt"]
DEPLOY = [
    "deploy", "net.h5", "--task", "cue:cues=1,wait_ms=150", "--samples", "1", "--backend", "lava",
    "--dry-run", "--force", "-o", "job",
]  # fmt: skip


def together(folder: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Exit codes, and what the commands complained of."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "delaynet_lava", *arguments],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for arguments in commands
    ]  # fmt: skip
    said = [one.communicate(timeout=600)[1] for one in running]
    return [(one.returncode, text) for one, text in zip(running, said, strict=True)]


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    shutil.copy(repository / "delaynet_lava" / "models" / "cue_loihi2.pt", tmp_path / "model.pt")
    return tmp_path


def refused(said: str) -> bool:
    """Whether a training says in one line that another's checkpoint or model is in its place."""
    return said.count("\n") == 1 and ("belongs to another training" in said or "is there already" in said)


def test_the_same_training_twice_gives_the_same_model(folder):
    outcome = together(folder, TRAIN, TRAIN)
    assert (0, "") in outcome
    assert all(one == (0, "") or (one[0] == 2 and refused(one[1])) for one in outcome)
    first = load_model(folder / "m.pt").state_dict
    (folder / "m.pt").unlink()
    assert together(folder, TRAIN) == [(0, "")]
    second = load_model(folder / "m.pt").state_dict
    assert all(torch.equal(first[name], second[name]) for name in {*first, *second})
    assert sorted(path.name for path in folder.iterdir()) == ["m.pt", "model.pt"]


def test_another_training_of_the_same_name_is_named_or_comes_after(folder):
    outcome = together(folder, TRAIN, [*TRAIN, "--seed", "5"])
    assert (0, "") in outcome
    assert all(one == (0, "") or (one[0] == 2 and refused(one[1])) for one in outcome)
    assert load_model(folder / "m.pt").state_dict
    assert not list(folder.glob(".delaynet-*"))


def test_files_are_written_and_read_at_the_same_time(folder):
    export = ["export", "model.pt", "-o", "net.h5", "--json", "export.json"]
    assert together(folder, export) == [(0, "")]
    run = ["run", "net.h5", "--task", "cue:cues=1,wait_ms=150", "--samples", "2", "--json", "run.json"]
    assert together(folder, export, run, export, run) == [(0, "")] * 4
    assert netx.read(folder / "net.h5").layers
    outcome = together(folder, DEPLOY, DEPLOY)
    assert sorted(code for code, _ in outcome)[0] in (0, 1)  # 1: there is no Slurm here
    assert all(code < 2 or "is not an empty folder" in said for code, said in outcome)
    names = {path.name for path in folder.iterdir()}
    assert names == {"export.json", "job", "model.pt", "net.h5", "run.json"}
    assert {path.name for path in (folder / "job").iterdir()} == {"bundle"}


@pytest.mark.slow
def test_two_searches_in_one_folder_share_the_work(folder):
    search = [
        "search",
        "cue:cues=1,wait_ms=150",
        "--recipe",
        "smoke",
        "-o",
        "s",
        "--trials",
        "2",
        "--workers",
        "1",
    ]
    assert together(folder, search, search) == [(0, ""), (0, "")]
    assert len(list((folder / "s").glob("trial-*.pt"))) == 2
