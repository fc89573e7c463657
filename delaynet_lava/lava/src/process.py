"""The Spiking Recurrent Cell as a Lava process."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from delaynet_lava.fixedpoint import SrcForm

__all__ = ["SRC"]


class SRC(AbstractProcess):
    """Spiking Recurrent Cells (De Geeter, Ernst, Drion, arXiv 2306.03623), one is 4096.

    The fixed-point model computes :func:`delaynet_lava.fixedpoint.src_step`, the floating-point model the
    paper's equations 5a to 5f with the same parameters, states in the same unit. Both run on the CPU; there
    is none for a board.

    Args:
        shape: of the layer.
        form: what the cells have in common.
        bias: b_h, of this shape or one value.
        i, h, h_s: states before the first step.
        more: handed to the process model.

    Attributes:
        a_in: sums of what arrives. s_out: spikes, or payloads of ``form.output_bits``.
        i, h, h_s, bias: Vars.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        form: SrcForm,
        bias: np.ndarray | int,
        i: np.ndarray | int = 0,
        h: np.ndarray | int = -4096,
        h_s: np.ndarray | int = -4096,
        **more: Any,
    ) -> None:
        super().__init__(shape=shape, form=form, **more)
        self.a_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)
        for name, value in {"bias": bias, "i": i, "h": h, "h_s": h_s}.items():
            setattr(self, name, Var(shape=shape, init=np.broadcast_to(value, shape).copy()))
