"""Threads, forked and spawned processes; folders that can't be written, damaged files of the cache."""

from __future__ import annotations

import itertools
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numba
import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="about processes of Linux")
# What every program below runs: a network with delays, in pieces and as a whole.
NETWORK = """
import multiprocessing, sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from delaynet_lava import Dense, Network, Neuron, Synapse, Trace, emulate

rng = np.random.default_rng(0)
hidden = Dense(
    Synapse(2 * rng.integers(-20, 30, (60, 40))), Neuron(50, 300, 40),
    Synapse(2 * rng.integers(-20, 30, (60, 60)), rng.integers(0, 60, (60, 60))),
)
network = Network((hidden,))
inputs = (rng.random((16, 200, 40)) < 0.1).astype(np.uint8)

def part(k):
    return emulate(network, inputs[k : k + 1], ("spikes", "voltage"))

def whole():
    return emulate(network, inputs, ("spikes", "voltage"))

def same(parts):
    result = whole().require_equal(Trace.join(parts))
    assert result.compared > 300_000 and whole().spike_counts[0].sum() > 1000
    print("same", result.compared)
"""
BODIES = {
    "threads": "with ThreadPoolExecutor(8) as pool: same(list(pool.map(part, range(16))))",
    "fork": "with multiprocessing.get_context('fork').Pool(2) as pool: same(pool.map(part, range(16)))",
    "spawn": "with multiprocessing.get_context('spawn').Pool(2) as pool: same(pool.map(part, range(16)))",
}
BEFORE = {
    "fresh": "",
    "run": "whole()",
    "torch": "import torch; (torch.ones(700, 700) @ torch.ones(700, 700)).sum()",
}


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        [sys.executable, program, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


QUICK = {
    ("fork", "fresh", "omp"), ("fork", "run", "omp"), ("fork", "torch", "omp"), ("threads", "fresh", "omp"),
    ("threads", "fresh", "workqueue"), ("fork", "run", "workqueue"), ("spawn", "run", "omp"),
}  # fmt: skip
COMBINATIONS = [
    pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow)
    for one in itertools.product(BODIES, BEFORE, ("omp", "workqueue"))
]


@LINUX
@pytest.mark.parametrize(("how", "before", "layer"), COMBINATIONS)
def test_threads_and_pools_give_the_integers_of_one_run(tmp_path: Path, how, before, layer) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"{NETWORK}\nif __name__ == '__main__':\n    {BEFORE[before]}\n    {BODIES[how]}\n")
    result = run(str(program), NUMBA_THREADING_LAYER=layer)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("same") and result.stderr == ""


# Numba looks for a place that can be written; here only the one that is named can.
NOWHERE = """
import sys, tempfile
from numba.core import caching

caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
tempfile.tempdir = sys.argv[1]
import delaynet_lava.fixedpoint
from delaynet_lava.kernels.events import run_layer
"""


@pytest.mark.parametrize(
    "kind", ["own", "open", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("foreign", "missing"))]
)
def test_loops_are_kept_elsewhere_or_not_at_all_where_nothing_can_be_written(tmp_path: Path, kind) -> None:
    program, temporary = tmp_path / "program.py", tmp_path / "tmp"
    program.write_text(NOWHERE)
    if kind != "missing":
        temporary.mkdir()
    folder = temporary / f"delaynet-numba-{os.getuid()}"
    if kind == "open":
        folder.mkdir()
        folder.chmod(0o777)
    if kind == "foreign":
        folder.symlink_to(tmp_path)
    result = run(str(program), str(temporary), NUMBA_CACHE_DIR="")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("RuntimeWarning") == 1
    assert (f"kept in {folder}" if kind == "own" else "not kept") in result.stderr
    assert "NUMBA_CACHE_DIR" in result.stderr
    if kind == "own":
        assert folder.stat().st_mode & 0o777 == 0o700


def test_damaged_files_of_the_cache_are_made_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "loop.py"
    source.write_text(
        "from delaynet_lava.kernels.compiled import compiled\n"
        "@compiled()\ndef run(x):\n    return 2 * x + 1\n"
    )

    def ran() -> tuple[int, int]:
        loop = runpy.run_path(str(source))["run"]
        return loop(100), sum(loop.stats.cache_hits.values())

    assert (ran(), ran()) == ((201, 0), (201, 1))
    for kind in ("nbi", "nbc"):
        for keep in (0, 0.5, 0.99):
            (file,) = tmp_path.rglob(f"*run*.{kind}")
            content = file.read_bytes()
            file.write_bytes(content[: int(keep * len(content))])
            assert (ran(), ran()) == ((201, 0), (201, 1))
