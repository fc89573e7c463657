"""What a dense input holds that is not 0, listed by step and by channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.spikes import ONE, count_ones, lowest_bit
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared, spread
from delaynet_lava.kernels.vectors import not_one, not_zero

__all__ = ["TOGETHER", "Events", "Inputs", "inputs_of"]

TOGETHER = 8
"""Samples whose events by channel are one list: enough that a channel has some."""
_USUAL = 8
"""One number among so many that is not 0 is what room is made for first."""
_AT_ONCE, _HIGHEST = 4, np.uint64(1 << 63)
_WORD = 64
"""Numbers that are looked at together: most are 0, and most of their neighbours with them."""


class Events(NamedTuple):
    """Events of each list, row by row.

    Attributes:
        number: int16 or int32 (lists, K), filled from the left, see :class:`Inputs`.
        value: float32 (lists, K), filled likewise; (lists, 0): all are 1.
        end: int64 (lists, rows + 1), where the events of a row begin, and end.
    """

    number: np.ndarray
    value: np.ndarray
    end: np.ndarray


class Inputs(NamedTuple):
    """An input as events.

    Attributes:
        by_step: a list for each sample, whose rows are steps; the number of an event is that of its channel.
        by_channel: the same events, a list for :data:`TOGETHER` samples, whose rows are channels; the number
            of an event of step t of the n-th of them is ``n T + t``, of T steps.
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
    batch, steps, channels = x.shape
    turned = not x.flags.c_contiguous and x.transpose(0, 2, 1).flags.c_contiguous
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    planes = np.ascontiguousarray(x.transpose(0, 2, 1) if turned else x, kind)
    room, lists = steps * channels // _USUAL, -(-batch // TOGETHER)
    while True:
        by_step = _room(batch, steps, channels, room, graded)
        by_channel = _room(lists, channels, TOGETHER * steps, TOGETHER * room, graded)
        facts = np.zeros((4, lists))
        spread(_list, lists, planes, turned, by_step, by_channel, facts)
        (fractions, _, others, _), (_, largest, _, most) = facts.sum(axis=1), facts.max(axis=1, initial=0)
        if most <= room and (graded or not others):
            return Inputs(by_step, by_channel, int(fractions), float(largest))
        room, graded = max(room, int(most)), graded or others > 0


def _room(lists: int, rows: int, numbers: int, events: int, graded: bool) -> Events:
    number = np.empty((lists, events), np.int16 if numbers <= 1 << 15 else np.int32)
    value = np.empty((lists, events if graded else 0), np.float32)
    return Events(number, value, np.empty((lists, rows + 1), np.int64))


@inner()
def _places(plane, places, room):
    """Write where a flat array is not 0, as far as there is room.

    Returns:
        How many such places there are, and at how many of them it is not 1.
    """
    k, others, size = 0, 0, plane.shape[0]
    for at in range(0, size, _WORD):
        found, odd = np.uint64(0), np.uint64(0)
        if at + _WORD <= size:
            here = plane.ctypes.data + plane.itemsize * at
            found, odd = not_zero(plane, here), not_one(plane, here)
        else:
            for n in range(size - at):
                found |= np.uint64(plane[at + n] != 0) << np.uint64(n)
                odd |= np.uint64(plane[at + n] != 1) << np.uint64(n)
        if found != 0:
            end = min(k, room)
            k += count_ones(found)
            if found & odd != 0:
                others += count_ones(found & odd)
            # So many at once, whether they are there or not: what a processor can foresee.
            for _ in range(_AT_ONCE):
                places[np.uint64(end)] = at + lowest_bit(found | _HIGHEST)
                found &= found - ONE
                end += 1
            while found != 0:
                places[np.uint64(end)] = at + lowest_bit(found)
                found &= found - ONE
                end += 1
    return k, others


@inner()
def _columns(places, k, columns, row_of, ends):
    """Replace places of a flat array, ascending, by their columns, and list their rows.

    Args:
        places: uint64 (k or more,). row_of: int32 (k or more,), written.
        ends: int64 (rows + 1,), written: where the places of a row begin, and end.
    """
    row, begins, behind = 0, 0, columns
    ends[0] = 0
    for i in range(k):
        place = np.int64(places[np.uint64(i)])
        while place >= behind:
            row, begins, behind = row + 1, behind, behind + columns
            ends[row] = i
        row_of[np.uint64(i)], places[np.uint64(i)] = row, place - begins
    for later in range(row + 1, ends.shape[0]):
        ends[later] = k


@compiled()
def _list(pieces, x, turned, by_step, by_channel, facts):
    """List what is not 0, by step and by channel.

    Plain version: ``test_events_are_what_is_not_zero`` in tests/test_src_training.py.

    Args:
        pieces: the lists by channel, as :func:`kernels.threads.each` draws them.
        x: float32 or uint8 (B, T, C), C order; ``turned``: (B, C, T).
        by_step, by_channel: :class:`Events` as :class:`Inputs` has them, written, without values where there
            is no room for any.
        facts: float64 (4, lists by channel), written: how many values are not whole, the largest magnitude,
            how many are not 1, and how many events the sample with the most has. Where these are more than
            there is room for, the list is void.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    channels_of, values_by_step, step_ends = by_step.number, by_step.value, by_step.end
    times, values_by_channel, channel_ends = by_channel.number, by_channel.value, by_channel.end
    batch, rows, columns = x.shape
    size, room, graded = rows * columns, channels_of.shape[1], values_by_step.shape[1] > 0
    steps, channels = step_ends.shape[1] - 1, channel_ends.shape[1] - 1
    for group in each(borrowed(pieces)):
        begin = group * TOGETHER
        samples = min(TOGETHER, batch - begin)
        # Indices without a sign are not checked for one. Where there is no room, the last places are spoilt.
        places, row_of = np.empty(room + 2 * _WORD, np.uint64), np.empty(room, np.int32)
        starts, row_ends = np.zeros(channels + 1, np.int64), np.zeros(rows + 1, np.int64)
        fractions, others, most, largest = 0, 0, 0, np.float32(0)
        for b in range(begin, begin + samples):
            plane = x[b].reshape(size)
            k, odd = _places(plane, places, room)
            others, most, largest = others + odd, max(most, k), max(largest, np.float32(min(k, 1)))
            if k > room:
                continue
            if odd > 0:
                for i in range(k):
                    value = np.float32(plane[places[np.uint64(i)]])
                    fractions += value != np.floor(value)
                    largest = max(largest, abs(value))
            _columns(places, k, columns, row_of, row_ends)
            if turned:
                step_starts = np.zeros(steps + 1, np.int64)
                for i in range(k):
                    step_starts[places[np.uint64(i)] + ONE] += 1
                _add_up(step_starts, step_ends[b])
                for i in range(k):
                    step, channel = places[np.uint64(i)], row_of[np.uint64(i)]
                    at = np.uint64(step_starts[step])
                    channels_of[b, at] = channel
                    starts[channel + 1] += 1
                    step_starts[step] += 1
                    if graded:
                        values_by_step[b, at] = plane[channel * columns + np.int64(step)]
            else:
                for row in range(rows + 1):
                    step_ends[b, row] = row_ends[row]
                for i in range(k):
                    channel = places[np.uint64(i)]
                    channels_of[b, np.uint64(i)] = channel
                    starts[channel + ONE] += 1
                    if graded:
                        values_by_step[b, i] = plane[row_of[i] * columns + np.int64(channel)]
        facts[0, group], facts[1, group], facts[2, group], facts[3, group] = fractions, largest, others, most
        if most > room:
            continue
        _add_up(starts, channel_ends[group])
        for sample in range(samples):
            b = begin + sample
            for step in range(steps):
                for i in range(step_ends[b, step], step_ends[b, step + 1]):
                    channel = np.uint64(channels_of[b, np.uint64(i)])
                    at = np.uint64(starts[channel])
                    times[group, at] = sample * steps + step
                    starts[channel] += 1
                    if graded:
                        values_by_channel[group, at] = values_by_step[b, i]


@inner()
def _add_up(counts, ends):
    """Replace numbers by their sums up to each, and write these to ``ends`` too."""
    for n in range(1, counts.shape[0]):
        counts[n] += counts[n - 1]
    for n in range(counts.shape[0]):
        ends[n] = counts[n]
