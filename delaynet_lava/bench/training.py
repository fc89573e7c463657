"""A training step: this package's, and what it has in common with those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.subject import inputs_and_labels, made, parts
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network, lif

__all__ = ["WIDTH", "blocks", "neuron_params", "training", "training_work"]

WIDTH = 1.39  # of the surrogate, in thresholds, as `delaynet train` has it


def training_work(
    forward: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    parameters: list[torch.nn.Parameter],
    labels: np.ndarray,
    amount: float,
) -> Work:
    """A training step without the optimiser: forward, cross-entropy, backward.

    Args:
        forward: gives the readout's membranes after the last step, (samples, classes), and the
            hidden spikes in any layout.
    """
    target = torch.from_numpy(labels)
    seen: dict[str, torch.Tensor] = {}

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        membranes, seen["spikes"] = forward()
        seen["loss"] = torch.nn.functional.cross_entropy(membranes, target)
        seen["loss"].backward()

    def facts() -> dict[str, Any]:
        grads = [p.grad for p in parameters if p.grad is not None]
        return {
            "rate": float(seen["spikes"].detach().mean()),
            "loss": float(seen["loss"].detach()),
            "gradient_finite": all(bool(torch.isfinite(g).all()) for g in grads),
        }

    return Work(run, amount, facts)


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

    hidden, back, out = parts(network)
    synapses = (hidden.synapse, back, out.synapse)
    delay = np.where(back.weight != 0, back.delay, 0).max(axis=0).astype(int)
    if any(s.weight_exp for s in synapses) or ((back.weight != 0) & (back.delay != delay)).any():
        raise InputError("network", "has weight exponents, or delays that are not axonal")
    more = {"tau_grad": WIDTH, "requires_grad": True}
    first = DelayRecurrent(
        neuron_params(hidden) | more, network.channels, hidden.size, delay, feedback_grad=feedback
    )
    last = Readout(neuron_params(out) | more, hidden.size, out.size)
    with torch.no_grad():
        for block in (first, last):
            # The paper's LIF has no current memory, before training and after it.
            block.neuron.current_decay.requires_grad_(False)
        for part, synapse in zip(
            (first.input_synapse, first.recurrent_synapse, last.synapse), synapses, strict=True
        ):
            part.weight.copy_(torch.from_numpy(synapse.weight / 64.0).reshape(part.weight.shape))
    return torch.nn.Sequential(first, last)


def training(
    subject: dict[str, Any],
    samples: int,
    steps: int,
    inputs: str = "task",
    rate: float | None = None,
    feedback: float = 1.0,
) -> Work:
    """A training step of DelayRecurrent and Readout."""
    spikes, labels = inputs_and_labels(subject, inputs, samples, steps)
    net = blocks(made(subject, spikes, rate), feedback)
    x = torch.from_numpy(spikes).transpose(1, 2).to(torch.float32).contiguous()

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        hidden = net[0](x)
        return net[1](hidden)[..., -1], hidden

    return training_work(forward, [p for p in net.parameters() if p.requires_grad], labels, samples * steps)
