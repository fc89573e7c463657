"""Training on two processes: the steps of one process, and nobody waits for a process that is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.formats.model_file import load_model, load_tensors
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training.distributed import Group, process_group
from delaynet_lava.training.recipe import Recipe
from delaynet_lava.training.recipe_file import changed, command_line, load_recipe
from delaynet_lava.training.trainer import Epoch, Outlook, _Trainer, train

# An odd batch: the shares of two processes differ. Threads of kernels are not what is tested here.
TASK = "cue:cues=1,wait_ms=150"
CHANGES = ["schedule.batch=33", "schedule.epoch_samples=132", "schedule.epochs=3"]
CHANGES += ["loss.branching=0.05", "averaging.decay=0.5"]
CHANGES += ["network.learn_delays=true", "network.learn_delays_in=true", "optimiser.lr_delays=100"]
RECIPE = changed(load_recipe("smoke"), CHANGES)

# The command, watched: one step's gradients, and what this process has at the end.
WATCHED = """
import os, sys
import numba, torch
from delaynet_lava.training import trainer as training
from delaynet_lava.cli import main

train, folder, arguments = training.train, sys.argv[1], sys.argv[2:]

def watched(recipe, task, path, seed, on_epoch=None, group=None, command=""):
    trainer = training._Trainer(recipe, task, seed, group)
    figures = trainer._step(trainer.stages[-1].pool, recipe.schedule.batch)
    gradients = {name: p.grad for name, p in trainer.net.named_parameters() if p.grad is not None}
    model = train(recipe, task, path, seed, on_epoch, group, command)
    torch.save(
        {
            "figures": figures,
            "gradients": gradients,
            "feedback": trainer.feedback,
            "state": model.state_dict,
            "history": model.provenance["history"],
            "threads": (numba.get_num_threads(), torch.get_num_threads()),
        },
        f"{folder}/rank{group.rank}.pt",
    )
    return model

training.train = watched
main(arguments)
"""

# The command, after each process has said who it is.
NAMED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
os.write(1, f"rank {os.environ['RANK']} {os.getpid()}\\n".encode())
from delaynet_lava.cli import main
main(sys.argv[1:])
"""


def arguments(recipe: Recipe, path: Path) -> list[str]:
    """Of the command that trains with this recipe."""
    return [*command_line(TASK, "smoke", recipe, 0).split()[1:], "-o", str(path)]


@contextmanager
def torchrun(folder: Path, script: str, *rest: str) -> Iterator[subprocess.Popen]:
    """A script on two processes; all are gone at the end."""
    path = folder / "script.py"
    path.write_text(script)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path), *rest]
    program = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield program
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGTERM)
            program.communicate()


class Stopped(Exception):
    pass


def stop_at(last: int) -> Any:
    """For ``on_epoch``: as if killed once the checkpoint of an epoch is written."""

    def on_epoch(epoch: Epoch, _: Outlook) -> None:
        if epoch.number >= last:
            raise Stopped

    return on_epoch


def trainer_of(recipe: Recipe) -> _Trainer:
    return _Trainer(recipe, CueAccumulation(1, 150), 0, Group())


def first_step(recipe: Recipe) -> tuple[_Trainer, Any]:
    trainer = trainer_of(recipe)
    return trainer, trainer._step(trainer.stages[-1].pool, recipe.schedule.batch)


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference of two sets of gradients, relative to the largest of each tensor."""
    assert set(ours) == set(theirs)
    return max(float((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()) for k in theirs)


def assert_same_epoch(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """But for the order of sums."""
    assert ours["task"] == theirs["task"]
    there = [{k for k, v in epoch.items() if v is not None} for epoch in (ours, theirs)]
    assert there[0] == there[1]
    numbers = [{k: epoch[k] for k in there[0] - {"task"}} for epoch in (ours, theirs)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)


def gradients(trainer: _Trainer) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in trainer.net.named_parameters() if p.grad is not None}


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    # The first epoch on one process, the others on two.
    with pytest.raises(Stopped):
        train(RECIPE, TASK, tmp_path / "two.pt", on_epoch=stop_at(1))
    rest = [*arguments(RECIPE, tmp_path / "two.pt"), "--json", str(tmp_path / "two.json")]
    with torchrun(tmp_path, WATCHED, str(tmp_path), *rest) as program:
        one = train(RECIPE, TASK, tmp_path / "one.pt", command=command_line(TASK, "smoke", RECIPE, 0))
        out, errors = program.communicate(timeout=300)
    assert program.returncode == 0, errors
    assert "Warning" not in errors
    first, second = (torch.load(tmp_path / f"rank{k}.pt", weights_only=True) for k in range(2))

    # Both processes have the same bits,
    for name, tensor in first["state"].items():
        assert torch.equal(tensor, second["state"][name]), name
    for key in ("figures", "history", "feedback", "threads"):
        assert first[key] == second[key], key
    # and those of one process but for the order of sums: in the first step
    trainer, figures = first_step(RECIPE)
    assert distance(first["gradients"], gradients(trainer)) < 1e-4
    np.testing.assert_allclose(first["figures"], figures, rtol=1e-5)
    assert first["feedback"] == pytest.approx(trainer.feedback, rel=1e-6)
    # (a batch that lacks one of its samples is nowhere near)
    lacking, other = first_step(changed(RECIPE, ["schedule.batch=32"]))
    assert distance(gradients(lacking), gradients(trainer)) > 0.01
    assert abs(other[0] / figures[0] - 1) > 1e-4
    # and in the end.
    two = load_model(tmp_path / "two.pt")
    start = trainer_of(RECIPE).net.state_dict()
    for name, tensor in one.state_dict.items():
        assert torch.equal(two.state_dict[name], first["state"][name]), name
        torch.testing.assert_close(two.state_dict[name], tensor, rtol=0, atol=1e-5)
    assert (one.state_dict["1.synapse.weight"] - start["1.synapse.weight"]).abs().max() > 1e-3
    moved = [name for name, delays in trainer.first_delays.items() if first["state"][name].tolist() != delays]
    assert sorted(moved) == ["0.axon.delay", "0.delay"]
    for ours, theirs in zip(first["history"], one.provenance["history"], strict=True):
        assert_same_epoch(ours, theirs)
    assert (
        two.provenance["metrics"]["validation_accuracy"] == one.provenance["metrics"]["validation_accuracy"]
    )
    alone, together = one.provenance["command"], two.provenance["command"]
    assert alone.startswith(f"delaynet train {TASK} --recipe smoke --seed 0 --set network.learn_delays=true ")
    assert together == alone.replace("delaynet", "torchrun --nproc-per-node 2 -m delaynet_lava")

    # One process speaks and writes; each computes on its part of the cores.
    assert [line.split()[1] for line in out.splitlines() if line.startswith("epoch ")] == ["2:", "3:"]
    assert out.count("validation accuracy") == 1
    assert (tmp_path / "two.json").exists() and not (tmp_path / "two.pt.checkpoint").exists()
    cores = len(os.sched_getaffinity(0)) // 2
    assert first["threads"] == (max(1, min(cores, numba.config.NUMBA_NUM_THREADS)),) * 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "interrupt"])
def test_a_training_that_lost_a_process_ends_and_goes_on_with_another_number(
    tmp_path: Path, end: str
) -> None:
    recipe = changed(RECIPE, ["schedule.epochs=5000"])
    for name, last in (("whole.pt", 4), ("cut.pt", 1)):
        with pytest.raises(Stopped):
            train(recipe, TASK, tmp_path / name, on_epoch=stop_at(last))
    checkpoint = tmp_path / "cut.pt.checkpoint"
    with torchrun(tmp_path, NAMED, *arguments(recipe, tmp_path / "cut.pt")) as program:
        ranks: dict[str, int] = {}
        spoken = []
        while len(spoken) < 3:
            line = program.stdout.readline()
            assert line, program.communicate()[1]
            if line.startswith("rank"):
                ranks[line.split()[1]] = int(line.split()[2])
            elif line.startswith("epoch"):
                spoken.append(line.split(":")[0])
        if end == "kill":
            os.kill(ranks["1"], signal.SIGKILL)
        else:
            program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=300)
    assert spoken == ["epoch 2", "epoch 3", "epoch 4"]
    assert program.returncode != 0
    for pid in ranks.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    if end == "kill":
        assert "delaynet: no contact with the other processes of this training (one of them ended)" in errors

    kept = load_tensors(checkpoint)["state"]["history"]
    with pytest.raises(Stopped):
        train(recipe, TASK, tmp_path / "cut.pt", on_epoch=stop_at(0))
    resumed = load_tensors(checkpoint)["state"]["history"]
    assert [e["number"] for e in resumed] == list(range(1, len(kept) + 2))
    whole = load_tensors(tmp_path / "whole.pt.checkpoint")["state"]["history"]
    for ours, theirs in zip(resumed[:4], whole, strict=True):
        assert_same_epoch(ours, theirs)


LOST = """
import os
from delaynet_lava.training.distributed import process_group
with process_group() as group:
    for k in range(4):
        assert group.total([k, 0.25 * group.rank]) == [2 * k, 0.25]
    os._exit(9)
"""


def test_the_loss_of_another_process_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**shared, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    other = subprocess.Popen([sys.executable, "-c", LOST], env={**os.environ, "RANK": "1"})
    threads = numba.get_num_threads(), torch.get_num_threads()
    done = 0
    try:
        with (
            pytest.raises(
                DelayNetError,
                match=r"no contact with the other processes of this training \(one of them ended\)",
            ),
            process_group() as group,
        ):
            while True:
                assert group.total([done, 0.25 * group.rank]) == [2 * done, 0.25]
                done += 1
    finally:
        other.wait(60)
        numba.set_num_threads(threads[0])
        torch.set_num_threads(threads[1])
    assert (done, other.returncode) == (4, 9)


def test_shares_are_even_and_leave_nothing_out() -> None:
    for size in (1, 2, 3, 7):
        shares = [Group(rank, size).share(20) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(20))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # A cluster's variable, not torchrun's.
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    threads = numba.get_num_threads(), torch.get_num_threads()
    with process_group() as group:
        assert group == Group(0, 1)
        assert group.total([0.1, 7]) == [0.1, 7]
    assert (numba.get_num_threads(), torch.get_num_threads()) == threads
    # Only the loss of a process is told as one.
    with pytest.raises(RuntimeError, match=r"^mine$"), process_group():
        raise RuntimeError("mine")


def test_more_processes_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="33 samples a batch are too few for 34 processes"):
        train(RECIPE, TASK, tmp_path / "m.pt", group=Group(0, 34))


def test_processes_that_read_different_checkpoints_are_refused(tmp_path: Path) -> None:
    class OneIsAhead(Group):
        def total(self, values: Any) -> list[float]:
            return [value + 1 for value in values]

    with pytest.raises(InputError, match="not the same for all processes"):
        train(RECIPE, TASK, tmp_path / "m.pt", group=OneIsAhead())
    assert not list(tmp_path.iterdir())
