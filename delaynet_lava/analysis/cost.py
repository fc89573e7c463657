"""What an inference costs: events counted in a real run, and what the profile's figures make of them.

The counts are exact. A figure in joules or seconds never stands alone: it comes with the range over the
samples, the term it is made of, and the status and source of the profile's figure. Where the profile is
silent there are counts and no estimate. The estimates are of the terms that are named, not of a board.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.network import Dense, Network
from delaynet_lava.trace import Trace, check_inputs, with_tail

__all__ = ["COLUMNS", "ESTIMATE_COLUMNS", "Cost", "Count", "Estimate", "cost"]

COLUMNS = ("an inference", "mean", "least sample", "most sample", "status")
ESTIMATE_COLUMNS = (*("estimate", *COLUMNS[1:]), "figure", "figure is", "source")
_BYTES = 256 << 20
_SI = {"pJ": (1e-12, "J"), "nJ": (1e-9, "J"), "us": (1e-6, "s")}
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))
STEPS, UPDATES, OPERATIONS = "time steps", "neuron updates", "synaptic operations"
# What is counted -> the figure of the profile that it is multiplied by, and what the product is of.
TERMS = (
    ("energy of synaptic operations", OPERATIONS, "energy_per_synaptic_op"),
    ("energy of neuron updates", UPDATES, "energy_per_neuron_update"),
    ("static energy of a chip", STEPS, "energy_static_per_step"),
    ("time", STEPS, "time_per_step"),
)
UNUSED = "energy_dynamic_per_step"


@dataclass(frozen=True)
class Count:
    """How often something happens in an inference: mean, least and most over the samples."""

    name: str
    mean: float
    least: int
    most: int


@dataclass(frozen=True)
class Estimate:
    """A count times a figure of the profile; the product is inferred, however sure the figure is.

    Attributes:
        name: what it estimates.
        mean, least, most: in ``unit`` (J or s), over the samples that were run.
        figure: the profile's, with its unit; figure_status, source: how sure it is, where it is from.
    """

    name: str
    mean: float
    least: float
    most: float
    unit: str
    figure: str
    figure_status: str
    source: str


@dataclass(frozen=True)
class Cost:
    """Events of an inference, and what is known of their price.

    Attributes:
        profile: its name.
        samples, steps: what was run; dt_ms: duration of a step in the network's own time.
        counts: all of them, each exact.
        estimates: one for each of :data:`TERMS` that the profile has a figure for.
        notes: one line each: figures that the profile does not have, and what the estimates are not.
    """

    profile: str
    samples: int
    steps: int
    dt_ms: float
    counts: tuple[Count, ...]
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[list[str]]:
        """The counts, a line each, under :data:`COLUMNS`."""
        return [[c.name, f"{c.mean:,.1f}", f"{c.least:,}", f"{c.most:,}", "measured"] for c in self.counts]

    def estimate_rows(self) -> list[list[str]]:
        """The estimates, a line each, under :data:`ESTIMATE_COLUMNS`."""
        return [
            [
                e.name,
                *(_scaled(x, e.unit) for x in (e.mean, e.least, e.most)),
                *("inferred", e.figure, e.figure_status, e.source),
            ]
            for e in self.estimates
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "profile": self.profile,
            "samples": self.samples,
            "steps": self.steps,
            "dt_ms": self.dt_ms,
            "counts": [{**vars(c), "status": "measured"} for c in self.counts],
            "estimates": [{**vars(e), "status": "inferred"} for e in self.estimates],
            "notes": list(self.notes),
        }


def _scaled(value: float, unit: str) -> str:
    scale, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1])
    return f"{value / scale:.3g} {prefix}{unit}"


def _runs(
    network: Network, x: np.ndarray, trace: Trace | None
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Inputs and spikes by layer, uint8 (samples, steps, ...), some samples at a time."""
    everything = range(len(network.layers))
    if trace is not None:
        missing = [k for k in everything if k not in trace.spikes]
        if missing:
            raise InputError(
                "trace", f"holds no spikes of layers {missing}", "record the spikes of all layers"
            )
        if (trace.batch, trace.steps) != x.shape[:2]:
            raise InputError(
                "trace",
                f"is of {trace.batch} samples of {trace.steps} steps, "
                f"the inputs are {x.shape[0]} of {x.shape[1]}",
            )
        yield x, [trace.spikes[k] for k in everything]
        return
    some = max(1, _BYTES // (x.shape[1] * sum(layer.size for layer in network.layers)))
    for first in range(0, len(x), some):
        part = x[first : first + some]
        spikes = emulate(network, part, ("spikes",)).spikes
        yield part, [spikes[k] for k in everything]


def _events(network: Network, x: np.ndarray, spikes: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> int64 (samples,)."""
    samples, steps = x.shape[:2]
    neurons = sum(layer.size for layer in network.layers)
    # Spikes of every sender: the input channels, then the layers.
    sent = [np.count_nonzero(s, axis=1) for s in (x, *spikes)]
    events = {
        STEPS: np.full(samples, steps),
        UPDATES: np.full(samples, steps * neurons),
        "input events": sent[0].sum(axis=1),
    }
    operations = {}
    for k, layer in enumerate(network.layers):
        events[f"spikes of layer {k}"] = sent[k + 1].sum(axis=1)
        if isinstance(layer, Dense):
            operations[f"forward into layer {k}"] = sent[k] @ np.count_nonzero(layer.synapse.weight, axis=0)
            if layer.recurrent is not None:
                fan_out = np.count_nonzero(layer.recurrent.weight, axis=0)
                operations[f"recurrent in layer {k}"] = sent[k + 1] @ fan_out
    total: np.ndarray = np.zeros(samples, np.int64)
    events[OPERATIONS] = sum(operations.values(), total)
    return events | {f"{OPERATIONS} {where}": n for where, n in operations.items()}


def _estimates(counts: dict[str, Count], profile: HardwareProfile) -> tuple[list[Estimate], list[str]]:
    estimates, silent = [], []
    for name, what, key in TERMS:
        value = profile.get(key)
        if value is None:
            silent.append(key)
            continue
        limit, count = profile.limits[key], counts[what]
        scale, unit = _SI[limit.unit]
        mean, least, most = (n * value * scale for n in (count.mean, count.least, count.most))
        figure = f"{value:g} {limit.unit} of {key}"
        estimates.append(Estimate(name, mean, least, most, unit, figure, limit.status, limit.source))
    return estimates, silent


def cost(network: Network, inputs: np.ndarray, profile: HardwareProfile, trace: Trace | None = None) -> Cost:
    """Count the events of each sample, and price them by the profile.

    A spike costs one synaptic operation for each of its sender's synapses (weight not zero), recurrent and
    into the next layer; those of the last steps too, whose delayed effect comes after the end. Every neuron
    is updated at every step. For an encoder the input events are the values other than zero.

    Args:
        inputs: uint8 or bool (samples, steps, channels); an inference is one sample.
        trace: of these inputs, from any backend, with the spikes of all layers; None: the emulator runs.

    Raises:
        InputError: inputs that the network does not take, or a trace that does not belong to them.
    """
    x = with_tail(network, check_inputs(network, inputs))
    parts = [_events(network, *run) for run in _runs(network.with_(tail=0), x, trace)]
    counts = {}
    for name in parts[0]:
        each = np.concatenate([part[name] for part in parts])
        counts[name] = Count(name, float(each.mean()), int(each.min()), int(each.max()))
    estimates, silent = _estimates(counts, profile)
    notes = [f"{profile.name} has no figure for {key}: counts only" for key in silent]
    if profile.get(UNUSED) is not None:
        notes.append(f"{UNUSED} is not used: it was measured on another network and goes with no count here")
    if any(e.unit == "J" for e in estimates):
        notes.append("energies are of the terms named and no others: no spike traffic, no host, no board")
    if any(e.unit == "s" for e in estimates):
        notes.append("time is of a chip that is not waiting for its host, and grows with load and cores used")
    return Cost(
        profile.name,
        len(x),
        x.shape[1],
        network.dt_ms,
        tuple(counts.values()),
        tuple(estimates),
        tuple(notes),
    )
