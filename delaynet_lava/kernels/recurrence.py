"""Forward and backward of the delayed recurrence over all time steps, compiled for the CPU.

One call runs a whole batch; samples are spread over the threads. The forward pass is the integer
contract of :mod:`delaynet_lava.fixedpoint`; the backward pass is back-propagation through time in
float32, in SLAYER's units (state / 4096, weight / 64).

Shapes: B batch, T time steps, N neurons. Time precedes neurons so that a step is contiguous.
"""

from __future__ import annotations

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

__all__ = ["GROUPS", "SURROGATE_PAPER", "SURROGATE_SLAYER", "backward_block", "forward", "weight_gradient"]

SURROGATE_PAPER, SURROGATE_SLAYER = 0, 1
GROUPS = 16
"""Samples are summed in this many groups: the grouping, not the threads, fixes the order of sums."""


@nb.njit(parallel=True, cache=True)
def forward(drive, w_rec, delay, du, dv, bias, threshold, reset, spikes, u_rec, v_rec, counts):
    """Run the recurrence; results are written into the last four arguments.

    Args:
        drive: int32 (B, T, N), feed-forward sum of weights that arrives at each step.
        w_rec: int32 (N, N), pre x post, recurrent weights including their exponent; (0, 0): none.
        delay: int32 (N,), axonal delay of each sending neuron; a spike of step t acts at
            ``t + 1 + delay``.
        du, dv: decays, 0 to 4096.
        bias: int64 (N,), already shifted.
        threshold: ``vth << 6``; a spike is ``v > threshold``. Negative: the neurons never spike.
        reset: ``RESET_ZERO`` or ``RESET_SUBTRACT``.
        spikes: uint8 (B, T, N).
        u_rec: int32 (B, T, N) current after the wrap, or shape (0, 0, 0) where not wanted.
        v_rec: int32 (B, T, N) membrane after the clip and **before** the reset.
        counts: int64 (B, 2), how often u wrapped and v saturated in each sample.
    """
    batch, steps, n = drive.shape
    recurrent = w_rec.shape[0] > 0
    length = (delay.max() if n > 0 else 0) + 2
    keep_u = u_rec.shape[0] > 0
    for b in nb.prange(batch):
        u = np.zeros(n, np.int64)
        v = np.zeros(n, np.int64)
        pending = np.zeros((length, n), np.int32)
        for t in range(steps):
            slot = pending[t % length]
            for i in range(n):
                wide_u = synaptic_current(u[i], np.int64(drive[b, t, i]) + slot[i], du)
                counts[b, 0] += u_overflows(wide_u)
                u[i] = wrap_u(wide_u)
                slot[i] = 0
                wide_v = membrane_update(v[i], u[i], bias[i], dv)
                counts[b, 1] += saturates(wide_v)
                v[i] = min(max(wide_v, -V_MAX), V_MAX)
            for i in range(n):
                v_rec[b, t, i] = v[i]
                if keep_u:
                    u_rec[b, t, i] = u[i]
                if threshold >= 0 and v[i] > threshold:
                    spikes[b, t, i] = 1
                    v[i] = reset_membrane(v[i], threshold, reset)
                    if recurrent:
                        arrival = pending[(t + 1 + delay[i]) % length]
                        for k in range(n):
                            arrival[k] += w_rec[i, k]
                else:
                    spikes[b, t, i] = 0


@nb.njit(inline="always")
def _surrogate(distance, kind, width, height):
    """Surrogate derivative ds/dv at ``distance = v - threshold`` (both in SLAYER's units)."""
    if kind == SURROGATE_PAPER:
        return height * min(max(np.float32(1.0) + distance / width, np.float32(0.0)), np.float32(1.0))
    return height * np.exp(-abs(distance) / width)


@nb.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def backward_block(
    first, last, grad_spikes, grad_voltage, feedback, spikes, u_rec, v_rec, w_rec, delay, direct,
    du, dv, threshold, reset, surrogate, width, height, reset_grad, feedback_grad, membrane_grad,
    gv, gu, grad_drive, grad_scalars,
):  # fmt: skip
    """Back-propagate steps ``last - 1`` down to ``first``; results go into the last four arguments.

    With alpha = 1 - decay / 4096, h the surrogate derivative and r the membrane after the reset:

        g_s[t] = dL/ds[t] + feedback_grad * sum_i w[j,i] g_a[i, t + 1 + delay[j]] - reset_grad * g_r[t] c
        g_r[t] = alpha_v g_v[t+1]
        g_v[t] = dL/dv[t] + h[t] g_s[t] + g_r[t] (1 - s[t]  or  1)
        g_a[t] = g_u[t] = g_v[t] + alpha_u g_u[t+1]

    where, for the reset to zero, c is v[t] or the threshold if that is less and the factor of g_r
    is ``1 - s``; for the soft reset c is the threshold and the factor 1. (Without the bound on c a
    neuron that fires step after step far above its threshold makes the gradient explode by itself.)

    Args:
        grad_spikes, grad_voltage: float32 (B, T, N), or (0, 0, 0) where nothing comes in. The
            voltage is the one before the reset.
        feedback: float32 (B, last - first, N), the sum over i in g_s for the neurons that are not
            ``direct``; (0, 0, 0) where there are none.
        spikes, u_rec, v_rec: what :func:`forward` recorded; ``u_rec`` of shape (0, 0, 0) leaves the
            gradient of the current decay at zero.
        w_rec: float32 (N, N), pre x post, recurrent weights in SLAYER's units.
        direct: int64 (D,), the neurons whose lag is shorter than the block: their sum over i is
            taken here, step by step.
        delay, du, dv, threshold, reset: as for :func:`forward`.
        surrogate: ``SURROGATE_PAPER`` or ``SURROGATE_SLAYER``; width, height: its two scales.
        reset_grad: 1.0 differentiates the reset too, 0.0 does not.
        feedback_grad: factor on the gradient that flows back along recurrent synapses (the
            gradient of the weights themselves is untouched). 1.0 is exact.
        membrane_grad: 1.0 carries the gradient along u and v, 0.0 cuts it at each step (what
            SLAYER's own Recurrent block does).
        gv, gu: float32 (B, N), g_v and g_u of step ``last``; left at those of step ``first``.
        grad_drive: float32 (B, T, N), gradient of ``drive / 64``.
        grad_scalars: float64 (B, 3), added to: gradients of du, dv (as decays of 0 to 4096) and of
            the threshold.
    """
    batch, steps, n = v_rec.shape
    ext_s, ext_v = grad_spikes.shape[0] > 0, grad_voltage.shape[0] > 0
    fed = feedback.shape[0] > 0
    alpha_u = np.float32((4096 - du) / 4096.0 * membrane_grad)
    alpha_v = np.float32((4096 - dv) / 4096.0 * membrane_grad)
    scale = np.float32(1.0 / 4096.0)
    spiking = threshold >= 0
    th = np.float32(threshold) * scale
    zero, one = np.float32(0.0), np.float32(1.0)
    damp, through_reset = np.float32(feedback_grad), np.float32(reset_grad)
    for b in nb.prange(batch):
        total = np.zeros(n, np.float32)
        g_du, g_dv, g_th = 0.0, 0.0, 0.0
        for t in range(last - 1, first - 1, -1):
            if fed:
                total[:] = feedback[b, t - first]
            for j in direct:
                acc = zero
                if t + 1 + delay[j] < steps:
                    row, weights = grad_drive[b, t + 1 + delay[j]], w_rec[j]
                    for k in range(n):
                        acc += weights[k] * row[k]
                total[j] = acc
            for j in range(n):
                v = np.float32(v_rec[b, t, j]) * scale
                carried = alpha_v * gv[b, j]
                grad = grad_voltage[b, t, j] if ext_v else zero
                if spiking:
                    h = _surrogate(v - th, surrogate, width, height)
                    s = np.float32(spikes[b, t, j])
                    gs = damp * total[j] - through_reset * carried * (th if reset else min(v, th))
                    if ext_s:
                        gs += grad_spikes[b, t, j]
                    grad += h * gs
                    g_th -= h * gs
                    if reset:
                        g_th -= through_reset * carried * s
                    else:
                        carried *= one - s
                grad += carried
                gv[b, j] = grad
                gu[b, j] = grad + alpha_u * gu[b, j]
                grad_drive[b, t, j] = gu[b, j]
                if t > 0:
                    before = np.float32(v_rec[b, t - 1, j]) * scale
                    if spiking and spikes[b, t - 1, j]:
                        before = before - th if reset else zero
                    g_dv -= grad * before
                    if u_rec.shape[0] > 0:
                        g_du -= gu[b, j] * np.float32(u_rec[b, t - 1, j]) * scale
        grad_scalars[b, 0] += g_du * scale
        grad_scalars[b, 1] += g_dv * scale
        grad_scalars[b, 2] += g_th


@nb.njit(parallel=True, cache=True)
def weight_gradient(spikes, grad_drive, delay, grad_w):
    """``grad_w[g, j, i] = sum over b in group g and t of s[b, t, j] * g_a[b, t + 1 + delay[j], i]``.

    Args:
        spikes: uint8 (B, T, N); grad_drive: float32 (B, T, N); delay: int32 (N,).
        grad_w: float32 (GROUPS, N, N), pre x post, zeros; sum it over its first axis.
    """
    batch, steps, n = spikes.shape
    groups = grad_w.shape[0]
    for g in nb.prange(groups):
        for b in range(g, batch, groups):
            for t in range(steps):
                for j in range(n):
                    arrival = t + 1 + delay[j]
                    if spikes[b, t, j] and arrival < steps:
                        for k in range(n):
                            grad_w[g, j, k] += grad_drive[b, arrival, k]
