"""A bundle: a folder that runs a network on given inputs with nothing but Lava and h5py beside it, or for
Spiking Recurrent Cells this package.

    run.py         :mod:`delaynet_lava.deploy.payload` as it stands
    net.h5         the network, as :func:`delaynet_lava.formats.netx.write` writes it
    inputs.npz     bits: np.packbits of the spikes (samples, steps, channels) along axis 2, or values: the
                   payloads (samples, steps, channels); labels: int64
    manifest.json  what is in it, the hashes of these files, and what is to be done

The same arguments give the same bytes. A bundle that comes from elsewhere is read as hostile: only the
files above are opened, none through a link, and sizes are known before anything is unpacked.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava._version import __version__
from delaynet_lava.decision import Decision
from delaynet_lava.deploy import payload
from delaynet_lava.deploy.untrusted import (
    MAX_BYTES,
    Extent,
    Fields,
    Part,
    checked_bytes,
    read_arrays,
    read_json,
)
from delaynet_lava.errors import InputError
from delaynet_lava.files import replace_file, temporary_folder
from delaynet_lava.formats import netx
from delaynet_lava.network import Encoder, Network, Neuron, Payload
from delaynet_lava.trace import check_inputs, require_32_bits, with_tail

__all__ = [
    "BACKENDS",
    "Loihi",
    "Manifest",
    "read_inputs",
    "read_manifest",
    "require_runs",
    "unpacked",
    "write_bundle",
]

_FILLED = "exists and is not an empty folder"

BACKENDS = ("lava", "loihi2")
RECORDABLE = ("spikes",)
MAX_SAMPLES, MAX_STEPS, MAX_NEURONS, MAX_SHARDS, MAX_LAYERS = 1 << 20, 1 << 24, 1 << 20, 1000, 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True)
class Loihi:
    """Where on a Loihi system a bundle runs.

    Attributes:
        partition, board, loihi_gen: for the driver's environment; None leaves what is set there.
        profile: measure energy and time of every sample, where Lava's profiler can.
    """

    partition: str | None = None
    board: str | None = None
    loihi_gen: str | None = None
    profile: bool = True

    def __post_init__(self) -> None:
        for name in ("partition", "board", "loihi_gen"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and _NAME.match(value)):
                raise InputError(
                    f"loihi: {name}", f"{value!r:.100} is not a name", "letters, digits and . _ -"
                )
        if not isinstance(self.profile, bool):
            raise InputError("loihi: profile", f"{self.profile!r:.100} is not true or false")


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    Attributes:
        name: of the job; letters, digits and ``. _ -``.
        backend: "lava" (the CPU simulator) or "loihi2".
        files: hash and size of each of the other files.
        samples, steps, channels: extent of the inputs, the network's tail of silence with them.
        payload_bits, payload_signed: what the inputs are, see :class:`network.Payload`.
        layers: number of neurons of each.
        shards: in how many shares the samples run.
        record: ("spikes",) or ().
        decision: how the network answers, the text of a :class:`network.Decision`.
        task, seed: where the inputs come from.
        versions: of the packages that wrote it.
        loihi: for the backend "loihi2", else None.
        sha256: hash of manifest.json itself, which results name.
    """

    name: str
    backend: str
    files: dict[str, Part]
    samples: int
    steps: int
    channels: int
    payload_bits: int
    payload_signed: bool
    layers: tuple[int, ...]
    shards: int
    record: tuple[str, ...]
    decision: str
    task: dict[str, Any]
    seed: int
    versions: dict[str, str]
    loihi: Loihi | None
    sha256: str = ""

    @property
    def payload(self) -> Payload:
        """What the inputs are."""
        return Payload(self.payload_bits, self.payload_signed)

    def share(self, shard: int) -> range:
        """Indices of the samples that a shard runs."""
        return payload.share(self.samples, self.shards, shard)


def write_bundle(
    folder: str | os.PathLike,
    network: Network,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    backend: str = "lava",
    shards: int = 1,
    record: Collection[str] = RECORDABLE,
    task: Mapping[str, Any] | None = None,
    seed: int = 0,
    loihi: Loihi | None = None,
) -> Manifest:
    """Write a bundle; the folder appears complete or not at all.

    Args:
        folder: does not exist yet, or is empty.
        inputs: integers or bool (samples, steps, channels), what the network's payload says.
        labels: int (samples,).
        record: "spikes" of every layer, or nothing: then the membranes at the end are all that is known.

    Raises:
        InputError: a network that no process here or of Lava's can express, inputs that it does not take,
            an argument out of range, or a place that can't be written.
    """
    require_runs(network, backend)
    spikes = with_tail(network, check_inputs(network, inputs))
    require_32_bits(network, spikes)
    answers = np.asarray(labels)
    if answers.shape != spikes.shape[:1] or answers.dtype.kind not in "iu":
        raise InputError(
            "labels", f"have shape {answers.shape} and type {answers.dtype}, expected a class each"
        )
    network.answer.require_steps(spikes.shape[1])
    if "spikes" not in record and network.answer.kind == "count":
        raise InputError("record", "the last layer answers by its spikes", "record them")
    target = Path(folder)
    if os.path.lexists(target) and (not os.path.isdir(target) or any(target.iterdir())):
        raise InputError(str(folder), _FILLED, "choose another place")
    if backend == "loihi2":
        loihi = loihi or Loihi()
    try:
        with temporary_folder(target) as temporary:
            replace_file(temporary / "run.py", Path(payload.__file__).read_bytes())
            netx.write(network, temporary / "net.h5")
            kept = {"values": spikes} if network.payload.bits else {"bits": np.packbits(spikes, axis=2)}
            replace_file(temporary / "inputs.npz", _npz(**kept, labels=answers.astype(np.int64)))
            content = {
                "format": payload.BUNDLE_FORMAT,
                "version": payload.VERSION,
                "name": name,
                "backend": backend,
                "files": {file: _stated(temporary / file) for file in payload.FILES},
                "samples": spikes.shape[0],
                "steps": spikes.shape[1],
                "channels": spikes.shape[2],
                "payload_bits": network.payload.bits,
                "payload_signed": network.payload.signed,
                "layers": [layer.size for layer in network.layers],
                "shards": shards,
                "record": list(record),
                "decision": str(network.answer),
                "task": dict(task or {}),
                "seed": seed,
                "versions": _versions(),
                "loihi": None if loihi is None else vars(loihi),
            }
            try:
                text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
            except (TypeError, ValueError) as error:
                raise InputError(
                    "task", f"does not fit JSON ({error})", "use plain numbers and strings"
                ) from error
            replace_file(temporary / payload.MANIFEST, text.encode())
            manifest = _manifest(json.loads(text), text.encode(), "bundle")
            os.replace(temporary, target)
    except OSError as error:
        # Another may have filled the folder since it was looked at.
        problem = _FILLED if error.errno == errno.ENOTEMPTY else f"cannot be written ({error.strerror})"
        raise InputError(str(folder), problem, "choose another place") from error
    return manifest


def require_runs(network: Network, backend: str) -> None:
    """Refuse a network that a bundle's script can't run on a backend.

    Raises:
        InputError: names the layer, and what it has.
    """
    for k, layer in enumerate(network.layers):
        where = f"layer {k}"
        if isinstance(layer, Encoder):
            raise InputError(
                where,
                "is an encoder, whose bias no host of a bundle writes at every step",
                "use delaynet run",
            )
        if not isinstance(layer.neuron, Neuron):
            if backend != "lava":
                raise InputError(
                    where,
                    "has Spiking Recurrent Cells, for which no board has a neuron",
                    "use --backend lava",
                )
            if layer.neuron.sends.bits:
                problem = f"sends {layer.neuron.sends}, a bundle keeps spikes"
                raise InputError(where, problem, "use delaynet run --backend lava")
        elif layer.neuron.reset != "zero":
            raise InputError(
                where, "resets softly, which Lava's neurons and the chip do not", "train with reset=zero"
            )
        if layer.neuron.membrane_bits != fx.MEMBRANE_BITS:
            problem = (
                f"has a membrane of {layer.neuron.membrane_bits} bits, Lava and the chip {fx.MEMBRANE_BITS}"
            )
            raise InputError(where, problem, "use the emulator")
        for synapse in (layer.synapse, layer.recurrent):
            if synapse is not None and synapse.max_delay > fx.MAX_DELAY:
                problem = f"has a delay of {synapse.max_delay} steps, more than {fx.MAX_DELAY}"
                raise InputError(where, problem, "legalise the delays at export")


def _npz(**arrays: np.ndarray) -> bytes:
    # NumPy gives every member of the archive the same date.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _stated(path: Path) -> dict[str, Any]:
    part = Part.of(path.read_bytes())
    return {"sha256": part.sha256, "bytes": part.size}


def _versions() -> dict[str, str]:
    found = {"delaynet_lava": __version__, "python": platform.python_version(), "numpy": np.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["lava-nc"] = metadata.version("lava-nc")
    return found


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """Read a bundle's manifest, and check every file of the bundle against it.

    Raises:
        InputError: one line that names the file and what is wrong with it.
    """
    path = Path(folder) / payload.MANIFEST
    manifest = _manifest(*read_json(path), str(path))
    for name, part in manifest.files.items():
        checked_bytes(Path(folder) / name, part)
    return manifest


def _manifest(values: dict[str, Any], content: bytes, where: str) -> Manifest:
    known = [f.name for f in fields(Manifest) if f.name != "sha256"]
    read = Fields(values, where, ["format", "version", *known])
    if read.text("format") != payload.BUNDLE_FORMAT:
        raise read.refuse("format", payload.BUNDLE_FORMAT)
    read.integer("version", payload.VERSION, payload.VERSION)
    files = Fields(values["files"], f"{where}: files", payload.FILES)
    parts = {}
    for name in payload.FILES:
        entry = Fields(files.values[name], f"{where}: {name}", ["sha256", "bytes"])
        parts[name] = Part(entry.text("sha256", "[0-9a-f]{64}"), entry.integer("bytes", 0, MAX_BYTES))
    layers, record, task = values["layers"], values["record"], values["task"]
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise read.refuse("layers", f"a list of 1 to {MAX_LAYERS} sizes")
    if not all(type(size) is int and 0 < size <= MAX_NEURONS for size in layers):
        raise read.refuse("layers", f"sizes from 1 to {MAX_NEURONS}")
    if record not in ([], list(RECORDABLE)):
        raise read.refuse("record", f"[] or {list(RECORDABLE)}")
    if not isinstance(task, dict):
        raise read.refuse("task", "an object")
    loihi, backend = values["loihi"], read.text("backend")
    if backend not in BACKENDS:
        raise read.refuse("backend", f"one of {list(BACKENDS)}")
    if (backend == "loihi2") != (loihi is not None):
        raise read.refuse("loihi", f"null for every backend but loihi2, and this is {backend}")
    if loihi is not None:
        try:
            loihi = Loihi(**Fields(loihi, "loihi", [f.name for f in fields(Loihi)]).values)
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.problem, error.remedy) from error
    samples, steps = read.integer("samples", 1, MAX_SAMPLES), read.integer("steps", 1, MAX_STEPS)
    try:
        Decision.parse(read.text("decision")).require_steps(steps)
        payload_of = Payload(values["payload_bits"], values["payload_signed"])
    except InputError as error:
        raise InputError(f"{where}: {error.where}", error.problem, error.remedy) from error
    return Manifest(
        name=read.text("name", _NAME.pattern),
        backend=backend,
        files=parts,
        samples=samples,
        steps=steps,
        channels=read.integer("channels", 1, MAX_NEURONS),
        payload_bits=payload_of.bits,
        payload_signed=payload_of.signed,
        layers=tuple(layers),
        shards=read.integer("shards", 1, min(samples, MAX_SHARDS)),
        record=tuple(record),
        decision=read.text("decision"),
        task=task,
        seed=read.integer("seed", 0, 1 << 63),
        versions=read.strings("versions"),
        loihi=loihi,
        sha256=payload.digest(content),
    )


def read_inputs(folder: str | os.PathLike, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a bundle.

    Returns:
        What :func:`unpacked` makes inputs of, by samples; int64 (samples,).

    Raises:
        InputError: altered, or not of the extent that the manifest states.
    """
    path = Path(folder) / "inputs.npz"
    graded, channels = bool(manifest.payload.bits), manifest.channels
    name, width = ("values", channels) if graded else ("bits", -(-channels // 8))
    expected: dict[str, Extent] = {
        name: ((manifest.samples, manifest.steps, width), manifest.payload.dtype.type),
        "labels": ((manifest.samples,), np.int64),
    }
    arrays = read_arrays(checked_bytes(path, manifest.files[path.name]), str(path), expected)
    return arrays[name], arrays["labels"]


def unpacked(manifest: Manifest, stored: np.ndarray) -> np.ndarray:
    """Inputs (samples, steps, channels) of some of the samples that :func:`read_inputs` gave."""
    return stored if manifest.payload.bits else np.unpackbits(stored, axis=2, count=manifest.channels)
