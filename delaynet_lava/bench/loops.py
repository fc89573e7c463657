"""The recurrence as a loop over steps in torch: as one writes it down, and as fast as that goes."""

from __future__ import annotations

import numpy as np
import torch

from delaynet_lava.bench.subject import stack
from delaynet_lava.bench.training import WIDTH
from delaynet_lava.network import Dense, Network, Synapse, lif

__all__ = ["LastMembrane", "PlainLoop", "Spike", "TunedLoop", "groups_of", "keep", "weights"]


def weights(synapse: Synapse) -> torch.Tensor:
    """(post, pre) in SLAYER's units."""
    return torch.from_numpy(synapse.weight * 2.0**synapse.weight_exp / 64).to(torch.float32)


def keep(layer: Dense) -> float:
    """What membranes keep from one step to the next."""
    return 1 - int(lif(layer).dv) / 4096


def groups_of(synapse: Synapse) -> tuple[np.ndarray, list[int], list[int]]:
    """Senders by their axonal delays: their order, the delay of each group, and how many are in it."""
    delay = np.where(synapse.weight != 0, synapse.delay, 0).max(axis=0).astype(int)
    order = np.argsort(delay, kind="stable")
    delays, sizes = np.unique(delay, return_counts=True)
    return order, delays.tolist(), sizes.tolist()


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


def _step(a, seen, back, v, keep, threshold):  # type: ignore[no-untyped-def]
    v = keep * v + (a + seen @ back)
    s = Spike.apply(v - threshold, WIDTH * threshold)
    return s, v * (1 - s)


class TunedLoop(torch.nn.Module):
    """A layer with delayed recurrence as a loop over steps that does only what has to be done at every step.

    .. math::
        v[t] &= k v[t-1] (1 - s[t-1]) + W x[t] + \\sum_j R_{ij} s_j[t - 1 - d_j]

    Of what was sent, the part that arrives now is put together from groups of neurons with one delay, and
    multiplied once.

    Args:
        layer, back: reset to zero, no current memory; axonal delays.
        dtype: of weights and states.
        jit: whether torch compiles the step.
    """

    def __init__(
        self, layer: Dense, back: Synapse, dtype: torch.dtype = torch.float32, jit: bool = False
    ) -> None:
        super().__init__()
        self.into = torch.nn.Parameter(weights(layer.synapse).to(dtype))
        self.back = torch.nn.Parameter(weights(back).to(dtype))
        order, self.delays, self.sizes = groups_of(back)
        self.order = None if np.all(np.diff(order) > 0) else torch.from_numpy(order)
        self.keep, self.threshold = keep(layer), lif(layer).vth / 64
        self.step = torch.compile(_step, dynamic=False) if jit else _step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (steps, batch, neurons) for an input (steps, batch, channels)."""
        into: torch.Tensor = self.into
        back: torch.Tensor = self.back
        if self.order is not None:  # of their delays: a group is a slice
            into, back = into[self.order], back[self.order][:, self.order]
        drive, back = x @ into.t(), back.t()
        v = torch.zeros_like(drive[0])
        nothing = v.split(self.sizes, dim=1)
        spikes: list[torch.Tensor] = []
        sent: list[tuple[torch.Tensor, ...]] = []
        # Not drive[t], whose gradient would be a tensor of all steps at every step.
        for t, a in enumerate(drive.unbind()):
            seen = torch.cat(
                [sent[t - 1 - d][k] if t > d else nothing[k] for k, d in enumerate(self.delays)], 1
            )
            s, v = self.step(a, seen, back, v, self.keep, self.threshold)
            spikes.append(s)
            sent.append(s.split(self.sizes, dim=1))
        found = torch.stack(spikes)
        return found if self.order is None else found[:, :, torch.argsort(self.order)]


class PlainLoop(torch.nn.Module):
    """All layers in one loop, as one writes the equations down: masked matrices and readout at each step.

    Attributes:
        into, back: weights of each hidden layer; out: of the readout.
        membranes: of the readout, after the last step of the last call.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        hidden, readout = stack(network)
        self.into = torch.nn.ParameterList(weights(layer.synapse).to(dtype) for layer, _ in hidden)
        self.back = torch.nn.ParameterList(weights(back).to(dtype) for _, back in hidden)
        self.out, self.keep_out = torch.nn.Parameter(weights(readout.synapse).to(dtype)), keep(readout)
        self.keep = [keep(layer) for layer, _ in hidden]
        self.threshold = [lif(layer).vth / 64 for layer, _ in hidden]
        self.masks = [
            {int(d): torch.from_numpy(back.delay == d).to(dtype) for d in np.unique(back.delay)}
            for _, back in hidden
        ]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Spikes of each hidden layer (steps, batch, neurons) for an input (steps, batch, channels)."""
        v = [x.new_zeros(x.shape[1], len(back)) for back in self.back]
        membranes = x.new_zeros(x.shape[1], len(self.out))
        spikes: list[list[torch.Tensor]] = [[] for _ in v]
        for t in range(len(x)):
            s = x[t]
            for k, back in enumerate(self.back):
                a = s @ self.into[k].t()
                for delay, mask in self.masks[k].items():
                    if t > delay:
                        a = a + spikes[k][t - 1 - delay] @ (back * mask).t()
                v[k] = self.keep[k] * v[k] + a
                s = Spike.apply(v[k] - self.threshold[k], WIDTH * self.threshold[k])
                v[k] = v[k] * (1 - s)
                spikes[k].append(s)
            membranes = self.keep_out * membranes + s @ self.out.t()
        self.membranes = membranes
        return [torch.stack(of_layer) for of_layer in spikes]
