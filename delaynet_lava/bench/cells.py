"""Training steps of a layer of Spiking Recurrent Cells, 784-100-10: this package's, and plain ones.

Ours computes in the cell's integers, and so does one plain loop; the others in 32-bit floats by the paper's
own equations, with the same weights, so that their spikes are nearly, not exactly, ours. No library has the
cell.

    i[t] = alpha i[t-1] + W x[t]
    h[t] = tanh(3 tanh(i[t] / 3) + 2 h[t-1] - 7 h_s[t-1] + b),   s[t] = h[t] >= 0.5
    h_s[t] = z h_s[t-1] + (1 - z) h[t-1],   z = 0.9 where h[t-1] <= 0.5, else 0

In the backward pass h[t-1] and h_s[t-1] are constants, and ds/dh is 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.loops import LastMembrane
from delaynet_lava.bench.shapes import inputs_of
from delaynet_lava.bench.training import trained, training_work
from delaynet_lava.emulator import emulate
from delaynet_lava.trace import Trace

__all__ = [
    "SIZES",
    "IntegerCells",
    "PlainCells",
    "TunedCells",
    "blocks",
    "compiled",
    "drawn",
    "emulator",
    "integers",
    "loop",
    "ours",
    "scan",
    "tuned",
]

SIZES = (784, 100, 10)
SAMPLES, STEPS = 64, 55
ALPHA, BIAS, TAU_OUT_MS = 0.9, -6.0, 31.5
WEIGHT_SD, OUTPUT_SD, WEIGHT_EXP = 40.0, 8.0, 2
"""Standard deviations of the weight words, of which 64 stand for ``2**-WEIGHT_EXP``."""
SETTLE = 1001


class Drawn(NamedTuple):
    """Seeded weight words, float32 (post, pre); the input float32 (B, T, C) and labels int64 (B,)."""

    into: torch.Tensor
    out: torch.Tensor
    x: torch.Tensor
    labels: np.ndarray

    @property
    def weight(self) -> torch.Tensor:
        """Input weights as the equations have them."""
        return self.into / 64 * 2.0**-WEIGHT_EXP


def drawn(samples: int = SAMPLES, steps: int = STEPS, seed: int = 0) -> Drawn:
    """What all of them compute with."""
    channels, neurons, classes = SIZES
    rng = np.random.default_rng(seed)
    into, out = (
        np.clip(2 * np.rint(rng.standard_normal(shape) * sd / 2), -256, 254).astype(np.float32)
        for shape, sd in (((neurons, channels), WEIGHT_SD), ((classes, neurons), OUTPUT_SD))
    )
    x = inputs_of(samples, steps, rates=True, seed=seed).astype(np.float32)
    labels = np.arange(samples) % classes
    return Drawn(torch.from_numpy(into), torch.from_numpy(out), torch.from_numpy(x), labels)


def blocks(of: Drawn, mode: str = "integer") -> torch.nn.Sequential:
    """The network as this package's blocks; mode: of the cells, integer or float."""
    from delaynet_lava.nn import Readout, SpikingRecurrentCell

    channels, neurons, classes = SIZES
    cells = SpikingRecurrentCell(
        {"bias": BIAS, "current_decay": 1 - ALPHA}, channels, neurons, weight_exp=WEIGHT_EXP, mode=mode
    )
    answer = {"current_decay": 1.0, "voltage_decay": float(-np.expm1(-1 / TAU_OUT_MS))}
    net = torch.nn.Sequential(cells, Readout(answer, neurons, classes))
    with torch.no_grad():
        for block, words in zip(net, (of.into, of.out), strict=True):
            block.synapse.weight.copy_((words / 64).reshape(block.synapse.weight.shape))
    return net


def ours(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """A training step of SpikingRecurrentCell and Readout, in integers."""
    from delaynet_lava.nn.blocks import leave_as_bits

    of = drawn(samples, steps)
    # Bytes, as a training gets them from a task, and bits between the layers.
    net, x = blocks(of), of.x.to(torch.uint8).transpose(1, 2)
    leave_as_bits(net)

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = net[0](x)
        return net[1](spikes)[..., -1], [spikes]

    return training_work(forward, trained(net), of.labels, samples * steps)


def emulator(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """The emulator over the same batch, for the answer's membranes after the last step."""
    from delaynet_lava.export import extract
    from delaynet_lava.nn.model import describe

    of = drawn(samples, steps)
    network, x = extract(describe(blocks(of))), of.x.numpy().astype(np.uint8)
    traces: list[Trace] = []

    def run() -> None:
        traces[:] = [emulate(network, x, record=())]

    def facts() -> dict[str, Any]:
        (trace,) = traces
        spikes = int(trace.spike_counts[0].sum())
        return {"rate": spikes / (samples * steps * SIZES[1]), "spikes": spikes}

    return Work(run, samples * steps, facts)


def _step(i, h, slow, bias):  # type: ignore[no-untyped-def]
    p = 3 * torch.tanh(i / 3) + 2 * h - 7 * slow + bias
    share = torch.where(h <= 0.5, 0.9, 0.0).to(h.dtype)
    slow = share * slow + (1 - share) * h
    h = torch.tanh(p)
    # Exactly a spike; its gradient is that of h.
    return h.detach(), slow.detach(), (h >= 0.5).to(h.dtype) + (h - h.detach())


class PlainCells(torch.nn.Module):
    """The cells as one writes the equations down, the input's product at every step."""

    def __init__(self, weight: torch.Tensor, jit: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.bias = torch.nn.Parameter(torch.full((len(weight),), BIAS, dtype=weight.dtype))
        self.step = torch.compile(_step, dynamic=False) if jit else _step
        h = slow = torch.full((len(weight),), -1.0, dtype=weight.dtype)
        with torch.no_grad():
            for _ in range(SETTLE):
                h, slow, _ = _step(torch.zeros_like(h), h, slow, self.bias)
        self.register_buffer("rest", torch.stack([torch.zeros_like(h), h, slow]))

    def _arriving(self, x: torch.Tensor) -> Any:
        return (a @ self.weight.t() for a in x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (steps, batch, neurons) for an input (steps, batch, channels)."""
        # Copies: torch.compile of torch 2.3 fails on rows that lie on each other.
        i, h, slow, bias = (one.expand(x.shape[1], -1).clone() for one in (*self.rest, self.bias))
        spikes = []
        for a in self._arriving(x):
            i = ALPHA * i + a
            h, slow, s = self.step(i, h, slow, bias)
            spikes.append(s)
        return torch.stack(spikes)


def _kept(value: torch.Tensor, slope: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """``value``, with the gradient ``slope`` to ``of``."""
    soft = slope * of
    return soft + (value - soft).detach()


class IntegerCells(torch.nn.Module):
    """The cells in the integers of :func:`fixedpoint.src_step`, and with the gradients of ours, step by step.

    In double precision, in which their products are exact.
    """

    def __init__(self, words: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(words / 64)
        self.bias = torch.nn.Parameter(torch.full((len(words),), BIAS))
        nothing = torch.zeros(len(words), dtype=torch.float64)
        h = slow = torch.full_like(nothing, -4096)
        level = torch.full_like(nothing, round(BIAS * 4096))
        with torch.no_grad():
            for _ in range(SETTLE):
                _, h, slow, _ = self._step(nothing, h, slow, nothing, level)
        self.register_buffer("rest", torch.stack([nothing, h, slow]))

    @staticmethod
    def _step(i, h, slow, a, bias):  # type: ignore[no-untyped-def]
        keep, h, slow = 4096 - round(4096 * (1 - ALPHA)), h.detach(), slow.detach()
        soft = keep / 4096 * i + a
        i = soft + (torch.trunc(i * keep / 4096) + torch.floor(a) - soft).detach()
        size = i.detach().abs().clamp(max=24576)
        x = i.detach().sign() * (size - ((size / 2).floor().square() / 1024).floor().mul(341 / 4096).floor())
        x = _kept(x, (1 - i.detach().abs() / 24576).clamp(min=0), i)
        p = x + 2 * h - 7 * slow + bias
        size = p.detach().abs().clamp(max=8192)
        new = p.detach().sign() * (size - (size.square() / 16384).floor())
        new = _kept(new, (1 - p.detach().abs() / 8192).clamp(min=0), p)
        slow = torch.where(h > 2048, h, h + torch.trunc((slow - h) * keep / 4096))
        soft = new / 4096
        return i, new, slow, soft + ((new >= 2048).double() - soft).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (steps, batch, neurons) for an input (steps, batch, channels)."""
        words = 64 * self.weight
        words = words + (2 * torch.round(words / 2) - words).detach()
        level = 4096 * self.bias
        level = (level + (torch.round(level) - level).detach()).double()
        i, h, slow = (one.expand(x.shape[1], -1) for one in self.rest)
        spikes = []
        for now in x:
            # A word w adds w / 64 * 2**-WEIGHT_EXP of 4096.
            a = (now @ words.t()).double() * 2.0 ** (6 - WEIGHT_EXP)
            i, h, slow, s = self._step(i, h, slow, a, level)
            spikes.append(s.float())
        return torch.stack(spikes)


class TunedCells(PlainCells):
    """The same with the input's product over all steps at once."""

    def _arriving(self, x: torch.Tensor) -> Any:
        return (x @ self.weight.t()).unbind()


def _loop(cells: PlainCells | IntegerCells, of: Drawn) -> Work:
    x = of.x.transpose(0, 1).contiguous()
    readout = LastMembrane(of.out / 64, float(np.exp(-1 / TAU_OUT_MS)), len(x))

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        spikes = cells(x)
        return readout(spikes), [spikes]

    return training_work(forward, [*trained(cells), *trained(readout)], of.labels, x.shape[0] * x.shape[1])


def loop(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """A training step of :class:`PlainCells`."""
    of = drawn(samples, steps)
    return _loop(PlainCells(of.weight), of)


def integers(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """A training step of :class:`IntegerCells`."""
    of = drawn(samples, steps)
    return _loop(IntegerCells(of.into), of)


def tuned(samples: int = SAMPLES, steps: int = STEPS, jit: bool = False) -> Work:
    """A training step of :class:`TunedCells`; ``jit``: what it does in a step goes through torch.compile."""
    of = drawn(samples, steps)
    return _loop(TunedCells(of.weight, jit), of)


def compiled(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """:func:`tuned` through torch.compile."""
    return tuned(samples, steps, jit=True)


def scan(samples: int = SAMPLES, steps: int = STEPS) -> Work:
    """A training step of the cells as a JAX ``lax.scan`` under jit."""
    from delaynet_lava.bench.peers_jax import jax_work, last_membrane  # first: it tells JAX where to run

    import jax.numpy as jnp  # isort: skip
    from jax import lax  # isort: skip

    of = drawn(samples, steps)
    rest = PlainCells(of.weight).rest.numpy()
    begin = [np.broadcast_to(state, (samples, len(state))) for state in rest]
    still = lax.stop_gradient

    def step(carry: Any, a: Any) -> Any:
        i, h, slow, bias = carry
        i, h = ALPHA * i + a, still(h)
        share = jnp.where(h <= 0.5, 0.9, 0.0).astype(h.dtype)
        new = jnp.tanh(3 * jnp.tanh(i / 3) + 2 * h - 7 * slow + bias)
        s = (new >= 0.5).astype(new.dtype) + (new - still(new))
        return (i, new, still(share * slow + (1 - share) * h), bias), s

    def forward(parameters: Any, x: Any) -> Any:
        _, spikes = lax.scan(step, (*map(jnp.asarray, begin), parameters["bias"]), x @ parameters["into"].T)
        return last_membrane(parameters["out"], spikes, float(np.exp(-1 / TAU_OUT_MS))), [spikes]

    parameters = {
        "into": of.weight.numpy(),
        "bias": np.full(SIZES[1], BIAS, np.float32),
        "out": (of.out / 64).numpy(),
    }
    return jax_work(forward, parameters, of.x.transpose(0, 1).contiguous().numpy(), of.labels)
