"""The Spiking Recurrent Cell as a SLAYER-style block, over the fused loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.kernels import spikes, src_training
from delaynet_lava.kernels.events import padded
from delaynet_lava.kernels.src_cells import SLOPE_ONE, sum_type
from delaynet_lava.kernels.src_inputs import inputs_of
from delaynet_lava.kernels.tensors import NO_NUMBERS, SpikeBits, float_type, numbers_of
from delaynet_lava.kernels.threads import spread
from delaynet_lava.kernels.vectors import LANES
from delaynet_lava.neuron import SETTLE
from delaynet_lava.nn.axon import delays_of
from delaynet_lava.nn.parts import Synapse

__all__ = ["BIAS_MAX", "BIAS_MIN", "SpikingRecurrentCell", "bias_max", "quantize"]

BIAS_MIN, BIAS_MAX = fx.SRC_BIAS_MIN / fx.DECAY_ONE, fx.SRC_BIAS_MAX["parabola", 7] / fx.DECAY_ONE
"""b_h in which a cell of the paper's is silent without input, -8 to -5; others: :func:`bias_max`."""
_FEW, _NEAR = 32, 400
"""Senders whose weight gradients one thread sums at a time: at least, and at most."""
FIRES = 1.6
"""A constant x under which a cell of b_h = -6 fires."""
_DEFAULTS: dict[str, Any] = {
    "bias": -6.0, "current_decay": fx.SRC_DECAY / fx.DECAY_ONE, "squash": "parabola",
    "activation": "parabola", "slow": 7, "requires_grad": True,
}  # fmt: skip


def bias_max(activation: str, slow: int) -> float:
    """The largest b_h with which such a cell is silent without input."""
    return fx.SRC_BIAS_MAX[activation, slow] / fx.DECAY_ONE


def quantize(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Weight words of so many bits, in SLAYER's units (1.0 is the word 64); the gradient passes.

    The words are multiples of ``2**(9 - bits)`` in -256 to ``256 - 2**(9 - bits)``; 8 bits are SLAYER's own.
    """
    step = 2.0 ** (3 - bits)
    with torch.no_grad():
        most = 2 ** (bits - 1)
        words = torch.clamp(torch.round(weight / step), -most, most - 1) * step
    return weight + (words - weight).detach() if weight.requires_grad else words


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w_in, w_rec, bias, inputs, block):  # type: ignore[override]
        form, late, integer = block.form(), int(block.delay_shift), block.mode == "integer"
        n, channels = w_in.shape
        batch, steps, _ = x.shape
        lanes = padded(n)
        room = (batch, steps, lanes) if any(ctx.needs_input_grad) else (batch, 0, 0)
        out = np.empty((batch, steps, n) if block.wants_numbers() else (batch, 0, 0), np.float32)
        slopes = [np.empty(room, np.int16 if integer else np.float32) for _ in range(2)]
        saturated, fired = np.zeros(batch, np.int64), np.empty((batch, steps, spikes.words(n)), np.uint64)
        delay, delay_rec = block.delay_of(channels), block.recurrent_delay_of(n, w_rec)
        if integer:
            kind, to_bias, scale = np.int16, float(fx.DECAY_ONE), float(fx.WEIGHT_SCALE)
            back_scale, rows = scale, np.empty((channels, lanes), np.int16)
            weight = w_in.detach().numpy()
            largest = np.zeros(-(-channels // LANES), np.float32)
            spread(src_training.words_of, len(largest), weight, block.weight_bits, rows, largest)
            block.hold(weight, largest.max(initial=0))
        else:
            kind, to_bias, scale = np.float32, 1.0, block.effect(block.in_exp)
            back_scale, rows = block.effect(max(0, form.output_bits)), _rows(w_in, lanes, scale, kind)
        back = np.zeros((0, lanes), kind) if w_rec is None else _rows(w_rec, lanes, back_scale, kind)
        level = np.full(lanes, to_bias * BIAS_MIN, np.int32 if integer else np.float32)
        level[:n] = _rounded(bias.detach().numpy() * to_bias, level.dtype)
        synapses = src_training.Synapses(rows, delay, back, delay_rec)
        written = src_training.Written(out, fired, *slopes, saturated)
        cells = level, block.start(level), form, late
        if integer:
            sums = np.zeros(0, block.sum_type(inputs.largest))
            spread(src_training.run_integers, batch, inputs.by_step, synapses, *cells, sums, written)
        else:
            gate = 0.0 if block.gate == "step" else float(block.gate)
            spread(src_training.run_floats, batch, inputs.by_step, synapses, *cells, gate, written)
        ctx.kept = inputs.by_channel, out, delay, delay_rec, form, late, block
        ctx.words, ctx.scale = rows, scale
        # As saved tensors they are gone after the backward pass, however long somebody holds the output.
        ctx.save_for_backward(w_rec, *map(torch.from_numpy, slopes))
        totals = np.array([saturated.sum(), 0])
        overflows, bits = torch.from_numpy(totals), torch.from_numpy(fired.view(np.int64))
        ctx.mark_non_differentiable(overflows, bits)
        sent = torch.from_numpy(out) if out.size else NO_NUMBERS.expand(batch, steps, n)
        return sent.to(float_type(x)), overflows, bits

    @staticmethod
    def backward(ctx, grad, *_):  # type: ignore[override]
        events, out, delay, delay_rec, form, late, block = ctx.kept
        w_rec, *slopes = ctx.saved_tensors
        slope_h, slope_x = (one.numpy() for one in slopes)
        wants_x, wants_in, wants_rec, wants_bias, *_ = ctx.needs_input_grad
        n, channels = grad.shape[2], len(ctx.words)
        batch, steps, lanes = slope_h.shape
        effect, effect_rec = block.effect(block.in_exp), block.effect(max(0, form.output_bits))
        grad_a, grad_bias = np.empty(slope_h.shape, np.float32), np.empty((batch, lanes), np.float32)
        back = np.zeros((0, lanes), np.float32)
        if w_rec is not None:
            back = _rows(w_rec, lanes, effect_rec * block.feedback_grad, np.float32)
        outer = np.ascontiguousarray(grad.to(torch.float32).numpy())
        one_h, one_x = SLOPE_ONE if block.mode == "integer" else (1, 1)
        factors = np.float32(2.0 ** max(0, form.output_bits) / one_h), np.float32(1 / one_x)
        spread(
            src_training.backward, batch, outer, back, delay_rec, slope_h, slope_x, form, late, factors,
            grad_a, grad_bias,
        )  # fmt: skip

        def of_weights(events, lag, effect):  # type: ignore[no-untyped-def]
            met, parts = np.empty((n, len(lag)), np.float32), _parts(len(lag))
            spread(src_training.weight_gradient, parts, events, lag, grad_a, np.float32(effect), parts, met)
            return torch.from_numpy(met)

        into = grad_in = grad_rec = None
        if wants_x:
            came = torch.from_numpy(grad_a)[..., :n].reshape(-1, n)
            weight = torch.from_numpy(ctx.words[:, :n].astype(np.float32)) / ctx.scale
            into = _advanced((came @ weight.T).reshape(batch, steps, channels) * effect, delay)
        if wants_in:
            grad_in = of_weights(events, delay, effect)
        if wants_rec:
            # What is late in the output was sent before.
            sent = inputs_of(out, form.output_bits > 0).by_channel
            grad_rec = of_weights(sent, delay_rec + np.int32(1 - late), effect_rec)
        return (
            None if into is None else into.to(grad.dtype),
            grad_in,
            grad_rec,
            torch.from_numpy(grad_bias.sum(axis=0)[:n]) if wants_bias else None,
            None,
            None,
        )


def _parts(senders: int) -> int:
    """Into how many parts senders are divided: one a thread, of rows that stay in a near cache."""
    return max(1, -(-senders // _NEAR), min(torch.get_num_threads(), senders // _FEW))


def _rounded(values: np.ndarray, kind: Any) -> np.ndarray:
    return np.rint(values) if np.dtype(kind).kind == "i" else values


def _rows(weight: torch.Tensor, lanes: int, scale: float, kind: type) -> np.ndarray:
    """(pre, lanes) of a weight (post, pre)."""
    rows: np.ndarray = np.zeros((weight.shape[1], lanes), kind)
    rows[:, : weight.shape[0]] = _rounded(weight.detach().numpy().T * np.float32(scale), kind)
    return rows


def _advanced(grad: torch.Tensor, delay: np.ndarray) -> torch.Tensor:
    """(B, T, C) with channel j earlier by ``delay[j]``."""
    if not delay.any():
        return grad
    moved = torch.zeros_like(grad)
    for one in np.unique(delay):
        which = torch.from_numpy(delay == one)
        steps = grad.shape[1] - int(one)
        if steps > 0:
            moved[:, :steps, which] = grad[:, int(one) :, which]
    return moved


class SpikingRecurrentCell(torch.nn.Module):
    """Layer of bistable cells with a slow negative feedback, whose output is a spike.

    .. math::
        i[t] &= \\alpha i[t-1] + W x[t - d] + R s[t - 1 - d_r] \\\\
        h[t] &= \\tanh(\\rho \\tanh(i[t] / \\rho) + 2 h[t-1] - 7 h_s[t-1] + b_h) \\\\
        h_s[t] &= z_s h_s[t-1] + (1 - z_s) h[t-1], \\quad
            z_s = 0.9 \\text{ where } h[t-1] \\le 0.5, \\text{ else } 0 \\\\
        s[t] &= h[t] \\ge 0.5

    in integers (one is 4096; tanh is a parabola, see :func:`fixedpoint.src_step`), from
    the state of rest.
    De Geeter, Ernst, Drion, arXiv 2306.03623, equations 5a to 5f; alpha 0.9, rho 3. In the backward pass
    h[t-1] and h_s[t-1] are constants, ds/dh is 1, ``dh/dp = max(0, 1 - |p|/2)`` and
    ``dx/di = max(0, 1 - |i|/(2 rho))``: the gradient runs through i.

    Input and output are NCT tensors, the input of any type; the output is late by one step
    (``delay_shift``), as that of every SLAYER block.

    Args:
        neuron_params: ``bias`` (b_h before training, -6), ``current_decay`` (1 - alpha, 0.1), ``squash`` (x
            of i: parabola, clip or sign), ``activation`` (h of p: parabola, or clip: 3p/4), ``slow`` (minus
            r_s, 7), ``requires_grad`` (of b_h).
        in_neurons, out_neurons: number of neurons.
        delay: axonal delay of the senders, steps, one integer or one for each input, >= 0.
        recurrent_delay: axonal delay of recurrent synapses, one integer or one per neuron; None: the cells
            are not connected with each other.
        weight_scale: as for SLAYER's synapses.
        weight_bits: of the weight words, 2 to 8, a sign included.
        weight_exp: e: a weight word w stands for ``w / 64 * 2**-e``.
        in_exp: fraction bits of the payloads that come in; spikes have 0.
        output_bits: g, fraction bits of the payload ``h 2**g`` that is sent; 0: a spike. None (floats only):
            h itself, where above 0.
        mode: "integer", or "float": the paper's equations in float32 with unquantised weights, for
            comparison only.
        gate: float only: "step", or the steepness of a sigmoid that stands for it.
        self_connection: False holds the diagonal of recurrent weights at zero.
        feedback_grad: factor on the gradient along recurrent synapses.
        delay_shift, count_log: as for SLAYER's blocks.

    Attributes:
        bias: parameter (out,), b_h; kept from -8 to :func:`bias_max`, where the cell is silent without input.
        overflows: int64 (2,), how often i saturated in the last forward pass, and 0.
    """

    _entry = "synapse"

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: int,
        out_neurons: int,
        delay: int | Sequence[int] | np.ndarray = 0,
        recurrent_delay: int | Sequence[int] | np.ndarray | None = None,
        weight_scale: float = 1,
        weight_bits: int = 8,
        weight_exp: int = 0,
        in_exp: int = 0,
        output_bits: int | None = 0,
        mode: str = "integer",
        gate: str | float = "step",
        self_connection: bool = False,
        feedback_grad: float = 1.0,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        unknown = sorted(set(neuron_params) - set(_DEFAULTS))
        if unknown:
            raise InputError(
                f"{where}: neuron_params", f"has {', '.join(unknown)}", f"known: {', '.join(_DEFAULTS)}"
            )
        params = _DEFAULTS | neuron_params
        _check(
            where, params, weight_bits=weight_bits, weight_exp=weight_exp, in_exp=in_exp,
            output_bits=output_bits, mode=mode, gate=gate,
        )  # fmt: skip
        if mode == "integer" and recurrent_delay is not None and in_exp != output_bits:
            raise InputError(
                f"{where}: in_exp",
                f"is {in_exp} and output_bits {output_bits}; both sums of a recurrent layer have one scale",
                "give them the same number of bits, or no recurrent_delay",
            )
        self.input_decay = round(params["current_decay"] * fx.DECAY_ONE)
        self.squash, self.activation, self.slow = params["squash"], params["activation"], params["slow"]
        self.weight_bits, self.weight_exp, self.in_exp = weight_bits, weight_exp, in_exp
        self.output_bits, self.mode, self.gate = output_bits, mode, gate
        self.self_connection, self.feedback_grad = self_connection, float(feedback_grad)
        self.delay_shift, self.count_log, self.want_spikes = delay_shift, count_log, True
        self._graded = mode == "float"  # or payloads came in; most likely they do again
        self.overflows = torch.zeros(2, dtype=torch.int64)
        self.synapse = Synapse(in_neurons, out_neurons, weight_scale)
        self.bias = torch.nn.Parameter(
            torch.full((out_neurons,), float(params["bias"])), requires_grad=params["requires_grad"]
        )
        self.register_buffer("delay", torch.from_numpy(delays_of(delay, in_neurons, where)))
        self.recurrent_synapse: torch.nn.Module | None = None
        if recurrent_delay is not None:
            self.recurrent_synapse = Synapse(out_neurons, out_neurons, weight_scale)
            delays = delays_of(recurrent_delay, out_neurons, where)
            self.register_buffer("recurrent_delay", torch.from_numpy(delays))
        self.register_buffer("off_diagonal", 1 - torch.eye(out_neurons), persistent=False)

    def options(self) -> dict[str, Any]:
        """What makes the block again, beside its sizes and its tensors; plain values."""
        names = (
            "weight_bits", "weight_exp", "in_exp", "output_bits", "mode", "gate", "self_connection",
            "feedback_grad", "delay_shift",
        )  # fmt: skip
        neuron = {name: getattr(self, name) for name in ("squash", "activation", "slow")}
        neuron |= {
            "current_decay": self.input_decay / fx.DECAY_ONE, "requires_grad": self.bias.requires_grad
        }  # fmt: skip
        recurrent = self.recurrent_synapse is not None
        return {name: getattr(self, name) for name in names} | {"recurrent": recurrent, "neuron": neuron}

    def form(self) -> fx.SrcForm:
        """What the loops must know."""
        bits = -1 if self.output_bits is None else self.output_bits
        shift = fx.STATE_SHIFT - self.in_exp - self.weight_exp
        squash, activation = fx.SRC_SQUASHES[self.squash], fx.SRC_ACTIVATIONS[self.activation]
        return fx.SrcForm(shift, self.input_decay, squash, activation, self.slow, bits)

    def sends_spikes(self) -> bool:
        """Whether what it sends is spikes, whose bits say all."""
        return self.mode == "integer" and self.output_bits == 0

    def wants_numbers(self) -> bool:
        """Whether somebody reads the numbers of the output tensor: see :func:`nn.blocks.leave_as_bits`."""
        ours = self.count_log or self.recurrent_synapse is not None
        return self.want_spikes or ours or not self.sends_spikes()

    def sum_type(self, largest: float) -> np.dtype:
        """Type of synaptic sums for inputs of at most this magnitude."""
        inputs = int(largest) * self.synapse.weight.shape[1]
        recurrent = 0 if self.recurrent_synapse is None else len(self.bias) << (self.output_bits or 0)
        return sum_type((inputs + recurrent) * -fx.WEIGHT_MIN, self.form().shift)

    def effect(self, payload_exp: int) -> float:
        """What a stored weight of 1.0 adds to i with a payload of 1 of so many fraction bits."""
        return 2.0 ** -(self.weight_exp + payload_exp)

    def delay_of(self, channels: int) -> np.ndarray:
        """int32 (channels,), of the inputs."""
        return np.ascontiguousarray(self.delay.cpu().numpy(), np.int32)

    def recurrent_delay_of(self, neurons: int, w_rec: torch.Tensor | None) -> np.ndarray:
        """int32 (neurons,), of recurrent synapses; empty without."""
        if w_rec is None:
            return np.zeros(0, np.int32)
        return np.ascontiguousarray(self.recurrent_delay.cpu().numpy(), np.int32)

    def start(self, bias: np.ndarray) -> np.ndarray:
        """(3, P): i, h and h_s of the step before the first one with input."""
        if bias.dtype.kind != "i":
            return rest(bias, self.form(), SETTLE + 1)
        return _rests(self.form()).take(bias - fx.SRC_BIAS_MIN, axis=1)

    def _matrix(self, of: torch.nn.Module) -> torch.Tensor:
        weight = of.weight.reshape(of.weight.shape[:2])
        return weight if self.mode == "float" else quantize(weight, self.weight_bits)

    def input_matrix(self) -> torch.Tensor:
        """Weights (post, pre) in SLAYER's units, quantised where the mode is integer."""
        return self._matrix(self.synapse)

    def recurrent_matrix(self) -> torch.Tensor | None:
        """The same of recurrent synapses; None: there are none."""
        if self.recurrent_synapse is None:
            return None
        weight = self._matrix(self.recurrent_synapse)
        return weight if self.self_connection else weight * self.off_diagonal

    def clamp(self) -> None:
        """Keep b_h in the silent range, and shadow weights where their words can follow.

        Those of integer inputs are held where their words are made.
        """
        bias = self.bias.detach().numpy()
        np.maximum(bias, np.float32(BIAS_MIN), out=bias)
        np.minimum(bias, np.float32(bias_max(self.activation, self.slow)), out=bias)
        for synapse in (self.synapse if self.mode == "float" else None, self.recurrent_synapse):
            if synapse is not None:
                weight = synapse.weight.detach().numpy()
                self.hold(weight, np.abs(weight).max())

    def hold(self, weight: np.ndarray, largest: float) -> None:
        """Bring weights back to where words can follow them, where the largest magnitude has left it.

        Raises:
            InputError: there are some that are not finite.
        """
        most = -fx.WEIGHT_MIN / fx.WEIGHT_SCALE
        if not math.isfinite(largest):
            raise InputError(
                f"{type(self).__name__}: weights", "are not all finite", "train with a smaller lr"
            )
        if largest > most:
            np.clip(weight, -most, most, out=weight)

    @property
    def threshold(self) -> float:
        """Input a step, in units of the stored weights, that makes a cell of b_h = -6 fire when it lasts."""
        return FIRES * self.input_decay / fx.DECAY_ONE * 2.0**self.weight_exp

    @property
    def shape(self) -> torch.Size:
        """Shape of the block's output, without batch and time."""
        return self.bias.shape

    def forward(self, x: torch.Tensor) -> Any:
        """Spikes or payloads (N, out, T) for an input (N, in, T); with ``count_log`` also their mean.

        The tensor carries their sum at each step as its attribute ``population``, (N, T).

        Raises:
            InputError: an input of another shape, on another device, or in integer mode one of fractions.
        """
        where, channels = type(self).__name__, self.synapse.weight.shape[1]
        if x.device.type != "cpu":
            raise InputError(f"{where}: input", f"is on {x.device}", "this layer runs on the CPU")
        if x.ndim != 3 or x.shape[1] != channels:
            raise InputError(f"{where}: input", f"has shape {tuple(x.shape)}, expected (N, {channels}, T)")
        inputs = inputs_of(numbers_of(x.transpose(1, 2)), self._graded)
        if inputs.by_step.value.shape[1] and not self._graded:  # a module's attributes are slow to set
            self._graded = True
        if self.mode == "integer":
            if inputs.fractions:
                raise InputError(f"{where}: input", "holds fractions", "give spikes or whole numbers")
            if not inputs.largest < 1 << fx.PAYLOAD_BITS_MAX:
                most = f"a payload has at most {fx.PAYLOAD_BITS_MAX} bits"
                raise InputError(f"{where}: input", f"holds {inputs.largest:g}, {most}", "scale it down")
        self.clamp()
        weight = self.synapse.weight.reshape(self.synapse.weight.shape[:2])
        out, self.overflows, fired = _Cell.apply(
            x.transpose(1, 2), weight, self.recurrent_matrix(), self.bias, inputs, self
        )
        out = out.transpose(1, 2)
        if self.sends_spikes():
            late = int(self.delay_shift)
            population = torch.zeros(out.shape[0], out.shape[2])
            spikes.count(fired.numpy().view(np.uint64), late, population.numpy())
            out.population = population  # type: ignore[attr-defined]
            out.spike_bits = SpikeBits(fired, late), out._version  # type: ignore[attr-defined]
        else:
            out.population = out.sum(dim=1)  # type: ignore[attr-defined]
        return (out, (out > 0).to(out.dtype).mean()) if self.count_log else out


@lru_cache(maxsize=8)
def _rests(form: fx.SrcForm) -> np.ndarray:
    """:func:`rest` before the first step, int32 (3, N), of every b_h from the smallest on."""
    kind = next(name for name, number in fx.SRC_ACTIVATIONS.items() if number == form.activation)
    levels = np.arange(fx.SRC_BIAS_MIN, fx.SRC_BIAS_MAX[kind, form.slow] + 1, dtype=np.int32)
    return rest(levels, form, SETTLE + 1)


def rest(bias: np.ndarray, form: fx.SrcForm, steps: int = SETTLE) -> np.ndarray:
    """(3, N) of the type of ``bias``: i, h and h_s after silent steps from h = h_s = -1.

    Args:
        bias: int32 (N,), one is 4096, or float32.
    """
    if bias.dtype.kind == "i":
        # The loops want rows filled up; cells of the smallest b_h are as good as any.
        level = np.full(padded(len(bias)), fx.SRC_BIAS_MIN, np.int32)
        level[: len(bias)] = bias
        state = np.zeros((3, len(level)), np.int32)
        state[1:] = -fx.DECAY_ONE
        src_training.settle(level, form, state, steps)
        return np.ascontiguousarray(state[:, : len(bias)])
    h = np.full_like(bias, -1)
    slow = h.copy()
    for _ in range(steps):
        p = 2 * h - form.slow * slow + bias
        share = np.where(h > 0.5, 0.0, 0.9).astype(bias.dtype)
        slow, h = share * slow + (1 - share) * h, np.tanh(p)
    return np.stack([np.zeros_like(bias), h, slow])


def _check(where: str, params: dict[str, Any], **options: Any) -> None:
    """Refuse what a cell cannot be."""
    ranges = {"weight_bits": (2, 8), "weight_exp": (-6, 12), "in_exp": (0, 24), "output_bits": (0, 8)}
    for name, (low, high) in ranges.items():
        value = options[name]
        if name == "output_bits" and value is None:
            continue
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{where}: {name}", f"is {value!r}, expected a whole number of {low} to {high}")
    choices = {"squash": fx.SRC_SQUASHES, "activation": fx.SRC_ACTIVATIONS, "slow": fx.SRC_SLOW}
    for name, table in choices.items():
        if params[name] not in table:
            raise InputError(
                f"{where}: {name}", f"is {params[name]!r}, expected one of {', '.join(map(str, table))}"
            )
    if options["mode"] not in ("integer", "float"):
        raise InputError(f"{where}: mode", f"is {options['mode']!r}, expected integer or float")
    if options["mode"] == "integer" and (options["output_bits"] is None or options["gate"] != "step"):
        raise InputError(where, "has output_bits None or a gate, which are of floats", "use mode='float'")
    most = bias_max(params["activation"], params["slow"])
    if not BIAS_MIN <= params["bias"] <= most:
        raise InputError(
            f"{where}: bias", f"is {params['bias']}, expected {BIAS_MIN} to {most}",
            "above, such a cell fires without input",
        )  # fmt: skip
    if not 0 <= params["current_decay"] <= 1:
        raise InputError(f"{where}: current_decay", f"is {params['current_decay']}, expected 0 to 1")
