"""What the cores of a chip do in each step, and how long the busiest one makes an inference at the least.

A step ends when the last core is done. So an inference takes no less than, added up over its steps, the
largest of what the busiest core's neuron updates, synaptic operations and reads of synapse memory take, and
the barrier between two steps. The counts are exact under the placement; the time of one operation is a
constant of the chip, and where the profile has none the counts stand alone. Traffic is counted as messages
sent, not as bits of a link: which link carries them depends on where on the chip the cores lie.

Source of the model: Timcheck, Pierro, Shrestha, arXiv:2601.10035 (Loihi 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.hw_profiles.cores import OUTSIDE, Demand, Part, reached
from delaynet_lava.hw_profiles.placement import Placement
from delaynet_lava.network import Network

__all__ = ["KINDS", "CoreLoad", "Load", "core_load"]

KINDS = ("neuron updates", "synaptic operations", "memory words read", "messages sent")
"""What a core does in a step. A spike is one message to each core that it reaches, and reads its list of
synapses there (words by the profile's format, else Loihi 1's)."""
_TIMED = {KINDS[0]: "time_per_neuron_update", KINDS[1]: "time_per_synaptic_op"}


@dataclass(frozen=True)
class CoreLoad:
    """One core: mean and most of each of :data:`KINDS` in a step, over all samples and steps."""

    core: int
    mean: tuple[float, ...]
    most: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Load:
    """All cores.

    Attributes:
        cores: in order of the placement.
        busiest: kind -> int64 (samples,): what the core that does most in a step does, added over the steps.
        messages: int64 (samples,), by all cores together.
        time_ns: float64 (samples,), the bound; None where the profile has no fitted times.
    """

    cores: tuple[CoreLoad, ...]
    busiest: dict[str, np.ndarray]
    messages: np.ndarray
    time_ns: np.ndarray | None


def _matrices(
    network: Network, profile: HardwareProfile, placed: Placement
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Neurons of each core; and for each sender layer (:data:`OUTSIDE`: the input) float64 (pre, 3, cores):
    its operations and words on each core, and, at the core that holds the sender, its messages."""
    demand, count = Demand(network, profile), len(placed.cores)
    parts = [(k, part) for k, core in enumerate(placed.cores) for part in core.parts]
    neurons = np.bincount([k for k, _ in parts], [p.stop - p.start for _, p in parts], count)
    found = []
    for p in demand.all():
        pre = p.present.shape[1]
        of = np.zeros((pre, 3, count))
        mine: list[tuple[int, Part]] = [(k, part) for k, part in parts if part.layer == p.target]
        for k, part in mine:
            lists = np.count_nonzero(p.present[part.start : part.stop], axis=0)
            of[:, 0, k] += lists
            of[:, 1, k] += demand.tables[id(p)][lists]
        if p.sender != OUTSIDE:
            of[np.arange(pre), 2, placed.core_of(p.sender)] = reached(p, [part for _, part in mine])
        found.append((p.sender, of))
    return neurons, found


def core_load(
    network: Network,
    profile: HardwareProfile,
    placed: Placement,
    runs: Iterable[tuple[np.ndarray, list[np.ndarray]]],
) -> Load:
    """Count what each core does, step by step.

    Args:
        runs: inputs (samples, steps, channels) and spikes by layer, some samples at a time.
    """
    neurons, matrices = _matrices(network, profile, placed)
    count, steps = len(neurons), 0
    total, most = np.zeros((4, count)), np.zeros((4, count), np.int64)
    total[0], most[0] = neurons, neurons
    busiest: list[list[int]] = []
    messages, times = [], []
    per = [profile.fitted.get(_TIMED.get(kind, "")) for kind in KINDS]
    for x, spikes in runs:
        for sample in range(len(x)):
            sent = {OUTSIDE: x[sample], **{k: s[sample] for k, s in enumerate(spikes)}}
            load = np.zeros((x.shape[1], 3, count))
            for sender, of in matrices:
                # An input's payload is one message, whatever its value.
                load += np.tensordot((sent[sender] != 0).astype(np.float64), of, 1)
            steps += x.shape[1]
            total[1:] += load.sum(axis=0)
            most[1:] = np.maximum(most[1:], load.max(axis=0).astype(np.int64))
            top = [int(neurons.max()) * x.shape[1], *load.max(axis=2).sum(axis=0).astype(np.int64).tolist()]
            busiest.append(top)
            messages.append(int(load[:, 2].sum()))
            works = np.stack([np.full(x.shape[1], neurons.max()), *load.max(axis=2).T])
            times.append([w * one.value for w, one in zip(works, per, strict=True) if one is not None])
    barrier = profile.get("time_per_step")
    bound = None
    if times and times[0] and barrier is not None:
        bound = np.array([np.max([np.full_like(one[0], barrier * 1e3), *one], axis=0).sum() for one in times])
    mean = total / np.array([1, steps, steps, steps])[:, None]
    return Load(
        tuple(
            CoreLoad(k, tuple(mean[:, k].tolist()), tuple(int(n) for n in most[:, k])) for k in range(count)
        ),
        {kind: np.array([top[k] for top in busiest]) for k, kind in enumerate(KINDS)},
        np.array(messages),
        bound,
    )
