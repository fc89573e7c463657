"""Replacing a file as a whole: afterwards it holds the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from delaynet_lava.errors import InputError

__all__ = ["replace_file"]


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Write ``content`` to a new file in the same directory, sync it, and rename it to ``path``.

    A symbolic link is followed: the file it names is replaced. The new file has the permissions
    that the process's umask gives.

    Raises:
        InputError: the place can't be written, or holds something other than a plain file;
            whatever was there is untouched, and no temporary file remains.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".delaynet-{secrets.token_hex(8)}.tmp")
    try:
        if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
            raise InputError(str(path), "exists and is not a plain file", "choose another place")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            handle = os.open(temporary, flags, 0o666)
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(str(path), f"cannot be written ({reason})", "choose another place") from error
    _sync_directory(os.path.dirname(target))


def _sync_directory(path: str) -> None:
    # The file is complete either way; some file systems do not take fsync on a directory.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
