"""Batch execution of a Network on the CPU, bit-exact with Lava's fixed-point models and the chip."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.kernels import spikes as bits_of
from delaynet_lava.kernels.events import NEVER, NO_SYNAPSES, EventList, event_list, sorted_list
from delaynet_lava.kernels.layer import NO_BITS, NO_VALUES, LayerRun
from delaynet_lava.kernels.src_layer import SrcRun
from delaynet_lava.kernels.threads import spread
from delaynet_lava.network import SPIKES, Dense, Layer, Network, Payload, Src, Synapse
from delaynet_lava.neuron import RESETS
from delaynet_lava.sparse import SparseSynapse
from delaynet_lava.trace import RECORDABLE, Trace, check_inputs, recorded_layers

__all__ = ["Extremes", "emulate", "extremes", "lay_out"]

_CHUNK = 1024
_WATCHED = 128
_SORTED: WeakKeyDictionary[Synapse, EventList] = WeakKeyDictionary()


def lay_out(
    layer: Layer, batch: int, lead: int = 1, spiking: bool = True, payload: Payload = SPIKES
) -> LayerRun:
    """A layer for the compiled loop, in its initial state.

    Args:
        payload: what comes in.
        lead: lag of an undelayed input, see :class:`kernels.events.Parameters`.
        spiking: whether its membranes are compared with the threshold.
    """
    neuron, size = layer.neuron, layer.size
    forward = recurrent = NO_SYNAPSES
    if isinstance(layer, Dense):
        forward = _events(layer.synapse)
        if layer.recurrent is not None:
            recurrent = _events(layer.recurrent)
    if isinstance(neuron, Src):
        start = neuron.initial(size)
        run = SrcRun(batch, size, forward, recurrent, neuron.form, neuron.bias, start, payload.magnitude)
        if run.largest << max(neuron.shift, 0) >= 1 << 62:
            raise InputError(
                "layer", f"payloads can add up to {run.largest} in a step, beyond 64 bits shifted"
            )
        return run
    decays, encode, largest = (neuron.du, neuron.dv), None, payload.magnitude
    if not isinstance(layer, Dense):
        decays, encode = (fx.DECAY_ONE, neuron.dv), (layer.weight, layer.bias)
        largest = payload.magnitude * abs(layer.weight) + abs(layer.bias)
    threshold = neuron.threshold if spiking else NEVER
    bias = neuron.shifted_bias(size)
    return LayerRun(
        batch, size, forward, recurrent, decays, threshold, RESETS[neuron.reset], neuron.grid, bias,
        lead, encode, largest, neuron.initial(size),
    )  # fmt: skip


def _events(synapse: Synapse) -> EventList:
    """Sorted once for each synapse, whose arrays never change: of thousands of neurons that takes seconds."""
    if synapse not in _SORTED:
        if isinstance(synapse, SparseSynapse):
            of = synapse.start, synapse.post, synapse.words, synapse.lags
            _SORTED[synapse] = sorted_list(synapse.shape[0], *of, synapse.weight_exp)
        else:
            _SORTED[synapse] = event_list(synapse.weight, synapse.delay, synapse.weight_exp)
    return _SORTED[synapse]


def _chunks(network: Network, inputs: np.ndarray | Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Inputs in pieces of at most so many steps, checked, and the network's tail of silence."""
    batch = None
    # An array of another library's is one, not a sequence of parts.
    whole = isinstance(inputs, np.ndarray) or hasattr(inputs, "__array__")
    if not whole and not isinstance(inputs, Iterable):
        raise InputError("inputs", f"are of type {type(inputs).__name__}", "give an array, or parts of one")
    parts: Iterable[Any] = [inputs] if whole else inputs
    for part in parts:
        part = check_inputs(network, part)
        if batch is not None and len(part) != batch:
            raise InputError("inputs", f"change from {batch} samples to {len(part)} between two parts")
        batch = len(part)
        for first in range(0, part.shape[1], length):
            yield part[:, first : first + length]
    if batch is None:
        return
    for first in range(0, network.tail, length):
        steps = min(length, network.tail - first)
        yield np.zeros((batch, steps, network.channels), network.payload.dtype)


def _incoming(network: Network, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A chunk as the first layer takes it: bits or values."""
    if network.layers[0].synapse is not None and not network.payload.bits:
        return bits_of.pack(chunk), NO_VALUES
    return NO_BITS, chunk.astype(np.int32)


def _states(network: Network, batch: int) -> list[LayerRun]:
    layers = enumerate(network.layers)
    return [lay_out(layer, batch, payload=network.payload_into(k)) for k, layer in layers]


def _rooms(state: LayerRun, layer: Layer, steps: int, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Where a layer writes its states, by name; and "sent", what it sends where that is no spikes."""
    widths = {"voltage": state.size, "current": state.lanes}
    if isinstance(state, SrcRun):
        widths["slow"] = state.size
    widths = {name: width for name, width in widths.items() if name in wanted}
    if layer.neuron.sends.bits:
        widths["sent"] = state.size
    return {name: np.empty((len(state.counts), steps, width), np.int32) for name, width in widths.items()}


def emulate(
    network: Network,
    inputs: np.ndarray | Iterable[np.ndarray],
    record: Collection[str] = ("spikes",),
    layers: Collection[int] | None = None,
) -> Trace:
    """Run a batch of inputs, each sample from the network's initial state.

    Samples are spread over the cores. Memory beside inputs and records does not grow with the number
    of steps.

    Args:
        inputs: integers or bool (batch, steps, channels), spikes or what else :attr:`Network.payload`
            says, or parts of it in the order of time, which are taken one by one: a sequence of any
            length in constant memory.
        record: any of "spikes", "voltage", "current" and "slow" (:class:`Trace`); final voltages and counters
            are always kept.
        layers: indices of the layers to record (negative ones count from the end); None: all.

    Returns:
        The trace, equal to Lava's and the chip's integer by integer.

    Raises:
        InputError: inputs that the network does not take, or an unknown thing to record.
    """
    chosen = recorded_layers(network, record, layers)
    started = time.perf_counter()
    states: list[LayerRun] = []
    parts: dict[str, dict[int, list[np.ndarray]]] = {name: {} for name in RECORDABLE}
    last, decision = len(network.layers) - 1, network.answer
    scores = None
    clock = 0
    for chunk in _chunks(network, inputs, _CHUNK):
        batch, steps, _ = chunk.shape
        states = states or _states(network, batch)
        bits, values = _incoming(network, chunk)
        window = decision.within(clock, steps)
        for k, (state, layer) in enumerate(zip(states, network.layers, strict=True)):
            summed = k == last and decision.of_membranes and window.stop > window.start
            wanted = set(record) if k in chosen else set()
            rooms = _rooms(state, layer, steps, wanted | ({"voltage"} if summed else set()))
            fired = state.room(steps)
            state.advance(bits, values, 0, steps, clock, fired, before_reset=False, **rooms)
            bits, values = (NO_BITS, rooms["sent"]) if "sent" in rooms else (fired, NO_VALUES)
            if "spikes" in wanted:
                graded = values.astype(layer.neuron.sends.dtype)
                rooms["spikes"] = graded if len(values) else bits_of.unpack(fired, state.size)
            for name in wanted & rooms.keys():
                parts[name].setdefault(k, []).append(rooms[name][..., : state.size])
            if k == last and decision.kind != "last":
                scores = np.zeros((batch, state.size), np.int64) if scores is None else scores
                if summed:
                    scores += rooms["voltage"][:, window].sum(axis=1, dtype=np.int64)
                elif not decision.of_membranes:
                    spread(bits_of.tally, len(bits), bits, window.start, window.stop, scores)
        clock += steps
    if not states:
        raise InputError("inputs", "are empty, no part came")
    return Trace(
        backend="emulator",
        steps=clock,
        batch=len(states[0].counts),
        final_voltage=[s.voltage for s in states],
        u_wraps=[int(s.counts[:, 0].sum()) for s in states],
        v_saturations=[int(s.counts[:, 1].sum()) for s in states],
        spike_counts=[s.counts[:, 2].copy() for s in states],
        **{name: {k: _joined(one) for k, one in of.items()} for name, of in parts.items()},
        scores=scores,
        wall_s=time.perf_counter() - started,
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=1)


class Extremes(NamedTuple):
    """Smallest and largest state of each neuron of a layer in each sample, int32 (batch, neurons).

    ``u`` is what its 24 bits hold, ``v`` the membrane that is compared with the threshold, before the
    reset; i and h of Spiking Recurrent Cells.
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
    recorded_layers(network, (), None)
    states: list[LayerRun] = []
    found: list[Extremes] = []
    clock = 0
    for chunk in _chunks(network, inputs, _WATCHED):
        batch, steps, _ = chunk.shape
        if not states:
            states = _states(network, batch)
            # The state at rest counts.
            found = [Extremes(*np.zeros((4, batch, state.size), np.int32)) for state in states]
        bits, values = _incoming(network, chunk)
        for state, layer, (u_low, u_high, v_low, v_high) in zip(states, network.layers, found, strict=True):
            u, v = np.empty((2, batch, steps, state.lanes), np.int32)
            rooms = {"voltage": v, "current": u} | _rooms(state, layer, steps, ())
            fired = state.room(steps)
            state.advance(bits, values, 0, steps, clock, fired, before_reset=True, **rooms)
            bits, values = (NO_BITS, rooms["sent"]) if "sent" in rooms else (fired, NO_VALUES)
            for seen, low, high in ((u, u_low, u_high), (v, v_low, v_high)):
                np.minimum(low, seen.min(axis=1)[:, : state.size], out=low)
                np.maximum(high, seen.max(axis=1)[:, : state.size], out=high)
        clock += steps
    if not states:
        raise InputError("inputs", "are empty, no part came")
    return found
