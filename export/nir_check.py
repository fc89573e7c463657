"""How much a reading, and how much the rounding to integers, changes what a graph's network does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.export import float_layers
from delaynet_lava.export.float_layers import FloatLayer
from delaynet_lava.export.nir_import import CHOICES, Imported, import_nir
from delaynet_lava.formats.nir_graph import NeuralGraph
from delaynet_lava.network import Network
from delaynet_lava.trace import decide

__all__ = ["Difference", "against_floats", "compare_readings", "run_late"]


@dataclass(frozen=True, eq=False)
class Difference:
    """Two runs of the same samples, layer by layer.

    Attributes:
        name: of the other run.
        spikes, other: spikes by layer of the one and of the other.
        changed: places, (sample, step, neuron), with a spike in one alone, by layer.
        changed_per_step: the same by layer and step.
        membrane_error: root mean square by layer and step, in thresholds (readouts: in their largest
            membrane); empty where membranes are not of the same unit.
        decisions: samples decided otherwise.
        samples: number of samples.
        problem: why the other run can't be; empty where it could.
    """

    name: str
    spikes: list[int]
    other: list[int]
    changed: list[int]
    changed_per_step: list[list[int]]
    membrane_error: list[list[float]]
    decisions: int
    samples: int
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}: can't be run ({self.problem})"
        by_layer = " / ".join(
            f"{c} of {a} and {b}" for c, a, b in zip(self.changed, self.spikes, self.other, strict=True)
        )
        text = f"{self.name}: spikes in one run alone {by_layer} by layer"
        text += f", {self.decisions} of {self.samples} decisions"
        errors = [np.sqrt(np.mean(np.square(e))) for e in self.membrane_error]
        return text + (f", membranes {' / '.join(f'{e:.2g}' for e in errors)} rms" if errors else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))


def run_late(network: Network, inputs: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Spikes and membranes of every layer on the graph's time axis, and decisions.

    Layer k of a :class:`Network` is k + 1 steps late: it runs so many steps longer, on silence.
    """
    steps, extra = inputs.shape[1], len(network.layers)
    longer = np.pad(inputs, ((0, 0), (0, extra), (0, 0)))
    trace = emulate(network, longer, ("spikes", "voltage"))
    late = [slice(k + 1, k + 1 + steps) for k in range(extra)]
    spikes = [trace.spikes[k][:, at] for k, at in enumerate(late)]
    return spikes, [trace.voltage[k][:, at] for k, at in enumerate(late)], decide(network, trace)


def _float_decisions(network: Network, results: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    spikes, voltage = results[-1]
    kind = network.answer.kind
    if kind == "last":
        scores = voltage[:, -1]
    else:
        window = network.answer.within(0, spikes.shape[1])
        scores = (spikes if kind == "count" else voltage)[:, window].sum(axis=1, dtype=np.float64)
    grouped: np.ndarray = scores.reshape(len(scores), network.outputs, -1).sum(axis=2).argmax(axis=1)
    return grouped


def _difference(name: str, ours: list[np.ndarray], theirs: list[np.ndarray], decisions: int) -> Difference:
    changed = [a != b for a, b in zip(ours, theirs, strict=True)]
    return Difference(
        name,
        [int(a.sum()) for a in ours],
        [int(b.sum()) for b in theirs],
        [int(c.sum()) for c in changed],
        [c.sum(axis=(0, 2)).tolist() for c in changed],
        [],
        decisions,
        len(ours[0]),
    )


def against_floats(found: Imported, inputs: np.ndarray) -> Difference:
    """The integers beside the floats that they stand for, on the same samples.

    Args:
        inputs: uint8 (batch, steps, channels).
    """
    spikes, voltage, decisions = run_late(found.network, inputs)
    results = float_layers.run(found.layers, inputs)
    decided = int(np.count_nonzero(decisions != _float_decisions(found.network, results)))
    result = _difference("floats", spikes, [s for s, _ in results], decided)
    errors = []
    for k, (_, exact) in enumerate(results):
        unit = found.roundings[k].unit * 64
        layer: FloatLayer = found.layers[k]
        per = np.abs(exact).max() or 1.0
        if layer.threshold is not None:
            per = 1.0 if not found.roundings[k].exact else float(layer.threshold[0]) or 1.0
            exact = exact if found.roundings[k].exact else exact / layer.threshold
        errors.append(np.sqrt(np.mean((voltage[k] / unit - exact) ** 2, axis=(0, 2))) / per)
    return replace(result, membrane_error=[e.tolist() for e in errors])


def _alternatives(found: Imported) -> Iterator[tuple[str, dict[str, Any]]]:
    """Readings that nobody ruled out, one changed at a time."""
    for name, choices in CHOICES.items():
        if found.sources[name] == "no matter":
            continue
        for choice in choices:
            # Where the file gives the step, the unit changes what it is called, not what it does.
            if choice != getattr(found.readings, name) and not (
                name == "unit" and found.sources["dt_ms"] == "file"
            ):
                yield f"{name} {choice}", {name: choice}
    if found.sources["dt_ms"] == "default":
        assert found.readings.dt_ms is not None
        for factor in (10.0, 0.1):
            yield f"dt {found.readings.dt_ms * factor:g} ms", {"dt_ms": found.readings.dt_ms * factor}


def compare_readings(
    graph: NeuralGraph, found: Imported, given: frozenset[str], inputs: np.ndarray
) -> list[Difference]:
    """What each other reading changes, beside the one in use; each with integers of its own.

    Args:
        found: of :func:`import_nir`, under the readings in use.
        given: names of readings that the user chose.
        inputs: uint8 (batch, steps, channels).
    """
    spikes, _, decisions = run_late(found.network, inputs)
    results = []
    for name, change in _alternatives(found):
        try:
            # The step stays what it is, whatever else is read differently.
            fixed = {"dt_ms": found.readings.dt_ms} if found.sources["dt_ms"] != "default" else {}
            asked = replace(found.readings, **{**fixed, **change})
            other = import_nir(graph, asked, given | set(change) | set(fixed) | {"dt_ms"})
        except InputError as error:
            results.append(Difference(name, [], [], [], [], [], 0, len(inputs), str(error)))
            continue
        theirs, _, decided = run_late(other.network, inputs)
        results.append(_difference(name, spikes, theirs, int(np.count_nonzero(decisions != decided))))
    return results
