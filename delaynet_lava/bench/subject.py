"""The network that is measured: a trained one, or a seeded one that spikes as often."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.bench.shapes import SHAPES, Shape, inputs_of
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.network import Dense, Network, Neuron, Payload, Synapse, lif
from delaynet_lava.tasks.registry import task

__all__ = [
    "RATE",
    "TASK",
    "Subject",
    "calibrated",
    "hidden_rates",
    "inputs_and_labels",
    "made",
    "parts",
    "probe",
    "random_inputs",
    "stack",
    "task_inputs",
]

TASK, RATE = SHAPES["cue"].task, SHAPES["cue"].rate
# Standard deviations of the weights, in the chip's integers; those of synapses between neurons are those of
# 125 senders, and fall with the root of their number so that the current does not.
RECURRENT_SD, OUTPUT_SD = 40.0, 8.0
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
        shape: name of its shape in :data:`bench.shapes.SHAPES`.
        layers: neurons of the hidden layers; (): those of the shape.
        fan_out: recurrent synapses of a neuron; None: to all.
        vth: threshold mantissas of the hidden layers; (): to be found.
        seed: of the weights.
        task: the word of the task whose inputs are run; "": the shape's.
    """

    model: str | None = None
    shape: str = "cue"
    layers: tuple[int, ...] = ()
    fan_out: int | None = None
    vth: tuple[int, ...] = ()
    seed: int = 0
    task: str = ""

    @property
    def kind(self) -> Shape:
        """The shape of that name."""
        return SHAPES[self.shape]

    @property
    def word(self) -> str:
        """The task's; "": seeded images."""
        return self.task or self.kind.task

    @property
    def extent(self) -> tuple[int, int, int]:
        """Channels, classes, and bits of a payload."""
        if not self.word:
            return self.kind.channels, self.kind.classes, self.kind.payload_bits
        source = task(self.word)
        return source.channels, source.classes or 0, source.payload_bits

    def options(self) -> dict[str, Any]:
        """Plain values that make the same subject again."""
        return asdict(self)

    @staticmethod
    def of(options: dict[str, Any]) -> Subject:
        """The subject of such values."""
        lists = {name: tuple(options[name]) for name in ("layers", "vth")}
        return Subject(**{**options, **lists})

    def network(self) -> Network:
        """Its integers.

        Raises:
            InputError: a model of another shape than input - delayed recurrent - readout.
        """
        return _seeded(self) if self.model is None else _read(self.model, self.extent[:2])


def stack(network: Network) -> tuple[list[tuple[Dense, Synapse]], Dense]:
    """Each hidden layer with its recurrent synapse, and the readout."""
    *hidden, readout = network.layers
    found = []
    for layer in hidden:
        assert isinstance(layer, Dense) and layer.recurrent is not None
        found.append((layer, layer.recurrent))
    assert isinstance(readout, Dense)
    return found, readout


def parts(network: Network) -> tuple[Dense, Synapse, Dense]:
    """The one hidden layer, its recurrent synapse, and the readout."""
    [(hidden, back)], readout = stack(network)
    return hidden, back, readout


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
    kind, rng = subject.kind, np.random.default_rng(subject.seed)
    channels, classes, bits = subject.extent
    layers: list[Dense] = []
    for k, n in enumerate(subject.layers or kind.layers):
        borders = np.rint(np.cumsum(kind.shares) * n).astype(int)
        delay = np.repeat(np.asarray(kind.delays, np.int16), np.diff(borders, prepend=0))
        senders = layers[-1].size if layers else channels
        sd = RECURRENT_SD * np.sqrt(FAN_IN / senders) if layers else kind.input_sd
        into = Synapse(_even(rng.standard_normal((n, senders)) * sd))
        back = Synapse(_recurrent_weight(rng, n, subject.fan_out), np.broadcast_to(delay, (n, n)))
        vth = subject.vth[k] if k < len(subject.vth) else fx.VTH_MAX
        layers.append(Dense(into, Neuron(vth, fx.DECAY_ONE, _decay(kind.tau_ms)), back))
    out = Synapse(_even(rng.standard_normal((classes, layers[-1].size)) * OUTPUT_SD))
    layers.append(Dense(out, Neuron(fx.VTH_MAX, fx.DECAY_ONE, _decay(kind.tau_out_ms))))
    return Network(tuple(layers), input_payload=Payload(bits) if bits else None)


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


def with_threshold(network: Network, layer: int, vth: int) -> Network:
    """The same network with another threshold of a hidden layer."""
    layers = list(network.layers)
    layers[layer] = replace(layers[layer], neuron=replace(lif(layers[layer]), vth=vth))
    return network.with_(layers=tuple(layers))


def hidden_rates(network: Network, inputs: np.ndarray) -> list[float]:
    """Spikes of a neuron in a step, of each hidden layer."""
    trace = emulate(network, inputs, record=())
    hidden = zip(trace.spike_counts[:-1], network.layers[:-1], strict=True)
    return [float(spikes.sum()) / (trace.batch * trace.steps * layer.size) for spikes, layer in hidden]


def calibrated(subject: Subject, inputs: np.ndarray, rate: float | None = None) -> tuple[Subject, float]:
    """The subject with the thresholds at which its neurons spike so often, and how often they do.

    The rate falls as the threshold rises, so the threshold is found by halving, layer after layer. The search
    ends within 2 % of the rate, or where the next integer would be further off.

    Args:
        inputs: (batch, steps, channels); of large networks only as many as are needed.
        rate: spikes of a neuron in a step; None: the shape's.
    """
    network, rate = subject.network(), rate or subject.kind.rate
    if subject.model is None and not subject.vth:
        thresholds: list[int] = []
        for k in range(len(network.layers) - 1):
            thresholds.append(_threshold(network, k, inputs, rate))
            network = with_threshold(network, k, thresholds[k])
        subject = replace(subject, vth=tuple(thresholds))
    return subject, float(np.mean(hidden_rates(network, _probed(network, 0, inputs, rate))))


def _probed(network: Network, layer: int, inputs: np.ndarray, rate: float) -> np.ndarray:
    """As much of the inputs as tells how often a layer's neurons spike."""
    back = stack(network)[0][layer][1]
    events = max(1.0, rate * np.count_nonzero(back.weight))
    steps = int(np.clip(PROBE_EVENTS / events, NEEDED_STEPS, inputs.shape[1]))
    return inputs[: int(np.clip(PROBE_EVENTS / (events * steps), 1, len(inputs))), :steps]


def _threshold(network: Network, layer: int, inputs: np.ndarray, rate: float) -> int:
    probe = _probed(network, layer, inputs, rate)
    low, high, best = 1, fx.VTH_MAX - 1, (np.inf, 0)
    for _ in range(TRIES):
        vth = round(np.sqrt(low * high))
        seen = hidden_rates(with_threshold(network, layer, vth), probe)[layer]
        best = min(best, (abs(seen / rate - 1), vth))
        if best[0] < TOLERANCE or high - low < 2:
            break
        low, high = (vth, high) if seen > rate else (low, vth)
    return best[1]


def task_inputs(samples: int, steps: int | None = None, word: str = TASK) -> tuple[np.ndarray, np.ndarray]:
    """The first test samples of a task: (samples, steps, channels), int64 (samples,)."""
    inputs, labels = task(word).batch("test", 0, samples)
    return np.ascontiguousarray(inputs[:, :steps]), labels


def random_inputs(samples: int, steps: int, seed: int = 0) -> np.ndarray:
    """Spikes as frequent as the busy inputs of :data:`TASK`: uint8 (samples, steps, channels)."""
    rng = np.random.default_rng(seed)
    out = np.empty((samples, steps, SHAPES["cue"].channels), np.uint8)
    for sample in out:
        sample[:] = rng.random(sample.shape, np.float32) < INPUT_RATE
    return out


def inputs_and_labels(
    subject: dict[str, Any], inputs: str, samples: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the subject ("task") or random spikes ("random"), and a class for each sample."""
    if inputs == "task":
        return probe(Subject.of(subject), samples, steps)
    return random_inputs(samples, steps), np.arange(samples) % 2


def probe(subject: Subject, samples: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What a subject is shown, and a class for each sample."""
    if subject.word:
        return task_inputs(samples, steps, subject.word)
    return inputs_of(samples, steps), np.arange(samples) % subject.kind.classes


def made(options: dict[str, Any], x: np.ndarray, rate: float | None) -> Network:
    """The network of a subject's options; where a rate is given its threshold is found first."""
    chosen = Subject.of(options)
    if rate is not None:
        chosen, _ = calibrated(chosen, x, rate)
    return chosen.network()
