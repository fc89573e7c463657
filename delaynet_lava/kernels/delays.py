"""Axonal delays between layers: spikes that arrive later, and the gradient of when they do."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["delay_gradient", "early", "late"]


def late(x: torch.Tensor, delay: torch.Tensor) -> torch.Tensor:
    """``y[b, t + delay[j], j] = x[b, t, j]``, zeros before; (B, T, N), delay int (N,) from 0 on."""
    y, steps = torch.zeros_like(x), x.shape[1]
    for d in delay.unique().tolist():
        if d < steps:
            of = (delay == d).nonzero()[:, 0]
            y[:, d:, of] = x[:, : steps - d, of]
    return y


def early(y: torch.Tensor, delay: torch.Tensor) -> torch.Tensor:
    """What comes of the gradient behind :func:`late`: ``x[b, t, j] = y[b, t + delay[j], j]``, zeros after."""
    return late(y.flip(1), delay).flip(1)


def delay_gradient(
    sent: torch.Tensor, arriving: torch.Tensor, delay: torch.Tensor, window: int, most: int, lag: int = 0
) -> torch.Tensor:
    """Gradient of each sender's delay d, over a window of steps before and after the arrival.

    .. math::
        \\frac{\\sum_t s_j[t] \\sum_{k=1}^{w}
              \\left(p_j[t + l + \\min(d + k, D)] - p_j[t + l + \\max(d - k, 0)]\\right)}
             {\\sum_{k=1}^{w} \\left(\\min(d + k, D) - \\max(d - k, 0)\\right)}

    where p is the gradient that a spike meets if it arrives at a step, 0 after the last, and D is ``most``.
    Sums over k are differences of one sum over time.

    Args:
        sent: spikes or payloads (B, T, N).
        arriving: p, float (B, T, N).
        delay: int64 (N,), 0 to ``most``; window: w, from 1 on; lag: l, steps that every spike takes.

    Returns:
        float32 (N,).
    """
    _, steps, n = sent.shape
    last, first = (delay + window).clamp(max=most), (delay - window).clamp(min=0)
    beyond, before = (delay + window - most).clamp(min=0), (window - delay).clamp(min=0)
    k = torch.arange(1, window + 1, device=delay.device)[:, None]
    distance = ((delay + k).clamp(max=most) - (delay - k).clamp(min=0)).sum(dim=0).clamp(min=1)
    begin = torch.arange(lag, lag + steps, device=delay.device)[:, None]
    neurons = torch.arange(n, device=delay.device)
    total = torch.zeros(n, dtype=torch.float64, device=delay.device)
    for s, p in zip(sent, arriving, strict=True):
        p = F.pad(p.double(), (0, 0, 0, most + lag))
        upto = F.pad(p.cumsum(dim=0), (0, 0, 1, 0))  # upto[t]: of the steps before t

        def within(a: torch.Tensor, b: torch.Tensor, upto: torch.Tensor = upto) -> torch.Tensor:
            return upto[begin + b + 1, neurons] - upto[begin + a, neurons]

        after = within(delay + 1, last) + beyond * p[begin + most, neurons]
        ahead = within(first, delay - 1) + before * p[begin, neurons]
        total += (s * (after - ahead)).sum(dim=0)
    return (total / distance).float()
