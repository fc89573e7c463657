"""Eligibility traces of LIF synapses: what e-prop keeps instead of going back through time.

Float32, in SLAYER's units. One sweep forward; a synapse holds one trace, whatever the number of steps.
The traces are brought up to date every 64 steps, as a product of matrices.

Source: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking neurons"
(2020), equations 22 to 28 for LIF neurons.

Shapes: B batch, K steps of a segment, N neurons, P neurons of the layout, C inputs, S senders (inputs,
then the neurons of the layer), filled up to a multiple of :data:`kernels.vectors.BLOCK`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_TRIANGLE
from delaynet_lava.kernels.neurons import SCALE, SMALLEST, UNIT, ZERO
from delaynet_lava.kernels.recurrence import FAST, GROUPS, SPAN
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared
from delaynet_lava.kernels.vectors import BLOCK, ROWS, multiply

__all__ = ["Traces", "accumulate"]


class Traces(NamedTuple):
    """What a synapse, a sender and a neuron have gathered so far.

    Attributes:
        trace: float32 (B, S), eps.
        latest, faded: float32 (B, N, S) and (B, N): eps at the neuron's last spike and what is left of it;
            zero before. Of no neurons for the soft reset.
        eligible: float32 (B, N, S), ebar.
        filtered: float32 (B, N), sbar.
        summed: float32 (GROUPS, N, S), the sum of e over steps and samples; (GROUPS, 0, S): not wanted.
            Groups of samples, as for :func:`kernels.recurrence.backward_segment`.
    """

    trace: np.ndarray
    latest: np.ndarray
    faded: np.ndarray
    eligible: np.ndarray
    filtered: np.ndarray
    summed: np.ndarray


@inner(fastmath=FAST)
def _senders(t, bits, fired, channels, delay, arrived):
    """What each sender delivers at step t of one sample."""
    arrived[:] = ZERO
    for w in range(bits.shape[1]):
        word = bits[t, w]
        while word != 0:
            arrived[64 * w + lowest_bit(word)] = UNIT
            word &= word - ONE
    for i in range(delay.shape[0]):
        sent = t - 1 - delay[i]
        if sent >= 0 and fired[sent, i // 64] >> np.uint64(i % 64) & ONE:
            arrived[channels + i] = UNIT


@inner(fastmath=FAST)
def _filter(trace, alpha, arrived, rows, k):
    """One step of the senders' traces, and a copy in row k of :func:`kernels.vectors.in_blocks`."""
    for i in range(trace.shape[0]):
        now = alpha * trace[i] + arrived[i]
        # Arithmetic on numbers that underflow is a hundred times slower.
        trace[i] = now if now > SMALLEST else ZERO
    for block in range(rows.shape[0]):
        for i in range(BLOCK):
            rows[block, k, i] = trace[BLOCK * block + i]


@inner(fastmath=FAST)
def _slopes(v, threshold, surrogate, width, height, psi):
    th = np.float32(threshold) * SCALE
    for j in range(psi.shape[0]):
        distance = np.float32(v[j]) * SCALE - th
        if surrogate == SURROGATE_PAPER:
            psi[j] = height * min(max(UNIT + distance / width, ZERO), UNIT)
        elif surrogate == SURROGATE_TRIANGLE:
            psi[j] = height * max(UNIT - abs(distance) / width, ZERO)
        else:
            psi[j] = height * np.exp(-abs(distance) / width)


@inner(fastmath=FAST)
def _add_products(weights, rows, keep, out, total):
    """``total = keep total + weights @ rows``."""
    for first in range(0, total.shape[0], ROWS):
        multiply(weights[first : first + ROWS], rows, out)
        for r in range(min(ROWS, total.shape[0] - first)):
            for i in range(total.shape[1]):
                now = keep * total[first + r, i] + out[r, i]
                total[first + r, i] = now if abs(now) > SMALLEST else ZERO


@inner(fastmath=FAST)
def _take(total, factor, row):
    for i in range(total.shape[0]):
        total[i] -= factor * row[i]


@inner(fastmath=FAST)
def _forget(j, steps, first, fired, alpha, rows, faded, latest, weights, plain, total, summed):
    """Take from the sums of neuron j what came before its last spike, which a reset to zero erases.

    What is left of ``latest[j]``, the traces at that spike, is ``faded[j]`` of it.
    """
    taken, taken_plain = ZERO, ZERO
    for k in range(steps + 1):
        spike = k < steps and fired[first + k, j // 64] >> np.uint64(j % 64) & ONE != 0
        if k < steps:
            faded[j] *= alpha
            taken += weights[j, k] * faded[j]
            taken_plain += plain[j, k] * faded[j]
        if spike or k == steps:
            _take(total[j], taken, latest[j])
            if summed.shape[0] > 0:
                _take(summed[j], taken_plain, latest[j])
            taken, taken_plain = ZERO, ZERO
        if spike:
            for block in range(rows.shape[0]):
                for i in range(BLOCK):
                    latest[j, BLOCK * block + i] = rows[block, k, i]
            faded[j] = UNIT


@compiled(fastmath=FAST)
def accumulate(
    pieces, first, steps, bits, fired, channels, delay, v, threshold, reset, surrogate, width, height,
    alpha, kappa, traces,
):  # fmt: skip
    """Advance the traces by the steps of one segment.

    With psi the surrogate derivative at the membrane v and z_i[t] what sender i delivers at step t:

        eps_i[t] = alpha eps_i[t-1] + z_i[t]
        e_ji[t] = psi_j[t] (eps_i[t]  or, for the reset to zero,  eps_i[t] - alpha^(t - r) eps_i[r])
        ebar_ji[t] = kappa ebar_ji[t-1] + e_ji[t]
        sbar_j[t] = kappa sbar_j[t-1] + s_j[t]

    where r is the step in which neuron j last fired.

    Plain version: ``through_time`` in tests/test_eprop.py, whose gradient is the same where e-prop is exact.

    Args:
        pieces: :data:`GROUPS` groups of samples, as :func:`kernels.threads.each` draws them.
        first, steps: the segment's first step and how many it has.
        bits: uint64 (B, T, words), input spikes; those of step t act at step t.
        fired: uint64 (B, T, words), spikes of the layer up to the end of the segment.
        channels: C. delay: int32 (N,), of the layer's recurrent synapses; (0,): it has none.
        v: int32 (B, K, P), membrane before the reset.
        threshold, reset, surrogate, width, height: as for :func:`kernels.recurrence.backward_segment`.
        alpha, kappa: what a step leaves of the layer's membrane and of the readout's.
        traces: :class:`Traces`, changed in place.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    trace, latest, faded, eligible, filtered, summed = traces
    batch, n = filtered.shape
    alpha, kappa = np.float32(alpha), np.float32(kappa)
    width, height = np.float32(width), np.float32(height)
    for group in each(borrowed(pieces)):
        arrived, psi = np.zeros(trace.shape[1], np.float32), np.empty(n, np.float32)
        rows = np.zeros((trace.shape[1] // BLOCK, SPAN, BLOCK), np.float32)
        out = np.empty((ROWS, trace.shape[1]), np.float32)
        whole = (n + ROWS - 1) // ROWS * ROWS
        weights, plain = np.empty((whole, SPAN), np.float32), np.empty((whole, SPAN), np.float32)
        for b in range(group, batch, GROUPS):
            for start in range(first, first + steps, SPAN):
                length = min(SPAN, first + steps - start)
                weights[:] = ZERO
                plain[:] = ZERO
                later = UNIT
                for k in range(length):
                    _senders(start + k, bits[b], fired[b], channels, delay, arrived)
                    _filter(trace[b], alpha, arrived, rows, k)
                for k in range(length - 1, -1, -1):
                    _slopes(v[b, start - first + k], threshold, surrogate, width, height, psi)
                    for j in range(n):
                        plain[j, k] = psi[j]
                        weights[j, k] = later * psi[j]
                    later *= kappa
                _add_products(weights, rows, later, out, eligible[b])
                _add_products(plain, rows, UNIT, out, summed[group])
                for j in range(n):
                    if reset == 0:
                        _forget(
                            j, length, start, fired[b], alpha, rows, faded[b], latest[b], weights, plain,
                            eligible[b], summed[group],
                        )  # fmt: skip
                    for k in range(length):
                        spike = fired[b, start + k, j // 64] >> np.uint64(j % 64) & ONE != 0
                        now = kappa * filtered[b, j] + (UNIT if spike else ZERO)
                        filtered[b, j] = now if now > SMALLEST else ZERO
