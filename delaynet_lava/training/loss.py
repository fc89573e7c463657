"""What training makes small, and how a network's output becomes scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from delaynet_lava.decision import Decision
from delaynet_lava.training.recipe import Loss

__all__ = ["loss_of", "scores"]


def scores(out: torch.Tensor, decision: Decision) -> torch.Tensor:
    """(N, classes), what the classes are compared by, of an output (N, classes, T): see :class:`Decision`."""
    if decision.kind == "last":
        return out[..., -1]
    window = out[..., decision.within(0, out.shape[-1])]
    return window.mean(dim=-1) if decision.kind == "mean" else window.sum(dim=-1)


def loss_of(
    loss: Loss,
    populations: Sequence[torch.Tensor],
    neurons: int,
    out: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Loss of a batch.

    .. math::
        L = L_y + \\frac{\\beta}{64} \\sum_l \\sum_t (n_l[t + 1] - n_l[t])^2 + \\gamma \\bar s

    L_y is the cross-entropy of the scores over the temperature, or the squared distance of spike rates from
    ``true_rate`` and ``false_rate``, summed over classes. The branching-factor loss of each hidden layer l is
    the paper's equation, over each sample or over the whole batch as published, its weight that of a batch
    of 64; the last term weighs the spikes of a hidden neuron in a step.

    Args:
        populations: (N, T) for each hidden layer, its spikes at each step. neurons: of all hidden layers.
        out: (N, classes, T), membranes of a readout, or spikes. labels: int64 (N,).
    """
    decision = Decision.parse(loss.readout)
    if loss.kind == "spike-rate":
        window = out[..., decision.within(0, out.shape[-1])]
        wanted = F.one_hot(labels, out.shape[1]) * (loss.true_rate - loss.false_rate) + loss.false_rate
        total = (window.mean(dim=-1) - wanted).square().sum(dim=1).mean()
    else:
        total = F.cross_entropy(scores(out, decision) / loss.temperature, labels)
    for population in populations:
        if loss.branching:
            if loss.branching_over == "batch":
                change = 64 * population.sum(dim=0).diff().square().sum()
            else:
                change = population.diff(dim=1).square().sum(dim=1).mean()
            total = total + loss.branching / 64 * change
        if loss.rate:
            total = total + loss.rate * population.mean() / neurons
    return total
