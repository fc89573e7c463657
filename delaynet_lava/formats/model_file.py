"""``model.pt``: a trained model as tensors and plain values; opening one never runs code.

A dict of ``format``, ``version``, ``config``, ``state_dict`` and ``provenance``, written with
``torch.save`` and read by :mod:`delaynet_lava.formats.untrusted_torch`. Training and export meet here, and
only here. ``sha256`` beside them is the hash of the rest (:mod:`delaynet_lava.formats.content_hash`), checked
when the file is read.

``config`` is ``{"layers": [{"type": ..., ...}, ...], "task": {...}, "dt_ms": 1.0}``, and ``"decision"``, the
text of a :class:`~delaynet_lava.decision.Decision`, where the network answers in its own way. The tensors
of layer i start with ``"i."`` in ``state_dict``. The entries of a layer are those that
:mod:`delaynet_lava.nn.model` writes.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from delaynet_lava.errors import InputError, shown
from delaynet_lava.files import read_file, replace_file
from delaynet_lava.formats.content_hash import KEY, NoHashWarning, Seal, hash_of
from delaynet_lava.formats.untrusted_torch import MAX_BYTES, TorchFormatError, read_torch
from delaynet_lava.models import located

__all__ = ["ModelFile", "load_model", "load_tensors", "require_plain", "save_model", "seal", "write_tensors"]

FORMAT, VERSION = "delaynet_lava.model", 1


@dataclass(frozen=True)
class ModelFile:
    """Content of a ``model.pt``.

    Attributes:
        config: layers, task, time step.
        state_dict: tensors by name.
        provenance: command, seed, versions, figures.
    """

    config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)


def write_tensors(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values with its hash, as a whole or not at all.

    Raises:
        InputError: the place can't be written, or :func:`load_tensors` would refuse the file.
    """
    try:
        # The hash is that of what will be read: to the reader a parameter is a tensor, a buffer of a
        # module a dict.
        plain = read_torch(_saved(content))
        image = _saved({**content, KEY: _hash(plain)})
        read_torch(image)
    except TorchFormatError as error:
        raise InputError(str(path), f"was not written: it {error.problem}", error.remedy) from error
    replace_file(path, image)


def _saved(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _hash(content: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            # NumPy has no bfloat16; float64 holds each of its values.
            return (value.to(torch.float64) if value.is_floating_point() else value).numpy()
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, list | tuple) else value

    return hash_of({key: plain(value) for key, value in content.items() if key != KEY})


def save_model(path: str | os.PathLike, model: ModelFile) -> None:
    """Write a ``model.pt``.

    Raises:
        InputError: the place can't be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": model.config,
        "state_dict": {k: v.detach().cpu().contiguous() for k, v in model.state_dict.items()},
        "provenance": model.provenance,
    }
    write_tensors(path, content)


def _read(path: str | os.PathLike) -> dict[str, Any]:
    where = str(path)
    try:
        content = read_torch(read_file(located(path), MAX_BYTES, "give the path of a model.pt"))
    except TorchFormatError as error:
        raise InputError(where, error.problem, error.remedy) from error
    if not isinstance(content, dict):
        raise InputError(where, f"holds a {type(content).__name__}, expected a dict")
    return content


def _ours(content: dict[str, Any]) -> bool:
    name = content.get("format")
    return isinstance(name, str) and name.startswith("delaynet_lava.")


def _seal(content: dict[str, Any], where: str) -> Seal:
    stated = content.get(KEY)
    if stated is not None and not isinstance(stated, str):
        raise InputError(where, f"key {KEY!r} is a {type(stated).__name__}, expected a text")
    return Seal(stated, _hash(content))


def _require_whole(content: dict[str, Any], where: str) -> None:
    note = _seal(content, where).require(where)
    if note:
        warnings.warn(note, NoHashWarning, stacklevel=3)


def seal(path: str | os.PathLike) -> tuple[Seal, str]:
    """The hash that a torch file states, the one it has, and what the file is ("" where not one of ours).

    Raises:
        InputError: it can't be read.
    """
    content = _read(path)
    return _seal(content, str(path)), content["format"] if _ours(content) else ""


def load_tensors(path: str | os.PathLike) -> dict[str, Any]:
    """A dict of tensors and plain values from a torch file, without running any of its code.

    Raises:
        InputError: missing, unreadable, not a torch file, or one that holds more than tensors and
            plain values.
        Altered: a file of this package whose content is not what was written.

    Warns:
        NoHashWarning: a file of this package that has no hash.
    """
    content = _read(path)
    if not _ours(content):
        return content
    _require_whole(content, str(path))
    return {key: value for key, value in content.items() if key != KEY}


def require_plain(content: dict[str, Any], where: str) -> None:
    """Refuse tensors where plain values belong; they compare and convert in ways of their own.

    Raises:
        InputError: naming the key.
    """
    for key, value in content.items():
        todo = [value]
        while todo:
            one = todo.pop()
            if isinstance(one, torch.Tensor):
                raise InputError(where, f"key {shown(key)} holds a tensor, expected plain values")
            if isinstance(one, dict):
                todo.extend(one.values())
            elif isinstance(one, list | tuple):
                todo.extend(one)


def load_model(path: str | os.PathLike) -> ModelFile:
    """Read a ``model.pt``.

    Raises:
        InputError: as :func:`load_tensors`; or not one of ours, or of another version, or with
            parts missing or of the wrong type.

    Warns:
        NoHashWarning: it has no hash.
    """
    where, content = str(path), _read(path)
    name = content.get("format")
    if not isinstance(name, str) or name != FORMAT:
        raise InputError(
            where,
            f"has format {shown(name)}, expected {FORMAT!r}",
            "a bare state_dict does not say what its layers are: name the code that makes them with "
            "--network file.py:Name, or save with delaynet_lava.save_model(net, path)",
        )
    require_plain({key: value for key, value in content.items() if key != "state_dict"}, where)
    if content.get("version") != VERSION:
        raise InputError(
            where, f"has version {content.get('version')!r}, this release reads {VERSION}", "update"
        )
    _require_whole(content, where)
    for key in ("config", "state_dict", "provenance"):
        if not isinstance(content.get(key), dict):
            raise InputError(where, f"key {key!r} is missing or not a dict")
    tensors = content["state_dict"]
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(where, f"state_dict[{name!r}] is a {type(value).__name__}, expected a tensor")
    layers = content["config"].get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(one, dict) and isinstance(one.get("type"), str) for one in layers
    ):
        raise InputError(where, "config['layers'] is not a list of layers with a type")
    return ModelFile(content["config"], tensors, content["provenance"])
