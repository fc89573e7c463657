"""From the tensors of a trained model to the integers that run. Needs torch, not SLAYER.

The rounding is SLAYER's own, so that the integers are those of its forward pass: weights
``2 * round(32 w)`` clamped to -256 to 254, decays ``round(clamp(k, 0, 4096))``, threshold mantissa
``floor(64 th)``. And so is the time axis: where SLAYER adds a bias together with the first input, the state
before step 0 is the one that the bias of step 0 takes to rest; where its last block is a step ahead of the
chip (``Affine``, ``delay_shift=False``), the network runs a step longer; where its ``Input`` block is a step
late, the spikes behind it are. What can't be made the same is returned as a finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError, shown
from delaynet_lava.export.tensors import LayerTensors, quantize_weight, require_all_taken
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.network import (
    DELAY_LIMIT,
    SPIKES,
    Decision,
    Dense,
    Encoder,
    Layer,
    Network,
    Neuron,
    Payload,
    Src,
    Synapse,
)

__all__ = ["extract", "quantize_weight"]

_RECURRENT = ("DelayRecurrent", "Recurrent")
_CELL = "SpikingRecurrentCell"
_WITH_SYNAPSE = ("DelayRecurrent", "Recurrent", "FusedDense", "Dense", "Affine", "Readout", _CELL)
_TRAINED_THRESHOLD = ("DelayRecurrent", "FusedDense")
_OWN = ("DelayRecurrent", "FusedDense", "Readout")
SLAYER_STRICT = 64 * fx.WEIGHT_SCALE
"""Threshold mantissa from which SLAYER's float32 loses the small number that makes its comparison strict."""
_NOTHING = np.zeros((), np.int32)
FLOAT_EXACT = 1 << 24
"""float32 holds every whole number below."""


def _neuron(entry: dict[str, Any], tensors: LayerTensors) -> Neuron:
    kind = entry["type"]
    if "neuron" not in entry:
        # An Affine without dynamics gives the current of each step. (NetX, of a layer without a neuron,
        # makes one whose current adds up for ever.)
        return Neuron(vth=fx.VTH_MAX, du=fx.DECAY_ONE, dv=fx.DECAY_ONE)
    if not isinstance(entry["neuron"], dict):
        raise InputError(tensors.where, f"its neuron is {shown(entry['neuron'])}, expected a dict")
    if kind in ("Affine", "Readout"):
        vth = fx.VTH_MAX
    else:
        threshold = (
            tensors.scalar("neuron.vth") if kind in _TRAINED_THRESHOLD else entry["neuron"].get("threshold")
        )
        if not isinstance(threshold, float):
            raise InputError(tensors.where, "config holds no threshold")
        if not 0 <= threshold < math.inf:  # SLAYER takes -0.01 for 0
            raise InputError(f"{tensors.where}: threshold", f"is {threshold}, expected 0 or more")
        vth = int(threshold * fx.WEIGHT_SCALE)
    bias = np.zeros((), np.int32)
    if tensors.has("neuron.norm.running_mean"):
        # A mean-only batch norm subtracts its quantised running mean from the current: a bias.
        bias = -quantize_weight(tensors.get("neuron.norm.running_mean")).astype(np.int32)
    word = {
        key: entry["neuron"][key] for key in ("membrane_bits", "full_scale_exp") if key in entry["neuron"]
    }
    neuron = Neuron(
        vth=vth,
        du=tensors.decay("neuron.current_decay"),
        dv=tensors.decay("neuron.voltage_decay"),
        bias=bias,
        reset=entry.get("reset", "zero"),
        **word,
    )
    start = [entry["neuron"].get(key, 0) for key in ("u_start", "v_start")]
    if any(np.any(state) for state in start):
        return neuron.beginning(*start)
    return neuron.quietened() if np.any(bias) else neuron


def _delay_vector(values: torch.Tensor, size: int, where: str) -> np.ndarray:
    """int (size,): SLAYER's learnt delays act, and are exported, rounded down."""
    longest = float(values.max()) if values.numel() else 0.0
    if longest > DELAY_LIMIT:
        raise InputError(where, f"has a delay of {longest:g} steps, more than {DELAY_LIMIT}")
    floored = torch.floor(values.detach().to(torch.float64).flatten()).clamp(min=0).to(torch.int64).numpy()
    if floored.size not in (1, size):
        raise InputError(where, f"has {floored.size} delays for {size} neurons")
    return np.broadcast_to(floored, (size,))


def _arriving(arriving: np.ndarray | None, channels: int, where: str) -> np.ndarray:
    """int (channels,), delays that the senders bring along."""
    if arriving is None:
        return np.zeros(channels, np.int64)
    if arriving.size not in (1, channels):
        raise InputError(where, f"takes {channels} inputs, {arriving.size} neurons send")
    return np.broadcast_to(arriving, (channels,))


def _option(entry: dict[str, Any], name: str, low: int, high: int, where: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{where}: {name}", f"is {shown(value)}, expected a whole number of {low} to {high}")
    return value


def _cells(entry: dict[str, Any], tensors: LayerTensors, arriving: np.ndarray | None) -> Dense:
    """A layer of Spiking Recurrent Cells: the words, b_h and delays of its forward pass."""
    where, of = tensors.where, entry.get("neuron")
    if entry.get("mode") != "integer" or not isinstance(of, dict):
        raise InputError(
            where, "computes in floats, of which nothing is exported", "train on with mode='integer'"
        )
    decay = of.get("current_decay")
    if not isinstance(decay, float) or not 0 <= decay <= 1:
        raise InputError(f"{where}: current_decay", f"is {shown(decay)}, expected 0 to 1")
    bits = _option(entry, "weight_bits", 2, 8, where)
    exponents = _option(entry, "in_exp", 0, 24, where) + _option(entry, "weight_exp", -6, 12, where)
    weight = tensors.matrix("synapse", bits)
    size, channels = weight.shape
    delay = _delay_vector(tensors.get("delay"), channels, where) + _arriving(arriving, channels, where)
    neuron = Src(
        np.full(size, fx.SRC_BIAS_MIN),
        round(decay * fx.DECAY_ONE),
        fx.STATE_SHIFT - exponents,
        str(of.get("squash")),
        str(of.get("activation")),
        _option(of, "slow", min(fx.SRC_SLOW), max(fx.SRC_SLOW), where),
        _option(entry, "output_bits", 0, 8, where),
    )
    # Training holds b_h where a cell is silent, too.
    most = fx.SRC_BIAS_MAX[neuron.activation, neuron.slow]
    bias = (tensors.get("bias").to(torch.float32).reshape(-1) * fx.DECAY_ONE).clamp(fx.SRC_BIAS_MIN, most)
    neuron = replace(neuron, bias=torch.round(bias).to(torch.int32).numpy())
    back = None
    if entry.get("recurrent"):
        w_rec = tensors.square("recurrent_synapse", size, bits)
        if not entry.get("self_connection", True):
            w_rec = w_rec * (1 - np.eye(size, dtype=w_rec.dtype))
        lag = _delay_vector(tensors.get("recurrent_delay"), size, where)
        back = Synapse(w_rec, np.broadcast_to(lag, w_rec.shape))
    return Dense(Synapse(weight, np.broadcast_to(delay, weight.shape)), neuron, back)


def _dense(entry: dict[str, Any], tensors: LayerTensors, arriving: np.ndarray | None) -> Dense:
    recurrent = entry["type"] in _RECURRENT
    weight = tensors.matrix("input_synapse" if recurrent else "synapse")
    delay = _arriving(arriving, weight.shape[1], tensors.where)
    if tensors.has("axon.delay"):
        delay = delay + _delay_vector(tensors.get("axon.delay"), weight.shape[1], tensors.where)
    delay = np.broadcast_to(delay, weight.shape)
    back = None
    if recurrent:
        w_rec = tensors.square("recurrent_synapse", len(weight))
        d_rec = np.zeros((), np.int16)
        if entry["type"] == "DelayRecurrent":
            if not entry.get("self_connection", True):
                w_rec = w_rec * (1 - np.eye(len(w_rec), dtype=w_rec.dtype))
            # Axonal: the delay belongs to the sender, so it is constant down each column.
            d_rec = np.broadcast_to(
                _delay_vector(tensors.get("delay"), len(w_rec), tensors.where), w_rec.shape
            )
        back = Synapse(w_rec, d_rec)
    return Dense(Synapse(weight, delay), _neuron(entry, tensors), back)


def _shape(entry: dict[str, Any], where: str) -> tuple[int, ...]:
    shape = entry.get("shape") or ()
    if not isinstance(shape, list | tuple) or not all(type(n) is int and 0 < n < 1 << 31 for n in shape):
        raise InputError(where, f"its shape is {shown(shape)}, expected whole numbers above 0")
    return tuple(shape)


def _encoder(entry: dict[str, Any], tensors: LayerTensors) -> Encoder:
    neuron = _neuron(entry, tensors)
    if neuron.du != fx.DECAY_ONE:
        raise InputError(
            tensors.where,
            f"its current decay is {neuron.du}; NetX feeds an input layer's neurons through their bias, "
            "which knows no current",
            "use current_decay=1",
        )
    shape = _shape(entry, tensors.where)
    if not shape:
        raise InputError(tensors.where, "its shape is unknown", "run one forward pass before saving")
    # SLAYER multiplies by 64 / 64 where it has no weight of its own.
    affine = {
        name: int(quantize_weight(torch.tensor([tensors.scalar(name)]))[0]) if tensors.has(name) else default
        for name, default in (("weight", fx.WEIGHT_SCALE), ("bias", 0))
    }
    mean = np.unique(neuron.bias)
    if mean.size > 1:
        raise InputError(
            tensors.where,
            "normalises each channel by a mean of its own, but an input's neurons share one bias",
            "leave the norm out of the Input block",
        )
    affine["bias"] += int(mean[0])
    return Encoder(replace(neuron, bias=_NOTHING, v_init=_NOTHING), math.prod(shape), **affine)


def _last_delay(layer: Layer, delays: np.ndarray, where: str) -> Layer:
    """Delays behind the last layer: nobody receives them, so they must shift its inputs instead.

    A neuron whose inputs all come d steps later spikes d steps later, unless its own spikes or a
    bias act on it.
    """
    if not isinstance(layer, Dense) or layer.recurrent is not None or np.any(layer.neuron.bias):
        raise InputError(
            where,
            f"the last layer delays its output by up to {int(delays.max())} steps and no synapse follows it",
            "set delay=False in the last layer",
        )
    delay = layer.synapse.delay.astype(np.int64) + delays[:, None]
    return Dense(Synapse(layer.synapse.weight, delay, layer.synapse.weight_exp), layer.neuron)


def _decision(text: Any, name: str) -> Decision | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"{name}: decision", f"is a {type(text).__name__}, expected a text")
    try:
        return Decision.parse(text)
    except InputError as error:
        raise InputError(f"{name}: {error.where}", error.problem, error.remedy) from error


def _usual_decision(entries: list[dict[str, Any]], last: Layer) -> Decision:
    """Of a model that does not say how it answers: currents add up, membranes have the past in them."""
    if any(entry["type"] == "Affine" and "neuron" not in entry for entry in entries):
        return Decision("sum")
    return Decision("last" if last.neuron.is_readout else "count")


def _payload(config: dict[str, Any], name: str) -> Payload | None:
    if "payload_bits" not in config:
        return None
    try:
        return Payload(config["payload_bits"], config.get("payload_signed", False))
    except InputError as error:
        raise InputError(f"{name}: {error.where}", error.problem, error.remedy) from error


def _differences(entry: dict[str, Any], layer: Dense, payload: Payload) -> Iterator[str]:
    """Where SLAYER's forward pass of a block is not what its integers do."""
    neuron = layer.neuron
    if entry["type"] in _OWN:
        return
    sums = np.abs(layer.synapse.weight.astype(np.int64)).sum(axis=1) * payload.magnitude
    if isinstance(neuron, Src):
        if layer.recurrent is not None:
            sums = sums + np.abs(layer.recurrent.weight.astype(np.int64)).sum(axis=1) * neuron.sends.magnitude
        if sums.max() >= 1 << 31:
            yield f"payloads and weights can add up to {int(sums.max())} in a step, and training has 32 bits"
        return
    if entry["type"] == "Recurrent" and np.any(neuron.bias) and neuron.du != fx.DECAY_ONE:
        yield (
            f"SLAYER's Recurrent keeps the norm's mean in the current, which decays by {neuron.du}/4096; "
            "a bias acts on the membrane alone. Train with current_decay=1, or without norm"
        )
    if not neuron.is_readout and neuron.vth >= SLAYER_STRICT:
        yield (
            f"threshold mantissa {neuron.vth}: from {SLAYER_STRICT} on SLAYER's neuron also spikes where its "
            "membrane equals the threshold, the chip's must exceed it"
        )
    if sums.max() >= FLOAT_EXACT:
        yield (
            f"payloads and weights can add up to {int(sums.max())} in a step, and SLAYER's sums are float32, "
            f"exact below {FLOAT_EXACT}"
        )


def extract(model: ModelFile, name: str = "model") -> Network:
    """The :class:`Network` of integers that a trained model computes with.

    Axonal delays of SLAYER's own blocks (``delay=True``), which act behind the layer, move to the
    synapses that receive them. What differs from SLAYER's forward pass all the same stands in the
    network's ``provenance["differs"]``, a sentence each, and :func:`~delaynet_lava.export.export_netx`
    makes findings of them.

    Args:
        name: how errors call the model.

    Raises:
        InputError: missing, misshapen or non-finite tensors, or a layer that the chip can't run.
    """
    payload = _payload(model.config, name)
    differs: list[dict[str, str]] = []
    ahead = False
    layers: list[Layer] = []
    shape: tuple[int, ...] = ()
    average: int | None = None
    arriving: np.ndarray | None = None
    taken: set[str] = set()
    entries = model.config["layers"]
    where = name
    for i, entry in enumerate(entries):
        kind = entry["type"]
        where = f"{name}: layer {i} ({kind})"
        tensors = LayerTensors(model.state_dict, i, where, taken)
        if average is not None:
            raise InputError(where, "follows an Average, which must be the last block")
        if kind == "Input":
            if i > 0:
                raise InputError(where, "is not the first block")
            shape = _shape(entry, where)
            if "neuron" in entry:
                layers.append(_encoder(entry, tensors))
            if entry.get("delay_shift", True):
                arriving = np.ones(1, np.int64)
        elif kind == "Average":
            average = entry.get("num_outputs", 0)
        elif kind in _WITH_SYNAPSE:
            try:
                layers.append((_cells if kind == _CELL else _dense)(entry, tensors, arriving))
            except InputError as error:
                raise (
                    error
                    if error.where.startswith(name)
                    else InputError(f"{where}: {error.where}", error.problem, error.remedy)
                ) from error
        elif kind != "Flatten":
            raise InputError(where, "is not a layer type that this release exports")
        if kind in _WITH_SYNAPSE:
            last = all(later["type"] in ("Average", "Flatten") for later in entries[i + 1 :])
            ahead = kind == "Affine" or not entry.get("delay_shift", True)
            if ahead and not last:
                raise InputError(
                    where,
                    ("is not the last" if kind == "Affine" else "has delay_shift=False")
                    + ": what it sends would act in the step it is sent, the chip's least lag is 1",
                    "put an Affine at the end" if kind == "Affine" else "train with delay_shift=True",
                )
            comes = (payload or SPIKES) if len(layers) == 1 else layers[-2].neuron.sends
            assert isinstance(layers[-1], Dense)
            at = f"layer {len(layers) - 1}"
            differs += [{"where": at, "problem": one} for one in _differences(entry, layers[-1], comes)]
            arriving = None
        if layers and tensors.has("delay.delay"):
            arriving = _delay_vector(tensors.get("delay.delay"), layers[-1].size, where) + (
                0 if arriving is None else arriving
            )
    if not layers:
        raise InputError(name, "has no layers with neurons")
    require_all_taken(model.state_dict, taken, name)
    if arriving is not None and arriving.any():
        layers[-1] = _last_delay(layers[-1], arriving, where)
    decision = _decision(model.config.get("decision"), name)
    if ahead:
        decision = (decision or _usual_decision(entries, layers[-1])).later(1)
    provenance = dict(model.provenance)
    if differs:
        provenance["differs"] = differs
    try:
        return Network(
            layers=tuple(layers),
            input_shape=shape,
            average=average,
            dt_ms=model.config.get("dt_ms", 1.0),
            task=model.config.get("task") or "",
            provenance=provenance,
            decision=decision,
            input_payload=payload,
            tail=int(ahead),
        )
    except InputError as error:
        raise InputError(f"{name}: {error.where}", error.problem, error.remedy) from error
