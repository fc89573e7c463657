"""The network that is measured: a trained one, or a seeded one that spikes as often."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.network import Dense, Network, Neuron, Synapse, lif
from delaynet_lava.tasks.registry import task

__all__ = [
    "RATE",
    "TASK",
    "Subject",
    "calibrated",
    "hidden_rate",
    "inputs_and_labels",
    "made",
    "parts",
    "random_inputs",
    "task_inputs",
]

TASK = "cue:cues=7,wait_ms=1200"
"""Whose inputs are run where no other task is named."""
RATE = 0.024
"""Spikes of a hidden neuron in a step: those of the shipped model on its task."""

DELAYS, SHARES = (0, 50, 62), (0.176, 0.424, 0.400)
TAU_MS, TAU_OUT_MS = 25.0, 20.0
# Standard deviations of the weights, in the chip's integers; the recurrent ones are those of 125
# inputs to a neuron, and fall with the root of their number so that the current does not.
INPUT_SD, RECURRENT_SD, OUTPUT_SD = 100.0, 40.0, 8.0
FAN_IN = 125
INPUT_RATE = 0.04  # of random inputs: that of the task's busy inputs, so that the network wakes at once
TOLERANCE, TRIES = 0.02, 16
PROBE_EVENTS = 3e8
NEEDED_STEPS = 160


@dataclass(frozen=True)
class Subject:
    """Which network to measure; plain values, so that every process makes the same one.

    Attributes:
        model: path of a model.pt or net.h5; None: a seeded one of the other attributes.
        neurons: of the hidden layer.
        fan_out: recurrent synapses of a neuron; None: to all.
        delays: of the three groups of neurons.
        vth: threshold mantissa of the hidden layer; -1: to be calibrated.
        seed: of the weights.
        task: the word of the task whose inputs are run.
    """

    model: str | None = None
    neurons: int = 125
    fan_out: int | None = None
    delays: tuple[int, ...] = DELAYS
    vth: int = -1
    seed: int = 0
    task: str = TASK

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs: channels and classes of the task."""
        source = task(self.task)
        return source.channels, source.classes or 0

    def options(self) -> dict[str, Any]:
        """Plain values that make the same subject again."""
        return asdict(self)

    @staticmethod
    def of(options: dict[str, Any]) -> Subject:
        """The subject of such values."""
        return Subject(**{**options, "delays": tuple(options["delays"])})

    def network(self) -> Network:
        """Its integers.

        Raises:
            InputError: a model of another shape than input - delayed recurrent - readout.
        """
        return _seeded(self) if self.model is None else _read(self.model, self.shape)


def parts(network: Network) -> tuple[Dense, Synapse, Dense]:
    """The hidden layer, its recurrent synapse, and the readout."""
    hidden, readout = network.layers
    assert isinstance(hidden, Dense) and hidden.recurrent is not None and isinstance(readout, Dense)
    return hidden, hidden.recurrent, readout


def _even(values: np.ndarray) -> np.ndarray:
    words = 2 * np.rint(values / 2)
    return np.clip(words, fx.WEIGHT_MIN, fx.WEIGHT_MAX).astype(np.int16)


def _decay(tau_ms: float) -> int:
    return round(fx.DECAY_ONE * float(-np.expm1(-1.0 / tau_ms)))


def _recurrent_weight(rng: np.random.Generator, neurons: int, fan_out: int | None) -> np.ndarray:
    sd = RECURRENT_SD * np.sqrt(FAN_IN / (fan_out or neurons))
    if fan_out is None or fan_out >= neurons:
        weight = _even(rng.standard_normal((neurons, neurons), np.float32) * np.float32(sd))
    else:
        weight = np.zeros((neurons, neurons), np.int16)
        post = rng.integers(0, neurons, (fan_out, neurons))
        weight[post, np.arange(neurons)] = _even(rng.standard_normal(post.shape) * sd)
    np.fill_diagonal(weight, 0)
    return weight


def _seeded(subject: Subject) -> Network:
    n, rng = subject.neurons, np.random.default_rng(subject.seed)
    channels, classes = subject.shape
    borders = np.rint(np.cumsum(SHARES) * n).astype(int)
    delay = np.repeat(np.asarray(subject.delays, np.int16), np.diff(borders, prepend=0))
    into = Synapse(_even(rng.standard_normal((n, channels)) * INPUT_SD))
    back = Synapse(_recurrent_weight(rng, n, subject.fan_out), np.broadcast_to(delay, (n, n)))
    out = Synapse(_even(rng.standard_normal((classes, n)) * OUTPUT_SD))
    vth = fx.VTH_MAX if subject.vth < 0 else subject.vth
    hidden = Dense(into, Neuron(vth, fx.DECAY_ONE, _decay(TAU_MS)), back)
    readout = Dense(out, Neuron(fx.VTH_MAX, fx.DECAY_ONE, _decay(TAU_OUT_MS)))
    return Network((hidden, readout))


def _read(path: str, wanted: tuple[int, int]) -> Network:
    channels, classes = wanted
    if path.endswith((".h5", ".hdf5", ".net")):
        network = netx.read(path)
    else:
        from delaynet_lava.export import extract  # needs torch
        from delaynet_lava.formats.model_file import load_model

        network = extract(load_model(path))
    first, last = network.layers[0], network.layers[-1]
    shape = (network.channels, len(network.layers), last.size)
    fits = shape == (channels, 2, classes) and first.recurrent is not None and last.neuron.is_readout
    neuron = lif(first, path)
    if not fits or (neuron.du, neuron.reset) != (fx.DECAY_ONE, "zero"):
        raise InputError(
            path,
            f"is {network.summary()}, current decay {neuron.du}, reset {neuron.reset}",
            f"give {channels} inputs, a recurrent layer with decay 4096 that resets to zero, "
            f"and a readout of {classes}",
        )
    return network


def with_threshold(network: Network, vth: int) -> Network:
    """The same network with another threshold of the hidden layer."""
    hidden, _, readout = parts(network)
    return network.with_(layers=(replace(hidden, neuron=replace(lif(hidden), vth=vth)), readout))


def hidden_rate(network: Network, inputs: np.ndarray) -> float:
    """Spikes of a hidden neuron in a step."""
    batch, steps, _ = inputs.shape
    trace = emulate(network, inputs, record=())
    return float(trace.spike_counts[0].sum()) / (batch * steps * network.layers[0].size)


def calibrated(subject: Subject, inputs: np.ndarray, rate: float = RATE) -> tuple[Subject, float]:
    """The subject with the threshold at which its neurons spike so often, and how often they do.

    The rate falls as the threshold rises, so the threshold is found by halving. The search ends
    within 2 % of the rate, or where the next integer would be further off.

    Args:
        inputs: uint8 (batch, steps, channels); of large networks only as many as are needed.
    """
    network = subject.network()
    if subject.model is not None or subject.vth >= 0:
        return subject, hidden_rate(network, inputs)
    events = max(1.0, rate * np.count_nonzero(parts(network)[1].weight))
    steps = int(np.clip(PROBE_EVENTS / events, NEEDED_STEPS, inputs.shape[1]))
    samples = int(np.clip(PROBE_EVENTS / (events * steps), 1, len(inputs)))
    probe = inputs[:samples, :steps]
    low, high, best = 1, fx.VTH_MAX - 1, (np.inf, 0, 0.0)
    for _ in range(TRIES):
        vth = round(np.sqrt(low * high))
        seen = hidden_rate(with_threshold(network, vth), probe)
        best = min(best, (abs(seen / rate - 1), vth, seen))
        if best[0] < TOLERANCE or high - low < 2:
            break
        low, high = (vth, high) if seen > rate else (low, vth)
    return replace(subject, vth=best[1]), best[2]


def task_inputs(samples: int, steps: int | None = None, word: str = TASK) -> tuple[np.ndarray, np.ndarray]:
    """The first test samples of a task: uint8 (samples, steps, channels), int64 (samples,)."""
    inputs, labels = task(word).batch("test", 0, samples)
    return np.ascontiguousarray(inputs[:, :steps]), labels


def random_inputs(samples: int, steps: int, seed: int = 0) -> np.ndarray:
    """Spikes as frequent as the busy inputs of :data:`TASK`: uint8 (samples, steps, channels)."""
    rng = np.random.default_rng(seed)
    out = np.empty((samples, steps, task(TASK).channels), np.uint8)
    for sample in out:
        sample[:] = rng.random(sample.shape, np.float32) < INPUT_RATE
    return out


def inputs_and_labels(
    subject: dict[str, Any], inputs: str, samples: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the subject's task ("task") or random ones ("random"), and a class for each sample."""
    if inputs == "task":
        return task_inputs(samples, steps, subject["task"])
    return random_inputs(samples, steps), np.arange(samples) % 2


def made(options: dict[str, Any], x: np.ndarray, rate: float | None) -> Network:
    """The network of a subject's options; where a rate is given its threshold is found first."""
    chosen = Subject.of(options)
    if rate is not None:
        chosen, _ = calibrated(chosen, x, rate)
    return chosen.network()
