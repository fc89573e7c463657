"""``delaynet verify``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from delaynet_lava.cli.output import complain, figures, require_folder, write_json
from delaynet_lava.errors import InputError, one_line
from delaynet_lava.files import read_file
from delaynet_lava.formats.content_hash import Seal
from delaynet_lava.models import located

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_LIMIT = 1 << 31


def _network(path: str) -> tuple[Seal, str, str]:
    from delaynet_lava.formats import netx
    from delaynet_lava.formats.netx_read import seal
    from delaynet_lava.formats.untrusted_hdf5 import open_untrusted

    found = seal(open_untrusted(path))
    if found.stated is not None and not found.holds:
        return found, "a network of integers (net.h5)", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = netx.read(path)
    return found, "a network of integers (net.h5)", network.summary()


def _tensors(path: str) -> tuple[Seal, str, str]:
    from delaynet_lava.formats.model_file import load_model, seal

    found, kind = seal(path)
    if not kind:
        return found, "tensors that another program wrote", ""
    if kind != "delaynet_lava.model" or (found.stated is not None and not found.holds):
        return found, "a checkpoint of a training" if kind.endswith("checkpoint") else "a model", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = load_model(path).config["layers"]
    return found, "a model (model.pt)", " - ".join(layer["type"] for layer in layers)


def verify(
    file: Annotated[str, typer.Argument(help="A net.h5, a model.pt, model:NAME or a checkpoint.")],
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Say what a file is, and whether it is as it was written.

    Exit code 1 where its content is not what its hash was made of, where it is damaged, or where it has no
    hash. The hash tells of damage; it is no signature.

    Example: delaynet verify net.h5
    """
    require_folder("--json", json)
    start = read_file(located(file), _LIMIT, "give the path of a net.h5 or a model.pt")[:8]
    if not start.startswith((_HDF5, _ZIP)):
        raise InputError(file, "is neither HDF5 nor a torch file", "give the path of a net.h5 or a model.pt")
    result: dict[str, Any] = {"path": file, "bytes": Path(located(file)).stat().st_size}
    try:
        seal, kind, content = (_network if start == _HDF5 else _tensors)(file)
        if seal.holds:
            verdict = "holds: the content is what was written"
        elif seal.stated is None:
            verdict = "none in the file, so damage would not be seen"
        else:
            verdict = "does not hold: the content was damaged or edited"
        result |= {"kind": kind, "content": content, "holds": seal.holds, "sha256": seal.found}
        result |= {"stated": seal.stated, "problem": None}
    except InputError as error:
        verdict, kind, content = "can't be made: the file is damaged", "unknown", ""
        result |= {"kind": kind, "content": "", "holds": False, "sha256": None, "stated": None}
        result["problem"] = str(error)
        complain("delaynet verify", str(error))
    write_json(json, result)
    rows = [
        ("file", file),
        ("is", kind),
        ("content", content),
        ("hash", verdict),
        ("sha256", result["sha256"]),
    ]
    figures([(name, one_line(text)) for name, text in rows if text])
    return int(not result["holds"])
