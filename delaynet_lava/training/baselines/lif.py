"""LIF neurons whose own long memory does the remembering: recurrent, or feed-forward.

Integer layers like DelayNet's, so that they are exported and emulated like it. Section 5.1 and Fig. 5 of
the paper: with a time constant of 2 s both learn the cue task, with 20 ms they do not.
"""

from __future__ import annotations

from typing import Any

import torch

from delaynet_lava.nn import DelayRecurrent, Dense, Readout
from delaynet_lava.nn.initial import draw, initialise
from delaynet_lava.tasks.cue import CHANNELS, CLASSES
from delaynet_lava.training.delaynet import decay
from delaynet_lava.training.options import CueOptions

__all__ = ["build"]


def build(options: CueOptions, recurrent: bool = True) -> torch.nn.Sequential:
    """A layer of LIF neurons without delays and a :class:`Readout`, weights drawn from the options' seed.

    Time constants and threshold are not trained, so that the memory is what the options say.

    Args:
        recurrent: False leaves the recurrent synapses out.
    """
    neuron = {
        "threshold": options.threshold,
        "current_decay": 1.0,
        "voltage_decay": decay(options.tau_ms),
        "tau_grad": options.surrogate_width,
    }
    common: dict[str, Any] = {"reset": options.reset, "surrogate": options.surrogate}
    memory = {"current_decay": 1.0, "voltage_decay": decay(options.tau_out_ms)}
    readout = Readout(memory, options.neurons, CLASSES)
    if recurrent:
        hidden = DelayRecurrent(
            neuron,
            CHANNELS,
            options.neurons,
            self_connection=False,
            feedback_grad=options.feedback_grad,
            **common,
        )
        initialise(hidden, readout, options.input_gain, options.radius, options.readout_gain, options.seed)
        return torch.nn.Sequential(hidden, readout)
    dense = Dense(neuron, CHANNELS, options.neurons, **common)
    generator = torch.Generator().manual_seed(options.seed)
    draw(dense.synapse.weight, options.input_gain * options.threshold, generator)
    draw(readout.synapse.weight, options.readout_gain, generator)
    return torch.nn.Sequential(dense, readout)
