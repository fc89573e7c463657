"""kill -9 at random moments of every command that writes: nothing lost, nothing half-written, no litter."""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from kill_tools import Killer

from delaynet_lava.deploy.bundle import read_manifest
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import load_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
KILLS, FEW = 100, 4
TASK = "cue:cues=1,wait_ms=150"


@dataclass(frozen=True)
class Command:
    """A command, and what it writes.

    Attributes:
        arguments: in a folder that holds model.pt, net.h5 and graph.nir.
        results: names of what is there afterwards, beside those; a folder counts as one.
        resumes: whether a run goes on where a killed one was, instead of beginning anew.
        starts_new: whether a complete result must be moved away before the next run.
    """

    arguments: list[str]
    results: list[str]
    resumes: bool = False
    starts_new: bool = False


COMMANDS = {
    "export": Command(
        ["export", "model.pt", "-o", "out.h5", "--force", "--json", "out.json"], ["out.h5", "out.json"]
    ),
    "import": Command(
        ["import", "graph.nir", "-o", "out.h5", "--json", "out.json"], ["out.h5", "out.json"]
    ),
    "inspect": Command(
        ["inspect", "net.h5", "--task", TASK, "--samples", "1", "--html", "out.html", "--json", "out.json"],
        ["out.html", "out.json"],
    ),
    "evaluate": Command(
        ["evaluate", "net.h5", "--task", TASK, "--samples", "2", "--json", "out.json", "--plot", "out.png"],
        ["out.json", "out.png"],
    ),
    "train": Command(
        ["train", TASK, "--recipe", "smoke", "-o", "trained.pt", "--json", "out.json", "--force"],
        ["trained.pt", "out.json"], resumes=True,
    ),
    "search": Command(
        [
            "search", TASK, "--recipe", "smoke", "-o", "search", "--trials", "2", "--workers", "1",
            "--export", "1",
        ],
        ["search"], resumes=True,
    ),
    "deploy": Command(
        [
            "deploy", "net.h5", "--task", TASK, "--samples", "2", "--backend", "lava", "--dry-run", "--force",
            "-o", "job",
        ],
        ["job"], starts_new=True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    one = Killer()
    yield one
    one.close()


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    from delaynet_lava.export import export_netx
    from delaynet_lava.export.nir_export import write_nir

    source = repository / "delaynet_lava" / "models" / "cue_loihi2.pt"

    def new(name: str) -> Path:
        folder = tmp_path / name / "work"
        folder.mkdir(parents=True)
        shutil.copy(source, folder / "model.pt")
        network = export_netx(str(source), str(folder / "net.h5")).network
        write_nir(network, folder / "graph.nir")
        return folder

    return new


def names(folder: Path) -> list[str]:
    """All below a folder, but what differs by how often a search was begun."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return sorted(name for name in found if not name.endswith(".log"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).state_dict


def require_whole(folder: Path) -> None:
    """Whatever has its final name is complete."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix == ".h5":
            netx.read(path)
        elif path.suffix == ".json" and "bundle" not in path.parts:
            json.loads(path.read_text())
        elif path.suffix == ".html":
            assert path.read_text().endswith("</html>\n")
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB\x60\x82")
        elif path.suffix == ".pt" and not path.name.endswith(".checkpoint.pt"):
            assert weights(path)
    for bundle in folder.glob("*/bundle"):
        read_manifest(bundle)


# Those that take less than a second a run are killed a few times in the quick tests too.
CASES = [
    *((name, FEW) for name in ("export", "evaluate", "deploy")),
    *(pytest.param(name, KILLS, marks=pytest.mark.slow) for name in COMMANDS),
]


@pytest.mark.parametrize(("name", "kills"), CASES)
def test_a_killed_command_loses_nothing_and_leaves_nothing(name, kills, killer, start, tmp_path):
    command = COMMANDS[name]
    clean, folder = start("clean"), start("killed")
    # How long a whole run takes changes with what else the machine does: it is measured again and again.
    recent: deque[float] = deque(maxlen=5)

    def measure() -> None:
        for result in command.results if command.starts_new or command.resumes else ():
            path = clean / result
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        code, took = killer.run(command.arguments, clean)
        assert code == 0 or name == "deploy", (tmp_path / "clean" / "log").read_text()
        recent.append(took)

    measure()
    if not command.resumes:  # the first run loads what later ones find loaded
        recent.clear()
        measure()
    expected = names(clean)
    assert {top.split("/")[0] for top in expected} == {"model.pt", "net.h5", "graph.nir", *command.results}
    moments, killed, finished = random.Random(kills), 0, 0
    while killed < kills:
        if (killed + finished) % 10 == 9:
            measure()
        if command.starts_new or finished:
            for result in command.results:
                path = folder / result
                if command.starts_new or moments.random() < 0.3:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        whole = statistics.median(recent)
        seconds = moments.uniform(0, 1.05 * whole) * (moments.random() if command.resumes else 1)
        code, took = killer.run(command.arguments, folder, seconds, group=moments.random() < 0.5)
        killed += code < 0
        if code >= 0:
            finished += 1
            if not command.resumes:  # one that goes on, or finds all done, is shorter
                recent.append(took)
        assert code in (0, -9) or name == "deploy", (tmp_path / "killed" / "log").read_text()
        require_whole(folder)
        for path in before:
            assert path.exists() or path.name.startswith(".") or "checkpoint" in path.name, path
        assert finished < 3 * kills + 20
    if command.starts_new:
        shutil.rmtree(folder / command.results[0], ignore_errors=True)
    code, _ = killer.run(command.arguments, folder)
    assert code == 0 or name == "deploy", (tmp_path / "killed" / "log").read_text()
    require_whole(folder)
    assert names(folder) == expected
    if name == "train":
        one, other = weights(folder / "trained.pt"), weights(clean / "trained.pt")
        assert all(torch.equal(one[key], other[key]) for key in {*one, *other})
    if name == "export":
        assert netx.read(folder / "out.h5").summary() == netx.read(clean / "out.h5").summary()
    print(f"{name}: {killed} killed, {finished} finished")
