"""Initial weights: uniform, and those of recurrent synapses scaled to a spectral radius."""

from __future__ import annotations

import numpy as np
import torch

from delaynet_lava.nn.dense import Readout
from delaynet_lava.nn.recurrent import DelayRecurrent

__all__ = ["draw", "draw_recurrent", "initialise", "spectral_radius"]


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


@torch.no_grad()
def initialise(
    hidden: DelayRecurrent, readout: Readout, input_gain: float, radius: float, readout_gain: float, seed: int
) -> None:
    """Draw all weights uniformly from a seed.

    Input weights from ``+-input_gain * threshold``; recurrent weights scaled so that the spectral
    radius of ``|W_rec|`` in units of the threshold is ``radius`` (what the published code fixes,
    1.0 to 1.7); readout weights from ``+-readout_gain``. The diagonal of W_rec is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    threshold = hidden.neuron.threshold
    draw(hidden.input_synapse.weight, input_gain * threshold, generator)
    draw(readout.synapse.weight, readout_gain, generator)
    recurrent = hidden.recurrent_synapse.weight
    draw_recurrent(recurrent.view(recurrent.shape[:2]), radius * threshold, generator)
