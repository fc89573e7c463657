"""What was compiled is compiled anew when the arithmetic that it calls has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from delaynet_lava.kernels import compiled

ARITHMETIC = "import numba as nb\n@nb.njit\ndef decay(x):\n    return x * 3 // 4\n"
LOOP = """import numba as nb
from package.fixedpoint import decay
from package.kernels.compiled import compiled
@{decorator}
def run(x):
    return decay(x)
print(run(100), sum(run.stats.cache_hits.values()))
"""


def ran(folder: Path) -> str:
    command = [sys.executable, "-m", "package.kernels.loop"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("decorator", "after"), [("compiled()", "50 0"), ("nb.njit(cache=True)", "75 1")], ids=["ours", "control"]
)
def test_loops_follow_the_functions_that_they_call(tmp_path, decorator, after):
    kernels = tmp_path / "package" / "kernels"
    kernels.mkdir(parents=True)
    arithmetic = kernels.parent / "fixedpoint.py"
    arithmetic.write_text(ARITHMETIC)
    (kernels / "loop.py").write_text(LOOP.format(decorator=decorator))
    shutil.copy(compiled.__file__, kernels)
    assert ran(tmp_path) == "75 0"
    assert ran(tmp_path) == "75 1"
    arithmetic.write_text(ARITHMETIC.replace("* 3 // 4", "* 2 // 4"))
    assert ran(tmp_path) == after
