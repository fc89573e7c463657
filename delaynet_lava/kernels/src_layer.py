"""One layer of Spiking Recurrent Cells, event-driven: the counterpart of :mod:`kernels.layer`."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.events import (
    EventList,
    Incoming,
    _deliver,
    _deliver_times,
    largest_sum,
    longest_delay,
    padded,
    ring_length,
)
from delaynet_lava.kernels.layer import NO_RECORD, NO_VALUES, LayerRun
from delaynet_lava.kernels.spikes import ONE, lowest_bit

__all__ = ["SrcRun", "step_cells"]


@nb.njit
def step_cells(now, bias, form, i, h, slow, p, sent):
    """:func:`fixedpoint.src_step` of a row of cells; the states are changed in place.

    Args:
        now: what arrives, (P,). bias: int32 (P,). form: a :class:`fixedpoint.SrcForm`.
        p, sent: int32 (P,), written: p, and what is sent.

    Returns:
        How often i saturated.
    """
    over = 0
    for n in range(now.shape[0]):
        wide = fx.src_current(i[n], now[n], form.input_decay, form.shift)
        over += fx.saturates(wide)
        current = fx.src_saturated(wide)
        potential = fx.src_potential(current, h[n], slow[n], bias[n], form.squash, form.slow)
        slower = fx.src_slower(slow[n], h[n])
        i[n], p[n], slow[n] = current, potential, slower
        h[n] = fx.src_activated(potential, form.activation)
        sent[n] = fx.src_payload(h[n], form.output_bits)
    return over


@nb.njit
def _keep(record, b, step, row):
    """Write a row of states into a record that may have no room, or room for fewer neurons."""
    if record.shape[0] > 0:
        target = record[b, step]
        for n in range(target.shape[0]):
            target[n] = row[n]


@nb.njit
def _marked(sent, fired):
    """Set the bits of those that send something; returns how many."""
    spikes = 0
    for w in range(fired.shape[0]):
        word = np.uint64(0)
        for n in range(64 * w, min(64 * w + 64, sent.shape[0])):
            word |= np.uint64(sent[n] != 0) << np.uint64(n - 64 * w)
            spikes += sent[n] != 0
        fired[w] = word
    return spikes


class Cells(NamedTuple):
    """Where cells stand, changed in place.

    Attributes:
        i, h, slow: int32 (B, P).
        pending: int32 or int64 (B, L, P), ring of synaptic inputs to come.
        counts: int64 (B, 3), added to: saturations of i, 0, messages.
    """

    i: np.ndarray
    h: np.ndarray
    slow: np.ndarray
    pending: np.ndarray
    counts: np.ndarray


class CellRecord(NamedTuple):
    """What is written of each step; (0, 0, 0): nothing.

    Attributes:
        fired: uint64 (B, T, words), who sends something; always.
        sent: int32 (B, T, N), what is sent, where that is no spikes.
        i, h, slow: int32 (B, steps, N or P).
    """

    fired: np.ndarray
    sent: np.ndarray
    i: np.ndarray
    h: np.ndarray
    slow: np.ndarray


@compiled(parallel=True)
def run_cells(incoming, first, steps, forward, recurrent, bias, form, clock, cells, record):
    """Advance a layer of cells by some steps.

    Plain version: ``plain`` in tests/plain.py, one neuron and one synapse at a time.

    Args:
        incoming: a :class:`kernels.events.Incoming`, values are payloads.
        first, steps: where in ``incoming`` and ``fired`` the steps begin, and how many there are.
        forward, recurrent: :class:`kernels.events.EventList`; recurrent may be empty.
        bias: int32 (P,). form: a :class:`fixedpoint.SrcForm`.
        clock: number of steps that were run before.
        cells: a :class:`Cells`. record: a :class:`CellRecord`.
    """
    # By names of their own: what is written into the arrays of a tuple inside the loop would be lost.
    i, h, slow, pending, counts = cells.i, cells.h, cells.slow, cells.pending, cells.counts
    bits, values, fired, sent = incoming.bits, incoming.values, record.fired, record.sent
    i_record, h_record, slow_record = record.i, record.h, record.slow
    batch, lanes = i.shape
    last = pending.shape[1] - 1
    for b in nb.prange(batch):
        current, fast, slower, ring = i[b].copy(), h[b].copy(), slow[b].copy(), pending[b].copy()
        p, out = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
        over = messages = 0
        for step in range(steps):
            t = clock + step
            if values.shape[0] > 0:
                for j in range(values.shape[2]):
                    payload = np.int64(values[b, first + step, j])
                    if payload != 0:
                        _deliver_times(forward, j, t + 1, ring, payload)
            for w in range(bits.shape[2]):
                word = bits[b, first + step, w]
                while word != 0:
                    _deliver(forward, 64 * w + lowest_bit(word), t + 1, ring)
                    word &= word - ONE
            now = ring[t & last]
            over += step_cells(now, bias, form, current, fast, slower, p, out)
            now[:] = 0
            row = fired[b, first + step]
            messages += _marked(out, row)
            if recurrent.delay.shape[0] > 0:
                for w in range(row.shape[0]):
                    word = row[w]
                    while word != 0:
                        n = 64 * w + lowest_bit(word)
                        word &= word - ONE
                        if form.output_bits == 0:
                            _deliver(recurrent, n, t + 1, ring)
                        else:
                            _deliver_times(recurrent, n, t + 1, ring, np.int64(out[n]))
            _keep(sent, b, first + step, out)
            _keep(i_record, b, step, current)
            _keep(h_record, b, step, fast)
            _keep(slow_record, b, step, slower)
        i[b], h[b], slow[b], pending[b] = current, fast, slower, ring
        counts[b, 0] += over
        counts[b, 2] += messages


class SrcRun(LayerRun):
    """A layer of cells that runs forward from its initial state, a piece of time at a time.

    Args:
        batch, neurons: how many samples and neurons.
        forward, recurrent: synapses; :data:`kernels.events.NO_SYNAPSES` where there are none.
        form: what the cells have in common.
        bias: int32 (neurons,) or one value.
        initial: int32 (3, neurons), i, h and h_s before the first step.
        largest: bound on |payload| of what comes in.

    Attributes:
        state: i, h and h_s (batch, lanes), inputs to come (batch, ring, lanes).
        counts: int64 (batch, 3): saturations of i, 0, messages so far.
        largest: bound on what arrives at a cell in a step.
    """

    def __init__(
        self,
        batch: int,
        neurons: int,
        forward: EventList,
        recurrent: EventList,
        form: fx.SrcForm,
        bias: np.ndarray,
        initial: np.ndarray,
        largest: int = 1,
    ) -> None:
        self.size, self.lanes = neurons, padded(neurons)
        # Those that fill the layout up are at their state of rest nowhere near a spike: h = h_s = -1.
        levels, begin = np.full(self.lanes, fx.SRC_BIAS_MIN, np.int32), np.zeros((3, self.lanes), np.int32)
        begin[1:] = -fx.DECAY_ONE
        levels[:neurons], begin[:, :neurons] = bias, initial
        self.form, self.bias, self.forward, self.recurrent = form, levels, forward, recurrent
        self.largest = largest * largest_sum(forward) + (1 << form.output_bits) * largest_sum(recurrent)
        word = np.int32 if self.largest < 1 << 31 else np.int64
        ring = ring_length(max(longest_delay(forward), longest_delay(recurrent)))
        self.state = (
            *(np.repeat(row[None], batch, axis=0) for row in begin),
            np.zeros((batch, ring, self.lanes), word),
        )
        self.counts = np.zeros((batch, 3), np.int64)

    def advance(
        self,
        bits: np.ndarray,
        values: np.ndarray,
        first: int,
        steps: int,
        clock: int,
        fired: np.ndarray,
        voltage: np.ndarray = NO_RECORD,
        current: np.ndarray = NO_RECORD,
        before_reset: bool = True,
        slow: np.ndarray = NO_RECORD,
        sent: np.ndarray = NO_VALUES,
    ) -> None:
        """Run some steps; the arguments are those of :func:`run_cells` and its tuples. There is no reset."""
        i, h, slower, pending = self.state
        run_cells(
            Incoming(bits, values), first, steps, self.forward, self.recurrent, self.bias, self.form, clock,
            Cells(i, h, slower, pending, self.counts), CellRecord(fired, sent, current, voltage, slow),
        )  # fmt: skip
