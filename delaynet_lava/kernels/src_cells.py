"""One step of a row of Spiking Recurrent Cells, in explicit vectors of 16.

The arithmetic is that of :mod:`delaynet_lava.fixedpoint`, see :mod:`kernels.instructions`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from delaynet_lava import fixedpoint as fx
from delaynet_lava.kernels.compiled import inner
from delaynet_lava.kernels.instructions import Words
from delaynet_lava.kernels.vectors import LANES, everywhere, number, place

__all__ = ["SLOPE_ONE", "CellRow", "new_row", "step_back", "step_cells", "step_sloped", "sum_type"]

SLOPE_ONE = 2 * fx.DECAY_ONE, 6 * fx.DECAY_ONE
"""Words for slopes dh/dp and dx/di of 1. A slope is such a word less |p| or |i|, in which one is 4096."""
_LONG, _SHORT, _HALF, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.FloatType()


class CellRow(NamedTuple):
    """Where the cells of one sample stand, and what they do; rows of P, a multiple of :data:`LANES`.

    Attributes:
        bias: int32, b_h.
        i, h, slow: int32, replaced.
        sent: int32, written, what is sent.
        fired: uint64 (words,), written: bits of those that send something.
    """

    bias: np.ndarray
    i: np.ndarray
    h: np.ndarray
    slow: np.ndarray
    sent: np.ndarray
    fired: np.ndarray


def sum_type(largest: int, shift: int) -> np.dtype:
    """Type of synaptic sums in which the new current fits before it saturates.

    Args:
        largest: bound on |sum|. shift: of a :class:`fixedpoint.SrcForm`.
    """
    fits = (largest << max(0, shift)) + fx.V_MAX < 1 << 31
    return np.dtype(np.int32 if fits else np.int64)


@inner()
def new_row(bias, i, h, slow):
    """A row that starts at copies of these."""
    fired = np.zeros((bias.shape[0] + 63) // 64, np.uint64)
    return CellRow(bias, i.copy(), h.copy(), slow.copy(), np.empty_like(bias), fired)


def _stepper(wants_slopes):
    """A step, after which slopes are wanted or not."""

    @intrinsic
    def _step(
        _, now, vectors, slot, bias, i, h, slow, sent, fired,
        shift, input_decay, squash, activation, feedback, output_bits, slope_h, slope_x,
    ):  # fmt: skip
        def generate(_context, builder, signature, args):
            vectors, slot, bias, i, h, slow, sent, fired = args[1:9]
            word = ir.IntType(signature.args[0].dtype.bitwidth)
            words, short, halves = (ir.VectorType(kind, LANES) for kind in (word, _SHORT, _HALF))

            def load(base, index):
                value = builder.load(place(builder, base, index, short), align=4)
                return Words(builder, builder.sext(value, words) if word != _SHORT else value)

            def store(value, base, index):
                kept = builder.trunc(value.value, short) if word != _SHORT else value.value
                builder.store(kept, place(builder, base, index, short), align=4)

            def of_all(value):
                return Words(
                    builder, everywhere(builder, value if word == _LONG else builder.trunc(value, word))
                )

            def chosen(kind, values):
                one, *others = values
                for k, other in enumerate(others, 1):
                    is_it = builder.icmp_signed("==", kind, number(k))
                    one = Words(builder, builder.select(is_it, other.value, one.value))
                return one

            def slope(value, one, base, index):
                size = abs(value)
                rest = Words(builder, ir.Constant(words, [one] * LANES)) - size
                rest = builder.select((rest > 0).value, rest.value, nothing)
                builder.store(builder.trunc(rest, halves), place(builder, base, index, halves, 2), align=2)

            shift, decay, feedback, bits = (of_all(args[k]) for k in (9, 10, 13, 14))
            nothing = ir.Constant(words, [0] * LANES)
            before = builder.block
            loop, done = builder.append_basic_block("sixteen"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, spikes, over = builder.phi(_LONG), builder.phi(_LONG), builder.phi(words)
            k.add_incoming(number(0), before)
            spikes.add_incoming(number(0), before)
            over.add_incoming(nothing, before)
            at = builder.mul(k, number(LANES))
            here = place(builder, slot, at, words, word.width // 8)
            arriving = Words(builder, builder.load(here, align=4))
            builder.store(nothing, here, align=4)
            old_h, old_slow, level = load(h, at), load(slow, at), load(bias, at)
            wide = fx.src_current(load(i, at), arriving, decay, shift)
            current = fx.src_saturated(wide)
            potential = chosen(args[11], [
                fx.src_potential(current, old_h, old_slow, level, kind, feedback)
                for kind in fx.SRC_SQUASHES.values()
            ])  # fmt: skip
            new_h = chosen(args[12], [fx.src_activated(potential, k) for k in fx.SRC_ACTIVATIONS.values()])
            payload = fx.src_payload(new_h, bits)
            store(current, i, at)
            store(new_h, h, at)
            store(fx.src_slower(old_slow, old_h), slow, at)
            if wants_slopes:
                slope(potential, SLOPE_ONE[0], args[15], at)
                slope(current, SLOPE_ONE[1], args[16], at)
            store(payload, sent, at)
            sends = builder.zext(builder.bitcast((payload > 0).value, _HALF), _LONG)
            quarter = builder.and_(k, number(3))
            begins = builder.icmp_signed("==", quarter, number(0))
            sends = builder.shl(sends, builder.mul(quarter, number(LANES)))
            latest = builder.or_(builder.select(begins, number(0), spikes), sends)
            builder.store(latest, place(builder, fired, builder.lshr(k, number(2)), _LONG, 8), align=8)
            total = builder.add(over, builder.zext(fx.saturates(wide).value, words))
            after = builder.add(k, number(1))
            k.add_incoming(after, loop)
            spikes.add_incoming(latest, loop)
            over.add_incoming(total, loop)
            builder.cbranch(builder.icmp_signed("<", after, vectors), loop, done)
            builder.position_at_end(done)
            # The sum of the numbers in it, by halves.
            count, half = total, LANES // 2
            while half:
                index = ir.Constant(ir.VectorType(_SHORT, LANES), [(n + half) % LANES for n in range(LANES)])
                count = builder.add(count, builder.shuffle_vector(count, nothing, index))
                half //= 2
            found = builder.extract_element(count, ir.Constant(_SHORT, 0))
            return found if word == _LONG else builder.zext(found, _LONG)

        return nb.int64(now, *[nb.int64] * 16), generate

    return _step


_silent, _sloped = _stepper(False), _stepper(True)


@nb.njit(inline="always")
def step_cells(ring, at, row, form):
    """:func:`fixedpoint.src_step` of a row of cells.

    Plain version: ``cell`` in tests/plain.py; ``test_a_step_in_vectors_is_the_plain_arithmetic`` in
    tests/test_src.py calls :mod:`delaynet_lava.fixedpoint` on arrays.

    Args:
        ring: int32 or int64 (L, P), of :func:`sum_type`; what arrives is its row ``at``, which is emptied.
        row: a :class:`CellRow`. form: a :class:`fixedpoint.SrcForm`.

    Returns:
        How often i saturated.
    """
    width = ring.shape[1]
    return _silent(
        ring, width // LANES, ring.ctypes.data + ring.itemsize * at * width, row.bias.ctypes.data,
        row.i.ctypes.data, row.h.ctypes.data, row.slow.ctypes.data, row.sent.ctypes.data,
        row.fired.ctypes.data, np.int64(form.shift), np.int64(form.input_decay), np.int64(form.squash),
        np.int64(form.activation), np.int64(form.slow), np.int64(form.output_bits), np.int64(0), np.int64(0),
    )  # fmt: skip


@nb.njit(inline="always")
def step_sloped(ring, at, row, form, slope_h, slope_x, position):
    """:func:`step_cells`, and the slopes of h over p and of x over i.

    ``max(0, 8192 - |p|)`` and ``max(0, 24576 - |i|)`` go to the rows ``position`` of ``slope_h`` and
    ``slope_x``, int16 (K, P).
    """
    width = ring.shape[1]
    return _sloped(
        ring, width // LANES, ring.ctypes.data + ring.itemsize * at * width, row.bias.ctypes.data,
        row.i.ctypes.data, row.h.ctypes.data, row.slow.ctypes.data, row.sent.ctypes.data,
        row.fired.ctypes.data, np.int64(form.shift), np.int64(form.input_decay), np.int64(form.squash),
        np.int64(form.activation), np.int64(form.slow), np.int64(form.output_bits),
        slope_h.ctypes.data + 2 * position * width, slope_x.ctypes.data + 2 * position * width,
    )  # fmt: skip


@intrinsic
def _back(_, slopes, vectors, outer, slope_h, slope_x, g, grad_a, grad_b, keep, grain, unit):
    def generate(_context, builder, signature, args):
        vectors, outer, slope_h, slope_x, g, grad_a, grad_b = args[1:8]
        floats, whole = ir.VectorType(_FLOAT, LANES), isinstance(signature.args[0].dtype, nb.types.Integer)
        keep, grain, unit = (everywhere(builder, value) for value in args[8:])
        with cgutils.for_range(builder, vectors) as loop:
            at = builder.mul(loop.index, number(LANES))

            def load(base):
                return builder.load(place(builder, base, at, floats), align=4)

            def slope(base):
                if not whole:
                    return load(base)
                halves = ir.VectorType(_HALF, LANES)
                return builder.sitofp(builder.load(place(builder, base, at, halves, 2), align=2), floats)

            def times(one, other):
                return builder.fmul(one, other, flags=("contract",))

            def plus(one, other):
                return builder.fadd(one, other, flags=("contract",))

            into_p = times(times(load(outer), grain), slope(slope_h))
            new = plus(times(keep, load(g)), times(into_p, times(unit, slope(slope_x))))
            for value, base in ((plus(load(grad_b), into_p), grad_b), (new, g), (new, grad_a)):
                builder.store(value, place(builder, base, at, floats), align=4)
        return number(0)

    return nb.int64(slopes, *[nb.int64] * 7, nb.float32, nb.float32, nb.float32), generate


@nb.njit(inline="always")
def step_back(outer, slope_h, slope_x, position, factors, g, grad_a, grad_b, sample):
    """One step of the backward pass of a row of cells, float32.

    ``grad_b += outer grain slope_h``; ``g = grad_a = keep g + outer grain slope_h unit slope_x``.

    Args:
        outer, g: (P,). grad_a: (K, P), slope_h, slope_x: the same, or int16: the row ``position``.
        factors: keep, grain, unit. grad_b: (B, P), ``sample``.
    """
    width = outer.shape[0]
    here = position * width
    keep, grain, unit = factors
    _back(
        slope_h, width // LANES, outer.ctypes.data, slope_h.ctypes.data + slope_h.itemsize * here,
        slope_x.ctypes.data + slope_x.itemsize * here, g.ctypes.data, grad_a.ctypes.data + 4 * here,
        grad_b.ctypes.data + 4 * sample * width, keep, grain, unit,
    )  # fmt: skip
