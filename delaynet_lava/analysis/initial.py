"""What initial weights promise: the paper's check of a network before it is trained.

Needs SLAYER: gradients are those of the training itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from delaynet_lava.nn.initial import spectral_radius
from delaynet_lava.tasks.base import Task
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training.branching import branching_factor
from delaynet_lava.training.options import CueOptions

__all__ = ["InitialReport", "examine"]

# A layer that is silent, or fires at every other step, gives the readout nothing to tell apart.
RATES = (1e-4, 0.5)
# Contributions that differ by more than this are lost when single precision adds them up.
RESOLUTION = 2.0**23


@dataclass(frozen=True)
class InitialReport:
    """Figures of an untrained network on real input.

    Attributes:
        radius, absolute_radius: spectral radius of W_rec and of |W_rec|, in thresholds.
        rate: spikes of a hidden neuron in a step. branching: see :func:`branching_factor`.
        growth: factor by which the gradient's norm grows in a step on its way back, fitted to all steps.
        loop: mean lag of the recurrent connections, steps.
        steps: of the task. first_steps: of the curriculum's first stage.
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


def _norms(net: torch.nn.Sequential, task: Task, samples: int) -> tuple[np.ndarray, torch.Tensor]:
    """Norm of the exact gradient along the membranes at each step, and the hidden spikes."""
    hidden = net[0]
    spikes, labels = task.batch("train", 0, samples)
    # The gradient of the input is that of the membranes, seen through the input weights.
    x = torch.from_numpy(spikes).transpose(1, 2).float().requires_grad_()
    factor, hidden.feedback_grad = hidden.feedback_grad, 1.0
    try:
        fired = hidden(x)
        out = net[1](fired)[..., -1]
        torch.nn.functional.cross_entropy(out, torch.from_numpy(labels)).backward()
    finally:
        hidden.feedback_grad = factor
        net.zero_grad(set_to_none=True)
    assert x.grad is not None
    return x.grad.double().norm(dim=(0, 1)).numpy(), fired.detach()


def examine(net: torch.nn.Sequential, options: CueOptions, samples: int = 8) -> InitialReport:
    """Measure an untrained network: spectral radii, activity, and how its gradient grows on the way back.

    Args:
        net: a :class:`~delaynet_lava.nn.DelayRecurrent` and a :class:`~delaynet_lava.nn.Readout`.
        options: of the training it is for; ``samples`` of its full task are run forward and backward.
    """
    hidden = net[0]
    task = CueAccumulation(options.cues, options.wait_ms, options.seed)
    weight = hidden.recurrent_matrix().detach().double() / hidden.neuron.threshold
    norms, fired = _norms(net, task, samples)
    usable = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    slope = np.polyfit(usable, np.log(norms[usable]), 1)[0] if len(usable) > 1 else 0.0
    report = InitialReport(
        radius=spectral_radius(weight),
        absolute_radius=spectral_radius(weight.abs()),
        rate=float(fired.mean()),
        branching=branching_factor(fired.sum(dim=1)),
        growth=float(np.exp(-slope)),
        loop=float(hidden.delay.double().mean()) + 1,
        steps=task.steps,
        first_steps=CueAccumulation(*options.stages()[0]).steps,
        problems=[],
    )
    report.problems.extend(_problems(report, options.control > 0))
    return report


def _problems(report: InitialReport, steered: bool) -> list[str]:
    found = []
    low, high = RATES
    rate, first = report.rate, report.growth**report.first_steps
    if rate < low:
        found.append(f"nearly silent: {rate:.1e} spikes a neuron and step, below {low:g}; raise input_gain")
    if rate > high:
        found.append(f"saturated: {rate:.2f} spikes a neuron and step, above {high:g}; lower radius")
    # Where training steers the factor along recurrent synapses, it holds the gradient itself.
    if not steered and first > RESOLUTION:
        found.append(
            f"the gradient explodes: times {first:.1e} over the {report.first_steps} steps that training "
            f"begins with, above {RESOLUTION:.1e}; lower radius, or let control steer feedback_grad"
        )
    if first < 1 / RESOLUTION:
        found.append(
            f"the gradient vanishes: {first:.1e} of it is left after the {report.first_steps} steps that "
            f"training begins with, below {1 / RESOLUTION:.1e}; raise radius, or begin with a shorter task"
        )
    return found
