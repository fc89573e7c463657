"""Everything that can be said of a network before a board is touched, gathered once.

Rules, static bounds, bit depth and placement need the network and a profile. Accuracy, observed extremes,
cost and activity come from a run on samples of a task, and are left out, with the reason, where there is
none. :mod:`delaynet_lava.analysis.report_sections` puts it into words, tables and pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.analysis import activity, overflow
from delaynet_lava.analysis.bitdepth import LayerMemory, layer_memory
from delaynet_lava.analysis.cost import Cost, cost
from delaynet_lava.analysis.memory import wilson
from delaynet_lava.analysis.sweep import Point, smallest_keeping
from delaynet_lava.emulator import Extremes, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import Evaluation, evaluate
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.hw_profiles.placement import Placement, place
from delaynet_lava.hw_profiles.rules import Finding, check
from delaynet_lava.network import Dense, Layer, Network, Neuron, Synapse, kind_of, span, time_constant_ms
from delaynet_lava.nn.lattice import lattice_positions, outwards
from delaynet_lava.notebook import bar
from delaynet_lava.tables import notebook
from delaynet_lava.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KEPT", "Report", "Run", "Sweep", "gather", "lattice", "recorded_findings"]

KEPT = 0.98
"""Share of right decisions for which a sweep's smallest value is reported."""
_PART = 16  # samples between two moves of a progress bar
_WATCHED = 64  # samples that a spectrum is averaged over, at most


@dataclass(frozen=True, eq=False)
class Run:
    """A network on samples of a task.

    Attributes:
        task: what was run, in words.
        evaluation: decisions, spikes, wraps and saturations.
        cost: events of an inference and their price.
        activity: rasters and spectrum; None where delays are not axonal.
        watched: samples that the spectrum averages over.
    """

    task: str
    evaluation: Evaluation
    cost: Cost
    activity: activity.Activity | None
    watched: int

    @property
    def right(self) -> int:
        """Right decisions."""
        return self.evaluation.right

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = self.evaluation
        interval = wilson(self.right, found.samples)
        return {"task": self.task, "right": self.right, "interval": list(interval), **found.as_dict()}


@dataclass(frozen=True, eq=False)
class Sweep:
    """Accuracy with less and less of one thing.

    Attributes:
        kind, points: of :func:`delaynet_lava.analysis.sweep.sweep`.
        task: in words. chance: accuracy of a guess.
    """

    kind: str
    points: tuple[Point, ...]
    task: str
    chance: float

    @property
    def smallest(self) -> Point | None:
        """The smallest that keeps :data:`KEPT`, with all above it."""
        return smallest_keeping(self.points, KEPT)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        smallest = self.smallest
        return {
            "kind": self.kind,
            "task": self.task,
            "chance": self.chance,
            "points": [point.as_dict() for point in self.points],
            "kept": KEPT,
            "smallest": None if smallest is None else smallest.value,
        }


@dataclass(frozen=True, eq=False)
class Report:
    """What is known of a network.

    Attributes:
        network, profile: that it is about.
        findings: of the profile's rules.
        overflow: rows of :func:`delaynet_lava.analysis.overflow.report`; with extremes where it ran.
        memory: of each layer's membrane.
        placement: None where a neuron is too large for a core.
        run, asked_ms: samples of a task, and how long one is; None without a task.
        sweep: None where none was asked for.
        left_out: one line for each part that is missing, with the reason.
    """

    network: Network
    profile: HardwareProfile
    findings: tuple[Finding, ...]
    overflow: tuple[dict[str, Any], ...]
    memory: tuple[LayerMemory, ...]
    placement: Placement | None
    run: Run | None = None
    asked_ms: float | None = None
    sweep: Sweep | None = None
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Report on {self.network.summary()}, {self.profile.name}: {self.broken} rules broken>"

    def _repr_html_(self) -> str:
        # Above this module, since it is made of reports.
        from delaynet_lava.analysis.report_sections import sections, verdict

        first, *rest = sections(self, page=False)
        found = verdict(self)
        folded = "".join(
            f"<details><summary>{escape(one.title)}</summary>{notebook(one.text, one.tables)}</details>"
            for one in rest
        )
        return notebook(f"{found.word}: {found.text}", first.tables) + folded

    @property
    def broken(self) -> int:
        """Number of rules' errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def layers(self) -> list[dict[str, Any]]:
        """A row a layer; a time constant is None where nothing decays, 0 where all is forgotten at once.

        Where neurons differ, a decay is their least and their largest, a time constant the longest. Spiking
        Recurrent Cells have no membrane: None and "".
        """
        return [
            {
                "layer": k,
                "neurons": layer.size,
                "kind": kind_of(layer),
                **_parameters(layer, self.network.dt_ms),
            }
            for k, layer in enumerate(self.network.layers)
        ]

    def synapses(self) -> list[dict[str, Any]]:
        """A row a matrix of weights."""
        rows = []
        for k, layer in enumerate(self.network.layers):
            if isinstance(layer, Dense):
                rows.append(_synapses(f"layer {k} weight", layer.synapse))
                if layer.recurrent is not None:
                    rows.append(_synapses(f"layer {k} weight_rec", layer.recurrent))
        return rows

    def bit_depth(self) -> list[dict[str, Any]]:
        """A row a layer: how long its membrane alone holds a trace, beside the task and its longest lag.

        ``of_task`` is the share of the task that the membrane lasts, ``lag_ms`` the longest recurrent lag,
        ``turns`` how often a spike passes it while the task lasts.
        """
        rows = []
        for one in self.memory:
            recurrent = self.network.layers[one.layer].recurrent
            there = recurrent is not None and bool(np.any(recurrent.weight))
            lag = (recurrent.max_delay + 1) * self.network.dt_ms if recurrent is not None and there else None
            lengths = {"tau_ms": one.tau_ms, "bound_ms": one.bound_ms, "empirical_ms": one.empirical_ms}
            finite = {name: None if np.isinf(value) else value for name, value in lengths.items()}
            lasts, asked = finite["empirical_ms"], self.asked_ms
            rows.append(
                {
                    "layer": one.layer,
                    "bits": one.bits,
                    **finite,
                    "of_task": None if lasts is None or asked is None else lasts / asked,
                    "lag_ms": lag,
                    "turns": None if lag is None or asked is None else asked / lag,
                }
            )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "profile": self.profile.name,
            "summary": self.network.summary(),
            "layers": self.layers(),
            "synapses": self.synapses(),
            "task": self.network.task,
            "provenance": self.network.provenance,
            "findings": [vars(finding) for finding in self.findings],
            "overflow": list(self.overflow),
            "bit_depth": {"asked_ms": self.asked_ms, "layers": self.bit_depth()},
            "placement": None if self.placement is None else self.placement.as_dict(),
            "run": None if self.run is None else self.run.as_dict(),
            "cost": None if self.run is None else self.run.cost.as_dict(),
            "sweep": None if self.sweep is None else self.sweep.as_dict(),
            "left_out": list(self.left_out),
        }


def _parameters(layer: Layer, dt_ms: float) -> dict[str, Any]:
    neuron = layer.neuron
    if not isinstance(neuron, Neuron):
        tau = time_constant_ms(neuron.decay, dt_ms)
        return {
            "vth": None, "du": neuron.decay, "dv": None, "tau_u_ms": tau, "tau_ms": None, "reset": "",
            "membrane_bits": None, "biased": layer.size,
        }  # fmt: skip
    return {
        "vth": neuron.vth,
        "du": span(neuron.du) if np.ndim(neuron.du) else neuron.du,
        "dv": span(neuron.dv) if np.ndim(neuron.dv) else neuron.dv,
        "tau_u_ms": time_constant_ms(neuron.du, dt_ms),
        "tau_ms": time_constant_ms(neuron.dv, dt_ms),
        "reset": neuron.reset,
        "membrane_bits": neuron.membrane_bits,
        "biased": int(np.count_nonzero(neuron.shifted_bias(layer.size))),
    }


def _synapses(where: str, synapse: Synapse) -> dict[str, Any]:
    present = synapse.weight != 0
    return {
        "synapses": where,
        "shape": list(synapse.shape),
        "present": int(present.sum()),
        "weight_min": int(synapse.weight.min()),
        "weight_max": int(synapse.weight.max()),
        "weight_exp": synapse.weight_exp,
        "delays": np.unique(synapse.delay[present]).tolist(),
    }


def recorded_findings(network: Network) -> list[str] | None:
    """What the export wrote down of the rules of its own profile, a line each; None: nothing is there.

    A file may hold anything: what is not a finding is shown as it is.
    """
    export = network.provenance.get("export")
    findings = export.get("findings") if isinstance(export, dict) else None
    if not isinstance(findings, list):
        return None
    lines = []
    for entry in findings:
        try:
            lines.append(str(Finding(**entry)))
        except TypeError:
            lines.append(str(entry))
    return lines


def lattice(network: Network) -> Figure:
    """The figure of the lattice that the delays were given by.

    Raises:
        InputError: the delays are not axonal, the seed is not known, or the delays do not grow with the
            distance from the centre of its lattice, so that they were given otherwise.
    """
    figure = activity.draw_lattice(network)
    _, delays = activity.axonal_delays(network)
    if np.any(np.diff(delays[outwards(lattice_positions(len(delays), network.provenance["seed"]))]) < 0):
        raise InputError("network", "its delays do not follow the lattice of its seed")
    return figure


def _extremes(network: Network, inputs: np.ndarray, on_samples: Callable[[int], None]) -> list[Extremes]:
    """Of all samples, some at a time."""
    parts = []
    for first in range(0, len(inputs), _PART):
        part = inputs[first : first + _PART]
        parts.append(extremes(network, part))
        on_samples(len(part))
    by_layer = zip(*parts, strict=True)
    return [Extremes(*map(np.concatenate, zip(*same, strict=True))) for same in by_layer]


def _run(
    network: Network,
    inputs: np.ndarray,
    profile: HardwareProfile,
    task: Task,
    words: str,
    on_samples: Callable[[int], None],
    placed: Placement | None,
) -> tuple[Run, list[str]]:
    samples, left_out = len(inputs), []
    evaluation = evaluate(network, task, samples, on_samples=on_samples)
    price = cost(network, inputs, profile, placed=placed)
    try:
        seen = activity.observe(network, inputs[:_WATCHED])
    except InputError as error:
        left_out.append(f"rasters and spectrum: {error}")
        seen = None
    return Run(words, evaluation, price, seen, min(samples, _WATCHED)), left_out


def gather(
    network: Network,
    profile: HardwareProfile,
    task: Task | None = None,
    words: str = "",
    samples: int = 32,
    on_samples: Callable[[int], None] | None = None,
) -> Report:
    """Examine a network; with a task, run it on its first samples.

    Args:
        words: the task as the report names it; or, without a task, why there is none.
        on_samples: called with a number of samples that are done, ``2 * samples`` in all.

    Raises:
        InputError: no samples, or a task that does not fit the network.
    """
    left_out = []
    try:
        placement = place(network, profile)
    except InputError as error:
        placement = None
        left_out.append(f"placement: {error}")
    run = seen = asked_ms = None
    if task is None:
        left_out.append(f"accuracy, observed extremes, cost and activity: {words or 'no task was given'}")
    else:
        if samples < 1:
            raise InputError("samples", f"{samples} is below 1")
        on_samples = on_samples or bar("running", 2 * samples) or (lambda n: None)
        inputs, _ = task.batch("test", 0, samples)
        run, missing = _run(network, inputs, profile, task, words, on_samples, placement)
        left_out += missing
        seen = _extremes(network, inputs, on_samples)
        asked_ms = task.steps * network.dt_ms
    return Report(
        network,
        profile,
        tuple(check(network, profile)),
        tuple(overflow.report(network, seen)),
        tuple(layer_memory(network)),
        placement,
        run,
        asked_ms,
        left_out=tuple(left_out),
    )
