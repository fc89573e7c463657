"""What the shares of a bundle gave: read, checked, merged, and compared with the emulator.

Result files come back from elsewhere and are read as hostile; each error names the file at fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava.decision import Decision
from delaynet_lava.deploy import payload
from delaynet_lava.deploy.bundle import Manifest, read_inputs, read_manifest, unpacked
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
from delaynet_lava.formats import netx
from delaynet_lava.network import Network
from delaynet_lava.trace import Comparison, Trace, decide

__all__ = [
    "Outcome",
    "Shard",
    "Status",
    "compare_with_emulator",
    "merge",
    "read_shard",
    "result_names",
    "status",
]

STATES = ("running", "done", "failed")
_MAX_STATUS, _MAX_RESULT = 1 << 16, 1 << 26
_BATCH_BYTES = 256 << 20
_KEYS = (
    "format", "version", "shard", "manifest", "sha256", "bytes", "wall_s", "build_s", "versions", "profile",
    "profile_error",
)  # fmt: skip


@dataclass(frozen=True)
class Status:
    """How far a share is.

    Attributes:
        state: "running", "done" or "failed".
        done, of: samples.
        error: one line where it failed.
        pid, host: of the process that runs it.
    """

    state: str
    done: int
    of: int
    error: str | None
    pid: int
    host: str


@dataclass(frozen=True)
class Shard:
    """What a share of the samples gave.

    Attributes:
        shard: its number. samples: indices of its samples in the bundle.
        spikes: layer -> uint8 (samples, steps, ceil(neurons / 8)), packed along the last axis, where
            recorded.
        voltage: int32 (samples, neurons) for every layer, the membranes after the last step.
        scores: int64 (samples, neurons) of the last layer, the sums of its membranes where the network
            answers by them; else None.
        wall_s, build_s: seconds the samples ran, and seconds that compiling their graphs took.
        profile: for each sample what Lava's profiler gave, in its units; None where there is none, and
            ``profile_error`` says why on a board.
        versions: of what ran it.
    """

    shard: int
    samples: range
    spikes: dict[int, np.ndarray]
    voltage: list[np.ndarray]
    scores: np.ndarray | None
    wall_s: float
    build_s: float
    profile: list[dict[str, Any]] | None
    profile_error: str | None
    versions: dict[str, str]


def result_names(shard: int) -> tuple[str, str, str]:
    """Files that a share leaves in the bundle's folder: its status, and the two of its result."""
    return payload.STATUS.format(shard), payload.RESULT.format(shard), payload.ARRAYS.format(shard)


def status(folder: str | os.PathLike, shard: int) -> Status | None:
    """How far a share is; None where it has not begun.

    Raises:
        InputError: a file that is not a status.
    """
    path = Path(folder) / payload.STATUS.format(shard)
    if not os.path.lexists(path):
        return None
    values, _ = read_json(path, _MAX_STATUS)
    read = Fields(values, str(path), ["state", "done", "of", "error", "pid", "host"])
    if values["state"] not in STATES:
        raise read.refuse("state", f"one of {list(STATES)}")
    return Status(
        state=values["state"],
        done=read.integer("done", 0, 1 << 32),
        of=read.integer("of", 0, 1 << 32),
        error=None if values["error"] is None else read.text("error"),
        pid=read.integer("pid", 0, 1 << 32),
        host=read.text("host"),
    )


def read_shard(folder: str | os.PathLike, shard: int, manifest: Manifest | None = None) -> Shard:
    """Read what a share gave.

    Args:
        manifest: of the bundle, where it was read already.

    Raises:
        InputError: a file is missing, not whole, altered, too large, of another bundle or another
            share; the message names it.
    """
    manifest = manifest or read_manifest(folder)
    if not 0 <= shard < manifest.shards:
        raise InputError("shard", f"{shard} is not one of the bundle's {manifest.shards}, counted from 0")
    path = Path(folder) / payload.RESULT.format(shard)
    if not os.path.lexists(path):
        raise InputError(str(path), "does not exist", "the share has not ended, or was not fetched")
    values, _ = read_json(path, _MAX_RESULT)
    read = Fields(values, str(path), _KEYS)
    if values["format"] != payload.RESULT_FORMAT:
        raise read.refuse("format", payload.RESULT_FORMAT)
    read.integer("version", payload.VERSION, payload.VERSION)
    if read.text("manifest", "[0-9a-f]{64}") != manifest.sha256:
        raise InputError(str(path), "belongs to another bundle", "fetch it again")
    if read.integer("shard", 0, manifest.shards - 1) != shard:
        raise InputError(str(path), f"is the result of shard {values['shard']}", "fetch it again")
    part = Part(read.text("sha256", "[0-9a-f]{64}"), read.integer("bytes", 0, MAX_BYTES))
    samples = manifest.share(shard)
    expected: dict[str, Extent] = {}
    for k, size in enumerate(manifest.layers):
        expected[f"voltage_{k}"] = ((len(samples), size), np.int32)
        if "spikes" in manifest.record:
            expected[f"spikes_{k}"] = ((len(samples), manifest.steps, -(-size // 8)), np.uint8)
    summed = Decision.parse(manifest.decision).of_membranes
    if summed:
        expected["scores"] = ((len(samples), manifest.layers[-1]), np.int64)
    arrays_path = Path(folder) / payload.ARRAYS.format(shard)
    arrays = read_arrays(checked_bytes(arrays_path, part), str(arrays_path), expected)
    return Shard(
        shard=shard,
        samples=samples,
        spikes={k: arrays[f"spikes_{k}"] for k in range(len(manifest.layers)) if manifest.record},
        voltage=[arrays[f"voltage_{k}"] for k in range(len(manifest.layers))],
        scores=arrays["scores"] if summed else None,
        wall_s=read.number("wall_s"),
        build_s=read.number("build_s"),
        profile=_profile(read, len(samples)),
        profile_error=None if values["profile_error"] is None else read.text("profile_error"),
        versions=read.strings("versions"),
    )


def _profile(read: Fields, samples: int) -> list[dict[str, Any]] | None:
    profile = read.values["profile"]
    if profile is None:
        return None

    def figure(value: Any) -> bool:
        if isinstance(value, list):
            return len(value) <= 64 and all(type(v) in (int, float) for v in value)
        return value is None or type(value) in (int, float)

    if (
        not isinstance(profile, list)
        or len(profile) != samples
        or not all(isinstance(one, dict) and all(map(figure, one.values())) for one in profile)
    ):
        raise read.refuse("profile", f"figures of {samples} samples")
    return profile


@dataclass(frozen=True)
class Outcome:
    """What all samples of a bundle gave.

    Attributes:
        manifest: of the bundle. network: its network.
        labels: int64 (samples,). decisions: int64 (samples,), see :func:`delaynet_lava.trace.decide`.
        shards: what each share gave.
    """

    manifest: Manifest
    network: Network
    labels: np.ndarray
    decisions: np.ndarray
    shards: tuple[Shard, ...]

    @property
    def right(self) -> int:
        """Right decisions."""
        return int(np.count_nonzero(self.decisions == self.labels))

    @property
    def wall_s(self) -> float:
        """Seconds that the samples ran, all shares together."""
        return sum(shard.wall_s for shard in self.shards)

    @property
    def trace(self) -> Trace:
        """The trace of all samples; spikes are unpacked, a byte each."""
        return Trace.join([part for _, part in _parts(self.manifest, self.shards)])

    def parts(self) -> Iterator[tuple[int, Trace]]:
        """Traces of consecutive samples in bounded memory, each with the index of its first."""
        return _parts(self.manifest, self.shards)


def _parts(manifest: Manifest, shards: tuple[Shard, ...]) -> Iterator[tuple[int, Trace]]:
    everything = manifest.channels + 6 * sum(manifest.layers)
    size = max(1, _BATCH_BYTES // (manifest.steps * everything))
    for shard in shards:
        for first in range(0, len(shard.samples), size):
            chosen = slice(first, min(first + size, len(shard.samples)))
            spikes = {
                k: np.unpackbits(bits[chosen], axis=2, count=manifest.layers[k])
                for k, bits in shard.spikes.items()
            }
            batch = chosen.stop - chosen.start
            yield (
                shard.samples.start + first,
                Trace(
                    backend=manifest.backend,
                    steps=manifest.steps,
                    batch=batch,
                    final_voltage=[v[chosen] for v in shard.voltage],
                    u_wraps=[],
                    v_saturations=[],
                    spike_counts=[s.sum(axis=(1, 2), dtype=np.int64) for s in spikes.values()],
                    spikes=spikes,
                    scores=None if shard.scores is None else shard.scores[chosen],
                    wall_s=shard.wall_s * batch / len(shard.samples),
                ),
            )


def merge(folder: str | os.PathLike) -> Outcome:
    """Read a bundle and what all its shares gave.

    Raises:
        InputError: see :func:`delaynet_lava.deploy.bundle.read_manifest` and :func:`read_shard`.
    """
    manifest = read_manifest(folder)
    path = Path(folder) / "net.h5"
    network = netx.read(path)
    if network.channels != manifest.channels or [k.size for k in network.layers] != list(manifest.layers):
        raise InputError(
            str(path), f"is not the network that {payload.MANIFEST} describes: {network.summary()}"
        )
    if str(network.answer) != manifest.decision:
        raise InputError(
            str(path), f"answers by {network.answer}, {payload.MANIFEST} names {manifest.decision}"
        )
    _, labels = read_inputs(folder, manifest)
    shards = tuple(read_shard(folder, k, manifest) for k in range(manifest.shards))
    decisions = [decide(network, part) for _, part in _parts(manifest, shards)]
    return Outcome(manifest, network, labels, np.concatenate(decisions), shards)


def compare_with_emulator(
    network: Network, folder: str | os.PathLike, outcome: Outcome | None = None
) -> Comparison:
    """Run the bundle's inputs on the emulator and compare every integer that came back.

    Memory does not grow with the number of samples beyond the packed inputs and results.

    Args:
        outcome: of :func:`merge`, where it was called already.

    Raises:
        InputError: see :func:`merge`; or another network than the bundle's.
    """
    from delaynet_lava.emulator import emulate  # compiled loops: a board's results do without

    outcome = outcome or merge(folder)
    manifest = outcome.manifest
    if network.channels != manifest.channels or [k.size for k in network.layers] != list(manifest.layers):
        raise InputError("network", f"is not of the bundle's shape: {network.summary()}")
    if network.payload != manifest.payload:
        raise InputError("network", f"takes {network.payload}, the bundle holds {manifest.payload}")
    if str(network.answer) != manifest.decision:
        raise InputError("network", f"answers by {network.answer}, the bundle by {manifest.decision}")
    stored, _ = read_inputs(folder, manifest)
    # The bundle's inputs hold the tail of silence already.
    alone = network.with_(tail=0)
    total, firsts = Comparison(0, 0), []
    for start, part in outcome.parts():
        inputs = unpacked(manifest, stored[start : start + part.batch])
        result = emulate(alone, inputs, record=manifest.record).compare(part)
        total = Comparison(
            total.mismatches + result.mismatches,
            total.compared + result.compared,
            None,
            total.probe + result.probe,
        )
        if result.first is not None:
            firsts.append(replace(result.first, sample=start + result.first.sample))
    return replace(total, first=min(firsts, key=lambda d: (d.step, d.layer), default=None))
