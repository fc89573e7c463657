"""Back-propagation through the delayed recurrence, compiled for the CPU.

Float32, in SLAYER's units (state / 4096, weight / 64). The forward pass is
:func:`delaynet_lava.kernels.events.run_layer`.

A delay belongs to the sender, so ``W g_a[t]`` is taken once a step for all neurons, and each of them
reads the product that its own delay leads to: what is in flight lies in rings. Only neurons whose delay
is short tie a step to the next: their part of the product is taken step by step, for a few samples
together that share every weight that is loaded; that of all others for a few steps of a sample. The
gradient of the recurrent weights is taken for 64 steps at a time, sender by sender, with the spikes of
these steps as one word.

Shapes: B batch, K steps of a segment, N neurons, P neurons of the layout, C inputs, L ring.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from delaynet_lava.fixedpoint import V_MAX
from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_TRIANGLE
from delaynet_lava.kernels.neurons import SCALE, ZERO, Factors, Rows, step_back
from delaynet_lava.kernels.row_sums import add_rows
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared
from delaynet_lava.kernels.vectors import BLOCK, LANES, ROWS, multiply, multiply_at, write_row

__all__ = [
    "CHUNK",
    "FAST",
    "GROUPS",
    "SPAN",
    "Arriving",
    "Columns",
    "Flight",
    "Gradients",
    "Rule",
    "Sent",
    "Synapses",
    "add_senders",
    "add_values",
    "backward_segment",
    "columns_of",
    "require_layout",
]

GROUPS = 16
"""Samples are summed in this many groups: the grouping, not the threads, fixes the order of sums."""
SPAN = 64
"""Steps whose weight gradient is taken together."""
CHUNK = 16
"""Steps whose products with the weights of neurons with long delays are taken together."""
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be regrouped, not-a-number and infinity stay what they are."""


class Columns(NamedTuple):
    """How the columns of the recurrent weights, and what comes of them, are laid out.

    Attributes:
        order: int (N,), neurons by delay: the neuron of each column.
        tight: how many blocks of columns hold a delay so short that they are taken step by step.
        offsets: int32 (P,), where neuron j finds what it receives, in a ring whose row is ``width`` numbers.
        starts: int32 (P / LANES,), see :func:`kernels.neurons.step_back`.
        width: a power of two.
    """

    order: np.ndarray
    tight: int
    offsets: np.ndarray
    starts: np.ndarray
    width: int


class Arriving(NamedTuple):
    """Gradients of what a layer gave, over all steps; (0, 0, 0) or (0, 0) where nothing comes in.

    Attributes:
        spikes: float32 (B, T, N), that of the spikes of step t at ``t + shift``; or its left factor,
            (B, T, M).
        through: the right factor, (M, N) as float32 of :func:`kernels.vectors.in_blocks`; or (0, 0, 0).
        population: float32 (B, T), likewise, added to the gradient of every neuron's spikes.
        voltage: float32 (B, T, N), of the membrane before the reset.
    """

    spikes: np.ndarray
    through: np.ndarray
    population: np.ndarray
    voltage: np.ndarray
    shift: int


class Sent(NamedTuple):
    """Spikes over all steps, uint64 (B, T, words).

    Attributes:
        bits: of the input, those that act at step t at ``t - late``; or (0, 0, 0).
        fired: of the layer itself.
        values: int32 (B, T, C), of the input where it is not spikes, those of step t act at t; or (0, 0, 0).
    """

    bits: np.ndarray
    late: int
    fired: np.ndarray
    values: np.ndarray


class Synapses(NamedTuple):
    """Weights of a layer in SLAYER's units, and the delays of its neurons.

    Attributes:
        w_in, w_rec: float32, of :func:`kernels.vectors.in_blocks`, post x pre; an axis of 0 where the input
            is added as it is (or its gradient not wanted), or there is no recurrence. The columns of w_rec
            are in the order of the layout.
        delay: int32 (N,).
    """

    w_in: np.ndarray
    w_rec: np.ndarray
    delay: np.ndarray


class Rule(NamedTuple):
    """How a layer's neurons step, and how a gradient goes back through them.

    Attributes:
        du, dv, threshold, reset: as in :class:`kernels.events.Parameters`; a threshold above the membrane's
            range stands for neurons that do not spike.
        surrogate, width, height, reset_grad, feedback_grad, membrane_grad: see
            :class:`kernels.dynamics.Dynamics`.
        window, most: half-width in steps of the window over which the gradient of a delay is taken; the
            largest delay that may be learned.
    """

    du: int
    dv: int
    threshold: int
    reset: int
    surrogate: int
    width: float
    height: float
    reset_grad: float
    feedback_grad: float
    membrane_grad: float
    window: int
    most: int


class Flight(NamedTuple):
    """What goes back from one segment to the one before it.

    Attributes:
        gv, gu: float32 (B, P), g_v and g_u of the step after; left at those of the first step.
        g_ring, p_ring: float32 (at least B, a multiple of ROWS; L; P or the layout's width), g_a and p by
            step modulo L; zero at the start. Each L is a power of two, that of p above the largest delay + 1,
            that of g above the largest delay + SPAN.
    """

    gv: np.ndarray
    gu: np.ndarray
    g_ring: np.ndarray
    p_ring: np.ndarray


class Gradients(NamedTuple):
    """What the backward pass is for; what is not wanted has a first axis of 0.

    Attributes:
        x: float32 (B, T, C), written: of the input.
        w_in, w_rec: float32 (GROUPS, C or N, P), pre x post, added to.
        scalars: float64 (GROUPS, 3), added to: of du, dv (as decays of 0 to 4096) and of the threshold.
        delay: float64 (GROUPS, N), added to. With p around the arrival of each spike, at delays D = 0 to
            ``most`` and no others,

                sum over t of s[t, j] sum_k (p[t + 1 + min(d + k, D)] - p[t + 1 + max(d - k, 0)]) / distance

            for d = delay[j] and k = 1 to ``window``, where the distance is the sum of those between the two.
            L of p then has to be above D + SPAN.
    """

    x: np.ndarray
    w_in: np.ndarray
    w_rec: np.ndarray
    scalars: np.ndarray
    delay: np.ndarray


def columns_of(delay: np.ndarray, lanes: int) -> Columns:
    """The layout for neurons of these delays, filled up to ``lanes``."""
    return _columns(tuple(delay.tolist()), lanes)


@lru_cache(maxsize=16)
def _columns(delays: tuple[int, ...], lanes: int) -> Columns:
    delay = np.array(delays)
    n = len(delay)
    width = max(BLOCK, 1 << (lanes - 1).bit_length())
    order = np.argsort(delay, kind="stable")
    column, lag = np.arange(lanes), np.zeros(lanes, int)
    column[order], lag[:n], lag[n:] = np.arange(n), delay, delay[-1]
    offsets = (width * lag + column).astype(np.int32)
    vectors = offsets.reshape(-1, LANES)
    starts = np.where((np.diff(vectors) == 1).all(axis=1), vectors[:, 0], -1).astype(np.int32)
    tight = -(-int(np.count_nonzero(delay < CHUNK - 1)) // BLOCK)
    return Columns(order, tight, offsets, starts, width)


@inner()
def _in_order(values):
    """Sum in float64."""
    total = 0.0
    for i in range(values.shape[0]):
        total += np.float64(values[i])
    return total


@inner()
def _finish_chunk(b, t, g_ring, p_ring, w_rec, tight, w_in, x_tile, grad_input):
    """Products of a chunk's gradients, from step t on: with the weights of long delays, and of the input.

    Gradients of steps after the last are zeros.

    Args:
        x_tile: float32 (CHUNK, columns of w_in), overwritten.
        The rest: as in the tuples of :func:`backward_segment`, of sample b.
    """
    (_, in_g, lanes), (_, in_p, width) = g_ring.shape, p_ring.shape
    at_g = g_ring.ctypes.data + 4 * lanes * (b * in_g + (t & in_g - 1))
    if tight < w_rec.shape[0]:
        at_p = p_ring.ctypes.data + 4 * width * (b * in_p + (t & in_p - 1))
        multiply_at(
            CHUNK, at_g, lanes, w_rec.ctypes.data, w_rec.shape[1], tight, w_rec.shape[0], at_p, width
        )  # fmt: skip
    if w_in.shape[0] > 0:
        multiply_at(
            CHUNK, at_g, lanes, w_in.ctypes.data, w_in.shape[1], 0, w_in.shape[0], x_tile.ctypes.data,
            x_tile.shape[1],
        )  # fmt: skip
    for r in range(min(CHUNK, grad_input.shape[1] - t)):
        for i in range(grad_input.shape[2]):
            grad_input[b, t + r, i] = x_tile[r, i] if w_in.shape[0] > 0 else g_ring[b, (t + r) & in_g - 1, i]


@inner()
def add_senders(spikes, b, first, when, ring, row, lag, totals):
    """Add to each sender's row of ``totals`` the gradients that its spikes of 64 steps met.

    Args:
        spikes: uint64 (B, T, words); b: sample; first: the first of these steps, also one before the first.
        when: uint64 (senders or more,), zeros, and left so.
        ring: float32 (L, P), gradients. A spike of the first step met that at ``row + lag[sender]``; lag:
            int32 (senders,).
        totals: float32 (senders, P).
    """
    for t in range(max(0, first), min(first + SPAN, spikes.shape[1])):
        for w in range(spikes.shape[2]):
            word = spikes[b, t, w]
            while word != 0:
                when[64 * w + lowest_bit(word)] |= ONE << np.uint64(t - first)
                word &= word - ONE
    add_rows(totals, ring, row, lag, when)
    when[:] = 0


@inner()
def add_values(values, b, first, ring, totals):
    """Add to each sender's row of ``totals`` what it sent in 64 steps times the gradient of that step.

    Args:
        values: int32 (B, T, senders); b, first, ring, totals: as for :func:`add_senders`.
    """
    for t in range(first, min(first + SPAN, values.shape[1])):
        row = ring[t & ring.shape[0] - 1]
        for c in range(values.shape[2]):
            value = np.float32(values[b, t, c])
            if value != ZERO:
                for i in range(row.shape[0]):
                    totals[c, i] += value * row[i]


@inner()
def _add_delays(spikes, b, first, ring, offsets, delay, window, most, totals):
    """Add to each sender's total the gradient of its delay that its spikes of 64 steps give.

    Args:
        spikes, b, first: as for :func:`add_senders`.
        ring: float32 (L, width), products with the recurrent weights; offsets, delay: of the senders.
        window, most: see :class:`Rule`.
        totals: float64 (senders,).
    """
    mask, width = ring.shape[0] - 1, ring.shape[1]
    for t in range(first, min(first + SPAN, spikes.shape[1])):
        for w in range(spikes.shape[2]):
            word = spikes[b, t, w]
            while word != 0:
                j = 64 * w + lowest_bit(word)
                word &= word - ONE
                column, difference, distance = offsets[j] & (width - 1), ZERO, 0
                for k in range(1, window + 1):
                    late, soon = min(delay[j] + k, most), max(delay[j] - k, 0)
                    difference += ring[(t + 1 + late) & mask, column] - ring[(t + 1 + soon) & mask, column]
                    distance += late - soon
                totals[j] += difference / max(1, distance)


def require_layout(
    steps: int, arriving: Arriving, v: np.ndarray, fired: np.ndarray, synapses: Synapses, layout: Columns,
    flight: Flight,
) -> None:  # fmt: skip
    """Refuse arrays that :func:`backward_segment` would read or write by address beyond their ends.

    Args:
        fired: of :class:`Sent`; the rest as there.

    Raises:
        ValueError: an array has another shape.
    """
    (batch, lanes), n = flight.gv.shape, len(synapses.delay)
    spikes, through, whole_tiles = arriving.spikes, arriving.through, -(-batch // ROWS) * ROWS
    right = (
        flight.gu.shape == flight.gv.shape
        and (len(v), v.shape[2]) == (batch, lanes)
        and v.shape[1] >= steps
        and min(len(flight.g_ring), len(flight.p_ring)) >= whole_tiles
        and (flight.g_ring.shape[2], flight.p_ring.shape[2]) == (lanes, layout.width)
        and (not len(spikes) or spikes.shape == (*fired.shape[:2], through.shape[1] if len(through) else n))
        and (not len(through) or len(through) * BLOCK >= lanes)
        and (not len(synapses.w_in) or synapses.w_in.shape[1] == n)
        and (not len(synapses.w_rec) or synapses.w_rec.shape[1] == n)
        and len(synapses.w_rec) * BLOCK <= layout.width
    )
    if not right:
        raise ValueError("state, records and gradients have not the shapes of one layout")


@compiled(fastmath=FAST)
def backward_segment(pieces, first, steps, arriving, v, u, sent, synapses, layout, rule, flight, gradients):
    """Back-propagate the steps of one segment, the last first.

    With alpha = 1 - decay / 4096, h the surrogate derivative and r the membrane after the reset:

        p[t] = W g_a[t]
        g_s[t, j] = dL/ds[t, j] + feedback_grad * p[t + 1 + delay[j], j] - reset_grad * g_r[t, j] c
        g_r[t] = alpha_v g_v[t+1]
        g_v[t] = dL/dv[t] + h[t] g_s[t] + g_r[t] (1 - s[t]  or  1)
        g_a[t] = g_u[t] = g_v[t] + alpha_u g_u[t+1]

    where, for the reset to zero, c is v[t] or the threshold if that is less and the factor of g_r
    is ``1 - s``; for the soft reset c is the threshold and the factor 1. (Without the bound on c a
    neuron that fires step after step far above its threshold makes the gradient explode by itself.)

    Plain version: ``Plain`` in tests/test_recurrent_gradients.py, a loop over steps and autograd.

    Args:
        pieces: :data:`GROUPS` groups of samples, as :func:`kernels.threads.each` draws them.
        first, steps: the segment's first step, a multiple of :data:`SPAN`, and how many it has.
        arriving: :class:`Arriving`.
        v, u: int32 (B, K, P), membrane before the reset and current of the segment; ``u`` of shape
            (0, 0, 0) leaves the gradient of the current decay at zero.
        sent: :class:`Sent`; synapses: :class:`Synapses`; layout: of :func:`columns_of`; rule: :class:`Rule`.
        flight: :class:`Flight`, replaced; gradients: :class:`Gradients`, written or added to. Arrays have the
            shapes of :func:`require_layout`.
    """
    arriving, v, u, sent, synapses, layout, flight, gradients = borrowed(
        (arriving, v, u, sent, synapses, layout, flight, gradients)
    )
    grad_spikes, through, grad_population, grad_voltage, shift = arriving
    bits, late, fired, values = sent
    w_in, w_rec, delay = synapses
    gv, gu, g_ring, p_ring = flight
    grad_input, grad_w_in, grad_w_rec, grad_scalars, grad_delay = gradients
    threshold, surrogate, window, most = rule.threshold, rule.surrogate, rule.window, rule.most
    batch, lanes = gv.shape
    n = delay.shape[0]
    total_steps = fired.shape[1]
    if shared(pieces):
        in_threads(pieces, myself())
        return
    in_g, in_p = g_ring.shape[1] - 1, p_ring.shape[1] - 1
    width, height = np.float32(rule.width), np.float32(rule.height)
    factors = Factors(
        np.float32((4096 - rule.du) / 4096.0 * rule.membrane_grad),
        np.float32((4096 - rule.dv) / 4096.0 * rule.membrane_grad),
        threshold, rule.reset != 0, surrogate, width, height,
        np.float32(rule.reset_grad), np.float32(rule.feedback_grad),
    )  # fmt: skip
    recurrent, undelayed = w_rec.shape[0] > 0, np.zeros(grad_w_in.shape[1], np.int32)
    tiles = (batch + ROWS - 1) // ROWS
    vectors, inner = lanes // LANES, lanes - LANES
    width_p, mask = p_ring.shape[2], p_ring.shape[2] * p_ring.shape[1] - 1
    factored, lanes_s = through.shape[0] > 0, through.shape[0] * BLOCK
    slow_slope = threshold <= V_MAX and surrogate != SURROGATE_PAPER and surrogate != SURROGATE_TRIANGLE
    th = np.float32(threshold) * SCALE
    for group in each(borrowed(pieces)):
        nothing, outer_v = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        edge = np.zeros(LANES, np.float32)
        slope, sums = np.zeros(lanes, np.float32), np.zeros((2, LANES), np.float32)
        few, outer_s = np.zeros((ROWS, through.shape[1]), np.float32), np.zeros((ROWS, lanes_s), np.float32)
        of_du, of_dv, of_threshold = 0.0, 0.0, 0.0
        at_slope, at_sums, at_nothing, at_outer, at_edge = (
            slope.ctypes.data, sums.ctypes.data, nothing.ctypes.data, outer_v.ctypes.data, edge.ctypes.data
        )  # fmt: skip
        at_spikes, at_offsets, at_starts = (
            grad_spikes.ctypes.data, layout.offsets.ctypes.data, layout.starts.ctypes.data
        )  # fmt: skip
        at_outer_s = outer_s.ctypes.data
        at_v, at_gv, at_gu = v.ctypes.data, gv.ctypes.data, gu.ctypes.data
        x_tile = np.zeros((CHUNK, w_in.shape[0] * BLOCK), np.float32)
        when = np.zeros(64 * max(fired.shape[2], bits.shape[2]), np.uint64)
        at_g, at_p, at_rec = g_ring.ctypes.data, p_ring.ctypes.data, w_rec.ctypes.data
        # Neighbours, as in the loops over samples: each processor then finds here what it wrote there.
        for tile in range(group * tiles // GROUPS, (group + 1) * tiles // GROUPS):
            base = tile * ROWS
            rows = min(ROWS, batch - base)
            for k in range(steps - 1, -1, -1):
                t = first + k
                come = grad_spikes.shape[0] > 0 and t + shift < total_steps
                if come and factored:
                    for r in range(rows):
                        write_row(grad_spikes[base + r, t + shift], few[r])
                    multiply(few, through, outer_s)
                for r in range(rows):
                    b = base + r
                    at_grads, at_last, population, stride = at_nothing, at_nothing, ZERO, 0
                    if come and factored:
                        at_grads = at_outer_s + 4 * lanes_s * r
                        at_last = at_grads + 4 * inner
                    elif come:
                        stride = n
                        at_grads = at_spikes + 4 * n * (b * total_steps + t + shift)
                        at_last = at_edge
                        for j in range(inner, n):
                            edge[j - inner] = grad_spikes[b, t + shift, j]
                    if grad_population.shape[0] > 0 and t + shift < total_steps:
                        population = grad_population[b, t + shift]
                    if grad_voltage.shape[0] > 0:
                        for j in range(n):
                            outer_v[j] = grad_voltage[b, t, j]
                    if u.shape[0] > 0:
                        g_du = ZERO
                        for j in range(n):
                            g_du -= gu[b, j] * np.float32(u[b, k, j])
                        of_du += np.float64(g_du)
                    if slow_slope:
                        for j in range(n):
                            distance = abs(np.float32(v[b, k, j]) * SCALE - th)
                            slope[j] = height * np.exp(-distance / width)
                    row = 4 * lanes * b
                    at = Rows(
                        at_v + 4 * lanes * (b * v.shape[1] + k), lanes, at_slope,
                        at_p + 4 * width_p * p_ring.shape[1] * b, (t + 1) * width_p, mask, at_offsets,
                        at_starts, at_grads, stride, at_last, at_outer, at_gv + row, at_gu + row,
                        at_g + 4 * lanes * (b * g_ring.shape[1] + (t & in_g)), at_sums,
                    )  # fmt: skip
                    step_back(vectors, at, factors, population)
                if recurrent:
                    multiply_at(
                        ROWS, at_g + 4 * lanes * (base * g_ring.shape[1] + (t & in_g)),
                        lanes * g_ring.shape[1], at_rec, n, 0, layout.tight,
                        at_p + 4 * width_p * (base * p_ring.shape[1] + (t & in_p)), width_p * p_ring.shape[1],
                    )  # fmt: skip
                if t % CHUNK != 0:
                    continue
                of_dv += _in_order(sums[0])
                of_threshold += _in_order(sums[1])
                sums[:] = ZERO
                for b in range(base, base + rows):
                    _finish_chunk(b, t, g_ring, p_ring, w_rec, layout.tight, w_in, x_tile, grad_input)
                if t % SPAN == 0:
                    for b in range(base, base + rows):
                        if grad_w_in.shape[0] > 0 and values.shape[0] > 0:
                            add_values(values, b, t, g_ring[b], grad_w_in[group])
                        elif grad_w_in.shape[0] > 0:
                            add_senders(bits, b, t, when, g_ring[b], t + late, undelayed, grad_w_in[group])
                        if grad_w_rec.shape[0] > 0:
                            add_senders(fired, b, t, when, g_ring[b], t + 1, delay, grad_w_rec[group])
                        if grad_delay.shape[0] > 0:
                            _add_delays(
                                fired, b, t, p_ring[b], layout.offsets, delay, window, most, grad_delay[group]
                            )  # fmt: skip
        # Once: threads would wait for each other to write what lies so close together.
        grad_scalars[group, 0] += of_du * (SCALE * SCALE)
        grad_scalars[group, 1] += of_dv * SCALE
        grad_scalars[group, 2] += of_threshold
