"""The readers of files that may come from strangers, and what is put before them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import torch
from bundle_tools import NETWORK, a_bundle
from harness import Target
from intruder import Intruder
from mutate import damage, strange, strange_json, twist
from netx_tools import NEURON, a_network, stock_file
from samples import events_case, npz_case, read_samples, sample_files

from delaynet_lava.deploy import payload, results
from delaynet_lava.deploy.bundle import read_inputs, read_manifest
from delaynet_lava.deploy.job import read_job
from delaynet_lava.export.extract import extract
from delaynet_lava.export.float_network import read_published
from delaynet_lava.export.nir_export import write_nir
from delaynet_lava.export.nir_import import import_nir
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import ModelFile, load_model, load_tensors, save_model
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.tasks.registry import task

__all__ = ["TARGETS"]

MODELS = Path(__file__).resolve().parents[2] / "delaynet_lava" / "models"
torch.set_num_threads(1)


# net.h5.


def _strange_array(rng: Random) -> Any:
    shape = tuple(rng.choice((0, 1, 2, 4, 5, 6)) for _ in range(rng.randrange(4)))
    kind = rng.choice(("i1", "i2", "i4", "i8", "u1", "u8", "f2", "f4", "f8", ">i4", "bool"))
    values = np.random.default_rng(rng.randrange(1 << 32)).integers(-300, 300, shape)
    return values.astype(kind)


def _into(group: h5py.Group, tree: dict[str, Any], rng: Random) -> None:
    for key, value in tree.items():
        try:
            if isinstance(value, dict):
                _into(group.create_group(str(key)), value, rng)
            elif rng.random() < 0.1:
                kind = rng.choice((h5py.SoftLink("/layer"), h5py.ExternalLink("a", "/b"), h5py.Empty("f4")))
                group[str(key)] = kind
            elif rng.random() < 0.1 and np.ndim(value):
                chunks = tuple(max(1, rng.randrange(1, 2 * n + 1)) for n in np.shape(value))
                group.create_dataset(
                    str(key),
                    data=value,
                    chunks=chunks,
                    maxshape=(None,) * np.ndim(value),
                    compression=rng.choice((None, "gzip")),
                    shuffle=rng.random() < 0.5,
                )
            else:
                group[str(key)] = value
        except (TypeError, ValueError, OSError, RuntimeError, UnicodeError, OverflowError):
            continue  # not a value that HDF5 can hold


def _tree(group: h5py.Group) -> dict[str, Any]:
    return {k: _tree(v) if isinstance(v, h5py.Group) else v[()] for k, v in group.items()}


def _nets(folder: Path) -> Any:
    netx.write(a_network(), folder / "net.h5")
    whole = (folder / "net.h5").read_bytes()
    dense = {
        "type": "dense",
        "shape": [3],
        "weight": np.full((3, 4), 2),
        "delay": 3,
        "bias": [1, 2, 3],
        "neuron": NEURON,
    }
    stock_file(folder / "net.h5", {"type": "input", "shape": [4]}, dense)
    stock = (folder / "net.h5").read_bytes()
    return _hdf5(folder / "net.h5", whole, stock)


def _hdf5(path: Path, *contents: bytes) -> Any:
    trees = []
    for content in contents:
        with h5py.File(io.BytesIO(content)) as file:
            trees.append(_tree(file))
    return SimpleNamespace(path=path, pool=list(contents), own=len(contents), trees=trees)


def _graphs(folder: Path) -> Any:
    path = folder / "graph.nir"
    write_nir(NETWORK.with_(layers=NETWORK.layers[1:2], input_shape=()), path)
    return _hdf5(path, path.read_bytes())


def _events(folder: Path) -> Any:
    path, rng = folder / "events.h5", np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for name, kind, scale in (("times", "f4", 0.01), ("units", "i4", 1)):
            rows = file.create_dataset(f"spikes/{name}", (6,), h5py.vlen_dtype(np.dtype(kind)))
            for k in range(6):
                rows[k] = (np.sort(rng.integers(0, 9, 5)) * scale).astype(kind)
        file["labels"] = np.arange(6) % 2
    content = path.read_bytes()
    return SimpleNamespace(
        path=path, pool=[content], own=1, trees=[{"labels": np.arange(6) % 2, "spikes": {}}]
    )


def _arrays(folder: Path) -> Any:
    rng = np.random.default_rng(1)
    dense = _npz(inputs=rng.integers(0, 2, (6, 5, 3)).astype(np.uint8), labels=np.arange(6) % 2)
    events = _npz(
        times=np.arange(9.0), units=np.arange(9) % 3, sample=np.arange(9) // 2, labels=np.arange(5) % 2
    )
    stored = io.BytesIO()
    np.savez(stored, inputs=np.zeros((6, 5, 3), np.int8), labels=np.arange(6) % 2, lengths=np.full(6, 4))
    return SimpleNamespace(path=folder / "mine.npz", contents=[dense, events, stored.getvalue()])


def _arrays_case(state: Any, rng: Random) -> bytes:
    content = _damaged_npz(rng.choice(state.contents), rng)
    state.path.write_bytes(content)
    return content


def _first_sample(state: Any) -> None:
    made = task(str(state.path))
    for split in ("train", "validation", "test"):
        if made.size(split):
            made.batch(split, 0, 1)


def _net(state: Any, rng: Random) -> bytes:
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        put = lambda rng: _strange_array(rng) if rng.random() < 0.5 else strange(rng)  # noqa: E731
        with h5py.File(buffer, "w", libver=rng.choice((("earliest", "v108"), ("latest", "latest")))) as file:
            _into(file, twist(copy.deepcopy(rng.choice(state.trees)), rng, put), rng)
        content = buffer.getvalue()
        state.pool = [*state.pool[: state.own], *state.pool[state.own :][-60:], content]
        if rng.random() < 0.3:
            content = damage(content, rng)
    else:
        content = damage(rng.choice(state.pool), rng, state.pool[0])
    state.path.write_bytes(content)
    return content


# Torch files.


def _rezip(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def _strange_tensor(rng: Random) -> Any:
    if rng.random() < 0.3:
        return strange(rng)
    shape = tuple(rng.choice((0, 1, 2, 3, 4, 5)) for _ in range(rng.randrange(5)))
    kind = rng.choice((torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                       torch.uint8, torch.bool, torch.complex64))  # fmt: skip
    value = torch.full(shape, rng.choice((0.0, 1.0, -3.0, 1e4)))
    if value.numel() and rng.random() < 0.2:
        value.view(-1)[0] = rng.choice((torch.nan, torch.inf, 1e38))
    value = value.to(kind)
    if rng.random() < 0.1:
        value = value.to_sparse() if value.ndim and kind != torch.bool else value.expand(3, *shape)
    return value


def _torch_case(state: Any, rng: Random) -> bytes:
    base = rng.choice(state.files)
    action = rng.random()
    if action < 0.4:
        tree = copy.deepcopy(base.tree)
        twist(tree, rng, _strange_tensor)
        buffer = io.BytesIO()
        try:
            torch.save(tree, buffer, _use_new_zipfile_serialization=rng.random() < 0.98)
            content = buffer.getvalue()
        except Exception:  # not a value that torch can hold
            content = base.content
    elif action < 0.75:
        part = rng.choice(("data.pkl", "data.pkl", "byteorder", "data/0", "data/1"))
        content = _rezip(base.content, lambda name, old: damage(old, rng) if name.endswith(part) else old)
    elif action < 0.78:
        content = state.program
    else:
        content = damage(base.content, rng)
    state.path.write_bytes(content)
    return content


def _torch_state(folder: Path, trees: list[Any]) -> Any:
    files = []
    for tree in trees:
        buffer = io.BytesIO()
        torch.save(tree, buffer)
        files.append(SimpleNamespace(tree=tree, content=buffer.getvalue()))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Intruder(str(folder / "canary"))), buffer)
    return SimpleNamespace(path=folder / "model.pt", files=files, program=buffer.getvalue())


def _small_model() -> ModelFile:
    neuron = {"threshold": 2.0, "current_decay": 0.5, "voltage_decay": 0.1}
    ones = torch.ones
    decays = lambda k: {f"{k}.neuron.current_decay": ones(1) * 900, f"{k}.neuron.voltage_decay": ones(1) * 90}  # noqa: E731
    state = {
        "0.neuron.current_decay": ones(1) * 4096,
        "0.neuron.voltage_decay": ones(1) * 90,
        "0.weight": ones(1),
        "2.synapse.weight_v": ones(4, 3, 1, 1, 1),
        "2.synapse.weight_g": ones(4, 1, 1, 1, 1),
        "2.delay.delay": ones(4),
        "3.input_synapse.weight": ones(4, 4, 1, 1, 1),
        "3.recurrent_synapse.weight": ones(4, 4, 1, 1, 1),
        "3.delay": torch.tensor([1, 2, 3, 62], dtype=torch.int32),
        "3.neuron.vth": ones(1),
        "4.synapse.weight": ones(2, 4, 1, 1, 1),
        "4.mask": ones(2, 4) > 0,
        **decays(2),
        **decays(3),
        **decays(4),
    }
    layers = [
        {"type": "Input", "shape": [3, 1, 1], "neuron": neuron, "delay_shift": True},
        {"type": "Flatten"},
        {"type": "Dense", "neuron": neuron, "in_neurons": 3, "out_neurons": 4, "delay_shift": True},
        {"type": "DelayRecurrent", "neuron": neuron, "self_connection": False, "reset": "zero"},
        {"type": "Affine", "neuron": neuron},
        {"type": "Average", "num_outputs": 2},
    ]
    config = {"layers": layers, "task": {"name": "cue", "cues": 7}, "dt_ms": 1.0}
    return ModelFile(config, state, {"seed": 1, "command": "delaynet train"})


def _models(folder: Path) -> Any:
    save_model(folder / "model.pt", _small_model())
    trees = [load_tensors(folder / "model.pt"), load_tensors(MODELS / "cue_loihi2.pt")]
    trees[1]["provenance"] = {"seed": 1}
    return _torch_state(folder, trees)


def _checkpoints(folder: Path) -> Any:
    from delaynet_lava.tasks.cue import CueAccumulation
    from delaynet_lava.training import trainer
    from delaynet_lava.training.distributed import Group
    from delaynet_lava.training.recipe_file import changed, load_recipe

    recipe = changed(
        load_recipe("loihi2"), ["network.layers=6", "network.delays=0,3", "network.shares=0.5,0.5"]
    )
    made = trainer._Trainer(recipe, CueAccumulation(), 0, Group())
    _a_step(made)
    made.best, made.progress["best"] = made.average, 0.5
    made.save(folder / "model.pt")
    state = _torch_state(folder, [load_tensors(folder / "model.pt")])
    state.trainer = made
    return state


def _a_step(made: Any) -> None:
    for parameter in made.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.optimiser.step()


def _goes_on(state: Any) -> None:
    """What is taken must train."""
    state.trainer.restore(state.path)
    _a_step(state.trainer)
    state.trainer._load(state.trainer.best or state.trainer.average)


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
        arrays = _damaged_npz(arrays, rng)
        content = json.dumps(
            {**result, "sha256": hashlib.sha256(arrays).hexdigest(), "bytes": len(arrays)}
        ).encode()
    (state.path / state.names[0]).write_bytes(status)
    (state.path / state.names[1]).write_bytes(
        content if content is not status else json.dumps(result).encode()
    )
    (state.path / state.names[2]).write_bytes(arrays)
    return arrays


def _damaged_npz(content: bytes, rng: Random) -> bytes:
    if rng.random() < 0.4:
        return damage(content, rng)
    victim = rng.randrange(8)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for k, name in enumerate(old.namelist()):
            data = old.read(name)
            # The header of an array is text, read as a Python literal.
            at = rng.choice((0, 128))
            new.writestr(name, data[:at] + damage(data[at:], rng) if k in (victim, victim - 4) else data)
    return buffer.getvalue()


def _read_result(state: Any) -> None:
    try:
        results.status(state.path, 0)
    finally:
        results.read_shard(state.path, 0, state.manifest)


def _inputs(state: Any, rng: Random) -> bytes:
    content = _damaged_npz(state.inputs, rng)
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
    content = _damaged_npz(state.content, rng)
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
        Target("graph.nir", _graphs, _net, lambda state: import_nir(state.path)),
        Target("events.h5", _events, _net, _first_sample),
        Target("samples.npz", _arrays, _arrays_case, _first_sample),
        Target("net.h5", _nets, _net, lambda state: netx.read(state.path)),
        Target(
            "model.pt", _models, _torch_case, lambda state: extract(load_model(state.path), str(state.path))
        ),
        Target("checkpoint", _checkpoints, _torch_case, _goes_on),
        Target("manifest", _bundles, _manifest, lambda state: read_manifest(state.path)),
        Target("result", _bundles, _result, _read_result),
        Target("inputs.npz", _bundles, _inputs, lambda state: read_inputs(state.path, state.manifest)),
        Target("job.json", _bundles, _job, lambda state: read_job(str(state.path))),
        Target("published", _published, _published_case, lambda state: read_published(state.path)),
        Target("samples.npz", sample_files, npz_case, read_samples),
        Target("samples.h5", sample_files, events_case, read_samples),
        Target("profile", _profiles, _profile, lambda state: load_profile(state.path)),
    )
}
"""By name."""
