"""SLAYER blocks over the fused kernels: delayed recurrence, and a readout that never spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from lava.lib.dl.slayer.neuron import cuba
from lava.lib.dl.slayer.synapse import layer as synapse
from lava.lib.dl.slayer.utils.quantize import quantize

from delaynet_lava import fixedpoint, network, netx
from delaynet_lava.errors import InputError
from delaynet_lava.kernels.autograd import SpikeBits, delayed_recurrence
from delaynet_lava.kernels.dynamics import SURROGATES, Dynamics

__all__ = ["DelayRecurrent", "Neuron", "Readout"]


class Neuron(cuba.Neuron):
    """SLAYER's CUBA neuron with a threshold that can be trained.

    ``vth`` is a parameter in SLAYER's units; the threshold in use is ``floor(64 vth) / 64``, as
    SLAYER rounds it. ``requires_grad`` of the neuron parameters covers it and both decays.

    Attributes:
        membrane_bits, full_scale_exp: the membrane's word, as of :class:`network.Neuron`; parameters
            of the same names, 24 and 23 unless given.
    """

    def __init__(
        self,
        membrane_bits: int = fixedpoint.MEMBRANE_BITS,
        full_scale_exp: int = fixedpoint.FULL_SCALE_EXP,
        **params: Any,
    ) -> None:
        super().__init__(**params)
        checked = network.Neuron(0, 0, 0, membrane_bits=membrane_bits, full_scale_exp=full_scale_exp)
        self.membrane_bits, self.full_scale_exp = checked.membrane_bits, checked.full_scale_exp
        self.tau_grad, self.scale_grad = float(params.get("tau_grad", 1)), float(params.get("scale_grad", 1))
        self.register_parameter(
            "vth",
            torch.nn.Parameter(torch.tensor([self._threshold]), requires_grad=self.requires_grad),
        )

    @property
    def threshold(self) -> float:
        """Threshold in SLAYER's units, a multiple of 1/64."""
        return int(float(self.vth) * self.w_scale) / self.w_scale

    def clamp(self) -> None:
        """Keep the decays in 0 to 4096, the threshold in the chip's 17 bits and within a membrane's reach."""
        super().clamp()
        if hasattr(self, "vth"):
            reach = (1 << self.full_scale_exp >> fixedpoint.STATE_SHIFT) - 1
            with torch.no_grad():
                self.vth.clamp_(1 / self.w_scale, max(1, min(fixedpoint.VTH_MAX, reach)) / self.w_scale)


def _neuron(params: dict[str, Any], where: str) -> Neuron:
    """Build the neuron, refusing the SLAYER options that the fused kernels do not run."""
    for key, plain in (("norm", None), ("dropout", None), ("graded_spike", False)):
        if params.get(key, plain) not in (None, plain):
            raise InputError(f"{where}: neuron_params[{key!r}]", "is not supported", "leave it out")
    if not params.get("shared_param", True):
        raise InputError(
            f"{where}: neuron_params['shared_param']",
            "is False, but the chip's LIF has one decay for all neurons of a layer",
            "use shared_param=True",
        )
    if params.get("scale", fixedpoint.WEIGHT_SCALE) != fixedpoint.WEIGHT_SCALE:
        raise InputError(
            f"{where}: neuron_params['scale']", f"is {params['scale']}, expected 64", "leave it out"
        )
    return Neuron(**params)


class _Block(torch.nn.Module):
    """What both blocks share: quantised weights as (post, pre), the shift by one step, logging."""

    def __init__(self, delay_shift: bool, count_log: bool) -> None:
        super().__init__()
        self.delay_shift, self.count_log = delay_shift, count_log
        self.overflows = torch.zeros(2, dtype=torch.int64)

    def _matrix(self, of: torch.nn.Module) -> torch.Tensor:
        # Through __call__ a weight-normed synapse would refresh its weight; here nobody calls it.
        for hook in of._forward_pre_hooks.values():
            hook(of, None)
        weight = of.weight if of.pre_hook_fx is None else of.pre_hook_fx(of.weight)
        words = weight.detach() * fixedpoint.WEIGHT_SCALE
        if not torch.equal(words, words.round()):
            raise InputError(
                f"{type(self).__name__}: pre_hook_fx",
                "leaves weights that are not multiples of 1/64 (or not numbers)",
                "use the neuron's quantize_8bit, the default",
            )
        return weight.reshape(weight.shape[:2])

    def _input(self, x: torch.Tensor, of: torch.nn.Module) -> tuple[torch.Tensor, SpikeBits | None]:
        """Input as (batch, steps, channels), checked, and its bits where the block before left them."""
        where = type(self).__name__
        if x.device != of.weight.device:
            raise InputError(f"{where}: input", f"is on {x.device}, the weights on {of.weight.device}")
        if x.device.type not in ("cpu", "cuda"):
            raise InputError(f"{where}: input", f"is on {x.device}", "the kernels run on cpu and cuda")
        if x.ndim != 3 or x.shape[1] != of.weight.shape[1]:
            shape = tuple(x.shape)
            raise InputError(f"{where}: input", f"has shape {shape}, expected (N, {of.weight.shape[1]}, T)")
        bits, version = getattr(x, "spike_bits", (None, None))
        # Changed in place, the tensor is no longer what the bits say.
        return x.transpose(1, 2), bits if version == x._version else None

    def _emit(self, y: torch.Tensor, log: Callable[[torch.Tensor], Any]) -> Any:
        return (y, log(y)) if self.count_log else y

    def _integers(self, of: torch.nn.Module) -> np.ndarray:
        words = torch.round(self._matrix(of).detach() * fixedpoint.WEIGHT_SCALE)
        return words.cpu().numpy().astype(np.int64)

    def _neuron_integers(self, vth: int, reset: str = "zero") -> network.Neuron:
        neuron = self.neuron
        return network.Neuron(
            vth,
            int(neuron.cx_current_decay),
            int(neuron.cx_voltage_decay),
            reset=reset,
            membrane_bits=neuron.membrane_bits,
            full_scale_exp=neuron.full_scale_exp,
        )

    def export_hdf5(self, handle: h5py.Group) -> None:
        """Write the layer's NetX keys into an HDF5 group, as every SLAYER block does."""
        netx.write_layer(handle, self.layer())

    @property
    def shape(self) -> torch.Size:
        """Shape of the block's output, without batch and time."""
        return self.neuron.shape


class DelayRecurrent(_Block):
    """Recurrent CUBA layer whose own spikes come back after ``1 + delay`` steps.

    .. math::
        a_i[t] &= \\sum_j W_{ij} x_j[t] + \\sum_j R_{ij} s_j[t - 1 - d_j] \\\\
        u[t] &= (1 - \\alpha_u) u[t-1] + a[t] \\\\
        v[t] &= (1 - \\alpha_v) v[t-1] + u[t] \\\\
        s[t] &= v[t] > \\vartheta, \\quad v[t] \\leftarrow 0 \\text{ or } v[t] - \\vartheta

    in the integers of :mod:`delaynet_lava.fixedpoint`. With all delays 0 and the reset to zero the
    forward pass is that of ``slayer.block.cuba.Recurrent``, except that each call starts from rest
    (SLAYER's keeps its state from one call to the next where the batch size stays the same) and
    that the comparison with the threshold stays strict above 64 (SLAYER's rounding loses it).

    Input and output are NCT tensors; the output is shifted by one step (``delay_shift``), as that
    of every SLAYER block, which makes it the spikes of Lava at the same step.

    Args:
        neuron_params: as for SLAYER's CUBA neuron: ``threshold``, ``current_decay``,
            ``voltage_decay``, ``tau_grad``, ``scale_grad``, ``requires_grad`` (decays and threshold);
            ``membrane_bits`` and ``full_scale_exp`` for a membrane of fewer bits, to whose rounding
            and clipping the gradient is blind.
        in_neurons, out_neurons: number of neurons.
        delay: axonal delay of the recurrent connections, one integer or one per neuron, >= 0.
        weight_scale, weight_norm, pre_hook_fx: as for SLAYER's synapses; the hook defaults to the
            neuron's 8-bit quantisation.
        self_connection: False holds the diagonal of the recurrent weights at zero.
        reset: "zero" (the chip) or "subtract" (the paper's soft reset; simulator only).
        surrogate: "paper": ``scale_grad / w * clip(1 + (v - th) / w, 0, 1)`` with
            ``w = tau_grad * th`` (the paper's own: threshold 0.72, w = 1); "slayer": SLAYER's
            decaying exponential; "triangle": ``scale_grad / w * clip(1 - |v - th| / w, 0, 1)``, that of
            the LSNN, under which neurons far above threshold pass no gradient on.
        reset_grad: factor on the gradient through the reset; None: 1, or 0 for SLAYER's surrogate, which
            does not differentiate it.
        feedback_grad: factor on the gradient along recurrent synapses; 1 is exact, less damps the
            explosion over thousands of steps.
        membrane_grad: False cuts the gradient along u and v at each step, as SLAYER's block does.
        recompute: compute membranes again in the backward pass, a piece of time at a time, instead of
            keeping them: the same integers, less memory; None: where they would take 512 MiB.
        delay_shift, count_log: as for SLAYER's blocks.

    Attributes:
        overflows: int64 (2,), how often u wrapped and v saturated in the last forward pass.
    """

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: int,
        out_neurons: int,
        delay: int | Sequence[int] | np.ndarray = 0,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable | None = None,
        self_connection: bool = True,
        reset: str = "zero",
        surrogate: str = "paper",
        reset_grad: float | None = None,
        feedback_grad: float = 1.0,
        membrane_grad: bool = True,
        recompute: bool | None = None,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__(delay_shift, count_log)
        where = type(self).__name__
        if reset not in network.RESETS:
            raise InputError(f"{where}: reset", f"is {reset!r}, expected one of {list(network.RESETS)}")
        if surrogate not in SURROGATES:
            raise InputError(f"{where}: surrogate", f"is {surrogate!r}, expected one of {list(SURROGATES)}")
        self.neuron = _neuron(neuron_params, where)
        self.neuron.shape = torch.Size([out_neurons])
        self.input_synapse = synapse.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.recurrent_synapse = synapse.Dense(out_neurons, out_neurons, weight_scale, weight_norm)
        for part in (self.input_synapse, self.recurrent_synapse):
            part.pre_hook_fx = pre_hook_fx or self.neuron.quantize_8bit
        self.register_buffer("delay", torch.from_numpy(_delays(delay, out_neurons, where)))
        self.self_connection, self.reset, self.surrogate = self_connection, reset, surrogate
        self.reset_grad = float(surrogate != "slayer") if reset_grad is None else float(reset_grad)
        self.feedback_grad, self.membrane_grad = float(feedback_grad), bool(membrane_grad)
        self.recompute, self.want_voltage = recompute, False
        self.voltage: torch.Tensor | None = None
        if not self_connection:
            self.register_buffer("off_diagonal", 1 - torch.eye(out_neurons), persistent=False)

    def recurrent_matrix(self) -> torch.Tensor:
        """Quantised recurrent weights (post, pre) in SLAYER's units."""
        weight = self._matrix(self.recurrent_synapse)
        return weight if self.self_connection else weight * self.off_diagonal

    def input_matrix(self) -> torch.Tensor:
        """Quantised input weights (post, pre) in SLAYER's units."""
        return self._matrix(self.input_synapse)

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with."""
        back = self._integers(self.recurrent_synapse)
        if not self.self_connection:
            np.fill_diagonal(back, 0)
        # Axonal: the delay belongs to the sender, so it is constant down each column.
        delay = np.broadcast_to(self.delay.cpu().numpy(), back.shape)
        return network.Dense(
            network.Synapse(self._integers(self.input_synapse)),
            self._neuron_integers(self.neuron.v_th_mant, self.reset),
            network.Synapse(back, delay),
        )

    def _dynamics(self) -> Dynamics:
        width = self.neuron.tau_grad * self.neuron.threshold
        height = self.neuron.scale_grad / width
        if self.surrogate == "slayer":
            width *= cuba.TAU_RHO_MULT
            height *= cuba.SCALE_RHO_MULT / cuba.TAU_RHO_MULT / 2
        return Dynamics(
            delay=self.delay.cpu().numpy(),
            reset=network.RESETS[self.reset],
            surrogate=SURROGATES[self.surrogate],
            width=width,
            height=height,
            reset_grad=self.reset_grad,
            feedback_grad=self.feedback_grad,
            membrane_grad=float(self.membrane_grad),
            want_voltage=self.want_voltage,
            recompute=self.recompute,
            membrane_bits=self.neuron.membrane_bits,
            full_scale_exp=self.neuron.full_scale_exp,
            shift=int(self.delay_shift),
        )

    def forward(self, x: torch.Tensor) -> Any:
        """Spikes (N, out, T) for an input (N, in, T); with ``count_log`` also their mean."""
        self.neuron.clamp()
        x, bits = self._input(x, self.input_synapse)
        result = delayed_recurrence(
            x,
            self.input_matrix(),
            self.recurrent_matrix(),
            quantize(self.neuron.current_decay),
            quantize(self.neuron.voltage_decay),
            self.neuron.vth,
            self._dynamics(),
            bits=bits,
        )
        self.overflows = result.overflows
        self.voltage = result.voltage.transpose(1, 2) if self.want_voltage else None
        spikes = result.spikes.transpose(1, 2)
        spikes.spike_bits = result.bits, spikes._version  # type: ignore[attr-defined]
        return self._emit(spikes, lambda y: torch.mean((y > 0).to(y.dtype)))


def _delays(delay: int | Sequence[int] | np.ndarray, neurons: int, where: str) -> np.ndarray:
    values = np.asarray(delay)
    if values.dtype.kind not in "iu" or values.ndim > 1 or values.size not in (1, neurons):
        raise InputError(
            f"{where}: delay",
            f"has type {values.dtype} and shape {values.shape}",
            f"give one integer, or one for each of the {neurons} neurons",
        )
    if values.min() < 0:
        raise InputError(f"{where}: delay", f"{int(values.min())} is negative", "the fastest path is 0")
    return np.ascontiguousarray(np.broadcast_to(values, (neurons,)), dtype=np.int32)


class Readout(_Block):
    """Leaky integrators that never spike; the membrane is the output, the decision its argmax.

    ``slayer.block.cuba.Affine`` over the fused kernel, with the shift by one step that Affine
    lacks: the value at step t is the one that Lava and the chip hold at step t.

    Args:
        neuron_params: ``threshold`` may be left out; it has no effect.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx: as for ``cuba.Affine``.
    """

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable | None = None,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__(delay_shift, count_log)
        self.neuron = _neuron({"threshold": 1.0, **neuron_params}, type(self).__name__)
        self.neuron.vth.requires_grad_(False)
        self.neuron.shape = torch.Size([out_neurons])
        self.synapse = synapse.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.synapse.pre_hook_fx = pre_hook_fx or self.neuron.quantize_8bit

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with; the threshold is the chip's largest."""
        synapse = network.Synapse(self._integers(self.synapse))
        return network.Dense(synapse, self._neuron_integers(fixedpoint.VTH_MAX))

    def forward(self, x: torch.Tensor) -> Any:
        """Membrane (N, out, T) in SLAYER's units for an input (N, in, T)."""
        self.neuron.clamp()
        x, bits = self._input(x, self.synapse)
        result = delayed_recurrence(
            x,
            self._matrix(self.synapse),
            None,
            quantize(self.neuron.current_decay),
            quantize(self.neuron.voltage_decay),
            self.neuron.vth,
            Dynamics(
                delay=np.zeros(self.synapse.weight.shape[0], np.int32),
                spiking=False,
                membrane_bits=self.neuron.membrane_bits,
                full_scale_exp=self.neuron.full_scale_exp,
            ),
            bits=bits,
        )
        self.overflows = result.overflows
        voltage = result.voltage.transpose(1, 2)
        if self.delay_shift:
            voltage = F.pad(voltage, (1, -1))
        return self._emit(voltage, lambda y: None)
