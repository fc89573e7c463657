"""One layer of Spiking Recurrent Cells, event-driven: the counterpart of :mod:`kernels.layer`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.kernels.compiled import compiled, inner
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
from delaynet_lava.kernels.src_cells import new_row, step_cells, sum_type
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared, spread
from delaynet_lava.kernels.vectors import write_row

__all__ = ["SrcRun"]


@inner()
def _keep(record, b, step, row):
    """Write a row of states into a record that may have no room, or room for fewer neurons."""
    if record.shape[0] > 0:
        write_row(row, record[b, step])


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


@compiled()
def run_cells(pieces, incoming, first, steps, forward, recurrent, bias, form, clock, cells, record):
    """Advance a layer of cells by some steps.

    Plain version: ``plain`` in tests/plain.py, one neuron and one synapse at a time.

    Args:
        pieces: samples, as :func:`kernels.threads.each` draws them.
        incoming: a :class:`kernels.events.Incoming`, values are payloads.
        first, steps: where in ``incoming`` and ``fired`` the steps begin, and how many there are.
        forward, recurrent: :class:`kernels.events.EventList`; recurrent may be empty.
        bias: int32 (P,). form: a :class:`fixedpoint.SrcForm`.
        clock: number of steps that were run before.
        cells: a :class:`Cells`. record: a :class:`CellRecord`.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    incoming, forward, recurrent, cells, record = borrowed((incoming, forward, recurrent, cells, record))
    i, h, slow, pending, counts = cells.i, cells.h, cells.slow, cells.pending, cells.counts
    bits, values, fired, sent = incoming.bits, incoming.values, record.fired, record.sent
    i_record, h_record, slow_record = record.i, record.h, record.slow
    last = pending.shape[1] - 1
    for b in each(borrowed(pieces)):
        row, ring = new_row(bias, i[b], h[b], slow[b]), pending[b].copy()
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
            over += step_cells(ring, t & last, row, form)
            for w in range(row.fired.shape[0]):
                word = row.fired[w]
                fired[b, first + step, w] = word
                while word != 0:
                    n = 64 * w + lowest_bit(word)
                    word &= word - ONE
                    messages += 1
                    if recurrent.delay.shape[0] > 0:
                        if form.output_bits == 0:
                            _deliver(recurrent, n, t + 1, ring)
                        else:
                            _deliver_times(recurrent, n, t + 1, ring, np.int64(row.sent[n]))
            _keep(sent, b, first + step, row.sent)
            _keep(i_record, b, step, row.i)
            _keep(h_record, b, step, row.h)
            _keep(slow_record, b, step, row.slow)
        write_row(row.i, i[b])
        write_row(row.h, h[b])
        write_row(row.slow, slow[b])
        for slot in range(ring.shape[0]):
            write_row(ring[slot], pending[b, slot])
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
        word = sum_type(self.largest, form.shift)
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
        spread(
            run_cells, len(i), Incoming(bits, values), first, steps, self.forward, self.recurrent, self.bias,
            self.form, clock, Cells(i, h, slower, pending, self.counts),
            CellRecord(fired, sent, current, voltage, slow),
        )  # fmt: skip
