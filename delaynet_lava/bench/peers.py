"""Training steps of others on the same shape: loops in torch, and what other libraries have.

All of them compute in 32-bit floats with the weights of the network that is measured, and each with
its own surrogate. Of the libraries none has delays; a network without them spikes at another rate,
which changes nothing in what their dense products cost. The input is in each one's own layout before
the clock starts, the feed-forward product is taken over all steps at once where the layer lets it,
and so is the readout's membrane after the last step, except for SLAYER, which has a block for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.loops import LastMembrane, PlainLoop, TunedLoop, keep, weights
from delaynet_lava.bench.subject import Subject, inputs_and_labels, stack
from delaynet_lava.bench.training import blocks_work, neuron_params, trained, training_work
from delaynet_lava.network import Dense, Network, lif

__all__ = ["compiled", "loop", "norse", "prepared", "slayer", "snntorch", "spikingjelly", "tuned"]

# A hidden layer of a library: its module, and what makes spikes (T, B, N) of an input (T, B, C).
Made = tuple[torch.nn.Module, Callable[[torch.Tensor], torch.Tensor]]


def prepared(
    subject: dict[str, Any], samples: int, steps: int, inputs: str
) -> tuple[Network, torch.Tensor, np.ndarray]:
    """The network, its input as (steps, batch, channels), and the labels."""
    network = Subject.of(subject).network()
    x, labels = inputs_and_labels(subject, inputs, samples, steps)
    return network, torch.from_numpy(x).transpose(0, 1).to(torch.float32).contiguous(), labels


def _stacked(
    make: Callable[[Dense, torch.Tensor, torch.Tensor], Made],
    subject: dict[str, Any],
    samples: int,
    steps: int,
    inputs: str,
) -> Work:
    """A training step of layers that ``make`` makes of a layer, its input and its recurrent weights."""
    network, x, labels = prepared(subject, samples, steps, inputs)
    hidden, out = stack(network)
    made = [make(layer, weights(layer.synapse), weights(back)) for layer, back in hidden]
    readout = LastMembrane(weights(out.synapse), keep(out), steps)
    net = torch.nn.ModuleList([*(module for module, _ in made), readout])

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = [x]
        for _, call in made:
            spikes.append(call(spikes[-1]))
        return readout(spikes[-1]), spikes[1:]

    return training_work(forward, trained(net), labels, samples * steps)


def loop(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of :class:`PlainLoop`."""
    network, x, labels = prepared(subject, samples, steps, inputs)
    net = PlainLoop(network)

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = net(x)
        return net.membranes, spikes

    return training_work(forward, list(net.parameters()), labels, samples * steps)


def tuned(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task", jit: bool = False) -> Work:
    """A training step of :class:`TunedLoop`; ``jit``: what it does in a step goes through torch.compile."""
    network, x, labels = prepared(subject, samples, steps, inputs)
    hidden, out = stack(network)
    net = torch.nn.ModuleList([TunedLoop(layer, back, jit=jit) for layer, back in hidden])
    readout = LastMembrane(weights(out.synapse), keep(out), steps)

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = [x]
        for layer in net:
            spikes.append(layer(spikes[-1]))
        return readout(spikes[-1]), spikes[1:]

    parameters = [*net.parameters(), *readout.parameters()]
    return training_work(forward, parameters, labels, samples * steps)


def compiled(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """:func:`tuned` through torch.compile."""
    return tuned(subject, samples, steps, inputs, jit=True)


def slayer(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of SLAYER's ``cuba.Recurrent`` and ``cuba.Affine``, without delays."""
    from delaynet_lava.quiet import quiet_import

    with quiet_import():
        from lava.lib.dl.slayer.block import cuba

    network, x, labels = prepared(subject, samples, steps, inputs)
    x = x.permute(1, 2, 0).contiguous()
    hidden, out = stack(network)
    net = torch.nn.ModuleList(
        cuba.Recurrent(neuron_params(layer), layer.synapse.shape[1], layer.size) for layer, _ in hidden
    )
    net.append(cuba.Affine(neuron_params(out), *reversed(out.synapse.shape)))
    synapses = [(net[-1].synapse, out.synapse)]
    for block, (layer, back) in zip(net, hidden, strict=False):
        synapses += [(block.input_synapse, layer.synapse), (block.recurrent_synapse, back)]
    with torch.no_grad():
        for part, synapse in synapses:
            part.weight.copy_(weights(synapse).reshape(part.weight.shape))

    return blocks_work(net, x, labels)


def snntorch(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of snnTorch's ``RLeaky``, without delays."""
    from snntorch import RLeaky

    def make(layer: Dense, into: torch.Tensor, back: torch.Tensor) -> Made:
        feed = torch.nn.Linear(into.shape[1], len(into), bias=False)
        cell = RLeaky(
            beta=keep(layer),
            linear_features=len(back),
            threshold=lif(layer).vth / 64,
            reset_mechanism="zero",
        )
        cell.recurrent = torch.nn.Linear(len(back), len(back), bias=False)
        with torch.no_grad():
            feed.weight.copy_(into)
            cell.recurrent.weight.copy_(back)

        def call(x: torch.Tensor) -> torch.Tensor:
            drive = feed(x)
            spike, membrane = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
            spikes = []
            for a in drive.unbind():
                spike, membrane = cell(a, spike, membrane)
                spikes.append(spike)
            return torch.stack(spikes)

        return torch.nn.ModuleList([feed, cell]), call

    return _stacked(make, subject, samples, steps, inputs)


def norse(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of Norse's ``LIFRecurrent``, without delays."""
    from norse.torch import LIFParameters, LIFRecurrent

    def make(layer: Dense, into: torch.Tensor, back: torch.Tensor) -> Made:
        leak = (1 - keep(layer)) / 0.001
        # Its membrane takes only the leak's share of the current; the threshold goes down with it.
        parameters = LIFParameters(
            tau_syn_inv=torch.tensor(1000.0),
            tau_mem_inv=torch.tensor(leak),
            v_th=torch.tensor(lif(layer).vth / 64 * leak * 0.001),
        )
        cell = LIFRecurrent(
            into.shape[1],
            len(back),
            p=parameters,
            input_weights=torch.nn.Parameter(into),
            recurrent_weights=torch.nn.Parameter(back),
            dt=0.001,
        )
        return cell, lambda x: cell(x)[0]

    return _stacked(make, subject, samples, steps, inputs)


def spikingjelly(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of SpikingJelly's ``LinearRecurrentContainer`` of ``LIFNode``, without delays."""
    from delaynet_lava.quiet import quiet_import

    with quiet_import():  # it looks for SLAYER, which has things to say
        from spikingjelly.activation_based import functional, neuron, surrogate
        from spikingjelly.activation_based import layer as layers

    def make(layer: Dense, into: torch.Tensor, back: torch.Tensor) -> Made:
        n = len(back)
        feed = torch.nn.Linear(into.shape[1], n, bias=False)
        node = neuron.LIFNode(
            tau=1 / (1 - keep(layer)),
            decay_input=False,
            v_threshold=lif(layer).vth / 64,
            surrogate_function=surrogate.ATan(),
        )
        cell = layers.LinearRecurrentContainer(node, n, n, bias=False)
        with torch.no_grad():
            feed.weight.copy_(into)
            cell.rc.weight.copy_(torch.cat([torch.eye(n), back], dim=1))

        def call(x: torch.Tensor) -> torch.Tensor:
            functional.reset_net(cell)
            # Its own loop over steps takes x[t], whose gradient is a tensor of all steps at every step.
            return torch.stack([cell(a) for a in feed(x).unbind()])

        return torch.nn.ModuleList([feed, cell]), call

    return _stacked(make, subject, samples, steps, inputs)
