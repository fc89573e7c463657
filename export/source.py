"""What people have when they come to export: a network in memory, or one of several kinds of file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from delaynet_lava.errors import InputError, reason
from delaynet_lava.export.extract import extract
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import ModelFile, load_model, load_tensors
from delaynet_lava.named_code import load_named
from delaynet_lava.network import Network

__all__ = ["model_of", "network_of"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


def network_of(source: Any, code: str | None = None) -> tuple[Network, str]:
    """The integers of whatever holds a network, and what errors should call it.

    Args:
        source: a :class:`Network`, a torch module or list of blocks, a :class:`ModelFile`, or the path of a
            ``model.pt``, of a NetX file, or, with ``code``, of a bare ``state_dict``.
        code: ``file.py:Name`` or ``package.module:Name`` of the class (or function) that makes the torch
            network of a ``state_dict``. It is run; nothing in the file is.

    Raises:
        InputError: what is given can't be read or can't run on a chip, with what to do instead.
    """
    if isinstance(source, Network):
        return source, "network"
    if isinstance(source, ModelFile):
        return extract(source), "model"
    if not isinstance(source, (str, os.PathLike)):
        from delaynet_lava.nn.model import describe  # brings the blocks; files do without

        return extract(describe(source)), "model"
    name = os.fspath(source)
    if code is not None:
        from delaynet_lava.nn.model import describe

        return extract(describe(_with_state(name, code)), name), name
    if _is_hdf5(name):
        return netx.read(name), name
    return extract(load_model(name), name), name


def model_of(path: str, code: str | None = None) -> tuple[Any, Network]:
    """The torch network of a ``model.pt``, or with ``code`` of a bare ``state_dict``, and its integers.

    Raises:
        InputError: as :func:`network_of`; or a file of integers, which holds no torch network.
    """
    from delaynet_lava.nn.model import build, describe

    if code is not None:
        model = _with_state(path, code)
        return model, extract(describe(model), path)
    if _is_hdf5(path):
        raise InputError(
            path,
            "holds the integers of a network, and no model to compare them with",
            "give the model.pt that it was made of, or compare executions with: delaynet run --check",
        )
    file = load_model(path)
    return build(file), extract(file, path)


def _is_hdf5(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_HDF5)) == _HDF5
    except OSError:
        return False


def _with_state(path: str, code: str) -> Any:
    """The torch network that ``code`` makes, with the tensors of a bare ``state_dict``."""
    from delaynet_lava.nn.model import load_state

    content = load_tensors(path)
    # Trainers keep it beside an epoch and an optimiser.
    state = next((content[key] for key in ("state_dict", "model_state_dict") if key in content), content)
    made = load_named(code, "--network")
    try:
        network = made if isinstance(made, torch.nn.Module) else made()
    except Exception as error:  # the user's own code may raise anything
        raise InputError(
            f"--network {code}",
            f"can't be made without arguments ({reason(error)})",
            "name a function without arguments that makes it",
        ) from error
    load_state(network, state, path)
    return network
