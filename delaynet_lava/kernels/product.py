"""A few rows times a matrix, in explicit vectors: the dense part of the backward pass.

A compiler's own vectors leave the sums in memory; here they stay in registers while all rows of the
matrix pass. The vectors have 16 floats, which processors with shorter ones take in pieces.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

__all__ = ["BLOCK", "ROWS", "in_blocks", "multiply"]

ROWS = 4
"""Rows of the left factor: each weight that is loaded serves all of them."""
BLOCK = 32
"""Columns whose sums fit in registers, for all rows."""
_LANES = 16
_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_FUSED = ("contract",)
_SHORT = ir.IntType(32)


def in_blocks(weight: np.ndarray) -> np.ndarray:
    """float32 (columns / BLOCK, rows, BLOCK) of a matrix (rows, columns), filled up with zeros."""
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK)
    full = np.zeros((rows, blocks * BLOCK), np.float32)
    full[:, :columns] = weight
    return np.ascontiguousarray(full.reshape(rows, blocks, BLOCK).transpose(1, 0, 2))


@intrinsic
def _one_block(_, left, left_stride, right, depth, out, out_stride):
    """``out[r, :BLOCK] = left[r, :depth] @ right``: addresses, and strides in floats."""

    def generate(_context, builder, _signature, args):
        left, left_stride, right, depth, out, out_stride = args

        def place(base, index, kind):
            address = builder.add(base, builder.mul(index, ir.Constant(_INDEX, 4)))
            return builder.inttoptr(address, kind.as_pointer())

        def number(value):
            return ir.Constant(_INDEX, value)

        nowhere = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(_SHORT, _LANES), [0] * _LANES)
        before = builder.block
        loop, done = builder.append_basic_block("row"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INDEX)
        k.add_incoming(number(0), before)
        sums = []
        for _ in range(ROWS * BLOCK // _LANES):
            part = builder.phi(_VECTOR)
            part.add_incoming(ir.Constant(_VECTOR, [0.0] * _LANES), before)
            sums.append(part)
        row = builder.mul(k, number(BLOCK))
        weights = [
            builder.load(place(right, builder.add(row, number(c)), _VECTOR), align=4)
            for c in range(0, BLOCK, _LANES)
        ]
        following = []
        for r in range(ROWS):
            at = builder.add(builder.mul(left_stride, number(r)), k)
            value = builder.load(place(left, at, _FLOAT), align=4)
            value = builder.insert_element(nowhere, value, ir.Constant(_SHORT, 0))
            value = builder.shuffle_vector(value, nowhere, everywhere)
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
            r, c = divmod(position, BLOCK // _LANES)
            at = builder.add(builder.mul(out_stride, number(r)), number(c * _LANES))
            builder.store(value, place(out, at, _VECTOR), align=4)
        return number(0)

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
