"""A command says when it compiles, and no process of ours runs what lies about."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from delaynet_lava.cli.output import tell_of_compiling
from delaynet_lava.processes import command_of

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
