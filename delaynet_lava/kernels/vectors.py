"""Sums of rows in explicit vectors: what costs most in the backward pass.

A compiler's own vectors leave the sums in memory; here they stay in registers while all rows pass. The
vectors have 16 floats, which processors with shorter ones take in pieces.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

__all__ = ["BLOCK", "LANES", "ROWS", "add_rows", "in_blocks", "multiply"]

ROWS = 4
"""Rows of the left factor: each weight that is loaded serves all of them."""
BLOCK = 32
"""Columns whose sums fit in registers, for all rows."""
LANES = 16
"""Floats of a vector."""
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


def _number(value):
    return ir.Constant(_INDEX, value)


def _place(builder, base, index, kind):
    """Pointer to the float number ``index`` behind an address."""
    address = builder.add(base, builder.mul(index, _number(4)))
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def _one_block(_, left, left_stride, right, depth, out, out_stride):
    """``out[r, :BLOCK] = left[r, :depth] @ right``: addresses, and strides in floats."""

    def generate(_context, builder, _signature, args):
        left, left_stride, right, depth, out, out_stride = args

        nowhere = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(_SHORT, LANES), [0] * LANES)
        before = builder.block
        loop, done = builder.append_basic_block("row"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INDEX)
        k.add_incoming(_number(0), before)
        sums = []
        for _ in range(ROWS * BLOCK // LANES):
            part = builder.phi(_VECTOR)
            part.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
            sums.append(part)
        row = builder.mul(k, _number(BLOCK))
        weights = [
            builder.load(_place(builder, right, builder.add(row, _number(c)), _VECTOR), align=4)
            for c in range(0, BLOCK, LANES)
        ]
        following = []
        for r in range(ROWS):
            at = builder.add(builder.mul(left_stride, _number(r)), k)
            value = builder.load(_place(builder, left, at, _FLOAT), align=4)
            value = builder.insert_element(nowhere, value, ir.Constant(_SHORT, 0))
            value = builder.shuffle_vector(value, nowhere, everywhere)
            for weight in weights:
                product = builder.fmul(value, weight, flags=_FUSED)
                following.append(builder.fadd(sums[len(following)], product, flags=_FUSED))
        after = builder.add(k, _number(1))
        k.add_incoming(after, loop)
        for part, value in zip(sums, following, strict=True):
            part.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", after, depth), loop, done)
        builder.position_at_end(done)
        for position, value in enumerate(following):
            r, c = divmod(position, BLOCK // LANES)
            at = builder.add(builder.mul(out_stride, _number(r)), _number(c * LANES))
            builder.store(value, _place(builder, out, at, _VECTOR), align=4)
        return _number(0)

    return nb.int64(nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64), generate


@nb.njit
def multiply(left, right, out):
    """``out = left @ right``.

    Args:
        left: float32 (ROWS, ...), C order; its first columns are the factor.
        right: float32, of :func:`in_blocks`, with at least one row.
        out: float32 (ROWS, columns), C order, columns a multiple of :data:`BLOCK`.
    """
    start, result = left.ctypes.data, out.ctypes.data
    for block in range(right.shape[0]):
        _one_block(
            start, left.shape[1], right[block].ctypes.data, right.shape[1], result + 4 * BLOCK * block,
            out.shape[1],
        )  # fmt: skip


def _adder(vectors):
    """``out[: 16 vectors] += sum of rows[(first + k) & last]`` over the bits k of ``word``, not 0."""

    @intrinsic
    def add(_, out, rows, stride, first, last, word):
        def generate(_context, builder, _signature, args):
            out, rows, stride, first, last, word = args
            at = [_number(v * LANES) for v in range(vectors)]
            start = [builder.load(_place(builder, out, i, _VECTOR), align=4) for i in at]
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
                builder.fadd(part, builder.load(_place(builder, rows, builder.add(row, i), _VECTOR), align=4))
                for part, i in zip(sums, at, strict=True)
            ]
            for part, value, new in zip(sums, start, added, strict=True):
                part.add_incoming(value, before)
                part.add_incoming(new, loop)
            rest = builder.and_(left, builder.sub(left, _number(1)))
            left.add_incoming(rest, loop)
            builder.cbranch(builder.icmp_unsigned("!=", rest, _number(0)), loop, done)
            builder.position_at_end(done)
            for value, i in zip(added, at, strict=True):
                builder.store(value, _place(builder, out, i, _VECTOR), align=4)
            return _number(0)

        return nb.int64(nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.uint64), generate

    return add


_add_four, _add_one = _adder(4), _adder(1)


@nb.njit
def add_rows(total, rows, first, word):
    """``total += sum of rows[(first + k) % L]`` over the bits k that are set in ``word``.

    Args:
        total: float32 (P,), P a multiple of :data:`LANES`.
        rows: float32 (L, P), C order, L a power of two.
        first: the row of bit 0, not negative.
        word: uint64.
    """
    if word == 0:
        return
    out, start, width = total.ctypes.data, rows.ctypes.data, rows.shape[1]
    done = 0
    while done < width:
        if width - done >= 4 * LANES:
            _add_four(out + 4 * done, start + 4 * done, width, first, rows.shape[0] - 1, word)
            done += 4 * LANES
        else:
            _add_one(out + 4 * done, start + 4 * done, width, first, rows.shape[0] - 1, word)
            done += LANES
