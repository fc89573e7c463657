"""Optimisers by name, and how their rates fall over a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from madgrad import MADGRAD

from delaynet_lava.training.recipe import Optimiser, Schedule

__all__ = ["BETAS_OF_DELAYS", "OPTIMISERS", "make_optimiser", "moments_of", "share_of_rate"]


def _madgrad(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return MADGRAD(groups, lr=lr, momentum=betas[0])


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "madgrad": _madgrad,
}


BETAS_OF_DELAYS = (0.9, 0.95)
"""Adam's, for learned delays. Their gradient is by far the largest where a delay begins at 0; an optimiser
that remembers it for a thousand steps holds them there."""


def make_optimiser(net: torch.nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    """Over everything that is trained; decays (in 1/4096) and learned delays have rates of their own."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decays = [p for name, p in named if name.endswith("decay")]
    delays = [p for name, p in named if name.endswith("learned_delay")]
    weights = [p for name, p in named if not name.endswith(("decay", "learned_delay"))]
    groups = [
        {"params": weights, "lr": options.lr, "weight_decay": options.weight_decay},
        # Pulled to zero, a membrane would never forget.
        {"params": decays, "lr": options.lr * options.lr_decays, "weight_decay": 0.0},
        {"params": delays, "lr": options.lr * options.lr_delays, "weight_decay": 0.0},
    ]
    if options.name != "madgrad":
        groups[-1]["betas"] = BETAS_OF_DELAYS
    groups = [group for group in groups if group["params"]]
    first, second = options.betas
    return OPTIMISERS[options.name](groups, lr=options.lr, betas=(first, second))


def moments_of(options: Optimiser) -> tuple[str, ...]:
    """What the optimiser keeps of each parameter, in its shape and type; "step" is a count."""
    if options.name != "madgrad":
        return "step", "exp_avg", "exp_avg_sq"
    return ("grad_sum_sq", "s", "x0") if options.betas[0] else ("grad_sum_sq", "s")


def share_of_rate(schedule: Schedule, left: float) -> float:
    """What the learning rate is, in the one it began with.

    Args:
        left: share of the epochs on the full task that is still to come, 1 to 0.
    """
    end = schedule.lr_end
    if schedule.annealing == "constant":
        return 1.0
    if schedule.annealing == "exponential":
        return end ** (1 - left)
    if schedule.annealing == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return end + (1 - end) * left
