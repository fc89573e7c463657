"""From a torch module to the plain description that ``model.pt`` holds, and back."""

from __future__ import annotations

from typing import Any

import torch

from delaynet_lava.decision import Decision
from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.nn import slayer
from delaynet_lava.nn.adaptive import AdaptiveRecurrent
from delaynet_lava.nn.dense import Dense, Readout
from delaynet_lava.nn.recurrent import DelayRecurrent

__all__ = ["build", "describe"]

_SYNAPSES = ("synapse", "input_synapse", "recurrent_synapse")
_OWN = {"DelayRecurrent": DelayRecurrent, "FusedDense": Dense, "Readout": Readout}
"""Blocks of this package by their name in a ``model.pt``, where "Dense" is SLAYER's."""
_OPTIONS = ("self_connection", "reset", "surrogate", "reset_grad", "feedback_grad", "membrane_grad")


def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks of a Sequential or ModuleList, of a SLAYER-style ``model.blocks``, or the one block."""
    if isinstance(model, (torch.nn.Sequential, torch.nn.ModuleList)):
        return list(model)
    if isinstance(getattr(model, "blocks", None), (torch.nn.Sequential, torch.nn.ModuleList)):
        return list(model.blocks)
    return [model]


def _neuron_params(neuron: Any, where: str) -> dict[str, Any]:
    if getattr(neuron, "graded_spike", False):
        raise InputError(where, "sends graded spikes, which this release does not run")
    if neuron.w_scale != 64:
        raise InputError(where, f"neuron scale is {neuron.w_scale}, expected 64")
    if not neuron.shared_param:
        raise InputError(
            where, "has a decay for each neuron, but the chip's LIF has one a layer", "use shared_param=True"
        )
    norm = getattr(neuron, "norm", None)
    if norm is not None and not isinstance(norm, slayer.MeanOnlyBatchNorm):
        raise InputError(
            where,
            f"normalises with {type(norm).__name__}, whose factor no exponent of net.h5 expresses",
            "use MeanOnlyBatchNorm",
        )
    threshold = getattr(neuron, "_threshold", None)
    narrow = {}
    if getattr(neuron, "membrane_bits", MEMBRANE_BITS) != MEMBRANE_BITS:
        narrow = {"membrane_bits": neuron.membrane_bits, "full_scale_exp": neuron.full_scale_exp}
    return narrow | {
        "threshold": float(threshold) if threshold is not None else 1.0,
        "current_decay": float(neuron.current_decay) / neuron.p_scale,
        "voltage_decay": float(neuron.voltage_decay) / neuron.p_scale,
        "tau_grad": float(getattr(neuron, "tau_grad", 1.0)),
        "scale_grad": float(getattr(neuron, "scale_grad", neuron.scale_rho)),
        "requires_grad": bool(neuron.requires_grad),
    }


def _check_hook(block: torch.nn.Module, where: str) -> None:
    """Weights are stored unquantised; they mean something only with SLAYER's own quantisation."""
    for name in _SYNAPSES:
        part = getattr(block, name, None)
        if part is None:
            continue
        with torch.no_grad():
            expected = block.neuron.quantize_8bit(part.weight)
            used = part.weight if part.pre_hook_fx is None else part.pre_hook_fx(part.weight)
        if not torch.equal(expected, used):
            raise InputError(
                f"{where}: {name}",
                "is not quantised by SLAYER's quantize_8bit, so it did not train with 8-bit integers",
                "leave pre_hook_fx at its default and fine-tune",
            )


def _sizes(part: Any, where: str) -> dict[str, int]:
    if part.weight.shape[2:] != (1, 1, 1):
        raise InputError(where, f"has a kernel of shape {tuple(part.weight.shape[2:])}", "flatten its input")
    return {"in_neurons": int(part.weight.shape[1]), "out_neurons": int(part.weight.shape[0])}


def _describe_block(block: torch.nn.Module, where: str) -> dict[str, Any]:
    kind = type(block)
    entry: dict[str, Any] = {"type": "FusedDense" if kind is Dense else kind.__name__}
    if kind is slayer.block.Input:
        entry["delay_shift"] = bool(block.delay_shift)
        if block.neuron is not None:
            entry["neuron"] = _neuron_params(block.neuron, where)
        if block.shape is not None:
            entry["shape"] = [int(n) for n in block.shape]
    elif kind is slayer.block.Flatten:
        pass
    elif kind is slayer.block.Average:
        entry["num_outputs"] = int(block.num_outputs)
    elif kind in (slayer.block.Dense, slayer.block.Affine, slayer.block.Recurrent, *_OWN.values()):
        _check_hook(block, where)
        main = block.input_synapse if hasattr(block, "input_synapse") else block.synapse
        entry |= _sizes(main, where)
        if not (kind is slayer.block.Affine and not block.dynamics):
            entry["neuron"] = _neuron_params(block.neuron, where)
        if kind is not slayer.block.Affine:
            entry["delay_shift"] = bool(block.delay_shift)
        if kind in (DelayRecurrent, Dense):
            left_out = () if kind is DelayRecurrent else ("self_connection", "feedback_grad")
            entry |= {key: getattr(block, key) for key in _OPTIONS if key not in left_out}
        if getattr(block, "bias", None) is not None and kind is slayer.block.Recurrent:
            raise InputError(where, "has a bias before its neuron, which net.h5 cannot express")
    elif kind is AdaptiveRecurrent:
        # Kept with its history; the export refuses it.
        neurons, channels = block.input_weight.shape
        entry |= {"in_neurons": int(channels), "out_neurons": int(neurons)}
        entry |= {key: getattr(block, key) for key in ("threshold", "alpha", "rho", "dampening")}
    else:
        raise InputError(
            where,
            f"is a {kind.__module__.rpartition('.')[2]} {kind.__name__}, which this release does not export",
            "supported: DelayRecurrent, Dense, Readout, and SLAYER's cuba Input, Flatten, Dense, Recurrent, "
            "Affine, Average",
        )
    return entry


def describe(
    model: torch.nn.Module,
    task: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    dt_ms: float = 1.0,
    decision: Decision | str | None = None,
) -> ModelFile:
    """What a ``model.pt`` says of a model: its layers' options and its tensors.

    Args:
        decision: how the network answers; None: ``last`` of a readout, ``count`` of spiking neurons.
        model: a ``Sequential`` (or ``ModuleList``, or a module with ``blocks``) of
            this package's blocks and SLAYER's own cuba blocks.

    Raises:
        InputError: a block that can't be exported, by place, type and reason.
    """
    blocks = _blocks(model)
    layers = [_describe_block(block, f"model: block {i}") for i, block in enumerate(blocks)]
    config = {"layers": layers, "task": task or {}, "dt_ms": dt_ms}
    if decision is not None:
        config["decision"] = str(Decision.parse(str(decision)))
    tensors = torch.nn.Sequential(*blocks).state_dict()
    return ModelFile(config, {k: v.detach().clone() for k, v in tensors.items()}, provenance or {})


def build(model: ModelFile) -> torch.nn.Sequential:
    """The torch model of a ``model.pt`` made of this package's blocks.

    Raises:
        InputError: another block type, options or tensors that do not fit.
    """
    blocks: list[torch.nn.Module] = []
    for i, entry in enumerate(model.config["layers"]):
        options = {k: v for k, v in entry.items() if k not in ("type", "neuron")}
        where = f"model: layer {i}"
        if entry["type"] not in _OWN:
            raise InputError(where, f"is a {entry['type']}; only this package's blocks can be rebuilt")
        try:
            block = _OWN[entry["type"]](dict(entry["neuron"]), **options)
        except (TypeError, KeyError) as error:
            raise InputError(where, f"has options that do not fit ({error})") from error
        blocks.append(block)
    net = torch.nn.Sequential(*blocks)
    try:
        net.load_state_dict(model.state_dict)
    except RuntimeError as error:
        raise InputError("model: state_dict", f"does not fit the layers ({error})") from error
    return net
