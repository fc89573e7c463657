"""What training makes small."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss

from delaynet_lava.training_options import CueOptions

__all__ = ["loss_of"]


def loss_of(
    options: CueOptions,
    spikes: torch.Tensor,
    out: torch.Tensor,
    labels: torch.Tensor,
    leads: tuple[np.ndarray, np.ndarray] | None = None,
) -> torch.Tensor:
    """Loss of a batch.

    Cross-entropy of the readout's last membranes over the temperature, and, each with its weight: counting,
    by which the membranes of the two classes differ by the lead so far after each cue; the
    branching-factor loss (the paper's equation, over each sample or over the whole batch as published, its
    weight that of a batch of 64); and the spike rate.

    Args:
        spikes: (N, hidden, T). out: (N, classes, T), membranes. labels: int64 (N,).
        leads: steps and leads, see :meth:`delaynet_lava.tasks.cue.CueAccumulation.leads`.
    """
    out = out / options.temperature
    loss = cross_entropy(out[..., -1], labels)
    if leads is not None:
        steps, lead = (torch.from_numpy(values) for values in leads)
        counted = out[:, 1, steps] - out[:, 0, steps]
        loss = loss + options.counting * smooth_l1_loss(counted, lead.to(counted.dtype))
    if options.branching:
        population = spikes.sum(dim=1)
        if options.branching_over == "batch":
            change = 64 * population.sum(dim=0).diff().square().sum()
        else:
            change = population.diff(dim=1).square().sum(dim=1).mean()
        loss = loss + options.branching / 64 * change
    if options.rate_weight:
        loss = loss + options.rate_weight * spikes.mean()
    return loss
