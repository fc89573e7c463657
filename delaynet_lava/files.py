"""Reading a plain file, and replacing one as a whole: it holds the old content or the new, never a part.

What is not yet whole stands beside it under a name of our own, locked for as long as its writer lives. What a
killed one left is removed by the next that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from delaynet_lava.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["read_file", "replace_file", "temporary_folder"]

_OURS = re.compile(r"\.delaynet-[0-9a-f]{16}\.tmp")
_TRIES = 8


def read_file(path: str | os.PathLike, limit: int, remedy: str = "check the path") -> bytes:
    """The content of a plain file; symbolic links are followed, and a pipe is not waited for.

    Raises:
        InputError: missing, not a plain file, empty, larger than ``limit`` bytes, or unreadable.
    """
    name = os.fspath(path)
    try:
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a plain file"
                raise InputError(str(name), f"is {kind}", remedy)
            if not 0 < status.st_size <= limit:
                raise InputError(str(name), f"has {status.st_size} bytes, expected 1 to {limit}")
            with open(handle, "rb", closefd=False) as file:
                return file.read(status.st_size)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise InputError(str(name), "does not exist", "check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(str(name), f"cannot be read ({reason})") from error


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Write ``content`` to a new file in the same directory, sync it, and rename it to ``path``.

    A symbolic link is followed: the file it names is replaced. The new file has the permissions
    that the process's umask gives.

    Raises:
        InputError: the place can't be written, or holds something other than a plain file;
            whatever was there is untouched, and no temporary file remains.
    """
    try:
        target = os.path.realpath(path)
        folder = os.path.dirname(target)
        if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
            raise InputError(str(path), "exists and is not a plain file", "choose another place")
        _remove_abandoned(folder)
        temporary, handle = _create(folder)
        try:
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                # Renamed before the lock goes with the file.
                os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except (OSError, ValueError) as error:  # the latter for a path that none can be
        reason = getattr(error, "strerror", None) or error
        raise InputError(str(path), f"cannot be written ({reason})", "choose another place") from error
    _sync_directory(folder)


@contextlib.contextmanager
def temporary_folder(beside: str | os.PathLike) -> Iterator[Path]:
    """A new folder in the same directory as ``beside``, to be filled and renamed; else it is removed.

    Raises:
        OSError: it can't be made.
    """
    folder = os.path.dirname(os.path.abspath(beside))
    os.makedirs(folder, exist_ok=True)
    _remove_abandoned(folder)
    temporary, handle = _create(folder, directory=True)
    try:
        yield Path(temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _create(folder: str, directory: bool = False) -> tuple[str, int]:
    """A new, locked file or folder, and its descriptor."""
    for _ in range(_TRIES):
        path = os.path.join(folder, f".delaynet-{secrets.token_hex(8)}.tmp")
        if directory:
            os.mkdir(path)
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # removed already, see below
                continue
        else:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl is None:
            return path, handle
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Another process may have taken it for abandoned before it was locked.
        if os.path.lexists(path):
            return path, handle
        os.close(handle)
    raise OSError(errno.EBUSY, f"{path} is removed by somebody as soon as it is there")


def _remove_abandoned(folder: str) -> None:
    """Remove what this user's killed processes left: it has a name of ours, and nobody holds its lock."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        for path in [entry.path for entry in entries if _OURS.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    found = os.lstat(path)
    plain, directory = stat.S_ISREG(found.st_mode), stat.S_ISDIR(found.st_mode)
    if found.st_uid != os.geteuid() or not (plain or directory):
        return
    handle = os.open(path, (os.O_RDWR if plain else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if directory:
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    finally:
        os.close(handle)


def _sync_directory(path: str) -> None:
    # The file is complete either way; some file systems do not take fsync on a directory.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
