"""Neurons: Lava's LIF, one with a soft reset, and the models that count and record for the runner.

The arithmetic is that of Lava's own fixed-point model in every LIF neuron; what stands here only
looks at the state before the current wraps and the membrane is clipped, which is where Lava forgets
both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF

from delaynet_lava import fixedpoint as fx
from delaynet_lava.lava.session import CLIPS, LOST, WRAPS, Record
from delaynet_lava.lava.src.models import SRCFixedModel
from delaynet_lava.lava.src.process import SRC
from delaynet_lava.network import Neuron, Src

__all__ = [
    "RecordingLIF",
    "RecordingSRC",
    "RecordingSubtractLIF",
    "SubtractLIF",
    "SubtractLIFModel",
    "neuron_process",
]


class SubtractLIF(LIF):
    """LIF whose membrane loses ``vth << 6`` at a spike instead of all; for the simulator only."""


class SubtractLIFModel(PyLifModelBitAcc):
    """Fixed-point CPU model of :class:`SubtractLIF`."""

    implements_process = SubtractLIF

    def reset_voltage(self, spike_vector: np.ndarray) -> None:
        """``v -= vth << 6`` where a neuron spiked."""
        self.v[spike_vector] -= self.effective_vth


class RecordingLIF(PyLifModelBitAcc):
    """Lava's fixed-point LIF with a :class:`~delaynet_lava.lava.session.Record`.

    The process passes it on as its argument ``record``.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.record: Record = proc_params["record"]
        self._initial: tuple[np.ndarray, np.ndarray] | None = None

    def subthr_dynamics(self, activation_in: np.ndarray) -> None:
        """Count what is about to wrap or saturate, then let Lava compute."""
        wide_u = fx.synaptic_current(
            self.u.astype(np.int64), activation_in.astype(np.int64), self.du + self.ds_offset
        )
        v = self.v.astype(np.int64)
        super().subthr_dynamics(activation_in)
        wide_v = fx.membrane_update(v, self.u, self.effective_bias, self.dv + self.dm_offset)
        counts = self.record.counts
        counts[WRAPS] += np.count_nonzero(fx.u_overflows(wide_u))
        counts[CLIPS] += np.count_nonzero(fx.saturates(wide_v))
        counts[LOST] += np.count_nonzero((wide_u > 3 * fx.UV_HALF) | (wide_u <= -3 * fx.UV_HALF))

    def run_spk(self) -> None:
        """One step of a sample, or of the pause between two."""
        if self._initial is None:
            self._initial = self.u.copy(), self.v.copy()
        step = self.record.clock.step(self.time_step)
        if step < 0:
            self.a_in.recv()
            self.u[:], self.v[:] = self._initial
            self.s_out.send(np.zeros(self.u.shape, bool))
            return
        super().run_spk()
        # Lava orders the axes of an input layer W, H, C; channels are counted in C, H, W order.
        fired, v, u = (state.T.reshape(-1) for state in (self.s_out_buff, self.v, self.u))
        self.record.write(step, fired, v, current=u)


class RecordingSubtractLIF(RecordingLIF, SubtractLIFModel):
    """:class:`RecordingLIF` for the soft reset."""


class RecordingSRC(SRCFixedModel):
    """The fixed-point model of :class:`~delaynet_lava.lava.src.process.SRC` with a ``record``."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.record: Record = proc_params["record"]
        self._initial: tuple[np.ndarray, ...] | None = None

    def run_spk(self) -> None:
        """One step of a sample, or of the pause between two."""
        if self._initial is None:
            self._initial = self.i.copy(), self.h.copy(), self.h_s.copy()
        step = self.record.clock.step(self.time_step)
        if step < 0:
            self.a_in.recv()
            self.i[:], self.h[:], self.h_s[:] = self._initial
            self.s_out.send(np.zeros(self.i.shape, np.int32))
            return
        super().run_spk()
        self.record.counts[WRAPS] += self.saturated
        self.record.write(step, self.sent, self.h, current=self.i, slow=self.h_s)


def neuron_process(neuron: Neuron | Src, shape: tuple[int, ...], **params: Any) -> LIF | SRC:
    """The Lava process of a layer's neurons; ``params`` are handed to its process model.

    Lava adds 1 to ``du`` (a register of the chip) but not to ``dv``. Its CPU models take a decay for each
    neuron as they take one for all, element by element.
    """
    if isinstance(neuron, Src):
        i, h, h_s = neuron.initial(int(np.prod(shape)))
        bias = np.broadcast_to(neuron.bias, shape)
        return SRC(shape=shape, form=neuron.form, bias=bias, i=i, h=h, h_s=h_s, **params)
    process = SubtractLIF if neuron.reset == "subtract" else LIF

    def laid_out(values: int | np.ndarray) -> np.ndarray:
        # Lava orders the axes of an input layer W, H, C.
        return np.broadcast_to(values, (int(np.prod(shape)),)).reshape(shape[::-1]).T.astype(np.int32)

    def decay(values: int | np.ndarray) -> int | np.ndarray:
        return laid_out(values) if np.ndim(values) else values

    return process(
        shape=shape,
        u=laid_out(neuron.u_init),
        v=laid_out(neuron.v_init),
        du=decay(neuron.du) - 1,
        dv=decay(neuron.dv),
        bias_mant=laid_out(neuron.bias),
        bias_exp=neuron.bias_exp,
        vth=neuron.vth,
        **params,
    )
