"""Training on any task, in the integers that the chip computes with.

Back-propagation through time over the whole sample, as the recipe has it. Over thousands of steps the
gradient along the recurrent synapses explodes or vanishes; the factor on it (``feedback_grad`` of the
blocks) follows the gradient's norm, so that it stays near one value throughout. The weights that are kept
are a running average of those visited.

Several processes share each batch: losses, gradients and figures are those of the whole batch in every
one of them, so that all take the same steps and decisions.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from delaynet_lava._version import __version__
from delaynet_lava.decision import Decision
from delaynet_lava.errors import InputError, shown
from delaynet_lava.fixedpoint import DECAY_ONE
from delaynet_lava.formats.model_file import ModelFile, save_model
from delaynet_lava.nn.axon import SenderDelays
from delaynet_lava.nn.blocks import leave_as_bits
from delaynet_lava.nn.model import describe
from delaynet_lava.notebook import Bar, is_notebook
from delaynet_lava.payloads import Payload
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training import checkpoint, delaynet
from delaynet_lava.training.baselines.eprop import eprop_step
from delaynet_lava.training.branching import branching_sums
from delaynet_lava.training.curriculum import stages_of
from delaynet_lava.training.distributed import Group
from delaynet_lava.training.loss import loss_of, scores
from delaynet_lava.training.networks import as_tensor, build_network
from delaynet_lava.training.optimisers import make_optimiser, moments_of, share_of_rate
from delaynet_lava.training.recipe import LARGEST, Recipe, of_layer, plain
from delaynet_lava.training.recipe_file import load_recipe
from delaynet_lava.training.samples import Pool, pools

__all__ = ["Epoch", "Outlook", "accuracy", "train"]

# Newer releases of torch have another name for it.
_FORWARD = "forward_sync_buffers"
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_WITHOUT_BUFFERS: dict[str, Any] = {_FORWARD if _FORWARD in _NAMES else "broadcast_buffers": False}


@dataclass(frozen=True)
class Epoch:
    """What one epoch did, for progress bars and the record kept in the model file.

    Attributes:
        task: word of the curriculum's stage; stage: its number, from 0; stages: how many there are.
        rate: spikes of a hidden neuron in a step.
        branching: branching factor, the mean of n[t + 1] / n[t] over the steps with spikes, where n[t] is
            the number of hidden neurons that fire at t.
        gradient: median norm before clipping. feedback: factor along recurrent synapses at the end.
        validation: accuracy of the averaged weights, where it was measured.
        skipped: steps whose gradient was not finite: the weights stayed.
    """

    number: int
    task: str
    stage: int
    stages: int
    loss: float
    accuracy: float
    rate: float
    branching: float
    gradient: float
    feedback: float
    validation: float | None = None
    skipped: int = 0


class Outlook(NamedTuple):
    """How far a training is.

    Attributes:
        done: share of the epochs on the full task that is over. left_s: seconds to the end, as they went.
    """

    done: float
    left_s: float


@torch.no_grad()
def accuracy(
    net: torch.nn.Module,
    pool: Pool,
    samples: int,
    decision: Decision,
    batch: int = 64,
    group: Group | None = None,
) -> float:
    """Share of right decisions of the integer forward pass; the processes of a group divide the work."""
    group = group or Group()
    mine = group.share(samples)
    right = 0
    for first in range(mine.start, mine.stop, batch):
        inputs, labels = pool.first(first, min(batch, mine.stop - first))
        # Membranes are multiples of 1/4096: in double precision their sums are exact, as the chip's are.
        answer = scores(net(as_tensor(inputs)).double(), decision)
        right += int((answer.argmax(1).numpy() == labels).sum())
    return group.total([right])[0] / samples


class _Answering(torch.nn.Module):
    """The network as one module: spikes by step (N, T) of each hidden layer, and the output (N, out, T)."""

    def __init__(self, net: torch.nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        populations = []
        for block in list(self.net)[:-1]:
            x = block(x)
            populations.append(x.population)  # type: ignore[attr-defined]
        return populations, self.net[-1](x)


class _Trainer:
    """State of a training; everything in it goes into a checkpoint."""

    def __init__(self, recipe: Recipe, task: Task, seed: int, group: Group) -> None:
        self.recipe, self.task, self.seed, self.group = recipe, task, seed, group
        self.stages = stages_of(recipe, task, seed)
        least = min(count for stage in self.stages for _, count in stage.epoch(recipe.schedule, 0.0))
        if least < group.size:
            raise InputError(
                "training", f"{least} samples a batch are too few for {group.size} processes", "use fewer"
            )
        _, self.validation = pools(task, seed, recipe.schedule.held_out)
        self.net = build_network(recipe, self.stages[-1].pool, seed)
        leave_as_bits(self.net)
        hidden = list(self.net)[:-1]
        self.neurons = sum(block.shape[0] for block in hidden)
        self.recurrent = [
            block for layer, block in enumerate(hidden) if of_layer(recipe.network.recurrent, layer)
        ]
        learned = {
            name: part
            for name, part in self.net.named_modules()
            if isinstance(part, SenderDelays) and part.learn_delays
        }
        self.delayed = list(learned.values())
        # Of another unit and size than the rest, they are left out where the gradient's norm is taken.
        self.clipped = [p for k, p in self.net.named_parameters() if not k.endswith("learned_delay")]
        self.model: torch.nn.Module = _Answering(self.net)
        if group.size > 1:
            # Gradients become means over the processes. The buffers, delays, follow from parameters.
            self.model = DistributedDataParallel(self.model, **_WITHOUT_BUFFERS)
        self.first_delays = {f"{name}.delay": part.delay.tolist() for name, part in learned.items()}
        self.optimiser = make_optimiser(self.net, recipe.optimiser)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.average = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self.best: dict[str, torch.Tensor] = {}
        self.progress: dict[str, Any] = dict.fromkeys(("epoch", "stage", "annealed", "used", "seconds"), 0)
        self.progress["best"] = -1.0
        self.history: list[dict[str, Any]] = []
        self.pace = deque[tuple[float, int]](maxlen=8)

    def done(self) -> bool:
        return self.progress["annealed"] >= self.recipe.schedule.epochs

    def identity(self) -> dict[str, Any]:
        """What decides the outcome."""
        return {"task": self.task.word, "seed": self.seed, "recipe": plain(self.recipe)}

    @property
    def feedback(self) -> float:
        """Factor on the gradient along recurrent synapses."""
        return self.recurrent[0].feedback_grad if self.recurrent else 1.0

    @feedback.setter
    def feedback(self, factor: float) -> None:
        for block in self.recurrent:
            block.feedback_grad = factor

    def _step(self, pool: Pool, count: int) -> tuple[float, ...]:
        recipe, group = self.recipe, self.group
        mine = group.share(count)
        # A mean over this process's samples, times this, adds up to the mean over the batch.
        part = len(mine) / count
        inputs, labels = pool.ordered(self.seed, self.progress["used"] + mine.start, len(mine))
        x, target = as_tensor(inputs), torch.from_numpy(labels)
        self.optimiser.zero_grad()
        if recipe.gradient.rule == "eprop":
            loss, population, answer = self._forward_in_time(x, target)
        else:
            populations, out = self.model(x)
            loss = loss_of(recipe.loss, populations, self.neurons, out, target) * part
            (loss * group.size).backward()
            population = _total(populations)
            answer = scores(out.detach(), recipe.decision)
        norm = float(torch.nn.utils.clip_grad_norm_(self.clipped, recipe.gradient.clip))
        if np.isfinite(norm):
            self.optimiser.step()
        self._steer(norm)
        self._bound()
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                self.average[name].lerp_(parameter, 1 - recipe.averaging.decay)
        self.progress["used"] += count
        right = int((answer.argmax(1) == target).sum())
        rate = float(population.detach().mean() / self.neurons)
        shares = [float(loss.detach()), right / count, part * rate, *branching_sums(population)]
        *sums, ratios, steps = group.total(shares)
        return *sums, ratios / max(1.0, steps), norm

    def _forward_in_time(
        self, x: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, population and scores of a step of e-prop, which leaves its gradients behind."""
        loss = self.recipe.loss
        population, out = eprop_step(self.net, x, target, temperature=loss.temperature, rate_weight=loss.rate)
        rate = population.mean() / self.neurons
        return cross_entropy(out / loss.temperature, target) + loss.rate * rate, population, out

    def _narrow_windows(self) -> None:
        """Close the window of the gradient of learned delays; 0, which leaves them, for the last epochs."""
        schedule, window = self.recipe.schedule, self.recipe.gradient.delay_window
        done = self.progress["annealed"] / schedule.epochs / (1 - schedule.frozen)
        for part in self.delayed:
            part.delay_window = 0 if done >= 1 else max(1, round(window * (1 - done)))
        if done >= 1 and self.delayed:
            # What an optimiser remembers of earlier gradients would move them on.
            learned = {id(part.learned_delay) for part in self.delayed}
            for group in self.optimiser.param_groups:
                if any(id(p) in learned for p in group["params"]):
                    group["lr"] = 0.0

    def _steer(self, norm: float) -> None:
        """Move the factor on the gradient along recurrent synapses towards the norm that is asked for."""
        gradient = self.recipe.gradient
        if not gradient.control:
            return
        # Over a sample the gradient passes some fifty loops, so its norm goes with a high power of
        # the factor; the exponent of the control is accordingly small.
        excess = float(np.clip(norm / gradient.norm, 1e-6, 1e6)) if np.isfinite(norm) else 1e6
        self.feedback = float(np.clip(self.feedback * excess**-gradient.control, 0.01, 1.0))

    @torch.no_grad()
    def _bound(self) -> None:
        """Keep all time constants within their bounds."""
        network = self.recipe.network
        slowest, fastest = (
            delaynet.decay(tau, self.task.dt_ms) for tau in (network.tau_max_ms, network.tau_min_ms)
        )
        for name, decay in self.net.named_parameters():
            if name.endswith("voltage_decay"):
                decay.clamp_(slowest * DECAY_ONE, fastest * DECAY_ONE)

    @property
    def validated(self) -> int:
        """Samples of a validation."""
        return self.validation.most(self.recipe.schedule.validation)

    def _validate(self) -> float:
        kept = {k: v.detach().clone() for k, v in self.net.named_parameters()}
        self._load(self.average)
        recipe = self.recipe
        result = accuracy(
            self.net, self.validation, self.validated, recipe.decision, recipe.schedule.batch, self.group
        )
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
        started, recipe, state = time.perf_counter(), self.recipe, self.progress
        schedule, chosen = recipe.schedule, recipe.curriculum
        last = len(self.stages) - 1
        if state["epoch"] >= chosen.most_epochs:
            state["stage"] = last
        number = state["stage"]
        stage, full = self.stages[number], number == last
        share = share_of_rate(schedule, 1 - state["annealed"] / schedule.epochs if full else 1.0)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self._narrow_windows()
        batches = stage.epoch(schedule, chosen.easy)
        steps = [self._step(pool, count) for pool, count in batches]
        taken = [step for step in steps if np.isfinite(step[-1])]
        loss, right, rate, branching, _ = (float(mean) for mean in np.mean(taken or steps, axis=0))
        validation = None
        if full:
            state["annealed"] += 1
            if state["annealed"] % schedule.validate_every == 0 or self.done():
                validation = self._validate()
        elif right > chosen.advance:
            state["stage"] += 1
        state["epoch"] += 1
        seconds = time.perf_counter() - started
        state["seconds"] += seconds
        self.pace.append((seconds, _sample_steps(batches)))
        gradient = float(np.median([step[-1] for step in taken])) if taken else 0.0
        result = Epoch(
            state["epoch"], stage.word, number, last + 1, loss, right, rate, branching, gradient,
            self.feedback, validation, len(steps) - len(taken),
        )  # fmt: skip
        self.history.append(asdict(result))
        return result

    def outlook(self) -> Outlook:
        """How far this is, and how long the rest takes at the pace of the last epochs.

        Each stage of the curriculum that is still to come counts for one epoch, which is the least.
        """
        schedule, easy = self.recipe.schedule, self.recipe.curriculum.easy
        per_step = sum(s for s, _ in self.pace) / max(1, sum(n for _, n in self.pace))
        *before, full = (_sample_steps(one.epoch(schedule, easy)) for one in self.stages)
        left = schedule.epochs - self.progress["annealed"]
        ahead = sum(before[self.progress["stage"] :]) + left * full
        return Outlook(1 - left / schedule.epochs, per_step * ahead)

    def save(self, path: Path) -> None:
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "best": self.best,
            "progress": self.progress,
            "history": self.history,
            "feedback": self.feedback,
        }
        checkpoint.save(path, self.identity(), state)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same training.

        Raises:
            InputError: there is something else in it; nothing has changed then.
        """
        state = checkpoint.restore(path, self.identity())
        where, schedule = f"{path}: ", self.recipe.schedule
        progress: Any = state.get("progress")
        # Before the first validation there is no best.
        unmeasured = isinstance(progress, dict) and progress.get("best") == -1 and not state.get("best")
        reached = {**progress, "best": 0} if unmeasured else progress
        numbers = {"epoch": LARGEST, "stage": len(self.stages) - 1, "annealed": schedule.epochs}
        checkpoint.require_numbers(
            reached, {**numbers, "used": LARGEST, "seconds": 1e12, "best": 1.0}, f"{where}progress"
        )
        history: Any = state.get("history")
        feedback: Any = state.get("feedback")
        if not isinstance(history, list) or len(history) != progress["epoch"]:
            raise InputError(f"{where}history", "is not one entry an epoch", "delete it to start over")
        checkpoint.require_numbers({"feedback": feedback}, {"feedback": 1.0}, where.rstrip(": "))
        checkpoint.require_tensors(state.get("net"), self.net.state_dict(), f"{where}net")
        for name in ("average", "best"):
            if name == "average" or not unmeasured:
                checkpoint.require_tensors(state.get(name), self.average, where + name)
        optimiser, mine = state.get("optimiser"), self.optimiser.state_dict()["param_groups"]
        numbered = enumerate(p for group in self.optimiser.param_groups for p in group["params"])
        moments = optimiser.get("state") if isinstance(optimiser, dict) else None
        checkpoint.require_moments(
            moments, dict(numbered), moments_of(self.recipe.optimiser), f"{where}optimiser"
        )
        self.net.load_state_dict(state["net"])
        # Its options are the recipe's.
        self.optimiser.load_state_dict({"state": moments, "param_groups": mine})
        self.average, self.best = state["average"], state["best"]
        self.progress, self.history, self.feedback = progress, history, float(feedback)

    def result(self, command: str) -> ModelFile:
        state = self.progress
        self._load(self.best)
        provenance = {
            "command": command,
            **self.identity(),
            "versions": _versions(),
            "metrics": {
                "validation_accuracy": state["best"],
                "validation_samples": self.validated,
                "epochs": state["epoch"],
                "train_seconds": round(state["seconds"], 1),
            },
            "history": self.history,
        }
        if self.first_delays:
            provenance["first_delays"] = self.first_delays
        return describe(
            self.net,
            task=self.task.word,
            provenance=provenance,
            dt_ms=self.task.dt_ms,
            decision=self.recipe.decision,
            payload=Payload(self.task.payload_bits, self.task.payload_signed),
        )


def _total(populations: Sequence[torch.Tensor]) -> torch.Tensor:
    first, *others = (population.detach() for population in populations)
    for population in others:
        first = first + population
    return first


def _sample_steps(batches: Sequence[tuple[Pool, int]]) -> int:
    return sum(pool.task.steps * count for pool, count in batches)


def _versions() -> dict[str, str]:
    found = {"delaynet_lava": __version__, "python": platform.python_version()}
    for package in ("torch", "lava-dl", "numpy", "numba"):
        with contextlib.suppress(metadata.PackageNotFoundError):  # lava-dl may be missing
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


def _bar() -> Callable[[Epoch, Outlook], None]:
    """Progress in a notebook."""
    shown = Bar("training", 1.0)

    def told(epoch: Epoch, outlook: Outlook) -> None:
        text = f"epoch {epoch.number}, accuracy {epoch.accuracy:.3f}, {outlook.left_s:.0f} s left"
        shown.to(outlook.done, text)

    return told


def train(
    recipe: Recipe | str,
    task: Task | str,
    path: str | os.PathLike,
    seed: int = 0,
    on_epoch: Callable[[Epoch, Outlook], None] | None = None,
    group: Group | None = None,
    command: str = "",
) -> ModelFile:
    """Train, and write ``path`` (a ``model.pt``) when done.

    After every epoch the state goes to ``path`` + ".checkpoint"; a later call with the same recipe, task
    and seed goes on from there, to the same weights as without the interruption. The checkpoint is removed
    at the end.

    With a group of several processes, all of which call this alike, each generates and computes its
    share of every batch; the shares need not be equal. The result is that of one process up to the
    rounding of sums, and the same in each of them. The first process alone writes; another number
    of processes may go on from its checkpoint.

    Args:
        recipe: or the name of a shipped one, or the path of a TOML file.
        task: or its word, which then gets the seed.
        seed: of weights, lattice and the order of samples.
        on_epoch: called after each epoch with its record and what is left.
        group: of :func:`delaynet_lava.training.distributed.process_group`; None: this process alone.
        command: kept in the file: what makes it again.

    Raises:
        InputError: recipe and task do not fit, a checkpoint of another training is in the way, the place
            can't be written, there are more processes than samples in a batch, or an argument is of
            another type.
    """
    group = group or Group()
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(recipe, Recipe):
        raise InputError(
            "training: recipe", f"is of type {type(recipe).__name__}", "give a Recipe or its name"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < LARGEST:
        raise InputError("training: seed", f"{shown(seed)} is not a whole number from 0 to below 2^53")
    task = task_of(task, seed := int(seed)) if isinstance(task, str) else task
    if not isinstance(task, Task):
        raise InputError("training: task", f"is of type {type(task).__name__}", "give a Task or its word")
    if group.size > 1 and (recipe.loss.branching_over == "batch" or recipe.gradient.rule == "eprop"):
        raise InputError(
            "training",
            "loss.branching_over batch and gradient.rule eprop need the whole batch in one process",
            "use one",
        )
    target = Path(path)
    if not os.path.isdir(target.parent):
        raise InputError(str(path), "its folder does not exist", "create it first")
    _keep_heap()
    trainer = _Trainer(recipe, task, seed, group)
    if on_epoch is None and group.rank == 0 and is_notebook():
        on_epoch = _bar()
    kept = checkpoint.path_of(target)
    if os.path.exists(kept):
        trainer.restore(kept)
    # Nobody goes on, and writes, before all have read.
    if group.total([trainer.progress["epoch"]])[0] != group.size * trainer.progress["epoch"]:
        raise InputError(str(kept), "is not the same for all processes", "use a folder they share")
    while not trainer.done():
        record = trainer.epoch()
        if group.rank == 0:
            trainer.save(kept)
        if on_epoch is not None:
            on_epoch(record, trainer.outlook())
    model = trainer.result(command)
    if group.rank == 0:
        save_model(target, model)
        kept.unlink(missing_ok=True)
    return model
