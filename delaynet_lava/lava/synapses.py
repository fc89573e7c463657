"""Synapses: Lava's Dense and DelayDense, and fast CPU models for the latter."""

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

from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.network import Synapse

__all__ = ["FastDelayDense", "FastDelayDenseFloat", "load_loop", "synapse_process"]

WEIGHT_BITS = 8
# Six bits; Lava's fixed-point model refuses more with an exception of its own.
LAVA_MAX_DELAY = 63


@compiled()
def _advance(a_buff, sums, payload, start, cell, weight):
    """Move ``a_buff`` on by one step, then add to ``sums`` what this step's spikes will cause.

    Args:
        a_buff: (post, columns), column k is the synaptic input k steps ahead.
        sums: (post * columns,), the cells of ``a_buff`` itself or others.
        payload: (pre,), 0 where there is no spike.
        start: int64 (pre + 1,), the synapses of sender j are ``start[j]`` to ``start[j + 1]``.
        cell: int64, index into ``sums``; weight: of the type of ``payload``, exponent included.
    """
    neurons, columns = a_buff.shape
    for i in range(neurons):
        for k in range(columns - 1):
            a_buff[i, k] = a_buff[i, k + 1]
        a_buff[i, columns - 1] = 0
    for j in range(payload.shape[0]):
        if payload[j] != 0:
            for k in range(start[j], start[j + 1]):
                # Lava's products are as wide as their factors; its sums over a step are not.
                sums[cell[k]] += weight.dtype.type(weight[k] * payload[j])


def load_loop() -> None:
    """Load the compiled loop of the fixed-point model once, for all processes forked afterwards."""
    cells, nothing = np.zeros((1, 1), np.int32), np.zeros(0, np.int64)
    spikes = np.zeros(0, np.int32)
    _advance(cells, cells.reshape(-1), spikes, nothing, nothing, spikes)


class _EventDriven(PyLoihiProcessModel):
    """What both models share: synapses by sending neuron, work per spike.

    The ports and Vars stand in each model, with Lava's types.
    """

    max_delay: int | None = None

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._laid_out = False

    def on_var_update(self) -> None:
        """Lay the synapses out again: a Var was set from outside."""
        self._laid_out = False

    def _lay_out(self, weights: np.ndarray) -> None:
        columns = self.a_buff.shape[1]
        limit = columns - 1 if self.max_delay is None else min(columns - 1, self.max_delay)
        if self.delays.max() > limit:
            raise ValueError(f"DelayDense: delay {self.delays.max()}, but at most {limit} is possible here")
        pre, post = np.nonzero(weights.T)
        self._start = np.searchsorted(pre, np.arange(weights.shape[1] + 1))
        self._cell = post * columns + self.delays[post, pre].astype(np.int64)
        self._weight = weights[post, pre]
        self._laid_out = True

    def _payload(self) -> np.ndarray:
        """What each sender sends in this step, in the type of the weights; 0 is no spike."""
        spikes = self.s_in.recv()
        return (spikes if self.num_message_bits.item() > 0 else spikes != 0).astype(self._weight.dtype)


@implements(proc=DelayDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FastDelayDense(_EventDriven):
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

    max_delay = LAVA_MAX_DELAY

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._weights_set = False

    def run_spk(self) -> None:
        """Send what arrives at this step, then add what this step's spikes will cause."""
        exponent = self.proc_params.get("weight_exp", 0)
        if not self._laid_out:
            self._clip_once()
            self._lay_out(self.weights << max(exponent, 0))
        self.a_out.send(self.a_buff[:, 0])
        payload = self._payload()
        # Under a negative exponent Lava rounds the sum of a step, not each weight.
        sums = self.a_buff.reshape(-1) if exponent >= 0 else np.zeros(self.a_buff.size, np.int64)
        _advance(self.a_buff, sums, payload, self._start, self._cell, self._weight)
        if exponent < 0 and payload.any():
            self.a_buff += (sums >> -exponent).reshape(self.a_buff.shape)

    def _clip_once(self) -> None:
        """Cut the weights to their bits, as Lava does before the first step and never again."""
        if not self._weights_set:
            sign_mode = self.proc_params.get("sign_mode") or determine_sign_mode(self.weights)
            bits = self.proc_params.get("num_weight_bits", WEIGHT_BITS)
            self.weights = clip_weights(self.weights, sign_mode, num_bits=WEIGHT_BITS)
            self.weights = truncate_weights(self.weights, sign_mode, bits)
            self._weights_set = True


@implements(proc=DelayDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FastDelayDenseFloat(_EventDriven):
    """CPU model of Lava's ``DelayDense`` in floating point: work per spike, as :class:`FastDelayDense`.

    Each spike is added to ``a_buff`` by itself, sender after sender; Lava's model sums a step over
    all senders pairwise first. So both send the same bits where no sum needs rounding (weights and
    graded spikes that are multiples of a power of two, sums below 2^53 of it), and differ by the
    rounding of a sum of as many terms elsewhere. Finite weights only: Lava's model multiplies an
    infinite weight with the zeros of silent senders too. A delay beyond ``max_delay`` raises here;
    Lava's model leaves that synapse out.
    """

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, bool, precision=1)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    a_buff: np.ndarray = LavaPyType(np.ndarray, float)
    weights: np.ndarray = LavaPyType(np.ndarray, float)
    delays: np.ndarray = LavaPyType(np.ndarray, int)
    num_message_bits: np.ndarray = LavaPyType(np.ndarray, int, precision=5)

    def run_spk(self) -> None:
        """Send what arrives at this step, then add what this step's spikes will cause."""
        if not self._laid_out:
            self._lay_out(self.weights)
        self.a_out.send(self.a_buff[:, 0])
        cells = self.a_buff.reshape(-1)
        _advance(self.a_buff, cells, self._payload(), self._start, self._cell, self._weight)


def synapse_process(synapse: Synapse, message_bits: int = 0) -> Dense:
    """The Lava process of a synapse: ``Dense`` where no spike is delayed, ``DelayDense`` elsewhere.

    Args:
        message_bits: of the payloads that it takes; 0: spikes.

    The sign mode is always "mixed" and the weights have all 8 bits: Lava would choose "inhibitory"
    for a matrix without positive weights, and turn -256 into -255 there.
    """
    common = {
        "weights": synapse.weight.astype(np.int32),
        "weight_exp": synapse.weight_exp,
        "num_weight_bits": WEIGHT_BITS,
        "sign_mode": SignMode.MIXED,
        "num_message_bits": message_bits,
    }
    if synapse.max_delay == 0:
        return Dense(**common)
    delays = np.where(synapse.weight != 0, synapse.delay, 0).astype(int)
    return DelayDense(delays=delays, max_delay=synapse.max_delay, **common)
