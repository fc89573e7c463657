"""Other people's NIR graphs as a :class:`Network`, and what had to be assumed for it.

NIR's equations are of continuous time:

    tau_syn dI/dt = -I + w_in S        tau_mem dv/dt = v_leak - v + r I        a spike where v > v_threshold

How a step is taken of them, each framework decides for itself. Every choice is an attribute of
:class:`Readings`: read from the file where it says so, else a default, and always in the report.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.decision import Decision
from delaynet_lava.errors import InputError
from delaynet_lava.export.float_layers import FloatLayer, Rounding, quantise
from delaynet_lava.export.populations import NEURONS, Population, Way, stack
from delaynet_lava.formats import nir_graph
from delaynet_lava.formats.nir_graph import NeuralGraph
from delaynet_lava.network import Network

__all__ = ["CHOICES", "DEFAULTS", "Imported", "NirWarning", "Readings", "from_nir", "import_nir"]

CHOICES = {
    "unit": ("s", "ms"),
    "order": ("new", "old"),
    "decay": ("euler", "exponential"),
    "reset": ("zero", "subtract"),
    "loop": ("implicit", "explicit"),
}
DEFAULTS = {"unit": "s", "order": "new", "decay": "euler", "reset": "zero", "loop": "implicit"}
_MEANING = {
    ("unit", "s"): "times of the graph are seconds",
    ("unit", "ms"): "times of the graph are milliseconds",
    ("order", "new"): "a membrane takes the current of the same step",
    ("order", "old"): "a membrane takes the current of the step before",
    ("decay", "euler"): "a step keeps 1 - dt/tau",
    ("decay", "exponential"): "a step keeps exp(-dt/tau)",
    ("reset", "zero"): "a spike sets the membrane to 0",
    ("reset", "subtract"): "a spike takes the threshold off the membrane",
    ("loop", "implicit"): "a loop takes one step more than its Delay says",
    ("loop", "explicit"): "a loop takes as long as its Delay says",
}
DEFAULT_DT_MS = 0.1
_SAME = 1e-5
_NO_MATTER = "no matter"


class NirWarning(UserWarning):
    """Something was assumed of a graph that its file does not say, or that NIR can't say was left out."""


@dataclass(frozen=True)
class Readings:
    """How the continuous equations become steps.

    Attributes:
        unit: of the graph's times, "s" (most frameworks) or "ms".
        dt_ms: length of a step; None: ``tau_mem / r`` and ``tau_syn / w_in`` where all nodes agree on it
            (the convention of snnTorch's and our files), else 0.1.
        order: "new": ``v[t]`` takes ``I[t]`` (Lava, snnTorch); "old": ``I[t - 1]`` (NIR's reference script).
        decay: "euler": a step keeps ``1 - dt/tau`` and adds ``dt/tau`` of its input; "exponential": it keeps
            ``exp(-dt/tau)`` and adds the rest.
        reset: "zero" or "subtract".
        loop: "implicit": a spike comes back one step after its loop's Delay; "explicit": just then.

    Raises:
        InputError: a value that is not among :data:`CHOICES`, a step that is not positive.
    """

    unit: str = DEFAULTS["unit"]
    dt_ms: float | None = None
    order: str = DEFAULTS["order"]
    decay: str = DEFAULTS["decay"]
    reset: str = DEFAULTS["reset"]
    loop: str = DEFAULTS["loop"]

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(name, f"is {getattr(self, name)!r}", f"choose from: {', '.join(choices)}")
        if self.dt_ms is not None and not (np.isfinite(self.dt_ms) and self.dt_ms > 0):
            raise InputError("dt_ms", f"is {self.dt_ms}, expected more than 0")


@dataclass(frozen=True, eq=False)
class Imported:
    """A graph that was read.

    Attributes:
        network: the integers.
        layers: the numbers that they stand for, by layer.
        readings: those in use; ``dt_ms`` is filled in.
        sources: for each reading "file", "option" or "default".
        roundings: what quantising did, by layer.
        notes: what was left out, rounded or moved.
    """

    network: Network
    layers: list[FloatLayer]
    readings: Readings
    sources: dict[str, str]
    roundings: list[Rounding]
    notes: list[str] = field(default_factory=list)

    @property
    def assumed(self) -> list[str]:
        """Readings that nobody gave, in words."""
        return [text for name, text in self._said() if self.sources[name] == "default"]

    def _said(self) -> list[tuple[str, str]]:
        texts = [("dt_ms", f"a step lasts {self.readings.dt_ms:.6g} ms")]
        return texts + [(name, _MEANING[name, getattr(self.readings, name)]) for name in CHOICES]

    def lines(self) -> list[str]:
        """The report, a line a fact."""
        said = [f"{text} ({name}: {self.sources[name]})" for name, text in self._said()]
        return [*said, *map(str, self.roundings), *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "readings": vars(self.readings),
            "sources": self.sources,
            "layers": [rounding.as_dict() for rounding in self.roundings],
            "notes": self.notes,
        }


def import_nir(
    source: Any, readings: Readings | None = None, given: frozenset[str] = frozenset(), max_exponent: int = 7
) -> Imported:
    """The network of a NIR graph.

    Args:
        source: path of a ``graph.nir``, a :class:`NeuralGraph`, or a ``nir.NIRGraph``.
        readings: see there; None: the defaults.
        given: names of readings that the user chose, which then count before those of the file.
        max_exponent: largest exponent of weights; 0 for a ``model.pt``.

    Raises:
        InputError: a file that can't be read, a node that can't be run, or a reading that does not fit.
    """
    graph = source if isinstance(source, NeuralGraph) else _graph(source)
    used, sources = _readings(graph, readings or Readings(), given)
    assert used.dt_ms is not None
    dt = used.dt_ms * (1e-3 if used.unit == "s" else 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # found and refused by _layer
        shape, populations, notes = stack(graph, dt)
    hints = graph.metadata.get("layers")
    if not isinstance(hints, list) or len(hints) != len(populations):
        hints = [{}] * len(populations)
    if sources["loop"] == "default" and all(p.loop is None for p in populations):
        sources["loop"] = _NO_MATTER
    layers, made, roundings = [], [], []
    for population, hint in zip(populations, hints, strict=True):
        hint = hint if isinstance(hint, dict) else {}
        # A readout's only matters where its membrane saturates, which is when it spikes after all.
        own = used if "v_threshold" in population.values else replace(used, reset="zero")
        if _says_reset(hint, sources):
            own = replace(used, reset=str(hint["reset"]))
        with np.errstate(over="ignore", invalid="ignore"):
            layer = _layer(graph, population, own, dt, notes)
        layers.append(layer)
        where = f"{graph.where}: node {population.name!r}"
        try:
            dense, rounding = quantise(layer, hint, max_exponent)
        except InputError as error:
            raise InputError(
                error.where if error.where.startswith(graph.where) else f"{where}: {error.where}",
                error.problem, error.remedy,
            ) from error  # fmt: skip
        made.append(dense)
        roundings.append(rounding)
    if any(np.any(layer.bias_u) or np.any(layer.bias_v) for layer in layers):
        notes.append("biases act from the first step of the network, before the first input arrives")
    if not populations[-1].kind:
        notes.append("the output has no neurons: a readout that forgets at once stands for it")
    notes.append(f"outputs come {len(made)} steps later than in the graph, one a layer")
    kinds = {"task": str, "profile": str, "provenance": dict}
    kept = {k: v for k, v in graph.metadata.items() if k in kinds and isinstance(v, kinds[k])}
    average = graph.metadata.get("average")
    decision = graph.metadata.get("decision")
    network = Network(
        tuple(made),
        shape if len(shape) == 1 else (),
        average=average if isinstance(average, int) else None,
        dt_ms=used.dt_ms,
        decision=Decision.parse(decision) if isinstance(decision, str) else None,
        **kept,
    )
    return Imported(network, layers, used, sources, roundings, notes)


def from_nir(source: Any, **readings: Any) -> Network:
    """The network of a NIR graph; what the file does not say is assumed, and said in a warning.

    Args:
        source: path of a ``graph.nir``, or a ``nir.NIRGraph``.
        readings: attributes of :class:`Readings`, by name.

    Raises:
        InputError: a file that can't be read, a node that can't be run, or no such reading.

    Warns:
        NirWarning: what was assumed, rounded or left out.
    """
    unknown = sorted(set(readings) - set(vars(Readings())))
    if unknown:
        raise InputError("readings", f"has no {unknown[0]!r}", f"choose from: {', '.join(vars(Readings()))}")
    found = import_nir(source, Readings(**readings), frozenset(readings))
    rounded = [str(rounding) for rounding in found.roundings if not rounding.exact]
    for text in (*(f"assumed: {text}" for text in found.assumed), *rounded, *found.notes[:-1]):
        warnings.warn(text, NirWarning, stacklevel=2)
    return found.network


def _graph(source: Any) -> NeuralGraph:
    if isinstance(source, (str, os.PathLike)):
        return nir_graph.read(source)
    return nir_graph.from_object(source)


def _says_reset(hint: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
    return sources["reset"] == "file" and hint.get("reset") in CHOICES["reset"]


def _readings(graph: NeuralGraph, asked: Readings, given: frozenset[str]) -> tuple[Readings, dict[str, str]]:
    """The readings in use and where each comes from: the user, the file, or a default."""
    found: dict[str, Any] = {}
    said = graph.metadata.get("readings")
    if isinstance(said, dict):
        found = {k: said[k] for k in CHOICES if said.get(k) in CHOICES[k]}
    unit = asked.unit if "unit" in given else found.get("unit", asked.unit)
    dt = _step(graph)
    if dt is not None:
        found["dt_ms"] = dt * (1e3 if unit == "s" else 1.0)
    stated = graph.metadata.get("dt_ms")
    if not (isinstance(stated, (int, float)) and np.isfinite(stated) and stated > 0):
        stated = None
    if stated is not None and (dt is None or abs(found["dt_ms"] / stated - 1) < _SAME):
        # The same number, if nobody scaled the graph, without the rounding of a quotient.
        found["dt_ms"] = float(stated)
    kinds = {node.kind for node in graph.nodes.values()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in vars(asked):
        if name in given:
            values[name], sources[name] = getattr(asked, name), "option"
        elif name in found:
            values[name], sources[name] = found[name], "file"
        else:
            values[name], sources[name] = getattr(asked, name), "default"
    if values["dt_ms"] is None:
        values["dt_ms"] = DEFAULT_DT_MS
    if not kinds & {"CubaLIF", "CubaLI"} and sources["order"] == "default":
        sources["order"] = _NO_MATTER
    if not kinds & {"LIF", "CubaLIF"} and sources["reset"] == "default":
        sources["reset"] = _NO_MATTER
    return Readings(**values), sources


def _step(graph: NeuralGraph) -> float | None:
    """The step on whose gain all nodes agree: ``tau / r`` and ``tau_syn / w_in`` are one number."""
    quotients = []
    scaled = False
    for node in graph.nodes.values():
        names = [("tau", "r"), ("tau_mem", "r"), ("tau_syn", "w_in")] if node.kind in NEURONS else []
        for tau, gain in names:
            if tau in node.values and gain in node.values:
                values = np.asarray(node.values[tau], np.float64) / np.asarray(node.values[gain], np.float64)
                quotients.append(np.ravel(values))
                scaled |= bool(np.any(np.asarray(node.values[gain]) != 1))
    if not quotients:
        return None
    every = np.concatenate(quotients)
    # Gains of 1 throughout are what a framework writes that has none: they say nothing of a step.
    if not scaled or not np.isfinite(every).all() or every.min() <= 0:
        return None
    return float(every[0]) if np.ptp(every) <= _SAME * every[0] else None


def _kept(tau: np.ndarray, dt: float, decay: str) -> np.ndarray:
    return 1 - dt / tau if decay == "euler" else np.exp(-dt / tau)


def _layer(
    graph: NeuralGraph, population: Population, readings: Readings, dt: float, notes: list[str]
) -> FloatLayer:
    """The difference equations of one node, every gain in the weights."""
    values, size, kind = population.values, population.size, population.kind
    name = population.name
    if not kind:
        values = {"tau": np.full(size, dt), "r": np.ones(size), "v_leak": np.zeros(size)}
    tau_mem = values["tau_mem"] if "tau_mem" in values else values["tau"]
    tau_syn = values.get("tau_syn", np.full(size, dt))
    for label, tau in (("tau_mem" if "tau_mem" in values else "tau", tau_mem), ("tau_syn", tau_syn)):
        if kind and readings.decay == "euler" and tau.min() < dt * (1 - _SAME):
            raise graph.refuse(
                name, f"{label} is {tau.min():.6g}, less than the step of {dt:.6g}, with which Euler's step "
                "swings", "give a shorter dt, the other unit, or decay exponential",
            )  # fmt: skip
    cuba = "tau_syn" in values
    keep_v = _kept(tau_mem, dt, readings.decay) if kind else np.zeros(size)
    keep_u = _kept(tau_syn, dt, readings.decay) if cuba else np.zeros(size)
    # tau = dt, up to the rounding of a quotient, forgets all.
    keep_u, keep_v = (np.where(np.abs(k) < 1e-9, 0.0, k) for k in (keep_u, keep_v))
    gain_v = (1 - keep_v) * values["r"]
    gain_u = (1 - keep_u) * values["w_in"] if cuba else np.ones(size)
    gain = gain_u * gain_v
    gain = np.where(np.abs(gain - 1) < _SAME, 1.0, gain)
    for label, keep in (("membrane", keep_v), ("current", keep_u)):
        slow = fx.DECAY_ONE * (1 - keep)
        if np.any(slow < 0.5) and np.any(slow > 1e-6):
            notes.append(
                f"node {name!r} ({kind}): its {label} loses {slow.min():.2g} of 4096 in a step, which rounds "
                "to nothing; are the unit and the step right?"
            )
    loop = population.loop
    if loop is not None and readings.loop == "explicit":
        if np.any((loop.delay < 1) & (loop.weight != 0)):
            raise graph.refuse(
                name, "has a loop without a Delay of a step or more", "read it with loop implicit"
            )
        loop = Way(loop.weight, np.maximum(loop.delay - 1, 0))
    leak = (1 - keep_v) * values["v_leak"]
    bias = population.bias * gain
    weights = [gain[:, None] * way.weight for way in (population.forward, loop) if way is not None]
    if not all(np.isfinite(array).all() for array in (*weights, bias, leak)):
        raise graph.refuse(
            name, "multiplies out to numbers beyond float64", "scale its weights and gains down"
        )
    return FloatLayer(
        name=name,
        weight=weights[0],
        delay=population.forward.delay,
        weight_rec=None if loop is None else weights[1],
        delay_rec=None if loop is None else loop.delay,
        keep_u=keep_u,
        keep_v=keep_v,
        bias_u=bias,
        bias_v=leak,
        threshold=values.get("v_threshold"),
        reset=readings.reset,
        late=cuba and readings.order == "old",
    )
