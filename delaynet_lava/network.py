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
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.checked import integer, integers, require, require_type, zero
from delaynet_lava.decision import Decision
from delaynet_lava.drawings import draw_matrices
from delaynet_lava.errors import InputError, shown
from delaynet_lava.neuron import Neuron, Src, span, time_constant_ms
from delaynet_lava.payloads import SPIKES, Payload
from delaynet_lava.tables import Table, notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SPIKES",
    "Decision",
    "Dense",
    "Encoder",
    "Layer",
    "Network",
    "Neuron",
    "Payload",
    "Src",
    "Synapse",
    "kind_of",
    "lif",
    "span",
    "task_word",
    "time_constant_ms",
]

DELAY_LIMIT = (1 << 15) - 1
DT_MIN_MS, DT_MAX_MS = 1e-6, 1e6
TAIL_MAX = 1 << 16


def task_word(value: Any) -> str:
    """The word of a task, from what a file says of it.

    Args:
        value: the word; ``{"word": word}``; or, as older files have it, name and options:
            ``{"name": "cue", "cues": 7}`` is ``cue:cues=7``. Nothing, ``{}``: unknown.

    Raises:
        InputError: something else, or a word that is no printable line of at most 1000 characters.
    """
    if isinstance(value, dict):
        require(not value or "word" in value or "name" in value, "task", "has neither word nor name")
        name, options = value.get("word", value.get("name", "")), {**value}
        for key in ("word", "name"):
            options.pop(key, None)
        try:
            listed = ",".join(f"{key}={option}" for key, option in options.items())
            value = f"{name}:{listed}" if listed and name else name
        except ValueError as error:  # an integer of thousands of digits
            raise InputError("task", str(error), "give its word, such as mine.npz") from error
    require(isinstance(value, str), "task", f"is a {type(value).__name__}", "give its word, such as mine.npz")
    require(value.isprintable() and len(value) <= 1000, "task", f"{value[:60]!a} is no word of a task")
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
    delay: np.ndarray = field(default_factory=zero)
    weight_exp: int = 0

    def __post_init__(self) -> None:
        require(not hasattr(self.weight, "tocsc"), "weight", "is sparse", "give it to SparseSynapse")
        weight = integers(self.weight, "weight", fx.WEIGHT_MIN, fx.WEIGHT_MAX, np.int16)
        require(weight.ndim == 2, "weight", f"has shape {weight.shape}, expected (post, pre)")
        require(weight.size > 0, "weight", f"is empty, shape {weight.shape}")
        odd = np.argwhere(weight & 1)
        if len(odd):
            at = tuple(int(k) for k in odd[0])
            raise InputError(
                "weight",
                f"value at {at} is {int(weight[at])}, odd ({len(odd)} such)",
                "8-bit weight words with sign are even integers",
            )
        delay = integers(self.delay, "delay", 0, DELAY_LIMIT, np.int16)
        if delay.ndim == 0:
            delay = np.broadcast_to(delay, weight.shape)
        require(
            delay.shape == weight.shape,
            "delay",
            f"has shape {delay.shape} but the weights have {weight.shape}",
        )
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "delay", delay)
        object.__setattr__(self, "weight_exp", integer(self.weight_exp, "weight_exp", -1, fx.WEIGHT_EXP_MAX))

    def __repr__(self) -> str:
        weights, delays = self.spans
        return f"<Synapse {self.shape[0]}x{self.shape[1]}, weights {weights}, delays {delays}>"

    @property
    def shape(self) -> tuple[int, int]:
        """(post, pre)."""
        return self.weight.shape  # type: ignore[return-value]

    @property
    def count(self) -> int:
        """Number of synapses, whose weight is not zero."""
        return int(np.count_nonzero(self.weight))

    @property
    def spans(self) -> tuple[str, str]:
        """Least and largest weight and delay, for people."""
        return _span(self.weight), _span(self.delay)

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
        require_type(self.neuron, Neuron, "neuron", "a Neuron")
        object.__setattr__(self, "size", integer(self.size, "shape", 1, 1 << 24))
        for name in ("weight", "bias"):
            value = integer(getattr(self, name), name, fx.WEIGHT_MIN, fx.WEIGHT_MAX)
            object.__setattr__(self, name, value)
        require(not np.any(self.neuron.bias), "bias", "an encoder's bias belongs to its transform")
        require(
            self.neuron.bias_exp == fx.BIAS_EXP,
            "biasExp",
            f"is {self.neuron.bias_exp}, but an encoder's input is always shifted by {fx.BIAS_EXP}",
            "leave it out",
        )
        require(not np.any(self.neuron.u_init), "u_init", "an encoder has no current")
        self.neuron.require_size(self.size)

    recurrent = None
    synapse = None


@dataclass(frozen=True, eq=False)
class Dense:
    """Neurons behind an all-to-all synapse, with or without recurrent connections."""

    synapse: Synapse
    neuron: Neuron | Src
    recurrent: Synapse | None = None

    def __post_init__(self) -> None:
        require_type(self.synapse, Synapse, "synapse", "a Synapse")
        require_type(self.neuron, Neuron | Src, "neuron", "a Neuron or a Src")
        require_type(self.recurrent, Synapse | None, "recurrent", "a Synapse or None")
        size = self.size
        if self.recurrent is not None:
            require(
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


def kind_of(layer: Layer) -> str:
    """What a layer is, for people: "encoder", "dense", "dense readout", "dense src"."""
    of = layer.neuron
    return type(layer).__name__.lower() + " readout" * of.is_readout + " src" * (of.kind == "src")


def lif(
    layer: Layer,
    where: str = "layer",
    problem: str = "which are not meant here",
    remedy: str = "give leaky integrate-and-fire neurons",
) -> Neuron:
    """The parameters of a layer of leaky integrate-and-fire neurons.

    Raises:
        InputError: it has neurons of another kind; ``problem`` says why that does not do.
    """
    if not isinstance(layer.neuron, Neuron):
        raise InputError(where, f"has Spiking Recurrent Cells, {problem}", remedy)
    return layer.neuron


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
        require_type(self.layers, (tuple, list), "layers", "a tuple of layers")
        object.__setattr__(self, "layers", tuple(self.layers))
        require(len(self.layers) > 0, "network", "has no layers with neurons")
        for i, layer in enumerate(self.layers):
            require_type(layer, Layer, f"layer {i}", "a Dense or an Encoder")
        require_type(self.input_shape, (tuple, list), "input", "its shape as a tuple")
        shape = tuple(integer(n, "input", 1, 1 << 31) for n in self.input_shape) or (self.channels,)
        object.__setattr__(self, "input_shape", shape)
        require(
            math.prod(shape) == self.channels,
            "input",
            f"has shape {shape}, but layer 0 takes {self.channels} channels",
        )
        for i, layer in enumerate(self.layers[1:], 1):
            require(isinstance(layer, Dense), f"layer {i}", "is an encoder; only the first layer can be")
            pre, got = layer.synapse.shape[1], self.layers[i - 1].size  # type: ignore[union-attr]
            require(
                pre == got, f"layer {i}: weight", f"takes {pre} inputs but layer {i - 1} has {got} neurons"
            )
        if self.average is not None:
            size = self.layers[-1].size
            object.__setattr__(self, "average", integer(self.average, "average", 1, 1 << 24))
            require(
                size % self.average == 0,
                "average",
                f"{size} output neurons cannot form {self.average} equal groups",
            )
        require_type(self.dt_ms, (int, float, np.integer, np.floating), "dt", "milliseconds")
        # As Python's own number: one of 16 bits can't be compared with the larger limit.
        duration = self.dt_ms.item() if isinstance(self.dt_ms, np.generic) else self.dt_ms
        within = DT_MIN_MS <= duration <= DT_MAX_MS
        require(within, "dt", f"is {shown(self.dt_ms)} ms, outside {DT_MIN_MS} to {DT_MAX_MS:g} ms")
        object.__setattr__(self, "dt_ms", float(self.dt_ms))
        require_type(self.profile, str, "profile", "the name of one")
        require_type(self.provenance, dict, "provenance", "a dict")
        object.__setattr__(self, "task", task_word(self.task))
        object.__setattr__(self, "tail", integer(self.tail, "tail", 0, TAIL_MAX))
        if isinstance(self.decision, str):
            object.__setattr__(self, "decision", Decision.parse(self.decision))
        require_type(self.decision, Decision | None, "decision", "a Decision, or its text")
        require_type(self.input_payload, Payload | None, "input_payload", "a Payload")
        require(
            self.answer.kind != "count" or not self.layers[-1].neuron.is_readout,
            "decision",
            f"{self.answer} counts the spikes of a readout, which has none",
            "use last, sum or mean",
        )
        require(
            self.answer.kind != "count" or not self.layers[-1].neuron.sends.bits,
            "decision",
            f"{self.answer} counts the spikes of cells that send whole numbers",
            "use last, sum or mean, or output_bits 0 in the last layer",
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
        return self.layers[layer - 1].neuron.sends if layer else self.payload

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
            text = str(layer.size) + " cells" * (layer.neuron.kind == "src")
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

    def __repr__(self) -> str:
        more = [f"for {self.task}"] * bool(self.task) + [f"exported for {self.profile}"] * bool(self.profile)
        return f"<Network {', '.join([self.summary(), *more])}>"

    def _matrices(self) -> list[tuple[str, Synapse]]:
        """Every matrix of weights, and what it is called."""
        found = []
        for k, layer in enumerate(self.layers):
            named = {"weight": layer.synapse, "weight_rec": layer.recurrent}
            found += [(f"layer {k} {name}", one) for name, one in named.items() if one is not None]
        return found

    def _repr_html_(self) -> str:
        layers = []
        for k, layer in enumerate(self.layers):
            of = layer.neuron
            if isinstance(of, Neuron):
                spans = [_span(of.vth), _span(of.du), _span(of.dv), of.reset, str(of.membrane_bits)]
            else:
                spans = ["-", _span(of.decay), "-", "-", "-"]
            layers.append([str(k), kind_of(layer), str(layer.size), *spans])
        synapses = [
            [name, "x".join(map(str, s.shape)), f"{s.count:,}", s.spans[0], str(s.weight_exp), s.spans[1]]
            for name, s in self._matrices()
        ]  # fmt: skip
        heads = ("layer", "kind", "neurons", "vth", "du", "dv", "reset", "membrane bits")
        tables = [Table(heads, layers)]
        if synapses:
            tables.append(Table(("synapses", "shape", "present", "weights", "exp", "delays"), synapses))
        return notebook(repr(self)[1:-1], tables)

    def plot(self) -> Figure:
        """Every matrix of weights, with its delays: a figure that a notebook shows, and ``savefig`` writes.

        Raises:
            InputError: the network has no synapses.
        """
        matrices = self._matrices()
        require(bool(matrices), "network", "has no synapses to draw")
        return draw_matrices([(name, one.weight, one.delay) for name, one in matrices])


def _span(values: Any) -> str:
    """The least and the most of some numbers, or the one that all are."""
    low, high = int(np.min(values)), int(np.max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
