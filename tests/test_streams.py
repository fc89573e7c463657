"""What a command does where its output can't be written, or its paths can't be shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import delaynet_lava.cli.profiles
from delaynet_lava import cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="about descriptors of Unix")
DELAYNET = f"{sys.executable} -m delaynet_lava"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("bash") or "/bin/bash", "-c", line]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def net(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from delaynet_lava.export import export_netx

    path = tmp_path_factory.mktemp("net") / "net.h5"
    export_netx(str(repository / "delaynet_lava" / "models" / "cue_loihi2.pt"), str(path))
    return path


@pytest.mark.parametrize(
    ("where", "code", "reason"),
    [
        ("> /dev/full", 2, "stdout cannot be written (No space left on device)"),
        (">&-", 2, "stdout cannot be written (Bad file descriptor)"),
        ("2>&- > /dev/null", 0, ""),
        ("<&- > /dev/null", 0, ""),
    ],
)
def test_output_that_is_lost_is_said_in_one_line_and_files_are_written(net, tmp_path, where, code, reason):
    result = shell(f"{DELAYNET} run {net} --samples 1 --json figures.json {where}", tmp_path)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr == (f"delaynet: {reason}\n" if reason else "")
    assert (tmp_path / "figures.json").read_text().startswith("{")


def test_a_closed_pipe_is_no_verdict(net, tmp_path):
    line = f"{DELAYNET} inspect {net} --json figures.json | true; echo ${{PIPESTATUS[0]}}"
    result = shell(line, tmp_path)
    assert (result.stdout, result.stderr) == (f"{cli.streams.PIPE_CLOSED}\n", "")
    assert (tmp_path / "figures.json").exists()


def test_what_should_not_happen_is_no_verdict_either(monkeypatch, capsys):
    def fail(*_, **__):
        raise KeyError("a fault\nof ours")

    monkeypatch.setattr(delaynet_lava.cli.profiles, "lines", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["profiles"])
    said = capsys.readouterr().err
    assert ended.value.code == cli.FAULT and said.count("\n") == 1
    assert "KeyError in profiles.py" in said and "Traceback" not in said
    with pytest.raises(SystemExit):
        cli.main(["profiles", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_paths_that_are_not_utf8_are_shown_and_written(net, tmp_path):
    name = os.fsencode(tmp_path) + b"/n\xff\xe4t.h5"
    try:
        shutil.copy(net, os.fsdecode(name))
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    for arguments in (
        ["run", name, "--samples", "1", "--json", tmp_path / "run.json"],
        ["inspect", name, "--html", tmp_path / "page.html", "--json", tmp_path / "inspect.json"],
        ["evaluate", name, "--samples", "1", "--json", tmp_path / "evaluate.json"],
    ):
        command = [sys.executable, "-m", "delaynet_lava", *arguments]
        result = subprocess.run(command, capture_output=True, timeout=300)
        assert (result.returncode, result.stderr) == (0, b""), arguments
        assert b"\\udcff" in result.stdout
    assert "\\udcff" in (tmp_path / "page.html").read_text("utf-8")
