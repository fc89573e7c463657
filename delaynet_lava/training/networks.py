"""The networks that can be trained, by name, as they are before training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from delaynet_lava.fixedpoint import MEMBRANE_BITS, full_scale_above
from delaynet_lava.formats.model_file import ModelFile, load_model
from delaynet_lava.kernels.tensors import STATE_SCALE
from delaynet_lava.nn import DelayRecurrent, SpikingRecurrentCell
from delaynet_lava.nn.model import describe, take_over
from delaynet_lava.tasks.base import Task
from delaynet_lava.training import delaynet, src
from delaynet_lava.training.baselines import lsnn
from delaynet_lava.training.initial import fit_rates, initialise
from delaynet_lava.training.recipe import Recipe
from delaynet_lava.training.samples import Pool

__all__ = ["NETWORKS", "InitWarning", "as_tensor", "build_network"]

NETWORKS: dict[str, Callable[[Recipe, Task, int], torch.nn.Sequential]] = {
    "delaynet": delaynet.build,
    "lif": partial(delaynet.build, trained=False),
    "lsnn": lsnn.build,
    "src": src.build,
}
_PROBE = 64


class InitWarning(UserWarning):
    """A training goes on from a model that was made for another reset or step."""


def build_network(recipe: Recipe, pool: Pool, seed: int) -> torch.nn.Sequential:
    """The network of a training before its first step: drawn from the seed, or from the model to go on from.

    Args:
        pool: of training samples, which say the network's size, and of which some are run where the recipe
            asks for a rate, or for full scales that nothing reaches.

    Raises:
        InputError: the model to go on from can't be read, or is of another network.

    Warns:
        InitWarning: it was made for another reset or step.
    """
    network = recipe.network
    if network.membrane_bits < MEMBRANE_BITS and not (network.full_scale_exp and network.full_scale_out_exp):
        recipe = _with_full_scales(recipe, pool, seed)
    net = NETWORKS[network.kind](recipe, pool.task, seed)
    initialise(net, recipe.init, seed)
    if recipe.init.model:
        model = load_model(recipe.init.model)
        if recipe.init.kind == "relay":
            model = _deepened(model, net)
        take_over(net, model.state_dict, recipe.init.model, "use the recipe it was trained with")
        _go_on(net, model, recipe.init.model, pool.task.dt_ms)
        _meet_exponents(net, model)
    elif recipe.init.rate:
        first_only = recipe.init.kind == "relay"
        x = as_tensor(pool.first(0, pool.most(_PROBE))[0])
        fit_rates(net[:1] if first_only else net, x, recipe.init.rate)
    return net


def _deepened(model: ModelFile, net: torch.nn.Sequential) -> ModelFile:
    """A shallower model with the layers that it lacks, as the network begins with them, before its answer."""
    layers = model.config["layers"]
    hidden, added = len(layers) - 1, len(net) - len(layers)
    if added <= 0:
        return model
    drawn = describe(net)
    state: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict.items():
        number, _, rest = name.partition(".")
        state[f"{len(net) - 1}.{rest}" if int(number) == hidden else name] = value
    for name, value in drawn.state_dict.items():
        if hidden <= int(name.partition(".")[0]) < hidden + added:
            state[name] = value
    entries = [*layers[:-1], *drawn.config["layers"][hidden : hidden + added], layers[-1]]
    return ModelFile(model.config | {"layers": entries}, state, model.provenance)


def _go_on(net: torch.nn.Sequential, model: ModelFile, path: str, dt_ms: float) -> None:
    """Keep the model's connections of a neuron to itself, which no network of ours begins with; and say where
    it was made for another reset or step, so that it does not compute what it did.

    Warns:
        InitWarning: for that reason.
    """
    step = model.config.get("dt_ms", dt_ms)
    if step != dt_ms:
        text = f"a step lasts {step} ms there, {dt_ms:g} ms in the task; decays and delays count in steps"
        warnings.warn(f"{path}: {text}", InitWarning, stacklevel=2)
    for layer, (block, entry) in enumerate(zip(net, model.config["layers"], strict=False)):
        back = model.state_dict.get(f"{layer}.recurrent_synapse.weight")
        if isinstance(block, DelayRecurrent) and back is not None and entry.get("self_connection", True):
            block.self_connection = bool(torch.diagonal(back).any())
        reset, asked = entry.get("reset", "zero"), getattr(block, "reset", None)
        if asked is not None and reset != asked:
            text = f"layer {layer} was made for the reset {reset}, the recipe trains it with {asked}"
            remedy = f"to keep it: --set network.reset={reset}"
            warnings.warn(f"{path}: {text}; {remedy}", InitWarning, stacklevel=2)


@torch.no_grad()
def _meet_exponents(net: torch.nn.Sequential, start: ModelFile) -> None:
    """Scale weights that were stored for words of another exponent, so that they mean the same."""
    for block, entry in zip(net, start.config["layers"], strict=False):
        if isinstance(block, SpikingRecurrentCell):
            for name, weight in block.named_parameters():
                if name.endswith("synapse.weight"):
                    weight.mul_(2.0 ** (block.weight_exp - int(entry.get("weight_exp", 0))))


@torch.no_grad()
def _with_full_scales(recipe: Recipe, pool: Pool, seed: int) -> Recipe:
    """The smallest full scales above the thresholds, and above what the answer reaches on some samples."""
    network = recipe.network
    net = build_network(replace(recipe, network=replace(network, membrane_bits=MEMBRANE_BITS)), pool, seed)
    inputs = as_tensor(pool.first(0, pool.most(_PROBE))[0])
    hidden = max(full_scale_above(block.neuron.v_th_mant) for block in list(net)[:-1])
    # A word of n bits has no grid finer than its own unit.
    finest = network.membrane_bits - 1
    if recipe.decision.kind == "count":
        answer = full_scale_above(net[-1].neuron.v_th_mant)
    else:
        answer = int(float(net(inputs).abs().max()) * STATE_SCALE).bit_length()
    scales: dict[str, Any] = {
        "full_scale_exp": network.full_scale_exp or max(hidden, finest),
        "full_scale_out_exp": network.full_scale_out_exp or min(23, max(answer, finest)),
    }
    return replace(recipe, network=replace(network, **scales))


def as_tensor(inputs: np.ndarray) -> torch.Tensor:
    """Whole numbers (N, T, channels) as (N, channels, T), in the type they have: our blocks take any."""
    return torch.from_numpy(inputs).transpose(1, 2)
