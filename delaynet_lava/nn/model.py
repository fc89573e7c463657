"""From a torch module to the plain description that ``model.pt`` holds, and back."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import torch

from delaynet_lava.decision import Decision
from delaynet_lava.errors import InputError, shown
from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.formats import model_file
from delaynet_lava.formats.model_file import ModelFile
from delaynet_lava.nn import slayer
from delaynet_lava.nn.adaptive import AdaptiveRecurrent
from delaynet_lava.nn.axon import Axon, SenderDelays
from delaynet_lava.nn.cell import SpikingRecurrentCell
from delaynet_lava.nn.dense import Dense, Readout
from delaynet_lava.nn.recurrent import DelayRecurrent
from delaynet_lava.payloads import SPIKES, Payload

__all__ = ["build", "describe", "load_model", "load_state", "save_model", "take_over"]

_SYNAPSES = ("synapse", "input_synapse", "recurrent_synapse")
_OWN = {"DelayRecurrent": DelayRecurrent, "FusedDense": Dense, "Readout": Readout}
"""Blocks of this package by their name in a ``model.pt``, where "Dense" is SLAYER's."""
_CELL = "SpikingRecurrentCell"
_OPTIONS = ("self_connection", "reset", "surrogate", "reset_grad", "feedback_grad", "membrane_grad")


def blocks_of(model: Any) -> list[torch.nn.Module]:
    """The blocks of a Sequential, ModuleList or list, of a SLAYER-style ``model.blocks``, or the one block.

    Raises:
        InputError: no module and no list of modules, or a module that torch does not know its blocks of.
    """
    if isinstance(model, torch.nn.Module):
        inner = getattr(model, "blocks", model)
        if isinstance(inner, (list, tuple)):
            raise InputError(
                "model: blocks",
                f"is a {type(inner).__name__}, so torch does not know its parameters: model.parameters() and "
                "model.state_dict() leave them out, and an optimiser trained none of them",
                "make it a torch.nn.ModuleList and train again",
            )
        return list(inner) if isinstance(inner, (torch.nn.Sequential, torch.nn.ModuleList)) else [model]
    blocks = list(model) if isinstance(model, (list, tuple)) else []
    if not blocks or not all(isinstance(block, torch.nn.Module) for block in blocks):
        raise InputError(
            "model",
            f"is a {type(model).__name__}, not a network of blocks",
            "give a torch.nn.Sequential of them, or a module that keeps them in .blocks",
        )
    return blocks


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
    start = {
        name: getattr(neuron, name).tolist()
        for name in ("v_start", "u_start")
        if np.any(getattr(neuron, name, 0))
    }
    entry = {
        "threshold": float(threshold) if threshold is not None else 1.0,
        "current_decay": float(neuron.current_decay.detach()) / neuron.p_scale,
        "voltage_decay": float(neuron.voltage_decay.detach()) / neuron.p_scale,
        "tau_grad": float(getattr(neuron, "tau_grad", 1.0)),
        "scale_grad": float(neuron.scale_grad if hasattr(neuron, "scale_grad") else neuron.scale_rho),
        "requires_grad": bool(neuron.requires_grad),
    }
    return narrow | start | entry


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
    kind, stock = type(block), slayer.kind_of(block)
    entry: dict[str, Any] = {"type": "FusedDense" if kind is Dense else kind.__name__}
    if stock == "Input":
        entry["delay_shift"] = bool(block.delay_shift)
        if block.neuron is not None:
            entry["neuron"] = _neuron_params(block.neuron, where)
        if block.shape is not None:
            entry["shape"] = [int(n) for n in block.shape]
    elif stock == "Flatten":
        pass
    elif stock == "Average":
        entry["num_outputs"] = int(block.num_outputs)
    elif stock is not None or kind in _OWN.values():
        _check_hook(block, where)
        main = block.input_synapse if hasattr(block, "input_synapse") else block.synapse
        entry |= _sizes(main, where)
        if not (stock == "Affine" and not block.dynamics):
            entry["neuron"] = _neuron_params(block.neuron, where)
        if stock != "Affine":
            entry["delay_shift"] = bool(block.delay_shift)
        if kind in (DelayRecurrent, Dense):
            left_out = () if kind is DelayRecurrent else ("self_connection", "feedback_grad")
            entry |= {key: getattr(block, key) for key in _OPTIONS if key not in left_out}
        if getattr(block, "bias", None) is not None and stock == "Recurrent":
            raise InputError(where, "has a bias before its neuron, which net.h5 cannot express")
    elif kind is SpikingRecurrentCell:
        entry |= _sizes(block.synapse, where) | block.options()
    elif kind is AdaptiveRecurrent:
        # Kept with its history; the export refuses it.
        neurons, channels = block.input_weight.shape
        entry |= {"in_neurons": int(channels), "out_neurons": int(neurons)}
        entry |= {key: getattr(block, key) for key in ("threshold", "alpha", "rho", "dampening")}
    else:
        raise InputError(
            where,
            f"is a {kind.__module__.rpartition('.')[2]} {kind.__name__}, which this release does not export",
            "supported: DelayRecurrent, SpikingRecurrentCell, Dense, Readout, and SLAYER's cuba Input, "
            "Flatten, Dense, Recurrent, Affine, Average",
        )
    return entry


def describe(
    model: Any,
    task: str = "",
    provenance: dict[str, Any] | None = None,
    dt_ms: float = 1.0,
    decision: Decision | str | None = None,
    payload: Payload = SPIKES,
) -> ModelFile:
    """What a ``model.pt`` says of a model: its layers' options and its tensors.

    Args:
        model: as of :func:`save_model`.
        decision: how the network answers; None: ``last`` of a readout, ``count`` of spiking neurons.
        payload: what its inputs are.

    Raises:
        InputError: a block that can't be exported, by place, type and reason.
    """
    blocks = blocks_of(model)
    layers = [_describe_block(block, f"model: block {i}") for i, block in enumerate(blocks)]
    config = {"layers": layers, "task": task, "dt_ms": dt_ms}
    if decision is not None:
        config["decision"] = str(Decision.parse(str(decision)))
    if payload.bits:
        config |= {"payload_bits": payload.bits, "payload_signed": payload.signed}
    whole = torch.nn.Sequential(*blocks)
    for part in whole.modules():
        if isinstance(part, SenderDelays):
            part.round_delays()
    tensors = whole.state_dict()
    # Learned delays are kept as the integers that run.
    kept = {k: v.detach().clone() for k, v in tensors.items() if not k.endswith(".learned_delay")}
    return ModelFile(config, kept, provenance or {})


def _build_block(entry: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """One block; what its entry does not say, its tensors do."""
    kind = entry["type"]
    options = {key: value for key, value in entry.items() if key not in ("type", "neuron")}
    if any(name.endswith(".weight_g") for name in tensors):
        options["weight_norm"] = True
    if kind in _OWN:
        if "axon.delay" in tensors:
            options["axon"] = Axon(0, entry["in_neurons"])
        return _OWN[kind](dict(entry["neuron"]), **options)
    if kind == _CELL:
        delay_rec = 0 if options.pop("recurrent") else None
        return SpikingRecurrentCell(dict(entry["neuron"]), recurrent_delay=delay_rec, **options)
    if kind == "Flatten":
        return slayer.block.Flatten()
    if kind == "Average":
        return slayer.block.Average(**options)
    params = dict(entry["neuron"]) if "neuron" in entry else None
    if params is not None and "neuron.norm.running_mean" in tensors:
        params["norm"] = slayer.MeanOnlyBatchNorm
    if kind == "Input":
        shape = options.pop("shape", None)
        for name in ("weight", "bias"):
            if name in tensors:
                options[name] = float(tensors[name])
        block = slayer.block.Input(neuron_params=params, **options)
        block.input_shape = None if shape is None else torch.Size(shape)
        return block
    if kind == "Affine":
        # Without dynamics a neuron still says how the weights are quantised.
        options["dynamics"] = params is not None
        params = params or {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 1.0}
    if "delay.delay" in tensors:
        options["delay"] = True
    if "mask" in tensors:
        options["mask"] = tensors["mask"]
    return getattr(slayer.block, kind)(params, **options)


def load_state(net: Any, state: dict[str, torch.Tensor], name: str) -> None:
    """Load tensors into a network that never ran, and put it into ``eval`` mode.

    SLAYER gives delays and running means their shape in the first forward pass, without which torch refuses
    the tensors; the shapes are taken from what is loaded.

    Args:
        name: how errors call the tensors.

    Raises:
        InputError: no network, or tensors of another one.
    """
    if not isinstance(net, torch.nn.Module):
        raise InputError(name, f"the code made a {type(net).__name__}, expected a torch.nn.Module")
    if state and all(key.startswith("module.") for key in state):  # saved from a DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    parts = dict(net.named_modules())
    for key, value in state.items():
        owner, _, attribute = key.rpartition(".")
        there = getattr(parts.get(owner), attribute, None)
        lazy = attribute in ("delay", "running_mean", "spike_state")
        if lazy and isinstance(there, torch.Tensor) and isinstance(value, torch.Tensor):
            there.data = torch.zeros_like(value, dtype=there.dtype)
            if attribute == "delay":
                parts[owner].init = True
    take_over(net, state, name)
    net.eval()


def take_over(net: torch.nn.Module, state: dict[str, torch.Tensor], name: str, remedy: str = "") -> None:
    """Give a network these tensors, all that it has and no others.

    Raises:
        InputError: they are of another network; it says which are missing, not known, or of another shape.
    """
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            name, f"does not fit the network ({_misfit(net.state_dict(), state)})", remedy
        ) from error


def _misfit(wanted: dict[str, Any], given: dict[str, Any]) -> str:
    """Why a network does not take these tensors."""
    shapes = [
        f"{shown(name)} has shape {tuple(value.shape)}, the network's {tuple(wanted[name].shape)}"
        for name, value in given.items()
        if isinstance(value, torch.Tensor)
        and isinstance(wanted.get(name), torch.Tensor)
        and value.shape != wanted[name].shape
    ]
    missing = [f"it lacks {shown(name)}" for name in wanted if name not in given]
    unknown = [f"the network has no {shown(name)}" for name in given if name not in wanted]
    others = len(shapes) + len(missing) + len(unknown)
    told = [*shapes[:1], *missing[:1], *unknown[:1]]
    rest = [f"and {others - len(told)} tensors more"] if others > len(told) else []
    return "; ".join([*told, *rest]) or "a tensor is of another kind"


def build(model: ModelFile) -> torch.nn.Sequential:
    """The torch model of a ``model.pt``: this package's blocks and SLAYER's, ready to run (``eval`` mode).

    Raises:
        InputError: another block type, options or tensors that do not fit.
    """
    blocks: list[torch.nn.Module] = []
    # Blocks draw weights when they are made; nobody else's random numbers shall change for it.
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        # SLAYER normalises weights in torch's old way, and nobody who opens a file can change that.
        warnings.filterwarnings("ignore", "`?torch.nn.utils.weight_norm`? is deprecated")
        for i, entry in enumerate(model.config["layers"]):
            where, prefix = f"model: layer {i}", f"{i}."
            if entry["type"] not in (*_OWN, _CELL, *slayer.STOCK):
                raise InputError(where, f"is a {entry['type']!r}, which this release does not rebuild")
            mine = {k.removeprefix(prefix): v for k, v in model.state_dict.items() if k.startswith(prefix)}
            try:
                blocks.append(_build_block(entry, mine))
            except (TypeError, KeyError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
                neuron = entry.get("neuron")
                named = {*entry, *(neuron if isinstance(neuron, dict) else ())} - {"type", "neuron"}
                raise InputError(
                    where,
                    f"has options that make no {entry['type']}: {', '.join(map(str, sorted(named)))}",
                    "write the file anew with save_model",
                ) from error
    net = torch.nn.Sequential(*blocks)
    load_state(net, model.state_dict, "model: state_dict")
    return net


def save_model(
    model: Any,
    path: str | os.PathLike,
    task: str = "",
    provenance: dict[str, Any] | None = None,
    dt_ms: float = 1.0,
    decision: Decision | str | None = None,
    payload: Payload = SPIKES,
) -> None:
    """Write a trained network as ``model.pt``, whoever trained it.

    Args:
        model: a ``Sequential`` or ``ModuleList`` of SLAYER's cuba blocks and this package's, a list of
            them, or a module that keeps them in ``blocks``.
        task: the word for its samples (docs/tasks.md), so that ``delaynet run`` knows what to run.
        provenance: whatever should be remembered of the training: plain values, by name.
        dt_ms: what a time step stands for.
        decision: how the network answers; None: ``last`` of a readout, ``count`` of spiking neurons.
        payload: what its inputs are; with whole numbers instead of spikes it has to be said.

    Raises:
        InputError: a block that can't be exported, by place, type and reason; a place that can't be written.
    """
    model_file.save_model(path, describe(model, task, provenance, dt_ms, decision, payload))


def load_model(path: str | os.PathLike) -> torch.nn.Sequential:
    """The network of a ``model.pt``, ready to run; no code of the file's is executed.

    Raises:
        InputError: not a ``model.pt``, a damaged one, or one of blocks that this release does not know.
    """
    return build(model_file.load_model(path))
