"""The parameters of a layer's neurons, and the states that they begin with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.checked import integer, integers, require, zero
from delaynet_lava.errors import shown
from delaynet_lava.payloads import SPIKES, Payload

__all__ = [
    "BIAS_EXP_MAX",
    "RESETS",
    "SETTLE",
    "SRC_OUTPUT_BITS_MAX",
    "Neuron",
    "Src",
    "span",
    "time_constant_ms",
]

RESETS = {"zero": fx.RESET_ZERO, "subtract": fx.RESET_SUBTRACT}
BIAS_EXP_MAX = 7
# v saturates below 2**23, so a threshold of 2**17 (<< 6) or more never spikes; lava-dl writes
# 2**18 - 1 for its readouts, and 2**24 bounds what still fits Lava's int32 after the shift.
VTH_LIMIT = 1 << 24
SETTLE = 1000
"""Silent steps from h = h_s = -1 after which a Spiking Recurrent Cell counts as at rest."""
SRC_SHIFTS = (-30, 12)
SRC_OUTPUT_BITS_MAX = 8


def _decay(value: Any, where: str) -> int | np.ndarray:
    """One for all neurons as an int, also where all have the same; else int32 (neurons,)."""
    array = integers(value, where, 0, fx.DECAY_ONE, np.int32)
    require(array.ndim <= 1 and array.size > 0, where, f"has shape {array.shape}, expected (neurons,)")
    first = int(array.reshape(-1)[0])
    return first if np.all(array == first) else array


def span(values: int | np.ndarray) -> str:
    """For people: "12", or "12 to 300" where neurons differ."""
    low, high = int(np.min(values)), int(np.max(values))
    return str(low) if low == high else f"{low} to {high}"


def time_constant_ms(decay: int | np.ndarray, dt_ms: float) -> float | None:
    """``-dt / ln(1 - decay / 4096)``, ms; 0.0 where a step forgets all, None where it forgets nothing.

    Of neurons that differ, the longest.
    """
    slowest = int(np.min(decay))
    if slowest == 0:
        return None
    return 0.0 if slowest == fx.DECAY_ONE else float(-dt_ms / np.log1p(-slowest / fx.DECAY_ONE))


@dataclass(frozen=True, eq=False)
class Neuron:
    """Parameters of a layer of leaky integrate-and-fire neurons.

    ``u = decay(u, du) + (a << 6)``, ``v = decay(v, dv) + u + (bias << bias_exp)``, a spike where
    ``v > vth << 6``, then the reset.

    Attributes:
        vth: threshold mantissa; the chip takes 0 to 131071 (17 bits).
        du, dv: decay of current and membrane, 0 to 4096; 4096 forgets at once. An int where all neurons
            have the same, else int32 (neurons,).
        bias: int32 (neurons,) mantissa, or one value for all; the chip takes -4096 to 4095.
        bias_exp: 0 to 7; NetX always uses 6.
        reset: "zero" or "subtract" (v -= vth << 6, simulator only).
        membrane_bits: bits of the membrane's signed word, 2 to 24; the chip has 24. Fewer, which only
            the emulator and training run, hold the multiples of ``2**(full_scale_exp + 1 -
            membrane_bits)`` below ``2**full_scale_exp``; the threshold is rounded down to one
            (:func:`fixedpoint.narrow_membrane_update`).
        full_scale_exp: ``membrane_bits - 1`` to 23.
        v_init, u_init: int32 (neurons,), or one value for all: membrane and current before step 0, at
            the scale of the state. A membrane of fewer bits holds multiples of its unit only.
    """

    vth: int
    du: int | np.ndarray
    dv: int | np.ndarray
    bias: np.ndarray = field(default_factory=zero)
    bias_exp: int = fx.BIAS_EXP
    reset: str = "zero"
    membrane_bits: int = fx.MEMBRANE_BITS
    full_scale_exp: int = fx.FULL_SCALE_EXP
    v_init: np.ndarray = field(default_factory=zero)
    u_init: np.ndarray = field(default_factory=zero)

    kind = "lif"
    sends = SPIKES

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_("vth", integer(self.vth, "vth", 0, VTH_LIMIT))
        set_("du", _decay(self.du, "du"))
        set_("dv", _decay(self.dv, "dv"))
        bias = integers(self.bias, "bias", fx.BIAS_MANT_MIN, fx.BIAS_MANT_MAX, np.int32)
        require(bias.ndim <= 1, "bias", f"has shape {bias.shape}, expected (neurons,)")
        set_("bias", bias)
        set_("bias_exp", integer(self.bias_exp, "bias_exp", 0, BIAS_EXP_MAX))
        known = isinstance(self.reset, str) and self.reset in RESETS
        require(known, "reset", f"is {shown(self.reset)}, expected one of {list(RESETS)}")
        set_("membrane_bits", integer(self.membrane_bits, "membrane_bits", 2, fx.MEMBRANE_BITS))
        finest = self.membrane_bits - 1
        set_("full_scale_exp", integer(self.full_scale_exp, "full_scale_exp", finest, fx.FULL_SCALE_EXP))
        unit_exp, limit = self.grid
        ranges = {"v_init": (-limit, limit), "u_init": (1 - fx.UV_HALF, fx.UV_HALF)}
        for name, (low, high) in ranges.items():
            state = integers(getattr(self, name), name, low, high, np.int32)
            require(state.ndim <= 1, name, f"has shape {state.shape}, expected (neurons,)")
            set_(name, state)
        off = self.v_init[self.v_init % (1 << unit_exp) != 0].reshape(-1)
        require(
            not off.size, "v_init", f"holds {off[:1]}, no multiple of the membrane's unit {1 << unit_exp}"
        )

    def require_size(self, size: int) -> None:
        """Refuse values by neuron that are not as many as there are neurons.

        Raises:
            InputError: names which, and both shapes.
        """
        for name in ("du", "dv", "bias", "v_init", "u_init"):
            shape = np.shape(getattr(self, name))
            require(shape in ((), (1,), (size,)), name, f"has shape {shape}, expected ({size},)")

    def shifted_bias(self, size: int) -> np.ndarray:
        """int64 (size,), the bias at the membrane's scale."""
        return np.broadcast_to(self.bias.astype(np.int64) << self.bias_exp, (size,)).copy()

    def decays(self, size: int) -> np.ndarray:
        """int32 (2, size), of the current and of the membrane."""
        return np.stack([np.broadcast_to(k, (size,)) for k in (self.du, self.dv)]).astype(np.int32)

    @property
    def forgetful(self) -> bool:
        """Whether a current lasts for one step only, in every neuron."""
        return bool(np.all(np.equal(self.du, fx.DECAY_ONE)))

    def initial(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """int32 (size,) each: current and membrane before step 0."""
        return (np.broadcast_to(self.u_init, (size,)), np.broadcast_to(self.v_init, (size,)))

    def first_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Current and membrane of step 0, in which no spike has arrived yet; int64, before a reset."""
        unit_exp, limit = self.grid
        u = fx.decay(self.u_init.astype(np.int64), self.du)
        bias = self.bias.astype(np.int64) << self.bias_exp
        v = fx.narrow_membrane_update(self.v_init.astype(np.int64), u, bias, self.dv, unit_exp)
        return u, np.clip(v, -limit, limit)

    def _before(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """int64: the membrane before step 0 that becomes v in it, with the current u."""
        unit_exp, _ = self.grid
        bias = self.bias.astype(np.int64) << self.bias_exp
        arrived = fx.narrow_membrane_update(np.zeros_like(v), u, bias, self.dv, unit_exp)
        return fx.undecay((v - arrived) >> unit_exp, self.dv) << unit_exp

    def beginning(self, u: Any, v: Any) -> Neuron:
        """With the initial state that step 0 takes to current u and membrane v, where the first input acts.

        Args:
            u, v: int (neurons,), or one value for all. SLAYER's time begins with that input.

        Raises:
            InputError: no state becomes these in step 0, or not without a spike.
        """
        u, v = (np.asarray(state, np.int64) for state in (u, v))
        begun = replace(self, u_init=fx.undecay(u, self.du), v_init=self._before(u, v))
        got_u, got_v = begun.first_state()
        require(
            bool(np.all(got_u == u)),
            "u_start",
            f"a current that decays by {span(self.du)}/4096 has none before it",
        )
        require(
            bool(np.all(got_v == v)),
            "v_start",
            f"no membrane becomes it, with a decay of {span(self.dv)}/4096",
        )
        require(self.is_readout or not np.any(v > self.threshold), "v_start", "lies above the threshold")
        return begun

    @property
    def starts_quiet(self) -> bool:
        """Whether step 0, in which no spike has arrived yet, leaves current and membrane at rest."""
        return not any(np.any(state) for state in self.first_state())

    def quietened(self) -> Neuron:
        """:meth:`beginning` at rest, or as near to it as a membrane gets: see :attr:`starts_quiet`.

        So a bias begins together with the first input, as it does in SLAYER.
        """
        _, limit = self.grid
        rest = np.zeros(np.broadcast_shapes(self.bias.shape, np.shape(self.dv)), np.int64)
        before = np.clip(self._before(rest, rest), -limit, limit)
        v_init = np.where(np.equal(self.dv, fx.DECAY_ONE), rest, before)
        return replace(self, v_init=v_init, u_init=zero())

    @property
    def grid(self) -> tuple[int, int]:
        """Exponent of the membrane's unit, and its largest value; (0, 2**23 - 1) for 24 bits."""
        return fx.membrane_grid(self.membrane_bits, self.full_scale_exp)

    @property
    def threshold(self) -> int:
        """``vth << 6``, rounded down to a multiple of the membrane's unit."""
        unit_exp, _ = self.grid
        return self.vth << fx.STATE_SHIFT >> unit_exp << unit_exp

    @property
    def is_readout(self) -> bool:
        """True where the threshold is the chip's largest or beyond: the membrane is the answer."""
        return self.vth >= fx.VTH_MAX


@dataclass(frozen=True, eq=False)
class Src:
    """Parameters of a layer of Spiking Recurrent Cells; one is 4096, the step is :func:`fixedpoint.src_step`.

    A cell begins at rest, see :meth:`initial`.

    Attributes:
        bias: int32 (neurons,), b_h, or one value for all; -32768 to :data:`fixedpoint.SRC_BIAS_MAX`, where a
            cell without input is silent.
        decay: of the current i, 0 to 4096.
        shift: of the synaptic sum into i, -30 to 12; a negative one floors. A weight word w whose payloads
            have f fraction bits counts ``w 2**(f + shift)`` in 4096ths.
        squash: "parabola", "clip" or "sign" of i. activation: "parabola" or "clip" of p.
        slow: slow negative feedback, 7 or 8.
        output_bits: 0: a spike where h is 1/2 or more; else ``h 2**output_bits``, rounded, up to 8.
    """

    bias: np.ndarray
    decay: int = fx.SRC_DECAY
    shift: int = fx.STATE_SHIFT
    squash: str = "parabola"
    activation: str = "parabola"
    slow: int = 7
    output_bits: int = 0

    kind = "src"
    is_readout = False
    membrane_bits = fx.MEMBRANE_BITS  # i fills the chip's word, h and h_s less

    def __post_init__(self) -> None:
        ranges = {"decay": (0, fx.DECAY_ONE), "shift": SRC_SHIFTS, "output_bits": (0, SRC_OUTPUT_BITS_MAX)}
        ranges["slow"] = min(fx.SRC_SLOW), max(fx.SRC_SLOW)
        for name, (low, high) in ranges.items():
            object.__setattr__(self, name, integer(getattr(self, name), name, low, high))
        for name, known in (("squash", fx.SRC_SQUASHES), ("activation", fx.SRC_ACTIVATIONS)):
            value = getattr(self, name)
            good = isinstance(value, str) and value in known
            require(good, name, f"is {shown(value)}, expected one of {list(known)}")
        most = fx.SRC_BIAS_MAX[self.activation, self.slow]
        bias = integers(self.bias, "bias", fx.SRC_BIAS_MIN, most, np.int32)
        require(bias.ndim <= 1 and bias.size > 0, "bias", f"has shape {bias.shape}, expected (neurons,)")
        object.__setattr__(self, "bias", bias)

    @property
    def form(self) -> fx.SrcForm:
        """What the cells have in common, as the arithmetic takes it."""
        squash, activation = fx.SRC_SQUASHES[self.squash], fx.SRC_ACTIVATIONS[self.activation]
        return fx.SrcForm(self.shift, self.decay, squash, activation, self.slow, self.output_bits)

    @property
    def sends(self) -> Payload:
        """What a cell puts into a step: a spike, or up to ``2**output_bits``."""
        return Payload(self.output_bits + 1) if self.output_bits else SPIKES

    def require_size(self, size: int) -> None:
        """Refuse biases that are not as many as there are neurons.

        Raises:
            InputError: names both shapes.
        """
        shape = self.bias.shape
        require(shape in ((), (1,), (size,)), "bias", f"has shape {shape}, expected ({size},)")

    def initial(self, size: int) -> np.ndarray:
        """int32 (3, size): i, h and h_s before step 0, after 1000 silent steps from h = h_s = -1."""
        levels, which = np.unique(self.bias, return_inverse=True)
        state = _rest(levels.astype(np.int64).tobytes(), self.form.activation, self.slow)[
            :, which.reshape(-1)
        ]
        return np.broadcast_to(state, (3, size)).copy()


@lru_cache(maxsize=256)
def _rest(levels: bytes, activation: int, slow: int) -> np.ndarray:
    """int32 (3, N), of cells with these b_h, int64; nothing else matters to a cell without input."""
    bias = np.frombuffer(levels, np.int64)
    state = np.full((3, len(bias)), -fx.DECAY_ONE, np.int64)
    state[0] = 0
    for _ in range(SETTLE):
        before = state
        state, _, _ = fx.src_step(state, 0, bias, fx.SrcForm(0, fx.DECAY_ONE, 0, activation, slow, 0))
        if np.array_equal(state, before):
            break
    return state.astype(np.int32)
