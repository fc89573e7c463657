"""Batch execution of a Network on the CPU, bit-exact with Lava's fixed-point models and the chip."""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.kernels.events import NO_SYNAPSES, event_list, run_layer
from delaynet_lava.network import RESETS, Dense, Layer, Network
from delaynet_lava.trace import Trace, check_inputs, recorded_layers

__all__ = ["emulate"]

_CHUNK = 1024
_NO_VOLTAGE = np.zeros((0, 0, 0), np.int32)


class _LayerState:
    """A layer laid out for the kernel, with the state of every sample."""

    def __init__(self, layer: Layer, batch: int) -> None:
        neuron, n = layer.neuron, layer.size
        self.forward = self.recurrent = NO_SYNAPSES
        self.encode = np.zeros(3, np.int64)
        delay = 0
        if isinstance(layer, Dense):
            self.forward = event_list(layer.synapse.weight, layer.synapse.delay, layer.synapse.weight_exp)
            delay = layer.synapse.max_delay
            if layer.recurrent is not None:
                back = layer.recurrent
                self.recurrent = event_list(back.weight, back.delay, back.weight_exp)
                delay = max(delay, back.max_delay)
        else:
            self.encode[:] = layer.weight, layer.bias, 1
        self.parameters = (
            neuron.du if isinstance(layer, Dense) else fx.DECAY_ONE,
            neuron.dv,
            neuron.shifted_bias(n),
            neuron.vth << fx.STATE_SHIFT,
            RESETS[neuron.reset],
        )
        self.u, self.v = np.zeros((batch, n), np.int64), np.zeros((batch, n), np.int64)
        self.pending = np.zeros((batch, delay + 2, n), np.int32)
        self.counts = np.zeros((batch, 3), np.int64)

    def run(self, inputs: np.ndarray, offset: int, clock: int, steps: int, voltage: np.ndarray) -> np.ndarray:
        spikes = np.empty((*self.u.shape[:1], steps, self.u.shape[1]), np.uint8)
        run_layer(
            inputs, offset, self.forward, self.recurrent, self.encode, *self.parameters, clock,
            self.u, self.v, self.pending, spikes, voltage, self.counts,
        )  # fmt: skip
        return spikes


def emulate(
    network: Network,
    inputs: np.ndarray,
    record: Collection[str] = ("spikes",),
    layers: Collection[int] | None = None,
) -> Trace:
    """Run a batch of inputs from rest.

    Args:
        inputs: uint8 or bool (batch, steps, channels).
        record: any of "spikes" and "voltage"; final voltages and counters are always kept.
        layers: indices of the layers to record (negative ones count from the end); None: all.

    Returns:
        The trace, equal to Lava's and the chip's integer by integer.

    Raises:
        InputError: inputs that the network does not take, or an unknown thing to record.
    """
    chosen = recorded_layers(network, record, layers)
    inputs = check_inputs(network, inputs)
    started = time.perf_counter()
    batch, steps, _ = inputs.shape
    states = [_LayerState(layer, batch) for layer in network.layers]
    spikes = {
        k: np.empty((batch, steps, network.layers[k].size), np.uint8) for k in chosen if "spikes" in record
    }
    voltage = {
        k: np.empty((batch, steps, network.layers[k].size), np.int32) for k in chosen if "voltage" in record
    }
    for first in range(0, steps, _CHUNK):
        part = slice(first, min(first + _CHUNK, steps))
        signal, offset = inputs, first
        for k, state in enumerate(states):
            signal = state.run(signal, offset, first, part.stop - first, voltage.get(k, _NO_VOLTAGE))
            offset = 0
            if k in spikes:
                spikes[k][:, part] = signal
    return Trace(
        backend="emulator",
        steps=steps,
        batch=batch,
        final_voltage=[s.v.astype(np.int32) for s in states],
        u_wraps=[int(s.counts[:, 0].sum()) for s in states],
        v_saturations=[int(s.counts[:, 1].sum()) for s in states],
        spike_counts=[s.counts[:, 2].copy() for s in states],
        spikes=spikes,
        voltage=voltage,
        wall_s=time.perf_counter() - started,
    )
