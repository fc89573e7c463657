"""The intermediate representation: a network as frozen dataclasses of integers.

Everything in this package reads or writes a :class:`Network`: export makes one from a trained
model, :mod:`delaynet_lava.formats.netx` reads and writes it as ``net.h5``, the emulator, Lava and the
chip run it. What stands here is what runs; units and ranges are those of
:mod:`delaynet_lava.fixedpoint`.

Time axis, the same for every execution: a spike of step t on a synapse of delay d is part of the
synaptic input of step ``t + 1 + d``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.decision import Decision
from delaynet_lava.errors import InputError, shown
from delaynet_lava.payloads import SPIKES, Payload

__all__ = [
    "SPIKES",
    "Decision",
    "Dense",
    "Encoder",
    "Layer",
    "Network",
    "Neuron",
    "Payload",
    "Synapse",
    "task_word",
    "time_constant_ms",
]

RESETS = {"zero": fx.RESET_ZERO, "subtract": fx.RESET_SUBTRACT}
DELAY_LIMIT = (1 << 15) - 1
BIAS_EXP_MAX = 7
DT_MIN_MS, DT_MAX_MS = 1e-6, 1e6
TAIL_MAX = 1 << 16
# v saturates below 2**23, so a threshold of 2**17 (<< 6) or more never spikes; lava-dl writes
# 2**18 - 1 for its readouts, and 2**24 bounds what still fits Lava's int32 after the shift.
VTH_LIMIT = 1 << 24


def _zero() -> np.ndarray:
    # An array of no dimension stands for all synapses or neurons; a plain integer does as well.
    return np.zeros((), np.int16)


def _require(condition: bool, where: str, problem: str, remedy: str = "") -> None:
    if not condition:
        raise InputError(where, problem, remedy)


def _integers(values: Any, where: str, low: int, high: int, dtype: type) -> np.ndarray:
    """Check an array against a closed range and freeze it; names the first offender."""
    try:
        array = np.asarray(values)
    except Exception as error:  # ragged, on a GPU, with a gradient, sparse: whatever the value's own says
        raise InputError(where, f"is no array of numbers ({error})", "give whole numbers") from error
    _require(array.dtype.kind in "iuf", where, f"has type {array.dtype}, expected integers")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            at = tuple(int(k) for k in np.argwhere(bad)[0])
            raise InputError(where, f"value at {at} is {array[at]}, not a number", "check the training run")
        bad = array != np.rint(array)
        if bad.any():
            at = tuple(int(k) for k in np.argwhere(bad)[0])
            raise InputError(where, f"value at {at} is {array[at]}, not an integer", "quantise it first")
    bad = (array < low) | (array > high)
    if bad.any():
        at = tuple(int(k) for k in np.argwhere(bad)[0])
        raise InputError(
            where, f"value at {at} is {int(array[at])}, outside {low} to {high} ({int(bad.sum())} such)"
        )
    frozen: np.ndarray = array.astype(dtype, order="C", copy=True)
    frozen.setflags(write=False)
    return frozen


def _integer(value: Any, where: str, low: int, high: int) -> int:
    array = _integers(value, where, low, high, np.int64)
    _require(array.size == 1, where, f"has shape {array.shape}, expected one value")
    return int(array.reshape(-1)[0])


def _is(value: Any, kind: Any, where: str, expected: str) -> None:
    _require(isinstance(value, kind), where, f"is of type {type(value).__name__}, expected {expected}")


def time_constant_ms(decay: int, dt_ms: float) -> float | None:
    """``-dt / ln(1 - decay / 4096)``, ms; 0.0 where a step forgets all, None where it forgets nothing."""
    if decay == 0:
        return None
    return 0.0 if decay == fx.DECAY_ONE else float(-dt_ms / np.log1p(-decay / fx.DECAY_ONE))


def task_word(value: Any) -> str:
    """The word of a task, from what a file says of it.

    Args:
        value: the word; ``{"word": word}``; or, as older files have it, name and options:
            ``{"name": "cue", "cues": 7}`` is ``cue:cues=7``. Nothing, ``{}``: unknown.

    Raises:
        InputError: something else, or a word that is no printable line of at most 1000 characters.
    """
    if isinstance(value, dict):
        _require(not value or "word" in value or "name" in value, "task", "has neither word nor name")
        name, options = value.get("word", value.get("name", "")), {**value}
        for key in ("word", "name"):
            options.pop(key, None)
        try:
            listed = ",".join(f"{key}={option}" for key, option in options.items())
            value = f"{name}:{listed}" if listed and name else name
        except ValueError as error:  # an integer of thousands of digits
            raise InputError("task", str(error), "give its word, such as mine.npz") from error
    _require(
        isinstance(value, str), "task", f"is a {type(value).__name__}", "give its word, such as mine.npz"
    )
    _require(value.isprintable() and len(value) <= 1000, "task", f"{value[:60]!a} is no word of a task")
    return value


@dataclass(frozen=True, eq=False)
class Synapse:
    """All-to-all connections: ``a_i[t] += 2**weight_exp * weight[i,j] * x_j[t - 1 - delay[i,j]]``.

    x is what the sender puts into a step, see :class:`Payload`.

    Attributes:
        weight: int16 (post, pre), even, -256 to 254 (8-bit words with sign).
        delay: int16 (post, pre), time steps, >= 0; the lag is ``delay + 1``. Where the weight is
            zero there is no synapse and the delay has no meaning. A scalar stands for all.
        weight_exp: -1 to 7. Under -1 the even words count halves of themselves, whole numbers, so that no
            sum is rounded; lower ones, whose sums Lava rounds and the chip does not, are refused.

    Raises:
        InputError: a value out of range or odd, or shapes that disagree.
    """

    weight: np.ndarray
    delay: np.ndarray = field(default_factory=_zero)
    weight_exp: int = 0

    def __post_init__(self) -> None:
        weight = _integers(self.weight, "weight", fx.WEIGHT_MIN, fx.WEIGHT_MAX, np.int16)
        _require(weight.ndim == 2, "weight", f"has shape {weight.shape}, expected (post, pre)")
        _require(weight.size > 0, "weight", f"is empty, shape {weight.shape}")
        odd = np.argwhere(weight & 1)
        if len(odd):
            at = tuple(int(k) for k in odd[0])
            raise InputError(
                "weight",
                f"value at {at} is {int(weight[at])}, odd ({len(odd)} such)",
                "8-bit weight words with sign are even integers",
            )
        delay = _integers(self.delay, "delay", 0, DELAY_LIMIT, np.int16)
        if delay.ndim == 0:
            delay = np.broadcast_to(delay, weight.shape)
        _require(
            delay.shape == weight.shape,
            "delay",
            f"has shape {delay.shape} but the weights have {weight.shape}",
        )
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "delay", delay)
        object.__setattr__(self, "weight_exp", _integer(self.weight_exp, "weight_exp", -1, fx.WEIGHT_EXP_MAX))

    @property
    def shape(self) -> tuple[int, int]:
        """(post, pre)."""
        return self.weight.shape  # type: ignore[return-value]

    def sums(
        self, payload: Payload = SPIKES, senders: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest sum that can arrive at each neuron in one step, int64 (post,) each.

        Args:
            payload: what the senders send.
            senders: bool (pre,), those that send at all; None: all.
        """
        weight = self.units if senders is None else self.units[:, senders]
        up, down = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
        return down * payload.high + up * payload.low, up * payload.high + down * payload.low

    @property
    def units(self) -> np.ndarray:
        """int64 (post, pre), what a spike adds: ``2**weight_exp * weight``, always whole."""
        return self.weight.astype(np.int64) << (self.weight_exp + 1) >> 1

    @property
    def max_delay(self) -> int:
        """Largest delay of a synapse that exists (weight not zero); 0 where there is none."""
        used = self.delay[self.weight != 0]
        return int(used.max()) if used.size else 0


@dataclass(frozen=True, eq=False)
class Neuron:
    """Parameters of a layer of leaky integrate-and-fire neurons.

    ``u = decay(u, du) + (a << 6)``, ``v = decay(v, dv) + u + (bias << bias_exp)``, a spike where
    ``v > vth << 6``, then the reset.

    Attributes:
        vth: threshold mantissa; the chip takes 0 to 131071 (17 bits).
        du, dv: decay of current and membrane, 0 to 4096; 4096 forgets at once.
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
    du: int
    dv: int
    bias: np.ndarray = field(default_factory=_zero)
    bias_exp: int = fx.BIAS_EXP
    reset: str = "zero"
    membrane_bits: int = fx.MEMBRANE_BITS
    full_scale_exp: int = fx.FULL_SCALE_EXP
    v_init: np.ndarray = field(default_factory=_zero)
    u_init: np.ndarray = field(default_factory=_zero)

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_("vth", _integer(self.vth, "vth", 0, VTH_LIMIT))
        set_("du", _integer(self.du, "du", 0, fx.DECAY_ONE))
        set_("dv", _integer(self.dv, "dv", 0, fx.DECAY_ONE))
        bias = _integers(self.bias, "bias", fx.BIAS_MANT_MIN, fx.BIAS_MANT_MAX, np.int32)
        _require(bias.ndim <= 1, "bias", f"has shape {bias.shape}, expected (neurons,)")
        set_("bias", bias)
        set_("bias_exp", _integer(self.bias_exp, "bias_exp", 0, BIAS_EXP_MAX))
        known = isinstance(self.reset, str) and self.reset in RESETS
        _require(known, "reset", f"is {shown(self.reset)}, expected one of {list(RESETS)}")
        set_("membrane_bits", _integer(self.membrane_bits, "membrane_bits", 2, fx.MEMBRANE_BITS))
        finest = self.membrane_bits - 1
        set_("full_scale_exp", _integer(self.full_scale_exp, "full_scale_exp", finest, fx.FULL_SCALE_EXP))
        unit_exp, limit = self.grid
        ranges = {"v_init": (-limit, limit), "u_init": (1 - fx.UV_HALF, fx.UV_HALF)}
        for name, (low, high) in ranges.items():
            state = _integers(getattr(self, name), name, low, high, np.int32)
            _require(state.ndim <= 1, name, f"has shape {state.shape}, expected (neurons,)")
            set_(name, state)
        off = self.v_init[self.v_init % (1 << unit_exp) != 0].reshape(-1)
        _require(
            not off.size, "v_init", f"holds {off[:1]}, no multiple of the membrane's unit {1 << unit_exp}"
        )

    def require_size(self, size: int) -> None:
        """Refuse values by neuron that are not as many as there are neurons.

        Raises:
            InputError: names which, and both shapes.
        """
        for name in ("bias", "v_init", "u_init"):
            shape = getattr(self, name).shape
            _require(shape in ((), (1,), (size,)), name, f"has shape {shape}, expected ({size},)")

    def shifted_bias(self, size: int) -> np.ndarray:
        """int64 (size,), the bias at the membrane's scale."""
        return np.broadcast_to(self.bias.astype(np.int64) << self.bias_exp, (size,)).copy()

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
        _require(
            bool(np.all(got_u == u)), "u_start", f"a current that decays by {self.du}/4096 has none before it"
        )
        _require(
            bool(np.all(got_v == v)), "v_start", f"no membrane becomes it, with a decay of {self.dv}/4096"
        )
        _require(self.is_readout or not np.any(v > self.threshold), "v_start", "lies above the threshold")
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
        rest = np.zeros(self.bias.shape, np.int64)
        v_init = rest if self.dv == fx.DECAY_ONE else np.clip(self._before(rest, rest), -limit, limit)
        return replace(self, v_init=v_init, u_init=_zero())

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
class Encoder:
    """An input layer with neurons of its own: the input x enters as ``bias = weight * x + bias``.

    One neuron a channel, no synapse and therefore no lag. This is what stock NetX makes of an
    input layer with a neuron (its dataloaders write the bias at every step); the current plays no
    part, so ``du`` has no effect.

    Attributes:
        size: number of channels.
        weight, bias: of the affine transform, integers.
    """

    neuron: Neuron
    size: int
    weight: int = fx.WEIGHT_SCALE
    bias: int = 0

    def __post_init__(self) -> None:
        _is(self.neuron, Neuron, "neuron", "a Neuron")
        object.__setattr__(self, "size", _integer(self.size, "shape", 1, 1 << 24))
        for name in ("weight", "bias"):
            value = _integer(getattr(self, name), name, fx.WEIGHT_MIN, fx.WEIGHT_MAX)
            object.__setattr__(self, name, value)
        _require(not np.any(self.neuron.bias), "bias", "an encoder's bias belongs to its transform")
        _require(
            self.neuron.bias_exp == fx.BIAS_EXP,
            "biasExp",
            f"is {self.neuron.bias_exp}, but an encoder's input is always shifted by {fx.BIAS_EXP}",
            "leave it out",
        )
        _require(not np.any(self.neuron.u_init), "u_init", "an encoder has no current")
        self.neuron.require_size(self.size)

    recurrent = None
    synapse = None


@dataclass(frozen=True, eq=False)
class Dense:
    """Neurons behind an all-to-all synapse, with or without recurrent connections."""

    synapse: Synapse
    neuron: Neuron
    recurrent: Synapse | None = None

    def __post_init__(self) -> None:
        _is(self.synapse, Synapse, "synapse", "a Synapse")
        _is(self.neuron, Neuron, "neuron", "a Neuron")
        _is(self.recurrent, Synapse | None, "recurrent", "a Synapse or None")
        size = self.size
        if self.recurrent is not None:
            _require(
                self.recurrent.shape == (size, size),
                "weight_rec",
                f"has shape {self.recurrent.shape}, expected {(size, size)}",
            )
        self.neuron.require_size(size)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.synapse.shape[0]


Layer = Encoder | Dense


@dataclass(frozen=True, eq=False)
class Network:
    """A stack of layers, with what is known of where it came from and what it is for.

    Attributes:
        layers: at least one; only the first may be an :class:`Encoder`.
        input_shape: as the file states it (channels last varying slowest, C, H, W); its product
            is the number of input channels. Inputs are flattened in that order.
        average: number of output groups where the network ends in an average over equal,
            consecutive groups of output neurons; None where it does not.
        dt_ms: duration of a time step.
        task: word of the task it was trained for (docs/tasks.md), or what a file says in its place
            (:func:`task_word`); empty where unknown.
        profile: name of the hardware profile it was exported for.
        provenance: how it was made: command, seed, versions, figures.
        decision: how it answers, or the text of that (:class:`Decision`); None: as :attr:`answer` says.
        input_payload: what comes in; None: as :attr:`payload` says.
        tail: steps without input that run behind those of every sample, before the answer is taken. A
            readout that was trained one step ahead of the chip's (SLAYER's ``Affine``) needs one.

    Raises:
        InputError: no layers, layers that do not fit each other, spikes counted of a readout.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...] = ()
    average: int | None = None
    dt_ms: float = 1.0
    task: str = ""
    profile: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    decision: Decision | None = None
    input_payload: Payload | None = None
    tail: int = 0

    def __post_init__(self) -> None:
        _is(self.layers, (tuple, list), "layers", "a tuple of layers")
        object.__setattr__(self, "layers", tuple(self.layers))
        _require(len(self.layers) > 0, "network", "has no layers with neurons")
        for i, layer in enumerate(self.layers):
            _is(layer, Layer, f"layer {i}", "a Dense or an Encoder")
        _is(self.input_shape, (tuple, list), "input", "its shape as a tuple")
        shape = tuple(_integer(n, "input", 1, 1 << 31) for n in self.input_shape) or (self.channels,)
        object.__setattr__(self, "input_shape", shape)
        _require(
            math.prod(shape) == self.channels,
            "input",
            f"has shape {shape}, but layer 0 takes {self.channels} channels",
        )
        for i, layer in enumerate(self.layers[1:], 1):
            _require(isinstance(layer, Dense), f"layer {i}", "is an encoder; only the first layer can be")
            pre, got = layer.synapse.shape[1], self.layers[i - 1].size  # type: ignore[union-attr]
            _require(
                pre == got, f"layer {i}: weight", f"takes {pre} inputs but layer {i - 1} has {got} neurons"
            )
        if self.average is not None:
            size = self.layers[-1].size
            object.__setattr__(self, "average", _integer(self.average, "average", 1, 1 << 24))
            _require(
                size % self.average == 0,
                "average",
                f"{size} output neurons cannot form {self.average} equal groups",
            )
        _is(self.dt_ms, (int, float, np.integer, np.floating), "dt", "milliseconds")
        # As Python's own number: one of 16 bits can't be compared with the larger limit.
        duration = self.dt_ms.item() if isinstance(self.dt_ms, np.generic) else self.dt_ms
        within = DT_MIN_MS <= duration <= DT_MAX_MS
        _require(within, "dt", f"is {shown(self.dt_ms)} ms, outside {DT_MIN_MS} to {DT_MAX_MS:g} ms")
        object.__setattr__(self, "dt_ms", float(self.dt_ms))
        _is(self.profile, str, "profile", "the name of one")
        _is(self.provenance, dict, "provenance", "a dict")
        object.__setattr__(self, "task", task_word(self.task))
        object.__setattr__(self, "tail", _integer(self.tail, "tail", 0, TAIL_MAX))
        if isinstance(self.decision, str):
            object.__setattr__(self, "decision", Decision.parse(self.decision))
        _is(self.decision, Decision | None, "decision", "a Decision, or its text")
        _is(self.input_payload, Payload | None, "input_payload", "a Payload")
        _require(
            self.answer.kind != "count" or not self.layers[-1].neuron.is_readout,
            "decision",
            f"{self.answer} counts the spikes of a readout, which has none",
            "use last, sum or mean",
        )

    @property
    def channels(self) -> int:
        """Number of input channels."""
        first = self.layers[0]
        return first.size if isinstance(first, Encoder) else first.synapse.shape[1]

    @property
    def outputs(self) -> int:
        """Number of values a decision is taken over: output neurons, or groups of them."""
        return self.average or self.layers[-1].size

    @property
    def payload(self) -> Payload:
        """What comes in: ``input_payload``, or else spikes, and values of 8 bits of an encoder."""
        return self.input_payload or (Payload(8) if isinstance(self.layers[0], Encoder) else SPIKES)

    def payload_into(self, layer: int) -> Payload:
        """What the senders of a layer's feed-forward synapse put into a step."""
        return SPIKES if layer else self.payload

    @property
    def answer(self) -> Decision:
        """How the network answers: ``decision``, or else ``last`` of a readout, ``count`` of spikes."""
        return self.decision or Decision("last" if self.layers[-1].neuron.is_readout else "count")

    def with_(self, **changes: Any) -> Network:
        """A copy with some attributes replaced."""
        return replace(self, **changes)

    def summary(self) -> str:
        """One line: sizes, recurrence, largest delays."""
        parts = [str(self.channels)]
        for layer in self.layers:
            text = str(layer.size)
            if isinstance(layer, Encoder):
                text += " encoder"
            else:
                delays = [s.max_delay for s in (layer.synapse, layer.recurrent) if s is not None]
                if layer.recurrent is not None:
                    text += " recurrent"
                if max(delays):
                    text += f" (delays up to {max(delays)})"
            parts.append(text)
        return " - ".join(parts)
