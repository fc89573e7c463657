"""Branching factor: whether activity grows or dies out from one step to the next (paper, section 2.2.3)."""

from __future__ import annotations

import torch

__all__ = ["branching_factor", "branching_sums"]


def branching_sums(population: torch.Tensor) -> tuple[float, int]:
    """Sum of n[t + 1] / n[t] over samples and steps with spikes, and how many these are.

    Args:
        population: (samples, steps), n[t]: the number of neurons that fire at step t.
    """
    before, after = population[:, :-1], population[:, 1:]
    there = before > 0
    return float((after[there] / before[there]).double().sum()), int(there.sum())


def branching_factor(population: torch.Tensor) -> float:
    """Mean of n[t + 1] / n[t] over samples and steps with spikes; 0 where there are none."""
    ratios, count = branching_sums(population)
    return ratios / max(1, count)
