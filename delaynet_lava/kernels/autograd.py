"""The delayed recurrence as a differentiable torch operation, over the compiled loops.

:func:`delayed_recurrence` takes and returns torch tensors in SLAYER's units and knows nothing of
blocks; :mod:`delaynet_lava.nn` knows nothing of loops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from delaynet_lava.fixedpoint import STATE_SHIFT, WEIGHT_SCALE
from delaynet_lava.kernels import recurrence

__all__ = ["Dynamics", "delayed_recurrence"]

_NOTHING_F = np.zeros((0, 0, 0), np.float32)
_NOTHING_I = np.zeros((0, 0, 0), np.int32)
_MIN_BLOCK, _MAX_BLOCK, _MAX_GROUPS = 8, 256, 16
STATE_SCALE = float(WEIGHT_SCALE << STATE_SHIFT)


@dataclass(frozen=True)
class Dynamics:
    """What does not change during a pass, apart from the tensors that may carry a gradient.

    Attributes:
        delay: int32 (N,), axonal delay of each neuron; a spike of step t acts at t + 1 + delay.
        reset: ``RESET_ZERO`` or ``RESET_SUBTRACT``.
        spiking: False for a readout, whose membrane is the output.
        surrogate: ``SURROGATE_PAPER`` or ``SURROGATE_SLAYER``.
        width, height: scales of the surrogate, in SLAYER's units.
        reset_grad, feedback_grad, membrane_grad: see :func:`kernels.recurrence.backward_block`.
        want_voltage: also return the membrane of a spiking layer (a readout's always is).
    """

    delay: np.ndarray
    reset: int = 0
    spiking: bool = True
    surrogate: int = recurrence.SURROGATE_PAPER
    width: float = 1.0
    height: float = 1.0
    reset_grad: float = 1.0
    feedback_grad: float = 1.0
    membrane_grad: float = 1.0
    want_voltage: bool = False


def _blocks(delay: np.ndarray) -> tuple[int, np.ndarray, list[tuple[int, np.ndarray]]]:
    """Split the neurons by lag: steps a block spans, neurons handled step by step, groups by lag.

    A group whose lag is no shorter than the block needs nothing from inside it, so its feedback is
    one matrix product for all steps of the block.
    """
    lags = np.unique(delay) + 1
    long_lags = lags[lags >= _MIN_BLOCK]
    if len(long_lags) == 0 or len(long_lags) > _MAX_GROUPS:
        return _MAX_BLOCK, np.arange(len(delay)), []
    groups = [(int(lag), np.flatnonzero(delay + 1 == lag)) for lag in long_lags]
    direct = np.flatnonzero(delay + 1 < _MIN_BLOCK)
    return min(int(long_lags[0]), _MAX_BLOCK), direct, groups


class _DelayedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, drive, w_rec, du, dv, threshold, bias, dyn):  # type: ignore[override]
        n = drive.shape[2]
        ints = torch.round(drive.detach() * WEIGHT_SCALE).to(torch.int32).contiguous().numpy()
        w_int = np.zeros((0, 0), np.int32)
        if w_rec is not None:
            w_int = torch.round(w_rec.detach().t() * WEIGHT_SCALE).to(torch.int32).contiguous().numpy()
        k_u, k_v = round(float(du)), round(float(dv))
        vth = int(float(threshold) * WEIGHT_SCALE) << STATE_SHIFT if dyn.spiking else -1
        spikes = np.empty(ints.shape, np.uint8)
        v_rec = np.empty(ints.shape, np.int32)
        u_rec = np.empty(ints.shape, np.int32) if du.requires_grad else _NOTHING_I
        counts = np.zeros((len(ints), 2), np.int64)
        shifted = np.zeros(n, np.int64) if bias is None else bias
        recurrence.forward(
            ints, w_int, dyn.delay, k_u, k_v, shifted, vth, dyn.reset, spikes, u_rec, v_rec, counts
        )
        ctx.dyn, ctx.decays, ctx.vth, ctx.dtype = dyn, (k_u, k_v), vth, drive.dtype
        ctx.records = (spikes, u_rec, v_rec)
        ctx.save_for_backward(w_rec)
        out, voltage = drive.new_empty(0), drive.new_empty(0)
        if dyn.spiking:
            out = torch.from_numpy(spikes).to(drive.dtype)
        if dyn.want_voltage or not dyn.spiking:
            voltage = torch.from_numpy(v_rec).to(drive.dtype) / STATE_SCALE
        totals = torch.from_numpy(counts.sum(axis=0))
        ctx.mark_non_differentiable(totals)
        return out, voltage, totals

    @staticmethod
    def backward(ctx, grad_spikes, grad_voltage, _):  # type: ignore[override]
        dyn, (du, dv), vth = ctx.dyn, ctx.decays, ctx.vth
        spikes, u_rec, v_rec = ctx.records
        (w_rec,) = ctx.saved_tensors
        batch, steps, n = v_rec.shape
        g_s = _array(grad_spikes) if dyn.spiking else _NOTHING_F
        g_v = _array(grad_voltage) if grad_voltage.numel() else _NOTHING_F
        grad_drive = torch.zeros((batch, steps, n), dtype=torch.float32)
        drive_np = grad_drive.numpy()
        scalars = np.zeros((batch, 3), np.float64)
        gv, gu = np.zeros((batch, n), np.float32), np.zeros((batch, n), np.float32)
        if w_rec is None:
            size, direct, groups = steps, np.zeros(0, np.int64), []
            weights = np.zeros((0, 0), np.float32)
        else:
            size, direct, groups = _blocks(dyn.delay)
            by_pre = w_rec.detach().t().contiguous()
            weights = by_pre.numpy()
            columns = [(lag, torch.from_numpy(index), by_pre[index].t()) for lag, index in groups]
        for last in range(steps, 0, -size):
            first = max(0, last - size)
            feedback = _NOTHING_F
            if groups:
                fed = torch.zeros((batch, last - first, n), dtype=torch.float32)
                for lag, index, columns_of in columns:
                    rows = grad_drive[:, first + lag : last + lag]
                    if rows.shape[1]:
                        fed[:, : rows.shape[1], index] = rows @ columns_of
                feedback = fed.numpy()
            recurrence.backward_block(
                first, last, g_s, g_v, feedback, spikes, u_rec, v_rec, weights, dyn.delay, direct,
                du, dv, vth, dyn.reset, dyn.surrogate, np.float32(dyn.width), np.float32(dyn.height),
                dyn.reset_grad, dyn.feedback_grad, dyn.membrane_grad, gv, gu, drive_np, scalars,
            )  # fmt: skip
        grad_w = None
        if w_rec is not None and ctx.needs_input_grad[1]:
            parts = np.zeros((min(recurrence.GROUPS, batch), n, n), np.float32)
            recurrence.weight_gradient(spikes, drive_np, dyn.delay, parts)
            grad_w = torch.from_numpy(parts.sum(axis=0)).t()
        total = torch.from_numpy(scalars.sum(axis=0)).to(torch.float32)
        return grad_drive.to(ctx.dtype), grad_w, total[0:1], total[1:2], total[2:3], None, None


def _array(grad: torch.Tensor) -> np.ndarray:
    return grad.to(torch.float32).contiguous().numpy()


def delayed_recurrence(
    drive: torch.Tensor,
    w_rec: torch.Tensor | None,
    du: torch.Tensor,
    dv: torch.Tensor,
    threshold: torch.Tensor,
    dynamics: Dynamics,
    bias: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer with delayed recurrence; differentiable in the first five arguments.

    Args:
        drive: float (B, T, N), feed-forward synaptic input in SLAYER's units (weights / 64).
        w_rec: float (N, N), post x pre, quantised recurrent weights / 64; None: no recurrence.
        du, dv: float (1,), decays 0 to 4096; rounded here, the gradient passes the rounding.
        threshold: float (1,); its mantissa is ``floor(64 * threshold)``.
        dynamics: everything else.
        bias: int64 (N,), already shifted to the state's scale.

    Returns:
        spikes (B, T, N), empty for a readout; membrane before the reset (B, T, N) in SLAYER's
        units, empty where not wanted; int64 (2,), how often u wrapped and v saturated.
    """
    return _DelayedRecurrence.apply(drive, w_rec, du, dv, threshold, bias, dynamics)
