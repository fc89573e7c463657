"""The readers of files that may come from strangers, and what is put before them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from bundle_tools import a_bundle
from harness import Target
from hdf5_files import events, graphs, hdf5_case, nets, read_recordings, recordings
from mutate import damage, damaged_npz, strange, strange_json
from samples import npz_case, read_samples, sample_files
from torch_files import checkpoints, goes_on, models, torch_case

from delaynet_lava.deploy import payload, results
from delaynet_lava.deploy.bundle import read_inputs, read_manifest
from delaynet_lava.deploy.job import read_job
from delaynet_lava.export.extract import extract
from delaynet_lava.export.float_network import read_published
from delaynet_lava.export.nir_import import import_nir
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.hw_profiles import load_profile

__all__ = ["TARGETS"]


# Bundles and what comes back.


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _bundles(folder: Path) -> Any:
    path = folder / "bundle"
    manifest = a_bundle(path, samples=2, steps=8)
    arrays: dict[str, Any] = {
        f"voltage_{k}": np.zeros((2, n), np.int32) for k, n in enumerate(manifest.layers)
    }
    arrays |= {f"spikes_{k}": np.zeros((2, 8, -(-n // 8)), np.uint8) for k, n in enumerate(manifest.layers)}
    content = _npz(**arrays)
    result = {
        "format": payload.RESULT_FORMAT, "version": payload.VERSION, "shard": 0, "manifest": manifest.sha256,
        "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "wall_s": 1.0, "build_s": 0.5,
        "versions": {"numpy": "1"}, "profile": None, "profile_error": None,
    }  # fmt: skip
    status = {"state": "done", "done": 2, "of": 2, "error": None, "pid": 1, "host": "here"}
    names = results.result_names(0)
    for name, data in zip(
        names, (json.dumps(status).encode(), json.dumps(result).encode(), content), strict=True
    ):
        (path / name).write_bytes(data)
    job = {
        "format": "delaynet_lava.job",
        "version": 1,
        "folder": "",
        "host": None,
        "there": "/tmp/x",
        "launch": "direct",
        "ids": ["12"],
        "manifest": manifest.sha256,
    }
    return SimpleNamespace(
        path=path, manifest=manifest, names=names, arrays=content, result=result, status=status, job=job,
        text=json.loads((path / payload.MANIFEST).read_bytes()), inputs=(path / "inputs.npz").read_bytes(),
    )  # fmt: skip


def _manifest(state: Any, rng: Random) -> bytes:
    content = strange_json(state.text, rng)
    (state.path / payload.MANIFEST).write_bytes(content)
    return content


def _result(state: Any, rng: Random) -> bytes:
    """Damaged figures, or damaged arrays under a hash that is right."""
    result, arrays, status = state.result, state.arrays, json.dumps(state.status).encode()
    action = rng.random()
    if action < 0.3:
        content = strange_json(result, rng)
    elif action < 0.5:
        status = content = strange_json(state.status, rng)
    else:
        arrays = damaged_npz(arrays, rng)
        content = json.dumps(
            {**result, "sha256": hashlib.sha256(arrays).hexdigest(), "bytes": len(arrays)}
        ).encode()
    (state.path / state.names[0]).write_bytes(status)
    (state.path / state.names[1]).write_bytes(
        content if content is not status else json.dumps(result).encode()
    )
    (state.path / state.names[2]).write_bytes(arrays)
    return arrays


def _read_result(state: Any) -> None:
    try:
        results.status(state.path, 0)
    finally:
        results.read_shard(state.path, 0, state.manifest)


def _inputs(state: Any, rng: Random) -> bytes:
    content = damaged_npz(state.inputs, rng)
    (state.path / "inputs.npz").write_bytes(content)
    part = type(state.manifest.files["inputs.npz"]).of(content)
    object.__setattr__(state.manifest, "files", {**state.manifest.files, "inputs.npz": part})
    return content


def _job(state: Any, rng: Random) -> bytes:
    content = strange_json(state.job, rng)
    (state.path / "job.json").write_bytes(content)
    return content


# Published networks.


def _published(folder: Path) -> Any:
    arrays = {
        "w_in": np.ones((4, 3)),
        "w_rec": np.ones((3, 3)),
        "w_out": np.ones((3, 2)),
        "lag": np.ones((3, 3), int),
        "b_rec": np.zeros(3),
        "b_out": np.zeros(2),
        "tau_rec_ms": np.ones(1),
        "tau_out_ms": np.ones(1),
        "threshold": np.ones(1),
        "x_shape": np.array([1, 2, 4]),
        "x_packed": np.ones(1, np.uint8),
        "y": np.zeros(1, int),
        "out_membrane": np.zeros((1, 2)),
        "hidden_spikes_per_step": np.zeros(2),
        "hidden_spikes_per_neuron": np.zeros(3),
    }
    return SimpleNamespace(path=folder / "published.npz", content=_npz(**arrays))


def _published_case(state: Any, rng: Random) -> bytes:
    content = damaged_npz(state.content, rng)
    state.path.write_bytes(content)
    return content


# Profiles.

_TOKENS = [
    "=",
    "[",
    "]",
    "{",
    "}",
    ",",
    '"',
    "'",
    "#",
    "[[a]]",
    "a.b.c = 1",
    "1979-05-27",
    "inf",
    "nan",
    "9" * 5000,
    "1e400",
    '"\\u0000"',
    "'''",
    '"""',
    "value = []",
    "[limits]",
    "-1",
    "true",
    "0x1F",
    "[" * 3000,
]


def _profiles(folder: Path) -> Any:
    package = Path(__file__).resolve().parents[2] / "hw_profiles"
    lines = (package / "loihi1.toml").read_text().partition("[systems]")[0].splitlines()
    return SimpleNamespace(path=folder / "chip.toml", lines=lines)


def _profile(state: Any, rng: Random) -> bytes:
    # The whole file takes milliseconds to parse.
    head, rest = state.lines[:5], state.lines[5:]
    lines = [*head, *rng.sample(rest, rng.choice((1, 3, 8)))]
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        action = rng.randrange(6)
        if action == 0:
            del lines[at]
        elif action == 1:
            lines.insert(at, rng.choice(lines))
        elif action == 2:
            lines[at] = rng.choice(_TOKENS)
        else:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice([*_TOKENS, *map(str, strange_words(rng))])
            lines[at] = " ".join(words)
        lines = lines or ["a = 1"]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    content = damage(content, rng) if rng.random() < 0.3 else content
    state.path.write_bytes(content)
    return content


def strange_words(rng: Random) -> list[Any]:
    """A value as TOML would write it, nearly."""
    return [json.dumps(strange(rng))]


TARGETS = {
    target.name: target
    for target in (
        Target("graph.nir", graphs, hdf5_case, lambda state: import_nir(state.path)),
        Target("data.nir", recordings, hdf5_case, read_recordings),
        Target("events.h5", events, hdf5_case, read_samples),
        Target("samples.npz", sample_files, npz_case, read_samples),
        Target("net.h5", nets, hdf5_case, lambda state: netx.read(state.path)),
        Target(
            "model.pt", models, torch_case, lambda state: extract(load_model(state.path), str(state.path))
        ),
        Target("checkpoint", checkpoints, torch_case, goes_on),
        Target("manifest", _bundles, _manifest, lambda state: read_manifest(state.path)),
        Target("result", _bundles, _result, _read_result),
        Target("inputs.npz", _bundles, _inputs, lambda state: read_inputs(state.path, state.manifest)),
        Target("job.json", _bundles, _job, lambda state: read_job(str(state.path))),
        Target("published", _published, _published_case, lambda state: read_published(state.path)),
        Target("profile", _profiles, _profile, lambda state: load_profile(state.path)),
    )
}
"""By name."""
