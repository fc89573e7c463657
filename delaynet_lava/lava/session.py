"""What the simulator's processes share with the program that runs them.

Lava reads and writes a Var element by element over two channels, so fetching a recording that way
would take longer than the run. Inputs and records therefore lie in anonymous shared memory, which
Lava's processes inherit when they are forked.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from delaynet_lava.decision import Decision

__all__ = ["CLIPS", "LOST", "SPIKES", "WRAPS", "Clock", "Feed", "Record"]

WRAPS, CLIPS, SPIKES, LOST = range(4)


def _shared(shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    """Zeros in memory that this process and those forked from it see alike."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


class Clock(NamedTuple):
    """Samples one after the other: ``steps`` steps each, ``pause`` quiet ones between two.

    A pause outlasts the longest lag. The neurons are held in their initial state meanwhile, so what is
    still under way in the synapses has no effect and each sample starts from there.
    """

    steps: int
    pause: int

    def step(self, time_step: int) -> int:
        """Step within the sample, from 0, at Lava's ``time_step`` (from 1); negative in a pause."""
        return (time_step - 1 + self.pause) % (self.steps + self.pause) - self.pause


class Feed:
    """Input of the sample that runs: channel i sends ``weight * values[step, i] + bias``.

    Attributes:
        values: (steps, channels), written by the runner before each sample.
        weight, bias: an encoder's transform; 1 and 0 where the first layer takes spikes or payloads.
    """

    def __init__(self, clock: Clock, channels: int, dtype: np.dtype, weight: int, bias: int) -> None:
        self.clock, self.weight, self.bias = clock, weight, bias
        self.values = _shared((clock.steps, channels), dtype)
        self.silence = np.zeros(channels, np.int32)

    def at(self, time_step: int) -> np.ndarray:
        """int32 (channels,), what is sent at Lava's ``time_step``."""
        step = self.clock.step(time_step)
        if step < 0:
            return self.silence
        return self.values[step].astype(np.int32) * self.weight + self.bias


class Record:
    """What the neurons of one layer write while a sample runs.

    Attributes:
        states: (steps, neurons) by name, those wanted: what is sent, of the type ``sends``, and int32
            the membrane after the reset and the current; h, i and h_s ("slow") of Spiking Recurrent Cells.
        final: int32 (neurons,), the membrane after the last step.
        counts: int64 (4,): wraps of u, saturations of v, spikes, and steps at which u went so far
            that Lava's single wrap could not bring it back to 24 bits.
        scores: int64 (neurons,), what the decision adds up over its window; None where it does not.
    """

    def __init__(
        self,
        clock: Clock,
        neurons: int,
        wanted: Collection[str],
        sends: np.dtype,
        decision: Decision | None = None,
    ) -> None:
        self.clock, self.decision = clock, decision
        adds = decision is not None and decision.kind != "last"
        self.scores = _shared((neurons,), np.int64) if adds else None
        kinds: dict[str, type | np.dtype] = {
            "spikes": sends, "voltage": np.int32, "current": np.int32, "slow": np.int32
        }  # fmt: skip
        self.states = {name: _shared((clock.steps, neurons), kinds[name]) for name in wanted}
        self.final = _shared((neurons,), np.int32)
        self.counts = _shared((4,), np.int64)

    def write(self, step: int, spikes: np.ndarray, voltage: np.ndarray, **more: np.ndarray) -> None:
        """Keep one step; every array holds one value a neuron. ``more``: current and slow."""
        self.counts[SPIKES] += np.count_nonzero(spikes)
        for name, values in {"spikes": spikes, "voltage": voltage, **more}.items():
            if name in self.states:
                self.states[name][step] = values
        if step == self.clock.steps - 1:
            self.final[:] = voltage
        if self.scores is not None and self.decision is not None and self.decision.covers(step):
            self.scores += voltage if self.decision.of_membranes else spikes

    def clear(self) -> None:
        """Forget what adds up, before the next sample."""
        self.counts[:] = 0
        if self.scores is not None:
            self.scores[:] = 0
