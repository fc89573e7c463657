"""Weights before the first step: drawn from a seed, then scaled to the activity that is asked for."""

from __future__ import annotations

import math

import torch

from delaynet_lava.nn import AdaptiveRecurrent, Readout, SpikingRecurrentCell
from delaynet_lava.nn.initial import draw, draw_recurrent
from delaynet_lava.training.recipe import Init, of_layer

__all__ = ["fit_rates", "initialise"]

# In SLAYER's units: larger input weights leave their 8 bits, smaller ones are too coarse in them.
_LARGEST, _SMALLEST = 3.9, 0.25
# In thresholds, the largest input weight: with more, nearly every input spike is answered by one.
_MOST, _LEAST = 2.0, 2.0**-12
_TRIES = 16
_OWN_THRESHOLD = (AdaptiveRecurrent, SpikingRecurrentCell)
"""Blocks without a neuron of SLAYER's, whose threshold can't take a factor."""
_RELAY = 1.5
"""A relay's weight from the neuron of the same number, in thresholds."""
_CLOSE = 0.05


def _threshold(block: torch.nn.Module) -> float:
    return block.threshold if isinstance(block, _OWN_THRESHOLD) else block.neuron.threshold


def _input_weight(block: torch.nn.Module) -> torch.Tensor:
    if isinstance(block, AdaptiveRecurrent):
        return block.input_weight
    return getattr(block, block._entry).weight


def _recurrent_weight(block: torch.nn.Module) -> torch.Tensor | None:
    if isinstance(block, AdaptiveRecurrent):
        return block.recurrent_weight
    synapse = getattr(block, "recurrent_synapse", None)  # None of a cell without
    return None if synapse is None else synapse.weight.view(synapse.weight.shape[:2])


def initialise(net: torch.nn.Sequential, init: Init, seed: int) -> None:
    """Draw all weights uniformly from a seed.

    Input weights of a layer from ``+-input_gain * threshold``; recurrent weights scaled so that the spectral
    radius of ``|W_rec|`` in units of the threshold is ``radius`` (what the published code fixes, 1.0 to 1.7);
    weights of the answering layer from ``+-readout_gain``. The diagonal of W_rec is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = list(net)[:-1]
    for layer, block in enumerate(hidden):
        weight = _input_weight(block)
        if init.kind == "relay" and layer and weight.shape[0] == weight.shape[1]:
            _relay(weight, block, init.noise, generator)
        else:
            draw(weight, of_layer(init.input_gain, layer) * _threshold(block), generator)
    draw(_input_weight(net[-1]), init.readout_gain, generator)
    for layer, block in enumerate(hidden):
        recurrent = _recurrent_weight(block)
        if recurrent is not None and recurrent.numel():
            draw_recurrent(recurrent, of_layer(init.radius, layer) * _threshold(block), generator)


@torch.no_grad()
def _relay(weight: torch.Tensor, block: torch.nn.Module, noise: float, generator: torch.Generator) -> None:
    """``1.5 I`` and uniform noise, in what one spike must bring: the threshold, or 1 of a cell's current."""
    # A cell fires where its current reaches 1.5; a membrane, above its threshold.
    unit = 2.0**block.weight_exp if isinstance(block, SpikingRecurrentCell) else _threshold(block)
    draw(weight, noise * unit, generator)
    square = weight.view(weight.shape[:2])
    square += _RELAY * unit * torch.eye(len(square))


@torch.no_grad()
def fit_rates(net: torch.nn.Sequential, x: torch.Tensor, rate: float) -> None:
    """Scale the input weights of all spiking layers, the first one first, until they spike about so often.

    Where the weights would leave their 8 bits or be too coarse in them, the threshold and the recurrent
    weights take the factor instead: only the ratio to the threshold matters.

    Args:
        x: float32 (N, channels, T), some samples. rate: spikes a neuron and step, above 0.
    """
    for block in net:
        if isinstance(block, Readout):
            return
        if bool(x.any()):
            _fit(block, x, rate)
        x = block(x)


def _fit(block: torch.nn.Module, x: torch.Tensor, rate: float) -> None:
    """Halve the range of the factor, in its logarithm, until the rate is close; keep the closest."""
    scaled = _Scaled(block)
    largest = float(scaled.drawn.abs().max()) / scaled.threshold
    if largest == 0:
        return
    low, high = (math.log2(bound / largest) for bound in (_LEAST, _MOST))
    best = (math.inf, 0.0)
    for _ in range(_TRIES):
        exponent = (low + high) / 2
        scaled.to(2.0**exponent)
        seen = float(block(x).mean())
        best = min(best, (abs(seen / rate - 1), exponent))
        if best[0] < _CLOSE:
            break
        low, high = (low, exponent) if seen > rate else (exponent, high)
    scaled.to(2.0 ** best[1])


class _Scaled:
    """A block whose input weights can be scaled against its threshold."""

    def __init__(self, block: torch.nn.Module) -> None:
        self.block, self.weight, self.back = block, _input_weight(block), _recurrent_weight(block)
        self.drawn = self.weight.clone()
        self.drawn_back = None if self.back is None else self.back.clone()
        self.threshold = _threshold(block)

    def to(self, factor: float) -> None:
        """Scale what was drawn, and keep it within what 8 bits tell apart."""
        self.weight.copy_(self.drawn * factor)
        largest = float(self.weight.abs().max())
        if isinstance(self.block, _OWN_THRESHOLD):
            return
        # The words' grid stays; what is scaled together with the threshold behaves as before.
        finer = min(_LARGEST, max(_SMALLEST, largest)) / largest
        self.weight.mul_(finer)
        self.block.neuron.vth.fill_(self.threshold * finer)
        if self.back is not None and self.drawn_back is not None:
            self.back.copy_(self.drawn_back * finer)
