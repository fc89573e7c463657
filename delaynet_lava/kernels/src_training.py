"""Loops of a layer of Spiking Recurrent Cells in training: forward in integers or in floats, and backward.

Both forward loops leave behind the two slopes that the backward loop needs; it does not know which ran.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.recurrence import GROUPS
from delaynet_lava.kernels.src_layer import step_cells

__all__ = ["backward", "find_events", "run_floats", "run_integers", "settle", "watch"]

_ONE = np.float32(1)


@compiled(parallel=True)
def find_events(x, senders, ends):
    """Which channels send something in which step.

    Plain version: ``integers`` in tests/test_src_training.py, which looks at every channel.

    Args:
        x: float32 (B, T, C).
        senders: int16 or int32 (B, T * C), written from the left: their numbers, step by step.
        ends: int64 (B, T + 1), written: where those of a step begin.
    """
    batch, steps, channels = x.shape
    for b in nb.prange(batch):
        k = 0
        ends[b, 0] = 0
        for t in range(steps):
            row = x[b, t]
            for j in range(channels):
                # Free of branches, which would be mispredicted at each spike. The last slot may be written
                # in vain, never one behind it.
                senders[b, min(k, senders.shape[1] - 1)] = j
                k += row[j] != 0
            ends[b, t + 1] = k


@nb.njit(inline="always")
def _arrive(x, senders, t, w, delay, ring):
    """Add what step t sends to the slots of the steps in which it acts; returns how many were rounded."""
    slots, rounded = ring.shape[0], 0
    for k in range(senders.shape[0]):
        j = senders[k]
        amount = ring.dtype.type(x[j])
        rounded += amount != x[j]
        row, target = w[j], ring[(t + delay[j]) % slots]
        for n in range(target.shape[0]):
            target[n] += amount * row[n]
    return rounded


@nb.njit(inline="always")
def _send_back(sent, t, w, delay, ring):
    """Add what the layer sent in step t to the slots of the steps in which it comes back."""
    slots = ring.shape[0]
    for j in range(w.shape[0]):
        if sent[j] != 0:
            row, target = w[j], ring[(t + 1 + delay[j]) % slots]
            for n in range(target.shape[0]):
                target[n] += sent[j] * row[n]


@nb.njit
def _longest(delay, delay_rec):
    """The largest of two lists of delays, either of which may be empty; 0 where both are."""
    longest = 0
    for j in range(delay.shape[0]):
        longest = max(longest, delay[j])
    for j in range(delay_rec.shape[0]):
        longest = max(longest, delay_rec[j])
    return longest


@compiled(parallel=True)
def run_integers(
    x, senders, ends, w, delay, w_rec, delay_rec, bias, start, form, late, out, slope_h, slope_x, counts
):
    """Forward in the integers of :func:`fixedpoint.src_step`.

    Plain version: ``integers`` in tests/test_src_training.py.

    Args:
        x: float32 (B, T, C), whole numbers. senders, ends: of :func:`find_events`.
        w: int32 (C, P), pre x post, words. delay: int32 (C,).
        w_rec: int32 (N or 0, P). delay_rec: int32 (N or 0,).
        bias: int32 (P,). start: int32 (3, P), i, h and h_s of the step before the first.
        form: a :class:`fixedpoint.SrcForm`. late: steps by which the output tensor is shifted.
        out: float32 (B, T, N), written, late by ``late``.
        slope_h, slope_x: float32 (B, T, P), dh/dp and dx/di, written; (B, 0, 0): not wanted.
        counts: int64 (B, 2), how often i saturated, and how many inputs were no whole numbers; written.
    """
    batch, steps, _ = x.shape
    lanes, neurons, wanted = w.shape[1], out.shape[2], slope_h.shape[1] > 0
    longest = _longest(delay, delay_rec)
    for b in nb.prange(batch):
        ring = np.zeros((longest + 2, lanes), np.int32)
        i, h, slow = start[0].copy(), start[1].copy(), start[2].copy()
        p, sent = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
        out[b, :late] = 0
        over = fractions = 0
        for t in range(steps):
            fractions += _arrive(x[b, t], senders[b, ends[b, t] : ends[b, t + 1]], t, w, delay, ring)
            now = ring[t % ring.shape[0]]
            over += step_cells(now, bias, form, i, h, slow, p, sent)
            if wanted:
                _slopes(p, i, form, slope_h[b, t], slope_x[b, t])
            if t + late < steps:
                row = out[b, t + late]
                for n in range(neurons):
                    row[n] = np.float32(sent[n])
            now[:] = 0
            if w_rec.shape[0]:
                _send_back(sent, t, w_rec, delay_rec, ring)
        counts[b, 0], counts[b, 1] = over, fractions


@compiled()
def settle(bias, form, state, steps):
    """Advance i, h and h_s, int32 or float (3, P), by silent steps; arguments as of :func:`run_integers`.

    Plain version: ``rest`` in tests/plain.py.
    """
    nothing, p, sent = np.zeros(bias.shape[0], np.int32), np.empty_like(bias), np.empty_like(bias)
    for _ in range(steps):
        step_cells(nothing, bias, form, state[0], state[1], state[2], p, sent)


@compiled()
def watch(arriving, bias, form, state, seen):
    """What cells do with synaptic sums that are given.

    Plain version: ``cell`` in tests/plain.py.

    Args:
        arriving: int32 (T, P). bias, form: as of :func:`run_integers`.
        state: int32 (3, P), i, h and h_s, changed in place.
        seen: int32 (4, T, P), written: i, h, h_s and what is sent.
    """
    p = np.empty_like(bias)
    for t in range(arriving.shape[0]):
        step_cells(arriving[t], bias, form, state[0], state[1], state[2], p, seen[3, t])
        seen[:3, t] = state


@nb.njit
def _slopes(p, i, form, slope_h, slope_x):
    """``max(0, 1 - |p|/2)`` and ``max(0, 1 - |i|/(2 rho))``, in which one is 4096."""
    for n in range(p.shape[0]):
        slope_h[n] = max(np.float32(0), _ONE - np.float32(abs(p[n])) * np.float32(1 / 8192))
        slope_x[n] = max(np.float32(0), _ONE - np.float32(abs(i[n])) * np.float32(1 / 24576))


@compiled(parallel=True)
def run_floats(
    x, senders, ends, w, delay, w_rec, delay_rec, bias, start, form, late, gate, out, slope_h, slope_x
):
    """Forward in the paper's equations 5a to 5f, float32; arguments as of :func:`run_integers`.

    Plain version: ``test_float_mode_is_a_torch_loop`` in tests/test_src_training.py.

    Args:
        w, w_rec: float32, the effective weights. bias, start: float32.
        gate: the steepness of the sigmoid that stands for the step of z_s; 0: the step.
    """
    batch, steps, _ = x.shape
    lanes, neurons, wanted = w.shape[1], out.shape[2], slope_h.shape[1] > 0
    keep, grain = np.float32(1 - form.input_decay / 4096), np.float32(2.0**form.output_bits)
    longest = _longest(delay, delay_rec)
    for b in nb.prange(batch):
        ring = np.zeros((longest + 2, lanes), np.float32)
        i, h, slow = start[0].copy(), start[1].copy(), start[2].copy()
        sent = np.zeros(lanes, np.float32)
        out[b, :late] = 0
        for t in range(steps):
            _arrive(x[b, t], senders[b, ends[b, t] : ends[b, t + 1]], t, w, delay, ring)
            now = ring[t % ring.shape[0]]
            for n in range(lanes):
                i[n] = keep * i[n] + now[n]
                drive = np.float32(3) * math.tanh(i[n] / np.float32(3))
                p = drive + np.float32(2) * h[n] - np.float32(form.slow) * slow[n] + bias[n]
                if gate == 0:
                    share = np.float32(0.9) if h[n] <= np.float32(0.5) else np.float32(0)
                else:
                    share = np.float32(0.9 / (1 + math.exp(gate * (h[n] - 0.5))))
                slow[n] = share * slow[n] + (_ONE - share) * h[n]
                h[n] = math.tanh(p)
                sent[n] = max(h[n], np.float32(0))
                if form.output_bits >= 0:
                    sent[n] = math.floor(sent[n] * grain + np.float32(0.5))
                if wanted:
                    slope_h[b, t, n] = _ONE - h[n] * h[n]
                    x_of = drive / np.float32(3)
                    slope_x[b, t, n] = _ONE - x_of * x_of
            if t + late < steps:
                for n in range(neurons):
                    out[b, t + late, n] = sent[n]
            now[:] = 0
            if w_rec.shape[0]:
                _send_back(sent, t, w_rec, delay_rec, ring)


@compiled(parallel=True, fastmath={"reassoc", "contract", "nsz"})
def backward(
    grad, out, x, senders, ends, delay, w_rec, delay_rec, slope_h, slope_x, form, late, scales, grad_a,
    grad_w, grad_rec, grad_b,
):  # fmt: skip
    """``g_i[t] = alpha g_i[t+1] + g_s[t] dh/dp dx/di``, and what follows from it for the weights.

    Plain version: ``reference`` in tests/test_src_training.py, and autograd.

    Args:
        grad, out: float32 (B, T, N), late by ``late``. x, delay: as of :func:`run_integers`.
        w_rec: float32 (N or 0, P), pre x post, effective weights. delay_rec: int32 (N or 0,).
        scales: float32 (3,): ds/dh in payloads; the effect of a stored weight by input, and by feedback.
        grad_a: float32 (B, T, P), written: of the synaptic sums.
        grad_w: float32 (GROUPS, C, P); grad_rec: float32 (GROUPS, N, P); grad_b: float32 (GROUPS, P): added
            to. Of no rows: not wanted.
    """
    batch, steps, _ = x.shape
    lanes, neurons = slope_h.shape[2], out.shape[2]
    keep = np.float32(1 - form.input_decay / 4096)
    for group in nb.prange(GROUPS):
        g = np.zeros(lanes, np.float32)
        outer = np.zeros(lanes, np.float32)
        for b in range(group, batch, GROUPS):
            g[:] = 0
            for back in range(steps):
                t = steps - 1 - back
                there = t + late
                outer[:] = 0
                if there < steps:
                    for n in range(neurons):
                        outer[n] = grad[b, there, n]
                for j in range(w_rec.shape[0]):
                    lag = t + 1 + delay_rec[j]
                    if lag < steps:
                        row, came = w_rec[j], grad_a[b, lag]
                        total = np.float32(0)
                        for n in range(lanes):
                            total += row[n] * came[n]
                        outer[j] += total
                        if grad_rec.shape[1] and there < steps and out[b, there, j] != 0:
                            amount, target = out[b, there, j] * scales[2], grad_rec[group, j]
                            for n in range(lanes):
                                target[n] += amount * came[n]
                _back_step(
                    outer, slope_h[b, t], slope_x[b, t], keep, scales[0], g, grad_a[b, t], grad_b[group]
                )
            if grad_w.shape[1]:
                for t in range(steps):
                    for k in range(ends[b, t], ends[b, t + 1]):
                        j = senders[b, k]
                        value = x[b, t, j]
                        if t + delay[j] < steps:
                            amount, came, target = (
                                value * scales[1],
                                grad_a[b, t + delay[j]],
                                grad_w[group, j],
                            )
                            for n in range(lanes):
                                target[n] += amount * came[n]


@nb.njit
def _back_step(outer, slope_h, slope_x, keep, grain, g, grad_a, grad_b):
    for n in range(g.shape[0]):
        into_p = outer[n] * grain * slope_h[n]
        grad_b[n] += into_p
        g[n] = keep * g[n] + into_p * slope_x[n]
        grad_a[n] = g[n]
