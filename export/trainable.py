"""A :class:`Network` as a ``model.pt``: the blocks that train on from these integers.

The inverse of :func:`delaynet_lava.export.extract.extract`: SLAYER's floats are weights / 64, thresholds / 64
and decays in 1/4096, so the block computes with the same integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.network import Dense, Network, Synapse, lif

__all__ = ["model_of"]

_REMEDY = "write a net.h5, which can say it"


def model_of(network: Network) -> ModelFile:
    """The ``model.pt`` of a network.

    Raises:
        InputError: encoders, biases, exponents, delays that are not one a sender of a recurrent synapse.
    """
    layers: list[dict[str, Any]] = []
    tensors: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(network.layers):
        where = f"layer {index}"
        if not isinstance(layer, Dense):
            raise InputError(where, "is an encoder, which no block of ours trains", _REMEDY)
        entry, own = _block(layer, where)
        layers.append(entry)
        tensors |= {f"{index}.{name}": value for name, value in own.items()}
    config: dict[str, Any] = {"layers": layers, "task": network.task, "dt_ms": network.dt_ms}
    if network.average is not None:
        layers.append({"type": "Average", "num_outputs": network.average})
    if network.decision is not None:
        config["decision"] = str(network.decision)
    return ModelFile(config, tensors, dict(network.provenance))


def _block(layer: Dense, where: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    neuron = lif(layer, where, "which are trained from their model.pt", "go on from that")
    if np.ndim(neuron.du) or np.ndim(neuron.dv):
        raise InputError(
            f"{where}: decays", "differ between its neurons, a block's neurons share theirs", _REMEDY
        )
    if np.any(neuron.bias):
        raise InputError(f"{where}: bias", "is not 0, which no block of ours trains", _REMEDY)
    if layer.synapse.max_delay:
        raise InputError(f"{where}: delay", "is not 0, but only recurrent delays are trained on", _REMEDY)
    if neuron.is_readout and layer.recurrent is not None:
        raise InputError(where, "is a recurrent readout, which no block of ours is", _REMEDY)
    kind = (
        "DelayRecurrent" if layer.recurrent is not None else "Readout" if neuron.is_readout else "FusedDense"
    )
    threshold = min(neuron.vth, fx.VTH_MAX) / fx.WEIGHT_SCALE
    entry: dict[str, Any] = {
        "type": kind,
        "in_neurons": layer.synapse.shape[1],
        "out_neurons": layer.size,
        "neuron": {
            "threshold": threshold,
            "current_decay": neuron.du / fx.DECAY_ONE,
            "voltage_decay": neuron.dv / fx.DECAY_ONE,
            "requires_grad": False,
        },
        "delay_shift": True,
    }
    tensors = {
        "neuron.current_decay": torch.tensor([float(neuron.du)]),
        "neuron.voltage_decay": torch.tensor([float(neuron.dv)]),
        "neuron.vth": torch.tensor([threshold]),
    }
    if neuron.membrane_bits != fx.MEMBRANE_BITS:
        entry["neuron"] |= {"membrane_bits": neuron.membrane_bits, "full_scale_exp": neuron.full_scale_exp}
    if kind != "Readout":
        entry["reset"] = neuron.reset
    if layer.recurrent is None:
        tensors["synapse.weight"] = _weight(layer.synapse, f"{where}: weight")
    else:
        tensors["input_synapse.weight"] = _weight(layer.synapse, f"{where}: weight")
        tensors["recurrent_synapse.weight"] = _weight(layer.recurrent, f"{where}: weight_rec")
        tensors["delay"] = torch.from_numpy(_axonal(layer.recurrent, f"{where}: delay_rec"))
    return entry, tensors


def _weight(synapse: Synapse, where: str) -> torch.Tensor:
    words = synapse.units
    if np.any(words & 1) or words.min() < fx.WEIGHT_MIN or words.max() > fx.WEIGHT_MAX:
        raise InputError(where, f"has the exponent {synapse.weight_exp}, a model.pt has none", _REMEDY)
    weight = torch.from_numpy(words.astype(np.float32) / fx.WEIGHT_SCALE)
    return weight.reshape(*weight.shape, 1, 1, 1)


def _axonal(synapse: Synapse, where: str) -> np.ndarray:
    used = synapse.weight != 0
    high = np.where(used, synapse.delay, 0).max(axis=0)
    if np.any(used & (synapse.delay != high)):
        raise InputError(
            where, "differs between the receivers of one sender; a block has one a sender", _REMEDY
        )
    return high.astype(np.int32)
