"""Stacks of LIF layers in the chip's integers: recurrent with delays or feed-forward, and an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.nn import Axon, DelayRecurrent, Dense, Readout
from delaynet_lava.nn.lattice import delay_groups, lattice_delays
from delaynet_lava.tasks.base import Task
from delaynet_lava.training.recipe import Recipe, even, of_layer

__all__ = ["build", "decay"]


def decay(tau_ms: float, dt_ms: float = 1.0) -> float:
    """Share of a membrane that a step takes: ``1 - exp(-dt / tau)``."""
    return float(-np.expm1(-dt_ms / tau_ms))


def _membrane(bits: int, full_scale_exp: int) -> dict[str, int]:
    """Parameters of a neuron whose membrane has fewer bits than the chip's; none where it has them all."""
    if bits == MEMBRANE_BITS:
        return {}
    return {"membrane_bits": bits, "full_scale_exp": full_scale_exp}


def build(recipe: Recipe, task: Task, seed: int, trained: bool = True) -> torch.nn.Sequential:
    """:class:`DelayRecurrent` and :class:`Dense` layers and a :class:`Readout`, or a Dense that is counted.

    Weights are SLAYER's own until :mod:`delaynet_lava.training.networks` draws them; delays are drawn here.

    Args:
        trained: whether decays and thresholds are trained; False: only weights are.
    """
    sizes = (task.channels, *recipe.network.layers)
    blocks = [
        _hidden(recipe, layer, sizes[layer], task.dt_ms, seed, trained)
        for layer in range(len(recipe.network.layers))
    ]
    assert task.classes is not None  # samples.pools refused
    blocks.append(answer(recipe, sizes[-1], task.classes, task.dt_ms, trained))
    for block in blocks:
        # The paper's LIF has no current memory, before training and after it.
        block.neuron.current_decay.requires_grad_(False)
    return torch.nn.Sequential(*blocks)


def _spiking(recipe: Recipe, tau_ms: float, threshold: float, dt_ms: float, trained: bool) -> dict[str, Any]:
    return {
        "threshold": threshold,
        "current_decay": 1.0,
        "voltage_decay": decay(tau_ms, dt_ms),
        "tau_grad": recipe.gradient.surrogate_width,
        "scale_grad": recipe.gradient.dampening,
        "requires_grad": trained,
    }


def _hidden(
    recipe: Recipe, layer: int, channels: int, dt_ms: float, seed: int, trained: bool
) -> torch.nn.Module:
    network, neurons = recipe.network, recipe.network.layers[layer]
    threshold, tau_ms = of_layer(network.threshold, layer), of_layer(network.tau_ms, layer)
    neuron = _spiking(recipe, tau_ms, threshold, dt_ms, trained)
    neuron |= _membrane(network.membrane_bits, network.full_scale_exp)
    common: dict[str, Any] = {
        "reset": of_layer(network.reset, layer),
        "surrogate": recipe.gradient.surrogate,
    }
    arriving = of_layer(network.delays_in, layer, many=True)
    learned = of_layer(network.learn_delays_in, layer)
    if learned or any(arriving):
        groups = delay_groups(channels, arriving, even(len(arriving)))
        common["axon"] = Axon(groups, channels, learned, network.max_delay)
    if not of_layer(network.recurrent, layer):
        return Dense(neuron, channels, neurons, **common)
    delays = of_layer(network.delays, layer, many=True)
    shares = of_layer(network.shares, layer, many=True) or even(len(delays))
    return DelayRecurrent(
        neuron,
        channels,
        neurons,
        # A lattice of its own for each layer.
        lattice_delays(neurons, delays, seed + layer, shares),
        self_connection=False,
        feedback_grad=recipe.gradient.feedback,
        learn_delays=of_layer(network.learn_delays, layer),
        max_delay=network.max_delay,
        **common,
    )


def answer(recipe: Recipe, channels: int, classes: int, dt_ms: float, trained: bool) -> torch.nn.Module:
    """The answering layer: a :class:`Readout`, or a :class:`Dense` whose spikes are counted."""
    network = recipe.network
    membrane = _membrane(network.membrane_bits, network.full_scale_out_exp)
    if recipe.decision.kind == "count":
        neuron = _spiking(recipe, network.tau_out_ms, network.threshold_out, dt_ms, trained)
        reset, surrogate = of_layer(network.reset, -1), recipe.gradient.surrogate
        return Dense(neuron | membrane, channels, classes, reset=reset, surrogate=surrogate)
    neuron = {
        "current_decay": 1.0,
        "voltage_decay": decay(network.tau_out_ms, dt_ms),
        "requires_grad": trained,
    }
    return Readout(neuron | membrane, channels, classes)
