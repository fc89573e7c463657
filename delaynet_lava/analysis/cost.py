"""What an inference costs: events counted in a real run, and what the profile's figures make of them.

The counts are exact. A figure in joules or seconds never stands alone: it comes with the range over the
samples, the term it is made of, and the status and source of the profile's figure; one of a fitted model
also with how far that model is off. Where the profile is silent there are counts and no estimate. The
estimates are of the terms that are named, not of a board. Static energy is power times time. What the
busiest core does bounds the time of a run from below: :mod:`delaynet_lava.analysis.busiest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from delaynet_lava.analysis.busiest import KINDS, CoreLoad, Load, core_load
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.hw_profiles.placement import Placement
from delaynet_lava.network import Dense, Network
from delaynet_lava.trace import Trace, check_inputs, with_tail

__all__ = ["COLUMNS", "CORE_COLUMNS", "ESTIMATE_COLUMNS", "Cost", "Count", "Estimate", "cost"]

COLUMNS = ("an inference", "mean", "least sample", "most sample", "status")
ESTIMATE_COLUMNS = (*("estimate", *COLUMNS[1:]), "figure", "figure is", "off by", "source")
CORE_COLUMNS = ("core, a step", *(f"{kind}, {what}" for kind in KINDS for what in ("mean", "most")))
_BYTES = 256 << 20
_SI = {"pJ": (1e-12, "J"), "us": (1e-6, "s")}
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))
STEPS, UPDATES, OPERATIONS = "time steps", "neuron updates", "synaptic operations"
# What is counted -> the figure of the profile that it is multiplied by, and what the product is of.
TERMS = (
    ("energy of synaptic operations", OPERATIONS, "energy_per_synaptic_op"),
    ("energy of neuron updates", UPDATES, "energy_per_neuron_update"),
    ("time, at least", STEPS, "time_per_step"),
)
POWER, STEP_TIME = "power_static", "time_per_step"
SPIKES, MESSAGES = "spikes", "messages"
FITTED_TERMS = (
    (OPERATIONS, "energy_per_synaptic_op"),
    (UPDATES, "energy_per_neuron_update"),
    (SPIKES, "energy_per_spike"),
    (MESSAGES, "energy_per_message"),
)
UNUSED = "energy_dynamic_per_step"
_BOUND = (
    "an inference takes no less than the largest of what the busiest core does, times the chip's time for "
    "one of it (arXiv:2601.10035); a time that the profile has not is not made up, and its count stands alone"
)


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
        error_percent: how far a fitted model was off at most; None: no model.
    """

    name: str
    mean: float
    least: float
    most: float
    unit: str
    figure: str
    figure_status: str
    source: str
    error_percent: float | None = None


@dataclass(frozen=True)
class Cost:
    """Events of an inference, and what is known of their price.

    Attributes:
        profile: its name.
        samples, steps: what was run; dt_ms: duration of a step in the network's own time.
        counts: all of them, each exact.
        estimates: one for each of :data:`TERMS` that the profile has a figure for, and a fitted model's.
        busiest: what the busiest core does, added over the steps: what bounds the time of an inference.
        cores: each core's part in a step. Both are empty without a placement.
        notes: one line each: figures that the profile does not have, and what the estimates are not.
    """

    profile: str
    samples: int
    steps: int
    dt_ms: float
    counts: tuple[Count, ...]
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]
    busiest: tuple[Count, ...] = ()
    cores: tuple[CoreLoad, ...] = ()

    def rows(self) -> list[list[str]]:
        """The counts, a line each, under :data:`COLUMNS`."""
        return [[c.name, f"{c.mean:,.1f}", f"{c.least:,}", f"{c.most:,}", "measured"] for c in self.counts]

    def estimate_rows(self) -> list[list[str]]:
        """The estimates, a line each, under :data:`ESTIMATE_COLUMNS`."""
        return [
            [
                e.name,
                *(_scaled(x, e.unit) for x in (e.mean, e.least, e.most)),
                *("inferred", e.figure, e.figure_status),
                *("not known" if e.error_percent is None else f"{e.error_percent:g} %", e.source),
            ]
            for e in self.estimates
        ]

    def busiest_rows(self) -> list[list[str]]:
        """What bounds the time, a line each, under :data:`COLUMNS`."""
        return [
            [
                f"{c.name} of the busiest core",
                f"{c.mean:,.1f}",
                f"{c.least:,}",
                f"{c.most:,}",
                "of this placement",
            ]
            for c in self.busiest
        ]

    def core_rows(self) -> list[list[str]]:
        """A line a core under :data:`CORE_COLUMNS`."""
        return [
            [str(one.core), *(f"{x:,.1f}" if k % 2 == 0 else f"{x:,}" for k, x in enumerate(pairs))]
            for one in self.cores
            for pairs in [[x for pair in zip(one.mean, one.most, strict=True) for x in pair]]
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
            "busiest_core": [{**vars(c), "status": "of this placement"} for c in self.busiest],
            "cores": [
                {"core": c.core, "kinds": list(KINDS), "mean": list(c.mean), "most": list(c.most)}
                for c in self.cores
            ],
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
    power, step = profile.get(POWER), profile.get(STEP_TIME)
    if power is None:
        silent.append(POWER)
    elif step is not None:
        limit, count = profile.limits[POWER], counts[STEPS]
        mean, least, most = (n * step * 1e-6 * power for n in (count.mean, count.least, count.most))
        figure = f"{power:g} W of {POWER} for {step:g} us a step"
        estimates.append(
            Estimate(
                "static energy of a chip, at least",
                mean,
                least,
                most,
                "J",
                figure,
                limit.status,
                limit.source,
            )
        )
    return estimates, silent


def _fitted(each: dict[str, np.ndarray], load: Load | None, profile: HardwareProfile) -> Iterator[Estimate]:
    """What a fitted model makes of the same counts, and of the busiest core."""
    known = profile.fitted
    products = []
    for what, key in FITTED_TERMS:
        if key in known and what in each:
            one = known[key]
            assert isinstance(one.value, (int, float))
            products.append(each[what] * one.value * 1e-12)
            figure = f"{one.value:g} {one.unit} of {key}"
            yield _ranged(
                f"energy of {what}, fitted", products[-1], "J", figure, one.status, one.source, known
            )
    if len(products) == len(FITTED_TERMS):
        figure = "the fitted terms together"
        yield _ranged("dynamic energy, fitted", sum(products[1:], products[0]), "J", figure, "inferred",
                      known["energy_error"].source, known)  # fmt: skip
    if load is not None and load.time_ns is not None:
        figure = "in each step the largest of the busiest core's updates and operations and of time_per_step"
        yield _ranged("time by the busiest core, fitted", load.time_ns * 1e-9, "s", figure, "inferred",
                      known["time_error"].source, known)  # fmt: skip


def _ranged(
    name: str, values: np.ndarray, unit: str, figure: str, status: str, source: str, known: Any
) -> Estimate:
    error = known["energy_error" if unit == "J" else "time_error"].value
    least, most = float(values.min()), float(values.max())
    return Estimate(name, float(values.mean()), least, most, unit, figure, status, source, error)


def cost(
    network: Network,
    inputs: np.ndarray,
    profile: HardwareProfile,
    trace: Trace | None = None,
    placed: Placement | None = None,
) -> Cost:
    """Count the events of each sample, and price them by the profile.

    A spike costs one synaptic operation for each of its sender's synapses (weight not zero), recurrent and
    into the next layer; those of the last steps too, whose delayed effect comes after the end. Every neuron
    is updated at every step. For an encoder the input events are the values other than zero.

    Args:
        inputs: uint8 or bool (samples, steps, channels); an inference is one sample.
        trace: of these inputs, from any backend, with the spikes of all layers; None: the emulator runs.
        placed: of the network by the same profile; None: nothing is said of cores.

    Raises:
        InputError: inputs that the network does not take, or a trace that does not belong to them.
    """
    x = with_tail(network, check_inputs(network, inputs))
    parts: list[dict[str, np.ndarray]] = []

    def counted() -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        for run in _runs(network.with_(tail=0), x, trace):
            parts.append(_events(network, *run))
            yield run

    load = None
    if placed is None:
        for _ in counted():
            pass
    else:
        load = core_load(network, profile, placed, counted())
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    counts = {name: _count(name, values) for name, values in each.items()}
    estimates, silent = _estimates(counts, profile)
    each[SPIKES] = sum(
        (each[f"spikes of layer {k}"] for k in range(len(network.layers))), np.zeros(len(x), int)
    )
    if load is not None:
        each[MESSAGES] = load.messages
    estimates += _fitted(each, load, profile)
    notes = [f"{profile.name} has no figure for {key}: counts only" for key in silent]
    if profile.get(UNUSED) is not None:
        notes.append(f"{UNUSED} is not used: it was measured on another network and goes with no count here")
    if any(e.unit == "J" for e in estimates):
        notes.append("energies are of the terms named and no others: no spike traffic, no host, no board")
    if any(e.unit == "s" for e in estimates):
        notes.append("time is of a chip that is not waiting for its host, and grows with load and cores used")
    if any(e.name.startswith("static") for e in estimates):
        notes.append("static energy is power times time: steps that take longer cost more of it")
    if any(e.error_percent is not None for e in estimates):
        notes.append(
            "fitted figures are off by up to the error beside them, in sum; hops between cores are left out"
        )
    if load is not None:
        notes.append(_BOUND)
    return Cost(
        profile.name,
        len(x),
        x.shape[1],
        network.dt_ms,
        tuple(counts.values()),
        tuple(estimates),
        tuple(notes),
        () if load is None else tuple(_count(kind, values) for kind, values in load.busiest.items()),
        () if load is None else load.cores,
    )


def _count(name: str, values: np.ndarray) -> Count:
    return Count(name, float(values.mean()), int(values.min()), int(values.max()))
