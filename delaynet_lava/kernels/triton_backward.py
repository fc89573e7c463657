"""Backward pass of the delayed recurrence over all time steps, compiled for a GPU by Triton.

The layout is that of :mod:`delaynet_lava.kernels.triton_forward`, the equations are those of
:mod:`delaynet_lava.kernels.recurrence`.
"""

# No postponed annotations: see triton_forward.
import triton
import triton.language as tl

from delaynet_lava.kernels.triton_forward import VARYING, column, in_tile, line

__all__ = ["resident", "tiled"]


@triton.jit
def _state(record, ok):
    """What the forward pass recorded, in SLAYER's units: state / 4096."""
    return tl.load(record, mask=ok, other=0).to(tl.float32) * 0.000244140625


@triton.jit
def _spikes(record, ok):
    return tl.load(record, mask=ok, other=0).to(tl.float32)


@triton.jit
def _quiet(g):
    """Zero for what is too small to matter: a gradient fades through the denormal numbers otherwise."""
    return tl.where((g < 1e-30) & (g > -1e-30), 0.0, g)


@triton.jit
def _differentiate(
    gv, gu, grad_v, grad_s, v, s, v_before, s_before,
    alpha_u, alpha_v, threshold, rate, height, reset_grad,
    SPIKING: tl.constexpr, SOFT_RESET: tl.constexpr, SURROGATE: tl.constexpr,
):  # fmt: skip
    """One step back: g_v, g_u, and its share of the gradients of dv and the threshold."""
    carried = alpha_v * gv
    of_threshold = carried * 0.0
    grad = grad_v
    after = v_before
    if SPIKING:
        distance = v - threshold
        if SURROGATE == 1:
            h = height * tl.math.exp2(tl.where(distance < 0.0, distance, -distance) * rate)
        else:
            if SURROGATE == 2:
                distance = tl.where(distance < 0.0, distance, -distance)
            h = 1.0 + distance * rate
            h = height * tl.where(h < 0.0, 0.0, tl.where(h > 1.0, 1.0, h))
        back = reset_grad * carried
        if SOFT_RESET:
            through = h * (grad_s - back * threshold)
            of_threshold = -through - back * s
            after = v_before - threshold * s_before
        else:
            through = h * (grad_s - back * tl.where(v < threshold, v, threshold))
            of_threshold = -through
            carried *= 1.0 - s
            after = v_before * (1.0 - s_before)
        grad += through
    gv = _quiet(grad + carried)
    gu = _quiet(gv + alpha_u * gu)
    return gv, gu, -gv * after, of_threshold


@triton.jit
def _matmul(weight, g, TF32: tl.constexpr):
    """``weight @ g`` to the precision of float32.

    Weights of up to 11 bits are exact in TF32, and ``g`` is the sum of two numbers of 11 bits, but for
    its last two bits: two products on the tensor cores, where one in float32 would run on none.
    """
    if TF32:
        high = (g.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        product = tl.dot(weight, high) + tl.dot(weight, g - high)
    else:
        product = tl.dot(weight, g, allow_tf32=False)
    return product


@triton.jit
def _slot(k, lags, length):
    """Where the ring holds what was written ``lags`` steps ago, at the k-th step of the way back."""
    slot = k % length - lags
    return tl.where(slot < 0, slot + length, slot).to(tl.int64)


@triton.jit(do_not_specialize=VARYING)
def resident(
    grad_drive, grad_spikes, grad_voltage, membrane, spikes, current, ring, scalars, weights, lag,
    batch, steps, n, length, alpha_u, alpha_v, vth, rate, height, reset_grad, feedback_grad,
    SPIKING: tl.constexpr, RECURRENT: tl.constexpr, SOFT_RESET: tl.constexpr, SURROGATE: tl.constexpr,
    SPIKES_IN: tl.constexpr, VOLTAGE_IN: tl.constexpr, WITH_CURRENT: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Back-propagate ``BLOCK_B`` samples and ``BLOCK_N`` neurons; all neurons where there is a recurrence.

    Args:
        grad_drive: float32 (B, T, N), written.
        grad_spikes, grad_voltage: float32 (B, T, N), read where ``SPIKES_IN``, ``VOLTAGE_IN``.
        membrane, spikes, current: the records of the forward pass.
        ring: float32 (tiles, length, N, BLOCK_B), anything; length exceeds every lag below T.
        scalars: float32 (tiles of samples, tiles of neurons, 3, BLOCK_N, BLOCK_B), written: gradients
            of ``du / 4096``, ``dv / 4096`` and of the threshold.
        weights: float32 (N, N), pre x post, in SLAYER's units; lag: as for the forward pass.
        alpha_u, alpha_v: what is left after the decay; vth: threshold in SLAYER's units.
        rate, height: of the surrogate; the rate is ``1 / width``, or ``log2(e) / width`` for SLAYER's.
    """
    tile = tl.program_id(0)
    col = column(tl.program_id(1) * BLOCK_N, BLOCK_N)
    lane = line(0, BLOCK_B)
    ok = col < n
    alive = ok & (tile * BLOCK_B + lane < batch)
    stride = n * BLOCK_B
    begin = tile.to(tl.int64) * steps * stride
    here = (tile.to(tl.int64) + 1) * steps * stride - stride + col * BLOCK_B + lane
    # The same step of the gradients, which are (B, T, N).
    there = (tile * BLOCK_B + lane + 1).to(tl.int64) * steps * n - n + col
    if RECURRENT:
        lags = tl.load(lag + col, mask=ok, other=steps)
        held = tile.to(tl.int64) * length * stride + col * BLOCK_B + lane
        post = line(0, BLOCK_N)
        weight = tl.load(weights + col * n + post, mask=ok & (post < n), other=0.0)
    zeros = tl.zeros((BLOCK_N, BLOCK_B), tl.float32)
    gv, gu, of_du, of_dv, of_vth = zeros, zeros, zeros, zeros, zeros
    s, s_before, next_grad_s, next_grad_v = zeros, zeros, zeros, zeros
    v = _state(membrane + here, ok)
    if SPIKING:
        s = _spikes(spikes + here, ok)
    if SPIKES_IN:
        next_grad_s = tl.load(grad_spikes + there, mask=alive, other=0.0)
    if VOLTAGE_IN:
        next_grad_v = tl.load(grad_voltage + there, mask=alive, other=0.0)
    for k in range(steps):
        grad_s = next_grad_s
        grad_v = next_grad_v
        if RECURRENT:
            at = held + _slot(k, lags, length) * stride
            grad_s += feedback_grad * tl.load(ring + at, mask=lags <= k, other=0.0)
        # The records of the step before: needed for the decays, and prefetched for the next round.
        more = here - stride >= begin
        v_before = _state(membrane + here - stride, ok & more)
        if SPIKING:
            s_before = _spikes(spikes + here - stride, ok & more)
        if SPIKES_IN:
            next_grad_s = tl.load(grad_spikes + there - n, mask=alive & more, other=0.0)
        if VOLTAGE_IN:
            next_grad_v = tl.load(grad_voltage + there - n, mask=alive & more, other=0.0)
        gv, gu, to_dv, to_vth = _differentiate(
            gv, gu, grad_v, grad_s, v, s, v_before, s_before,
            alpha_u, alpha_v, vth, rate, height, reset_grad, SPIKING, SOFT_RESET, SURROGATE,
        )  # fmt: skip
        of_dv += to_dv
        of_vth += to_vth
        if WITH_CURRENT:
            of_du -= gu * _state(current + here - stride, ok & more)
        tl.store(grad_drive + there, gu, mask=alive)
        if RECURRENT:
            now = (k % length).to(tl.int64) * stride
            tl.store(ring + held + now, _matmul(weight, gu, True), mask=ok)
            tl.debug_barrier()
        v = v_before
        s = s_before
        here -= stride
        there -= n
    at = in_tile(3, BLOCK_N, BLOCK_B)
    tl.store(scalars + at, of_du)
    tl.store(scalars + at + BLOCK_N * BLOCK_B, of_dv)
    tl.store(scalars + at + 2 * BLOCK_N * BLOCK_B, of_vth)


@triton.jit(do_not_specialize=VARYING)
def tiled(
    last_gv, grad_drive, grad_spikes, grad_voltage, membrane, spikes, current, ring, scalars, weights, lag,
    batch, steps, n, length, alpha_u, alpha_v, vth, rate, height, reset_grad, feedback_grad,
    SOFT_RESET: tl.constexpr, SURROGATE: tl.constexpr,
    SPIKES_IN: tl.constexpr, VOLTAGE_IN: tl.constexpr, WITH_CURRENT: tl.constexpr, TF32: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Back-propagate ``BLOCK_B`` samples of a recurrent layer of any size, ``BLOCK_N`` neurons at a time.

    Args as for :func:`resident`; ``last_gv``: float32 (tiles, N, BLOCK_B), zeros, g_v of the
    step after.
    """
    tile = tl.program_id(0)
    lane = line(0, BLOCK_B)
    sample = tile * BLOCK_B + lane
    stride = n * BLOCK_B
    begin = tile.to(tl.int64) * steps * stride + lane
    start = (tile.to(tl.int64) + 1) * steps * stride - stride + lane
    last = start
    there = (sample + 1).to(tl.int64) * steps * n - n
    held = tile.to(tl.int64) * length * stride + lane
    zeros = tl.zeros((BLOCK_N, BLOCK_B), tl.float32)
    of_du, of_dv, of_vth = zeros, zeros, zeros
    for k in range(steps):
        for first in range(0, n, BLOCK_N):
            col = column(first, BLOCK_N)
            ok = col < n
            alive = ok & (sample < batch)
            here = start + col * BLOCK_B
            lags = tl.load(lag + col, mask=ok, other=steps)
            at = held + _slot(k, lags, length) * stride + col * BLOCK_B
            grad_s = feedback_grad * tl.load(ring + at, mask=lags <= k, other=0.0)
            grad_v = zeros
            if SPIKES_IN:
                grad_s += tl.load(grad_spikes + there + col, mask=alive, other=0.0)
            if VOLTAGE_IN:
                grad_v = tl.load(grad_voltage + there + col, mask=alive, other=0.0)
            more = ok & (start > begin)
            v = _state(membrane + here, ok)
            s = _spikes(spikes + here, ok)
            v_before = _state(membrane + here - stride, more)
            s_before = _spikes(spikes + here - stride, more)
            kept = last_gv + tile.to(tl.int64) * stride + col * BLOCK_B + lane
            gv = tl.load(kept, mask=ok, other=0.0)
            gu = tl.load(grad_drive + there + n + col, mask=alive & (start < last), other=0.0)
            gv, gu, to_dv, to_vth = _differentiate(
                gv, gu, grad_v, grad_s, v, s, v_before, s_before,
                alpha_u, alpha_v, vth, rate, height, reset_grad, True, SOFT_RESET, SURROGATE,
            )  # fmt: skip
            of_dv += to_dv
            of_vth += to_vth
            if WITH_CURRENT:
                of_du -= gu * _state(current + here - stride, more)
            tl.store(kept, gv, mask=ok)
            tl.store(grad_drive + there + col, gu, mask=alive)
        tl.debug_barrier()
        for first in range(0, n, BLOCK_N):
            col = column(first, BLOCK_N)
            total = zeros
            for first_post in range(0, n, BLOCK_N):
                post = column(first_post, BLOCK_N)
                g = tl.load(grad_drive + there + post, mask=(post < n) & (sample < batch), other=0.0)
                across = line(first_post, BLOCK_N)
                weight = tl.load(weights + col * n + across, mask=(col < n) & (across < n), other=0.0)
                total += _matmul(weight, g, TF32)
            now = (k % length).to(tl.int64) * stride
            tl.store(ring + held + now + col * BLOCK_B, total, mask=col < n)
        tl.debug_barrier()
        start -= stride
        there -= n
    at = in_tile(3, BLOCK_N, BLOCK_B)
    tl.store(scalars + at, of_du)
    tl.store(scalars + at + BLOCK_N * BLOCK_B, of_dv)
    tl.store(scalars + at + 2 * BLOCK_N * BLOCK_B, of_vth)
