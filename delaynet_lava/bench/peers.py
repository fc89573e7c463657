"""Training steps of others on the same shape: what one would use without this package.

All of them compute in 32-bit floats with the weights of the network that is measured, and each with
its own surrogate. None but the loops have delays; a network without them spikes at another rate,
which changes nothing in what their dense products cost. The input is in each one's own layout before
the clock starts, the feed-forward product is taken over all steps at once where the layer lets it,
and so is the readout's membrane after the last step, except for SLAYER, which has a block for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.subject import Subject, inputs_and_labels, parts
from delaynet_lava.bench.training import WIDTH, neuron_params, training_work
from delaynet_lava.network import Network, lif

__all__ = ["PlainLoop", "TunedLoop", "loop", "norse", "slayer", "snntorch", "spikingjelly", "tuned"]


def _prepared(
    subject: dict[str, Any], samples: int, steps: int, inputs: str
) -> tuple[Network, torch.Tensor, np.ndarray]:
    """The network, its input as (steps, batch, channels), and the labels."""
    network = Subject.of(subject).network()
    spikes, labels = inputs_and_labels(subject, inputs, samples, steps)
    return network, torch.from_numpy(spikes).transpose(0, 1).to(torch.float32).contiguous(), labels


def _weights(network: Network) -> list[torch.Tensor]:
    """Input, recurrent and readout weights (post, pre) in SLAYER's units."""
    hidden, back, readout = parts(network)
    return [
        torch.from_numpy(s.weight * 2.0**s.weight_exp / 64).to(torch.float32)
        for s in (hidden.synapse, back, readout.synapse)
    ]


def _keep(network: Network) -> tuple[float, float]:
    """What hidden membranes and readout membranes keep from one step to the next."""
    hidden, _, out = parts(network)
    return 1 - int(lif(hidden).dv) / 4096, 1 - int(lif(out).dv) / 4096


class Spike(torch.autograd.Function):
    """1 where ``x > 0``; backwards ``clip(1 + x / width, 0, 1) / width``, the paper's surrogate."""

    @staticmethod
    def forward(ctx, x, width):  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.width = width
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * (1 + x / ctx.width).clamp(0, 1) / ctx.width, None


class LastMembrane(torch.nn.Module):
    """Membranes of leaky integrators after the last step, as one weighted sum over the spikes."""

    def __init__(self, weight: torch.Tensor, keep: float, steps: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        share = keep ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        # Shares that 32 bits hold only as denormal numbers would cost time and add nothing.
        self.register_buffer("share", share.where(share > 1e-30, torch.zeros(())).to(weight.dtype))

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """(batch, classes) for spikes (steps, batch, neurons)."""
        return torch.einsum("t,tbn->bn", self.share, spikes) @ self.weight.t()


class TunedLoop(torch.nn.Module):
    """Delayed recurrence as a loop over steps that does only what has to be done at every step.

    .. math::
        v[t] &= k v[t-1] (1 - s[t-1]) + W x[t] + \\sum_d (R \\circ M_d) s[t - 1 - d]

    Args:
        network: reset to zero, no current memory.
        dtype: of weights and states.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        hidden, synapse, _ = parts(network)
        into, back, _ = (w.to(dtype) for w in _weights(network))
        self.into, self.back = torch.nn.Parameter(into), torch.nn.Parameter(back)
        delay = torch.from_numpy(np.array(synapse.delay, np.int64))
        self.delays = sorted({int(d) for d in delay.unique()})
        self.register_buffer("masks", torch.stack([delay == d for d in self.delays]).to(dtype))
        self.keep, self.threshold = _keep(network)[0], lif(hidden).vth / 64

    def _spike(self, v: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        v = self.keep * v + a
        s = Spike.apply(v - self.threshold, WIDTH * self.threshold)
        return s, v * (1 - s)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (steps, batch, neurons) for an input (steps, batch, channels)."""
        drive = x @ self.into.t()
        groups = [(d, (self.back * mask).t()) for d, mask in zip(self.delays, self.masks, strict=True)]
        v = torch.zeros_like(drive[0])
        spikes: list[torch.Tensor] = []
        # Not drive[t], whose gradient would be a tensor of all steps at every step.
        for t, a in enumerate(drive.unbind()):
            for delay, weight in groups:
                if t > delay:
                    a = a + spikes[t - 1 - delay] @ weight
            s, v = self._spike(v, a)
            spikes.append(s)
        return torch.stack(spikes)


class PlainLoop(TunedLoop):
    """The same loop as one writes the equations down: input, masked matrices and readout at each step.

    Attributes:
        membranes: of the readout, after the last step of the last call.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network, dtype)
        self.out, self.keep_out = torch.nn.Parameter(_weights(network)[2].to(dtype)), _keep(network)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (steps, batch, neurons) for an input (steps, batch, channels)."""
        v, membranes = x.new_zeros(x.shape[1], len(self.back)), x.new_zeros(x.shape[1], len(self.out))
        spikes: list[torch.Tensor] = []
        for t in range(len(x)):
            a = x[t] @ self.into.t()
            for delay, mask in zip(self.delays, self.masks, strict=True):
                if t > delay:
                    a = a + spikes[t - 1 - delay] @ (self.back * mask).t()
            s, v = self._spike(v, a)
            membranes = self.keep_out * membranes + s @ self.out.t()
            spikes.append(s)
        self.membranes = membranes
        return torch.stack(spikes)


def _work(
    hidden: torch.nn.Module, readout: torch.nn.Module, call: Any, x: torch.Tensor, labels: np.ndarray
) -> Work:
    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        spikes = call(x)
        return readout(spikes), spikes

    parameters = [p for part in (hidden, readout) for p in part.parameters() if p.requires_grad]
    return training_work(forward, parameters, labels, len(labels) * len(x))


def loop(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of :class:`PlainLoop`."""
    network, x, labels = _prepared(subject, samples, steps, inputs)
    net = PlainLoop(network)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        spikes = net(x)
        return net.membranes, spikes

    return training_work(forward, list(net.parameters()), labels, samples * steps)


def tuned(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of :class:`TunedLoop`."""
    network, x, labels = _prepared(subject, samples, steps, inputs)
    hidden = TunedLoop(network)
    readout = LastMembrane(_weights(network)[2], _keep(network)[1], steps)
    return _work(hidden, readout, hidden, x, labels)


def slayer(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of SLAYER's ``cuba.Recurrent`` and ``cuba.Affine``, without delays."""
    from delaynet_lava.quiet import quiet_import

    with quiet_import():
        from lava.lib.dl.slayer.block import cuba

    network, x, labels = _prepared(subject, samples, steps, inputs)
    x = x.permute(1, 2, 0).contiguous()
    first, _, last = parts(network)
    hidden = cuba.Recurrent(neuron_params(first), network.channels, first.size)
    readout = cuba.Affine(neuron_params(last), first.size, last.size)
    synapses = (hidden.input_synapse, hidden.recurrent_synapse, readout.synapse)
    with torch.no_grad():
        for part, weight in zip(synapses, _weights(network), strict=True):
            part.weight.copy_(weight.reshape(part.weight.shape))

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        spikes = hidden(x)
        return readout(spikes)[..., -1], spikes

    parameters = [p for part in (hidden, readout) for p in part.parameters() if p.requires_grad]
    return training_work(forward, parameters, labels, samples * steps)


def snntorch(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of snnTorch's ``RLeaky``, without delays."""
    from snntorch import RLeaky

    network, x, labels = _prepared(subject, samples, steps, inputs)
    into, back, out = _weights(network)
    feed = torch.nn.Linear(network.channels, len(into), bias=False)
    cell = RLeaky(
        beta=_keep(network)[0],
        linear_features=len(back),
        threshold=lif(network.layers[0]).vth / 64,
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

    readout = LastMembrane(out, _keep(network)[1], steps)
    return _work(torch.nn.ModuleList([feed, cell]), readout, call, x, labels)


def norse(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of Norse's ``LIFRecurrent``, without delays."""
    from norse.torch import LIFParameters, LIFRecurrent

    network, x, labels = _prepared(subject, samples, steps, inputs)
    into, back, out = _weights(network)
    leak = (1 - _keep(network)[0]) / 0.001
    # Its membrane takes only the leak's share of the current; the threshold goes down with it.
    parameters = LIFParameters(
        tau_syn_inv=torch.tensor(1000.0),
        tau_mem_inv=torch.tensor(leak),
        v_th=torch.tensor(lif(network.layers[0]).vth / 64 * leak * 0.001),
    )
    hidden = LIFRecurrent(
        network.channels,
        len(back),
        p=parameters,
        input_weights=torch.nn.Parameter(into),
        recurrent_weights=torch.nn.Parameter(back),
        dt=0.001,
    )
    readout = LastMembrane(out, _keep(network)[1], steps)
    return _work(hidden, readout, lambda x: hidden(x)[0], x, labels)


def spikingjelly(subject: dict[str, Any], samples: int, steps: int, inputs: str = "task") -> Work:
    """A training step of SpikingJelly's ``LinearRecurrentContainer`` of ``LIFNode``, without delays."""
    from delaynet_lava.quiet import quiet_import

    with quiet_import():  # it looks for SLAYER, which has things to say
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

    network, x, labels = _prepared(subject, samples, steps, inputs)
    into, back, out = _weights(network)
    n = len(back)
    feed = torch.nn.Linear(network.channels, len(into), bias=False)
    node = neuron.LIFNode(
        tau=1 / (1 - _keep(network)[0]),
        decay_input=False,
        v_threshold=lif(network.layers[0]).vth / 64,
        surrogate_function=surrogate.ATan(),
    )
    cell = layer.LinearRecurrentContainer(node, n, n, bias=False)
    with torch.no_grad():
        feed.weight.copy_(into)
        cell.rc.weight.copy_(torch.cat([torch.eye(n), back], dim=1))

    def call(x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(cell)
        # Its own loop over steps takes x[t], whose gradient is a tensor of all steps at every step.
        return torch.stack([cell(a) for a in feed(x).unbind()])

    readout = LastMembrane(out, _keep(network)[1], steps)
    return _work(torch.nn.ModuleList([feed, cell]), readout, call, x, labels)
