"""Event-driven execution of one layer: work per spike, not per synapse and step.

A spike adds the weights of its sender's synapses into a ring of future synaptic inputs. The
arithmetic is that of :mod:`delaynet_lava.fixedpoint`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava.fixedpoint import (
    V_MAX,
    membrane_update,
    reset_membrane,
    saturates,
    synaptic_current,
    u_overflows,
    wrap_u,
)

__all__ = ["NO_SYNAPSES", "EventList", "event_list", "run_layer"]


class EventList(NamedTuple):
    """Synapses by sending neuron, in runs of equal delay.

    The runs of sender j are ``start[j]`` to ``start[j + 1]``. A run that reaches most neurons is a
    row of ``rows``, whole and in order; any other is the entries ``first`` to ``last`` of ``target``
    and ``weight``.

    Attributes:
        start: int64 (pre + 1,); delay: int32 (runs,).
        row: int32 (runs,), index into ``rows``, or -1.
        first, last: int64 (runs,).
        target: int32, receiving neuron; weight: int32, exponent included.
        rows: int32 (R, post), weights of all neurons, exponent included.
    """

    start: np.ndarray
    delay: np.ndarray
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    rows: np.ndarray


def event_list(weight: np.ndarray, delay: np.ndarray, weight_exp: int) -> EventList:
    """Sort (post, pre) matrices into an :class:`EventList`; synapses of weight 0 are left out."""
    neurons, senders = weight.shape
    pre, post = np.nonzero(weight.T)
    lags = delay[post, pre].astype(np.int32)
    order = np.lexsort((post, lags, pre))
    pre, post, lags = pre[order], post[order], lags[order]
    words = weight[post, pre].astype(np.int32) << weight_exp
    borders = np.flatnonzero((np.diff(pre) != 0) | (np.diff(lags) != 0)) + 1
    first = np.concatenate([[0], borders]).astype(np.int64)[: len(pre)]
    last = np.append(first[1:], len(pre)).astype(np.int64)[: len(first)]
    start = np.zeros(senders + 1, np.int64)
    np.cumsum(np.bincount(pre[first], minlength=senders), out=start[1:])
    # One pass over all neurons in order is cheaper than a detour for a quarter of them.
    dense = np.flatnonzero(4 * (last - first) >= neurons)
    row = np.full(len(first), -1, np.int32)
    row[dense] = np.arange(len(dense))
    rows = np.zeros((len(dense), neurons), np.int32)
    for k, run in enumerate(dense):
        part = slice(first[run], last[run])
        rows[k, post[part]] = words[part]
    return EventList(start, lags[first], row, first, last, post.astype(np.int32), words, rows)


NO_SYNAPSES = event_list(np.zeros((1, 0), np.int16), np.zeros((1, 0), np.int16), 0)


@nb.njit(inline="always")
def _deliver(synapses, j, t, pending):
    length, n = pending.shape
    for run in range(synapses.start[j], synapses.start[j + 1]):
        arrival = pending[(t + 1 + synapses.delay[run]) % length]
        if synapses.row[run] >= 0:
            weights = synapses.rows[synapses.row[run]]
            for i in range(n):
                arrival[i] += weights[i]
        else:
            for k in range(synapses.first[run], synapses.last[run]):
                arrival[synapses.target[k]] += synapses.weight[k]


@nb.njit(parallel=True, cache=True)
def run_layer(
    inputs, offset, forward, recurrent, encode, du, dv, bias, threshold, reset, clock,
    u, v, pending, spikes, voltage, counts,
):  # fmt: skip
    """Advance one layer by ``spikes.shape[1]`` steps; state and results are the last six arguments.

    Args:
        inputs: uint8 (B, ..., C), spikes of the layer before; those of the first step are at
            ``offset``. (Offsets instead of slices: every layout of a slice would be compiled anew.)
        forward, recurrent: :class:`EventList`; recurrent may be empty.
        encode: int64 (3,), weight, bias and 1 for an encoder, whose neuron i takes
            ``(weight x + bias) << 6`` for the value x of channel i; else zeros.
        du, dv, bias, threshold, reset: as for :func:`kernels.recurrence.forward`.
        clock: number of steps that were run before.
        u, v: int64 (B, N).
        pending: int32 (B, L, N) with L >= largest delay + 2, ring of synaptic inputs to come.
        spikes: uint8 (B, T, N).
        voltage: int32 (B, ..., N), membrane after the reset, by step of the clock; or (0, 0, 0).
        counts: int64 (B, 3), added to: u wraps, v saturations, spikes.
    """
    batch, steps, _ = spikes.shape
    channels = inputs.shape[2]
    n = u.shape[1]
    length = pending.shape[1]
    encoder = encode[2] != 0
    keep_v = voltage.shape[0] > 0
    for b in nb.prange(batch):
        wraps, clips, fired = 0, 0, 0
        current, membrane, ring = u[b], v[b], pending[b]
        for step in range(steps):
            t = clock + step
            slot = ring[t % length]
            if encoder:
                for i in range(n):
                    slot[i] = encode[0] * inputs[b, offset + step, i] + encode[1]
            for i in range(n):
                wide_u = synaptic_current(current[i], np.int64(slot[i]), du)
                wraps += u_overflows(wide_u)
                current[i] = wrap_u(wide_u)
                slot[i] = 0
                wide_v = membrane_update(membrane[i], current[i], bias[i], dv)
                clips += saturates(wide_v)
                membrane[i] = min(max(wide_v, -V_MAX), V_MAX)
            for i in range(n):
                fires = membrane[i] > threshold
                spikes[b, step, i] = fires
                if fires:
                    fired += 1
                    membrane[i] = reset_membrane(membrane[i], threshold, reset)
                    if recurrent.start.shape[0] > 1:
                        _deliver(recurrent, i, t, ring)
                if keep_v:
                    voltage[b, t, i] = membrane[i]
            if not encoder:
                for j in range(channels):
                    if inputs[b, offset + step, j]:
                        _deliver(forward, j, t, ring)
        counts[b, 0] += wraps
        counts[b, 1] += clips
        counts[b, 2] += fired
