"""The delayed recurrence as a differentiable torch operation on a GPU, over the Triton kernels.

The equations are those of :mod:`delaynet_lava.kernels.recurrence`; how the work is laid out is told in
:mod:`delaynet_lava.kernels.triton_forward`.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import e, log2
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import DECAY_ONE, RESET_SUBTRACT, STATE_SHIFT, V_MAX, WEIGHT_SCALE
from delaynet_lava.kernels.delays import delay_gradient
from delaynet_lava.kernels.dynamics import SURROGATE_SLAYER

__all__ = ["MAX_NEURONS", "GpuRecurrence"]

MAX_NEURONS = 8192
"""Neurons of the largest recurrent layer; one program runs them all, with N**2 work a step."""
STATE_SCALE = float(WEIGHT_SCALE << STATE_SHIFT)
_EXACT_WORD, _EXACT_SUM = 1 << 11, 1 << 24
"""Integers up to the first are exact in float16 and TF32, up to the second in float32."""
_SAMPLES = 16
"""Samples of a program: the fewest columns that Triton multiplies."""
_RESIDENT = 128
"""Neurons whose weights, in float32, fit on the chip beside a program's state."""
_CHUNK = 1 << 22
"""Spikes that become float32 at a time for the gradient of the weights."""


def _kernels(where: str) -> dict[str, ModuleType]:
    try:
        from delaynet_lava.kernels import triton_backward, triton_forward
    except ImportError as error:
        raise InputError(where, f"needs Triton ({error})", "pip install triton, or run on the CPU") from None
    return {"forward": triton_forward, "backward": triton_backward}


class _Plan:
    """The tiles of a pass and its numbers on the host."""

    def __init__(self, drive, words, du, dv, threshold, dyn) -> None:  # type: ignore[no-untyped-def]
        where = f"recurrent layer on {drive.device}"
        if drive.is_cuda and torch.cuda.get_device_capability(drive.device) < (8, 0):
            name = torch.cuda.get_device_name(drive.device)
            raise InputError(where, f"{name} is older than compute capability 8.0", "run it on the CPU")
        self.kernels = _kernels(where)
        self.device = drive.device
        self.batch, self.steps, self.n = drive.shape
        largest = drive.new_zeros(1) if words is None else words.abs().max()
        # In one transfer: the host waits for it.
        numbers = torch.cat([part.detach().reshape(1).double() for part in (du, dv, threshold, largest)])
        decay_u, decay_v, threshold_value, largest_word = numbers.tolist()
        self.keep_u, self.keep_v = DECAY_ONE - round(decay_u), DECAY_ONE - round(decay_v)
        self.vth = int(threshold_value * WEIGHT_SCALE) << STATE_SHIFT
        # A negative threshold is never crossed.
        self.spiking = dyn.spiking and self.vth >= 0
        self.recurrent = self.spiking and words is not None
        self.narrow = largest_word <= _EXACT_WORD
        if self.recurrent and self.n > MAX_NEURONS:
            raise InputError(where, f"has {self.n} neurons, at most {MAX_NEURONS}", "run it on the CPU")
        if self.recurrent and largest_word * self.n > _EXACT_SUM:
            raise InputError(
                where,
                f"has {self.n} neurons and words up to {largest_word:.0f}: sums may pass 2**24, beyond "
                "which float32 is not exact",
                "run it on the CPU",
            )
        self.tiled = self.recurrent and (self.n > _RESIDENT or not self.narrow)
        if self.tiled:
            # Wide words are multiplied without tensor cores, which takes more registers.
            self.block = 64 if self.narrow else 32
        else:
            self.block = min(max(16, 1 << (self.n - 1).bit_length()), _RESIDENT)
        self.grid = (-(-self.batch // _SAMPLES), 1 if self.tiled else -(-self.n // self.block))
        lag = np.minimum(np.asarray(dyn.delay, np.int64) + 1, self.steps)
        self.length = int(lag.max(initial=0, where=lag < self.steps)) + 1
        self.lag = torch.from_numpy(lag.astype(np.int32)).to(drive.device)

    def per_tile(self, values: int, like: torch.Tensor) -> torch.Tensor:
        """Room for some values of each sample and neuron of a tile."""
        return like.new_empty((*self.grid, values, self.block, _SAMPLES))

    def record(self, like: torch.Tensor, dtype: torch.dtype, wanted: bool = True) -> torch.Tensor:
        """Room for a value of each neuron and step, (tiles, T, N, samples of a tile)."""
        shape = (self.grid[0], self.steps, self.n, _SAMPLES)
        return like.new_empty(shape if wanted else 0, dtype=dtype)

    def launch(self, direction: str, state: torch.Tensor, *arguments: Any, **options: Any) -> None:
        """Run one kernel; ``state`` gives dtype and device of what a tiled one hands from step to step."""
        if self.tiled:
            kernel = self.kernels[direction].tiled
            arguments = (state.new_zeros(self.grid[0], self.n, _SAMPLES), *arguments)
            options["TF32"] = self.narrow
        else:
            kernel = self.kernels[direction].resident
            options |= {"SPIKING": self.spiking, "RECURRENT": self.recurrent}
        # Triton launches on the current device.
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            kernel[self.grid](
                *arguments, **options, BLOCK_B=_SAMPLES, BLOCK_N=self.block,
                num_warps=max(1, self.block // 16), num_stages=1, enable_fp_fusion=True,
            )  # fmt: skip


def _by_sample(record: torch.Tensor, batch: int) -> torch.Tensor:
    """A record as (B, T, N)."""
    return record.permute(0, 3, 1, 2).flatten(0, 1)[:batch]


class GpuRecurrence(torch.autograd.Function):
    """``apply(drive, w_rec, du, dv, threshold, bias, dynamics, delay=None)``, all tensors on one GPU.

    Args:
        drive: float (B, T, N), feed-forward synaptic input in SLAYER's units (weights / 64).
        w_rec: float (N, N), post x pre, quantised recurrent weights / 64; None: no recurrence.
        du, dv: float (1,), decays 0 to 4096; rounded here, the gradient passes the rounding.
        threshold: float (1,); its mantissa is ``floor(64 * threshold)``.
        bias: int64 array (N,), already shifted to the state's scale, or None.
        dynamics: :class:`delaynet_lava.kernels.dynamics.Dynamics`; its ``shift`` is left to the caller.
        delay: float (N,), delays that are learned, or None; those of ``dynamics`` run.

    Returns:
        spikes (B, T, N) in the drive's dtype, empty for a readout; membrane before the reset (B, T, N)
        in SLAYER's units, empty where not wanted; int64 (2,), how often u wrapped and v saturated.

    Raises:
        InputError: Triton is missing, the GPU is older than compute capability 8.0, the layer has
            more than ``MAX_NEURONS`` neurons, or its words are too large for exact sums.
    """

    @staticmethod
    def forward(ctx, drive, w_rec, du, dv, threshold, bias, dyn, delay=None):  # type: ignore[override]
        words = None if w_rec is None else torch.round(w_rec.detach().float() * WEIGHT_SCALE).contiguous()
        plan = _Plan(drive, words, du, dv, threshold, dyn)
        # The kernel puts the membrane where it found the drive.
        membrane = plan.record(drive, torch.int32)
        for samples, tile in zip(drive.detach().split(_SAMPLES), membrane, strict=True):
            tile[..., : len(samples)] = torch.round(samples * WEIGHT_SCALE).permute(1, 2, 0)
            tile[..., len(samples) :] = 0
        spikes = plan.record(drive, torch.uint8, plan.spiking)
        current = plan.record(drive, torch.int32, ctx.needs_input_grad[2])
        counts = plan.per_tile(2, membrane)
        if words is None:
            words = drive.new_empty(0, dtype=torch.float32)
        elif plan.narrow:
            words = words.half()
        # Four times the largest membrane saturates it, whatever else comes in.
        shifted = np.clip(np.zeros(plan.n, np.int64) if bias is None else bias, -4 * V_MAX, 4 * V_MAX)
        plan.launch(
            "forward", membrane,
            membrane, spikes, current, counts, words, plan.lag,
            torch.from_numpy(shifted.astype(np.int32)).to(drive.device),
            plan.batch, plan.steps, plan.n, plan.keep_u, plan.keep_v, min(plan.vth, 2 * V_MAX),
            SOFT_RESET=dyn.reset == RESET_SUBTRACT, KEEP_CURRENT=current.numel() > 0,
        )  # fmt: skip
        ctx.dyn, ctx.plan, ctx.dtype = dyn, plan, drive.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(w_rec, membrane, spikes, current)
        out, voltage = drive.new_empty(0), drive.new_empty(0)
        if dyn.spiking:
            out = _by_sample(spikes, plan.batch).to(drive.dtype) if plan.spiking else torch.zeros_like(drive)
        if dyn.want_voltage or not dyn.spiking:
            voltage = _by_sample(membrane, plan.batch).to(drive.dtype).div_(STATE_SCALE)
        totals = counts.sum(dim=(0, 1, 3, 4), dtype=torch.int64)
        ctx.mark_non_differentiable(totals)
        return out, voltage, totals

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_spikes, grad_voltage, _):  # type: ignore[override]
        dyn, plan = ctx.dyn, ctx.plan
        w_rec, membrane, spikes, current = ctx.saved_tensors
        grad_drive = membrane.new_empty((plan.batch, plan.steps, plan.n), dtype=torch.float32)
        nothing = grad_drive.new_empty(0)
        outer_s = grad_spikes if plan.spiking and grad_spikes is not None else nothing
        outer_v = nothing if grad_voltage is None else grad_voltage
        ring, weights = nothing, nothing
        if plan.recurrent:
            ring = grad_drive.new_empty(plan.grid[0], plan.length, plan.n, _SAMPLES)
            weights = w_rec.float().t().contiguous()
        scalars = plan.per_tile(3, grad_drive)
        slayer = dyn.surrogate == SURROGATE_SLAYER
        plan.launch(
            "backward", grad_drive,
            grad_drive, outer_s.float().contiguous(), outer_v.float().contiguous(), membrane, spikes, current,
            ring, scalars, weights, plan.lag, plan.batch, plan.steps, plan.n, plan.length,
            *map(float, (
                plan.keep_u / DECAY_ONE * dyn.membrane_grad, plan.keep_v / DECAY_ONE * dyn.membrane_grad,
                plan.vth / STATE_SCALE, (log2(e) if slayer else 1.0) / dyn.width, dyn.height,
                dyn.reset_grad, dyn.feedback_grad,
            )),
            SOFT_RESET=dyn.reset == RESET_SUBTRACT, SURROGATE=dyn.surrogate, SPIKES_IN=outer_s.numel() > 0,
            VOLTAGE_IN=outer_v.numel() > 0, WITH_CURRENT=current.numel() > 0,
        )  # fmt: skip
        grad_w = None
        if w_rec is not None and ctx.needs_input_grad[1]:
            grad_w = grad_drive.new_zeros(w_rec.shape)
            if plan.recurrent:
                _add_weight_gradient(grad_w, spikes, grad_drive, plan.lag.long())
        total = scalars.sum(dim=(0, 1, 3, 4), dtype=torch.float64)
        total[:2] /= DECAY_ONE
        grad_delay = None
        if len(ctx.needs_input_grad) > 7 and ctx.needs_input_grad[7]:
            grad_delay = grad_drive.new_zeros(plan.n)
            if plan.recurrent and dyn.delay_window:
                _add_delay_gradient(grad_delay, _by_sample(spikes, plan.batch), grad_drive, w_rec, dyn)
        return grad_drive.to(ctx.dtype), grad_w, *total.float().split(1), None, None, grad_delay


def _add_weight_gradient(
    grad_w: torch.Tensor, spikes: torch.Tensor, grad_drive: torch.Tensor, lag: torch.Tensor
) -> None:
    """``grad_w[i, j] += sum over b and t of g_a[b, t, i] s[b, t - lag[j], j]``.

    The gradient is split in two numbers of 11 bits, so that the sum has float32's precision also where
    the user lets torch multiply in TF32; in place, because autocast leaves such products alone.
    """
    batch, steps, n = grad_drive.shape
    neurons = torch.arange(n, device=lag.device)
    length = max(1, _CHUNK // (batch * n))
    for first in range(0, steps, length):
        last = min(first + length, steps)
        sent_at = torch.arange(first, last, device=lag.device)[:, None] - lag
        sent = spikes[:, sent_at.clamp(min=0), neurons] * (sent_at >= 0)[:, :, None]
        sent = _by_sample(sent, batch).float().reshape(-1, n)
        g = grad_drive[:, first:last].reshape(-1, n)
        high = (g.view(torch.int32) & -8192).view(torch.float32)
        grad_w.addmm_(high.t(), sent).addmm_((g - high).t(), sent)


def _add_delay_gradient(
    grad_delay: torch.Tensor, spikes: torch.Tensor, grad_drive: torch.Tensor, w_rec: torch.Tensor, dyn: Any
) -> None:
    """Gradient of the delays as :func:`kernels.recurrence.backward_segment` has it, added to float32 (N,).

    Args:
        spikes: uint8 (B, T, N). grad_drive: float32 (B, T, N). w_rec: float (N, N), post x pre.
    """
    delay = torch.from_numpy(np.asarray(dyn.delay, np.int64)).to(spikes.device)
    weight = w_rec.detach().float()
    for sent, g in zip(spikes, grad_drive, strict=True):
        arriving = (g @ weight)[None]
        grad_delay += delay_gradient(sent[None], arriving, delay, dyn.delay_window, dyn.max_delay, lag=1)
