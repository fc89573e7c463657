"""Event-driven execution of one layer: work per spike, not per synapse and step.

Synapses are stored by sending neuron, absent ones (weight 0) left out; a spike adds its weights
into a ring of future synaptic inputs. The arithmetic is that of :mod:`delaynet_lava.fixedpoint`.
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

__all__ = ["EventList", "event_list", "run_layer"]


class EventList(NamedTuple):
    """Synapses by sending neuron: those of j are the entries ``start[j]`` to ``start[j + 1]``.

    Attributes:
        start: int64 (pre + 1,).
        target: int32, receiving neuron; weight: int32, exponent included; delay: int32.
    """

    start: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    delay: np.ndarray


def event_list(weight: np.ndarray, delay: np.ndarray, weight_exp: int) -> EventList:
    """Sort (post, pre) matrices into an :class:`EventList`, each sender's synapses by delay."""
    pre, post = np.nonzero(weight.T)
    order = np.lexsort((post, delay[post, pre], pre))
    pre, post = pre[order], post[order]
    start = np.zeros(weight.shape[1] + 1, np.int64)
    np.cumsum(np.bincount(pre, minlength=weight.shape[1]), out=start[1:])
    return EventList(
        start,
        post.astype(np.int32),
        weight[post, pre].astype(np.int32) << weight_exp,
        delay[post, pre].astype(np.int32),
    )


@nb.njit(inline="always")
def _deliver(synapses, j, t, pending):
    length = pending.shape[0]
    for k in range(synapses.start[j], synapses.start[j + 1]):
        pending[(t + 1 + synapses.delay[k]) % length, synapses.target[k]] += synapses.weight[k]


@nb.njit(parallel=True, cache=True)
def run_layer(
    inputs, forward, recurrent, encode, du, dv, bias, threshold, reset, clock,
    u, v, pending, spikes, voltage, counts,
):  # fmt: skip
    """Advance one layer by ``inputs.shape[1]`` steps; state and results are the last six arguments.

    Args:
        inputs: uint8 (B, T, C), spikes of the layer before.
        forward, recurrent: :class:`EventList`; recurrent may be empty.
        encode: int64 (3,), weight, bias and 1 for an encoder, whose neuron i takes
            ``(weight x + bias) << 6`` for the value x of channel i; else zeros.
        du, dv, bias, threshold, reset: as for :func:`kernels.recurrence.forward`.
        clock: number of steps that were run before.
        u, v: int64 (B, N).
        pending: int32 (B, L, N) with L >= largest delay + 2, ring of synaptic inputs to come.
        spikes: uint8 (B, T, N).
        voltage: int32 (B, T, N), membrane after the reset, or (0, 0, 0).
        counts: int64 (B, 3), added to: u wraps, v saturations, spikes.
    """
    batch, steps, channels = inputs.shape
    n = u.shape[1]
    length = pending.shape[1]
    encoder = encode[2] != 0
    keep_v = voltage.shape[0] > 0
    for b in nb.prange(batch):
        wraps, clips, fired = 0, 0, 0
        for step in range(steps):
            t = clock + step
            slot = pending[b, t % length]
            for i in range(n):
                wide_u = synaptic_current(u[b, i], np.int64(slot[i]), du)
                if encoder:
                    wide_u = synaptic_current(0, encode[0] * inputs[b, step, i] + encode[1], du)
                wraps += u_overflows(wide_u)
                u[b, i] = wrap_u(wide_u)
                slot[i] = 0
                wide_v = membrane_update(v[b, i], u[b, i], bias[i], dv)
                clips += saturates(wide_v)
                v[b, i] = min(max(wide_v, -V_MAX), V_MAX)
            for i in range(n):
                fires = v[b, i] > threshold
                spikes[b, step, i] = fires
                if fires:
                    fired += 1
                    v[b, i] = reset_membrane(v[b, i], threshold, reset)
                    if recurrent.start.shape[0] > 1:
                        _deliver(recurrent, i, t, pending[b])
                if keep_v:
                    voltage[b, step, i] = v[b, i]
            if not encoder:
                for j in range(channels):
                    if inputs[b, step, j]:
                        _deliver(forward, j, t, pending[b])
        counts[b, 0] += wraps
        counts[b, 1] += clips
        counts[b, 2] += fired
