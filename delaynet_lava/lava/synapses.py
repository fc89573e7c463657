"""Synapses: Lava's Dense and DelayDense, and a fast CPU model for the latter."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.dense.process import DelayDense, Dense
from lava.utils.weightutils import SignMode, clip_weights, determine_sign_mode, truncate_weights

from delaynet_lava.network import Synapse

__all__ = ["FastDelayDense", "synapse_process"]

WEIGHT_BITS = 8
# Six bits; Lava's model refuses more with an exception of its own.
LAVA_MAX_DELAY = 63


@implements(proc=DelayDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FastDelayDense(PyLoihiProcessModel):
    """CPU model of Lava's ``DelayDense``: work per spike instead of per delay, synapse and step.

    Equal to Lava's fixed-point model in what it sends and in its Var ``a_buff`` (column k is the
    synaptic input k steps ahead), graded spikes, negative exponents and changed Vars included. A
    delay beyond ``max_delay`` raises here; Lava's model leaves that synapse out.
    """

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, bool, precision=1)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=16)
    a_buff: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=16)
    weights: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)
    delays: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=6)
    num_message_bits: np.ndarray = LavaPyType(np.ndarray, int, precision=5)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.weights_set = self._laid_out = False
        self._cell: list[np.ndarray] = []
        self._weight: list[np.ndarray] = []

    def on_var_update(self) -> None:
        """Lay the synapses out again: a Var was set from outside."""
        self._laid_out = False

    def _lay_out(self) -> None:
        if not self.weights_set:
            sign_mode = self.proc_params.get("sign_mode") or determine_sign_mode(self.weights)
            bits = self.proc_params.get("num_weight_bits", WEIGHT_BITS)
            self.weights = clip_weights(self.weights, sign_mode, num_bits=WEIGHT_BITS)
            self.weights = truncate_weights(self.weights, sign_mode, bits)
            self.weights_set = True
        columns = self.a_buff.shape[1]
        limit = min(columns - 1, LAVA_MAX_DELAY)
        if self.delays.max() > limit:
            raise ValueError(f"DelayDense: delay {self.delays.max()}, but at most {limit} is possible here")
        # Each sender's synapses reach different neurons, so no cell occurs twice in an index.
        self._cell, self._weight = [], []
        for weights, delays in zip(self.weights.T, self.delays.T, strict=True):
            post = np.flatnonzero(weights)
            self._cell.append(post * columns + delays[post])
            self._weight.append(weights[post])
        self._laid_out = True

    def run_spk(self) -> None:
        """Send what arrives at this step, then add what this step's spikes will cause."""
        if not self._laid_out:
            self._lay_out()
        self.a_out.send(self.a_buff[:, 0])
        spikes = self.s_in.recv()
        graded = self.num_message_bits.item() > 0
        exponent = self.proc_params.get("weight_exp", 0)
        self.a_buff[:, :-1] = self.a_buff[:, 1:]
        self.a_buff[:, -1] = 0
        senders = np.flatnonzero(spikes)
        # Under a negative exponent Lava rounds the sum of a step, not each weight.
        sums = self.a_buff.reshape(-1) if exponent >= 0 else np.zeros(self.a_buff.size, np.int64)
        for j in senders:
            weight = self._weight[j] * spikes[j] if graded else self._weight[j]
            sums[self._cell[j]] += weight << max(exponent, 0)
        if exponent < 0 and len(senders):
            self.a_buff += (sums >> -exponent).reshape(self.a_buff.shape)


def synapse_process(synapse: Synapse) -> Dense:
    """The Lava process of a synapse: ``Dense`` where no spike is delayed, ``DelayDense`` elsewhere.

    The sign mode is always "mixed" and the weights have all 8 bits: Lava would choose "inhibitory"
    for a matrix without positive weights, and turn -256 into -255 there.
    """
    common = {
        "weights": synapse.weight.astype(np.int32),
        "weight_exp": synapse.weight_exp,
        "num_weight_bits": WEIGHT_BITS,
        "sign_mode": SignMode.MIXED,
        "num_message_bits": 0,
    }
    if synapse.max_delay == 0:
        return Dense(**common)
    delays = np.where(synapse.weight != 0, synapse.delay, 0).astype(int)
    return DelayDense(delays=delays, max_delay=synapse.max_delay, **common)
