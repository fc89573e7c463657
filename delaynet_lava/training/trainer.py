"""Training on cue accumulation, in the integers that the chip computes with.

Back-propagation through time over the whole sample, cross-entropy on the readout's membrane after
the last step, the paper's branching-factor loss, and a curriculum: first more cues, then a longer
wait. Over thousands of steps the gradient along the recurrent synapses explodes or vanishes; the
factor on it (``feedback_grad`` of the block) follows the gradient's norm, so that it stays near one
value throughout. The weights that are kept are a running average of those visited.

Several processes share each batch: losses, gradients and figures are those of the whole batch in every
one of them, so that all take the same steps and decisions.
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
from madgrad import MADGRAD
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from delaynet_lava._version import __version__
from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import DECAY_ONE
from delaynet_lava.formats.model_file import ModelFile, load_tensors, require_plain, save_model, write_tensors
from delaynet_lava.nn.model import describe
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training import delaynet
from delaynet_lava.training.baselines.eprop import eprop_step
from delaynet_lava.training.branching import branching_sums
from delaynet_lava.training.distributed import Group
from delaynet_lava.training.loss import loss_of
from delaynet_lava.training.networks import as_tensor, build_network
from delaynet_lava.training.options import PRESETS, CueOptions, command_line

__all__ = ["PRESETS", "CueOptions", "Epoch", "train_cue"]

_CHECKPOINT = "delaynet_lava.checkpoint"


@dataclass(frozen=True)
class Epoch:
    """What one epoch did, for progress bars and the record kept in the model file.

    Attributes:
        rate: spikes of a hidden neuron in a step.
        branching: branching factor, the mean of n[t + 1] / n[t] over the steps with spikes, where n[t] is
            the number of hidden neurons that fire at t.
        gradient: median norm before clipping. feedback: factor along recurrent synapses at the end.
        validation: accuracy of the averaged weights, where it was measured.
    """

    number: int
    cues: int
    wait_ms: int
    loss: float
    accuracy: float
    rate: float
    branching: float
    gradient: float
    feedback: float
    validation: float | None = None


@torch.no_grad()
def accuracy(
    net: torch.nn.Module,
    task: Task,
    samples: int,
    batch: int = 64,
    group: Group | None = None,
    split: str = "validation",
) -> float:
    """Share of right decisions of the integer forward pass; the processes of a group divide the work."""
    group = group or Group()
    mine = group.share(samples)
    right = 0
    for first in range(mine.start, mine.stop, batch):
        spikes, labels = task.batch(split, first, min(batch, mine.stop - first))
        right += int((net(as_tensor(spikes))[..., -1].argmax(1).numpy() == labels).sum())
    return group.total([right])[0] / samples


class _Decision(torch.nn.Module):
    """The network as one module that gives hidden spikes by step (N, T) and membranes (N, out, T)."""

    def __init__(self, net: torch.nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spikes = self.net[0](x)
        return spikes.population, self.net[1](spikes)


def _optimiser(net: torch.nn.Module, options: CueOptions) -> torch.optim.Optimizer:
    """Over everything that is trained; decays, whose unit is 1/4096, have a rate of their own."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decays = [p for name, p in named if name.endswith("decay")]
    weights = [p for name, p in named if not name.endswith("decay")]
    groups = [{"params": weights, "lr": options.lr}, {"params": decays, "lr": options.lr * options.lr_decays}]
    groups = [group for group in groups if group["params"]]
    if options.optimiser == "madgrad":
        return MADGRAD(groups, lr=options.lr, momentum=0.9)
    return torch.optim.Adam(groups, lr=options.lr, betas=(0.9, 0.99))


class _Trainer:
    """State of a training; everything in it goes into a checkpoint."""

    def __init__(self, options: CueOptions, group: Group) -> None:
        self.options, self.group = options, group
        self.net = build_network(options)
        self.hidden = self.net[0]
        self.model: torch.nn.Module = _Decision(self.net)
        if group.size > 1:
            # Gradients become means over the processes. Delays, the buffers, never change.
            self.model = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.optimiser = _optimiser(self.net, options)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.average = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self.best: dict[str, torch.Tensor] = {}
        self.progress: dict[str, Any] = dict.fromkeys(("epoch", "stage", "annealed", "used", "seconds"), 0)
        self.progress["best"] = -1.0
        self.history: list[dict[str, Any]] = []

    def done(self) -> bool:
        return self.progress["annealed"] >= self.options.anneal_epochs

    def _step(self, task: Task) -> tuple[float, ...]:
        options, group = self.options, self.group
        mine = group.share(options.batch)
        # A mean over this process's samples, times this, adds up to the mean over the batch.
        part = len(mine) / options.batch
        first = self.progress["used"] + mine.start
        spikes, labels = task.batch("train", first, len(mine))
        x, target = as_tensor(spikes), torch.from_numpy(labels)
        self.optimiser.zero_grad()
        if options.rule == "eprop":
            population, out = eprop_step(
                self.net, x, target, temperature=options.temperature, rate_weight=options.rate_weight
            )
            rate = population.mean() / self.net[0].shape[0]
            loss = cross_entropy(out / options.temperature, target) + options.rate_weight * rate
        else:
            population, membranes = self.model(x)
            loss = loss_of(options, population, membranes, target) * part
            (loss * group.size).backward()
            population, out = population.detach(), membranes.detach()[..., -1]
            rate = population.mean() / self.hidden.shape[0]
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), options.clip))
        if np.isfinite(norm):
            self.optimiser.step()
        # Over a sample the gradient passes some fifty loops, so its norm goes with a high power of
        # the factor; the exponent of the control is accordingly small.
        if options.control:
            excess = float(np.clip(norm / options.gradient_norm, 1e-6, 1e6)) if np.isfinite(norm) else 1e6
            factor = self.hidden.feedback_grad * excess**-options.control
            self.hidden.feedback_grad = float(np.clip(factor, 0.01, 1.0))
        self._bound()
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                self.average[name].lerp_(parameter, 1 - options.average)
        self.progress["used"] += options.batch
        right = int((out.argmax(1) == target).sum())
        shares = [float(loss), right / options.batch, part * float(rate), *branching_sums(population)]
        *sums, ratios, count = group.total(shares)
        return *sums, ratios / max(1.0, count), norm

    @torch.no_grad()
    def _bound(self) -> None:
        """Keep both time constants within the paper's bounds."""
        fastest, slowest = (delaynet.decay(tau) for tau in (self.options.tau_min_ms, self.options.tau_max_ms))
        for name, decay in self.net.named_parameters():
            if name.endswith("voltage_decay"):
                decay.clamp_(slowest * DECAY_ONE, fastest * DECAY_ONE)

    def _validate(self) -> float:
        kept = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self._load(self.average)
        options = self.options
        task = CueAccumulation(options.cues, options.wait_ms, options.seed)
        result = accuracy(self.net, task, options.validation, options.batch, self.group)
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
        stages = options.stages()
        if state["epoch"] >= options.max_epochs:
            state["stage"] = len(stages) - 1
        cues, wait_ms = stages[state["stage"]]
        full = state["stage"] == len(stages) - 1
        left = 1 - state["annealed"] / options.anneal_epochs if full else 1.0
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            linear = options.lr_end + (1 - options.lr_end) * left
            group["lr"] = rate * (linear if options.annealing == "linear" else options.lr_end ** (1 - left))
        task = CueAccumulation(cues, wait_ms, options.seed, options.right_p, options.blocked)
        short = replace(task, wait_ms=options.first_wait_ms)
        steps = []
        for k in range(max(1, options.epoch_samples // options.batch)):
            # Spread evenly: one whenever the share, added up, passes a whole number.
            passes = int((k + 1) * options.short_waits) > int(k * options.short_waits)
            steps.append(self._step(short if passes else task))
        loss, right, rate, branching, _ = (float(mean) for mean in np.mean(steps, axis=0))
        validation = None
        if full:
            state["annealed"] += 1
            if state["annealed"] % 4 == 0 or self.done():
                validation = self._validate()
        elif right > options.advance:
            state["stage"] += 1
        state["epoch"] += 1
        state["seconds"] += time.perf_counter() - started
        gradient = float(np.median([s[-1] for s in steps]))
        result = Epoch(
            state["epoch"], cues, wait_ms, loss, right, rate, branching, gradient,
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
        plain = ("format", "options", "progress", "history", "feedback_grad")
        require_plain({key: content.get(key) for key in plain}, str(path))
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
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
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


def train_cue(
    options: CueOptions,
    path: str | os.PathLike,
    preset: str = "loihi2",
    on_epoch: Callable[[Epoch, float], None] | None = None,
    group: Group | None = None,
) -> ModelFile:
    """Train, and write ``path`` (a ``model.pt``) when done.

    After every epoch the state goes to ``path`` + ".checkpoint"; a later call with the same options
    goes on from there, to the same weights as without the interruption. The checkpoint is removed
    at the end.

    With a group of several processes, all of which call this alike, each generates and computes its
    share of every batch; the shares need not be equal. The result is that of one process up to the
    rounding of sums, and the same in each of them. The first process alone writes; another number
    of processes may go on from its checkpoint.

    Args:
        on_epoch: called after each epoch with its record and the share of annealing done.
        group: of :func:`delaynet_lava.training.distributed.process_group`; None: this process alone.

    Raises:
        InputError: a checkpoint of other options is in the way, the place can't be written, or
            there are more processes than samples in a batch.
    """
    group = group or Group()
    if group.size > 1 and (options.branching_over == "batch" or options.rule == "eprop"):
        raise InputError(
            "training", "branching_over=batch and rule=eprop need the whole batch in one process", "use one"
        )
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(str(path), "its folder does not exist", "create it first")
    if options.batch < group.size:
        raise InputError(
            "training: batch", f"{options.batch} samples are too few for {group.size} processes", "use fewer"
        )
    _keep_heap()
    checkpoint = target.with_name(target.name + ".checkpoint")
    trainer = _Trainer(options, group)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    # Nobody goes on, and writes, before all have read.
    if group.total([trainer.progress["epoch"]])[0] != group.size * trainer.progress["epoch"]:
        raise InputError(str(checkpoint), "is not the same for all processes", "use a folder they share")
    for record in _epochs(trainer):
        if group.rank == 0:
            trainer.save(checkpoint)
        if on_epoch is not None:
            on_epoch(record, trainer.progress["annealed"] / options.anneal_epochs)
    model = trainer.result(command_line(options, preset, group.size))
    if group.rank == 0:
        save_model(target, model)
        checkpoint.unlink(missing_ok=True)
    return model


def _epochs(trainer: _Trainer) -> Iterator[Epoch]:
    while not trainer.done():
        yield trainer.epoch()
