"""The integer arithmetic of the chip, written once.

Every execution in this package (training kernels, emulator, Lava process models) calls these
functions. They are plain expressions on signed integers: the same source runs on Python ints, on
NumPy arrays, compiled by Numba on scalars, and on vectors of a processor (:mod:`kernels.state`).

Source: the fixed-point LIF model of lava-nc 0.10 (``lava/proc/lif/models.py``), which Lava calls
bit-accurate with Loihi, and ``slayer/neuron/dynamics/leaky_integrator.py`` of lava-dl 0.6.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numba.extending import register_jitable

__all__ = [
    "BIAS_EXP",
    "BIAS_MANT_MAX",
    "BIAS_MANT_MIN",
    "DECAY_BITS",
    "DECAY_ONE",
    "FULL_SCALE_EXP",
    "MAX_DELAY",
    "MEMBRANE_BITS",
    "PAYLOAD_BITS_MAX",
    "RESET_SUBTRACT",
    "RESET_ZERO",
    "STATE_SHIFT",
    "UV_HALF",
    "VTH_MAX",
    "V_MAX",
    "WEIGHT_EXP_MAX",
    "WEIGHT_MAX",
    "WEIGHT_MIN",
    "WEIGHT_SCALE",
    "decay",
    "full_scale_above",
    "membrane_grid",
    "membrane_update",
    "narrow_membrane_update",
    "reset_membrane",
    "saturates",
    "synaptic_current",
    "u_overflows",
    "undecay",
    "wrap_u",
]

DECAY_BITS = 12
DECAY_ONE = 1 << DECAY_BITS
"""A decay of 4096 forgets everything in one step, 0 forgets nothing."""
STATE_SHIFT = 6
"""Synaptic input and threshold are shifted left by this to meet the 24-bit state."""
WEIGHT_SCALE = 64
"""SLAYER's unit: a weight of 1.0 is the integer 64, a state of 1.0 is ``64 << 6 = 4096``."""
UV_HALF = 1 << 23
V_MAX = UV_HALF - 1
VTH_MAX = (1 << 17) - 1
"""Largest threshold mantissa of the chip (17 bits, unsigned). A readout neuron has this one."""
WEIGHT_MIN, WEIGHT_MAX = -256, 254
"""8-bit weight words with sign: even integers in this closed range."""
WEIGHT_EXP_MAX = 7
MAX_DELAY = 62
"""Largest delay both NetX and the chip take; the lag of a synapse is its delay + 1."""
BIAS_EXP = 6
"""The bias exponent that NetX gives to every neuron."""
BIAS_MANT_MIN, BIAS_MANT_MAX = -(1 << 12), (1 << 12) - 1
MEMBRANE_BITS, FULL_SCALE_EXP = 24, 23
"""The chip's membrane: a signed word of 24 bits whose full scale is 2**23 of its own units."""
PAYLOAD_BITS_MAX = 24
"""Bits of a graded spike in Lava, a sign included where there is one."""
RESET_ZERO, RESET_SUBTRACT = 0, 1

Int = TypeVar("Int", int, np.ndarray)


@register_jitable
def decay(x: Int, k: int | np.ndarray) -> Int:
    """``sign(x) * ((|x| * (4096 - k)) >> 12)``: decay towards zero, rounding towards zero.

    Args:
        x: state, 64-bit signed where an array, ``|x| < 2**50``.
        k: decay constant, 0 to 4096; an array where x is one.
    """
    # By twelve bits, so that a 24-bit state never needs more than 32. The shift rounds down; what is
    # negative is lifted first. Free of branches, so it vectorises.
    keep = DECAY_ONE - k
    rest = (x & (DECAY_ONE - 1)) * keep + ((x >> 63) & (DECAY_ONE - 1))
    return (x >> DECAY_BITS) * keep + (rest >> DECAY_BITS)  # type: ignore[return-value]


def undecay(x: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """The state of least magnitude that :func:`decay` takes to ``x`` in one step.

    ``sign(x) * ceil(|x| * 4096 / (4096 - k))``, exactly: a decay skips no integer. Of k = 4096, which
    takes everything to 0, it is ``x`` itself.

    Args:
        x: int64, ``|x| < 2**50``.
    """
    keep = DECAY_ONE - np.asarray(k) % DECAY_ONE
    return np.sign(x) * -(-(np.abs(x) << DECAY_BITS) // keep)


@register_jitable
def u_overflows(u: Int) -> Int:
    """True where a current no longer fits its 24-bit register and is about to wrap."""
    return (u > UV_HALF) | (u <= -UV_HALF)


@register_jitable
def wrap_u(u: Int) -> Int:
    """The 24-bit register's content: ``u`` modulo 2**24 in ``(-2**23, 2**23]``.

    Lava's range is closed at the upper end, not at the lower one. Lava adds or subtracts 2**24
    once only, so beyond ``3 * 2**23`` in one step its current leaves 24 bits; a register can't,
    and neither does this function.
    """
    return u - (((u + (UV_HALF - 1)) >> 24) << 24)


@register_jitable
def saturates(v: Int, limit: int = V_MAX) -> Int:
    """True where a membrane potential is about to be clipped to its range."""
    return (v > limit) | (v < -limit)


@register_jitable
def synaptic_current(u: Int, a: Int, du: int | np.ndarray) -> Int:
    """``decay(u, du) + (a << 6)``, before the wrap. ``a``: sum of weights that arrive this step."""
    return decay(u, du) + (a << STATE_SHIFT)


@register_jitable
def membrane_update(v: Int, u: Int, bias: Int, dv: int | np.ndarray) -> Int:
    """``decay(v, dv) + u + bias``, before the clip. ``bias``: mantissa already shifted."""
    return decay(v, dv) + u + bias


def membrane_grid(bits: int, full_scale_exp: int) -> tuple[int, int]:
    """Unit and limit of a membrane of fewer bits, in the units of the chip's 24-bit membrane.

    A signed word of n bits with the full scale 2**k holds the multiples of ``2**(k - n + 1)`` up to
    ``+-(2**(n - 1) - 1)`` of them.

    Returns:
        The unit's exponent and the largest value. (0, :data:`V_MAX`) for 24 bits.
    """
    unit_exp = full_scale_exp - bits + 1
    return unit_exp, ((1 << (bits - 1)) - 1) << unit_exp


def full_scale_above(vth: int) -> int:
    """Exponent of the smallest full scale, a power of two, above the threshold ``vth << 6``."""
    return (vth << STATE_SHIFT).bit_length()


@register_jitable
def narrow_membrane_update(v: Int, u: Int, bias: Int, dv: int | np.ndarray, unit_exp: int) -> Int:
    """:func:`membrane_update` of a membrane that holds multiples of ``2**unit_exp``, before the clip.

    ``decay(v, dv) + round(u + bias)`` in that unit: the decay truncates towards zero there, and what
    comes in is rounded to the nearest multiple, a half upwards. (Rounded down, it would pull every
    membrane by half a unit a step.) ``v`` and the result are in the chip's unit, like ``u``.
    """
    half = (1 << unit_exp) >> 1
    return (decay(v >> unit_exp, dv) + ((u + bias + half) >> unit_exp)) << unit_exp


@register_jitable
def reset_membrane(v: int, threshold: int, reset: int) -> int:
    """Membrane after a spike: 0 (the chip), or ``v - threshold`` (soft reset, simulator only)."""
    return v - threshold if reset == RESET_SUBTRACT else v * 0
