"""The network of integers that a command runs: of a net.h5, or of a model.pt, shipped ones included."""

from __future__ import annotations

from pathlib import Path

from delaynet_lava.formats import netx
from delaynet_lava.models import PREFIX
from delaynet_lava.network import Network

__all__ = ["NET", "open_network"]

NET = "A net.h5, or a model.pt, whose integers are the same; model:NAME is one that comes with the package."


def open_network(word: str) -> Network:
    """The integers that a file holds.

    Args:
        word: path of a ``net.h5`` or a ``model.pt``, or ``model:NAME``.

    Raises:
        InputError: no such file or name, or a damaged one.
    """
    if word.startswith(PREFIX) or _is_archive(word):
        from delaynet_lava.export.source import network_of  # brings torch, which a net.h5 does without

        return network_of(word)[0]
    return netx.read(word)


def _is_archive(path: str) -> bool:
    """Whether a plain file begins as torch's archives do; what is wrong with a path, its reader says."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except (OSError, ValueError):
        return False
