"""What is compiled: anew when the arithmetic that it calls has changed, and never without a plain version."""

from __future__ import annotations

import ast
import re
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


def loops(repository: Path) -> dict[str, tuple[Path, str]]:
    """Every compiled loop of the kernels: its module, and its docstring."""
    found = {}
    for path in sorted((repository / "delaynet_lava" / "kernels").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and "compiled(" in " ".join(
                map(ast.unparse, node.decorator_list)
            ):
                found[f"{path.stem}.{node.name}"] = path, ast.get_docstring(node) or ""
    return found


def test_every_compiled_loop_names_the_plain_version_that_defines_it(repository):
    found = loops(repository)
    assert {"events.run_layer", "recurrence.backward_segment", "spikes.tally"} <= found.keys()
    for name, (path, text) in found.items():
        plain = re.search(r"Plain version: ``(\w+)`` in (this module|tests/\w+\.py)", text)
        assert plain is not None, f"{name} names no plain version"
        where = path if plain[2] == "this module" else repository / plain[2]
        assert re.search(rf"^(def|class) {plain[1]}\b", where.read_text(), re.MULTILINE), (
            f"{name}: {plain[0]}"
        )


def test_no_loop_takes_more_arguments_than_one_can_hold_in_mind(repository):
    for name, (path, _) in loops(repository).items():
        (loop,) = (
            n for n in ast.parse(path.read_text()).body if getattr(n, "name", "") == name.split(".")[1]
        )
        many = 20 if path.stem in ("adaptive", "eligibility") else 12
        assert len(loop.args.args) <= many, f"{name} takes {len(loop.args.args)}: group them"
