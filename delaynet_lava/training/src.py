"""Networks of Spiking Recurrent Cells that training builds from a recipe."""

from __future__ import annotations

from typing import Any

import torch

from delaynet_lava.nn import SpikingRecurrentCell, lattice_delays
from delaynet_lava.tasks.base import Task
from delaynet_lava.training import delaynet
from delaynet_lava.training.recipe import Recipe, even, of_layer

__all__ = ["build"]

CELLS: dict[str, dict[str, Any]] = {
    "paper": {},
    "fpga": {"squash": "sign", "activation": "clip", "slow": 8},
}
"""Parameters of the neuron by the recipe's word.

fpga: that of arXiv 2605.10679, at our scale of 4096 instead of 1000.
"""


def build(recipe: Recipe, task: Task, seed: int) -> torch.nn.Sequential:
    """Layers of :class:`SpikingRecurrentCell`, and the answering layer of the other networks."""
    network = recipe.network
    sizes = (task.channels, *network.layers)
    blocks: list[torch.nn.Module] = []
    for layer, neurons in enumerate(network.layers):
        delays = None
        if of_layer(network.recurrent, layer):
            groups = of_layer(network.delays, layer, many=True)
            shares = of_layer(network.shares, layer, many=True) or even(len(groups))
            delays = lattice_delays(neurons, groups, seed + layer, shares)
        blocks.append(
            SpikingRecurrentCell(
                dict(CELLS[network.cell]),
                sizes[layer],
                neurons,
                recurrent_delay=delays,
                weight_bits=of_layer(network.weight_bits, layer),
                weight_exp=of_layer(network.weight_exp, layer),
                in_exp=network.output_bits if layer else task.payload_bits,
                output_bits=network.output_bits,
                feedback_grad=recipe.gradient.feedback,
            )
        )
    assert task.classes is not None  # samples.pools refused
    answer = delaynet.answer(recipe, sizes[-1], task.classes, task.dt_ms, trained=False)
    return torch.nn.Sequential(*blocks, answer)
