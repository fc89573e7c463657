"""A layer of spiking neurons without recurrence, over the fused kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lava.lib.dl.slayer.synapse import layer as synapse
from lava.lib.dl.slayer.utils.quantize import quantize

from delaynet_lava import network
from delaynet_lava.errors import InputError
from delaynet_lava.kernels.autograd import delayed_recurrence
from delaynet_lava.kernels.dynamics import SURROGATES, Dynamics
from delaynet_lava.nn.recurrent import DelayRecurrent, _Block, _neuron

__all__ = ["Dense"]


class Dense(_Block):
    """Feed-forward CUBA layer: :class:`DelayRecurrent` without its recurrent synapses.

    .. math::
        u[t] &= (1 - \\alpha_u) u[t-1] + W x[t] \\\\
        v[t] &= (1 - \\alpha_v) v[t-1] + u[t] \\\\
        s[t] &= v[t] > \\vartheta, \\quad v[t] \\leftarrow 0 \\text{ or } v[t] - \\vartheta

    The forward pass with the reset to zero is that of ``slayer.block.cuba.Dense``; beyond it the
    block has the soft reset, a threshold that can be trained, other surrogates, and a backward
    pass that carries the gradient along u and v.

    Args:
        neuron_params, in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, reset,
            surrogate, reset_grad, membrane_grad, recompute, delay_shift, count_log: as for
            :class:`DelayRecurrent`.

    Attributes:
        overflows: int64 (2,), how often u wrapped and v saturated in the last forward pass.
    """

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
    ) -> None:
        super().__init__(delay_shift, count_log)
        where = type(self).__name__
        if reset not in network.RESETS:
            raise InputError(f"{where}: reset", f"is {reset!r}, expected one of {list(network.RESETS)}")
        if surrogate not in SURROGATES:
            raise InputError(f"{where}: surrogate", f"is {surrogate!r}, expected one of {list(SURROGATES)}")
        self.neuron = _neuron(neuron_params, where)
        self.neuron.shape = torch.Size([out_neurons])
        self.synapse = synapse.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.synapse.pre_hook_fx = pre_hook_fx or self.neuron.quantize_8bit
        self.reset, self.surrogate = reset, surrogate
        self.reset_grad = float(surrogate != "slayer") if reset_grad is None else float(reset_grad)
        self.membrane_grad = bool(membrane_grad)
        self.recompute, self.want_voltage = recompute, False
        self.voltage: torch.Tensor | None = None
        # What the dynamics of a recurrent layer name besides; nothing comes back here.
        self.feedback_grad = 1.0
        self.register_buffer("delay", torch.zeros(out_neurons, dtype=torch.int32), persistent=False)

    def input_matrix(self) -> torch.Tensor:
        """Quantised weights (post, pre) in SLAYER's units."""
        return self._matrix(self.synapse)

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with."""
        neuron = self._neuron_integers(self.neuron.v_th_mant, self.reset)
        return network.Dense(network.Synapse(self._integers(self.synapse)), neuron)

    def _dynamics(self) -> Dynamics:
        return DelayRecurrent._dynamics(self)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> Any:
        """Spikes (N, out, T) for an input (N, in, T); with ``count_log`` also their mean."""
        self.neuron.clamp()
        x, bits = self._input(x, self.synapse)
        result = delayed_recurrence(
            x,
            self.input_matrix(),
            None,
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
