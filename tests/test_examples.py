"""Every example runs, in its short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
ELSEWHERE = ("own_network",)  # tests/test_first_day.py goes on with what it writes


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem not in ELSEWHERE], ids=lambda path: path.stem)
def test_example_runs(path):
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    done = subprocess.run([sys.executable, str(path), "--smoke"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    if "nothing is compared: " in done.stdout:
        pytest.skip(done.stdout.strip())
    if path.stem == "nir_frameworks":
        assert done.stdout.count("'and from a late reset in': 0}") == 3
        return
    assert "0 mismatches" in done.stdout
