"""CPU models of the Spiking Recurrent Cell, in fixed point and in floating point."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from delaynet_lava import fixedpoint as fx
from delaynet_lava.lava.src.process import SRC

__all__ = ["SRCFixedModel", "SRCFloatModel"]

RHO, DEPOLARISED, HYPERPOLARISED = 3.0, 0.0, 0.9
"""Of the paper: rho, z_dep and z_hyp."""


@implements(proc=SRC, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SRCFixedModel(PyLoihiProcessModel):
    """:func:`delaynet_lava.fixedpoint.src_step` on whole arrays.

    Attributes:
        sent: what was sent in the last step. saturated: how many currents it clipped.
    """

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    i: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    h: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    h_s: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.form: fx.SrcForm = proc_params["form"]
        self.sent, self.saturated = np.zeros(proc_params["shape"], np.int32), 0

    def run_spk(self) -> None:
        """Take what arrives, advance by a step, and send."""
        arriving = self.a_in.recv().astype(np.int64)
        state = np.stack([self.i, self.h, self.h_s]).astype(np.int64)
        state, sent, wide = fx.src_step(state, arriving, self.bias.astype(np.int64), self.form)
        self.i[:], self.h[:], self.h_s[:] = state
        self.sent, self.saturated = sent.astype(np.int32), int(np.count_nonzero(fx.saturates(wide)))
        self.s_out.send(self.sent)


@implements(proc=SRC, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class SRCFloatModel(PyLoihiProcessModel):
    """The paper's equations in float64, in units of 4096, with tanh whatever the form says."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    bias: np.ndarray = LavaPyType(np.ndarray, float)
    i: np.ndarray = LavaPyType(np.ndarray, float)
    h: np.ndarray = LavaPyType(np.ndarray, float)
    h_s: np.ndarray = LavaPyType(np.ndarray, float)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.form: fx.SrcForm = proc_params["form"]

    def run_spk(self) -> None:
        """Take what arrives, advance by a step, and send."""
        form, one = self.form, fx.DECAY_ONE
        self.i[:] = (1 - form.input_decay / one) * self.i + self.a_in.recv() * 2.0**form.shift
        x = RHO * np.tanh(self.i / one / RHO)
        h, slow = self.h / one, self.h_s / one
        z = np.where(h > 0.5, DEPOLARISED, HYPERPOLARISED)
        self.h[:] = np.tanh(x + 2 * h - form.slow * slow + self.bias / one) * one
        self.h_s[:] = (z * slow + (1 - z) * h) * one
        self.s_out.send(np.floor(np.maximum(self.h / one, 0) * 2.0**form.output_bits + 0.5))
