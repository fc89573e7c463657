"""LSNN: as many LIF neurons as neurons with an adaptive threshold, whose adaptation remembers for 2 s."""

from __future__ import annotations

import torch

from delaynet_lava.nn import AdaptiveRecurrent, Readout
from delaynet_lava.nn.initial import draw, draw_recurrent
from delaynet_lava.tasks.cue import CHANNELS, CLASSES
from delaynet_lava.training.delaynet import decay
from delaynet_lava.training.options import CueOptions

__all__ = ["ADAPTATION_TAU_MS", "build"]

ADAPTATION_TAU_MS = 2000.0


def build(options: CueOptions, recurrent: bool = True) -> torch.nn.Sequential:
    """An :class:`AdaptiveRecurrent` and a :class:`Readout`, weights drawn from the options' seed.

    A spike raises the threshold of the adaptive half by 2.9 % (0.0174 at 0.6, as Bellec et al., 2020).

    Args:
        recurrent: False leaves the recurrent synapses out.
    """
    hidden = AdaptiveRecurrent(
        CHANNELS,
        options.neurons,
        threshold=options.threshold,
        adaptation=0.029 * options.threshold,
        tau_ms=options.tau_ms,
        adaptation_tau_ms=ADAPTATION_TAU_MS,
        recurrent=recurrent,
        feedback_grad=options.feedback_grad,
    )
    memory = {"current_decay": 1.0, "voltage_decay": decay(options.tau_out_ms)}
    readout = Readout(memory, options.neurons, CLASSES)
    generator = torch.Generator().manual_seed(options.seed)
    draw(hidden.input_weight, options.input_gain * options.threshold, generator)
    draw(readout.synapse.weight, options.readout_gain, generator)
    if hidden.recurrent_weight is not None:
        draw_recurrent(hidden.recurrent_weight, options.radius * options.threshold, generator)
    return torch.nn.Sequential(hidden, readout)
