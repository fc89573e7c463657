"""A training step: this package's, and what it has in common with those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.subject import inputs_and_labels, made, stack
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network, lif

__all__ = [
    "WIDTH",
    "blocks",
    "blocks_work",
    "neuron_params",
    "step_of",
    "trained",
    "training",
    "training_work",
]

WIDTH = 1.39  # of the surrogate, in thresholds, as `delaynet train` has it


def training_work(
    forward: Callable[[], tuple[torch.Tensor, list[torch.Tensor]]],
    parameters: list[torch.nn.Parameter],
    labels: np.ndarray,
    amount: float,
) -> Work:
    """A training step without the optimiser: forward, cross-entropy, backward.

    Args:
        forward: gives the readout's membranes after the last step, (samples, classes), and the
            spikes of each hidden layer in any layout.
    """
    target = torch.from_numpy(labels)
    seen: dict[str, Any] = {}

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        membranes, seen["spikes"] = forward()
        seen["loss"] = torch.nn.functional.cross_entropy(membranes, target)
        seen["loss"].backward()

    def facts() -> dict[str, Any]:
        grads = [p.grad for p in parameters if p.grad is not None]
        return {
            "rate": float(np.mean([_rate(spikes) for spikes in seen["spikes"]])),
            "loss": float(seen["loss"].detach()),
            "gradient_finite": all(bool(torch.isfinite(g).all()) for g in grads),
        }

    return Work(run, amount, facts)


def _rate(spikes: torch.Tensor) -> float:
    population = getattr(spikes, "population", None)
    total = spikes.sum() if population is None else population.sum()
    return float(total.detach()) / spikes.numel()


def trained(net: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Its parameters that have a gradient."""
    return [p for p in net.parameters() if p.requires_grad]


def neuron_params(layer: Dense) -> dict[str, Any]:
    """A layer's neuron in SLAYER's units."""
    neuron = lif(layer)
    return {
        "threshold": neuron.vth / 64,
        "current_decay": neuron.du / 4096,
        "voltage_decay": neuron.dv / 4096,
    }


def blocks(network: Network, feedback: float = 1.0) -> torch.nn.Sequential:
    """The network as this package's SLAYER blocks.

    Args:
        feedback: factor on the gradient along recurrent synapses; 1 is exact.

    Raises:
        InputError: exponents or delays by synapse, which blocks do not have.
    """
    from delaynet_lava.nn import DelayRecurrent, Readout

    hidden, out = stack(network)
    layers: list[torch.nn.Module] = []
    more = {"tau_grad": WIDTH, "requires_grad": True}
    for layer, back in hidden:
        delay = np.where(back.weight != 0, back.delay, 0).max(axis=0).astype(int)
        exponents = layer.synapse.weight_exp, back.weight_exp, out.synapse.weight_exp
        if any(exponents) or ((back.weight != 0) & (back.delay != delay)).any():
            raise InputError("network", "has weight exponents, or delays that are not axonal")
        block = DelayRecurrent(
            neuron_params(layer) | more, layer.synapse.shape[1], layer.size, delay, feedback_grad=feedback
        )
        _set(block.input_synapse, layer.synapse.weight)
        _set(block.recurrent_synapse, back.weight)
        layers.append(block)
    readout = Readout(neuron_params(out) | more, out.synapse.shape[1], out.size)
    _set(readout.synapse, out.synapse.weight)
    for part in (*layers, readout):
        # The paper's LIF has no current memory, before training and after it.
        part.neuron.current_decay.requires_grad_(False)
    return torch.nn.Sequential(*layers, readout)


@torch.no_grad()
def _set(synapse: torch.nn.Module, weight: np.ndarray) -> None:
    synapse.weight.copy_(torch.from_numpy(weight / 64.0).reshape(synapse.weight.shape))


def blocks_work(net: Any, x: torch.Tensor, labels: np.ndarray) -> Work:
    """A training step of SLAYER-style blocks on x (samples, channels, steps); the last membrane answers."""

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = [x]
        for block in net[:-1]:
            spikes.append(block(spikes[-1]))
        return net[-1](spikes[-1])[..., -1], spikes[1:]

    return training_work(forward, trained(net), labels, x.shape[0] * x.shape[2])


def step_of(network: Network, inputs: np.ndarray, labels: np.ndarray, feedback: float = 1.0) -> Work:
    """A step of our blocks as a training takes it: spikes between them stay bits, inputs come as they are."""
    from delaynet_lava.nn.blocks import leave_as_bits

    net = blocks(network, feedback)
    leave_as_bits(net)
    return blocks_work(net, torch.from_numpy(inputs).transpose(1, 2), labels)


def training(
    subject: dict[str, Any],
    samples: int,
    steps: int,
    inputs: str = "task",
    rate: float | None = None,
    feedback: float = 1.0,
) -> Work:
    """A training step of DelayRecurrent, one or several, and Readout."""
    spikes, labels = inputs_and_labels(subject, inputs, samples, steps)
    return step_of(made(subject, spikes, rate), spikes, labels, feedback)
