"""Batch execution of a Network on the CPU, bit-exact with Lava's fixed-point models and the chip."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.kernels import spikes as bits_of
from delaynet_lava.kernels.events import (
    NO_SYNAPSES,
    event_list,
    largest_sum,
    longest_delay,
    padded,
    ring_length,
    run_layer,
    state_type,
)
from delaynet_lava.network import RESETS, Dense, Layer, Network
from delaynet_lava.trace import Trace, check_inputs, recorded_layers

__all__ = ["Extremes", "emulate", "extremes"]

_CHUNK = 1024
_WATCHED = 128
_NO_BITS, _NO_VALUES = np.zeros((0, 0, 0), np.uint64), np.zeros((0, 0, 0), np.int32)


class _LayerState:
    """A layer laid out for the kernel, with the state of every sample."""

    def __init__(self, layer: Layer, batch: int) -> None:
        neuron, self.size = layer.neuron, layer.size
        lanes = padded(self.size)
        self.forward = self.recurrent = NO_SYNAPSES
        self.encode = np.zeros(2, np.int64)
        delay = largest = 0
        if isinstance(layer, Dense):
            self.forward = event_list(layer.synapse.weight, layer.synapse.delay, layer.synapse.weight_exp)
            if layer.recurrent is not None:
                back = layer.recurrent
                self.recurrent = event_list(back.weight, back.delay, back.weight_exp)
            delay = max(longest_delay(self.forward), longest_delay(self.recurrent))
            largest = largest_sum(self.forward) + largest_sum(self.recurrent)
        else:
            self.encode[:] = layer.weight, layer.bias
            largest = 255 * abs(layer.weight) + abs(layer.bias)
        shifted = neuron.shifted_bias(self.size)
        word = state_type(largest, int(np.abs(shifted).max(initial=0)))
        bias: np.ndarray = np.zeros(lanes, word)
        bias[: self.size] = shifted
        self.parameters = (
            neuron.du if isinstance(layer, Dense) else fx.DECAY_ONE,
            neuron.dv,
            bias,
            neuron.threshold,
            RESETS[neuron.reset],
            *neuron.grid,
        )
        self.u: np.ndarray = np.zeros((batch, lanes), word)
        self.v: np.ndarray = np.zeros((batch, lanes), word)
        self.pending: np.ndarray = np.zeros((batch, ring_length(delay), lanes), word)
        self.counts = np.zeros((batch, 3), np.int64)

    @property
    def voltage(self) -> np.ndarray:
        """int32 (batch, neurons), the membrane now."""
        return self.v[:, : self.size].astype(np.int32)

    def run(
        self,
        bits: np.ndarray,
        values: np.ndarray,
        clock: int,
        steps: int,
        voltage: np.ndarray,
        current: np.ndarray = _NO_VALUES,
        before_reset: bool = False,
    ) -> np.ndarray:
        fired = np.empty((len(self.u), steps, bits_of.words(self.size)), np.uint64)
        run_layer(
            bits, values, 0, steps, 1, self.forward, self.recurrent, self.encode, *self.parameters, clock,
            self.u, self.v, self.pending, fired, current, voltage, before_reset, self.counts,
        )  # fmt: skip
        return fired


def _chunks(
    network: Network, inputs: np.ndarray | Iterable[np.ndarray], length: int = _CHUNK
) -> Iterator[np.ndarray]:
    """Inputs in pieces of at most so many steps, checked."""
    batch = None
    for part in [inputs] if isinstance(inputs, np.ndarray) else inputs:
        part = check_inputs(network, part)
        if batch is not None and len(part) != batch:
            raise InputError("inputs", f"change from {batch} samples to {len(part)} between two parts")
        batch = len(part)
        for first in range(0, part.shape[1], length):
            yield part[:, first : first + length]


def _incoming(network: Network, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A chunk as the first layer takes it: bits or values."""
    if isinstance(network.layers[0], Dense):
        return bits_of.pack(chunk), _NO_VALUES
    return _NO_BITS, chunk.astype(np.int32)


def emulate(
    network: Network,
    inputs: np.ndarray | Iterable[np.ndarray],
    record: Collection[str] = ("spikes",),
    layers: Collection[int] | None = None,
) -> Trace:
    """Run a batch of inputs from rest.

    Samples are spread over the cores. Memory beside inputs and records does not grow with the number
    of steps.

    Args:
        inputs: uint8 or bool (batch, steps, channels), or parts of it in the order of time, which are
            taken one by one: a sequence of any length in constant memory.
        record: any of "spikes" and "voltage"; final voltages and counters are always kept.
        layers: indices of the layers to record (negative ones count from the end); None: all.

    Returns:
        The trace, equal to Lava's and the chip's integer by integer.

    Raises:
        InputError: inputs that the network does not take, or an unknown thing to record.
    """
    chosen = recorded_layers(network, record, layers)
    started = time.perf_counter()
    states: list[_LayerState] = []
    spikes: dict[int, list[np.ndarray]] = {k: [] for k in chosen if "spikes" in record}
    voltage: dict[int, list[np.ndarray]] = {k: [] for k in chosen if "voltage" in record}
    clock = 0
    for chunk in _chunks(network, inputs):
        batch, steps, _ = chunk.shape
        states = states or [_LayerState(layer, batch) for layer in network.layers]
        bits, values = _incoming(network, chunk)
        for k, state in enumerate(states):
            seen = np.empty((batch, steps, state.size), np.int32) if k in voltage else _NO_VALUES
            bits, values = state.run(bits, values, clock, steps, seen), _NO_VALUES
            if k in spikes:
                spikes[k].append(bits_of.unpack(bits, state.size))
            if k in voltage:
                voltage[k].append(seen)
        clock += steps
    if not states:
        raise InputError("inputs", "are empty, no part came")
    return Trace(
        backend="emulator",
        steps=clock,
        batch=len(states[0].u),
        final_voltage=[s.voltage for s in states],
        u_wraps=[int(s.counts[:, 0].sum()) for s in states],
        v_saturations=[int(s.counts[:, 1].sum()) for s in states],
        spike_counts=[s.counts[:, 2].copy() for s in states],
        spikes={k: _joined(parts) for k, parts in spikes.items()},
        voltage={k: _joined(parts) for k, parts in voltage.items()},
        wall_s=time.perf_counter() - started,
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class Extremes(NamedTuple):
    """Smallest and largest state of each neuron of a layer in each sample, int32 (batch, neurons).

    ``u`` is what its 24 bits hold, ``v`` the membrane that is compared with the threshold, before the
    reset.
    """

    u_low: np.ndarray
    u_high: np.ndarray
    v_low: np.ndarray
    v_high: np.ndarray


def extremes(network: Network, inputs: np.ndarray | Iterable[np.ndarray]) -> list[Extremes]:
    """Run inputs as :func:`emulate` does and keep the extremes of every layer; several times slower.

    Raises:
        InputError: inputs that the network does not take.
    """
    states: list[_LayerState] = []
    found: list[Extremes] = []
    clock = 0
    for chunk in _chunks(network, inputs, _WATCHED):
        batch, steps, _ = chunk.shape
        if not states:
            states = [_LayerState(layer, batch) for layer in network.layers]
            # A run begins at rest, which counts.
            found = [Extremes(*np.zeros((4, batch, state.size), np.int32)) for state in states]
        bits, values = _incoming(network, chunk)
        for state, (u_low, u_high, v_low, v_high) in zip(states, found, strict=True):
            u, v = np.empty((2, batch, steps, padded(state.size)), np.int32)
            bits, values = state.run(bits, values, clock, steps, v, u, True), _NO_VALUES
            for seen, low, high in ((u, u_low, u_high), (v, v_low, v_high)):
                np.minimum(low, seen.min(axis=1)[:, : state.size], out=low)
                np.maximum(high, seen.max(axis=1)[:, : state.size], out=high)
        clock += steps
    if not states:
        raise InputError("inputs", "are empty, no part came")
    return found
