"""Training of DelayNet on cue accumulation, in the integers that the chip computes with.

Back-propagation through time over the whole sample, cross-entropy on the readout's membrane after
the last step, the paper's branching-factor loss, and a curriculum: first more cues, then a longer
wait. Over thousands of steps the gradient along the recurrent synapses explodes or vanishes; the
factor on it (``feedback_grad`` of the block) follows the gradient's norm, so that it stays near one
value throughout. The weights that are kept are a running average of those visited.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from delaynet_lava._version import __version__
from delaynet_lava.errors import InputError
from delaynet_lava.model_file import ModelFile, load_tensors, save_model, write_tensors
from delaynet_lava.nn import DelayRecurrent, Readout, lattice_delays
from delaynet_lava.nn.initial import initialise
from delaynet_lava.nn.model import describe
from delaynet_lava.tasks.cue import CHANNELS, CLASSES, CueAccumulation

__all__ = ["PRESETS", "CueOptions", "Epoch", "train_cue"]

_CHECKPOINT = "delaynet_lava.checkpoint"


@dataclass(frozen=True)
class CueOptions:
    """Everything that decides the outcome of a training, together with the seed.

    Attributes:
        neurons: of the hidden layer. delays: one a lattice group, in steps; the lag is one more.
        threshold: initial u_th in SLAYER's units. tau_ms, tau_out_ms: initial tau_R and tau_O.
        input_gain, radius, readout_gain: see :func:`delaynet_lava.nn.initial.initialise`.
        surrogate_width: of the paper's surrogate, in thresholds (the paper's own: 1 / 0.72).
        reset: "zero" or "subtract".
        feedback_grad: initial factor on the gradient along recurrent synapses.
        gradient_norm: the norm that factor aims at; control: how fast (0 leaves it fixed).
        branching: weight beta of the branching-factor loss, per sample of a batch of 64.
        lr: of Adam for weights and threshold; decays take 20 times that. clip: gradient norm.
        batch, epoch_samples: samples a step and an epoch.
        cues, wait_ms: of the full task. advance: accuracy that moves the curriculum on.
        anneal_epochs: epochs on the full task, while lr falls linearly to ``lr_end`` of itself.
        max_epochs: give up the curriculum here and anneal.
        average: decay of the running average of weights, per step.
        validation: samples of the validation split for each check, every 4th annealing epoch.
    """

    seed: int = 0
    neurons: int = 125
    delays: tuple[int, ...] = (0, 50, 62)
    threshold: float = 8.0
    tau_ms: float = 25.0
    tau_out_ms: float = 20.0
    input_gain: float = 0.4
    radius: float = 1.2
    readout_gain: float = 0.1
    surrogate_width: float = 1.39
    reset: str = "zero"
    feedback_grad: float = 0.2
    gradient_norm: float = 1.0
    control: float = 0.005
    branching: float = 2e-4
    lr: float = 5e-3
    lr_end: float = 0.01
    clip: float = 1.0
    batch: int = 64
    epoch_samples: int = 1024
    cues: int = 7
    wait_ms: int = 1200
    advance: float = 0.93
    anneal_epochs: int = 56
    max_epochs: int = 60
    average: float = 0.99
    validation: int = 1024

    def __post_init__(self) -> None:
        for name in ("neurons", "batch", "epoch_samples", "anneal_epochs", "max_epochs", "validation"):
            if getattr(self, name) < 1:
                raise InputError(f"training: {name}", f"{getattr(self, name)} is below 1")
        if self.seed < 0:
            raise InputError("training: seed", f"{self.seed} is negative")

    def curriculum(self) -> list[tuple[int, int]]:
        """Stages (cues, wait_ms), the full task last."""
        first = min(150, self.wait_ms)
        waits = [*range(first, self.wait_ms, 150), self.wait_ms]
        return [(k, first) for k in range(1, self.cues, 2)] + [(self.cues, w) for w in waits]


PRESETS = {
    "loihi2": CueOptions(),
    "smoke": CueOptions(
        neurons=27,
        cues=1,
        wait_ms=150,
        batch=32,
        epoch_samples=128,
        anneal_epochs=2,
        max_epochs=2,
        validation=64,
    ),
}


@dataclass(frozen=True)
class Epoch:
    """What one epoch did, for progress bars and the record kept in the model file."""

    number: int
    cues: int
    wait_ms: int
    loss: float
    accuracy: float
    rate: float
    gradient: float
    feedback: float
    validation: float | None = None


def _decay(tau_ms: float) -> float:
    return float(-np.expm1(-1.0 / tau_ms))


def build_cue_network(options: CueOptions) -> torch.nn.Sequential:
    """The untrained network: one delayed recurrent layer and a readout."""
    hidden = DelayRecurrent(
        {
            "threshold": options.threshold,
            "current_decay": 1.0,
            "voltage_decay": _decay(options.tau_ms),
            "tau_grad": options.surrogate_width,
            "requires_grad": True,
        },
        CHANNELS,
        options.neurons,
        lattice_delays(options.neurons, options.delays, options.seed),
        self_connection=False,
        reset=options.reset,
        feedback_grad=options.feedback_grad,
    )
    readout = Readout(
        {"current_decay": 1.0, "voltage_decay": _decay(options.tau_out_ms), "requires_grad": True},
        options.neurons,
        CLASSES,
    )
    for block in (hidden, readout):
        # The paper's LIF has no current memory, before training and after it.
        block.neuron.current_decay.requires_grad_(False)
    initialise(hidden, readout, options.input_gain, options.radius, options.readout_gain, options.seed)
    return torch.nn.Sequential(hidden, readout)


def _tensor(spikes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(spikes).transpose(1, 2).to(torch.float32)


@torch.no_grad()
def accuracy(net: torch.nn.Module, task: CueAccumulation, samples: int, batch: int = 64) -> float:
    """Share of right decisions of the integer forward pass."""
    right = 0
    for spikes, labels in task.batches(samples, batch):
        right += int((net(_tensor(spikes))[..., -1].argmax(1).numpy() == labels).sum())
    return right / samples


class _Trainer:
    """State of a training; everything in it goes into a checkpoint."""

    def __init__(self, options: CueOptions) -> None:
        self.options = options
        self.net = build_cue_network(options)
        self.hidden: DelayRecurrent = self.net[0]
        weights = [self.hidden.input_synapse.weight, self.hidden.recurrent_synapse.weight]
        weights += [self.net[1].synapse.weight, self.hidden.neuron.vth]
        decays = [block.neuron.voltage_decay for block in self.net]
        self.rates = (options.lr, 20 * options.lr)
        self.optimiser = torch.optim.Adam(
            [{"params": weights, "lr": self.rates[0]}, {"params": decays, "lr": self.rates[1]}],
            betas=(0.9, 0.99),
        )
        self.average = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self.best: dict[str, torch.Tensor] = {}
        self.progress: dict[str, Any] = dict.fromkeys(("epoch", "stage", "annealed", "used", "seconds"), 0)
        self.progress["best"] = -1.0
        self.history: list[dict[str, Any]] = []

    def done(self) -> bool:
        return self.progress["annealed"] >= self.options.anneal_epochs

    def _loss(self, spikes: torch.Tensor, out: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        population = spikes.sum(dim=1)
        change = (population[:, 1:] - population[:, :-1]).square().sum(dim=1).mean()
        return torch.nn.functional.cross_entropy(out, labels) + self.options.branching / 64 * change

    def _step(self, spikes: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
        options = self.options
        hidden = self.hidden(_tensor(spikes))
        out = self.net[1](hidden)[..., -1]
        target = torch.from_numpy(labels)
        loss = self._loss(hidden, out, target)
        self.optimiser.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), options.clip))
        if np.isfinite(norm):
            self.optimiser.step()
        # Over a sample the gradient passes some fifty loops, so its norm goes with a high power of
        # the factor; the exponent of the control is accordingly small.
        excess = float(np.clip(norm / options.gradient_norm, 1e-6, 1e6)) if np.isfinite(norm) else 1e6
        self.hidden.feedback_grad = float(
            np.clip(self.hidden.feedback_grad * excess**-options.control, 0.01, 1.0)
        )
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                self.average[name].lerp_(parameter, 1 - options.average)
        return float(loss), float((out.argmax(1) == target).float().mean()), float(hidden.mean()), norm

    def _validate(self) -> float:
        kept = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self._load(self.average)
        options = self.options
        task = CueAccumulation(options.cues, options.wait_ms, options.seed, "validation")
        result = accuracy(self.net, task, options.validation, options.batch)
        if result >= self.progress["best"]:
            self.progress["best"] = result
            self.best = {k: v.clone() for k, v in self.average.items()}
        self._load(kept)
        return result

    @torch.no_grad()
    def _load(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.copy_(values[name])

    def epoch(self) -> Epoch:
        started, options, state = time.perf_counter(), self.options, self.progress
        stages = options.curriculum()
        if state["epoch"] >= options.max_epochs:
            state["stage"] = len(stages) - 1
        cues, wait_ms = stages[state["stage"]]
        full = state["stage"] == len(stages) - 1
        left = 1 - state["annealed"] / options.anneal_epochs if full else 1.0
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * (options.lr_end + (1 - options.lr_end) * left)
        task = CueAccumulation(cues, wait_ms, options.seed, "train")
        steps = []
        for _ in range(max(1, options.epoch_samples // options.batch)):
            steps.append(self._step(*task.batch(state["used"], options.batch)))
            state["used"] += options.batch
        loss, right, rate, _ = np.mean(steps, axis=0)
        validation = None
        if full:
            state["annealed"] += 1
            if state["annealed"] % 4 == 0 or self.done():
                validation = self._validate()
        elif right > options.advance:
            state["stage"] += 1
        state["epoch"] += 1
        state["seconds"] += time.perf_counter() - started
        gradient = float(np.median([s[3] for s in steps]))
        result = Epoch(
            state["epoch"], cues, wait_ms, float(loss), float(right), float(rate), gradient,
            self.hidden.feedback_grad, validation,
        )  # fmt: skip
        self.history.append(asdict(result))
        return result

    def save(self, path: Path) -> None:
        content = {
            "format": _CHECKPOINT,
            "options": asdict(self.options),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "best": self.best,
            "progress": self.progress,
            "history": self.history,
            "feedback_grad": self.hidden.feedback_grad,
        }
        write_tensors(path, content)

    def restore(self, path: Path) -> None:
        content = load_tensors(path)
        if content.get("format") != _CHECKPOINT:
            raise InputError(str(path), "is not a checkpoint of this package", "delete it to start over")
        theirs = content.get("options")
        if theirs != asdict(self.options):
            mine = asdict(self.options)
            changed = sorted(k for k in mine if not isinstance(theirs, dict) or theirs.get(k) != mine[k])
            raise InputError(
                str(path),
                f"belongs to a training with other options ({', '.join(changed)})",
                "use the same options, or delete it to start over",
            )
        try:
            self.net.load_state_dict(content["net"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.average, self.best = content["average"], content["best"]
            self.progress, self.history = content["progress"], content["history"]
            self.hidden.feedback_grad = float(content["feedback_grad"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(str(path), f"is damaged ({error})", "delete it to start over") from error

    def result(self, command: str) -> ModelFile:
        options, state = self.options, self.progress
        self._load(self.best)
        provenance = {
            "command": command,
            "seed": options.seed,
            "options": asdict(options),
            "versions": _versions(),
            "metrics": {
                "validation_accuracy": state["best"],
                "validation_samples": options.validation,
                "epochs": state["epoch"],
                "train_seconds": round(state["seconds"], 1),
            },
            "history": self.history,
        }
        task = {"name": "cue", "cues": options.cues, "wait_ms": options.wait_ms}
        return describe(self.net, task=task, provenance=provenance)


def _versions() -> dict[str, str]:
    found = {"delaynet_lava": __version__, "python": platform.python_version()}
    for package in ("torch", "lava-dl", "numpy", "numba"):
        found[package] = metadata.version(package)
    return found


def _keep_heap() -> None:
    """Let glibc reuse the large arrays of a pass instead of mapping fresh pages for each.

    A pass over 2250 steps takes and frees some 500 MB; without this, page faults are half its time.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def command_line(options: CueOptions, preset: str) -> str:
    """The command that trains with these options."""
    base = replace(PRESETS[preset], seed=options.seed)
    parts = [f"delaynet train cue --preset {preset} --seed {options.seed}"]
    for name, value in asdict(options).items():
        if value != getattr(base, name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(f"--set {name}={text}")
    return " ".join(parts)


def train_cue(
    options: CueOptions,
    path: str | os.PathLike,
    preset: str = "loihi2",
    on_epoch: Callable[[Epoch, float], None] | None = None,
) -> ModelFile:
    """Train, and write ``path`` (a ``model.pt``) when done.

    After every epoch the state goes to ``path`` + ".checkpoint"; a later call with the same options
    goes on from there, to the same weights as without the interruption. The checkpoint is removed
    at the end.

    Args:
        on_epoch: called after each epoch with its record and the share of annealing done.

    Raises:
        InputError: a checkpoint of other options is in the way, or the place can't be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(str(path), "its folder does not exist", "create it first")
    _keep_heap()
    checkpoint = target.with_name(target.name + ".checkpoint")
    trainer = _Trainer(options)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    for record in _epochs(trainer):
        trainer.save(checkpoint)
        if on_epoch is not None:
            on_epoch(record, trainer.progress["annealed"] / options.anneal_epochs)
    model = trainer.result(command_line(options, preset))
    save_model(target, model)
    checkpoint.unlink(missing_ok=True)
    return model


def _epochs(trainer: _Trainer) -> Iterator[Epoch]:
    while not trainer.done():
        yield trainer.epoch()
