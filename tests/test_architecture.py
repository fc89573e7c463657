"""Every import goes downwards, as pyproject.toml and docs/architecture.md say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def tree(tmp_path: Path, repository: Path) -> Path:
    """The package as it is installed: one tree, put together from three folders."""
    leave = shutil.ignore_patterns("__pycache__")
    package = tmp_path / "delaynet_lava"
    shutil.copytree(repository / "delaynet_lava", package, ignore=leave)
    for folder in ("export", "hw_profiles"):
        shutil.copytree(repository / folder, package / folder, ignore=leave)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, {str(tree)!r}); {LINTER}"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=tree, capture_output=True, text=True, timeout=300
    )


def test_imports_go_downwards(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "module, line",
    [
        ("network.py", "from delaynet_lava.emulator import emulate"),
        ("tasks/cue.py", "from delaynet_lava.network import Network"),
        ("export/extract.py", "from delaynet_lava.analysis import overflow"),
        ("newcomer.py", "import math"),
    ],
)
def test_the_linter_notices(tree: Path, module: str, line: str) -> None:
    path = tree / "delaynet_lava" / module
    text = path.read_text() if path.exists() else ""
    future = re.match(r'(?s)(""".*?"""\n+)?(from __future__ import annotations\n)?', text)
    assert future is not None
    path.write_text(text[: future.end()] + line + "\n" + text[future.end() :])
    result = lint(tree)
    assert result.returncode != 0
    assert path.stem in result.stdout


def test_no_module_outside_tasks_is_named_after_a_task(repository: Path) -> None:
    package = repository / "delaynet_lava"
    names = {path.stem for path in (package / "tasks").glob("*.py")} - {"__init__", "base", "registry"}
    for folder in (package, repository / "export", repository / "hw_profiles"):
        for path in folder.rglob("*.py"):
            if path.parent != package / "tasks":
                assert path.stem not in names, path
