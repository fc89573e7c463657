"""Does the network that runs do what the model that was trained does?

The model's own forward pass, the emulator and Lava take the same samples, and are compared spike by spike.

SLAYER shifts the output of each block by a step; the chip takes that step on the way into a layer. A last
block that does not (``Affine``, ``delay_shift=False``) is a step ahead of the network, which runs so much
longer; neurons in an ``Input`` block are a step late. The offset of each layer is part of the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError, reason
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.extract import extract
from delaynet_lava.fixedpoint import STATE_SHIFT, WEIGHT_SCALE
from delaynet_lava.kernels.delays import late
from delaynet_lava.network import Network
from delaynet_lava.nn import slayer
from delaynet_lava.nn.model import blocks_of, describe
from delaynet_lava.payloads import Payload
from delaynet_lava.trace import Comparison, Difference, decide

if TYPE_CHECKING:
    from delaynet_lava.tasks.base import Task

__all__ = ["Agreement", "LayerAgreement", "check"]

_BATCH_BYTES = 16 << 20
_ONE = WEIGHT_SCALE << STATE_SHIFT
"""SLAYER's unit of a membrane in the chip's."""


@dataclass
class LayerAgreement:
    """One layer of the model against the same layer of the network.

    Attributes:
        what: "spikes", or "voltage" where the layer answers with membranes.
        offset: steps by which the network's record is later than the model's (negative: earlier).
        compared, differing: integers. first: the earliest difference, on the network's time axis.
        spikes: of the model, over all samples; 0 for membranes.
    """

    layer: int
    what: str
    offset: int
    compared: int = 0
    differing: int = 0
    spikes: int = 0
    first: Difference | None = None

    def add(self, model: np.ndarray, network: np.ndarray, sample: int) -> None:
        """Compare another batch, (samples, steps, neurons) of integers each; ``sample`` is its first."""
        steps = min(model.shape[1] - max(0, -self.offset), network.shape[1] - max(0, self.offset))
        ours = model[:, max(0, -self.offset) :][:, :steps]
        theirs = network[:, max(0, self.offset) :][:, :steps]
        differ = ours != theirs
        self.compared += differ.size
        self.differing += int(np.count_nonzero(differ))
        self.spikes += int(ours.sum()) if self.what == "spikes" else 0
        if self.first is None and differ.any():
            step = int(np.flatnonzero(differ.any(axis=(0, 2)))[0])
            at, neuron = (int(k) for k in np.argwhere(differ[:, step])[0])
            ours_there, theirs_there = int(ours[at, step, neuron]), int(theirs[at, step, neuron])
            when = step + max(0, self.offset)
            self.first = Difference(
                self.what, self.layer, sample + at, when, neuron, ours_there, theirs_there
            )


@dataclass
class Agreement:
    """Result of :func:`check`; true where nothing differs.

    Attributes:
        layers: the model's own forward pass against the emulator.
        decisions: samples whose class the model and the emulator give alike; of ``samples``.
        right: samples whose class the model gives right; None where the task has no labels.
        lava: emulator against Lava; None where it was not asked for.
        notes: what kept something from being compared, a sentence each.
    """

    samples: int
    steps: int
    layers: list[LayerAgreement]
    decisions: int = 0
    right: int | None = None
    lava: Comparison | None = None
    lava_samples: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """Integers that differ between the model and the emulator, over all layers."""
        return sum(layer.differing for layer in self.layers)

    @property
    def first(self) -> Difference | None:
        """The earliest difference between the model and the emulator."""
        firsts = [layer.first for layer in self.layers if layer.first is not None]
        return min(firsts, key=lambda one: (one.sample, one.step, one.layer)) if firsts else None

    def __bool__(self) -> bool:
        return (
            not self.differing and self.decisions == self.samples and (self.lava is None or bool(self.lava))
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "differing": self.differing,
            "first": None if self.first is None else str(self.first),
            "agree": bool(self),
        }


_STATE = ("current_state", "voltage_state", "spike_state", "delay_buffer")


def _from_rest(model: torch.nn.Module) -> None:
    """SLAYER's Recurrent goes on where the last pass of as many samples ended; a sample begins at rest."""
    for part in model.modules():
        for name in _STATE:
            state = getattr(part, name, None)
            if isinstance(state, torch.Tensor):
                setattr(part, name, None if name == "delay_buffer" else torch.zeros(1, device=state.device))


@contextlib.contextmanager
def _borrowed(model: torch.nn.Module) -> Iterator[None]:
    """Run a model in ``eval`` mode, and give it back with the mode and the states that it had."""
    modes = [(part, part.training) for part in model.modules()]
    states = [
        (part, name, getattr(part, name)) for part, _ in modes for name in _STATE if hasattr(part, name)
    ]
    try:
        model.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for part, name, state in states:
            setattr(part, name, state)


def _through(blocks: list[torch.nn.Module], x: torch.Tensor) -> list[torch.Tensor]:
    outputs = []
    for block in blocks:
        out = block(x)
        x = out[0] if isinstance(out, tuple) else out
        outputs.append(x)
    return outputs


def _has_neurons(block: Any) -> bool:
    """Whether the network has a layer for this block."""
    kind = slayer.kind_of(block)
    return kind not in ("Flatten", "Average") and (kind != "Input" or block.neuron is not None)


def _offsets(blocks: list[torch.nn.Module]) -> list[int]:
    """Steps by which the network's record of each block is later than the block's own output."""
    offsets, late = [], 0
    for block in blocks:
        shifts = bool(getattr(block, "delay_shift", False))
        if slayer.kind_of(block) in ("Flatten", "Average"):
            offsets.append(late)
            continue
        if slayer.kind_of(block) == "Input":
            # Behind it spikes are delayed in the network too.
            offsets.append(-int(shifts))
            continue
        late += 1 - int(shifts)
        offsets.append(late)
    return offsets


def _behind(block: Any, spikes: np.ndarray) -> np.ndarray:
    """A layer's spikes (samples, steps, neurons) after the delay that SLAYER applies behind it."""
    delay = getattr(block, "delay", None)
    if not isinstance(delay, torch.nn.Module):
        return spikes
    lags = torch.floor(delay.delay.detach()).to(torch.int64).flatten().cpu().expand(spikes.shape[2])
    return late(torch.from_numpy(spikes), lags).numpy()


def _integers(values: torch.Tensor, what: str) -> np.ndarray:
    found = values.detach().cpu().to(torch.float64).numpy().reshape(len(values), -1, values.shape[-1])
    found = found.transpose(0, 2, 1) * (_ONE if what == "voltage" else 1)
    return np.rint(found).astype(np.int64)


def _classes(network: Network, answer: np.ndarray) -> np.ndarray:
    """Classes by the network's way to answer, of what its last neurons gave: (samples, steps, neurons)."""
    # A model that is a step ahead of its network ends its window as much earlier.
    decision, ahead = network.answer, network.tail
    stop = None if decision.stop is None else decision.stop - ahead
    window = slice(-1, None) if decision.kind == "last" else slice(max(0, decision.start - ahead), stop)
    scores = answer[:, window].sum(axis=1).reshape(len(answer), network.outputs, -1).sum(axis=2)
    return scores.argmax(axis=1)


def _signal(network: Network, x: np.ndarray) -> torch.Tensor:
    """float32 NCT or NCHWT of whole numbers (samples, steps, channels)."""
    signal = torch.from_numpy(np.ascontiguousarray(x)).transpose(1, 2).to(torch.float32)
    return signal.reshape(len(x), *network.input_shape, x.shape[1])


def _note_forward(model: torch.nn.Module, signal: torch.Tensor, last: torch.Tensor) -> list[str]:
    """What a model's own ``forward`` does beyond its blocks in order; nothing where it is just that."""
    if isinstance(model, (torch.nn.Sequential, torch.nn.ModuleList)):
        return []
    _from_rest(model)
    try:
        out = model(signal)
    except Exception as error:  # the user's own code may raise anything
        return [f"its own forward fails ({reason(error)}); its blocks were run in order"]
    out = out[0] if isinstance(out, tuple) else out
    if not isinstance(out, torch.Tensor) or out.shape != last.shape:
        given = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        return [f"its own forward gives {given}, its last block {tuple(last.shape)}: blocks were compared"]
    if not torch.equal(out, last):
        return ["its own forward does something else than its blocks in order; the network runs the blocks"]
    return []


class _Checker:
    """A model and the network exported from it, side by side."""

    def __init__(self, model: Any, network: Network) -> None:
        self.network = network
        self.model = model if isinstance(model, torch.nn.Module) else torch.nn.Sequential(*model)
        self.blocks = blocks_of(self.model)
        self.places = [k for k, block in enumerate(self.blocks) if _has_neurons(block)]

    def layers(self) -> list[LayerAgreement]:
        offsets, last = _offsets(self.blocks), len(self.places) - 1
        membranes = self.network.layers[-1].neuron.is_readout
        return [
            LayerAgreement(layer, "voltage" if layer == last and membranes else "spikes", offsets[k])
            for layer, k in enumerate(self.places)
        ]

    @torch.no_grad()
    def batch(self, result: Agreement, first: int, x: np.ndarray, labels: np.ndarray | None) -> None:
        signal = _signal(self.network, x)
        _from_rest(self.model)
        outputs = _through(self.blocks, signal)
        if first == 0:
            result.notes += _note_forward(self.model, signal, outputs[-1])
        trace = emulate(self.network, x, record=("spikes", "voltage"))
        for agreement, k in zip(result.layers, self.places, strict=True):
            record: np.ndarray = getattr(trace, agreement.what)[agreement.layer]
            if agreement.what == "spikes" and k < self.places[-1]:
                record = _behind(self.blocks[k], record)
            answer = _integers(outputs[k], agreement.what)
            agreement.add(answer, record, first)
        classes = _classes(self.network, answer)
        result.decisions += int(np.count_nonzero(classes == decide(self.network, trace)))
        if labels is not None:
            result.right = (result.right or 0) + int(np.count_nonzero(classes == labels))


def check(
    model: Any,
    task: Task,
    samples: int = 16,
    lava_samples: int = 0,
    split: str = "test",
    network: Network | None = None,
) -> Agreement:
    """Run a model, and the network that is exported from it, on the first samples of a task.

    Args:
        model: a torch network as of :func:`~delaynet_lava.nn.model.save_model`; it runs in ``eval`` mode and
            is given back as it was.
        samples: how many are run in torch and in the emulator. lava_samples: how many of them in Lava, too.
        network: what was exported from it, where that is at hand: it answers in the way that its file says.
            None: the model is exported here.

    Raises:
        InputError: a model that can't be exported, a task that does not fit it, too few samples.
        BackendMissing: Lava is asked for and not installed.
    """
    if not 0 <= lava_samples <= samples or samples < 1:
        raise InputError("samples", f"{samples}, of them {lava_samples} on Lava", "take 1 or more in all")
    if network is None:
        network = extract(describe(model, payload=Payload(task.payload_bits, task.payload_signed)))
    checker = _Checker(model, network)
    result = Agreement(samples, task.steps, checker.layers())
    widest = max(layer.size for layer in checker.network.layers)
    size = int(np.clip(_BATCH_BYTES // (task.steps * widest), 1, samples))
    with _borrowed(checker.model):
        for first in range(0, samples, size):
            checker.batch(result, first, *task.batch(split, first, min(size, samples - first)))
    if lava_samples:
        result.lava = evaluate(checker.network, task, lava_samples, "emulator", "lava").comparison
        result.lava_samples = lava_samples
    return result
