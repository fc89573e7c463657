"""What a layer's tensors are to the compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from delaynet_lava.fixedpoint import DECAY_ONE, STATE_SHIFT, WEIGHT_SCALE
from delaynet_lava.kernels.dynamics import Dynamics
from delaynet_lava.kernels.training_pass import LayerPass

__all__ = [
    "NOTHING",
    "NO_NUMBERS",
    "STATE_SCALE",
    "SpikeBits",
    "add_start",
    "by_products",
    "float_type",
    "forward_pass",
    "numbers_of",
]

STATE_SCALE = float(WEIGHT_SCALE << STATE_SHIFT)
NO_NUMBERS = torch.full((1, 1, 1), torch.nan)
"""What stands for spikes that are handed on as bits alone, (B, T, N) when expanded."""
NOTHING = np.zeros((0, 0, 0), np.float32)
"""What a loop is given for what is not there, or not wanted."""


class SpikeBits(NamedTuple):
    """A spike tensor's content as bits.

    Attributes:
        bits: int64 (B, T, words), late by ``shift`` in the tensor.
        alone: whether the tensor holds no numbers, and takes its gradient as a
            :class:`kernels.factored.Factored` too.
    """

    bits: torch.Tensor
    shift: int
    alone: bool = False


def float_type(x: torch.Tensor) -> torch.dtype:
    """Type of what a layer returns for this input: its own, float32 for whole numbers."""
    return x.dtype if x.is_floating_point() else torch.float32


def numbers_of(x: torch.Tensor) -> np.ndarray:
    """What a tensor of any type holds; NumPy has no bfloat16, and the loops no halves."""
    x = x.detach()
    return (x.to(torch.float32) if x.is_floating_point() else x).numpy()


def forward_pass(
    x: torch.Tensor,
    seen: SpikeBits | None,
    weights: tuple[torch.Tensor, torch.Tensor | None],
    neuron: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    bias: np.ndarray | None,
    dyn: Dynamics,
    kept: tuple[bool, bool],
) -> LayerPass:
    """Run a layer; tensors as of :func:`kernels.autograd.delayed_recurrence`.

    Args:
        seen: ``x`` as bits, or None where it holds payloads.
        weights: of the input, and recurrent ones.
        neuron: both decays, and the threshold; None: the neurons do not spike.
        kept: whether the backward pass needs v, and u.
    """
    bits, lead, values = None, 0, None
    if seen is None:
        values = x.detach().to(torch.int32).contiguous().numpy()
    else:
        bits, lead = seen.bits.numpy().view(np.uint64), seen.shift
    w_in, w_rec = weights
    du, dv, threshold = neuron
    vth = 0 if threshold is None else int(float(threshold) * WEIGHT_SCALE)
    back = None if w_rec is None else w_rec.detach().numpy()
    decays = round(float(du)), round(float(dv))
    return LayerPass(bits, lead, values, w_in.detach().numpy(), back, *decays, vth, bias, dyn, *kept)


def add_start(
    scalars: np.ndarray, carried: tuple[np.ndarray, np.ndarray], initial: tuple[np.ndarray, np.ndarray]
) -> None:
    """Add what the first step decayed, the initial state, to the gradients of du and dv.

    Args:
        scalars: float64 (GROUPS, 2 or more), those of du and dv first.
        carried: float32 (B, P) each, the gradients of current and membrane at the first step.
        initial: int32 (N,) each.
    """
    for k, (g, start) in enumerate(zip(carried, initial, strict=True)):
        scalars[0, k] -= (g[:, : len(start)].sum(axis=0) * (start / STATE_SCALE)).sum() / DECAY_ONE


def by_products(
    of_sums: torch.Tensor, payloads: np.ndarray, w_in: torch.Tensor, wanted: tuple[bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of payloads (B, T, C) and of their weights (N, C), where wanted.

    Args:
        of_sums: float32 (B, T, N), gradient of the synaptic sums.
    """
    of_x, of_w = wanted
    kind = of_sums.dtype
    return (
        of_sums @ w_in.detach().to(kind) if of_x else None,
        of_sums.flatten(0, 1).T @ torch.from_numpy(payloads).flatten(0, 1).to(kind) if of_w else None,
    )
