"""One step back through a row of neurons, in explicit vectors of 16.

A compiler's own vectors depend on what else stands in the loop, and here were three to ten times slower.
Rows are given by their addresses: of every array that is passed or sliced Numba counts the references, and
two threads that count those of one array wait for each other.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from delaynet_lava.fixedpoint import V_MAX
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_TRIANGLE
from delaynet_lava.kernels.vectors import LANES, number, place

__all__ = ["SCALE", "SMALLEST", "UNIT", "ZERO", "step_back"]

SCALE = np.float32(1.0 / 4096.0)
SMALLEST = np.float32(1e-30)
"""Gradients below are zero: arithmetic on numbers that underflow is a hundred times slower."""
ZERO, UNIT = np.float32(0.0), np.float32(1.0)
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FUSED = ("contract",)
_GIVEN = -1


class _Vectors:
    """Arithmetic on vectors of 16, as instructions at a builder's place."""

    def __init__(self, builder):
        self.at = builder

    def all(self, value):
        kind = ir.VectorType(value.type, LANES)
        nowhere = ir.Constant(kind, ir.Undefined)
        first = self.at.insert_element(nowhere, value, ir.Constant(_INT, 0))
        return self.at.shuffle_vector(first, nowhere, ir.Constant(_INTS, [0] * LANES))

    def constant(self, value):
        return ir.Constant(_FLOATS, [float(value)] * LANES)

    def load(self, base, index, kind=_FLOATS):
        return self.at.load(place(self.at, base, index, kind), align=4)

    def store(self, value, base, index):
        self.at.store(value, place(self.at, base, index, _FLOATS), align=4)

    def mul(self, a, b):
        return self.at.fmul(a, b, flags=_FUSED)

    def add(self, a, b):
        return self.at.fadd(a, b, flags=_FUSED)

    def sub(self, a, b):
        return self.at.fsub(a, b, flags=_FUSED)

    def larger(self, a, b):
        return self.at.select(self.at.fcmp_ordered(">", a, b), a, b)

    def smaller(self, a, b):
        return self.at.select(self.at.fcmp_ordered("<", a, b), a, b)

    def absolute(self, a):
        bits = self.at.and_(self.at.bitcast(a, _INTS), ir.Constant(_INTS, [0x7FFFFFFF] * LANES))
        return self.at.bitcast(bits, _FLOATS)

    def normal(self, a):
        tiny = self.at.fcmp_ordered("<=", self.absolute(a), self.constant(SMALLEST))
        return self.at.select(tiny, self.constant(0.0), a)


def _row(surrogate, soft):
    """The step for one surrogate (or slopes that are given) and one kind of reset."""

    @intrinsic
    def run(
        _, vectors, v, slope, received, outer, gv, gu, g_a, sums,
        alpha_u, alpha_v, top, th, width, height, through_reset,
    ):  # fmt: skip
        def generate(context, builder, _signature, args):
            vectors, v, slope, received, outer, gv, gu, g_a, sums = args[:9]
            m = _Vectors(builder)
            alpha_u, alpha_v, top, th, width, height, reset = (m.all(value) for value in args[9:])
            zero, one = m.constant(0.0), m.constant(1.0)
            before = builder.block
            loop, done = builder.append_basic_block("sixteen"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(ir.IntType(64))
            k.add_incoming(number(0), before)
            g_dv, g_th = builder.phi(_FLOATS), builder.phi(_FLOATS)
            for total in (g_dv, g_th):
                total.add_incoming(zero, before)
            i = builder.mul(k, number(LANES))
            words = m.load(v, i, _INTS)
            membrane = m.mul(builder.sitofp(words, _FLOATS), m.constant(SCALE))
            fired = builder.icmp_signed(">", words, top)
            distance = m.sub(membrane, th)
            if surrogate == SURROGATE_PAPER:
                rising = m.add(one, builder.fdiv(distance, width))
                steep = m.mul(height, m.smaller(m.larger(rising, zero), one))
            elif surrogate == SURROGATE_TRIANGLE:
                steep = m.mul(height, m.larger(m.sub(one, builder.fdiv(m.absolute(distance), width)), zero))
            else:
                steep = m.load(slope, i)
            later = m.load(gv, i)
            carried = m.mul(alpha_v, later)
            lost = m.mul(reset, carried)
            reach = th if soft else m.smaller(membrane, th)
            through = m.mul(steep, m.sub(m.load(received, i), m.mul(lost, reach)))
            new_th = m.sub(g_th, through)
            if soft:
                new_th = m.sub(new_th, builder.select(fired, lost, zero))
                left = m.sub(membrane, builder.select(fired, th, zero))
            else:
                left = builder.select(fired, zero, membrane)
                carried = builder.select(fired, zero, carried)
            # The next step decayed what the reset left here.
            new_dv = m.sub(g_dv, m.mul(later, left))
            grad = m.normal(m.add(m.add(m.load(outer, i), through), carried))
            m.store(grad, gv, i)
            now = m.normal(m.add(grad, m.mul(alpha_u, m.load(gu, i))))
            m.store(now, gu, i)
            m.store(now, g_a, i)
            after = builder.add(k, number(1))
            k.add_incoming(after, loop)
            g_dv.add_incoming(new_dv, loop)
            g_th.add_incoming(new_th, loop)
            builder.cbranch(builder.icmp_signed("<", after, vectors), loop, done)
            builder.position_at_end(done)
            m.store(new_dv, sums, number(0))
            m.store(new_th, sums, number(LANES))
            return number(0)

        whole, real = nb.int64, nb.float32
        return nb.int64(*[whole] * 9, real, real, nb.int32, *[real] * 4), generate

    return run


_paper_zero, _paper_soft = _row(SURROGATE_PAPER, False), _row(SURROGATE_PAPER, True)
_triangle_zero, _triangle_soft = _row(SURROGATE_TRIANGLE, False), _row(SURROGATE_TRIANGLE, True)
_given_zero, _given_soft = _row(_GIVEN, False), _row(_GIVEN, True)


@nb.njit(inline="always")
def step_back(
    vectors, v, slope, received, outer_v, gv, gu, g_a, sums,
    alpha_u, alpha_v, threshold, soft, surrogate, width, height, through_reset,
):  # fmt: skip
    """One step back for the neurons of one sample: see :func:`kernels.recurrence.backward_segment`.

    Args:
        vectors: neurons of the layout, in vectors of :data:`kernels.vectors.LANES`.
        v: address of the membranes before the reset, int32.
        slope: of the surrogate derivatives, float32; read where the surrogate is neither the paper's nor
            the triangle, or the neurons do not spike.
        received, outer_v: of what arrives at the spikes and at the membranes, float32.
        gv, gu: of g_v and g_u of the step after, float32; replaced by those of this one.
        g_a: of float32, written.
        sums: of float32 (2, LANES), written: shares of the gradients of dv and threshold.
        threshold: above :data:`fixedpoint.V_MAX` for neurons that do not spike.
        The rest: float32 factors; ``soft``: whether the reset subtracts.
    """
    th, top = np.float32(threshold) * SCALE, np.int32(min(threshold, V_MAX))
    spiking = threshold <= V_MAX
    rows = v, slope, received, outer_v, gv, gu, g_a, sums
    scalars = alpha_u, alpha_v, top, th, width, height, through_reset
    if spiking and surrogate == SURROGATE_PAPER:
        if soft:
            _paper_soft(vectors, *rows, *scalars)
        else:
            _paper_zero(vectors, *rows, *scalars)
    elif spiking and surrogate == SURROGATE_TRIANGLE:
        if soft:
            _triangle_soft(vectors, *rows, *scalars)
        else:
            _triangle_zero(vectors, *rows, *scalars)
    elif soft:
        _given_soft(vectors, *rows, *scalars)
    else:
        _given_zero(vectors, *rows, *scalars)
