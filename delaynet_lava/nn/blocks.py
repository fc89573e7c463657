"""What the fused SLAYER blocks have in common: neuron, quantised weights, and the call of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import torch

from delaynet_lava import fixedpoint, network
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.kernels.autograd import Outcome, delayed_recurrence
from delaynet_lava.kernels.dynamics import SURROGATES, Dynamics
from delaynet_lava.kernels.tensors import SpikeBits, float_type
from delaynet_lava.neuron import RESETS
from delaynet_lava.nn.axon import Axon
from delaynet_lava.nn.parts import SURROGATE_HEIGHT, SURROGATE_WIDTH, Cuba, Synapse, hold

__all__ = ["Neuron", "leave_as_bits"]


class Neuron(Cuba):
    """SLAYER's CUBA neuron with a threshold that can be trained.

    ``vth`` is a parameter in SLAYER's units; the threshold in use is ``floor(64 vth) / 64``, as
    SLAYER rounds it. ``requires_grad`` of the neuron parameters covers it and both decays.

    Attributes:
        membrane_bits, full_scale_exp: the membrane's word, as of :class:`network.Neuron`; parameters
            of the same names, 24 and 23 unless given.
        v_start, u_start: int32 arrays, membrane and current before the first input acts, integers (1.0
            is 4096); parameters of the same names, 0 unless given.
    """

    def __init__(
        self,
        membrane_bits: int = fixedpoint.MEMBRANE_BITS,
        full_scale_exp: int = fixedpoint.FULL_SCALE_EXP,
        v_start: int | Sequence[int] | np.ndarray = 0,
        u_start: int | Sequence[int] | np.ndarray = 0,
        **params: Any,
    ) -> None:
        super().__init__(**params)
        checked = network.Neuron(
            0, 0, 0, membrane_bits=membrane_bits, full_scale_exp=full_scale_exp,
            v_init=np.asarray(v_start), u_init=np.asarray(u_start),
        )  # fmt: skip
        self.membrane_bits, self.full_scale_exp = checked.membrane_bits, checked.full_scale_exp
        self.v_start, self.u_start = checked.v_init, checked.u_init
        self.register_parameter(
            "vth",
            torch.nn.Parameter(torch.tensor([self._threshold]), requires_grad=self.requires_grad),
        )

    def initial(self, size: int) -> tuple[np.ndarray, np.ndarray] | None:
        """int32 (size,) each, current and membrane before the first input acts; None: at rest."""
        if not (self.u_start.any() or self.v_start.any()):
            return None
        return np.broadcast_to(self.u_start, (size,)), np.broadcast_to(self.v_start, (size,))

    @property
    def threshold(self) -> float:
        """Threshold in SLAYER's units, a multiple of 1/64."""
        return int(float(self.vth.detach()) * self.w_scale) / self.w_scale

    def clamp(self) -> None:
        """Keep the decays in 0 to 4096, the threshold in the chip's 17 bits and within a membrane's reach."""
        super().clamp()
        vth = self._parameters.get("vth")
        if vth is not None:
            reach = (1 << self.full_scale_exp >> fixedpoint.STATE_SHIFT) - 1
            hold(vth, 1 / self.w_scale, max(1, min(fixedpoint.VTH_MAX, reach)) / self.w_scale)


# What SLAYER's neuron takes beside ours. Our blocks start from rest, whatever persistent_state says.
_PLAIN = ("norm", "dropout", "graded_spike", "shared_param", "scale", "persistent_state")


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
    ours = {key: value for key, value in params.items() if key not in _PLAIN}
    return Neuron(**ours)


class _Block(torch.nn.Module):
    """Neurons behind one synapse: weights as (post, pre), checked input, the kernels, logging."""

    _entry = "synapse"  # the attribute, and with it the prefix in a state_dict, of the input's synapse

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: int,
        out_neurons: int,
        weight_scale: float,
        weight_norm: bool,
        pre_hook_fx: Callable | None,
        delay_shift: bool,
        count_log: bool,
        axon: Axon | None,
    ) -> None:
        super().__init__()
        if axon is not None and axon.delay.shape != (in_neurons,):
            where = f"{type(self).__name__}: axon"
            raise InputError(where, f"has delays of {len(axon.delay)} senders for {in_neurons} inputs")
        self.axon = axon
        self.delay_shift, self.count_log = delay_shift, count_log
        self.overflows = torch.zeros(2, dtype=torch.int64)
        self.neuron = _neuron(neuron_params, type(self).__name__)
        self.neuron.shape = torch.Size([out_neurons])
        for state in (self.neuron.v_start, self.neuron.u_start):
            network.Neuron(0, 0, 0, v_init=state).require_size(out_neurons)
        into = Synapse(in_neurons, out_neurons, weight_scale, weight_norm)
        into.pre_hook_fx = pre_hook_fx or self.neuron.quantize_8bit
        self.add_module(self._entry, into)

    def input_matrix(self) -> torch.Tensor:
        """Quantised input weights (post, pre) in SLAYER's units."""
        return self._matrix(getattr(self, self._entry))

    def recurrent_matrix(self) -> torch.Tensor | None:
        """Quantised recurrent weights (post, pre) in SLAYER's units; None: nothing comes back."""
        return None

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with."""
        raise NotImplementedError

    def _dynamics(self) -> Dynamics:
        raise NotImplementedError

    def _learned_delay(self) -> torch.Tensor | None:
        """Delays of the recurrence that are trained; None: they are not."""
        return None

    def _run(self, x: torch.Tensor) -> Outcome:
        self.neuron.clamp()
        x, bits = self._input(x)
        result = delayed_recurrence(
            x,
            self.input_matrix(),
            self.recurrent_matrix(),
            self.neuron.current_decay,
            self.neuron.voltage_decay,
            self.neuron.vth,
            self._dynamics(),
            bits=bits,
            delay=self._learned_delay(),
        )
        self.overflows = result.overflows
        return result

    def _matrix(self, of: torch.nn.Module) -> torch.Tensor:
        # Through __call__ a weight-normed synapse would refresh its weight; here nobody calls it.
        for hook in of._forward_pre_hooks.values():
            hook(of, None)
        weight = of.weight if of.pre_hook_fx is None else of.pre_hook_fx(of.weight)
        if of.pre_hook_fx != self.neuron.quantize_8bit:
            words = weight.detach() * fixedpoint.WEIGHT_SCALE
            if not torch.equal(words, words.round()):
                raise InputError(
                    f"{type(self).__name__}: pre_hook_fx",
                    "leaves weights that are not multiples of 1/64 (or not numbers)",
                    "use the neuron's quantize_8bit, the default",
                )
        return weight.reshape(weight.shape[:2])

    def _input(self, x: torch.Tensor) -> tuple[torch.Tensor, SpikeBits | None]:
        """Input as (batch, steps, channels), checked, and its bits where the block before left them."""
        where, weight = type(self).__name__, getattr(self, self._entry).weight
        if x.device != weight.device:
            raise InputError(f"{where}: input", f"is on {x.device}, the weights on {weight.device}")
        if x.device.type not in ("cpu", "cuda"):
            raise InputError(f"{where}: input", f"is on {x.device}", "the kernels run on cpu and cuda")
        if x.ndim != 3 or x.shape[1] != weight.shape[1]:
            shape = tuple(x.shape)
            raise InputError(f"{where}: input", f"has shape {shape}, expected (N, {weight.shape[1]}, T)")
        bits, version = getattr(x, "spike_bits", (None, None))
        if self.axon is not None:
            return self.axon(x.transpose(1, 2).to(float_type(x))), None
        # Changed in place, the tensor is no longer what the bits say.
        return x.transpose(1, 2), bits if version == x._version else None

    def _emit(self, y: torch.Tensor, log: Callable[[torch.Tensor], Any]) -> Any:
        return (y, log(y)) if self.count_log else y

    def _integers(self, of: torch.nn.Module) -> np.ndarray:
        words = torch.round(self._matrix(of).detach() * fixedpoint.WEIGHT_SCALE)
        return words.cpu().numpy().astype(np.int64)

    def _arriving(self) -> network.Synapse:
        """The synapse of the input, with the delays of its senders."""
        words = self._integers(getattr(self, self._entry))
        if self.axon is None:
            return network.Synapse(words)
        self.axon.round_delays()
        # Axonal: the delay belongs to the sender, so it is constant down each column.
        return network.Synapse(words, np.broadcast_to(self.axon.delay.cpu().numpy(), words.shape))

    def _neuron_integers(self, vth: int, reset: str = "zero") -> network.Neuron:
        neuron = self.neuron
        integers = network.Neuron(
            vth,
            int(neuron.cx_current_decay),
            int(neuron.cx_voltage_decay),
            reset=reset,
            membrane_bits=neuron.membrane_bits,
            full_scale_exp=neuron.full_scale_exp,
        )
        if not (np.any(neuron.u_start) or np.any(neuron.v_start)):
            return integers
        return integers.beginning(neuron.u_start, neuron.v_start)

    def export_hdf5(self, handle: h5py.Group) -> None:
        """Write the layer's NetX keys into an HDF5 group, as every SLAYER block does."""
        netx.write_layer(handle, self.layer())

    @property
    def shape(self) -> torch.Size:
        """Shape of the block's output, without batch and time."""
        return torch.Size(self.neuron.shape or ())


def leave_as_bits(net: Iterable[torch.nn.Module]) -> None:
    """Let layers hand spikes to the next one as bits alone, wherever it reads nothing else.

    The tensors between them then hold no numbers; their gradients, ``population`` and ``overflows`` are what
    they were.
    """
    for block, reader in pairwise(net):
        if hasattr(block, "want_spikes"):
            wanted = not (isinstance(reader, _Block) and reader.axon is None)
            block.want_spikes = wanted  # type: ignore[assignment]


class _Spiking(_Block):
    """Spiking neurons, recurrent or not: reset, surrogate and output of :class:`DelayRecurrent`."""

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable | None = None,
        reset: str = "zero",
        surrogate: str = "paper",
        reset_grad: float | None = None,
        membrane_grad: bool = True,
        recompute: bool | None = None,
        delay_shift: bool = True,
        count_log: bool = False,
        axon: Axon | None = None,
    ) -> None:
        where = type(self).__name__
        if reset not in RESETS:
            raise InputError(f"{where}: reset", f"is {reset!r}, expected one of {list(RESETS)}")
        if surrogate not in SURROGATES:
            raise InputError(f"{where}: surrogate", f"is {surrogate!r}, expected one of {list(SURROGATES)}")
        super().__init__(
            neuron_params, in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, delay_shift,
            count_log, axon,
        )  # fmt: skip
        self.reset, self.surrogate = reset, surrogate
        self.reset_grad = float(surrogate != "slayer") if reset_grad is None else float(reset_grad)
        self.feedback_grad, self.membrane_grad = 1.0, bool(membrane_grad)
        self.recompute, self.want_voltage, self.want_spikes = recompute, False, True
        self.voltage: torch.Tensor | None = None

    def _feedback_delay(self) -> np.ndarray:
        return np.zeros(self.shape, np.int32)

    def _dynamics(self) -> Dynamics:
        width = self.neuron.tau_grad * self.neuron.threshold
        height = self.neuron.scale_grad / width
        if self.surrogate == "slayer":
            width *= SURROGATE_WIDTH
            height *= SURROGATE_HEIGHT / SURROGATE_WIDTH / 2
        return Dynamics(
            delay=self._feedback_delay(),
            reset=RESETS[self.reset],
            surrogate=SURROGATES[self.surrogate],
            width=width,
            height=height,
            reset_grad=self.reset_grad,
            feedback_grad=self.feedback_grad,
            membrane_grad=float(self.membrane_grad),
            want_spikes=self.want_spikes or self.count_log,
            want_voltage=self.want_voltage,
            recompute=self.recompute,
            membrane_bits=self.neuron.membrane_bits,
            full_scale_exp=self.neuron.full_scale_exp,
            shift=int(self.delay_shift),
            initial=self.neuron.initial(self.shape[0]),
        )

    def forward(self, x: torch.Tensor) -> Any:
        """Spikes (N, out, T) for an input (N, in, T); with ``count_log`` also their mean.

        The tensor carries their number at each step as its attribute ``population``, (N, T).
        """
        result = self._run(x)
        self.voltage = result.voltage.transpose(1, 2) if self.want_voltage else None
        spikes = result.spikes.transpose(1, 2)
        spikes.spike_bits = result.bits, spikes._version  # type: ignore[attr-defined]
        spikes.population = result.population  # type: ignore[attr-defined]
        return self._emit(spikes, lambda y: torch.mean((y > 0).to(y.dtype)))
