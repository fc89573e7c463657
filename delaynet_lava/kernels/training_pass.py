"""The forward pass of one layer in training, and what of it the backward pass asks for once more."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np

from delaynet_lava.fixedpoint import STATE_SHIFT, WEIGHT_SCALE, membrane_grid
from delaynet_lava.kernels.compiled import compiled
from delaynet_lava.kernels.dynamics import Dynamics
from delaynet_lava.kernels.events import (
    NEVER,
    NO_SYNAPSES,
    EventList,
    as_rows,
    event_list,
    of_rows,
    padded,
    ring_length,
)
from delaynet_lava.kernels.layer import NO_BITS, NO_RECORD, NO_VALUES, LayerRun
from delaynet_lava.kernels.recurrence import SPAN

__all__ = ["LayerPass"]

KEPT = 1 << 29
"""Bytes of membranes that a pass keeps; more are computed again."""
DENSE = 32
"""Payloads in a step from which on two products of matrices are cheaper than a row of weights for each."""


@compiled()
def _by_sender(weight, rows):
    """Words of weights in SLAYER's units, 1.0 the word 64, sender by sender.

    Plain version: ``integers`` in this module.

    Args:
        weight: float32 (post, pre), C order. rows: int16 (pre, P), zeros, written.

    Returns:
        How many words are not 0, and the largest magnitude; where that is more than int16 holds, so are
        the rows void.
    """
    entries, largest = 0, np.float32(0)
    for j in range(weight.shape[1]):
        for i in range(weight.shape[0]):
            word = np.rint(np.float32(64) * weight[i, j])
            largest = max(largest, abs(word))
            entries += word != 0
            rows[j, i] = np.int16(word)
    return entries, largest


def _synapses(weight: np.ndarray, delay: np.ndarray) -> EventList:
    """Synapses float32 (post, pre) in SLAYER's units, whose delay belongs to the sender."""
    weight = np.ascontiguousarray(weight, np.float32)
    rows = np.zeros((weight.shape[1], padded(weight.shape[0])), np.int16)
    entries, largest = _by_sender(weight, rows)
    if largest < 1 << 15 and as_rows(entries, weight.size):
        return of_rows(delay, rows)
    return event_list(integers(weight), np.broadcast_to(delay, weight.shape), 0)


class LayerPass:
    """The forward pass of one layer, and its membranes once more for the backward pass.

    Args:
        bits: uint64 (B, T, words), input spikes, which act ``lead`` steps later; or None.
        values: int32 (B, T, C), the input where it is not spikes; or None.
        w_in: float32 (N, C), quantised weights / 64. w_rec: the same, (N, N), or None.
        du, dv, vth: decays and threshold mantissa.
        bias: int64 (N,), shifted.
        dyn: what else there is to know.
        training: whether a backward pass follows that needs v; currents: whether it needs u.

    Attributes:
        n, lanes: neurons, and those of the layout. ring: steps that the ring of inputs holds.
        threshold: shifted, and out of reach for neurons that do not spike.
        fired: uint64 (B, T, words), spikes.
        counts: int64 (B, 3), see :class:`kernels.events.State`.
        voltage: int32 (B, T, N), membrane before the reset, where the dynamics want it.
    """

    def __init__(
        self,
        bits: np.ndarray | None,
        lead: int,
        values: np.ndarray | None,
        w_in: np.ndarray,
        w_rec: np.ndarray | None,
        du: int,
        dv: int,
        vth: int,
        bias: np.ndarray | None,
        dyn: Dynamics,
        training: bool,
        currents: bool,
    ) -> None:
        self.n, self.lead = len(dyn.delay), lead
        self.du, self.dv, self.reset = du, dv, dyn.reset
        unit_exp, limit = membrane_grid(dyn.membrane_bits, dyn.full_scale_exp)
        self.threshold = vth << STATE_SHIFT >> unit_exp << unit_exp if dyn.spiking else NEVER
        self.bits = NO_BITS if bits is None else bits
        self.values = NO_VALUES if values is None else values
        batch, steps = (self.bits if values is None else self.values).shape[:2]
        self._run = LayerRun(
            batch, self.n,
            _synapses(w_in, np.zeros(w_in.shape[1], np.int32)),
            NO_SYNAPSES if w_rec is None else _synapses(w_rec, np.ascontiguousarray(dyn.delay, np.int32)),
            (du, dv), self.threshold, self.reset, (unit_exp, limit), bias, lead,
            largest=1 if values is None else int(np.abs(values).max(initial=1)), initial=dyn.initial,
        )  # fmt: skip
        self.lanes = self._run.lanes
        self.ring = ring_length(0 if w_rec is None else int(dyn.delay.max(initial=0)))
        self.fired = self._run.room(steps)
        size = 4 * batch * steps * self.lanes * (2 if currents else 1)
        recompute = size > KEPT if dyn.recompute is None else dyn.recompute
        self._pass(training, dyn.want_voltage or not dyn.spiking, currents, recompute)
        self.counts = self._run.counts.copy()

    def _pieces(self, recompute: bool) -> list[tuple[int, int]]:
        """First step and number of steps of each piece of time that is recorded at once.

        The state kept at the start of each piece is mostly its ring. With this length the rings of all
        pieces together are as large as the membranes of one.
        """
        steps = self.fired.shape[1]
        length = -(-isqrt(steps * self.ring) // SPAN) * SPAN if recompute else steps
        return [(first, min(length, steps - first)) for first in range(0, steps, length)]

    def _pass(self, training: bool, wanted: bool, currents: bool, recompute: bool) -> None:
        batch, steps = self.fired.shape[:2]
        pieces = self._pieces(recompute)
        self._starts: list[list[np.ndarray]] = []
        self._pieces_run = pieces
        length = pieces[0][1] if training or wanted else 0
        v = np.empty((batch, length, self.lanes), np.int32) if length else NO_RECORD
        u = np.empty_like(v) if currents else NO_RECORD
        self.voltage = NO_RECORD
        if wanted:
            alone = len(pieces) == 1
            self.voltage = v[:, :, : self.n] if alone else np.empty((batch, steps, self.n), np.int32)
        for first, length in pieces:
            if len(pieces) > 1 and training:
                self._starts.append([part.copy() for part in self._run.state])
            self._advance(first, length, v, u)
            if wanted and len(pieces) > 1:
                self.voltage[:, first : first + length] = v[:, :length, : self.n]
        self._record = v, u

    def is_dense(self) -> bool:
        """Whether the input is so many payloads that their sums are cheaper as products of matrices."""
        batch, steps = self.fired.shape[:2]
        return self.values.size > 0 and bool(np.count_nonzero(self.values) > DENSE * batch * steps)

    def _advance(self, first: int, steps: int, v: np.ndarray, u: np.ndarray) -> None:
        self._run.advance(self.bits, self.values, first, steps, first, self.fired, v, u)

    def let_go(self) -> tuple[np.ndarray, np.ndarray]:
        """What :meth:`membranes` asks for, which the pass itself holds no longer: most of its memory."""
        record, self._record = self._record, (NO_RECORD, NO_RECORD)
        return record

    def membranes(self, v: np.ndarray, u: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """From the last piece of time to the first: its first step, its length, v and u.

        Both are int32 (B, K, P), filled for the first ``length`` steps; u is empty where not wanted. The
        next piece overwrites them.
        """
        for k in range(len(self._pieces_run) - 1, -1, -1):
            first, length = self._pieces_run[k]
            if self._starts:
                self._run.restore(self._starts[k])
                self._advance(first, length, v, u)
            yield first, length, v, u


def integers(weight: np.ndarray) -> np.ndarray:
    """Integers (int64) of weights in SLAYER's units."""
    return np.rint(weight * np.float32(WEIGHT_SCALE)).astype(np.int64)
