"""Runs commands that are killed at a random moment, many of them: processes forked from one that is ready.

A program of its own: ``python kill_tools.py`` imports everything once and takes one JSON line a run,
``[arguments, folder, seconds, group]``: it runs the command in the folder, kills it after so many seconds
(null: never), with all that it started where ``group`` is true, and answers with a JSON line: its exit code
(negative: the signal) and how long it ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def _serve() -> None:
    import torch  # noqa: F401

    from delaynet_lava import cli
    from delaynet_lava.analysis import report  # noqa: F401
    from delaynet_lava.export import export_netx  # noqa: F401
    from delaynet_lava.training import trainer  # noqa: F401

    for line in sys.stdin:
        arguments, folder, seconds, group = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.chdir(folder)
            log = os.open("../log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for number in (1, 2):
                os.dup2(log, number)
            code = 70
            try:
                cli.main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                os._exit(code)
        print(json.dumps([*_wait(child, started, seconds, group), time.monotonic() - started]), flush=True)


def _wait(child: int, started: float, seconds: float | None, group: bool) -> tuple[int]:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if seconds is not None and time.monotonic() - started >= seconds:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.0005)
    # What a command leaves behind when it alone is killed ends by itself, in its own time.
    deadline = time.monotonic() + 60
    while _alive(child):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    return (os.waitstatus_to_exitcode(status),)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Killer:
    """The program, from the side that asks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: list[Any], folder: Path, seconds: float | None = None, group: bool = False
    ) -> tuple[int, float]:
        """Exit code (negative: the signal that ended it), and the seconds it ran."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = json.dumps([[str(a) for a in arguments], str(folder), seconds, group])
        print(line, file=self._process.stdin, flush=True)
        code, took = json.loads(self._process.stdout.readline())
        return code, took

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


if __name__ == "__main__":
    _serve()
