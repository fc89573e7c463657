"""Layers without recurrence over the fused kernels: spiking neurons, and a readout that never spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint, network
from delaynet_lava.kernels.dynamics import Dynamics
from delaynet_lava.nn.axon import Axon
from delaynet_lava.nn.blocks import _Block, _Spiking

__all__ = ["Dense", "Readout"]


class Dense(_Spiking):
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
            surrogate, reset_grad, membrane_grad, recompute, delay_shift, count_log, axon: as for
            :class:`DelayRecurrent`.

    Attributes:
        overflows: int64 (2,), how often u wrapped and v saturated in the last forward pass.
    """

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with."""
        neuron = self._neuron_integers(self.neuron.v_th_mant, self.reset)
        return network.Dense(self._arriving(), neuron)


class Readout(_Block):
    """Leaky integrators that never spike; the membrane is the output, the decision its argmax.

    ``slayer.block.cuba.Affine`` over the fused kernel, with the shift by one step that Affine
    lacks: the value at step t is the one that Lava and the chip hold at step t.

    Args:
        neuron_params: ``threshold`` may be left out; it has no effect.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx: as for ``cuba.Affine``.
        axon: delays of the input's spikes, as for :class:`DelayRecurrent`.
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
        axon: Axon | None = None,
    ) -> None:
        super().__init__(
            {"threshold": 1.0, **neuron_params}, in_neurons, out_neurons, weight_scale, weight_norm,
            pre_hook_fx, delay_shift, count_log, axon,
        )  # fmt: skip
        self.neuron.vth.requires_grad_(False)

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with; the threshold is the chip's largest."""
        return network.Dense(self._arriving(), self._neuron_integers(fixedpoint.VTH_MAX))

    def _dynamics(self) -> Dynamics:
        return Dynamics(
            delay=np.zeros(self.shape, np.int32),
            spiking=False,
            shift=int(self.delay_shift),
            membrane_bits=self.neuron.membrane_bits,
            full_scale_exp=self.neuron.full_scale_exp,
            initial=self.neuron.initial(self.shape[0]),
        )

    def forward(self, x: torch.Tensor) -> Any:
        """Membrane (N, out, T) in SLAYER's units for an input (N, in, T)."""
        return self._emit(self._run(x).voltage.transpose(1, 2), lambda y: None)
