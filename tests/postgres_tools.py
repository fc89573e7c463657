"""A real PostgreSQL of a test's own: on loopback, in a temporary directory, stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "not/shown@anywhere"
QUOTED = "not%2Fshown%40anywhere"


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


def _as_whom() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; Debian's package makes a user for it."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@dataclass
class Server:
    """A server that runs. ``url`` holds the password."""

    url: str
    port: int
    programs: Path
    data: Path

    def stop(self) -> None:
        """End it at once; a second time does nothing."""
        command = [str(self.programs / "pg_ctl"), "-D", str(self.data), "-m", "immediate", "-w", "stop"]
        subprocess.run(command, cwd="/", capture_output=True, timeout=300, **_as_whom())


def _run(*command: str, **more: Any) -> None:
    done = subprocess.run(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **more
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"


@contextmanager
def postgresql() -> Iterator[Server]:
    """A server, or the test is skipped where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not installed")
    whom = _as_whom()
    if whom:
        import pwd

        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    # pytest's own directories are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="delaynet-postgresql-"))
    data, secret = folder / "data", folder / "password"
    server = None
    try:
        secret.write_text(PASSWORD + "\n")
        if whom:
            for path in (folder, secret):
                shutil.chown(path, whom["user"], whom["group"])
        _run(
            str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "scram-sha-256",
            f"--pwfile={secret}", "--no-locale", "-E", "UTF8", "--no-sync", **whom,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = (
            f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        )
        server = Server(f"postgresql://tester:{QUOTED}@127.0.0.1:{port}/postgres", port, programs, data)
        _run(
            str(programs / "pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-o", settings, "-w",
            "start", **whom,
        )  # fmt: skip
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
