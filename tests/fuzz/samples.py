"""Samples in a .npz, dense and events, that may come from strangers."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from mutate import damaged_npz

from delaynet_lava import task

__all__ = ["npz_case", "read_samples", "sample_files"]

COUNT, STEPS, CHANNELS = 6, 9, 4


def sample_files(folder: Path) -> Any:
    """Good files of each kind, to be spoilt."""
    rng = np.random.default_rng(2)
    inputs = (rng.random((COUNT, STEPS, CHANNELS)) < 0.3).astype(np.uint8)
    labels = np.arange(COUNT) % 3
    sample, times, units = np.nonzero(inputs)
    dense = {"inputs": inputs, "labels": labels, "lengths": np.full(COUNT, STEPS)}
    events = {"times": times * 1.0, "units": units, "sample": sample, "labels": labels}
    return SimpleNamespace(path=folder / "samples.npz", arrays=[dense, events])


def _strange(rng: Random, like: np.ndarray) -> np.ndarray:
    values = np.array(like, rng.choice((np.int64, np.float64, np.int8, np.uint8, np.float32, object, bool)))
    if values.size and values.dtype.kind in "if" and rng.random() < 0.7:
        values.flat[rng.randrange(values.size)] = rng.choice((-1, 1 << 6, 100, 3))
    if values.dtype.kind == "f" and rng.random() < 0.3:
        values.flat[0] = rng.choice((np.nan, np.inf, 1e30, -0.0, 0.5))
    if rng.random() < 0.3:
        values = values[: rng.randrange(len(values) + 1)]
    return values[..., None] if rng.random() < 0.1 else values


def npz_case(state: Any, rng: Random) -> bytes:
    """A .npz with strange arrays or damaged bytes."""
    arrays = dict(rng.choice(state.arrays))
    for name in list(arrays):
        if rng.random() < 0.3:
            arrays[name] = _strange(rng, arrays[name])
        if rng.random() < 0.05:
            del arrays[name]
    buffer = io.BytesIO()
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(buffer, **arrays)
    content = buffer.getvalue()
    if rng.random() < 0.6:
        content = damaged_npz(content, rng)
    state.path.write_bytes(content)
    return content


def read_samples(state: Any) -> None:
    """All samples, as a command reads them."""
    of = task(f"{state.path}:split=0,0,1")
    if of.steps * of.channels <= 1 << 16:
        of.batch("test", 0, of.size("test") or 0)
        of.lengths("test", 0, of.size("test") or 0)
