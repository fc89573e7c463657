"""Initial weights of a delayed recurrent layer, scaled to a spectral radius."""

from __future__ import annotations

import numpy as np
import torch

from delaynet_lava.nn.recurrent import DelayRecurrent, Readout

__all__ = ["initialise", "spectral_radius"]


def spectral_radius(matrix: torch.Tensor | np.ndarray) -> float:
    """Largest absolute eigenvalue of a square matrix."""
    values = matrix.detach().numpy() if isinstance(matrix, torch.Tensor) else matrix
    return float(np.abs(np.linalg.eigvals(values)).max())


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

    def uniform(parameter: torch.Tensor, bound: float) -> None:
        parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)

    uniform(hidden.input_synapse.weight, input_gain * threshold)
    uniform(readout.synapse.weight, readout_gain)
    recurrent = hidden.recurrent_synapse.weight
    uniform(recurrent, 1.0)
    square = recurrent.view(recurrent.shape[:2])
    square.fill_diagonal_(0)
    square.mul_(radius * threshold / spectral_radius(square.abs()))
