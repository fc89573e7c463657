"""Event-driven execution of one layer: work per spike, not per synapse and step.

A spike adds the weights of its sender's synapses into a ring of future synaptic inputs. The
arithmetic is that of :mod:`delaynet_lava.fixedpoint`. Emulation and the forward pass of training are
this one loop.

Shapes: B batch, T steps, P neurons, filled up to a multiple of 16 with neurons that have
no synapses and stay silent: the loops over neurons then have no remainder. Spikes are bits
(:mod:`delaynet_lava.kernels.spikes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from delaynet_lava.fixedpoint import STATE_SHIFT, UV_HALF, reset_membrane
from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.spikes import ONE, lowest_bit
from delaynet_lava.kernels.state import Rows, Rule, advance
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared
from delaynet_lava.kernels.vectors import LANES, above, add_words, add_words_times, write_row

__all__ = [
    "NO_SYNAPSES",
    "EventList",
    "Incoming",
    "Parameters",
    "Record",
    "State",
    "as_rows",
    "event_list",
    "largest_sum",
    "longest_delay",
    "of_rows",
    "padded",
    "ring_length",
    "run_layer",
    "sorted_list",
    "state_types",
]

_NONE = np.zeros(0, np.uint64)
DENSE = 8
"""One target among so many neurons is enough to keep a sender's weights as a row."""
NEVER = 1 << 24
"""A threshold that no membrane reaches."""


def padded(neurons: int) -> int:
    """Neurons of the layout, a multiple of :data:`kernels.vectors.LANES`."""
    return -(-neurons // LANES) * LANES


def state_types(largest_input: int, largest_bias: int = 0) -> tuple[np.dtype, np.dtype]:
    """Types that hold every sum before the wrap and the clip: of the state's words, and of the ring's.

    Args:
        largest_input: bound on |synaptic input| of a neuron in one step.
        largest_bias: bound on |bias|, shifted.
    """
    if (largest_input << STATE_SHIFT) + UV_HALF >= 1 << 31 or largest_bias >= 1 << 30:
        return np.dtype(np.int64), np.dtype(np.int64)
    # Half as long, a ring of 64 steps and 128 neurons stays in the nearest cache.
    return np.dtype(np.int32), np.dtype(np.int16 if largest_input < 1 << 15 else np.int32)


def ring_length(largest_delay: int) -> int:
    """Steps that a ring holds: the one that runs and those that spikes reach; a power of two."""
    return 1 << (largest_delay + 1).bit_length()


class EventList(NamedTuple):
    """Synapses by sending neuron.

    Where a sender reaches many neurons, its weights are a row of all neurons, in order. Elsewhere they are
    entries, those of sender j from ``start[j]`` to ``start[j + 1]``.

    Attributes:
        whole: which of the two; whole rows are axonal.
        axonal: whether each sender has one delay.
        delay: int32, by sender where axonal, else by entry.
        rows: int16, or int32 where words need it, exponent included, (pre, P); (0, 0) for entries.
        start: uint64 (pre + 1,).
        target: uint32, receiving neuron; weight: as ``rows``. (Indices with a sign would be checked for it.)
    """

    whole: bool
    axonal: bool
    delay: np.ndarray
    rows: np.ndarray
    start: np.ndarray
    target: np.ndarray
    weight: np.ndarray


class Incoming(NamedTuple):
    """What a layer takes in. The one of the two that is not used has a first axis of 0.

    Attributes:
        bits: uint64 (B, T, words), spikes of the layer before.
        values: int32 (B, T, channels), what comes in where it is not spikes.
    """

    bits: np.ndarray
    values: np.ndarray


class Parameters(NamedTuple):
    """What of a layer is the same in every step.

    Attributes:
        lead: lag of an undelayed input: 1, or 0 where the input is already late by one step.
        encode: int64 (2,), neuron i takes ``encode[0] * x + encode[1]`` for the value x of channel i; or
            (0,): values are payloads, which go through the forward synapses.
        decays: of current and membrane, 0 to 4096, of the state's type: (2, 1) for all neurons or (2, P).
        bias: (P,), of that type, already shifted.
        threshold: ``vth << 6``, a multiple of the membrane's unit; a spike is ``v > threshold``.
        reset: ``RESET_ZERO`` or ``RESET_SUBTRACT``.
        unit_exp, limit: of the membrane, see :func:`fixedpoint.membrane_grid`.
    """

    lead: int
    encode: np.ndarray
    decays: np.ndarray
    bias: np.ndarray
    threshold: int
    reset: int
    unit_exp: int
    limit: int


class State(NamedTuple):
    """What a layer goes on from; replaced by what it goes on from next.

    Attributes:
        u, v: (B, P), current and membrane, of the first of :func:`state_types`.
        pending: (B, L, P), ring of synaptic inputs to come, of :func:`ring_length`; of the second one.
        counts: int64 (B, 3), added to: u wraps, v saturations, spikes.
    """

    u: np.ndarray
    v: np.ndarray
    pending: np.ndarray
    counts: np.ndarray


class Record(NamedTuple):
    """What is written of the steps that run. The last axis of each array lies close together.

    Attributes:
        fired: uint64 (B, T, words), spikes.
        current: int32 (B, steps, P), current after the wrap; or (0, 0, 0).
        voltage: int32 (B, steps, N or P), membrane; or (0, 0, 0).
        before_reset: whether the membrane is the one that is compared with the threshold or what is left.
    """

    fired: np.ndarray
    current: np.ndarray
    voltage: np.ndarray
    before_reset: bool


@compiled()
def _survey(weight, delay, count, lag):
    """Count each sender's synapses, and note the delay of the last.

    Plain version: ``sorted_list`` in this module.

    Args:
        weight, delay: (post, pre). count, lag: (pre,), zeros.

    Returns:
        Whether that delay is the one of all the sender's synapses; the least and the largest weight, or 0.
    """
    axonal, lowest, highest = True, 0, 0
    for post in range(weight.shape[0]):
        for pre in range(weight.shape[1]):
            if weight[post, pre] != 0:
                axonal &= count[pre] == 0 or delay[post, pre] == lag[pre]
                count[pre] += 1
                lag[pre] = delay[post, pre]
                lowest, highest = min(lowest, weight[post, pre]), max(highest, weight[post, pre])
    return axonal, lowest, highest


@compiled()
def _sort(weight, delay, exponent, place, lag, target, word):
    """Write the synapses, those of sender j from ``place[j]`` on, which is moved behind the last.

    Plain version: ``sorted_list`` in this module.
    """
    for post in range(weight.shape[0]):
        for pre in range(weight.shape[1]):
            if weight[post, pre] != 0:
                k = place[pre]
                if lag.shape[0] > 0:
                    lag[k] = delay[post, pre]
                target[k], word[k] = post, np.int64(weight[post, pre]) << exponent
                place[pre] += 1


def event_list(weight: np.ndarray, delay: np.ndarray, weight_exp: int) -> EventList:
    """Sort (post, pre) matrices into an :class:`EventList`; synapses of weight 0 are left out."""
    if weight_exp < 0:  # of even words: whole numbers
        weight, weight_exp = weight >> -weight_exp, 0
    # A loop is compiled for each type and layout: those of networks as they are, which may be large, and one.
    words = np.int16 if weight.dtype == delay.dtype == np.int16 else np.int32
    weight, delay = (np.ascontiguousarray(one, words) for one in (weight, delay))
    neurons, senders = weight.shape
    count, lag = np.zeros(senders, np.int64), np.zeros(senders, np.int32)
    axonal, lowest, highest = _survey(weight, delay, count, lag)
    kind = _word(lowest, highest, weight_exp)
    entries = int(count.sum())
    if axonal and as_rows(entries, weight.size):
        rows = np.zeros((senders, padded(neurons)), kind)
        rows[:, :neurons] = (weight.astype(np.int32) << weight_exp).T
        return of_rows(lag, rows)
    start = np.concatenate(([0], np.cumsum(count))).astype(np.uint64)
    target, word = np.empty(entries, np.uint32), np.empty(entries, kind)
    each = np.empty(0 if axonal else entries, np.int32)
    _sort(weight, delay, weight_exp, start[:-1].copy(), each, target, word)
    return EventList(
        False, bool(axonal), lag if axonal else each, np.zeros((0, 0), kind), start, target, word
    )


def sorted_list(
    neurons: int,
    start: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    delay: np.ndarray,
    weight_exp: int,
) -> EventList:
    """The :class:`EventList` of synapses that are sorted by sender; no matrix is made of few of them.

    Args:
        neurons: how many receive.
        start: int (pre + 1,); target, weight, delay: (synapses,), no weight 0: as in an :class:`EventList`.
    """
    if weight_exp < 0:
        weight, weight_exp = weight >> -weight_exp, 0
    kind = _word(weight.min(initial=0), weight.max(initial=0), weight_exp)
    count, lag = np.diff(start), np.zeros(len(start) - 1, np.int32)
    lag[count > 0] = delay[start[:-1][count > 0]]
    axonal = bool((np.repeat(lag, count) == delay).all())
    if axonal and as_rows(len(weight), neurons * len(lag)):
        rows = np.zeros((len(lag), padded(neurons)), kind)
        rows[np.repeat(np.arange(len(lag)), count), target] = weight.astype(np.int32) << weight_exp
        return of_rows(lag, rows)
    word = (weight.astype(np.int32) << weight_exp).astype(kind)
    each = lag if axonal else delay.astype(np.int32)
    return EventList(
        False, axonal, each, np.zeros((0, 0), kind), start.astype(np.uint64), target.astype(np.uint32), word
    )


def _word(lowest: int, highest: int, weight_exp: int) -> np.dtype:
    """Type that holds such words, exponent included."""
    short = int(lowest) << weight_exp >= -(1 << 15) and int(highest) << weight_exp < 1 << 15
    return np.dtype(np.int16 if short else np.int32)


def as_rows(entries: int, size: int) -> bool:
    """Whether to pass over all neurons in order costs no more than to look up those few."""
    return DENSE * entries >= size


def of_rows(lag: np.ndarray, rows: np.ndarray) -> EventList:
    """Synapses of senders to all neurons: int32 (senders,), steps, and words (senders, P)."""
    return EventList(True, True, lag, rows, _NONE, _NONE.astype(np.uint32), rows[:0, 0])


def largest_sum(synapses: EventList) -> int:
    """Bound on what synapses deliver to a neuron in one step, whatever spikes; of payloads, as often."""
    if not len(synapses.delay):
        return 0
    if synapses.whole:
        return int(np.abs(synapses.rows, dtype=np.int32).sum(axis=0, dtype=np.int64).max(initial=0))
    sums = np.bincount(synapses.target, weights=np.abs(synapses.weight, dtype=np.float64))
    return int(sums.max(initial=0))


def longest_delay(synapses: EventList) -> int:
    """Largest delay of a synapse; 0 where there is none."""
    return int(synapses.delay.max(initial=0))


NO_SYNAPSES = of_rows(np.zeros(0, np.int32), np.zeros((0, LANES), np.int16))


@nb.njit(inline="always")
def _deliver(synapses, j, t, pending):
    """Add the weights of sender j to the inputs of step ``t`` plus delay."""
    last = pending.shape[0] - 1
    if synapses.whole:
        add_words(pending, (t + synapses.delay[j]) & last, synapses.rows, j)
    elif synapses.axonal:
        at = (t + synapses.delay[j]) & last
        for k in range(synapses.start[j], synapses.start[j + 1]):
            pending[at, synapses.target[k]] += synapses.weight[k]
    else:
        for k in range(synapses.start[j], synapses.start[j + 1]):
            pending[(t + synapses.delay[k]) & last, synapses.target[k]] += synapses.weight[k]


@nb.njit(inline="always")
def _deliver_times(synapses, j, t, pending, payload):
    """:func:`_deliver` of a graded spike: the weights count ``payload`` times, an int64."""
    last = pending.shape[0] - 1
    if synapses.whole:
        add_words_times(pending, (t + synapses.delay[j]) & last, synapses.rows, j, payload)
    elif synapses.axonal:
        at = (t + synapses.delay[j]) & last
        for k in range(synapses.start[j], synapses.start[j + 1]):
            pending[at, synapses.target[k]] += payload * synapses.weight[k]
    else:
        for k in range(synapses.start[j], synapses.start[j + 1]):
            pending[(t + synapses.delay[k]) & last, synapses.target[k]] += payload * synapses.weight[k]


@nb.njit(inline="always")
def _holds(record, batch, steps, width):
    return record.shape[0] == batch and record.shape[1] >= steps and record.shape[2] == width


@compiled()
def run_layer(pieces, incoming, first, steps, forward, recurrent, parameters, clock, state, record):
    """Advance one layer by some steps, from ``state`` to the next one.

    With x what comes in, s the layer's own spikes, ``decay``, ``wrap`` and ``clip`` of
    :mod:`delaynet_lava.fixedpoint`:

        a[t, i] = sum_j w[i, j] x[t - lead - d[i, j], j]  +  the same of recurrent synapses, s and 1 for lead
        u[t] = wrap(decay(u[t-1], du) + (a[t] << 6))
        v[t] = clip(decay(v[t-1], dv) + u[t] + bias)
        s[t] = v[t] > threshold;  then the reset

    Plain version: ``plain`` in tests/plain.py, one neuron and one synapse at a time.

    Args:
        pieces: samples, as :func:`kernels.threads.each` draws them.
        incoming: :class:`Incoming`.
        first, steps: where in what comes in and in ``record.fired`` the steps begin and how many there
            are. (Not slices: every layout of a slice would be compiled anew.)
        forward, recurrent: :class:`EventList`; recurrent may be empty.
        parameters: :class:`Parameters`.
        clock: number of steps that were run before.
        state: :class:`State`; record: :class:`Record`.

    Raises:
        ValueError: an array that is written by address has another shape.
    """
    incoming, forward, recurrent, parameters, state, record = borrowed(
        (incoming, forward, recurrent, parameters, state, record)
    )
    bits, values = incoming
    lead, encode, decays, bias, threshold, reset, unit_exp, limit = parameters
    u, v, pending, counts = state
    fired, u_record, v_record, before_reset = record
    batch, lanes = u.shape
    last, vectors, words = pending.shape[1] - 1, lanes // LANES, fired.shape[2]
    if (
        lanes % LANES != 0
        or v.shape != u.shape
        or bias.shape[0] != lanes
        or decays.shape[0] != 2
        or (decays.shape[1] != 1 and decays.shape[1] != lanes)
        or (pending.shape[0], pending.shape[2]) != u.shape
        or (fired.shape[0], words) != (batch, (lanes + 63) // 64)
        or fired.shape[1] < first + steps
        or (forward.rows.shape[0] > 0 and forward.rows.shape[1] != lanes)
        or (recurrent.rows.shape[0] > 0 and recurrent.rows.shape[1] != lanes)
        or (u_record.shape[0] > 0 and not _holds(u_record, batch, steps, lanes))
        or (v_record.shape[0] > 0 and not _holds(v_record, batch, steps, min(lanes, v_record.shape[2])))
    ):
        raise ValueError("state and records have not the shapes of one layout")
    if shared(pieces):
        in_threads(pieces, myself())
        return
    keep_u, keep_v = u_record.shape[0] > 0, before_reset and v_record.shape[2] == lanes
    at_u, at_v = u_record.ctypes.data, v_record.ctypes.data
    for b in each(borrowed(pieces)):
        # Copies: what lies next to it is another thread's. Borrowed: Numba counts the references to an array
        # whose address is asked for, at each spike. Whole words of membranes, of which spikes are read.
        held = u[b].copy(), np.zeros(64 * words, v.dtype), pending[b].copy()
        write_row(v[b], held[1][:lanes])
        current, membrane, ring = borrowed(held)
        unread, sums = np.empty(lanes, np.int32), np.zeros(2 * LANES, u.dtype)
        at_current, at_membrane, at_ring = current.ctypes.data, membrane.ctypes.data, ring.ctypes.data
        at_each = decays.ctypes.data if decays.shape[1] > 1 else 0
        at_bias, at_unread, at_sums = bias.ctypes.data, unread.ctypes.data, sums.ctypes.data
        spikes = 0
        for step in range(steps):
            t = clock + step
            if values.shape[0] > 0 and encode.shape[0] > 0:
                for i in range(values.shape[2]):
                    ring[t & last, i] += encode[0] * values[b, first + step, i] + encode[1]
            elif values.shape[0] > 0:
                for i in range(values.shape[2]):
                    payload = np.int64(values[b, first + step, i])
                    if payload != 0:
                        _deliver_times(forward, i, t + lead, ring, payload)
            for w in range(bits.shape[2]):
                word = bits[b, first + step, w]
                while word != 0:
                    _deliver(forward, 64 * w + lowest_bit(word), t + lead, ring)
                    word &= word - ONE
            rows = Rows(
                at_current, at_membrane, at_ring + ring.itemsize * lanes * (t & last), at_bias,
                at_u + b * u_record.strides[0] + step * u_record.strides[1] if keep_u else at_unread,
                at_v + b * v_record.strides[0] + step * v_record.strides[1] if keep_v else at_unread,
                at_sums,
            )  # fmt: skip
            advance(current, ring, vectors, rows, Rule(decays[0, 0], decays[1, 0], unit_exp, limit, at_each))
            if before_reset and not keep_v:
                for i in range(v_record.shape[2]):
                    v_record[b, step, i] = membrane[i]
            for w in range(words):
                word = above(membrane, at_membrane + 64 * membrane.itemsize * w, threshold)
                fired[b, first + step, w] = word
                while word != 0:
                    i = 64 * w + lowest_bit(word)
                    word &= word - ONE
                    spikes += 1
                    membrane[i] = reset_membrane(membrane[i], threshold, reset)
                    if recurrent.delay.shape[0] > 0:
                        _deliver(recurrent, i, t + 1, ring)
            if not before_reset:
                for i in range(v_record.shape[2]):
                    v_record[b, step, i] = membrane[i]
        write_row(held[0], u[b])
        write_row(held[1], v[b])
        for slot in range(ring.shape[0]):
            write_row(held[2][slot], pending[b, slot])
        for k in range(LANES):
            counts[b, 0] += sums[k]
            counts[b, 1] += sums[LANES + k]
        counts[b, 2] += spikes
