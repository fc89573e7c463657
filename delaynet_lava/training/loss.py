"""What training makes small."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from delaynet_lava.training.options import CueOptions

__all__ = ["loss_of"]


def loss_of(
    options: CueOptions,
    population: torch.Tensor,
    out: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Loss of a batch.

    Cross-entropy of the readout's last membranes over the temperature, and, each with its weight, the
    branching-factor loss (the paper's equation, over each sample or over the whole batch as published, its
    weight that of a batch of 64) and the spike rate.

    Args:
        population: (N, T), spikes of the hidden layer at each step.
        out: (N, classes, T), membranes. labels: int64 (N,).
    """
    out = out / options.temperature
    loss = cross_entropy(out[..., -1], labels)
    if options.branching:
        if options.branching_over == "batch":
            change = 64 * population.sum(dim=0).diff().square().sum()
        else:
            change = population.diff(dim=1).square().sum(dim=1).mean()
        loss = loss + options.branching / 64 * change
    if options.rate_weight:
        loss = loss + options.rate_weight * population.mean() / options.neurons
    return loss
