"""The backward loop is compiled beside the forward loop, and a command says when it compiles."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from delaynet_lava.cli.output import tell_of_compiling
from delaynet_lava.kernels import ahead, threads
from delaynet_lava.kernels.recurrence import backward_segment
from delaynet_lava.nn import DelayRecurrent, Readout
from delaynet_lava.processes import command_of

NEURON = {"current_decay": 1.0, "voltage_decay": 0.1}
STEP = """
import logging, sys, torch
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from delaynet_lava.nn import DelayRecurrent, Readout
neuron = {"current_decay": 1.0, "voltage_decay": 0.1}
net = torch.nn.Sequential(DelayRecurrent({"threshold": 1.0, **neuron}, 4, 8, 3), Readout(neuron, 8, 2))
net((torch.rand(3, 4, 30) < 0.3).float())[..., -1].sum().backward()
"""
MOVE = """
import logging, sys, numpy as np
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from delaynet_lava.kernels.steps import move
move(np.zeros((1, 2, 3), np.float32), 1, np.float32(1), np.zeros((1, 2, 3), np.float32))
"""


def ran(code: str, cache: Path) -> str:
    """What a process says whose compiled loops are kept in that folder."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_what_is_compiled_ahead_is_what_a_training_calls() -> None:
    hidden = DelayRecurrent({"threshold": 1.0, **NEURON}, 4, 8, np.arange(8))
    net = torch.nn.Sequential(hidden, Readout(NEURON, 8, 2))
    net((torch.rand(3, 4, 30) < 0.3).float())[..., -1].sum().backward()
    called = backward_segment.signatures
    assert called
    ahead.compile_now()
    assert backward_segment.signatures == called


class Other:
    """Stands for the process beside."""

    made: list[Other] = []  # noqa: RUF012

    def __init__(self, command: list[str], **_: Any) -> None:
        self.command, self.waits = command, 0
        self.made.append(self)

    def wait(self, _: float = 0) -> None:
        self.waits += 1

    def poll(self) -> int:
        return 0


@pytest.mark.parametrize(("kept", "cores", "begins"), [(False, 2, 1), (True, 2, 0), (False, 1, 0)])
def test_it_begins_where_nothing_is_kept_and_a_core_is_free(
    monkeypatch: pytest.MonkeyPatch, kept: bool, cores: int, begins: int
) -> None:
    def added(one: int, other: int) -> int:
        return one + other

    added.py_func = added  # type: ignore[attr-defined]
    loop = threads.Spread(added, lambda: None)
    monkeypatch.setattr(threads.Spread, "kept", lambda self: kept)
    monkeypatch.setattr(ahead.recurrence, "backward_segment", loop)
    monkeypatch.setattr(ahead.nb, "get_num_threads", lambda: cores)
    monkeypatch.setattr(ahead.subprocess, "Popen", Other)
    Other.made.clear()
    ahead.start.__wrapped__()
    assert len(Other.made) == begins
    assert loop(1, 2) == 3 and loop(3, 4) == 7
    for other in Other.made:
        assert "delaynet_lava.kernels.ahead" in other.command[-1] and other.waits == 1


def test_no_process_of_ours_runs_what_lies_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise SystemExit('a stranger')")
    (tmp_path / "delaynet_lava").mkdir()
    ours = [*command_of("delaynet_lava"), "--version"]
    # The control is what -m does where it may: it looks in the current folder first.
    unsafe = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done, control = (
        subprocess.run(one, cwd=tmp_path, env=unsafe, capture_output=True, text=True, timeout=300)
        for one in (ours, [sys.executable, "-c", "import numba"])
    )
    assert done.returncode == 0 and done.stdout.startswith("delaynet ")
    assert "a stranger" in control.stderr


def test_a_loop_says_once_that_it_is_compiled(tmp_path: Path) -> None:
    said = ran(MOVE, tmp_path)
    assert "compiling move for this processor, once: it is kept in " + str(tmp_path) in said
    assert "compiling" not in ran(MOVE, tmp_path)


def test_a_command_says_it_of_the_first_large_loop(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("delaynet_lava.kernels.compiled")
    level, text = log.level, "compiling %s for this processor, once: it is kept in %s"
    try:
        tell_of_compiling("delaynet run")
        for name in ("_survey", "run_layer", "backward_segment"):
            log.info(text, name, "there")
    finally:
        log.setLevel(level)
        log.handlers.clear()
    assert capsys.readouterr().err == (
        "delaynet run: compiling run_layer for this processor, once: it is kept in there\n"
    )


@pytest.mark.slow
def test_a_training_finds_what_was_compiled_beside_it(tmp_path: Path) -> None:
    ran("from delaynet_lava.kernels import ahead; ahead.compile_now()", tmp_path)
    said = ran(STEP, tmp_path)
    assert "compiling run_layer" in said and "compiling backward_segment" not in said
