"""What initial weights promise: the paper's check of a network before it is trained.

Gradients are those of the training itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from delaynet_lava.nn import DelayRecurrent
from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.tasks.base import Task
from delaynet_lava.training.branching import branching_factor
from delaynet_lava.training.curriculum import stages_of
from delaynet_lava.training.loss import scores
from delaynet_lava.training.networks import as_tensor
from delaynet_lava.training.recipe import Recipe
from delaynet_lava.training.samples import Pool

__all__ = ["InitialReport", "examine"]

# A layer that is silent, or fires at every other step, gives the readout nothing to tell apart.
RATES = (1e-4, 0.5)
# Contributions that differ by more than this are lost when single precision adds them up.
RESOLUTION = 2.0**23
_UNDRIVEN = 1000


@dataclass(frozen=True)
class InitialReport:
    """Figures of an untrained network on real input.

    Attributes:
        radius, absolute_radius: spectral radius of W_rec and of |W_rec|, in thresholds; of several
            recurrent layers the largest, of none 0.
        rate: spikes of a hidden neuron in a step. branching: see :func:`branching_factor`.
        growth: factor by which the gradient's norm grows in a step on its way back, fitted to all steps.
        loop: mean lag of the recurrent connections, steps; 0 without any.
        steps: of the task. first_steps: of the curriculum's first stage.
        layer_rates: the rate of each hidden layer. layer_gradients: norm of the loss's gradient to the input
            weights of each layer, the answering one last. pacemakers: neurons of each hidden layer that spike
            without input.
        problems: what stands against a training, one sentence each; empty where nothing does.
    """

    radius: float
    absolute_radius: float
    rate: float
    branching: float
    growth: float
    loop: float
    steps: int
    first_steps: int
    problems: list[str]
    layer_rates: list[float] = field(default_factory=list)
    layer_gradients: list[float] = field(default_factory=list)
    pacemakers: list[int] = field(default_factory=list)

    @property
    def decades(self) -> float:
        """Powers of ten by which the gradient grows over the whole task."""
        return self.steps * float(np.log10(self.growth))

    @property
    def first_decades(self) -> float:
        """The same over the first stage of the curriculum."""
        return self.first_steps * float(np.log10(self.growth))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "decades": self.decades, "first_decades": self.first_decades}


def _norms(
    net: torch.nn.Sequential, recipe: Recipe, pool: Pool, samples: int
) -> tuple[np.ndarray, list, list[float]]:
    """Norm of the exact gradient along the membranes at each step, the spikes of each hidden layer, and the
    norm of each layer's gradient."""
    inputs, labels = pool.first(0, samples)
    # The gradient of the input is that of the membranes, seen through the input weights.
    x = as_tensor(inputs).to(torch.float32).requires_grad_()
    *hidden, answer = net
    factors = [block.feedback_grad for block in hidden]
    fired = []
    try:
        out = x
        for block in hidden:
            block.feedback_grad = 1.0
            out = block(out)
            fired.append(out.detach())
        found = scores(answer(out), recipe.decision)
        torch.nn.functional.cross_entropy(found, torch.from_numpy(labels)).backward()
        gradients = [float(getattr(block, block._entry).weight.grad.norm()) for block in net]
    finally:
        for block, factor in zip(hidden, factors, strict=True):
            block.feedback_grad = factor
        net.zero_grad(set_to_none=True)
    assert x.grad is not None
    return x.grad.double().norm(dim=(0, 1)).numpy(), fired, gradients


@torch.no_grad()
def _pacemakers(hidden: list[torch.nn.Module], steps: int) -> list[int]:
    """How many neurons of each layer spike without input."""
    counts = []
    for block in hidden:
        channels = getattr(block, block._entry).weight.shape[1]
        counts.append(int((block(torch.zeros(1, channels, steps)) > 0).any(dim=2).sum()))
    return counts


def examine(
    net: torch.nn.Sequential, recipe: Recipe, task: Task, seed: int, samples: int = 8
) -> InitialReport:
    """Measure an untrained network: spectral radii, activity, and how its gradient grows on the way back.

    Args:
        net: of :func:`~delaynet_lava.training.networks.build_network`, not an LSNN.
        recipe, task, seed: of the training it is for; ``samples`` of its full task are run forward and back.
    """
    stages = stages_of(recipe, task, seed)
    pool, first = stages[-1].pool, stages[0].pool.task
    norms, fired, gradients = _norms(net, recipe, pool, pool.most(samples))
    usable = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    slope = np.polyfit(usable, np.log(norms[usable]), 1)[0] if len(usable) > 1 else 0.0
    loops = [block for block in net if isinstance(block, DelayRecurrent)]
    weights = [b.recurrent_matrix().detach().double() / b.neuron.threshold for b in loops]
    lags = [block.delay.double() + 1 for block in loops]
    report = InitialReport(
        radius=max((spectral_radius(weight) for weight in weights), default=0.0),
        absolute_radius=max((spectral_radius(weight.abs()) for weight in weights), default=0.0),
        rate=sum(float(one.sum()) for one in fired) / sum(one.numel() for one in fired),
        branching=branching_factor(torch.stack([one.sum(dim=1) for one in fired]).sum(dim=0)),
        growth=float(np.exp(-slope)),
        loop=float(torch.cat(lags).mean()) if lags else 0.0,
        steps=task.steps,
        first_steps=first.steps,
        problems=[],
        layer_rates=[float((one > 0).float().mean()) for one in fired],
        layer_gradients=gradients,
        pacemakers=_pacemakers(list(net)[:-1], max(_UNDRIVEN, task.steps)),
    )
    report.problems.extend(_problems(report, recipe.gradient.control > 0))
    return report


def _problems(report: InitialReport, steered: bool) -> list[str]:
    found = []
    low, high = RATES
    rate, first = report.rate, report.growth**report.first_steps
    if rate < low:
        found.append(
            f"nearly silent: {rate:.1e} spikes a neuron and step, below {low:g}; "
            "raise init.input_gain, or init.rate where that is not 0"
        )
    if rate > high:
        found.append(f"saturated: {rate:.2f} spikes a neuron and step, above {high:g}; lower init.radius")
    quiet = [layer for layer, of in enumerate(report.layer_rates) if of == 0]
    if quiet and rate >= low:
        found.append(
            f"silent: hidden layer {', '.join(map(str, quiet))}, from which the next one hears nothing; "
            "raise init.rate or init.input_gain, or take init.kind relay"
        )
    dead = [layer for layer, norm in enumerate(report.layer_gradients) if not 0 < norm < np.inf]
    if dead:
        found.append(f"no gradient reaches the weights of layer {', '.join(map(str, dead))}; see init.rate")
    beating = sum(report.pacemakers)
    if beating:
        found.append(f"{beating} neurons spike without input; lower their bias")
    # Where training steers the factor along recurrent synapses, it holds the gradient itself.
    if not steered and first > RESOLUTION:
        found.append(
            f"the gradient explodes: times {first:.1e} over the {report.first_steps} steps that training "
            f"begins with, above {RESOLUTION:.1e}; lower init.radius, or let gradient.control steer"
        )
    if first < 1 / RESOLUTION:
        found.append(
            f"the gradient vanishes: {first:.1e} of it is left after the {report.first_steps} steps that "
            f"training begins with, below {1 / RESOLUTION:.1e}; raise init.radius, or begin with "
            "a shorter task"
        )
    return found
