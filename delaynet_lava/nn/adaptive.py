"""LSNN: recurrent LIF neurons, some with a threshold that adapts. Float32, for the simulator only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from delaynet_lava.errors import InputError
from delaynet_lava.kernels import adaptive, spikes
from delaynet_lava.kernels.events import padded
from delaynet_lava.kernels.recurrence import GROUPS
from delaynet_lava.kernels.tensors import NOTHING, SpikeBits, float_type, numbers_of
from delaynet_lava.kernels.threads import spread
from delaynet_lava.kernels.vectors import in_blocks

__all__ = ["AdaptiveRecurrent"]


class _Adaptive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bits, w_in, w_rec, block):  # type: ignore[override]
        n = w_in.shape[0]
        lanes = padded(n)
        beta = np.zeros(lanes, np.float32)
        beta[:n] = block.beta.numpy()
        batch, steps = bits.shape[:2]
        fired = np.empty((batch, steps, spikes.words(n)), np.uint64)
        training = any(ctx.needs_input_grad)
        distance = np.empty((batch, steps, lanes), np.float32) if training else NOTHING
        numbers = (beta, block.alpha, block.rho, block.threshold)
        from_neurons = np.zeros((0, lanes), np.float32) if w_rec is None else _rows(w_rec, lanes)
        spread(adaptive.run, len(fired), bits, _rows(w_in, lanes), from_neurons, *numbers, fired, distance)
        out = np.empty((batch, steps, n), np.float32)
        spread(spikes.unpack_tensor, len(out), fired, int(block.delay_shift), out)
        ctx.kept = bits, fired, numbers, block.dampening, block.reset_grad, block.feedback_grad
        ctx.shift = int(block.delay_shift)
        ctx.save_for_backward(w_in, w_rec, torch.from_numpy(distance))
        kept = torch.from_numpy(fired.view(np.int64))
        ctx.mark_non_differentiable(kept)
        return torch.from_numpy(out).to(float_type(x)), kept

    @staticmethod
    def backward(ctx, grad_spikes, _):  # type: ignore[override]
        bits, fired, numbers, dampening, reset_grad, feedback_grad = ctx.kept
        w_in, w_rec, distance = ctx.saved_tensors
        distance = distance.numpy()
        wants_x, _, wants_in, wants_rec, _ = ctx.needs_input_grad
        n, channels = w_in.shape
        lanes, grad = distance.shape[2], grad_spikes.to(torch.float32).contiguous().numpy()
        grad_x = np.empty((*grad.shape[:2], channels), np.float32) if wants_x else NOTHING
        grad_in = np.zeros((GROUPS, channels, lanes), np.float32) if wants_in else NOTHING
        grad_rec = np.zeros((GROUPS, n, lanes), np.float32) if wants_rec else NOTHING
        into = in_blocks(w_in.detach().numpy()) if wants_x else NOTHING
        back = NOTHING if w_rec is None else in_blocks(w_rec.detach().numpy())
        spread(
            adaptive.back_propagate, GROUPS, grad, ctx.shift, distance, bits, fired, into, back, *numbers,
            dampening, reset_grad, feedback_grad, grad_x, grad_in, grad_rec,
        )  # fmt: skip
        return (
            torch.from_numpy(grad_x).to(grad_spikes.dtype) if wants_x else None,
            None,
            torch.from_numpy(grad_in.sum(axis=0)[:, :n].T) if wants_in else None,
            torch.from_numpy(grad_rec.sum(axis=0)[:, :n].T) if wants_rec else None,
            None,
        )


def _rows(weight: torch.Tensor, lanes: int) -> np.ndarray:
    """float32 (pre, lanes) of a weight (post, pre)."""
    rows = np.zeros((weight.shape[1], lanes), np.float32)
    rows[:, : weight.shape[0]] = weight.detach().numpy().T
    return rows


class AdaptiveRecurrent(torch.nn.Module):
    """LIF neurons of which the last few raise their threshold with each spike of their own.

    .. math::
        v[t] &= \\alpha v[t-1] + W_{in} x[t] + W_{rec} z[t-1] - \\vartheta z[t-1] \\\\
        a[t] &= \\rho a[t-1] + z[t-1] \\\\
        z[t] &= v[t] > \\vartheta + \\beta a[t]

    The LSNN of Bellec et al. (2018; 2020, equations 6 to 8), with its surrogate
    ``dampening / th * max(0, 1 - |v - A| / th)``, A the threshold at work. Weights are float32 and the
    adaptation is a second state variable, so the layer can't be exported.

    Args:
        in_neurons, out_neurons: number of neurons.
        adaptive: how many of them, the last ones, adapt; None: half.
        threshold: th. adaptation: beta, in the units of the threshold.
        tau_ms, adaptation_tau_ms: time constants of v and of a, for steps of 1 ms.
        recurrent: False leaves W_rec out.
        dampening: height of the surrogate.
        reset_grad, feedback_grad: factors on the gradient through the reset and along the recurrent
            synapses; 1 is exact.
        delay_shift, count_log: as for SLAYER's blocks.

    Attributes:
        input_weight: float32 (out, in). recurrent_weight: float32 (out, out) or None; its diagonal counts
            as zero. Both are drawn from a normal distribution of variance 1 / (number of senders).
    """

    def __init__(
        self,
        in_neurons: int,
        out_neurons: int,
        adaptive: int | None = None,
        threshold: float = 0.6,
        adaptation: float = 0.0174,
        tau_ms: float = 20.0,
        adaptation_tau_ms: float = 2000.0,
        recurrent: bool = True,
        dampening: float = 0.3,
        reset_grad: float = 1.0,
        feedback_grad: float = 1.0,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        adaptive = out_neurons // 2 if adaptive is None else adaptive
        if not 0 <= adaptive <= out_neurons:
            raise InputError(f"{where}: adaptive", f"is {adaptive}, of {out_neurons} neurons")
        positive = {"threshold": threshold, "tau_ms": tau_ms, "adaptation_tau_ms": adaptation_tau_ms}
        for name, value in positive.items():
            if not value > 0:
                raise InputError(f"{where}: {name}", f"is {value}, expected a number above 0")
        self.threshold = float(threshold)
        self.alpha, self.rho = float(np.exp(-1 / tau_ms)), float(np.exp(-1 / adaptation_tau_ms))
        self.dampening, self.reset_grad = float(dampening), float(reset_grad)
        self.feedback_grad = float(feedback_grad)
        self.delay_shift, self.count_log = delay_shift, count_log
        beta = torch.zeros(out_neurons)
        beta[out_neurons - adaptive :] = adaptation
        self.register_buffer("beta", beta)
        self.register_buffer("off_diagonal", 1 - torch.eye(out_neurons), persistent=False)
        self.input_weight = torch.nn.Parameter(torch.randn(out_neurons, in_neurons) / in_neurons**0.5)
        self.recurrent_weight: torch.nn.Parameter | None = None
        if recurrent:
            drawn = torch.randn(out_neurons, out_neurons) / out_neurons**0.5
            self.recurrent_weight = torch.nn.Parameter(drawn * self.off_diagonal)

    @property
    def shape(self) -> torch.Size:
        """Shape of the block's output, without batch and time."""
        return self.beta.shape

    def forward(self, x: torch.Tensor) -> Any:
        """Spikes (N, out, T) for spikes (N, in, T); with ``count_log`` also their mean.

        Raises:
            InputError: an input of another shape, on another device, or not of spikes.
        """
        where, channels = type(self).__name__, self.input_weight.shape[1]
        if x.device.type != "cpu":
            raise InputError(f"{where}: input", f"is on {x.device}", "this layer runs on the CPU")
        if x.ndim != 3 or x.shape[1] != channels:
            raise InputError(f"{where}: input", f"has shape {tuple(x.shape)}, expected (N, {channels}, T)")
        x = x.transpose(1, 2)
        bits = np.empty((*x.shape[:2], spikes.words(channels)), np.uint64)
        if not spikes.pack_tensor(numbers_of(x), bits):
            raise InputError(f"{where}: input", "holds more than spikes", "give 0 or 1")
        w_rec = None
        if self.recurrent_weight is not None:
            w_rec = self.recurrent_weight * self.off_diagonal
        out, fired = _Adaptive.apply(x, bits, self.input_weight, w_rec, self)
        out = out.transpose(1, 2)
        out.spike_bits = SpikeBits(fired, int(self.delay_shift)), out._version
        out.population = out.sum(dim=1)
        return (out, out.mean()) if self.count_log else out
