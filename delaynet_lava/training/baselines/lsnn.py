"""LSNN: as many LIF neurons as neurons with an adaptive threshold, whose adaptation remembers for 2 s."""

from __future__ import annotations

import torch

from delaynet_lava.nn import AdaptiveRecurrent, Readout
from delaynet_lava.tasks.base import Task
from delaynet_lava.training.delaynet import decay
from delaynet_lava.training.recipe import Recipe, of_layer

__all__ = ["ADAPTATION_TAU_MS", "build"]

ADAPTATION_TAU_MS = 2000.0


def build(recipe: Recipe, task: Task, seed: int) -> torch.nn.Sequential:
    """:class:`AdaptiveRecurrent` layers and a :class:`Readout`, weights not drawn yet.

    A spike raises the threshold of the adaptive half by 2.9 % (0.0174 at 0.6, as Bellec et al., 2020).

    Args:
        seed: nothing here follows from it.
    """
    network, sizes = recipe.network, (task.channels, *recipe.network.layers)
    blocks: list[torch.nn.Module] = []
    for layer, neurons in enumerate(network.layers):
        threshold = of_layer(network.threshold, layer)
        hidden = AdaptiveRecurrent(
            sizes[layer],
            neurons,
            threshold=threshold,
            adaptation=0.029 * threshold,
            # The layer's steps are of 1 ms.
            tau_ms=of_layer(network.tau_ms, layer) / task.dt_ms,
            adaptation_tau_ms=ADAPTATION_TAU_MS / task.dt_ms,
            recurrent=of_layer(network.recurrent, layer),
            feedback_grad=recipe.gradient.feedback,
        )
        blocks.append(hidden)
    memory = {"current_decay": 1.0, "voltage_decay": decay(network.tau_out_ms, task.dt_ms)}
    assert task.classes is not None  # samples.pools refused
    return torch.nn.Sequential(*blocks, Readout(memory, sizes[-1], task.classes))
