"""From the tensors of a trained model to the integers that run. Needs torch, not SLAYER.

The rounding is SLAYER's own, so that the integers are those of its forward pass: weights
``2 * round(32 w)`` clamped to -256 to 254, decays ``round(clamp(k, 0, 4096))``, threshold mantissa
``floor(64 th)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError, shown
from delaynet_lava.export.tensors import LayerTensors, quantize_weight, require_all_taken
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.network import DELAY_LIMIT, Decision, Dense, Encoder, Layer, Network, Neuron, Synapse

__all__ = ["extract", "quantize_weight"]

_RECURRENT = ("DelayRecurrent", "Recurrent")
_WITH_SYNAPSE = ("DelayRecurrent", "Recurrent", "FusedDense", "Dense", "Affine", "Readout")
_TRAINED_THRESHOLD = ("DelayRecurrent", "FusedDense")


def _neuron(entry: dict[str, Any], tensors: LayerTensors) -> Neuron:
    kind = entry["type"]
    if "neuron" not in entry:
        # What NetX gives a dense layer without a neuron group: a current that never decays, a
        # membrane without memory and a threshold that is never reached.
        return Neuron(vth=fx.VTH_MAX, du=0, dv=fx.DECAY_ONE)
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
    return Neuron(
        vth=vth,
        du=tensors.decay("neuron.current_decay"),
        dv=tensors.decay("neuron.voltage_decay"),
        bias=bias,
        reset=entry.get("reset", "zero"),
        **word,
    )


def _delay_vector(values: torch.Tensor, size: int, where: str) -> np.ndarray:
    """int (size,): SLAYER's learnt delays act, and are exported, rounded down."""
    longest = float(values.max()) if values.numel() else 0.0
    if longest > DELAY_LIMIT:
        raise InputError(where, f"has a delay of {longest:g} steps, more than {DELAY_LIMIT}")
    floored = torch.floor(values.detach().to(torch.float64).flatten()).clamp(min=0).to(torch.int64).numpy()
    if floored.size not in (1, size):
        raise InputError(where, f"has {floored.size} delays for {size} neurons")
    return np.broadcast_to(floored, (size,))


def _dense(entry: dict[str, Any], tensors: LayerTensors, arriving: np.ndarray | None) -> Dense:
    recurrent = entry["type"] in _RECURRENT
    weight = tensors.matrix("input_synapse" if recurrent else "synapse")
    delay = np.zeros((), np.int16)
    if arriving is not None:
        if arriving.size != weight.shape[1]:
            raise InputError(tensors.where, f"takes {weight.shape[1]} inputs, {arriving.size} neurons send")
        delay = np.broadcast_to(arriving, weight.shape)
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
        name: int(quantize_weight(tensors.get(name)).reshape(-1)[0]) if tensors.has(name) else default
        for name, default in (("weight", fx.WEIGHT_SCALE), ("bias", 0))
    }
    return Encoder(neuron, math.prod(shape), **affine)


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


def extract(model: ModelFile, name: str = "model") -> Network:
    """The :class:`Network` of integers that a trained model computes with.

    Axonal delays of SLAYER's own blocks (``delay=True``), which act behind the layer, move to the
    synapses that receive them.

    Args:
        name: how errors call the model.

    Raises:
        InputError: missing, misshapen or non-finite tensors, or a layer that the chip can't run.
    """
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
        elif kind == "Average":
            average = entry.get("num_outputs", 0)
        elif kind in _WITH_SYNAPSE:
            try:
                layers.append(_dense(entry, tensors, arriving))
            except InputError as error:
                raise (
                    error
                    if error.where.startswith(name)
                    else InputError(f"{where}: {error.where}", error.problem, error.remedy)
                ) from error
        elif kind != "Flatten":
            raise InputError(where, "is not a layer type that this release exports")
        if kind in _WITH_SYNAPSE or (kind == "Input" and "neuron" in entry):
            last = all(later["type"] in ("Average", "Flatten") for later in entries[i + 1 :])
            if not entry.get("delay_shift", True) and not last:
                raise InputError(
                    where,
                    "has delay_shift=False: its spikes would act in the step they are sent, the chip's "
                    "least lag is 1",
                    "train with delay_shift=True",
                )
            arriving = None
            if tensors.has("delay.delay"):
                arriving = _delay_vector(tensors.get("delay.delay"), layers[-1].size, where)
    if not layers:
        raise InputError(name, "has no layers with neurons")
    require_all_taken(model.state_dict, taken, name)
    if arriving is not None and arriving.any():
        layers[-1] = _last_delay(layers[-1], arriving, where)
    decision = _decision(model.config.get("decision"), name)
    try:
        return Network(
            layers=tuple(layers),
            input_shape=shape,
            average=average,
            dt_ms=model.config.get("dt_ms", 1.0),
            task=model.config.get("task") or "",
            provenance=dict(model.provenance),
            decision=decision,
        )
    except InputError as error:
        raise InputError(f"{name}: {error.where}", error.problem, error.remedy) from error
