"""LIF neurons with an adaptive threshold, in float32: forward, and back through time.

Shapes: B batch, T steps, N neurons, P neurons of the layout (a multiple of 16; those beyond N have no
synapses), C inputs. Spikes are bits (:mod:`delaynet_lava.kernels.spikes`).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.neurons import SMALLEST, UNIT, ZERO
from delaynet_lava.kernels.recurrence import FAST, GROUPS
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared
from delaynet_lava.kernels.vectors import BLOCK, ROWS, multiply, write_row

__all__ = ["back_propagate", "run"]


@nb.njit(inline="always")
def _add_rows_of(word, number, rows, total):
    """Add to ``total`` the rows of the senders in word ``number``."""
    while word != 0:
        row = rows[64 * number + lowest_bit(word)]
        for i in range(total.shape[0]):
            total[i] += row[i]
        word &= word - ONE


@inner(fastmath=FAST)
def _update(v, a, z, total, distance, beta, alpha, rho, threshold):
    for i in range(v.shape[0]):
        v[i] = alpha * v[i] + total[i] - threshold * z[i]
        a[i] = rho * a[i] + z[i]
        distance[i] = v[i] - (threshold + beta[i] * a[i])
        z[i] = UNIT if distance[i] > ZERO else ZERO


@compiled(fastmath=FAST)
def run(pieces, bits, w_in, w_rec, beta, alpha, rho, threshold, fired, distance):
    """Run the layer from rest.

        v[t] = alpha v[t-1] + W_in x[t] + W_rec z[t-1] - threshold z[t-1]
        a[t] = rho a[t-1] + z[t-1]
        z[t] = v[t] > threshold + beta a[t]

    Plain version: ``plain`` in tests/test_adaptive.py.

    Args:
        pieces: samples, as :func:`kernels.threads.each` draws them.
        bits: uint64 (B, T, words), input spikes.
        w_in, w_rec: float32 (C or N, P), pre x post; (0, P): no recurrence.
        beta: float32 (P,).
        alpha, rho, threshold: numbers.
        fired: uint64 (B, T, words), written: spikes.
        distance: float32 (B, T, P), written: v less its threshold; (0, 0, 0): not wanted.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    alpha, rho, threshold = np.float32(alpha), np.float32(rho), np.float32(threshold)
    lanes = beta.shape[0]
    for b in each(borrowed(pieces)):
        v, a, z = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        total, here = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        for t in range(fired.shape[1]):
            total[:] = ZERO
            for w in range(bits.shape[2]):
                _add_rows_of(bits[b, t, w], w, w_in, total)
            if w_rec.shape[0] > 0 and t > 0:
                for w in range(fired.shape[2]):
                    _add_rows_of(fired[b, t - 1, w], w, w_rec, total)
            _update(v, a, z, total, here, beta, alpha, rho, threshold)
            for w in range(fired.shape[2]):
                word = np.uint64(0)
                for i in range(64 * w, min(64 * w + 64, lanes)):
                    word |= np.uint64(z[i] > ZERO) << np.uint64(i - 64 * w)
                fired[b, t, w] = word
            if distance.shape[0] > 0:
                write_row(here, distance[b, t])


@inner(fastmath=FAST)
def _step_back(gz, distance, gv, ga, beta, alpha, rho, threshold, dampening):
    """Gradients of v and a, from those of the step after and that of the spikes."""
    for i in range(gv.shape[0]):
        slope = dampening / threshold * max(UNIT - abs(distance[i]) / threshold, ZERO)
        through = slope * gz[i]
        now = through + alpha * gv[i]
        gv[i] = now if abs(now) > SMALLEST else ZERO
        now = rho * ga[i] - beta[i] * through
        ga[i] = now if abs(now) > SMALLEST else ZERO


@compiled(fastmath=FAST)
def back_propagate(
    pieces, grad_spikes, shift, distance, bits, fired, w_in, w_rec, beta, alpha, rho, threshold, dampening,
    reset_grad, feedback_grad, grad_input, grad_w_in, grad_w_rec,
):  # fmt: skip
    """Go back through all steps of :func:`run`; results go into the last line's arguments.

    With psi[t] = dampening / threshold max(0, 1 - |distance[t]| / threshold):

        g_z[t] = dL/dz[t] + feedback_grad W_rec^T g_v[t+1] - reset_grad threshold g_v[t+1] + g_a[t+1]
        g_v[t] = psi[t] g_z[t] + alpha g_v[t+1]
        g_a[t] = rho g_a[t+1] - beta psi[t] g_z[t]

    Plain version: ``plain`` in tests/test_adaptive.py, and autograd.

    Args:
        pieces: :data:`kernels.recurrence.GROUPS` groups of samples, as :func:`kernels.threads.each` draws
            them.
        grad_spikes: float32 (B, T, N); the gradient of the spikes of step t is at ``t + shift``.
        distance, bits, fired, beta, alpha, rho, threshold: as for :func:`run`.
        w_in, w_rec: float32, of :func:`kernels.vectors.in_blocks`, post x pre; an axis of 0 where the
            input's gradient is not wanted, or there is no recurrence.
        grad_input: float32 (B, T, C), or (0, 0, 0) where not wanted.
        grad_w_in, grad_w_rec: float32 (GROUPS, C or N, P), pre x post, added to; (0, 0, 0): not wanted.
            Samples are summed in groups: the grouping, not the threads, fixes the order of sums.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    alpha, rho, threshold = np.float32(alpha), np.float32(rho), np.float32(threshold)
    dampening, damp = np.float32(dampening), np.float32(feedback_grad)
    through_reset = np.float32(reset_grad) * threshold
    batch, steps, n = grad_spikes.shape
    lanes = beta.shape[0]
    tiles = (batch + ROWS - 1) // ROWS
    for group in each(borrowed(pieces)):
        gz = np.zeros(lanes, np.float32)
        gv, ga = np.zeros((ROWS, lanes), np.float32), np.zeros((ROWS, lanes), np.float32)
        p_tile = np.zeros((ROWS, w_rec.shape[0] * BLOCK), np.float32)
        x_tile = np.zeros((ROWS, w_in.shape[0] * BLOCK), np.float32)
        for tile in range(group * tiles // GROUPS, (group + 1) * tiles // GROUPS):
            base = tile * ROWS
            rows = min(ROWS, batch - base)
            gv[:] = ZERO
            ga[:] = ZERO
            for t in range(steps - 1, -1, -1):
                if w_rec.shape[0] > 0:
                    multiply(gv, w_rec, p_tile)
                for r in range(rows):
                    b = base + r
                    for i in range(lanes):
                        gz[i] = ga[r, i] - through_reset * gv[r, i]
                    if w_rec.shape[0] > 0:
                        for i in range(lanes):
                            gz[i] += damp * p_tile[r, i]
                    if t + shift < steps:
                        for i in range(n):
                            gz[i] += grad_spikes[b, t + shift, i]
                    _step_back(gz, distance[b, t], gv[r], ga[r], beta, alpha, rho, threshold, dampening)
                    if grad_w_in.shape[0] > 0:
                        for w in range(bits.shape[2]):
                            _add_to_rows_of(bits[b, t, w], w, gv[r], grad_w_in[group])
                    if grad_w_rec.shape[0] > 0 and t > 0:
                        for w in range(fired.shape[2]):
                            _add_to_rows_of(fired[b, t - 1, w], w, gv[r], grad_w_rec[group])
                if grad_input.shape[0] > 0:
                    multiply(gv, w_in, x_tile)
                    for r in range(rows):
                        for i in range(grad_input.shape[2]):
                            grad_input[base + r, t, i] = x_tile[r, i]


@nb.njit(inline="always")
def _add_to_rows_of(word, number, values, rows):
    """Add ``values`` to the rows of the senders in word ``number``."""
    while word != 0:
        row = rows[64 * number + lowest_bit(word)]
        for i in range(values.shape[0]):
            row[i] += values[i]
        word &= word - ONE
