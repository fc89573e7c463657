"""What a pass of the delayed recurrence is told beside its tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delaynet_lava.fixedpoint import FULL_SCALE_EXP, MEMBRANE_BITS

__all__ = ["SURROGATES", "SURROGATE_PAPER", "SURROGATE_SLAYER", "SURROGATE_TRIANGLE", "Dynamics"]

SURROGATE_PAPER, SURROGATE_SLAYER, SURROGATE_TRIANGLE = 0, 1, 2
SURROGATES = {"paper": SURROGATE_PAPER, "slayer": SURROGATE_SLAYER, "triangle": SURROGATE_TRIANGLE}


class Dynamics(NamedTuple):
    """What does not change during a pass, apart from the tensors that may carry a gradient.

    Attributes:
        delay: int32 (N,), axonal delay of each neuron; a spike of step t acts at t + 1 + delay.
        reset: ``RESET_ZERO`` or ``RESET_SUBTRACT``.
        spiking: False for a readout, whose membrane is the output.
        surrogate: one of :data:`SURROGATES`.
        width, height: scales of the surrogate, in SLAYER's units.
        reset_grad: 1.0 differentiates the reset too, 0.0 does not.
        feedback_grad: factor on the gradient that flows back along recurrent synapses (the gradient
            of the weights themselves is untouched). 1.0 is exact.
        membrane_grad: 1.0 carries the gradient along u and v, 0.0 cuts it at each step (what
            SLAYER's own Recurrent block does).
        want_spikes: return the spikes as numbers; if not, numbers that are none stand for them, and only
            their bits and their count hold something. A GPU always returns them.
        want_voltage: also return the membrane of a spiking layer (a readout's always is).
        recompute: keep the membranes of a pass, or compute them again in the backward pass, a piece of
            time at a time; None: by their size.
        membrane_bits, full_scale_exp: the membrane's word, see :func:`fixedpoint.membrane_grid`.
        shift: steps by which the output is late, 0 or 1 (the shift of SLAYER's blocks).
        delay_window: half-width in steps of the window that the gradient of a delay is taken over.
        max_delay: the largest delay that may be learned.
        initial: int32 (N,) each, current and membrane before the first step; None: at rest.
    """

    delay: np.ndarray
    reset: int = 0
    spiking: bool = True
    surrogate: int = SURROGATE_PAPER
    width: float = 1.0
    height: float = 1.0
    reset_grad: float = 1.0
    feedback_grad: float = 1.0
    membrane_grad: float = 1.0
    want_spikes: bool = True
    want_voltage: bool = False
    recompute: bool | None = None
    membrane_bits: int = MEMBRANE_BITS
    full_scale_exp: int = FULL_SCALE_EXP
    shift: int = 0
    delay_window: int = 1
    max_delay: int = 0
    initial: tuple[np.ndarray, np.ndarray] | None = None
