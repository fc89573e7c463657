"""Initial weights: uniform, and those of recurrent synapses scaled to a spectral radius."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["draw", "draw_recurrent", "spectral_radius"]


def spectral_radius(matrix: torch.Tensor | np.ndarray) -> float:
    """Largest absolute eigenvalue of a square matrix."""
    values = matrix.detach().numpy() if isinstance(matrix, torch.Tensor) else matrix
    return float(np.abs(np.linalg.eigvals(values)).max())


@torch.no_grad()
def draw(weight: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with uniform numbers from ``-bound`` to ``bound``."""
    weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)


@torch.no_grad()
def draw_recurrent(weight: torch.Tensor, radius: float, generator: torch.Generator) -> None:
    """Fill a square matrix so that ``|weight|`` has this spectral radius.

    Args:
        weight: float32 (n, n); its diagonal becomes zero.
    """
    draw(weight, 1.0, generator)
    weight.fill_diagonal_(0)
    weight.mul_(radius / spectral_radius(weight.abs()))
