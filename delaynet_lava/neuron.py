"""The parameters of a layer's neurons, and the states that they begin with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.checked import integer, integers, require, zero
from delaynet_lava.errors import shown

__all__ = ["BIAS_EXP_MAX", "RESETS", "Neuron", "span", "time_constant_ms"]

RESETS = {"zero": fx.RESET_ZERO, "subtract": fx.RESET_SUBTRACT}
BIAS_EXP_MAX = 7
# v saturates below 2**23, so a threshold of 2**17 (<< 6) or more never spikes; lava-dl writes
# 2**18 - 1 for its readouts, and 2**24 bounds what still fits Lava's int32 after the shift.
VTH_LIMIT = 1 << 24


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
