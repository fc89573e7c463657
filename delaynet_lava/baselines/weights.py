"""Initial weights of the baselines."""

from __future__ import annotations

import torch

from delaynet_lava.nn.initial import spectral_radius

__all__ = ["draw", "draw_recurrent"]


@torch.no_grad()
def draw(weight: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with uniform numbers from ``-bound`` to ``bound``."""
    weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)


@torch.no_grad()
def draw_recurrent(weight: torch.Tensor, radius: float, generator: torch.Generator) -> None:
    """Fill a square matrix, its diagonal with zeros, so that ``|weight|`` has this spectral radius."""
    draw(weight, 1.0, generator)
    weight.fill_diagonal_(0)
    weight.mul_(radius / spectral_radius(weight.abs()))
