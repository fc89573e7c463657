"""What a command does where its output can't be written, or its paths can't be shown."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
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


# ------------------------------------------------------------------ a terminal


def on_a_terminal(folder: Path, *words: str, columns: int = 80, stdout: Path | None = None) -> str:
    """All that a command writes to a terminal, cursor movements included.

    Args:
        stdout: the file that gets what is printed, so that stderr alone is the terminal's.
    """
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "TERM")}
    with contextlib.ExitStack() as stack:
        out = its if stdout is None else stack.enter_context(stdout.open("wb"))
        running = subprocess.Popen(
            [sys.executable, "-m", "delaynet_lava", *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=its, cwd=folder, env={**variables, "TERM": "xterm"},
        )  # fmt: skip
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
        while part := os.read(mine, 1 << 16):
            shown += part
    os.close(mine)
    assert running.wait(60) == 0, shown.decode()
    return shown.decode()


def lines_left(shown: str) -> list[str]:
    """What stands on the screen in the end: a line that was erased or written over is gone."""
    rows, row = [""], 0
    for mark, text in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", shown):
        if mark == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif mark.endswith("A"):
            row -= int(mark[2:-1] or 1)
        elif mark.endswith("K"):
            rows[row] = ""
        elif text:
            rows[row] += text
    return [one for one in rows if one.strip()]


def test_training_shows_how_far_it_is_on_a_terminal_and_nothing_of_it_in_a_pipe(tmp_path):
    train = ["train", "cue:cues=1,wait_ms=150", "--recipe", "smoke", "-o", "m.pt"]
    # Where a loop is compiled first, a line names a folder as long as it is.
    on_a_terminal(tmp_path, *train[:-1], "before.pt")
    shown = on_a_terminal(tmp_path, *train)
    assert "\u2501" in shown and "0/2" in shown and "2/2" in shown
    assert re.search(r"epoch \d+, \d+ s left", shown)
    left = lines_left(shown)
    assert not any("\u2501" in line for line in left), left  # the bar is gone when it is over
    assert max(map(len, left)) <= 80
    epochs = [line for line in left if line.startswith("epoch ")]
    assert len(epochs) >= 2 and any(line.startswith("model") for line in left)
    # Into a file goes what is printed, all of it, and the bar stays on the terminal.
    again = [*train, "--force"]
    shown = on_a_terminal(tmp_path, *again, stdout=tmp_path / "log.txt")
    assert "\u2501" in shown and "epoch 1: cue" not in shown
    log = (tmp_path / "log.txt").read_text()
    assert len(re.findall("^epoch ", log, re.M)) == len(epochs) and "validation accuracy" in log
    # In a pipe there is none, also where a notebook says that it has colours.
    piped = shell(f"FORCE_COLOR=1 {DELAYNET} {' '.join(again)}", tmp_path)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "\u2501" not in piped.stdout and "\x1b" not in piped.stdout
    assert len(re.findall("^epoch ", piped.stdout, re.M)) == len(epochs)
