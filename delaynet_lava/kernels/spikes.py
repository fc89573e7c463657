"""Spikes as bits: 64 neurons a word, neuron i of a step in bit ``i % 64`` of word ``i // 64``."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared, spread
from delaynet_lava.kernels.vectors import above_one, not_zero

__all__ = [
    "count",
    "count_ones",
    "lowest_bit",
    "pack",
    "pack_tensor",
    "tally",
    "unpack",
    "unpack_tensor",
    "words",
]

ONE = np.uint64(1)


def words(neurons: int) -> int:
    """Words that hold one step."""
    return -(-neurons // 64)


def pack(spikes: np.ndarray) -> np.ndarray:
    """uint64 (..., words) of spikes uint8 or bool (..., neurons), 0 or 1."""
    *shape, neurons = spikes.shape
    size, wide = -(-neurons // 8), words(neurons)
    if neurons % 8:
        filled = np.zeros((*shape, 8 * size), np.uint8)
        filled[..., :neurons] = spikes
        spikes = filled
    # As one row: a row for each step takes NumPy more than ten times as long.
    packed = np.packbits(spikes.reshape(-1), bitorder="little")
    if wide != 1:
        bits = np.zeros((*shape, 8 * wide), np.uint8)
        bits[..., :size] = packed.reshape(*shape, size)
        return bits.view("<u8")
    # And so does a copy of a few bytes. Read as a word, the next step's come along.
    read = np.ndarray(math.prod(shape), "<u8", np.append(packed, np.zeros(8, np.uint8)), 0, size)
    return (read & (~np.uint64(0) >> np.uint64(64 - 8 * size))).reshape(*shape, 1)


def unpack(bits: np.ndarray, neurons: int) -> np.ndarray:
    """uint8 (..., neurons) of :func:`pack`'s words."""
    return np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little", count=neurons)


@intrinsic
def lowest_bit(_, word):
    """Number of the lowest bit that is set in a uint64; undefined for 0."""

    def generate(_context, builder, _signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return nb.int64(nb.uint64), generate


def pack_tensor(values: np.ndarray, bits: np.ndarray) -> bool:
    """Pack (B, T, N) of any numbers and strides into uint64 (B, T, words).

    uint8, int32 and float32 in C order, or in that of their transpose, are read as they lie.

    Returns:
        Whether all values were 0 or 1; if not, ``bits`` holds nothing of use.
    """
    if values.dtype not in (np.uint8, np.int32, np.float32):
        values = values.astype(np.float32)
    by_neuron, others = values.transpose(0, 2, 1), np.zeros(len(bits), np.int64)
    if not values.flags.c_contiguous and by_neuron.flags.c_contiguous:
        spread(_pack_by_neuron, len(bits), by_neuron, bits, others)
    else:
        spread(_pack_by_step, len(bits), np.ascontiguousarray(values), bits, others)
    return not others.any()


@compiled()
def _pack_by_step(pieces, values, bits, others):
    """:func:`pack_tensor` of (B, T, N), C order; added to ``others``, int64 (B,): what is neither 0 nor 1.

    Plain version: ``pack`` in this module.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    batch, steps, n = values.shape
    zero, one = values.dtype.type(0), values.dtype.type(1)
    size = batch * steps * n
    for b in each(borrowed(pieces)):
        for t in range(steps):
            for w in range(bits.shape[2]):
                word, first = np.uint64(0), (b * steps + t) * n + 64 * w
                if values.itemsize == 1 and first + 64 <= size:
                    # What follows the row is read with it, and left out.
                    here = ~np.uint64(0) >> np.uint64(64 - min(64, n - 64 * w))
                    others[b] += (above_one(values, values.ctypes.data + first) & here) != 0
                    bits[b, t, w] = not_zero(values, values.ctypes.data + first) & here
                    continue
                for i in range(64 * w, min(64 * w + 64, n)):
                    value = values[b, t, i]
                    spike = value == one
                    others[b] += not (spike or value == zero)
                    word |= np.uint64(spike) << np.uint64(i - 64 * w)
                bits[b, t, w] = word


@compiled()
def _pack_by_neuron(pieces, values, bits, others):
    """:func:`_pack_by_step` of (B, N, T), C order: many steps of a neuron at once.

    Plain version: ``pack`` in this module.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    _, n, steps = values.shape
    for b in each(borrowed(pieces)):
        words_now = np.empty(steps, np.uint64)
        for w in range(bits.shape[2]):
            words_now[:] = 0
            for i in range(64 * w, min(64 * w + 64, n)):
                bit = ONE << np.uint64(i - 64 * w)
                others[b] += _add_bit(values[b, i], bit, words_now)
            for t in range(steps):
                bits[b, t, w] = words_now[t]


@inner()
def _add_bit(values, bit, words_now):
    """Set ``bit`` where a value is 1; returns how many are neither 0 nor 1."""
    zero, one = values.dtype.type(0), values.dtype.type(1)
    others = 0
    for t in range(values.shape[0]):
        spike = values[t] == one
        others += not (spike or values[t] == zero)
        words_now[t] |= bit if spike else np.uint64(0)
    return others


@intrinsic
def count_ones(_, word):
    """How many bits of a uint64 are set."""

    def generate(_context, builder, _signature, args):
        return builder.ctpop(args[0])

    return nb.int64(nb.uint64), generate


@compiled()
def count(bits, shift, totals):
    """Write the number of spikes of step t to float32 (B, T) at step ``t + shift``; the first stay.

    Plain version: ``unpack`` in this module, summed over neurons.
    """
    for b in range(totals.shape[0]):
        for t in range(totals.shape[1] - shift):
            total = 0
            for w in range(bits.shape[2]):
                total += count_ones(bits[b, t, w])
            totals[b, t + shift] = total


@compiled()
def tally(pieces, bits, first, stop, totals):
    """Add the number of spikes of each neuron in steps ``first`` to ``stop - 1`` to int64 (B, N).

    Plain version: ``unpack`` in this module, summed over steps.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    for b in each(borrowed(pieces)):
        for t in range(first, stop):
            for w in range(bits.shape[2]):
                word = bits[b, t, w]
                while word != 0:
                    totals[b, 64 * w + lowest_bit(word)] += 1
                    word &= word - ONE


@compiled()
def unpack_tensor(pieces, bits, shift, values):
    """Write the spikes of step t to float32 (B, T, N) at step ``t + shift``; the first are 0.

    Plain version: ``unpack`` in this module.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    _, steps, n = values.shape
    for b in each(borrowed(pieces)):
        values[b, :shift] = 0
        for t in range(steps - shift):
            for w in range(bits.shape[2]):
                word = bits[b, t, w]
                row = values[b, t + shift, 64 * w : min(64 * w + 64, n)]
                for i in range(row.shape[0]):
                    row[i] = np.float32((word >> np.uint64(i)) & ONE)
