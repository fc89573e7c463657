"""What a dense input holds that is not 0, listed by step and by channel."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.vectors import not_zero

__all__ = ["Events", "Inputs", "inputs_of"]

_USUAL = 8
"""One number among so many that is not 0 is what room is made for first."""
_WORD = 64
"""Numbers that are looked at together: most are 0, and most of their neighbours with them."""


class Events(NamedTuple):
    """Events of each sample, row by row: by step, or by channel.

    Attributes:
        number: int16 or int32 (B, K), filled from the left: of an event's channel, where the rows are
            steps; of its step, where they are channels.
        value: float32 (B, K), filled likewise; (B, 0): all are 1.
        end: int64 (B, rows + 1), where the events of a row begin, and end.
    """

    number: np.ndarray
    value: np.ndarray
    end: np.ndarray


class Inputs(NamedTuple):
    """An input as events.

    Attributes:
        by_step, by_channel: the same events in two orders.
        fractions: how many values are not whole.
        largest: the largest magnitude of a value, at least 1 where there is any.
    """

    by_step: Events
    by_channel: Events
    fractions: int
    largest: float


def inputs_of(x: np.ndarray, graded: bool = False) -> Inputs:
    """Events of (B, T, C) of any type and strides.

    uint8 and float32 in C order, or in that of their transpose, are read as they lie.

    Args:
        graded: list the values even where all are 1. Where they are not, to say so saves a second look.
    """
    by_channel = not x.flags.c_contiguous and x.transpose(0, 2, 1).flags.c_contiguous
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    rows = np.ascontiguousarray(x.transpose(0, 2, 1) if by_channel else x, kind)
    room = rows.shape[1] * rows.shape[2] // _USUAL
    while True:
        listed = _room(rows.shape, room, graded)
        turned = _room((len(rows), rows.shape[2], rows.shape[1]), room, graded)
        facts = np.zeros((len(rows), 4))
        _list(rows, listed, turned, facts)
        most, others = int(facts[:, 3].max(initial=0)), facts[:, 2].any()
        if most <= room and (graded or not others):
            break
        room, graded = max(room, most), graded or bool(others)
    one, other = (turned, listed) if by_channel else (listed, turned)
    return Inputs(one, other, int(facts[:, 0].sum()), float(facts[:, 1].max(initial=0.0)))


def _room(shape: tuple[int, ...], events: int, graded: bool) -> Events:
    batch, rows, columns = shape
    number = np.empty((batch, events), np.int16 if columns < 1 << 15 else np.int32)
    value = np.empty((batch, events if graded else 0), np.float32)
    return Events(number, value, np.empty((batch, rows + 1), np.int64))


@compiled(parallel=True)
def _list(x, listed, turned, facts):
    """List what is not 0 in each plane of ``x``, by row and by column.

    Plain version: ``test_events_are_what_is_not_zero`` in tests/test_src_training.py.

    Args:
        x: float32 or uint8 (B, rows, columns), C order.
        listed, turned: :class:`Events`, written, without values where there is no room for any.
        facts: float64 (B, 4), written: how many values are not whole, the largest magnitude, how many are not
            1, and how many events there are. Where these are more than there is room for, the lists are void.
    """
    numbers, values, ends = listed.number, listed.value, listed.end
    numbers_turned, values_turned, ends_turned = turned.number, turned.value, turned.end
    batch, rows, columns = x.shape
    size, room, graded = rows * columns, numbers.shape[1], values.shape[1] > 0
    for b in nb.prange(batch):
        start = np.zeros(columns + 1, np.int64)
        plane = x[b].reshape(size)
        k, fractions, others, largest = 0, 0, 0, np.float32(0)
        row, begins = 0, 0
        ends[b, 0] = 0
        for at in range(0, size, _WORD):
            if at + _WORD <= size:
                found = not_zero(plane, plane.ctypes.data + plane.itemsize * at)
            else:
                found = np.uint64(0)
                for n in range(size - at):
                    found |= np.uint64(plane[at + n] != 0) << np.uint64(n)
            while found != 0:
                place = at + lowest_bit(found)
                found &= found - ONE
                while place >= begins + columns:
                    row += 1
                    begins += columns
                    ends[b, row] = k
                n, value = place - begins, np.float32(plane[place])
                if k < room:
                    numbers[b, k] = n
                    if graded:
                        values[b, k] = value
                k += 1
                start[n + 1] += 1
                if value != 1:
                    others += 1
                    fractions += value != np.floor(value)
                    largest = max(largest, abs(value))
        for r in range(row + 1, rows + 1):
            ends[b, r] = k
        facts[b, 0], facts[b, 1], facts[b, 2] = fractions, max(largest, np.float32(min(k, 1))), others
        facts[b, 3] = k
        if k > room:
            continue
        for n in range(columns):
            start[n + 1] += start[n]
        for n in range(columns + 1):
            ends_turned[b, n] = start[n]
        for r in range(rows):
            for k in range(ends[b, r], ends[b, r + 1]):
                n = np.uint64(numbers[b, k])  # an index with a sign would be checked for it
                place = np.uint64(start[n])
                numbers_turned[b, place] = r
                if graded:
                    values_turned[b, place] = values[b, k]
                start[n] += 1
