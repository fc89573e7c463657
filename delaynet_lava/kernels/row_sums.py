"""Sums of the rows that a list names, which stay in registers while the list passes."""

from __future__ import annotations

import numba as nb
from llvmlite import ir
from numba.extending import intrinsic

from delaynet_lava.kernels.compiled import inner
from delaynet_lava.kernels.vectors import LANES, everywhere, number, place

__all__ = ["AT_ONCE", "add_listed", "add_rows", "add_weighed", "add_words_listed"]

_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FUSED = ("contract",)
_WIDTHS = (7, 4, 2, 1)
"""Vectors whose sums are kept at once: most, and fewer for the rest of a row."""
AT_ONCE = 127
"""Words of up to 256 whose sum fits in 16 bits, whatever they are."""


def _summer(vectors, weighed=False):
    """``out[: 16 vectors] += sum of [factors[k] *] rows[numbers[k]]`` over k from ``first`` to ``last - 1``.

    Sums with factors are of floats. Without, they are of floats, or of integers, which are summed in the type
    of the rows; that of ``out`` may be wider.
    """

    @intrinsic
    def add(_, out_type, row_type, number_type, out, rows, stride, numbers, factors, first, last):
        def generate(_context, builder, signature, args):
            out, rows, stride, numbers, factors, first, last = args[3:]
            kind = ir.IntType(signature.args[2].dtype.bitwidth)
            word, narrow = (ir.IntType(one.dtype.bitwidth) for one in signature.args[:2])
            floats = isinstance(signature.args[0].dtype, nb.types.Float)
            if floats:
                word = narrow = _FLOAT
            bytes_out, bytes_row = (one.dtype.bitwidth // 8 for one in signature.args[:2])
            words, narrows = ir.VectorType(word, LANES), ir.VectorType(narrow, LANES)
            at = [number(v * LANES) for v in range(vectors)]
            places = [place(builder, out, i, words, bytes_out) for i in at]
            if floats:
                start = [builder.load(where, align=4) for where in places]
            else:
                start = [ir.Constant(narrows, [0] * LANES)] * vectors
            before = builder.block
            loop, done = builder.append_basic_block("event"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            k.add_incoming(first, before)
            sums = [builder.phi(narrows) for _ in at]
            which = builder.load(place(builder, numbers, k, kind, kind.width // 8))
            row = builder.mul(builder.sext(which, _INDEX), stride)
            if weighed:
                factor = everywhere(builder, builder.load(place(builder, factors, k, _FLOAT)))
            added = []
            for part, i in zip(sums, at, strict=True):
                here = place(builder, rows, builder.add(row, i), narrows, bytes_row)
                value = builder.load(here, align=2)
                if weighed:
                    added.append(builder.fadd(part, builder.fmul(factor, value, flags=_FUSED), flags=_FUSED))
                else:
                    added.append(builder.fadd(part, value) if floats else builder.add(part, value))
            for part, value, new in zip(sums, start, added, strict=True):
                part.add_incoming(value, before)
                part.add_incoming(new, loop)
            after = builder.add(k, number(1))
            k.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", after, last), loop, done)
            builder.position_at_end(done)
            for value, where in zip(added, places, strict=True):
                if not floats:
                    value = builder.add(builder.load(where, align=4), builder.sext(value, words))
                builder.store(value, where, align=4)
            return number(0)

        return nb.int64(out_type, row_type, number_type, *[nb.int64] * 7), generate

    return add


def _by_widths(weighed):
    """Sums of rows of any number of vectors, a few vectors at a time."""
    seven, four, two, one = (_summer(vectors, weighed) for vectors in _WIDTHS)

    @nb.njit(inline="always")
    def run(totals, position, rows, first_row, numbers, factors, sample, first, last):
        if first >= last:
            return
        width, per_sample = rows.shape[1], numbers.shape[1]
        which = numbers.ctypes.data + numbers.itemsize * sample * per_sample
        weights = factors.ctypes.data + 4 * sample * per_sample
        done = 0
        while done < width:
            left = width - done
            to = totals.ctypes.data + totals.itemsize * (position * width + done)
            of = rows.ctypes.data + rows.itemsize * (first_row * width + done)
            if left >= _WIDTHS[0] * LANES:
                seven(totals, rows, numbers, to, of, width, which, weights, first, last)
                done += _WIDTHS[0] * LANES
            elif left >= _WIDTHS[1] * LANES:
                four(totals, rows, numbers, to, of, width, which, weights, first, last)
                done += _WIDTHS[1] * LANES
            elif left >= _WIDTHS[2] * LANES:
                two(totals, rows, numbers, to, of, width, which, weights, first, last)
                done += _WIDTHS[2] * LANES
            else:
                one(totals, rows, numbers, to, of, width, which, weights, first, last)
                done += LANES

    return run


_list_sums, _weighed_sums = _by_widths(weighed=False), _by_widths(weighed=True)


@nb.njit(inline="always")
def add_listed(totals, position, rows, first_row, numbers, sample, first, last):
    """``totals[position] += sum of rows[first_row + numbers[sample, k]]``.

    Over k from ``first`` to ``last - 1``.

    Args:
        totals: float32 (L, P), C order, P a multiple of :data:`LANES`. rows: float32 (N, P), C order.
        numbers: int16 or int32 (B, K).
    """
    _list_sums(totals, position, rows, first_row, numbers, numbers, sample, first, last)


@nb.njit(inline="always")
def add_words_listed(totals, position, rows, first_row, numbers, sample, first, last):
    """:func:`add_listed` of weight words, which are summed in 16 bits for as long as these hold them.

    Args:
        totals: int32 or int64 (L, P). rows: int16 (N, P), of at most 256.
    """
    for begin in range(first, last, AT_ONCE):
        end = min(begin + AT_ONCE, last)
        _list_sums(totals, position, rows, first_row, numbers, numbers, sample, begin, end)


@nb.njit(inline="always")
def add_weighed(totals, position, rows, first_row, numbers, factors, sample, first, last):
    """``totals[position] += sum of factors[sample, k] * rows[first_row + numbers[sample, k]]``.

    Over k from ``first`` to ``last - 1``.

    Args:
        totals: float32 (N, P), C order, P a multiple of :data:`LANES`. rows: float32 (L, P), C order.
        numbers: int16 or int32 (B, K). factors: float32 (B, K), C order both.
    """
    _weighed_sums(totals, position, rows, first_row, numbers, factors, sample, first, last)


def _adder(vectors):
    """``out[: 16 vectors] += sum of rows[(first + k) & last]`` over the bits k of ``word``, not 0."""

    @intrinsic
    def add(_, out, rows, stride, first, last, word):
        def generate(_context, builder, _signature, args):
            out, rows, stride, first, last, word = args
            at = [number(v * LANES) for v in range(vectors)]
            start = [builder.load(place(builder, out, i, _VECTOR), align=4) for i in at]
            before = builder.block
            loop, done = builder.append_basic_block("spike"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            left = builder.phi(_INDEX)
            left.add_incoming(word, before)
            sums = [builder.phi(_VECTOR) for _ in at]
            bit = builder.cttz(left, ir.Constant(ir.IntType(1), 1))
            row = builder.mul(builder.and_(builder.add(first, bit), last), stride)
            added = [
                builder.fadd(part, builder.load(place(builder, rows, builder.add(row, i), _VECTOR), align=4))
                for part, i in zip(sums, at, strict=True)
            ]
            for part, value, new in zip(sums, start, added, strict=True):
                part.add_incoming(value, before)
                part.add_incoming(new, loop)
            rest = builder.and_(left, builder.sub(left, number(1)))
            left.add_incoming(rest, loop)
            builder.cbranch(builder.icmp_unsigned("!=", rest, number(0)), loop, done)
            builder.position_at_end(done)
            for value, i in zip(added, at, strict=True):
                builder.store(value, place(builder, out, i, _VECTOR), align=4)
            return number(0)

        return nb.int64(nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.uint64), generate

    return add


_add_four, _add_one = _adder(4), _adder(1)


@inner()
def add_rows(totals, rows, first, lag, words):
    """``totals[j] += sum of rows[(first + lag[j] + k) % L]`` over the bits k that are set in ``words[j]``.

    Args:
        totals: float32 (N, P), C order, P a multiple of :data:`LANES`.
        rows: float32 (L, P), C order, L a power of two.
        first: the row of bit 0 of a sender without lag, not negative; lag: int32 (N,).
        words: uint64 (N,) or more.
    """
    start, width, last = rows.ctypes.data, rows.shape[1], rows.shape[0] - 1
    done = 0
    # A few columns at a time: of them, all rows stay in the nearest cache.
    while done < width:
        wide = width - done >= 4 * LANES
        for j in range(lag.shape[0]):
            if words[j] != 0:
                out = totals.ctypes.data + 4 * (j * width + done)
                if wide:
                    _add_four(out, start + 4 * done, width, first + lag[j], last, words[j])
                else:
                    _add_one(out, start + 4 * done, width, first + lag[j], last, words[j])
        done += 4 * LANES if wide else LANES
