"""Where commands run: this machine, or a front node over ssh with the user's own ssh configuration."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.files import temporary_folder

__all__ = ["Answer", "ConnectionLost", "Host", "Local", "Ssh", "host_of"]

NOT_RUN, NOT_FOUND = 126, 127  # a shell's exit codes for a command that can't be run, or isn't there
LOST = 255  # ssh's own exit code
JOBS = "delaynet-jobs"

_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?"
_NAME = re.compile(_USER + r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_IPV6 = re.compile(rf"({_USER})(\[)?([0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?(2)\])")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# scp has two protocols, and one of them hands the far side's name to a shell: only what no shell and no
# pattern touches is passed to it.
_FAR_FOLDER = re.compile(r"/[A-Za-z0-9._/+@=,-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Fixed texts for the far side's `sh -c`. What varies comes as $1, $2, ... and is never part of the text.
_MAKE = f'umask 077; cd && mkdir -p {JOBS} && cd {JOBS} && mkdir -- "$1" && pwd -P'
_FINISH = 'cd -- "$1" && if test -e "$3"; then exit 3; else mv -- "$2" "$3"; fi'
_WHICH = 'cd -- "$1" || exit 1; shift; for f do if test -f "$f"; then echo "$f"; fi; done'


class Answer(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last line of what it said on stderr; its exit code where it said nothing."""
        return self.complaints[-1] if self.complaints else f"exit code {self.code}"

    @property
    def complaints(self) -> list[str]:
        """The lines of what it said on stderr, with ``?`` for what a terminal would obey."""
        lines = ("".join(c if c.isprintable() else "?" for c in line) for line in self.err.splitlines())
        return [line.strip() for line in lines if line.strip()]


class ConnectionLost(DelayNetError):
    """A command's answer never came; whether the command ran there is not known."""

    def __init__(self, host: str, reason: str) -> None:
        remedy = "" if host == Local.name else f"; see that `ssh {host} true` works, then try again"
        super().__init__(f"{host}: no answer ({reason}){remedy}")


class Host(Protocol):
    """A machine that runs commands and holds files.

    Attributes:
        name: "this machine", or the destination that was given to ssh.
    """

    name: str

    def run(
        self,
        argv: Sequence[str],
        input: bytes = b"",
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run a command; every argument arrives as it is, whatever characters it has.

        Args:
            argv: the command and its arguments. One that is not there answers with code 127.
            input: what it reads.
            timeout_s: after this many seconds it is ended (over ssh: no longer waited for).
            env: variables to set beside those that are there.

        Raises:
            ConnectionLost: no answer in time, or ssh lost or never had a connection. A command that
                exits with 255 over ssh can't be told from that.
            InputError: ssh is not installed here, or an argument holds a NUL character.
        """
        ...

    def place(self, folder: Path, name: str) -> str:
        """Make the files of a local folder available there.

        On this machine nothing is copied. Over ssh they go to ``delaynet-jobs/NAME`` in the home there:
        complete, or not at all.

        Args:
            folder: holds plain files only, named with letters, digits, ``.``, ``_`` and ``-``.
            name: of the folder there, of the same characters.

        Returns:
            The folder's absolute path there.

        Raises:
            ConnectionLost: as for ``run``.
            InputError: a name or a file that can't be sent, a NAME that is already there, no room.
        """
        ...

    def collect(self, there: str, names: Sequence[str], folder: Path) -> list[str]:
        """Copy files from the folder ``there`` into a local folder, each one complete or not at all.

        Returns:
            The names that were there, in the order asked for; the others are no error.

        Raises:
            ConnectionLost: as for ``run``.
            InputError: a name with other characters than ``place`` allows, or no such folder.
        """
        ...


class Local:
    """This machine."""

    name = "this machine"

    def run(
        self,
        argv: Sequence[str],
        input: bytes = b"",
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        """See ``Host``."""
        try:
            return _execute(argv, input, timeout_s, env)
        except FileNotFoundError:
            return Answer(NOT_FOUND, "", f"{argv[0]}: command not found")
        except OSError as error:
            return Answer(NOT_RUN, "", f"{argv[0]}: {error.strerror}")
        except subprocess.TimeoutExpired:
            raise ConnectionLost(self.name, f"{argv[0]} took longer than {timeout_s:g} s") from None

    def place(self, folder: Path, name: str) -> str:
        """See ``Host``."""
        _check_file_name(name)
        _plain_files(folder)
        return str(folder.resolve())

    def collect(self, there: str, names: Sequence[str], folder: Path) -> list[str]:
        """See ``Host``."""
        source = Path(there)
        if not source.is_dir():
            raise InputError(there, "no such folder")
        found = [name for name in map(_check_file_name, names) if (source / name).is_file()]
        if not source.samefile(folder):
            with temporary_folder(folder / "results") as temporary:
                for name in found:
                    shutil.copyfile(source / name, temporary / name)
                _move(temporary, found, folder)
        return found


class Ssh:
    """A front node over ssh and scp, as the user's own ssh configuration reaches it; never a password.

    The environment variable ``DELAYNET_SSH`` may name another configuration file.

    Args:
        destination: ``host``, ``user@host``, an alias of the configuration, or an IPv6 address.

    Raises:
        InputError: anything else, such as what ssh could take for an option.
    """

    def __init__(self, destination: str) -> None:
        self.name = self._scp_name = destination
        if ipv6 := _IPV6.fullmatch(destination):
            user, _, address = ipv6.groups()
            self.name, self._scp_name = f"{user}{address}", f"{user}[{address}]"
        elif not _NAME.fullmatch(destination):
            raise InputError(
                "host",
                f"{destination!r} is not host, user@host or an IPv6 address",
                "a port or other options belong in your ~/.ssh/config, under an alias",
            )

    def run(
        self,
        argv: Sequence[str],
        input: bytes = b"",
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        """See ``Host``."""
        if env:
            for variable in env:
                if not _VARIABLE.fullmatch(variable):
                    raise InputError("environment", f"{variable!r} is no name of a variable")
            argv = ["env", *(f"{variable}={value}" for variable, value in env.items()), *argv]
        answer = self._client("ssh", ["-T", "--", self.name, shlex.join(argv)], input, timeout_s)
        if answer.code == LOST:
            raise ConnectionLost(self.name, answer.reason)
        return answer

    def place(self, folder: Path, name: str) -> str:
        """See ``Host``."""
        files = _plain_files(folder)
        temporary = f".{_check_file_name(name)}-{secrets.token_hex(4)}"
        made = self.run(["sh", "-c", _MAKE, "sh", temporary])
        home = made.out.rstrip("\n")
        if made.code:
            raise InputError(f"{self.name}:{JOBS}", f"can't be written ({made.reason})")
        try:
            self._scp([str(path) for path in files], self._far(f"{home}/{temporary}") + "/")
            moved = self.run(["sh", "-c", _FINISH, "sh", home, temporary, name])
            if moved.code:
                reason = "exists already" if moved.code == 3 else f"can't be written ({moved.reason})"
                raise InputError(f"{self.name}:{JOBS}/{name}", reason, "choose another name or remove it")
        except InputError:
            self.run(["rm", "-rf", "--", f"{home}/{temporary}"])
            raise
        return f"{home}/{name}"

    def collect(self, there: str, names: Sequence[str], folder: Path) -> list[str]:
        """See ``Host``."""
        names = [_check_file_name(name) for name in names]
        listed = self.run(["sh", "-c", _WHICH, "sh", there, *names])
        if listed.code:
            raise InputError(f"{self.name}:{there}", f"can't be read ({listed.reason})")
        there_now = set(listed.out.splitlines())
        found = [name for name in names if name in there_now]
        if found:
            with temporary_folder(folder / "results") as temporary:
                # The slash keeps scp from taking a colon in the local path for another host.
                self._scp([self._far(f"{there}/{name}") for name in found], f"{temporary.resolve()}/")
                _move(temporary, found, folder)
        return found

    def _far(self, path: str) -> str:
        if not _FAR_FOLDER.fullmatch(path):
            raise InputError(
                f"{self.name}:{path}",
                "scp does not carry every character of this path",
                "a home of letters, digits and ._+@=,- is needed there",
            )
        return f"{self._scp_name}:{path}"

    def _scp(self, sources: list[str], target: str) -> None:
        answer = self._client("scp", ["-B", "--", *sources, target], b"", None)
        if answer.code == LOST or re.search(r"connection|broken pipe|timed out", answer.err, re.IGNORECASE):
            raise ConnectionLost(self.name, answer.reason)
        if answer.code:
            raise InputError(f"{self.name}", f"scp failed ({answer.reason})")

    def _client(self, client: str, arguments: list[str], input: bytes, timeout_s: float | None) -> Answer:
        config = os.environ.get("DELAYNET_SSH")
        # A dropped connection is noticed after 45 silent seconds, also where nothing is being sent.
        options = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=3")
        argv = [client, *(["-F", config] if config else []), *(f"-o{option}" for option in options)]
        try:
            return _execute(argv + arguments, input, timeout_s, None)
        except subprocess.TimeoutExpired:
            raise ConnectionLost(self.name, f"nothing within {timeout_s:g} s") from None
        except OSError as error:
            reason = f"can't be started ({error.strerror})"
            raise InputError(client, reason, "install OpenSSH's client on this machine") from error


def host_of(destination: str | None) -> Host:
    """The host of a destination as ssh takes it; None is this machine.

    Raises:
        InputError: see ``Ssh``.
    """
    return Local() if destination is None else Ssh(destination)


def _execute(
    argv: Sequence[str], input: bytes, timeout_s: float | None, env: Mapping[str, str] | None
) -> Answer:
    if any("\0" in argument for argument in argv):
        raise InputError(argv[0], "an argument holds a NUL character")
    pipe = subprocess.PIPE
    variables = {**os.environ, **env} if env else None
    # In a session of its own, so that Ctrl-C reaches us only, and what the command started ends with it.
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=pipe, env=variables, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(input, timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _check_file_name(name: str) -> str:
    if not _FILE.fullmatch(name):
        raise InputError("file name", f"{name!r} has more than letters, digits, '.', '_' and '-'")
    return name


def _plain_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted; nothing but plain files may be in it."""
    try:
        paths = sorted(folder.resolve(strict=True).iterdir())
    except OSError as error:
        raise InputError(str(folder), f"can't be read ({error.strerror})") from error
    for path in paths:
        if not _FILE.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            raise InputError(str(path), "is not a plain file with a plain name", "send a folder without it")
    if not paths:
        raise InputError(str(folder), "holds no file")
    return paths


def _move(source: Path, names: Sequence[str], folder: Path) -> None:
    for name in names:
        os.replace(source / name, folder / name)
