"""``delaynet setup-lava`` and ``delaynet doctor``: what they install, what they say of a machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from delaynet_lava import cli, installation
from delaynet_lava.errors import InputError
from delaynet_lava.installation import WHEELS, Ability, abilities, install_lava

needs_slayer = pytest.mark.skipif(
    importlib.util.find_spec("lava") is None or importlib.util.find_spec("lava.lib") is None,
    reason="lava-dl is not installed",
)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch):
    """Commands that would have been run, with the text of the requirements file that they name."""
    calls: list[tuple[list[str], str]] = []
    answer = SimpleNamespace(returncode=0, stderr="")

    def run(command: list[str], **options: object) -> SimpleNamespace:
        text = Path(command[-1]).read_text() if "-r" in command else ""
        calls.append((command, text))
        return answer

    monkeypatch.setattr(installation.subprocess, "run", run)
    monkeypatch.setattr(installation, "version", lambda package: None)
    return SimpleNamespace(calls=calls, answer=answer)


def test_the_wheels_are_installed_by_hash_and_without_what_they_ask_for(pip) -> None:
    assert install_lava() == ["lava-nc 0.10.0", "lava-dl 0.6.0"]
    (needed, _), (wheels, text) = pip.calls
    names = {word.partition(">")[0] for word in needed}
    assert {"asteval", "networkx", "scikit-learn", "scipy", "setuptools"} <= names
    assert {"--no-deps", "--ignore-requires-python"} <= set(wheels)
    assert text.splitlines() == [f"{w.package}=={w.version} --hash=sha256:{w.sha256}" for w in WHEELS]
    assert all(command[:4] == [sys.executable, "-m", "pip", "install"] for command, _ in pip.calls)
    assert not any(word.startswith(("torch", "opencv")) for command, _ in pip.calls for word in command)


def test_what_is_there_is_left_as_it_is(pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "version", {w.package: w.version for w in WHEELS}.get)
    assert install_lava() == [] and pip.calls == []
    monkeypatch.setattr(installation, "version", {"lava-nc": "0.9.0", "lava-dl": "0.6.0"}.get)
    assert install_lava() == ["lava-nc 0.10.0"]


def test_a_pip_that_fails_is_one_line_with_the_command(pip) -> None:
    pip.answer.returncode, pip.answer.stderr = 1, "WARNING: slow\nERROR: THESE PACKAGES DO NOT MATCH\nmore"
    with pytest.raises(InputError, match=r"failed: ERROR: THESE.*run it by hand: .*pip install"):
        install_lava()


def test_another_python_is_refused(pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 14, 0))
    with pytest.raises(InputError, match=r"3\.10 to 3\.13"):
        install_lava()
    assert pip.calls == []


def test_a_missing_backend_is_said_with_the_line_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    found = [
        Ability("emulator", True, "any"),
        Ability("Lava's simulator", False, "no lava", "delaynet setup-lava"),
    ]
    monkeypatch.setattr(installation, "abilities", lambda: iter(found))
    monkeypatch.setattr(installation, "self_test", lambda: pytest.fail("nothing to test"))
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--test"])
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert err == "delaynet doctor: Lava's simulator: no lava; delaynet setup-lava\n"
    assert "lava-nc" in out and "mend" in out


def test_an_import_that_fails_in_any_way_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr(installation, "_TRIALS", (("eyes", broken, "pip install eyes"),))
    assert list(abilities()) == [
        Ability("eyes", False, "operator torchvision::nms does not exist", "pip install eyes")
    ]


@needs_slayer
def test_doctor_tests_a_network_that_spikes_where_lava_is_installed(tmp_path: Path) -> None:
    report = tmp_path / "doctor.json"
    command = [sys.executable, "-m", "delaynet_lava", "doctor", "--test", "--json", str(report)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    assert len([line for line in result.stdout.splitlines() if line.startswith("0 mismatches")]) == 2
    content = json.loads(report.read_text())
    assert all(content["abilities"][what]["works"] for what in installation.REQUIRED)
    states = {name: mend["state"] for name, mend in content["mends"].items()}
    assert set(states.values()) <= {"active", "not needed", "waiting"}
    assert (states["byte encoder with a hash"] == "active") == (sys.version_info >= (3, 11))
    test = content["test"]
    assert test["agree"] and test["lava"]["compared"] > 10_000
    assert all(layer["spikes"] > 20 for layer in test["layers"] if layer["what"] == "spikes")
