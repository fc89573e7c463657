"""One step of current and membrane for a row of neurons, in explicit vectors of 16.

The arithmetic is that of :mod:`delaynet_lava.fixedpoint`, see :mod:`kernels.instructions`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from delaynet_lava.fixedpoint import (
    DECAY_ONE,
    V_MAX,
    membrane_update,
    narrow_membrane_update,
    saturates,
    synaptic_current,
    u_overflows,
    wrap_u,
)
from delaynet_lava.kernels.instructions import Words
from delaynet_lava.kernels.vectors import LANES, everywhere, number, place

__all__ = ["Rows", "Rule", "advance"]

_INDEX, _INT = ir.IntType(64), ir.IntType(32)


def _stepper(remembers, narrow, varied=False):
    """A step of neurons with or without a memory of the current, with a membrane of 24 or fewer bits.

    ``varied``: each has decays of its own.
    """

    @intrinsic
    def run(_, kind, ring, vectors, u, v, slot, bias, u_out, v_out, counts, du, dv, unit_exp, limit, each):
        def generate(_context, builder, signature, args):
            vectors, u, v, slot, bias, u_out, v_out, counts = args[2:10]
            word, slot_word = (ir.IntType(one.dtype.bitwidth) for one in signature.args[:2])
            arriving = ir.VectorType(slot_word, LANES)
            words, size = ir.VectorType(word, LANES), word.width // 8

            def load(base, index):
                return Words(builder, builder.load(place(builder, base, index, words, size), align=4))

            def store(words_, base, index):
                builder.store(words_.value, place(builder, base, index, words, size), align=4)

            def record(words_, base, index):
                short = ir.VectorType(_INT, LANES)
                value = builder.trunc(words_.value, short) if word != _INT else words_.value
                builder.store(value, place(builder, base, index, short), align=4)

            du, dv, unit_exp, limit = (
                Words(builder, everywhere(builder, value if word == _INDEX else builder.trunc(value, word)))
                for value in args[10:14]
            )
            # Two rows, one behind the other: decays of the currents, of the membranes.
            second = builder.mul(vectors, number(LANES))
            wrapped, clipped = load(counts, number(0)), load(counts, number(LANES))
            before = builder.block
            loop, done = builder.append_basic_block("sixteen"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            k.add_incoming(number(0), before)
            totals = [builder.phi(words), builder.phi(words)]
            for total, start in zip(totals, (wrapped, clipped), strict=True):
                total.add_incoming(start.value, before)
            i = builder.mul(k, number(LANES))
            old = load(u, i) if remembers else Words(builder, ir.Constant(words, [0] * LANES))
            if varied:
                du, dv = load(args[14], i), load(args[14], builder.add(second, i))
            waiting = place(builder, slot, i, arriving, slot_word.width // 8)
            came = builder.load(waiting, align=2)
            came = builder.sext(came, words) if word != slot_word else came
            wide_u = synaptic_current(old, Words(builder, came), du)
            current = wrap_u(wide_u)
            if narrow:
                wide_v = narrow_membrane_update(load(v, i), current, load(bias, i), dv, unit_exp)
            else:
                wide_v = membrane_update(load(v, i), current, load(bias, i), dv)
            membrane = wide_v.within(limit)
            store(current, u, i)
            store(membrane, v, i)
            builder.store(ir.Constant(arriving, [0] * LANES), waiting, align=2)
            record(current, u_out, i)
            record(membrane, v_out, i)
            faults = u_overflows(wide_u), saturates(wide_v, limit)
            sums = [
                builder.add(total, builder.zext(fault.value, words))
                for total, fault in zip(totals, faults, strict=True)
            ]
            after = builder.add(k, number(1))
            k.add_incoming(after, loop)
            for total, value in zip(totals, sums, strict=True):
                total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", after, vectors), loop, done)
            builder.position_at_end(done)
            for position, value in enumerate(sums):
                store(Words(builder, value), counts, number(position * LANES))
            return number(0)

        return nb.int64(kind, ring, *[nb.int64] * 13), generate

    return run


_forgetful, _remembering, _narrow = _stepper(False, False), _stepper(True, False), _stepper(True, True)
_varied = _stepper(True, True, True)


class Rows(NamedTuple):
    """Addresses of the rows of one sample's neurons.

    Attributes:
        u, v: current and membrane, of the state's type, int32 or int64; replaced.
        slot: synaptic inputs of this step, of the ring's type; emptied.
        bias: of the state's type, already shifted.
        u_out, v_out: int32, written: current after the wrap, membrane.
        counts: (2, LANES) of the state's type, added to: u wraps, v saturations.
    """

    u: int
    v: int
    slot: int
    bias: int
    u_out: int
    v_out: int
    counts: int


class Rule(NamedTuple):
    """What is done to them.

    Attributes:
        du, dv, unit_exp, limit: as in :class:`kernels.events.Parameters`.
        each: address of (2, neurons of the layout), of the state's type, decays of currents and membranes,
            read instead of du and dv; 0: they are those of all neurons.
    """

    du: int
    dv: int
    unit_exp: int
    limit: int
    each: int


@nb.njit(inline="always")
def advance(kind, ring, vectors, rows, rule):
    """One step of the neurons of one sample, before the reset.

    Plain version: ``test_a_step_in_vectors_is_the_plain_arithmetic`` in tests/test_engine.py, which calls
    :mod:`delaynet_lava.fixedpoint` on arrays.

    Args:
        kind: any array of the state's type; ring: of the ring's, which is as wide or narrower.
        vectors: neurons of the layout, in vectors of :data:`kernels.vectors.LANES`.
        rows: :class:`Rows`; rule: :class:`Rule`.
    """
    u, v, slot, bias, u_out, v_out, counts = rows
    at = u, v, slot, bias, u_out, v_out, counts
    du, dv, unit_exp, limit = (
        np.int64(rule.du), np.int64(rule.dv), np.int64(rule.unit_exp), np.int64(rule.limit),
    )  # fmt: skip
    if rule.each != 0:
        _varied(kind, ring, vectors, *at, du, dv, unit_exp, limit, np.int64(rule.each))
    elif limit != V_MAX:
        _narrow(kind, ring, vectors, *at, du, dv, unit_exp, limit, np.int64(0))
    elif du == DECAY_ONE:
        _forgetful(kind, ring, vectors, *at, du, dv, unit_exp, limit, np.int64(0))
    else:
        _remembering(kind, ring, vectors, *at, du, dv, unit_exp, limit, np.int64(0))
