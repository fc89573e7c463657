"""One layer laid out for the compiled loop: synapses, parameters, and the state of every sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delaynet_lava.fixedpoint import DECAY_ONE
from delaynet_lava.kernels.events import (
    EventList,
    Incoming,
    Parameters,
    Record,
    State,
    largest_sum,
    longest_delay,
    padded,
    ring_length,
    run_layer,
    state_types,
)
from delaynet_lava.kernels.spikes import words
from delaynet_lava.kernels.threads import spread

__all__ = ["NO_BITS", "NO_RECORD", "NO_VALUES", "LayerRun"]

NO_BITS = np.zeros((0, 0, 0), np.uint64)
NO_VALUES = NO_RECORD = np.zeros((0, 0, 0), np.int32)


class LayerRun:
    """A layer that runs forward from its initial state, a piece of time at a time.

    Args:
        batch, neurons: how many samples and neurons.
        forward, recurrent: synapses; :data:`kernels.events.NO_SYNAPSES` where there are none.
        decays: of current and membrane, of all neurons or int (neurons,) each.
        threshold: shifted; :data:`kernels.events.NEVER` for neurons that do not spike.
        reset, grid: ``RESET_ZERO`` or ``RESET_SUBTRACT``; see :func:`fixedpoint.membrane_grid`.
        bias: (neurons,), shifted; None: none.
        lead: see :class:`kernels.events.Parameters`.
        encode: of values, see there; None where spikes or payloads come in.
        largest: bound on what a value adds to a synaptic input, with ``encode``; else on |payload|.
        initial: int32 (neurons,) each, current and membrane before the first step; None: at rest.

    Attributes:
        lanes: neurons of the layout.
        state: current (batch, lanes), membrane (batch, lanes), inputs to come (batch, ring, lanes).
        counts: int64 (batch, 3): u wraps, v saturations, spikes so far.
    """

    def __init__(
        self,
        batch: int,
        neurons: int,
        forward: EventList,
        recurrent: EventList,
        decays: tuple[int | np.ndarray, int | np.ndarray],
        threshold: int,
        reset: int,
        grid: tuple[int, int],
        bias: np.ndarray | None = None,
        lead: int = 1,
        encode: tuple[int, int] | None = None,
        largest: int = 1,
        initial: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.size, self.lanes = neurons, padded(neurons)
        most = 0 if bias is None else int(np.abs(bias).max(initial=0))
        arriving = largest * largest_sum(forward) if encode is None else largest
        word, of_ring = state_types(arriving + largest_sum(recurrent), most)
        full: np.ndarray = np.zeros(self.lanes, word)
        full[:neurons] = 0 if bias is None else bias
        if isinstance(decays[0], np.ndarray) or isinstance(decays[1], np.ndarray):
            # Neurons that differ have theirs in a row of the layout; those that fill it up forget at once.
            kept: np.ndarray = np.full((2, self.lanes), DECAY_ONE, word)
            for row, k in zip(kept, decays, strict=True):
                row[:neurons] = k
        else:
            kept = np.array([[decays[0]], [decays[1]]], word)
        weighted = np.array(() if encode is None else encode, np.int64)
        self._synapses = forward, recurrent
        self._parameters = Parameters(lead, weighted, kept, full, threshold, reset, *grid)
        ring = ring_length(max(longest_delay(forward), longest_delay(recurrent)))
        u, v = np.zeros((2, batch, self.lanes), word)
        self.state: tuple[np.ndarray, ...] = u, v, np.zeros((batch, ring, self.lanes), of_ring)
        for now, start in zip(self.state, initial or (), strict=False):
            now[:, :neurons] = start
        self.counts = np.zeros((batch, 3), np.int64)

    @property
    def voltage(self) -> np.ndarray:
        """int32 (batch, neurons), the membrane now."""
        return self.state[1][:, : self.size].astype(np.int32)

    def room(self, steps: int) -> np.ndarray:
        """uint64 (batch, steps, words), not filled: where spikes of so many steps go."""
        return np.empty((len(self.counts), steps, words(self.size)), np.uint64)

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a state that was copied before."""
        for now, then in zip(self.state, state, strict=True):
            now[:] = then

    def advance(
        self,
        bits: np.ndarray,
        values: np.ndarray,
        first: int,
        steps: int,
        clock: int,
        fired: np.ndarray,
        voltage: np.ndarray = NO_RECORD,
        current: np.ndarray = NO_RECORD,
        before_reset: bool = True,
    ) -> None:
        """Run some steps; the arguments are those of :func:`kernels.events.run_layer` and its tuples."""
        u, v, pending = self.state
        spread(
            run_layer, len(u), Incoming(bits, values), first, steps, *self._synapses, self._parameters, clock,
            State(u, v, pending, self.counts), Record(fired, current, voltage, before_reset),
        )  # fmt: skip
