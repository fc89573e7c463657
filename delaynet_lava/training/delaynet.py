"""The paper's network for the cue task, untrained: one delayed recurrent layer and a readout."""

from __future__ import annotations

import numpy as np
import torch

from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.nn import DelayRecurrent, Readout
from delaynet_lava.nn.initial import initialise
from delaynet_lava.nn.lattice import lattice_delays
from delaynet_lava.tasks.cue import CHANNELS, CLASSES
from delaynet_lava.training.options import CueOptions

__all__ = ["build", "decay", "membrane"]


def decay(tau_ms: float, dt_ms: float = 1.0) -> float:
    """Share of a membrane that a step takes: ``1 - exp(-dt / tau)``."""
    return float(-np.expm1(-dt_ms / tau_ms))


def membrane(bits: int, full_scale_exp: int) -> dict[str, int]:
    """Parameters of a neuron whose membrane has fewer bits than the chip's; none where it has them all."""
    if bits == MEMBRANE_BITS:
        return {}
    return {"membrane_bits": bits, "full_scale_exp": full_scale_exp}


def build(options: CueOptions) -> torch.nn.Sequential:
    """A :class:`DelayRecurrent` and a :class:`Readout` with weights drawn from the options' seed."""
    hidden = DelayRecurrent(
        {
            "threshold": options.threshold,
            "current_decay": 1.0,
            "voltage_decay": decay(options.tau_ms),
            "tau_grad": options.surrogate_width,
            "scale_grad": options.dampening,
            "requires_grad": True,
            **membrane(options.membrane_bits, options.full_scale_exp),
        },
        CHANNELS,
        options.neurons,
        lattice_delays(options.neurons, options.delays, options.seed, options.shares),
        self_connection=False,
        reset=options.reset,
        surrogate=options.surrogate,
        feedback_grad=options.feedback_grad,
    )
    readout = Readout(
        {
            "current_decay": 1.0,
            "voltage_decay": decay(options.tau_out_ms),
            "requires_grad": True,
            **membrane(options.membrane_bits, options.full_scale_out_exp),
        },
        options.neurons,
        CLASSES,
    )
    for block in (hidden, readout):
        # The paper's LIF has no current memory, before training and after it.
        block.neuron.current_decay.requires_grad_(False)
    initialise(hidden, readout, options.input_gain, options.radius, options.readout_gain, options.seed)
    return torch.nn.Sequential(hidden, readout)
