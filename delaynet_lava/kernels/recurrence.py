"""Back-propagation through the delayed recurrence, compiled for the CPU.

Float32, in SLAYER's units (state / 4096, weight / 64). The forward pass is
:func:`delaynet_lava.kernels.events.run_layer`.

A delay belongs to the sender, so ``W g_a[t]`` is taken once a step for all neurons, and each of them
reads the product that its own delay leads to: what is in flight lies in rings. A few samples step
together and share every weight that is loaded. The gradient of the recurrent weights is taken
for 64 steps at a time, sender by sender, with the spikes of these steps as one word.

Shapes: B batch, K steps of a segment, N neurons, P neurons of the layout, C inputs, L ring.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from delaynet_lava.fixedpoint import V_MAX
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_TRIANGLE
from delaynet_lava.kernels.neurons import SCALE, ZERO, step_back
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.vectors import BLOCK, LANES, ROWS, add_rows, multiply

__all__ = ["GROUPS", "SPAN", "backward_segment"]

GROUPS = 16
"""Samples are summed in this many groups: the grouping, not the threads, fixes the order of sums."""
TURN = np.array([0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15])
"""Order of the groups. Threads take neighbours of it, and a small batch fills the first groups only: here
they are spread over the threads."""
SPAN = 64
"""Steps whose weight gradient is taken together."""
FEW = 8
"""Different delays that are faster to take one after the other than neuron by neuron."""
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be regrouped, not-a-number and infinity stay what they are."""


@nb.njit(inline="always")
def _collect(p_ring, b, t, delay, lags, damp, received):
    """``received[j] = damp * p[t + delay[j], j]`` of sample b."""
    last = p_ring.shape[1] - 1
    if lags.shape[0] > FEW:
        for j in range(delay.shape[0]):
            received[j] = damp * p_ring[b, (t + delay[j]) & last, j]
    else:
        for lag in lags:
            at = (t + lag) & last
            for j in range(delay.shape[0]):
                received[j] = damp * p_ring[b, at, j] if delay[j] == lag else received[j]


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def backward_segment(
    first, steps, grad_spikes, grad_population, grad_voltage, shift, v, u,
    bits, late, fired, w_in, w_rec, delay, lags,
    du, dv, threshold, reset, surrogate, width, height, reset_grad, feedback_grad, membrane_grad,
    gv, gu, g_ring, p_ring, grad_input, grad_w_in, grad_w_rec, grad_scalars,
):  # fmt: skip
    """Back-propagate the steps of one segment, the last first; results go into the last line's arguments.

    With alpha = 1 - decay / 4096, h the surrogate derivative and r the membrane after the reset:

        p[t] = W g_a[t]
        g_s[t, j] = dL/ds[t, j] + feedback_grad * p[t + 1 + delay[j], j] - reset_grad * g_r[t, j] c
        g_r[t] = alpha_v g_v[t+1]
        g_v[t] = dL/dv[t] + h[t] g_s[t] + g_r[t] (1 - s[t]  or  1)
        g_a[t] = g_u[t] = g_v[t] + alpha_u g_u[t+1]

    where, for the reset to zero, c is v[t] or the threshold if that is less and the factor of g_r
    is ``1 - s``; for the soft reset c is the threshold and the factor 1. (Without the bound on c a
    neuron that fires step after step far above its threshold makes the gradient explode by itself.)

    Args:
        first, steps: the segment's first step, a multiple of :data:`SPAN`, and how many it has.
        grad_spikes, grad_voltage: float32 (B, T, N) over all steps, or (0, 0, 0) where nothing comes
            in. The gradient of the spikes of step t is at ``t + shift``; the voltage is the one before
            the reset.
        grad_population: float32 (B, T) or (0, 0), added to the gradient of every neuron's spikes.
        v, u: int32 (B, K, P), membrane before the reset and current of the segment; ``u`` of shape
            (0, 0, 0) leaves the gradient of the current decay at zero.
        bits: uint64 (B, T, words), input spikes, those that act at step t at ``t - late``; or (0, 0, 0).
        fired: uint64 (B, T, words), spikes of the layer itself.
        w_in, w_rec: float32, of :func:`kernels.vectors.in_blocks`, post x pre, weights in SLAYER's units;
            an axis of 0 where the input is added as it is, or there is no recurrence.
        delay: int32 (N,); lags: int32, its different values.
        du, dv, threshold, reset: as for :func:`kernels.events.run_layer`; a threshold above the
            membrane's range stands for neurons that do not spike.
        surrogate, width, height, reset_grad, feedback_grad, membrane_grad: see
            :class:`kernels.dynamics.Dynamics`.
        gv, gu: float32 (B, P), g_v and g_u of the step after; left at those of the first step.
        g_ring, p_ring: float32 (B, L, P), g_a and p by step modulo L; zero at the start. Each L is a power
            of two, that of p above the largest delay + 1, that of g above the largest delay + SPAN.
        grad_input: float32 (B, T, C), or (0, 0, 0) where not wanted.
        grad_w_in, grad_w_rec: float32 (GROUPS, C or N, P), pre x post, added to; (0, 0, 0): not wanted.
        grad_scalars: float64 (GROUPS, 3), added to: gradients of du, dv (as decays of 0 to 4096) and of
            the threshold.
    """
    batch, lanes = gv.shape
    n = delay.shape[0]
    total_steps = fired.shape[1]
    in_g, in_p = g_ring.shape[1] - 1, p_ring.shape[1] - 1
    alpha_u = np.float32((4096 - du) / 4096.0 * membrane_grad)
    alpha_v = np.float32((4096 - dv) / 4096.0 * membrane_grad)
    damp, through_reset = np.float32(feedback_grad), np.float32(reset_grad)
    width, height, soft = np.float32(width), np.float32(height), reset != 0
    recurrent, weights = w_rec.shape[0] > 0, grad_w_rec.shape[0] > 0
    tiles = (batch + ROWS - 1) // ROWS
    vectors = lanes // LANES
    slow_slope = threshold <= V_MAX and surrogate != SURROGATE_PAPER and surrogate != SURROGATE_TRIANGLE
    th = np.float32(threshold) * SCALE
    for turn in nb.prange(GROUPS):
        group = TURN[turn]
        received, outer_v = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        slope, sums = np.zeros(lanes, np.float32), np.zeros((2, LANES), np.float32)
        at_slope, at_sums, at_received, at_outer = (
            slope.ctypes.data, sums.ctypes.data, received.ctypes.data, outer_v.ctypes.data
        )  # fmt: skip
        at_v, at_gv, at_gu = v.ctypes.data, gv.ctypes.data, gu.ctypes.data
        g_tile = np.zeros((ROWS, lanes), np.float32)
        p_tile = np.zeros((ROWS, w_rec.shape[0] * BLOCK), np.float32)
        x_tile = np.zeros((ROWS, w_in.shape[0] * BLOCK), np.float32)
        when = np.zeros((ROWS, lanes), np.uint64)
        at_tile = g_tile.ctypes.data
        for tile in range(group, tiles, GROUPS):
            base = tile * ROWS
            rows = min(ROWS, batch - base)
            g_tile[:] = ZERO
            for k in range(steps - 1, -1, -1):
                t = first + k
                for r in range(rows):
                    b = base + r
                    for j in range(lanes):
                        received[j] = ZERO
                    if recurrent:
                        _collect(p_ring, b, t + 1, delay, lags, damp, received)
                    if grad_spikes.shape[0] > 0 and t + shift < total_steps:
                        for j in range(n):
                            received[j] += grad_spikes[b, t + shift, j]
                    if grad_population.shape[0] > 0 and t + shift < total_steps:
                        for j in range(n):
                            received[j] += grad_population[b, t + shift]
                    if grad_voltage.shape[0] > 0:
                        for j in range(n):
                            outer_v[j] = grad_voltage[b, t, j]
                    if u.shape[0] > 0:
                        g_du = ZERO
                        for j in range(n):
                            g_du -= gu[b, j] * np.float32(u[b, k, j])
                        grad_scalars[group, 0] += np.float64(g_du) * (SCALE * SCALE)
                    if slow_slope:
                        for j in range(n):
                            distance = abs(np.float32(v[b, k, j]) * SCALE - th)
                            slope[j] = height * np.exp(-distance / width)
                    row = 4 * lanes * b
                    step_back(
                        vectors, at_v + 4 * lanes * (b * v.shape[1] + k), at_slope, at_received, at_outer,
                        at_gv + row, at_gu + row, at_tile + 4 * lanes * r, at_sums,
                        alpha_u, alpha_v, threshold, soft, surrogate, width, height, through_reset,
                    )  # fmt: skip
                    g_dv, g_th = ZERO, ZERO
                    for i in range(LANES):
                        g_dv += sums[0, i]
                        g_th += sums[1, i]
                    grad_scalars[group, 1] += np.float64(g_dv) * SCALE
                    grad_scalars[group, 2] += np.float64(g_th)
                    if grad_w_in.shape[0] > 0 and t >= late:
                        for w in range(bits.shape[2]):
                            word = bits[b, t - late, w]
                            while word != 0:
                                sender = 64 * w + lowest_bit(word)
                                for i in range(lanes):
                                    grad_w_in[group, sender, i] += g_tile[r, i]
                                word &= word - ONE
                    if weights:
                        for i in range(lanes):
                            g_ring[b, t & in_g, i] = g_tile[r, i]
                        for w in range(fired.shape[2]):
                            word = fired[b, t, w]
                            while word != 0:
                                when[r, 64 * w + lowest_bit(word)] |= ONE << np.uint64(t % SPAN)
                                word &= word - ONE
                if recurrent:
                    multiply(g_tile, w_rec, p_tile)
                    for r in range(rows):
                        for i in range(lanes):
                            p_ring[base + r, t & in_p, i] = p_tile[r, i]
                if grad_input.shape[0] > 0 and w_in.shape[0] > 0:
                    multiply(g_tile, w_in, x_tile)
                    for r in range(rows):
                        for i in range(grad_input.shape[2]):
                            grad_input[base + r, t, i] = x_tile[r, i]
                elif grad_input.shape[0] > 0:
                    for r in range(rows):
                        for i in range(n):
                            grad_input[base + r, t, i] = g_tile[r, i]
                if weights and t % SPAN == 0:
                    for r in range(rows):
                        ring = g_ring[base + r]
                        add_rows(grad_w_rec[group], ring, t + 1 + delay, when[r])
                        when[r] = 0
