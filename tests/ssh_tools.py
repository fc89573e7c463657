"""A real sshd of a test's own on loopback, with keys, home and configuration in a temporary directory."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from slurm_tools import free_port, kill, marked, start, wait_for

ALIAS = "frontnode"
SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
PidFile none
MaxStartups 100
# A tenth of the default's work for each connection.
KexAlgorithms curve25519-sha256
Subsystem sftp internal-sftp
SetEnv {env}
"""
SSH_CONFIG = """\
Host {alias}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


class FrontNode:
    """A running sshd.

    Attributes:
        alias: the destination to give to ssh.
        env: ``DELAYNET_SSH``, with the configuration that knows the alias.
        home: the home of whoever logs in.
        folder: its configuration, keys and log.
        port: where it listens.
    """

    alias = ALIAS

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.env = {"DELAYNET_SSH": str(folder / "ssh_config")}
        self.port = free_port()
        self._mark = f"HOME={self.home}\0"
        self._server: subprocess.Popen | None = None
        for key in ("host_key", "user_key"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(folder / key)]
            subprocess.run(make, check=True)
        host_key = (folder / "host_key.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        # sshd takes the first SetEnv only: all variables are on one line.
        variables = " ".join(f'"{key}={value}"' for key, value in {"HOME": str(self.home), **env}.items())
        fields = {"port": self.port, "folder": folder, "alias": ALIAS, "user": getpass.getuser()}
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(env=variables, **fields))
        (folder / "ssh_config").write_text(SSH_CONFIG.format(**fields))

    def start(self) -> None:
        """Take connections."""
        # By its full name: sshd starts itself again for each connection.
        argv = [str(shutil.which("sshd")), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._server = server = start(argv, self.folder / "sshd.log")

        def listens() -> bool:
            if server.poll() is not None:
                raise RuntimeError(f"sshd ended: {(self.folder / 'sshd.log').read_text()}")
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, "sshd")

    def drop(self) -> None:
        """Cut every open connection, and take new ones."""
        kill(self._connections())

    def stop(self) -> None:
        """Cut every open connection, and refuse new ones."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)  # no new connection while the old ones are cut
            self.drop()
            self._server.kill()
            self._server.wait()
            self._server = None

    def end(self) -> None:
        """Stop, and kill what the sessions left running, so far as it still has their environment."""
        self.stop()
        kill(marked(self._mark))

    def _connections(self) -> list[int]:
        """The processes of sshd's open connections; not the commands that run in them."""
        parents = [self._server.pid] if self._server else []
        found: list[int] = []
        while parents:
            listed = subprocess.run(
                ["pgrep", "--exact", "sshd", "--parent", ",".join(map(str, parents))],
                capture_output=True, text=True,
            )  # fmt: skip
            parents = [int(pid) for pid in listed.stdout.split()]
            found += parents
        return found


def missing() -> str | None:
    """Why no sshd can be started here; None where one can."""
    absent = [name for name in ("sshd", "ssh", "scp", "ssh-keygen", "setpriv") if not shutil.which(name)]
    if absent:
        return f"needs openssh-server and openssh-client ({', '.join(absent)} not found)"
    return None if os.geteuid() == 0 else "needs root to start sshd"


@contextlib.contextmanager
def front_node(env: Mapping[str, str] | None = None) -> Iterator[FrontNode]:
    """A host to reach over ssh as ``frontnode``, for the time of a ``with`` block.

    Where it can't be started the test is skipped.

    Args:
        env: variables of whoever logs in, such as ``PATH`` or ``SLURM_CONF``.
    """
    if reason := missing():
        pytest.skip(reason)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
    folder = Path(tempfile.mkdtemp(prefix="delaynet-ssh-"))
    made = FrontNode(folder, env or {})
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)
