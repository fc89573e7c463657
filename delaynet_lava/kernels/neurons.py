"""One step back through a row of neurons, in explicit vectors of 16.

A compiler's own vectors depend on what else stands in the loop, and here were three to ten times slower.
Rows are given by their addresses: of every array that is passed or sliced Numba counts the references, and
two threads that count those of one array wait for each other. Time runs backward, which processors do not
foresee as well as forward: the rows of the next steps are fetched ahead.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from delaynet_lava.fixedpoint import V_MAX
from delaynet_lava.kernels.dynamics import SURROGATE_PAPER, SURROGATE_TRIANGLE
from delaynet_lava.kernels.vectors import LANES, everywhere, number, place

__all__ = ["SCALE", "SMALLEST", "UNIT", "ZERO", "Factors", "Rows", "step_back"]

SCALE = np.float32(1.0 / 4096.0)
SMALLEST = np.float32(1e-30)
"""Gradients below are zero: arithmetic on numbers that underflow is a hundred times slower."""
ZERO, UNIT, ENDLESS = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
# What has flags gets no more of them where the kernel that calls allows itself more.
_FUSED, _APART = ("contract",), ("nsz",)
AHEAD = 2
"""Steps whose rows are fetched before they are needed."""


class _Vectors:
    """Arithmetic on vectors of 16, as instructions at a builder's place."""

    def __init__(self, builder):
        self.at = builder

    def all(self, value):
        return everywhere(self.at, value)

    def constant(self, value):
        return ir.Constant(_FLOATS, [float(value)] * LANES)

    def bytes(self, index):
        return self.at.mul(index, number(4))

    def load(self, base, index, kind=_FLOATS):
        return self.at.load(place(self.at, base, index, kind), align=4)

    def store(self, value, base, index):
        self.at.store(value, place(self.at, base, index, _FLOATS), align=4)

    def mul(self, a, b):
        return self.at.fmul(a, b, flags=_APART)

    def add(self, a, b):
        return self.at.fadd(a, b, flags=_APART)

    def sub(self, a, b):
        return self.at.fsub(a, b, flags=_APART)

    # Named, so that what is rounded once does not depend on what a compiler chooses to fuse.
    def plus(self, total, a, b):
        return self.at.fadd(total, self.at.fmul(a, b, flags=_FUSED), flags=_FUSED)

    def less(self, total, a, b):
        return self.at.fsub(total, self.at.fmul(a, b, flags=_FUSED), flags=_FUSED)

    def larger(self, a, b):
        return self.at.select(self.at.fcmp_ordered(">", a, b), a, b)

    def smaller(self, a, b):
        return self.at.select(self.at.fcmp_ordered("<", a, b), a, b)

    def absolute(self, a):
        bits = self.at.and_(self.at.bitcast(a, _INTS), ir.Constant(_INTS, [0x7FFFFFFF] * LANES))
        return self.at.bitcast(bits, _FLOATS)

    def fetch(self, base, index):
        """Bring what is there closer; it need not exist."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        prefetch = self.at.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        where = self.at.inttoptr(self.at.add(base, self.bytes(index)), byte)
        self.at.call(prefetch, [where, _INT(0), _INT(3), _INT(1)])

    def normal(self, a):
        tiny = self.at.fcmp_ordered("<=", self.absolute(a), self.constant(SMALLEST))
        return self.at.select(tiny, self.constant(0.0), a)


def _products(m, products, base, mask, offsets, starts, k):
    """What vector k of the neurons takes from a ring: one load where it lies in a row of its own."""
    builder = m.at
    start = builder.load(place(builder, starts, k, _INT), align=4)
    row, each = builder.append_basic_block("row"), builder.append_basic_block("each")
    join = builder.append_basic_block("join")
    builder.cbranch(builder.icmp_signed(">=", start, _INT(0)), row, each)
    builder.position_at_end(row)
    together = m.load(products, builder.and_(builder.add(base, builder.sext(start, number(0).type)), mask))
    builder.branch(join)
    builder.position_at_end(each)
    apart = ir.Constant(_FLOATS, ir.Undefined)
    for lane in range(LANES):
        at = builder.add(builder.mul(k, number(LANES)), number(lane))
        offset = builder.sext(builder.load(place(builder, offsets, at, _INT), align=4), number(0).type)
        index = builder.and_(builder.add(base, offset), mask)
        value = builder.load(place(builder, products, index, _FLOAT), align=4)
        apart = builder.insert_element(apart, value, ir.Constant(_INT, lane))
    builder.branch(join)
    builder.position_at_end(join)
    product = builder.phi(_FLOATS)
    product.add_incoming(together, row)
    product.add_incoming(apart, each)
    return product


def _row(given):
    """The step with slopes that are ``given``, or with those of :func:`step_back`."""

    @intrinsic
    def run(
        _, vectors, v, v_stride, slope, products, base, mask, offsets, starts, grads, grads_stride, edge,
        outer, gv, gu, g_a, sums, alpha_u, alpha_v, top, th, narrow, height, over, through_reset, damp,
        soft, least, most, population,
    ):  # fmt: skip
        def generate(context, builder, _signature, args):
            vectors, v, v_stride, slope, products, base, mask, offsets, starts = args[:9]
            grads, grads_stride, edge, outer, gv, gu, g_a, sums = args[9:17]
            m = _Vectors(builder)
            alpha_u, alpha_v, top, th, narrow, height, over, reset, damp, soft, least, most, population = (
                m.all(value) for value in args[17:]
            )
            zero, one = m.constant(0.0), m.constant(1.0)
            last = builder.sub(vectors, number(1))
            sum_dv, sum_th = m.load(sums, number(0)), m.load(sums, number(LANES))
            before = builder.block
            loop, done = builder.append_basic_block("sixteen"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(ir.IntType(64))
            k.add_incoming(number(0), before)
            g_dv, g_th = builder.phi(_FLOATS), builder.phi(_FLOATS)
            g_dv.add_incoming(sum_dv, before)
            g_th.add_incoming(sum_th, before)
            i = builder.mul(k, number(LANES))
            product = _products(m, products, base, mask, offsets, starts, k)
            row = builder.select(builder.icmp_signed("==", k, last), edge, builder.add(grads, m.bytes(i)))
            m.fetch(v, builder.sub(i, builder.mul(v_stride, number(AHEAD))))
            m.fetch(grads, builder.sub(i, builder.mul(grads_stride, number(AHEAD))))
            received = m.add(m.add(m.mul(damp, product), m.load(row, number(0))), population)
            words = m.load(v, i, _INTS)
            membrane = m.mul(builder.sitofp(words, _FLOATS), m.constant(SCALE))
            fired = builder.icmp_signed(">", words, top)
            distance = m.sub(membrane, th)
            if given:
                steep = m.load(slope, i)
            else:
                away = m.larger(m.sub(zero, distance), m.mul(over, distance))
                steep = m.mul(height, m.larger(m.less(one, away, narrow), zero))
            later = m.load(gv, i)
            carried = m.mul(alpha_v, later)
            lost = m.mul(reset, carried)
            reach = m.larger(m.smaller(membrane, th), least)
            through = m.mul(steep, m.less(received, lost, reach))
            new_th = m.sub(m.sub(g_th, through), builder.select(fired, m.mul(soft, lost), zero))
            left = m.sub(membrane, builder.select(fired, m.smaller(membrane, most), zero))
            carried = builder.select(fired, m.mul(soft, carried), carried)
            # The next step decayed what the reset left here.
            new_dv = m.less(g_dv, later, left)
            grad = m.normal(m.add(m.add(m.load(outer, i), through), carried))
            m.store(grad, gv, i)
            now = m.normal(m.plus(grad, alpha_u, m.load(gu, i)))
            m.store(now, gu, i)
            m.store(now, g_a, i)
            after = builder.add(k, number(1))
            k.add_incoming(after, builder.block)
            g_dv.add_incoming(new_dv, builder.block)
            g_th.add_incoming(new_th, builder.block)
            builder.cbranch(builder.icmp_signed("<", after, vectors), loop, done)
            builder.position_at_end(done)
            m.store(new_dv, sums, number(0))
            m.store(new_th, sums, number(LANES))
            return number(0)

        whole, real = nb.int64, nb.float32
        return nb.int64(*[whole] * 17, real, real, nb.int32, *[real] * 10), generate

    return run


_step, _step_given = _row(given=False), _row(given=True)


class Rows(NamedTuple):
    """Addresses of the rows of one sample's neurons in one step, and how they go on from step to step.

    Attributes:
        v: membranes before the reset, int32; v_stride: from step to step, in numbers.
        slope: of the surrogate derivatives, float32; read where the surrogate is neither the paper's nor
            the triangle, or the neurons do not spike.
        products, base, mask: address of a ring, float32. Neuron j receives, times ``damp``, the number at
            ``(base + offsets[j]) & mask``.
        offsets: of int32 (P,), not negative; starts: of int32 (vectors,), the first offset of a vector whose
            offsets are consecutive and stay so, or -1.
        grads, grads_stride: of the gradients of the spikes, float32, added to what is received; of the last
            vector those at ``edge`` are, and so nothing is read beyond the row.
        outer_v: of what arrives at the membranes, float32.
        gv, gu: of g_v and g_u of the step after, float32; replaced by those of this one.
        g_a: of float32, written.
        sums: of float32 (2, LANES), added to: shares of the gradients of dv and threshold.
    """

    v: int
    v_stride: int
    slope: int
    products: int
    base: int
    mask: int
    offsets: int
    starts: int
    grads: int
    grads_stride: int
    edge: int
    outer_v: int
    gv: int
    gu: int
    g_a: int
    sums: int


class Factors(NamedTuple):
    """float32 factors of a step, except as said.

    Attributes:
        alpha_u, alpha_v: what a step leaves of current and membrane.
        threshold: integer; above :data:`fixedpoint.V_MAX` for neurons that do not spike.
        soft: whether the reset subtracts. surrogate: number of it.
        width, height: of the surrogate.
        through_reset, damp: on the gradient through the reset, and on what the ring holds.
    """

    alpha_u: float
    alpha_v: float
    threshold: int
    soft: bool
    surrogate: int
    width: float
    height: float
    through_reset: float
    damp: float


@nb.njit(inline="always")
def step_back(vectors, rows, factors, population):
    """One step back for the neurons of one sample, by the equations of :mod:`kernels.recurrence`.

    With d the membrane's distance from the threshold, the paper's surrogate and the triangle are
    ``height * max(0, 1 - max(-d, over * d) / width)`` for ``over`` 0 and 1. The two resets differ in factors
    and bounds as well, so that there is one loop for all.

    Plain version: ``Plain`` in tests/test_recurrent_gradients.py, a loop over steps and autograd.

    Args:
        vectors: neurons of the layout, in vectors of :data:`kernels.vectors.LANES`.
        rows: :class:`Rows`; factors: :class:`Factors`.
        population: added to what each neuron receives.
    """
    alpha_u, alpha_v, threshold, soft, surrogate, width, height, through_reset, damp = factors
    th, top = np.float32(threshold) * SCALE, np.int32(min(threshold, V_MAX))
    (
        v, v_stride, slope, products, base, mask, offsets, starts, grads, grads_stride, edge, outer_v, gv, gu,
        g_a, sums,
    ) = rows  # fmt: skip
    at = (
        v, v_stride, slope, products, base, mask, offsets, starts, grads, grads_stride, edge, outer_v, gv, gu,
        g_a, sums,
    )  # fmt: skip
    over = UNIT if surrogate == SURROGATE_TRIANGLE else ZERO
    bounds = (UNIT, th, th) if soft else (ZERO, -ENDLESS, ENDLESS)
    scalars = (
        alpha_u, alpha_v, top, th, UNIT / width, height, over, through_reset, damp, *bounds, population,
    )  # fmt: skip
    if threshold <= V_MAX and surrogate in (SURROGATE_PAPER, SURROGATE_TRIANGLE):
        _step(vectors, *at, *scalars)
    else:
        _step_given(vectors, *at, *scalars)
