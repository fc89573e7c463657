"""What killed writers leave is removed by the next one, and what living ones hold is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from delaynet_lava.files import replace_file, temporary_folder

fcntl = pytest.importorskip("fcntl", reason="no locks of files here")

# Holds an unfinished file and an unfinished folder until it is killed.
WRITER = """
import os, sys
from delaynet_lava.files import _create, temporary_folder
path, handle = _create(sys.argv[1])
os.write(handle, b"half")
with temporary_folder(sys.argv[1] + "/bundle") as folder:
    (folder / "part").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def unfinished(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(".delaynet-*.tmp")}


def test_what_a_living_writer_holds_stays_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        held = unfinished(tmp_path)
        assert len(held) == 2
        replace_file(tmp_path / "file", b"1")
        assert unfinished(tmp_path) == held
        writer.kill()
    replace_file(tmp_path / "file", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_our_own_names_and_plain_files_are_removed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    kept = [".delaynet-0123456789abcdeg.tmp", ".delaynet-0123456789abcdef.tmp.txt", "delaynet.tmp"]
    for name in kept:
        (tmp_path / name).write_text("somebody's")
    (tmp_path / ".delaynet-0000000000000001.tmp").symlink_to(other)
    os.mkfifo(tmp_path / ".delaynet-0000000000000002.tmp")
    (tmp_path / ".delaynet-0000000000000003.tmp").write_text("ours")
    replace_file(tmp_path / "file", b"1")
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {*kept, ".delaynet-0000000000000001.tmp", ".delaynet-0000000000000002.tmp"}
    assert ".delaynet-0000000000000003.tmp" not in names and other.read_text() == "kept"


def test_many_writers_in_one_folder_lose_nothing(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for k in range(60):
                replace_file(tmp_path / name, f"{name} {k}".encode() * 1000)
                with temporary_folder(tmp_path / "x") as folder:
                    (folder / "part").write_text(name)
                    assert (folder / "part").read_text() == name
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"file-{k % 5}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert {path.name for path in tmp_path.iterdir()} == {f"file-{k}" for k in range(5)}
