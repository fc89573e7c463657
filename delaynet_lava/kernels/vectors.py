"""Sums of rows in explicit vectors: what costs most in emulation and training.

A compiler's own vectors leave the sums in memory; here they stay in registers while all rows pass. The
vectors have 16 numbers, which processors with shorter ones take in pieces.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from delaynet_lava.kernels.compiled import inner

__all__ = [
    "BLOCK",
    "LANES",
    "MANY",
    "ROWS",
    "above",
    "above_one",
    "add_words",
    "add_words_times",
    "everywhere",
    "in_blocks",
    "multiply",
    "multiply_at",
    "not_one",
    "not_zero",
    "number",
    "place",
    "write_row",
]


def _has(feature: str) -> bool:
    """Whether loops are compiled for a processor that has it; Numba keeps what it compiled apart by these."""
    asked: str | None = getattr(config, "CPU_FEATURES", None)  # NUMBA_CPU_FEATURES
    return f"+{feature}" in (asked or get_host_cpu_features()).split(",")


ROWS = 4
"""Rows of the left factor: each weight that is loaded serves all of them."""
BLOCK = 64 if _has("avx512f") else 16
"""Columns whose sums fit in registers, for up to :data:`MANY` rows."""
MANY = 6
"""Rows for which nearly all registers hold sums."""
LANES = 16
"""Numbers of a vector."""
_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FUSED = ("contract",)
_SHORT = ir.IntType(32)


def in_blocks(weight: np.ndarray) -> np.ndarray:
    """float32 (columns / BLOCK, rows, BLOCK) of a matrix (rows, columns), filled up with zeros."""
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK)
    full = np.zeros((rows, blocks * BLOCK), np.float32)
    full[:, :columns] = weight
    return np.ascontiguousarray(full.reshape(rows, blocks, BLOCK).transpose(1, 0, 2))


def number(value):
    """An index or address as a constant of the code that is built."""
    return ir.Constant(_INDEX, value)


def place(builder, base, index, kind, size=4):
    """Pointer to the number ``index``, of ``size`` bytes, behind an address."""
    address = builder.add(base, builder.mul(index, number(size)))
    return builder.inttoptr(address, kind.as_pointer())


def everywhere(builder, value, lanes=LANES):
    """A vector whose numbers are all ``value``."""
    nowhere = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nowhere, value, ir.Constant(_SHORT, 0))
    return builder.shuffle_vector(first, nowhere, ir.Constant(ir.VectorType(_SHORT, lanes), [0] * lanes))


def _block(rows):
    """``out[:rows, :BLOCK] = left[:rows, :depth] @ right``: addresses, and strides in numbers."""

    @intrinsic
    def run(_, left, left_stride, right, depth, out, out_stride):
        def generate(_context, builder, _signature, args):
            left, left_stride, right, depth, out, out_stride = args
            before = builder.block
            loop, done = builder.append_basic_block("row"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            k.add_incoming(number(0), before)
            sums = []
            for _ in range(rows * BLOCK // LANES):
                part = builder.phi(_VECTOR)
                part.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
                sums.append(part)
            row = builder.mul(k, number(BLOCK))
            weights = [
                builder.load(place(builder, right, builder.add(row, number(c)), _VECTOR), align=4)
                for c in range(0, BLOCK, LANES)
            ]
            following = []
            for r in range(rows):
                at = builder.add(builder.mul(left_stride, number(r)), k)
                value = everywhere(builder, builder.load(place(builder, left, at, _FLOAT), align=4))
                for weight in weights:
                    product = builder.fmul(value, weight, flags=_FUSED)
                    following.append(builder.fadd(sums[len(following)], product, flags=_FUSED))
            after = builder.add(k, number(1))
            k.add_incoming(after, loop)
            for part, value in zip(sums, following, strict=True):
                part.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", after, depth), loop, done)
            builder.position_at_end(done)
            for position, value in enumerate(following):
                r, c = divmod(position, BLOCK // LANES)
                at = builder.add(builder.mul(out_stride, number(r)), number(c * LANES))
                builder.store(value, place(builder, out, at, _VECTOR), align=4)
            return number(0)

        return nb.int64(nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64), generate

    return run


_few, _many = _block(ROWS), _block(MANY)


def _adder(times):
    """``total[first_total:] += row[first_row:]``, so many vectors of two flat arrays behind addresses.

    ``times``: the row counts ``factor`` times, in the integers of ``total``.
    """

    @intrinsic
    def run(_, total, row, at_total, at_row, first_total, first_row, vectors, factor):
        def generate(_context, builder, signature, args):
            at_total, at_row, first_total, first_row, vectors, factor = args[2:]
            word, narrow = (ir.IntType(kind.dtype.bitwidth) for kind in signature.args[:2])
            of_total, of_row = ir.VectorType(word, LANES), ir.VectorType(narrow, LANES)
            with cgutils.for_range(builder, vectors) as loop:
                i = builder.mul(loop.index, number(LANES))
                to = place(builder, at_total, builder.add(first_total, i), of_total, word.width // 8)
                of = place(builder, at_row, builder.add(first_row, i), of_row, narrow.width // 8)
                value = builder.load(of, align=2)
                value = builder.sext(value, of_total) if of_total != of_row else value
                if times:
                    short = factor if word == _INDEX else builder.trunc(factor, word)
                    value = builder.mul(value, everywhere(builder, short))
                builder.store(builder.add(builder.load(to, align=2), value), to, align=2)
            return number(0)

        return nb.int64(total, row, *[nb.int64] * 6), generate

    return run


_add_row, _add_row_times = _adder(False), _adder(True)


@nb.njit(inline="always")
def add_words(totals, position, rows, number):
    """``totals[position] += rows[number]``, integers.

    Args:
        totals: int16, int32 or int64 (L, P), C order, P a multiple of :data:`LANES`.
        rows: int16 or int32 (N, P), C order, not wider.
    """
    width = rows.shape[1]
    at = totals.ctypes.data, rows.ctypes.data, position * width, number * width
    _add_row(totals, rows, *at, width // LANES, 1)


@nb.njit(inline="always")
def add_words_times(totals, position, rows, number, factor):
    """``totals[position] += factor * rows[number]``: :func:`add_words` of a graded spike.

    Args:
        factor: int64. Products and sums fit the type of ``totals``.
    """
    width = rows.shape[1]
    at = totals.ctypes.data, rows.ctypes.data, position * width, number * width
    _add_row_times(totals, rows, *at, width // LANES, factor)


def _found(sign, limit):
    """Of 64 numbers of an array's type behind an address, those that compare so, as bits of a uint64."""

    @intrinsic
    def found(_, values, address):
        def generate(_context, builder, signature, args):
            kind = signature.args[0].dtype
            whole = not isinstance(kind, nb.types.Float)
            vector = ir.VectorType(ir.IntType(kind.bitwidth) if whole else _FLOAT, 64)
            limits = ir.Constant(vector, [limit if whole else float(limit)] * 64)
            here = builder.load(builder.inttoptr(args[1], vector.as_pointer()), align=kind.bitwidth // 8)
            compare = builder.icmp_unsigned if whole else builder.fcmp_unordered
            return builder.bitcast(compare(sign, here, limits), _INDEX)

        return nb.uint64(values, nb.int64), generate

    return found


not_zero, not_one, above_one = _found("!=", 0), _found("!=", 1), _found(">", 1)


@intrinsic
def above(_, values, address, limit):
    """Of 64 integers of an array's type behind an address, those above a limit, as bits of a uint64."""

    def generate(_context, builder, signature, args):
        word = ir.IntType(signature.args[0].dtype.bitwidth)
        here = builder.load(builder.inttoptr(args[1], ir.VectorType(word, 64).as_pointer()), align=4)
        limit = args[2] if word == _INDEX else builder.trunc(args[2], word)
        return builder.bitcast(builder.icmp_signed(">", here, everywhere(builder, limit, 64)), _INDEX)

    return nb.uint64(values, nb.int64, nb.int64), generate


@inner()
def write_row(values, target):
    """``target[:] = values``, as many as there is room for; of an assignment Numba compiles for seconds what
    could go wrong."""
    for i in range(target.shape[0]):
        target[i] = values[i]


@inner()
def _multiply(rows, left, left_stride, weights, depth, first, last, out, out_stride):
    for block in range(first, last):
        right, to = weights + 4 * BLOCK * depth * block, out + 4 * BLOCK * block
        for r in range(0, rows - ROWS, MANY):
            _many(left + 4 * left_stride * r, left_stride, right, depth, to + 4 * out_stride * r, out_stride)
        r = rows - ROWS
        _few(left + 4 * left_stride * r, left_stride, right, depth, to + 4 * out_stride * r, out_stride)


@nb.njit(inline="always")
def multiply_at(rows, left, left_stride, weights, depth, first, last, out, out_stride):
    """``out[:, columns] = left @ right[:, columns]`` for the columns of blocks ``first`` to ``last - 1``.

    Args:
        rows: ROWS more than a multiple of MANY.
        left: address of float32 (rows, depth); weights: of float32 blocks, see :func:`in_blocks`; out: of
            float32 (rows, blocks * BLOCK).
        left_stride, out_stride: from row to row, in numbers.
        depth: rows of a block, at least 1.
    """
    # One type for all: of each constant and each kind of address Numba would compile a version.
    _multiply(
        np.int64(rows), np.int64(left), np.int64(left_stride), np.int64(weights), np.int64(depth),
        np.int64(first), np.int64(last), np.int64(out), np.int64(out_stride),
    )  # fmt: skip


@inner()
def multiply(left, right, out):
    """``out = left @ right``.

    Args:
        left: float32 (ROWS, ...), C order; its first columns are the factor.
        right: float32, of :func:`in_blocks`, with at least one row.
        out: float32 (ROWS, columns), C order, columns a multiple of :data:`BLOCK`.
    """
    multiply_at(
        ROWS, left.ctypes.data, left.shape[1], right.ctypes.data, right.shape[1], 0, right.shape[0],
        out.ctypes.data, out.shape[1],
    )  # fmt: skip
