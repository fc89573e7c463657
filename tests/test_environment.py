"""How .ci/environment finds a Python and keeps .venv, and what works where Lava is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash") or "/bin/bash"

SHIM = 'echo "pyenv: python3.10: command not found" >&2\nexit 127'


def interpreter(version: str = "3.10", venv: bool = True, small_torch: bool = False) -> str:
    """A script that answers the questions of .ci/environment as an interpreter of ``version`` does."""
    return f"""case "$*" in
    *ensurepip*) exit {0 if venv else 1} ;;
    *"-m pip"*torch*) exit {0 if small_torch else 1} ;;
    esac
    echo "{version} $0\""""


def command(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def find(repository: Path, tmp_path: Path):
    """Runs ``.ci/environment``, ``find`` unless told, with only the folder ``bin`` on PATH, in ``home``."""

    def run(
        *words: str, path: str = str(tmp_path / "bin"), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BASH, repository / ".ci" / "environment", *(words or ("find",))],
            env={"PATH": path, "HOME": str(tmp_path / "home"), **variables},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def picked(result: subprocess.CompletedProcess[str]) -> Path:
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return Path(result.stdout.rstrip("\n"))


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_variable_comes_before_the_path(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", interpreter())
    chosen = command(tmp_path / "my own" / "python", interpreter())
    assert picked(find(PYTHON=str(chosen))) == chosen


def test_a_variable_that_is_empty_counts_as_unset(find, tmp_path: Path) -> None:
    expected = command(tmp_path / "bin" / "python3.10", interpreter())
    assert picked(find(PYTHON="")) == expected


def test_the_path_comes_before_pyenv_and_uv(find, tmp_path: Path) -> None:
    expected = command(tmp_path / "bin" / "python3.10", interpreter())
    command(tmp_path / "home" / ".pyenv" / "versions" / "3.10.13" / "bin" / "python3.10", interpreter())
    command(tmp_path / "bin" / "uv", f"echo {command(tmp_path / 'managed', interpreter())}")
    assert picked(find()) == expected


def test_a_shim_that_answers_command_not_found_is_passed_over(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", SHIM)
    expected = command(tmp_path / "further" / "python3.10", interpreter())
    assert picked(find(path=f"{tmp_path}/bin:{tmp_path}/further")) == expected


def test_a_python3_10_of_another_version_is_passed_over(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", interpreter("3.1"))
    assert "none of 3.10 to 3.13 was found" in complaint(find())


def test_of_the_versions_of_pyenv_the_newest_is_taken(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", SHIM)
    root = tmp_path / "a root"
    command(tmp_path / "bin" / "pyenv", f"echo '{root}'")
    for version in ("3.9.18", "3.10.2", "3.10.9", "3.10.13", "3.11.7", "3.100.1"):
        short = version.rpartition(".")[0]
        command(root / "versions" / version / "bin" / "python3.10", interpreter(short))
    assert picked(find()) == root / "versions" / "3.10.13" / "bin" / "python3.10"


def test_a_broken_version_of_pyenv_gives_way_to_an_older_one(find, tmp_path: Path) -> None:
    versions = tmp_path / "home" / ".pyenv" / "versions"
    command(versions / "3.10.13" / "bin" / "python3.10", "exit 1")
    (versions / "3.10.11").mkdir()
    expected = command(versions / "3.10.4" / "bin" / "python3.10", interpreter())
    assert picked(find()) == expected


@pytest.mark.parametrize("through", ["home", "variable"])
def test_pyenv_is_found_without_its_command(find, tmp_path: Path, through: str) -> None:
    root = tmp_path / "home" / ".pyenv" if through == "home" else tmp_path / "pyenv"
    expected = command(root / "versions" / "3.10.1" / "bin" / "python3.10", interpreter())
    assert picked(find(**({} if through == "home" else {"PYENV_ROOT": str(root)}))) == expected


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_uv_is_asked_what_it_has(find, tmp_path: Path, version: str) -> None:
    expected = command(tmp_path / "managed" / f"python{version}", interpreter(version))
    command(tmp_path / "bin" / "uv", f'[ "$*" = "python find {version}" ] && echo "{expected}"')
    assert picked(find()) == expected


def test_uv_installs_what_it_has_not(find, tmp_path: Path) -> None:
    expected = tmp_path / "managed" / "python3.13"
    prepared = command(tmp_path / "prepared", interpreter("3.13"))
    command(
        tmp_path / "bin" / "uv",
        f"""case "$*" in
        "python find 3.13") [ -e "{expected}" ] && echo "{expected}" ;;
        "python install 3.13") /bin/mkdir "{expected.parent}" && /bin/cp "{prepared}" "{expected}" ;;
        *) exit 2 ;;
        esac""",
    )
    assert picked(find()) == expected


def test_the_newest_is_taken_wherever_it_is(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", interpreter())
    command(tmp_path / "bin" / "python3", interpreter("3.11"))
    command(tmp_path / "bin" / "python3.14", interpreter("3.14"))
    assert picked(find()) == tmp_path / "bin" / "python3"
    versions = tmp_path / "home" / ".pyenv" / "versions"
    expected = command(versions / "3.12.1" / "bin" / "python3.12", interpreter("3.12"))
    assert picked(find()) == expected


def test_one_whose_torch_is_small_comes_before_a_newer_one(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.13", interpreter("3.13"))
    expected = command(tmp_path / "bin" / "python3.11", interpreter("3.11", small_torch=True))
    command(tmp_path / "bin" / "python3.10", interpreter("3.10", small_torch=True))
    assert picked(find()) == expected


def test_the_newest_of_some_versions(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.13", interpreter("3.13"))
    expected = command(tmp_path / "bin" / "python3.12", interpreter("3.12"))
    command(tmp_path / "bin" / "python3.10", interpreter("3.10", small_torch=True))
    assert picked(find("newest", "3.12", "3.10")) == expected
    assert "none of 3.11" in complaint(find("newest", "3.11"))


@pytest.mark.parametrize("uv", [None, "echo 'error: no network' >&2; exit 2", "echo /nowhere/python3.10"])
def test_without_any_one_line_says_how_to_get_it(find, tmp_path: Path, uv: str | None) -> None:
    command(tmp_path / "bin" / "python3.10", SHIM)
    if uv is not None:
        command(tmp_path / "bin" / "uv", uv)
    line = complaint(find())
    assert "pyenv install 3.13" in line
    assert "uv python install 3.13" in line
    assert "PYTHON=" in line


def test_an_interpreter_without_venv_is_named(find, tmp_path: Path) -> None:
    bare = command(tmp_path / "bin" / "python3.10", interpreter(venv=False))
    line = complaint(find())
    assert str(bare) in line and "venv" in line
    assert "venv" in complaint(find(PYTHON=str(bare)))
    whole = command(
        tmp_path / "home" / ".pyenv" / "versions" / "3.10.0" / "bin" / "python3.10", interpreter()
    )
    assert picked(find()) == whole


def test_a_wrong_variable_is_not_passed_over(find, tmp_path: Path) -> None:
    command(tmp_path / "bin" / "python3.10", interpreter())
    for version in ("3.9", "3.14"):
        other = command(tmp_path / f"python{version}", interpreter(version))
        line = complaint(find(PYTHON=str(other)))
        assert str(other) in line and f"is Python {version}," in line and "3.10 to 3.13" in line
    missing = str(tmp_path / "nowhere")
    assert missing in complaint(find(PYTHON=missing))


def test_a_real_interpreter_is_understood(find) -> None:
    """The one that runs the tests lives in an environment; the answer is the one below it."""
    version = "{}.{}".format(*sys.version_info)
    assert picked(find(PYTHON=sys.executable)) == Path(sys.base_prefix, "bin", f"python{version}")


FAKE_BASE = """case "$*" in
*"-m pip"*torch*) exit 1 ;;
*"-m venv"*)
    for venv; do :; done
    /bin/mkdir -p "$venv/bin"
    /bin/cp "{inside}" "$venv/bin/python"
    echo venv >> "{log}"
    ;;
*ensurepip*) ;;
*) echo "3.10 $0" ;;
esac"""
FAKE_INSIDE = """case "$*" in
*"-m pip"*--dry-run*) [ -n "${{SMALL_TORCH:-}}" ] ;;
*"-m pip"*-e*|*"-m pip"*torch*)
    echo "pip $*" >> "{log}"
    exit "${{PIP_RESULT:-0}}"
    ;;
*setup-lava*)
    echo setup-lava >> "{log}"
    exit "${{LAVA_RESULT:-0}}"
    ;;
*"-m pip"*) ;;
*find_spec*) [ ! -e .venv/damaged ] ;;
*) echo "3.10 $0" ;;
esac"""


class Checkout:
    """A folder with .ci/environment and pyproject.toml, and interpreters that only note their calls."""

    def __init__(self, source: Path, base: Path) -> None:
        self.root = base / "check out"
        self.log = base / "log"
        self.log.touch()
        (self.root / ".ci").mkdir(parents=True)
        shutil.copy(source / ".ci" / "environment", self.root / ".ci")
        shutil.copy(source / "pyproject.toml", self.root)
        inside = command(base / "inside", FAKE_INSIDE.format(log=self.log))
        self.python = command(base / "python3.10", FAKE_BASE.format(inside=inside, log=self.log))

    def make(self, *extras: str, code: int = 0, **variables: str) -> tuple[list[str], str]:
        """Runs ``.ci/environment make``; the calls that the interpreters noted, and stderr."""
        self.log.write_text("")
        result = subprocess.run(
            [BASH, self.root / ".ci" / "environment", "make", *extras],
            env={**os.environ, "PYTHON": str(self.python), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (result.returncode, result.stdout) == (code, ""), result.stderr
        return [line.split()[-1] for line in self.log.read_text().splitlines()], result.stderr


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Checkout:
    return Checkout(repository, tmp_path)


def test_an_environment_is_made_once(checkout: Checkout) -> None:
    assert checkout.make("test")[0] == ["venv", ".[test]", "setup-lava"]
    assert checkout.make("test") == ([], "")
    assert checkout.make() == ([], "")


def test_the_small_torch_comes_first_where_there_is_one(checkout: Checkout) -> None:
    calls, said = checkout.make("test", SMALL_TORCH="1")
    assert calls == ["venv", "torch==2.13.0+cpu", ".[test]", "setup-lava"]
    assert "torch for CPUs" in said


def test_an_installation_whose_lava_fails_is_made_again(checkout: Checkout) -> None:
    checkout.make("test", code=1, LAVA_RESULT="1")
    calls, said = checkout.make("test")
    assert calls == ["venv", ".[test]", "setup-lava"]
    assert "did not finish" in said


def test_another_folder_and_another_python(checkout: Checkout, tmp_path: Path) -> None:
    """VENV keeps a second environment beside the first; PYTHON remakes what holds another version."""
    checkout.make("test")
    assert checkout.make("test", VENV=".venv-other")[0] == ["venv", ".[test]", "setup-lava"]
    assert checkout.make("test", VENV=".venv-other") == ([], "")
    newer = command(tmp_path / "python3.13", checkout.python.read_text().replace('"3.10 $0"', '"3.13 $0"'))
    calls, said = checkout.make("test", PYTHON=str(newer))
    assert calls[0] == "venv" and "holds Python 3.10, PYTHON is 3.13" in said


def test_an_extra_is_added_on_demand(checkout: Checkout) -> None:
    checkout.make("test")
    assert checkout.make("test", "dev")[0] == [".[dev]", "setup-lava"]
    assert checkout.make("test", "dev") == ([], "")
    assert checkout.make("test") == ([], "")


def test_a_changed_pyproject_is_installed_again(checkout: Checkout) -> None:
    checkout.make("test")
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("\n[tool.other]\n")
    assert checkout.make("test")[0] == [".[test]", "setup-lava"]
    assert checkout.make("test") == ([], "")


@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_installation_is_made_again(checkout: Checkout, earlier: bool) -> None:
    if earlier:
        checkout.make("test")
        (checkout.root / "pyproject.toml").write_text("[project]\n")
    checkout.make("test", code=1, PIP_RESULT="1")
    calls, said = checkout.make("test")
    assert calls == ["venv", ".[test]", "setup-lava"]
    assert "did not finish" in said
    assert checkout.make("test") == ([], "")


def test_a_broken_environment_is_made_again(checkout: Checkout) -> None:
    venv = checkout.root / ".venv"
    checkout.make("test")
    (venv / "damaged").touch()
    assert checkout.make("test")[0] == ["venv", ".[test]", "setup-lava"]
    (venv / "bin" / "python").unlink()
    assert checkout.make("test")[0] == ["venv", ".[test]", "setup-lava"]
    shutil.rmtree(venv)
    venv.symlink_to("nowhere")
    assert checkout.make("test")[0] == ["venv", ".[test]", "setup-lava"]
    assert checkout.make("test") == ([], "")


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.make("test")
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    calls, said = checkout.make("test")
    assert calls == ["venv", ".[test]", "setup-lava"]
    assert "another path" in said


def test_someones_own_environment_is_added_to(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "inside", checkout.root / ".venv" / "bin" / "python")
    assert checkout.make("test")[0] == [".[test]", "setup-lava"]
    assert checkout.make("test") == ([], "")


def test_someones_own_environment_is_not_removed(checkout: Checkout) -> None:
    python = command(checkout.root / ".venv" / "bin" / "python", interpreter("3.9"))
    calls, said = checkout.make("test", code=2)
    assert calls == []
    assert said.count("\n") == 1 and "3.9" in said
    assert python.exists()


# Imports every module of the package with Lava blocked and prints what came of each as JSON.
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "lava" or name.startswith("lava."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from delaynet_lava.errors import BackendMissing

outcome, waiting = {}, ["delaynet_lava", "delaynet_lava.export", "delaynet_lava.hw_profiles"]
while waiting:
    name = waiting.pop()
    if name.endswith(".__main__"):  # a program, not a module
        continue
    try:
        module = importlib.import_module(name)
    except BackendMissing as error:
        outcome[name] = str(error)
        continue
    except ModuleNotFoundError as error:
        if error.name != "triton":  # builds of torch for CPUs bring none
            raise
        continue
    outcome[name] = ""
    waiting += [entry.name for entry in pkgutil.iter_modules(getattr(module, "__path__", []), name + ".")]
assert not any(name.partition(".")[0] == "lava" for name in sys.modules)
print(json.dumps(outcome))
"""

NEED_LAVA = ("delaynet_lava.lava",)
WORK_WITHOUT = {
    "delaynet_lava",
    "delaynet_lava.cli",
    "delaynet_lava.emulator",
    "delaynet_lava.export",
    "delaynet_lava.hw_profiles",
    "delaynet_lava.kernels.autograd",
    "delaynet_lava.kernels.events",
    "delaynet_lava.kernels.recurrence",
    "delaynet_lava.formats.model_file",
    "delaynet_lava.network",
    "delaynet_lava.formats.netx",
    "delaynet_lava.nn.model",
    "delaynet_lava.nn.recurrent",
    "delaynet_lava.tasks.cue",
    "delaynet_lava.trace",
    "delaynet_lava.training.trainer",
}


def test_without_lava_all_but_its_package_can_be_imported(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    outcome: dict[str, str] = json.loads(result.stdout)
    failed = {name: line for name, line in outcome.items() if line}
    assert set(outcome) - set(failed) >= WORK_WITHOUT
    assert set(failed) >= set(NEED_LAVA)
    for name, line in failed.items():
        assert name.startswith(NEED_LAVA), (name, line)
        assert "\n" not in line
        assert "cannot be imported" in line and "setup-lava" in line
