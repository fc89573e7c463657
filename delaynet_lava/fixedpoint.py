"""The integer arithmetic of the chip, written once.

Every execution in this package (training kernels, emulator, Lava process models) calls these
functions. They are plain expressions on signed integers: the same source runs on Python ints, on
NumPy arrays, compiled by Numba on scalars, and on vectors of a processor (:mod:`kernels.state`).

Source: the fixed-point LIF model of lava-nc 0.10 (``lava/proc/lif/models.py``), which Lava calls
bit-accurate with Loihi, and ``slayer/neuron/dynamics/leaky_integrator.py`` of lava-dl 0.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

__all__ = [
    "BIAS_EXP",
    "BIAS_MANT_MAX",
    "BIAS_MANT_MIN",
    "COMPILED",
    "DECAY_BITS",
    "DECAY_ONE",
    "FULL_SCALE_EXP",
    "MAX_DELAY",
    "MEMBRANE_BITS",
    "PAYLOAD_BITS_MAX",
    "RESET_SUBTRACT",
    "RESET_ZERO",
    "SRC_ACTIVATIONS",
    "SRC_BIAS_MAX",
    "SRC_BIAS_MIN",
    "SRC_DECAY",
    "SRC_SLOW",
    "SRC_SQUASHES",
    "STATE_SHIFT",
    "UV_HALF",
    "VTH_MAX",
    "V_MAX",
    "WEIGHT_EXP_MAX",
    "WEIGHT_MAX",
    "WEIGHT_MIN",
    "WEIGHT_SCALE",
    "SrcForm",
    "decay",
    "full_scale_above",
    "membrane_grid",
    "membrane_update",
    "narrow_membrane_update",
    "reset_membrane",
    "saturates",
    "src_activated",
    "src_current",
    "src_payload",
    "src_potential",
    "src_saturated",
    "src_slower",
    "src_step",
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
_Function = TypeVar("_Function", bound=Callable[..., Any])
COMPILED: list[Callable[..., Any]] = []
"""Functions of this module that compiled loops call. :mod:`kernels.compiled` tells Numba of them: who only
wants a constant does not wait for it."""


def _compiled(function: _Function) -> _Function:
    COMPILED.append(function)
    return function


@_compiled
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


@_compiled
def u_overflows(u: Int) -> Int:
    """True where a current no longer fits its 24-bit register and is about to wrap."""
    return (u > UV_HALF) | (u <= -UV_HALF)


@_compiled
def wrap_u(u: Int) -> Int:
    """The 24-bit register's content: ``u`` modulo 2**24 in ``(-2**23, 2**23]``.

    Lava's range is closed at the upper end, not at the lower one. Lava adds or subtracts 2**24
    once only, so beyond ``3 * 2**23`` in one step its current leaves 24 bits; a register can't,
    and neither does this function.
    """
    return u - (((u + (UV_HALF - 1)) >> 24) << 24)


@_compiled
def saturates(v: Int, limit: int = V_MAX) -> Int:
    """True where a membrane potential is about to be clipped to its range."""
    return (v > limit) | (v < -limit)


@_compiled
def synaptic_current(u: Int, a: Int, du: int | np.ndarray) -> Int:
    """``decay(u, du) + (a << 6)``, before the wrap. ``a``: sum of weights that arrive this step."""
    return decay(u, du) + (a << STATE_SHIFT)


@_compiled
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


@_compiled
def narrow_membrane_update(v: Int, u: Int, bias: Int, dv: int | np.ndarray, unit_exp: int) -> Int:
    """:func:`membrane_update` of a membrane that holds multiples of ``2**unit_exp``, before the clip.

    ``decay(v, dv) + round(u + bias)`` in that unit: the decay truncates towards zero there, and what
    comes in is rounded to the nearest multiple, a half upwards. (Rounded down, it would pull every
    membrane by half a unit a step.) ``v`` and the result are in the chip's unit, like ``u``.
    """
    half = (1 << unit_exp) >> 1
    return (decay(v >> unit_exp, dv) + ((u + bias + half) >> unit_exp)) << unit_exp


@_compiled
def reset_membrane(v: int, threshold: int, reset: int) -> int:
    """Membrane after a spike: 0 (the chip), or ``v - threshold`` (soft reset, simulator only)."""
    return v - threshold if reset == RESET_SUBTRACT else v * 0


# The Spiking Recurrent Cell of De Geeter, Ernst and Drion (arXiv 2306.03623), one is 4096.

SRC_SQUASHES = {"parabola": 0, "clip": 1, "sign": 2}
"""How x follows i: a parabola for ``3 tanh(i/3)``, i within +-3, the sign of i."""
SRC_ACTIVATIONS = {"parabola": 0, "clip": 1}
"""How h follows p: a parabola for tanh(p), ``3p/4`` within +-1."""
SRC_SLOW = (7, 8)
"""Slow negative feedback, minus r_s: of the paper, and of arXiv 2605.10679."""
SRC_DECAY = 410
"""Of h_s where h is not above 1/2; also the usual decay of i."""
SRC_BIAS_MIN = -8 * DECAY_ONE
SRC_BIAS_MAX = {
    ("parabola", 7): -20480,
    ("parabola", 8): -22528,
    ("clip", 7): -21504,
    ("clip", 8): -24576,
}
"""By activation and slow feedback: the largest b_h, -5, -5.5, -5.25 and -6, up to which every cell is silent
without input. The first that fires by itself is -19035, -22198, -21306 and -24534."""


class SrcForm(NamedTuple):
    """What the cells of a layer have in common.

    Attributes:
        shift: of the synaptic sum; a negative one floors.
        input_decay: of i, 0 to 4096.
        squash, activation: numbers of :data:`SRC_SQUASHES` and :data:`SRC_ACTIVATIONS`.
        slow: minus r_s, whole.
        output_bits: g, 0 to 8; a payload is ``h * 2**g`` rounded, with 0 a spike. -1, floats only: h itself.
    """

    shift: int
    input_decay: int
    squash: int
    activation: int
    slow: int
    output_bits: int


# Free of branches, multiplications by truths and NumPy's functions, as :func:`decay` is: a sign is a mask.


@_compiled
def _at_most(x: Any, limit: int) -> Any:
    room = limit - x
    return x + (room & (room >> 63))


@_compiled
def _within(x: Any, limit: int) -> Any:
    return -_at_most(-_at_most(x, limit), limit)


@_compiled
def _signed(magnitude: Any, x: Any) -> Any:
    """``sign(x) * magnitude``, where the magnitude of 0 is 0."""
    negative = x >> 63
    return (magnitude ^ negative) - negative


@_compiled
def src_current(i: Any, a: Any, k: int, shift: int) -> Any:
    """``decay(i, k) + shift(a)``, before it saturates; a negative shift floors. ``|a << shift| < 2**62``."""
    up, down = shift & ~(shift >> 63), -shift & ~(-shift >> 63)
    return decay(i, k) + (a << up >> down)


@_compiled
def src_saturated(i: Any) -> Any:
    """i within ``+-(2**23 - 1)``."""
    return _within(i, V_MAX)


@_compiled
def _src_squashed(i: Any, kind: int) -> Any:
    if kind == 2:
        return _signed(_at_most(abs(i), 1) << DECAY_BITS, i)
    if kind == 1:
        return _within(i, 12288)
    m = _at_most(abs(i), 24576)
    half = m >> 1
    return _signed(m - ((((half * half) >> 10) * 341) >> 12), i)


@_compiled
def src_potential(i: Any, h: Any, slow: Any, bias: Any, squash: int, r_s: int) -> Any:
    """``p = squash(i) + 2 h - r_s h_s + b_h``, of the new i and the old h and h_s."""
    return _src_squashed(i, squash) + 2 * h - r_s * slow + bias


@_compiled
def src_activated(p: Any, kind: int) -> Any:
    """h of p: a parabola for tanh(p), or ``3p/4`` within +-1."""
    if kind == 1:
        return _signed(_at_most((abs(p) * 3) >> 2, 4096), p)
    m = _at_most(abs(p), 8192)
    return _signed(m - ((m * m) >> 14), p)


@_compiled
def src_slower(slow: Any, h: Any) -> Any:
    """h_s, of the old h and h_s: h where it is above 1/2, else ``h + decay(h_s - h, 410)``."""
    return h + (decay(slow - h, SRC_DECAY) & ((h - 2049) >> 63))


@_compiled
def src_payload(h: Any, output_bits: int) -> Any:
    """What a cell sends: ``max(h, 0) 2**output_bits``, rounded, a half upwards; of 0 bits a spike."""
    return ((h & ~(h >> 63)) + (1 << (11 - output_bits))) >> (12 - output_bits)


def src_step(
    state: np.ndarray, a: Int, bias: np.ndarray, form: SrcForm
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of cells: what the compiled loops do, in whole arrays.

    Args:
        state: int64 (3, ...), i, h and h_s. a: what arrives. bias: int64, b_h.

    Returns:
        The new state, what is sent, and the current before it saturates.
    """
    i, h, slow = state
    wide = src_current(i, a, form.input_decay, form.shift)
    current = src_saturated(wide)
    p = src_potential(current, h, slow, bias, form.squash, form.slow)
    after = np.stack([current, src_activated(p, form.activation), src_slower(slow, h)])
    return after, src_payload(after[1], form.output_bits), wide
