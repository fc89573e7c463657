"""What a dense input holds that is not 0, listed by step and by channel."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.spikes import ONE, count_ones, lowest_bit
from delaynet_lava.kernels.vectors import not_zero

__all__ = ["Events", "Inputs", "inputs_of"]

_USUAL = 8
"""One number among so many that is not 0 is what room is made for first."""
_AT_ONCE, _HIGHEST = 8, np.uint64(1 << 63)
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
        fractions, largest, others, most = _list(rows, listed, turned, np.zeros((len(rows), 4)))
        if most <= room and (graded or not others):
            break
        room, graded = max(room, int(most)), graded or others > 0
    one, other = (turned, listed) if by_channel else (listed, turned)
    return Inputs(one, other, int(fractions), largest)


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
        facts: float64 (B, 4), zeros, written: what is returned, of each sample.

    Returns:
        How many values are not whole, the largest magnitude, how many are not 1, and how many events the
        sample with the most has. Where these are more than there is room for, the lists are void.
    """
    numbers, values, ends = listed.number, listed.value, listed.end
    numbers_turned, values_turned, ends_turned = turned.number, turned.value, turned.end
    batch, rows, columns = x.shape
    size, room, graded = rows * columns, numbers.shape[1], values.shape[1] > 0
    width = np.uint64(columns)
    for b in nb.prange(batch):
        row_starts, starts = np.zeros(rows + 1, np.int64), np.zeros(columns + 1, np.int64)
        # Indices without a sign are not checked for one. Where there is no room, the last places are spoilt.
        places = np.empty(room + 2 * _WORD, np.uint64)
        plane, listing, turning = x[b].reshape(size), numbers[b], numbers_turned[b]
        k, fractions, others, largest = 0, 0, 0, np.float32(0)
        for at in range(0, size, _WORD):
            if at + _WORD <= size:
                found = not_zero(plane, plane.ctypes.data + plane.itemsize * at)
            else:
                found = np.uint64(0)
                for n in range(size - at):
                    found |= np.uint64(plane[at + n] != 0) << np.uint64(n)
            if found != 0:
                end = min(k, room)
                k += count_ones(found)
                # So many at once, whether they are there or not: what a processor can foresee.
                for _ in range(_AT_ONCE):
                    places[np.uint64(end)] = at + lowest_bit(found | _HIGHEST)
                    found &= found - ONE
                    end += 1
                while found != 0:
                    places[np.uint64(end)] = at + lowest_bit(found)
                    found &= found - ONE
                    end += 1
        facts[b, 3] = k
        if k > room:
            continue
        for i in range(k):
            place = places[np.uint64(i)]
            row = place // width
            n, value = place - row * width, np.float32(plane[place])
            listing[np.uint64(i)], places[np.uint64(i)] = n, row
            row_starts[row + ONE] += 1
            starts[n + ONE] += 1
            if graded:
                values[b, i] = value
            if value != 1:
                others += 1
                fractions += value != np.floor(value)
                largest = max(largest, abs(value))
        facts[b, 0], facts[b, 1], facts[b, 2] = fractions, max(largest, np.float32(min(k, 1))), others
        _add_up(row_starts, ends[b])
        _add_up(starts, ends_turned[b])
        for i in range(k):
            n = np.uint64(listing[np.uint64(i)])
            place = np.uint64(starts[n])
            turning[place] = places[np.uint64(i)]
            if graded:
                values_turned[b, place] = values[b, i]
            starts[n] += 1
    fractions, largest, others, most = 0.0, 0.0, 0.0, 0.0
    for b in range(batch):
        fractions, largest = fractions + facts[b, 0], max(largest, facts[b, 1])
        others, most = others + facts[b, 2], max(most, facts[b, 3])
    return fractions, largest, others, most


@nb.njit
def _add_up(counts, ends):
    """Replace numbers by their sums up to each, and write these to ``ends`` too."""
    for n in range(1, counts.shape[0]):
        counts[n] += counts[n - 1]
    for n in range(counts.shape[0]):
        ends[n] = counts[n]
