"""Forward pass of the delayed recurrence over all time steps, compiled for a GPU by Triton.

A program runs ``BLOCK_B`` samples through all steps; programs never read each other's samples, so one
launch covers all time. The delay belongs to the sender, so both passes pull: the forward pass gathers
``s[t - lag]`` from the spikes it has written, the backward pass ``W^T g_a[t + lag]`` from a ring. A
barrier a step lets each thread see what the others wrote; the kernels must be launched with
``num_stages=1``, since Triton's pipelining would hoist those reads over the writes.

Records are kept as (tiles, T, N, BLOCK_B), samples innermost: what a neuron sent at one step is then
contiguous over the samples, so a gather over any delays reads whole sectors.

:func:`resident` holds the recurrent weights on the chip for all steps. :func:`tiled` reads them tile by
tile at each step (from the L2 cache, where they fit), for layers too large for that.

Arithmetic: :mod:`delaynet_lava.fixedpoint`, in 32 bits. Products of spikes and weights are sums of
integers below 2**24, exact in float32 whatever the order.
"""

# No postponed annotations: Triton 2.3 looks for `tl.constexpr` itself, not for its name.
import triton
import triton.language as tl

__all__ = ["VARYING", "column", "in_tile", "line", "resident", "tiled"]

VARYING = ["batch", "steps", "keep_u", "keep_v", "threshold", "length"]
"""Numbers that change from call to call; each new property of one would otherwise be compiled anew."""


@triton.jit
def _decay(x, keep):
    """``sign(x) * ((|x| * keep) >> 12)``, the product split so that 32 bits hold it."""
    size = tl.where(x < 0, -x, x)
    size = (size >> 12) * keep + (((size & 4095) * keep) >> 12)
    return tl.where(x < 0, -size, size)


@triton.jit
def _integrate(u, v, a, bias, keep_u, keep_v):
    """Current and membrane of one step, and where they wrapped and saturated.

    ``u`` is taken modulo 2**32 before it is taken modulo 2**24, which changes nothing; only whether
    it wrapped needs care: from 2**19 on, ``a << 6`` alone leaves 24 bits by more than u can return.
    """
    u = _decay(u, keep_u) + (a << 6)
    wrapped = (u > 8388608) | (u <= -8388608) | (a >= 524288) | (a <= -524288)
    u = ((u + 8388607) & 16777215) - 8388607
    v = _decay(v, keep_v) + u + bias
    high, low = v > 8388607, v < -8388607
    v = tl.where(high, 8388607, tl.where(low, -8388607, v))
    return u, v, wrapped.to(tl.int32), (high | low).to(tl.int32)


@triton.jit
def _reset(v, fires, threshold, SOFT_RESET: tl.constexpr):
    return tl.where(fires, v - threshold if SOFT_RESET else 0, v)


@triton.jit
def column(first, BLOCK: tl.constexpr):
    """``first`` and the integers after it, (BLOCK, 1)."""
    return first + tl.expand_dims(tl.arange(0, BLOCK), 1)


@triton.jit
def line(first, BLOCK: tl.constexpr):
    """``first`` and the integers after it, (1, BLOCK)."""
    return first + tl.expand_dims(tl.arange(0, BLOCK), 0)


@triton.jit
def in_tile(values, BLOCK_N: tl.constexpr, BLOCK_B: tl.constexpr):
    """Where this program puts the first of its values of each neuron and sample."""
    tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    return tile * values * (BLOCK_N * BLOCK_B) + column(0, BLOCK_N) * BLOCK_B + line(0, BLOCK_B)


@triton.jit(do_not_specialize=VARYING)
def resident(
    membrane, spikes, current, counts, weights, lag, bias,
    batch, steps, n, keep_u, keep_v, threshold,
    SPIKING: tl.constexpr, RECURRENT: tl.constexpr, SOFT_RESET: tl.constexpr,
    KEEP_CURRENT: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Run ``BLOCK_B`` samples and ``BLOCK_N`` neurons; all neurons where there is a recurrence.

    Args:
        membrane: int32 record, the drive; the membrane before the reset takes its place.
        spikes: uint8 record, written where ``SPIKING``.
        current: int32 record, written where ``KEEP_CURRENT``.
        counts: int32 (tiles of samples, tiles of neurons, 2, BLOCK_N, BLOCK_B), written: how often u
            wrapped and v saturated.
        weights: float16 or float32 (N, N), post x pre, integers; lag: int32 (N,), T where a spike
            never arrives; bias: int32 (N,).
        keep_u, keep_v: 4096 less the decay; threshold: ``vth << 6``.
    """
    tile = tl.program_id(0)
    col = column(tl.program_id(1) * BLOCK_N, BLOCK_N)
    lane = line(0, BLOCK_B)
    ok = col < n
    stride = n * BLOCK_B
    here = tile.to(tl.int64) * steps * stride + col * BLOCK_B + lane
    end = (tile.to(tl.int64) + 1) * steps * stride
    shift = tl.load(bias + col, mask=ok, other=0)
    if RECURRENT:
        lags = tl.load(lag + col, mask=ok, other=steps)
        sent_at = lags.to(tl.int64) * stride
        pre = line(0, BLOCK_N)
        weight = tl.load(weights + col * n + pre, mask=ok & (pre < n), other=0.0)
    zeros = tl.zeros((BLOCK_N, BLOCK_B), tl.int32)
    u, v, wraps, clips = zeros, zeros, zeros, zeros
    drive = tl.load(membrane + here, mask=ok, other=0)
    for t in range(steps):
        a = drive
        # The drive of the next step, fetched while this one is computed.
        drive = tl.load(membrane + here + stride, mask=ok & (here + stride < end), other=0)
        if RECURRENT:
            sent = tl.load(spikes + here - sent_at, mask=lags <= t, other=0)
            a += tl.dot(weight, sent.to(weight.dtype)).to(tl.int32)
        u, v, wrapped, clipped = _integrate(u, v, a, shift, keep_u, keep_v)
        wraps += wrapped
        clips += clipped
        tl.store(membrane + here, v, mask=ok)
        if KEEP_CURRENT:
            tl.store(current + here, u, mask=ok)
        if SPIKING:
            fires = v > threshold
            tl.store(spikes + here, fires.to(tl.uint8), mask=ok)
            v = _reset(v, fires, threshold, SOFT_RESET)
        if RECURRENT:
            tl.debug_barrier()
        here += stride
    alive = ok & (tile * BLOCK_B + lane < batch)
    at = in_tile(2, BLOCK_N, BLOCK_B)
    tl.store(counts + at, tl.where(alive, wraps, 0))
    tl.store(counts + at + BLOCK_N * BLOCK_B, tl.where(alive, clips, 0))


@triton.jit(do_not_specialize=VARYING)
def tiled(
    last_u, membrane, spikes, current, counts, weights, lag, bias,
    batch, steps, n, keep_u, keep_v, threshold,
    SOFT_RESET: tl.constexpr, KEEP_CURRENT: tl.constexpr, TF32: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Run ``BLOCK_B`` samples of a recurrent layer of any size, ``BLOCK_N`` neurons at a time.

    Args as for :func:`resident`, and ``last_u``: int32 (tiles, N, BLOCK_B), zeros, the current
    of the step before.
    """
    tile = tl.program_id(0)
    lane = line(0, BLOCK_B)
    alive = tile * BLOCK_B + lane < batch
    stride = n * BLOCK_B
    begin = tile.to(tl.int64) * steps * stride + lane
    start = begin
    zeros = tl.zeros((BLOCK_N, BLOCK_B), tl.int32)
    wraps, clips = zeros, zeros
    for t in range(steps):
        for first in range(0, n, BLOCK_N):
            col = column(first, BLOCK_N)
            ok = col < n
            here = start + col * BLOCK_B
            total = tl.zeros((BLOCK_N, BLOCK_B), tl.float32)
            for first_pre in range(0, n, BLOCK_N):
                pre = column(first_pre, BLOCK_N)
                lags = tl.load(lag + pre, mask=pre < n, other=steps)
                sent_at = start + pre * BLOCK_B - lags.to(tl.int64) * stride
                sent = tl.load(spikes + sent_at, mask=lags <= t, other=0)
                across = line(first_pre, BLOCK_N)
                weight = tl.load(weights + col * n + across, mask=ok & (across < n), other=0.0)
                total += tl.dot(weight, sent.to(weight.dtype), allow_tf32=TF32)
            a = tl.load(membrane + here, mask=ok, other=0) + total.to(tl.int32)
            held = last_u + tile.to(tl.int64) * stride + col * BLOCK_B + lane
            u = tl.load(held, mask=ok, other=0)
            later = ok & (start > begin)
            v = tl.load(membrane + here - stride, mask=later, other=0)
            fired = tl.load(spikes + here - stride, mask=later, other=0)
            v = _reset(v, fired > 0, threshold, SOFT_RESET)
            shift = tl.load(bias + col, mask=ok, other=0)
            u, v, wrapped, clipped = _integrate(u, v, a, shift, keep_u, keep_v)
            wraps += tl.where(ok & alive, wrapped, 0)
            clips += tl.where(ok & alive, clipped, 0)
            tl.store(held, u, mask=ok)
            tl.store(membrane + here, v, mask=ok)
            tl.store(spikes + here, (v > threshold).to(tl.uint8), mask=ok)
            if KEEP_CURRENT:
                tl.store(current + here, u, mask=ok)
        tl.debug_barrier()
        start += stride
    at = in_tile(2, BLOCK_N, BLOCK_B)
    tl.store(counts + at, wraps)
    tl.store(counts + at + BLOCK_N * BLOCK_B, clips)
