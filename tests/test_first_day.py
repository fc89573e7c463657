"""A new user's day: docs/first-day.md, command by command, on events and a network nobody knew before."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

# What makes a command short enough for every run of the tests; the page's own command stays as it is.
SHORT = {
    "python examples/own_network.py .": ["--smoke"],
    "delaynet train events.npz -o here.pt": ["--set", "schedule.epochs=2", "--set", "network.layers=24"],
}


def commands(page: Path, road: str) -> list[str]:
    """The commands of a road, the indented lines behind its mark."""
    block = re.search(rf"<!-- first day: {road} -->\n((?:    .*\n)+)", page.read_text())
    assert block is not None, road
    return [line.strip() for line in block.group(1).splitlines()]


def run(command: str, folder: Path, repository: Path, *more: str) -> str:
    words = [*shlex.split(command), *SHORT.get(command, []), *more]
    program = {
        "python": [sys.executable, str(repository / words[1])],
        "delaynet": [sys.executable, "-m", "delaynet_lava", words[1]],
    }[words[0]]
    done = subprocess.run(
        [*program, *words[2:]],
        cwd=folder, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    assert "cue" not in done.stdout + done.stderr, command
    return done.stdout


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("day")
    for command in commands(repository / "docs" / "first-day.md", "common"):
        run(command, folder, repository)
    return folder


def test_a_network_trained_here(day: Path, repository: Path) -> None:
    said = {
        c.split()[1]: run(c, day, repository) for c in commands(repository / "docs" / "first-day.md", "here")
    }
    assert list(said) == ["train", "export", "run", "evaluate", "inspect"]
    assert "0 mismatches between emulator and lava" in said["run"]
    page = (day / "here.html").read_text()
    assert "Samples by label and decision" in page and "events.npz" in page


def test_a_network_of_ones_own(day: Path, repository: Path) -> None:
    roads = commands(repository / "docs" / "first-day.md", "own")
    run(roads[0], day, repository, "--json", "check.json")
    found = json.loads((day / "check.json").read_text())
    assert found["agree"] and found["differing"] == 0 and found["decisions"] == found["samples"] == 100
    assert all(layer["spikes"] > 500 for layer in found["layers"]) and len(found["layers"]) == 3
    assert found["lava"]["mismatches"] == 0 and found["lava"]["compared"] > 10_000
    said = {command.split()[1]: run(command, day, repository) for command in roads[1:]}
    assert list(said) == ["export", "run", "evaluate", "inspect", "deploy"]
    same = json.loads(run("delaynet run own.h5 --samples 100 --json -", day, repository))
    assert same["accuracy"] == found["right"] / 100
    assert "events.npz" in (day / "own.html").read_text()


def test_a_bare_state_dict_gives_the_same_network(day: Path, repository: Path) -> None:
    run(
        f"delaynet export state.pt --network {repository}/examples/own_network.py:Network -o state.h5",
        day,
        repository,
    )
    run("delaynet export model.pt -o model.h5", day, repository)
    first, second = (
        json.loads(run(f"delaynet run {name}.h5 --task events.npz --json -", day, repository))
        for name in ("state", "model")
    )
    for key in ("decisions", "spikes", "accuracy"):
        assert first[key] == second[key]
