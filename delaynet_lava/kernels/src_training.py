"""Loops of a layer of Spiking Recurrent Cells in training: forward in integers or in floats, and backward.

Both forward loops leave behind the two slopes that the backward loop needs; it does not know which ran.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.row_sums import add_listed, add_weighed, add_words_listed
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.src_cells import new_row, step_back, step_cells, step_sloped
from delaynet_lava.kernels.src_inputs import TOGETHER
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared
from delaynet_lava.kernels.vectors import LANES, add_words, add_words_times, write_row

__all__ = [
    "Synapses",
    "Written",
    "backward",
    "run_floats",
    "run_integers",
    "settle",
    "watch",
    "weight_gradient",
    "words_of",
]

_ONE = np.float32(1)


class Synapses(NamedTuple):
    """What brings events to the cells.

    Attributes:
        w: int16 or float32 (C, P), pre x post. delay: int32 (C,), steps.
        w_rec: int16 or float32 (N or 0, P). delay_rec: int32 (N or 0,).
    """

    w: np.ndarray
    delay: np.ndarray
    w_rec: np.ndarray
    delay_rec: np.ndarray


class Written(NamedTuple):
    """What a forward pass writes.

    Attributes:
        out: float32 (B, T, N), what is sent, late; of integers also (B, 0, 0): not wanted.
        fired: uint64 (B, T, words), who sends something, on time; of integers only.
        slope_h, slope_x: (B, T, P), dh/dp and dx/di; (B, 0, 0): not wanted. Of integers int16, in which one
            is :data:`kernels.src_cells.SLOPE_ONE`; of floats float32.
        saturated: int64 (B,), how often i saturated.
    """

    out: np.ndarray
    fired: np.ndarray
    slope_h: np.ndarray
    slope_x: np.ndarray
    saturated: np.ndarray


@inner()
def _longest(delay, delay_rec):
    """The largest of two lists of delays, either of which may be empty; 0 where both are."""
    longest = 0
    for j in range(delay.shape[0]):
        longest = max(longest, delay[j])
    for j in range(delay_rec.shape[0]):
        longest = max(longest, delay_rec[j])
    return longest


@nb.njit(inline="always")
def _send(rows, j, slot, ring, payload):
    """Add what sender j sends to a slot of the ring."""
    if payload == 1:
        add_words(ring, slot, rows, j)
    else:
        add_words_times(ring, slot, rows, j, payload)


@compiled()
def run_integers(pieces, events, synapses, bias, start, form, late, kind, written):
    """Forward in the integers of :func:`fixedpoint.src_step`.

    Plain version: ``integers`` in tests/test_src_training.py.

    Args:
        pieces: samples, as :func:`kernels.threads.each` draws them.
        events: :class:`kernels.src_inputs.Events` by step, whole numbers.
        synapses: :class:`Synapses`, words.
        bias: int32 (P,). start: int32 (3, P), i, h and h_s of the step before the first.
        form: a :class:`fixedpoint.SrcForm`. late: steps by which the output tensor is shifted.
        kind: int32 or int64 (0,), of the type of synaptic sums.
        written: :class:`Written`.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    events, synapses, written = borrowed((events, synapses, written))
    senders, payloads, ends = events.number, events.value, events.end
    w, delay, w_rec, delay_rec = synapses.w, synapses.delay, synapses.w_rec, synapses.delay_rec
    out, fired, slope_h, slope_x = written.out, written.fired, written.slope_h, written.slope_x
    saturated = written.saturated
    steps = fired.shape[1]
    lanes, wanted, slots = w.shape[1], slope_h.shape[1] > 0, _longest(delay, delay_rec) + 2
    graded, same = payloads.shape[1] > 0, delay[0]
    together = not graded and np.all(delay == same)
    for b in each(borrowed(pieces)):
        ring = np.zeros((slots, lanes), kind.dtype)
        row = new_row(bias, start[0], start[1], start[2])
        out[b, :late] = 0
        over = 0
        for t in range(steps):
            if together:
                add_words_listed(ring, (t + same) % slots, w, 0, senders, b, ends[b, t], ends[b, t + 1])
            else:
                for k in range(ends[b, t], ends[b, t + 1]):
                    j = senders[b, k]
                    payload = np.int64(payloads[b, k]) if graded else 1
                    _send(w, j, (t + delay[j]) % slots, ring, payload)
            if wanted:
                over += step_sloped(ring, t % slots, row, form, slope_h, slope_x, b * steps + t)
            else:
                over += step_cells(ring, t % slots, row, form)
            if t + late < out.shape[1]:
                target = out[b, t + late]
                for n in range(target.shape[0]):
                    target[n] = np.float32(row.sent[n])
            for v in range(row.fired.shape[0]):
                word = row.fired[v]
                fired[b, t, v] = word
                if w_rec.shape[0]:
                    while word != 0:
                        j = 64 * v + lowest_bit(word)
                        word &= word - ONE
                        _send(w_rec, j, (t + 1 + delay_rec[j]) % slots, ring, np.int64(row.sent[j]))
        saturated[b] = over


@compiled()
def words_of(pieces, weight, bits, rows, largest):
    """The nearest words of so many bits, a half to the even one, of weights of which 1.0 is the word 64.

    Plain version: ``test_words_are_those_of_quantize`` in tests/test_src_training.py.

    Args:
        pieces: blocks of :data:`kernels.vectors.LANES` senders, whose weights lie in the same lines of a
            cache, as :func:`kernels.threads.each` draws them.
        weight: float32 (N, C), post x pre. rows: int16 (C, P), written, pre x post, filled up with zeros.
        largest: float32 (blocks,), written: the largest magnitude of a weight; infinity where one is no
            number.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    neurons, senders = weight.shape
    grain, most = 1 << (9 - bits), 1 << (bits - 1)
    scale, low, high = np.float32(64 / grain), np.float32(-most), np.float32(most - 1)
    for block in each(borrowed(pieces)):
        seen, odd = np.float32(0), False
        for j in range(block * LANES, min((block + 1) * LANES, senders)):
            for n in range(neurons):
                one = weight[n, j]
                seen, odd = max(seen, abs(one)), odd or one != one
                rows[j, n] = np.int16(min(max(np.rint(one * scale), low), high)) * grain
            rows[j, neurons:] = 0
        largest[block] = np.float32(np.inf) if odd else seen


@inner()
def _keep(row, states):
    """Write i, h and h_s of a row into the first three of ``states``."""
    write_row(row.i, states[0])
    write_row(row.h, states[1])
    write_row(row.slow, states[2])


@compiled()
def settle(bias, form, state, steps):
    """Advance i, h and h_s, int32 (3, P), by silent steps; arguments as of :func:`run_integers`.

    Plain version: ``rest`` in tests/plain.py.
    """
    nothing = np.zeros((1, bias.shape[0]), np.int32)
    row = new_row(bias, state[0], state[1], state[2])
    for _ in range(steps):
        step_cells(nothing, 0, row, form)
    _keep(row, state)


@compiled()
def watch(arriving, bias, form, state, seen):
    """What cells do with synaptic sums that are given.

    Plain version: ``cell`` in tests/plain.py.

    Args:
        arriving: int64 (T, P), emptied. bias, form: as of :func:`run_integers`.
        state: int32 (3, P), i, h and h_s, changed in place.
        seen: int32 (4, T, P), written: i, h, h_s and what is sent.
    """
    row = new_row(bias, state[0], state[1], state[2])
    for t in range(arriving.shape[0]):
        step_cells(arriving, t, row, form)
        _keep(row, seen[:, t])
        write_row(row.sent, seen[3, t])
    _keep(row, state)


@compiled()
def run_floats(pieces, events, synapses, bias, start, form, late, gate, written):
    """Forward in the paper's equations 5a to 5f, float32; arguments as of :func:`run_integers`.

    Plain version: ``test_float_mode_is_a_torch_loop`` in tests/test_src_training.py.

    Args:
        events: with values.
        synapses: :class:`Synapses`, float32, the effective weights. bias, start: float32.
        gate: the steepness of the sigmoid that stands for the step of z_s; 0: the step.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    senders, payloads, ends = events.number, events.value, events.end
    w, delay, w_rec, delay_rec = synapses.w, synapses.delay, synapses.w_rec, synapses.delay_rec
    out, slope_h, slope_x = written.out, written.slope_h, written.slope_x
    _, steps, neurons = out.shape
    lanes, wanted, slots = w.shape[1], slope_h.shape[1] > 0, _longest(delay, delay_rec) + 2
    keep, grain = np.float32(1 - form.input_decay / 4096), np.float32(2.0**form.output_bits)
    for b in each(borrowed(pieces)):
        ring = np.zeros((slots, lanes), np.float32)
        i, h, slow = start[0].copy(), start[1].copy(), start[2].copy()
        sent = np.zeros(lanes, np.float32)
        out[b, :late] = 0
        for t in range(steps):
            for k in range(ends[b, t], ends[b, t + 1]):
                j = senders[b, k]
                _add(payloads[b, k], w[j], ring[(t + delay[j]) % slots])
            now = ring[t % slots]
            for n in range(lanes):
                i[n] = keep * i[n] + now[n]
                drive = np.float32(3) * math.tanh(i[n] / np.float32(3))
                p = drive + np.float32(2) * h[n] - np.float32(form.slow) * slow[n] + bias[n]
                if gate == 0:
                    stays = np.float32(0.9) if h[n] <= np.float32(0.5) else np.float32(0)
                else:
                    stays = np.float32(0.9 / (1 + math.exp(gate * (h[n] - 0.5))))
                slow[n] = stays * slow[n] + (_ONE - stays) * h[n]
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
            for j in range(w_rec.shape[0]):
                if sent[j] != 0:
                    _add(sent[j], w_rec[j], ring[(t + 1 + delay_rec[j]) % slots])


@inner()
def _add(amount, row, target):
    for n in range(target.shape[0]):
        target[n] += amount * row[n]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def backward(pieces, grad, w_rec, delay_rec, slope_h, slope_x, form, late, factors, grad_a, grad_b):
    """``g_i[t] = alpha g_i[t+1] + g_s[t] dh/dp dx/di``: the gradient of the synaptic sums.

    Plain version: ``reference`` in tests/test_src_training.py, and autograd.

    Args:
        pieces: samples, as :func:`kernels.threads.each` draws them.
        grad: float32 (B, T, N), late by ``late``.
        w_rec: float32 (N or 0, P), pre x post, effective weights. delay_rec: int32 (N or 0,).
        slope_h, slope_x: as :class:`Written` has them.
        factors: float32, ds/dh in payloads, for slopes of 1; and what a number of ``slope_x`` stands for.
        grad_a: float32 (B, T, P), written. grad_b: float32 (B, P), written, of b_h by sample.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    slope_h, slope_x, grad_a, grad_b = borrowed((slope_h, slope_x, grad_a, grad_b))
    _, steps, neurons = grad.shape
    lanes, keep = slope_h.shape[2], np.float32(1 - form.input_decay / 4096)
    grain, unit = factors
    for b in each(borrowed(pieces)):
        g, outer = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        grad_b[b] = 0
        for back in range(steps):
            t = steps - 1 - back
            there = t + late
            if there < steps:
                for n in range(neurons):
                    outer[n] = grad[b, there, n]
            else:
                outer[:] = 0
            for j in range(w_rec.shape[0]):
                lag = t + 1 + delay_rec[j]
                if lag < steps:
                    row, came = w_rec[j], grad_a[b, lag]
                    total = np.float32(0)
                    for n in range(lanes):
                        total += row[n] * came[n]
                    outer[j] += total
            step_back(outer, slope_h, slope_x, b * steps + t, (keep, grain, unit), g, grad_a, grad_b, b)


@compiled(fastmath={"reassoc", "contract", "nsz"})
def weight_gradient(pieces, events, lag, grad_a, scale, parts, grad_w):
    """What each sender's events met when they arrived: ``scale * sum of value grad_a[t + lag]``.

    Plain version: ``test_weights_meet_what_their_events_met`` in tests/test_src_training.py.

    Args:
        events: as :class:`kernels.src_inputs.Inputs` has them by channel.
        lag: int32 (C,), steps from an event to its arrival, at least 0.
        grad_a: float32 (B, T, P), of the synaptic sums. scale: of a stored weight's effect, float32.
        parts: into so many the senders are divided; the sum of each comes in one order, whatever they are.
        grad_w: float32 (N, C), written, post x pre.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    events, grad_a, grad_w = borrowed((events, grad_a, grad_w))
    times, payloads, ends = events.number, events.value, events.end
    batch, steps, lanes = grad_a.shape
    met = grad_a.reshape(batch * steps, lanes)
    neurons, senders = grad_w.shape
    for part in each(borrowed(pieces)):
        begin, end = part * senders // parts, (part + 1) * senders // parts
        sums = np.zeros((end - begin, lanes), np.float32)
        for group in range(times.shape[0]):
            row = group * TOGETHER * steps
            for j in range(begin, end):
                first, last = ends[group, j], ends[group, j + 1]
                while first < last:
                    # Behind a delay a sample's last events arrive in no step of it.
                    of_sample, met_here = last, last
                    if lag[j] > 0:
                        behind = (times[group, first] // steps + 1) * steps
                        of_sample = first
                        while of_sample < last and times[group, of_sample] < behind:
                            of_sample += 1
                        met_here = of_sample
                        while met_here > first and times[group, met_here - 1] + lag[j] >= behind:
                            met_here -= 1
                    if payloads.shape[1] > 0:
                        add_weighed(
                            sums, j - begin, met, row + lag[j], times, payloads, group, first, met_here
                        )
                    else:
                        add_listed(sums, j - begin, met, row + lag[j], times, group, first, met_here)
                    first = of_sample
        for j in range(begin, end):
            for n in range(neurons):
                grad_w[n, j] = scale * sums[j - begin, n]
