"""A minute of hostile input for every reader; ``python tests/fuzz --help`` goes on for hours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from harness import Target, run
from targets import TARGETS

from delaynet_lava.errors import InputError

CASES = 200


def test_hostile_input(tmp_path: Path) -> None:
    # In a process of its own: the harness forks, which in one as large as this takes minutes.
    program = [sys.executable, str(Path(__file__).parent / "fuzz"), "--cases", str(CASES * len(TARGETS))]
    options = ["--seed", "1", "--json", "found.json"]
    done = subprocess.run([*program, *options], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    readers = json.loads((tmp_path / "found.json").read_text())["readers"]
    assert set(readers) == set(TARGETS)
    for name, found in readers.items():
        assert found["faults"] == []
        assert found["read"] + found["refused"] == CASES
        # Cases that are all refused at the door would show nothing.
        assert found["read"] > 0 and found["messages"] > 5, name


def test_every_kind_of_fault_is_seen(tmp_path: Path) -> None:
    """The harness against a reader that does all that a reader must not do."""

    def read(number: int) -> None:
        if number == 1:
            raise ValueError("not one of ours")
        if number == 2:
            while True:
                pass
        if number == 3:
            os.system("true")
        if number == 4:
            error = InputError("a", "b")
            error.args = ("x" * 401,)
            raise error
        if number == 5:
            error = InputError("a", "b")
            error.args = ("\x1b[2J",)
            raise error
        if number == 6:
            os.kill(os.getpid(), 9)
        if number == 7:
            (tmp_path / "written").write_text("by the case")
        if number == 8:
            bytearray(1 << 34)
        if number == 9:
            raise InputError("file", "is refused")

    state: dict[str, int] = {}

    def case(_: Any, rng: Any) -> bytes:
        state["number"] = state.get("number", -1) + 1
        return b"%d" % state["number"]

    target = Target("planted", lambda folder: None, case, lambda _: read(state["number"]))
    found = run(target, 6, keep=tmp_path / "kept")
    said = "\n".join(found.faults)
    for words in ("ValueError: not one of ours", "takes more than 2.0 s", "os.system", "of 401", "\\x1b[2J"):
        assert words in said, said
    state["number"] = 5
    assert "ends the process with signal 9" in run(target, 1).faults[0]
    state["number"] = 6
    found = run(target, 3)
    assert "did more than read: open" in found.faults[0] and "MemoryError" in found.faults[1]
    assert found.refused == 1 and len(found.faults) == 2
    assert len(list((tmp_path / "kept").iterdir())) == 5
