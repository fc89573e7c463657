"""A layer of spiking neurons with delayed recurrence, over the fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from delaynet_lava import network
from delaynet_lava.kernels.dynamics import Dynamics
from delaynet_lava.nn.axon import Axon, SenderDelays
from delaynet_lava.nn.blocks import _Spiking
from delaynet_lava.nn.parts import Synapse

__all__ = ["DelayRecurrent"]


class DelayRecurrent(SenderDelays, _Spiking):
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

    Input and output are NCT tensors, the input of any type; the output is shifted by one step
    (``delay_shift``), as that of every SLAYER block, which makes it the spikes of Lava at the same step.

    Args:
        neuron_params: as for SLAYER's CUBA neuron: ``threshold``, ``current_decay``,
            ``voltage_decay``, ``tau_grad``, ``scale_grad``, ``requires_grad`` (decays and threshold);
            ``membrane_bits`` and ``full_scale_exp`` for a membrane of fewer bits, to whose rounding
            and clipping the gradient is blind; ``v_start`` and ``u_start``, the integers of membrane and
            current before the first input acts (1.0 is 4096), one or one a neuron, which are not trained.
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
        learn_delays: train these delays too, as :class:`~delaynet_lava.nn.axon.SenderDelays` says.
        max_delay: the largest that is learned; the chip takes 62.
        axon: delays of the input's spikes, fixed or learned; None: none.

    Attributes:
        delay: int32 (N,), what runs.
        overflows: int64 (2,), how often u wrapped and v saturated in the last forward pass.
    """

    _entry = "input_synapse"

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
        learn_delays: bool = False,
        max_delay: int = 62,
        axon: Axon | None = None,
    ) -> None:
        super().__init__(
            neuron_params, in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, reset, surrogate,
            reset_grad, membrane_grad, recompute, delay_shift, count_log, axon,
        )  # fmt: skip
        self.recurrent_synapse = Synapse(out_neurons, out_neurons, weight_scale, weight_norm)
        self.recurrent_synapse.pre_hook_fx = self.input_synapse.pre_hook_fx
        self.hold_delays(delay, out_neurons, learn_delays, max_delay, type(self).__name__)
        self.self_connection, self.feedback_grad = self_connection, float(feedback_grad)
        if not self_connection:
            self.register_buffer("off_diagonal", 1 - torch.eye(out_neurons), persistent=False)

    def recurrent_matrix(self) -> torch.Tensor:
        """Quantised recurrent weights (post, pre) in SLAYER's units."""
        weight = self._matrix(self.recurrent_synapse)
        return weight if self.self_connection else weight * self.off_diagonal

    def layer(self) -> network.Dense:
        """The integers that the forward pass computes with."""
        back = self._integers(self.recurrent_synapse)
        if not self.self_connection:
            np.fill_diagonal(back, 0)
        # Axonal: the delay belongs to the sender, so it is constant down each column.
        delay = np.broadcast_to(self._feedback_delay(), back.shape)
        return network.Dense(
            self._arriving(),
            self._neuron_integers(self.neuron.v_th_mant, self.reset),
            network.Synapse(back, delay),
        )

    def _feedback_delay(self) -> np.ndarray:
        self.round_delays()
        return self.delay.cpu().numpy()

    def _dynamics(self) -> Dynamics:
        fixed = super()._dynamics()
        if not self.learn_delays:
            return fixed
        return fixed._replace(delay_window=self.delay_window, max_delay=self.max_delay)

    def _learned_delay(self) -> torch.Tensor | None:
        return self.learned_delay if self.learn_delays else None
