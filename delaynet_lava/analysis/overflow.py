"""Can a current wrap, can a membrane saturate: proved for any input, and measured on data.

The proof follows the largest and the smallest synaptic input through the integer recursion. A constant
input ``c > 0`` drives ``x = decay(x, k) + c`` from rest, or from below, up to its least fixed point,

    x* = floor((c - 1) 4096 / k) + 1,

exactly, truncation included (``x - decay(x, k) = ceil(x k / 4096)``), and no input of at most c drives
it further, because the recursion is monotone; so too downwards. From an initial state beyond that point the
first step leads furthest. A neuron that can fire is reset before it
gets there: between spikes its membrane is at most the threshold, so before the reset it is at most
``decay(threshold, dv) + c``. A neuron that can't fire sends nothing, which is used in turn.

What the bound does not use is who can fire together: it lets all senders of one sign fire at each step.
:func:`worst_found` looks for the inputs that come closest to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.emulator import Extremes, extremes
from delaynet_lava.network import Dense, Encoder, Layer, Network, Src

__all__ = ["UNBOUNDED", "Bound", "bounds", "headroom_bits", "report", "worst_found"]

UNBOUNDED = 1 << 62
"""Stands for a state that grows for ever: one that does not decay."""


@dataclass(frozen=True, eq=False)
class Bound:
    """What the states of a layer can't leave, for any input.

    Attributes:
        u_low, u_high: int64 (neurons,), current before the wrap; once it has wrapped, it may be anything. i
            of a Spiking Recurrent Cell, before it saturates.
        v_low, v_high: int64 (neurons,), membrane before the reset and the clip; h of a cell.
        v_limit: the membrane's largest value, or a readout's threshold, beyond which its answer is reset.
        fires: bool (neurons,), can spike at all.
        clips: whether the current saturates instead of wrapping.
    """

    u_low: np.ndarray
    u_high: np.ndarray
    v_low: np.ndarray
    v_high: np.ndarray
    v_limit: int
    fires: np.ndarray
    clips: bool = False

    @property
    def wraps(self) -> np.ndarray:
        """bool (neurons,): the current is not cleared of wrapping, or of saturating where it does that."""
        if self.clips:
            return fx.saturates(self.u_high) | fx.saturates(self.u_low)
        return fx.u_overflows(self.u_high) | fx.u_overflows(self.u_low)

    @property
    def saturates(self) -> np.ndarray:
        """bool (neurons,): the membrane is not cleared of leaving its range."""
        return fx.saturates(self.v_high, self.v_limit) | fx.saturates(self.v_low, self.v_limit)


def headroom_bits(low: np.ndarray, high: np.ndarray, limit: int) -> np.ndarray:
    """``log2(limit / largest magnitude)`` of each neuron; negative: the bits that are missing."""
    return np.log2(limit / np.maximum(np.maximum(-low, high), 1))


def _settled(drive: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Where a constant drive takes a state that decays by k; 0 where it is not positive."""
    reached = np.where(np.equal(k, 0), UNBOUNDED, (drive - 1) * fx.DECAY_ONE // np.maximum(k, 1) + 1)
    return np.where(drive > 0, reached, 0)


def _driven(drive: np.ndarray, k: int | np.ndarray, start: np.ndarray) -> np.ndarray:
    """The furthest up that a constant drive takes a state, from ``start`` on; at least 0."""
    return np.maximum(_settled(drive, k), fx.decay(start, k) + drive)


def _of_input(layer: Layer, low: np.ndarray, high: np.ndarray) -> Bound:
    """Bound of a layer whose synaptic input stays between ``low`` and ``high``."""
    neuron = layer.neuron
    if isinstance(neuron, Src):
        return _of_cells(neuron, low, high)
    du = fx.DECAY_ONE if isinstance(layer, Encoder) else neuron.du
    u_init, v_init = (state.astype(np.int64) for state in neuron.initial(layer.size))
    u_low, u_high = (
        -_driven(-low << fx.STATE_SHIFT, du, -u_init), _driven(high << fx.STATE_SHIFT, du, u_init)
    )  # fmt: skip
    wraps = fx.u_overflows(u_low) | fx.u_overflows(u_high)
    bias = neuron.shifted_bias(layer.size)
    unit_exp, limit = neuron.grid
    half = (1 << unit_exp) >> 1
    # In the membrane's unit from here. A current that wraps may be anything in 24 bits.
    least = (np.where(wraps, 1 - fx.UV_HALF, u_low) + bias + half) >> unit_exp
    most = (np.where(wraps, fx.UV_HALF, u_high) + bias + half) >> unit_exp
    threshold = neuron.threshold >> unit_exp
    start = v_init >> unit_exp
    v_low, v_high = -_driven(-least, neuron.dv, -start), _driven(most, neuron.dv, start)
    fires = np.minimum(v_high, limit >> unit_exp) > threshold
    # Before the first spike the initial state may be more.
    left = np.maximum(threshold, start)
    if neuron.reset == "subtract":
        # A membrane may hold more than the threshold after a spike, and gain more than it loses.
        grows = fx.decay(left, neuron.dv) + most > left + threshold
        left = np.where(grows, _settled(most - threshold, neuron.dv), left)
    before_reset = fx.decay(np.minimum(left, 1 << 49), neuron.dv) + most
    before_reset = np.where(left == UNBOUNDED, UNBOUNDED, before_reset)
    if not neuron.is_readout:
        v_high = np.where(fires, before_reset, v_high)
    scaled = [np.where(np.abs(v) == UNBOUNDED, v, v << unit_exp) for v in (v_low, v_high)]
    v_limit = min(limit, neuron.threshold) if neuron.is_readout else limit
    return Bound(u_low, u_high, scaled[0], scaled[1], v_limit, fires)


def _of_cells(neuron: Src, low: np.ndarray, high: np.ndarray) -> Bound:
    """i as the current of other neurons; h is within +-1. A cell to which nothing comes never fires."""
    shift, rest = neuron.shift, np.zeros_like(low)
    least, most = ((a << shift) if shift >= 0 else (a >> -shift) for a in (low, high))
    i_low, i_high = -_driven(-least, neuron.decay, rest), _driven(most, neuron.decay, rest)
    one = np.full_like(low, fx.DECAY_ONE)
    return Bound(i_low, i_high, -one, one, fx.V_MAX, (low != 0) | (high != 0), clips=True)


def bounds(network: Network) -> list[Bound]:
    """What no input can drive the states of each layer beyond."""
    found: list[Bound] = []
    for layer in network.layers:
        if isinstance(layer, Encoder):
            payload = network.payload
            ends = np.sort([x * layer.weight + layer.bias for x in (payload.low, payload.high)])
            found.append(_of_input(layer, *(np.full(layer.size, end, np.int64) for end in ends)))
            continue
        senders = found[-1].fires if found else np.ones(layer.synapse.shape[1], bool)
        low, high = layer.synapse.sums(network.payload_into(len(found)), senders)
        found.append(_of_recurrence(layer, low, high))
    return found


def _of_recurrence(layer: Dense, low: np.ndarray, high: np.ndarray) -> Bound:
    fires = np.ones(layer.size, bool)
    while True:
        sent = layer.neuron.sends
        back = (0, 0) if layer.recurrent is None else layer.recurrent.sums(sent, fires)
        bound = _of_input(layer, low + back[0], high + back[1])
        if layer.recurrent is None or np.array_equal(bound.fires, fires):
            return bound
        # Who can't fire although all others do never does, so the others get less.
        fires = fires & bound.fires


def worst_found(
    network: Network,
    layer: int,
    state: str = "v_low",
    steps: int = 200,
    rounds: int = 200,
    population: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """Inputs that drive a state of a layer far, by hill climbing; integers (population, steps, channels).

    Every round changes a stretch of time of some channels in each of the inputs, and keeps the change
    where it takes the layer's most extreme neuron no less far.

    Args:
        state: a field of :class:`delaynet_lava.emulator.Extremes`.
    """
    rng = np.random.default_rng(seed)
    payload = network.payload
    ends = np.array([payload.low, payload.high]) if payload.signed else np.array([payload.high])

    def reach(inputs: np.ndarray) -> np.ndarray:
        values = getattr(extremes(network, inputs)[layer], state).astype(np.int64)
        return -values.min(axis=1) if state.endswith("low") else values.max(axis=1)

    rates = rng.random((population, 1, network.channels))
    active = rng.random((population, steps, network.channels)) < rates
    best = (active * rng.choice(ends, active.shape)).astype(payload.dtype)
    far = reach(best)
    for _ in range(rounds):
        tried = best.copy()
        for one in tried:
            first, last = np.sort(rng.integers(0, steps, 2, endpoint=True))
            channels = rng.random(network.channels) < rng.random() ** 2
            one[first:last, channels] = rng.choice(ends) * (rng.random() < 0.5)
        further = reach(tried)
        better = further >= far
        best[better], far[better] = tried[better], further[better]
    return best


def report(network: Network, observed: list[Extremes] | None = None) -> list[dict[str, Any]]:
    """Two rows a layer, for u and v: bound, limit, head-room, neurons that aren't cleared, extremes seen.

    ``headroom_bits`` is that of the worst neuron; where it is negative, ``uncleared`` holds each neuron
    that may overflow and the bits that it lacks. ``slack_bits`` is how much further than the extremes that
    were seen the bound reaches. All three are None where the state grows for ever.
    """
    rows = []
    for k, (layer, bound) in enumerate(zip(network.layers, bounds(network), strict=True)):
        for name, limit, over in (
            ("u", fx.UV_HALF, bound.wraps),
            ("v", bound.v_limit, bound.saturates),
        ):
            low, high = getattr(bound, f"{name}_low"), getattr(bound, f"{name}_high")
            spare = [
                None if max(-lowest, highest) == UNBOUNDED else float(headroom_bits(lowest, highest, limit))
                for lowest, highest in zip(low, high, strict=True)
            ]
            bounded = [bits for bits in spare if bits is not None]
            least = min(bounded) if len(bounded) == len(spare) else None
            row: dict[str, Any] = {
                "layer": k,
                "state": name,
                "neurons": layer.size,
                "limit": limit,
                "bound_low": None if low.min() == -UNBOUNDED else int(low.min()),
                "bound_high": None if high.max() == UNBOUNDED else int(high.max()),
                "headroom_bits": least,
                "cleared": int(layer.size - np.count_nonzero(over)),
                "uncleared": [
                    {"neuron": int(i), "bits": None if spare[i] is None else -spare[i]}
                    for i in np.flatnonzero(over)
                ],
            }
            if observed is not None:
                seen_low = getattr(observed[k], f"{name}_low").min(axis=0).astype(np.int64)
                seen_high = getattr(observed[k], f"{name}_high").max(axis=0).astype(np.int64)
                seen = float(headroom_bits(seen_low, seen_high, limit).min())
                row |= {
                    "observed_low": int(seen_low.min()),
                    "observed_high": int(seen_high.max()),
                    "observed_headroom_bits": seen,
                    "slack_bits": None if least is None else seen - least,
                }
            rows.append(row)
    return rows
