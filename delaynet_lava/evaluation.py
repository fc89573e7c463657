"""Run a network on a task, batch by batch, and check one execution against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError, shown
from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.network import Network
from delaynet_lava.notebook import bar
from delaynet_lava.payloads import Payload
from delaynet_lava.tables import Table, notebook
from delaynet_lava.tasks.base import Task, require_samples
from delaynet_lava.trace import RECORDABLE, Comparison, Trace, scores

__all__ = [
    "BACKENDS",
    "SHOWN",
    "Evaluation",
    "Silence",
    "backend",
    "class_rows",
    "evaluate",
    "require_fit",
    "unwanted",
]

BACKENDS = ("emulator", "lava")
SHOWN = 12
"""Most classes for which a table has a column for each."""
_BATCH_BYTES = 256 << 20


@dataclass(frozen=True)
class Silence:
    """What an accuracy does not show: decisions without a reason. Zeros are what one expects.

    Attributes:
        samples: run in all.
        ties: samples in which several outputs are the largest, so that the first of them is taken.
        unanswered: samples without a spike of the last layer that spikes.
        readout_spikes: of neurons that are there to be read, but went beyond their threshold and were reset.
    """

    samples: int = 0
    ties: int = 0
    unanswered: int = 0
    readout_spikes: int = 0

    def __add__(self, other: Silence) -> Silence:
        return Silence(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @staticmethod
    def of(network: Network, trace: Trace) -> Silence:
        """Of a run of the network."""
        values = scores(network, trace)
        largest = values.max(axis=1, keepdims=True)
        spiking = [k for k, layer in enumerate(network.layers) if not layer.neuron.is_readout]
        quiet = np.count_nonzero(trace.spike_counts[spiking[-1]] == 0) if spiking else 0
        read = [k for k, layer in enumerate(network.layers) if layer.neuron.is_readout]
        return Silence(
            trace.batch,
            int(np.count_nonzero((values == largest).sum(axis=1) > 1)),
            int(quiet),
            sum(int(trace.spike_counts[k].sum()) for k in read),
        )

    def notes(self) -> list[str]:
        """A sentence for each number that is not zero."""
        said = []
        if self.unanswered:
            said.append(f"in {self.unanswered} of {self.samples} samples the last spiking layer never spiked")
        if self.ties:
            said.append(
                f"{self.ties} of {self.samples} decisions are ties, which the first class of equals wins"
            )
        if self.readout_spikes:
            said.append(
                f"readout neurons spiked {self.readout_spikes} times and were reset: their membranes went "
                "beyond vth << 6; lower their weights"
            )
        return said

    def as_dict(self) -> dict[str, int]:
        """Plain values, for JSON."""
        return {name: value for name, value in vars(self).items() if name != "samples"}


def class_rows(confusion: np.ndarray, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, a row a class: its samples, right ones, and what it was taken for.

    Args:
        confusion: whole numbers (classes, classes), samples by label and decision.
        names: of the classes.
    """
    columns = ["class", "samples", "right"]
    few = len(names) <= SHOWN
    columns += [f"as {name}" for name in names] if few else ["most often taken for"]
    rows = []
    for k, (name, row) in enumerate(zip(names, np.asarray(confusion), strict=True)):
        samples = int(row.sum())
        share = f"{100 * row[k] / samples:.2f} %" if samples else "-"
        if few:
            rest = [str(int(count)) for count in row]
        else:
            others = np.where(np.arange(len(row)) == k, 0, row)
            most = int(others.argmax())
            rest = [f"{names[most]} ({int(others[most])})" if others[most] else "-"]
        rows.append([f"label {name}", str(samples), share, *rest])
    return columns, rows


@dataclass
class Evaluation:
    """Figures of a run over samples; lists by layer hold one entry a layer, ``names`` one a class."""

    backend: str
    check: str | None
    samples: int
    steps: int
    decisions: np.ndarray
    labels: np.ndarray
    wall_s: float
    spikes: list[int]
    neurons: list[int]
    u_wraps: list[int]
    v_saturations: list[int]
    comparison: Comparison | None
    check_wall_s: float = 0.0
    silence: Silence = field(default_factory=Silence)
    names: list[str] = field(default_factory=list)

    @property
    def confusion(self) -> np.ndarray:
        """int64 (classes, classes), samples by label and decision."""
        classes = len(self.names)
        flat = np.bincount(self.labels * classes + self.decisions, minlength=classes**2)
        return flat.reshape(classes, classes)

    @property
    def right(self) -> int:
        """Right decisions."""
        return int(np.count_nonzero(self.decisions == self.labels))

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return self.right / self.samples

    @property
    def sample_steps_per_s(self) -> float:
        """Time steps run per second, over all samples."""
        return self.samples * self.steps / self.wall_s

    @property
    def spikes_per_neuron_step(self) -> list[float]:
        """Mean spikes of a neuron in a step, by layer."""
        return [s / (n * self.samples * self.steps) for s, n in zip(self.spikes, self.neurons, strict=True)]

    def __repr__(self) -> str:
        share = f"{self.right} of {self.samples} right, {100 * self.accuracy:.2f} %"
        return f"<Evaluation on {self.backend}: {share}>"

    def _repr_html_(self) -> str:
        by_layer = {
            "spikes per neuron and step": [f"{rate:.4f}" for rate in self.spikes_per_neuron_step],
            "u wraps": map(str, self.u_wraps),
            "v saturations": map(str, self.v_saturations),
        }
        rows = [(name, " / ".join(values)) for name, values in by_layer.items()]
        rows += [(name.replace("_", " "), str(count)) for name, count in self.silence.as_dict().items()]
        if self.comparison is not None:
            rows.append((f"compared with {self.check}", str(self.comparison)))
        tables = [Table(("", "value"), rows), Table(*class_rows(self.confusion, self.names))]
        return notebook(repr(self)[1:-1], tables)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "backend": self.backend,
            "check": self.check,
            "samples": self.samples,
            "accuracy": self.accuracy,
            "decisions": self.decisions.tolist(),
            "labels": self.labels.tolist(),
            "class_names": self.names,
            "confusion": self.confusion.tolist(),
            "steps": self.steps,
            "wall_s": self.wall_s,
            "sample_steps_per_s": self.sample_steps_per_s,
            "check_wall_s": self.check_wall_s,
            "spikes": self.spikes,
            "spikes_per_neuron_step": self.spikes_per_neuron_step,
            "u_wraps": self.u_wraps,
            "v_saturations": self.v_saturations,
            **self.silence.as_dict(),
            "mismatches": None if self.comparison is None else self.comparison.mismatches,
            "compared_integers": None if self.comparison is None else self.comparison.compared,
            "first_mismatch": None
            if self.comparison is None or self.comparison.first is None
            else str(self.comparison.first),
        }


def unwanted(network: Network, v_saturations: list[int]) -> list[int]:
    """Saturations by layer, but 0 for membranes of fewer bits, whose full scale is chosen to clip."""
    wide = (layer.neuron.membrane_bits == MEMBRANE_BITS for layer in network.layers)
    return [count if full else 0 for count, full in zip(v_saturations, wide, strict=True)]


def backend(name: str) -> Callable[..., Trace]:
    """The execution of that name, as a function like :func:`delaynet_lava.emulator.emulate`.

    Raises:
        InputError: unknown name. BackendMissing: it is not installed.
    """
    if isinstance(name, str) and name == "emulator":
        return emulate
    if isinstance(name, str) and name == "lava":
        from delaynet_lava.lava import run  # Intel's packages, only where asked for

        return run
    raise InputError("backend", f"{shown(name)} is not one of {list(BACKENDS)}")


def require_fit(network: Network, task: Task, where: str, labelled: bool = True) -> None:
    """Refuse a task that a network cannot run: its inputs, its labels.

    Args:
        where: how the message names the network.
        labelled: whether its labels matter.

    Raises:
        InputError: for that reason.
    """
    problems = []
    if task.channels != network.channels:
        problems.append(f"takes {network.channels} inputs, the task has {task.channels}")
    sent, taken = Payload(task.payload_bits, task.payload_signed), network.payload
    if sent.low < taken.low or sent.high > taken.high:
        problems.append(f"takes {taken}, the task sends {sent}")
    if not labelled:
        pass
    elif task.classes is None:
        problems.append(f"decides between {network.outputs} classes, the task has none")
    elif task.classes != network.outputs:
        problems.append(f"gives {network.outputs} outputs, the task has {task.classes} classes")
    if problems:
        raise InputError(
            where, f"{'; '.join(problems)} ({task.word})", "run it on the task it was trained for"
        )


def _states(network: Network) -> tuple[str, ...]:
    """What says all of a step: spikes and membranes, of cells i and h_s too."""
    cells = any(layer.neuron.kind == "src" for layer in network.layers)
    return RECORDABLE if cells else ("spikes", "voltage")


def _batch_size(network: Network, steps: int, recorded: bool) -> int:
    # Payloads lie as 32 bits each where they run, spikes as bytes at most.
    channels = network.channels * (4 + network.payload.dtype.itemsize if network.payload.bits else 1)
    widest = max(channels, *(layer.size for layer in network.layers))
    everything = channels + (4 * len(_states(network)) - 3) * sum(layer.size for layer in network.layers)
    return int(np.clip(_BATCH_BYTES // (steps * (everything if recorded else 2 * widest)), 1, 256))


def evaluate(
    network: Network,
    task: Task,
    samples: int,
    run_on: str = "emulator",
    check: str | None = None,
    on_samples: Callable[[int], None] | None = None,
    split: str = "test",
    on_trace: Callable[[np.ndarray, Trace], None] | None = None,
) -> Evaluation:
    """Run the first ``samples`` samples of a task; with ``check`` on a second backend too.

    The check compares spikes and membranes of every layer at every step, and all counters.

    Args:
        on_samples: called with the number of samples that are done since the last call.
        on_trace: called with the inputs and the trace of some samples at a time, everything recorded.

    Raises:
        InputError: no samples, or more than the task has; a task that does not fit the network; an
            unknown backend; an argument of another type.
        BackendMissing: a backend is not installed.
    """
    if not isinstance(network, Network):
        raise InputError("network", f"is of type {type(network).__name__}", "give a Network, as load returns")
    if not isinstance(task, Task):
        raise InputError(
            "task", f"is of type {type(task).__name__}", "give a Task, as delaynet_lava.task does"
        )
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError("samples", f"{shown(samples)} is not a whole number of at least 1")
    for name, call in (("on_samples", on_samples), ("on_trace", on_trace)):
        if call is not None and not callable(call):
            raise InputError(name, f"is of type {type(call).__name__}", "give a function, or None")
    require_fit(network, task, "network")
    require_samples(task, split, 0, samples := int(samples))
    main = backend(run_on)
    other = None if check is None else backend(check)
    if other is main:
        raise InputError("check", f"{check!r} is the backend itself", "name another one")
    on_samples = on_samples or bar("evaluating", samples)
    last = len(network.layers) - 1
    whole_record = other is not None or on_trace is not None
    record = _states(network) if whole_record else ()
    layers = None if whole_record else [last]
    size = _batch_size(network, task.steps, whole_record)
    # Lava takes seconds a sample and says when each is done; the emulator is done before that matters.
    watch: dict[str, Any] = {}
    if on_samples is not None and run_on == "lava":
        watch["progress"] = lambda done, of: on_samples(1)
    # The first call of a compiled kernel loads it; that is not part of a run's speed.
    emulate(network, np.zeros((1, 1, network.channels), np.uint8))
    decisions, labels, traces = [], [], []
    total, first, compared, check_wall = 0, None, 0, 0.0
    silence = Silence()
    for start in range(0, samples, size):
        count = min(size, samples - start)
        x, y = task.batch(split, start, count)
        if len(x) != count or len(y) != count:
            raise InputError(
                f"task {task.word}", f"gives {len(x)} inputs and {len(y)} labels, {count} were asked for"
            )
        trace = main(network, x, record=record, layers=layers, **watch)
        decisions.append(scores(network, trace).argmax(axis=1))
        silence += Silence.of(network, trace)
        labels.append(y)
        if other is not None:
            theirs = other(network, x, record=record, layers=layers)
            result = trace.compare(theirs)
            total += result.mismatches
            compared += result.compared
            check_wall += theirs.wall_s
            first = first or result.first
        if on_trace is not None:
            on_trace(x, replace(trace))
        for name in RECORDABLE:
            setattr(trace, name, {})
        traces.append(trace)
        if on_samples is not None and not watch:
            on_samples(len(y))
    whole = Trace.join(traces)
    return Evaluation(
        backend=run_on,
        check=check,
        samples=samples,
        steps=whole.steps,
        decisions=np.concatenate(decisions),
        labels=np.concatenate(labels),
        wall_s=whole.wall_s,
        spikes=[int(c.sum()) for c in whole.spike_counts],
        names=[task.describe(label) for label in range(network.outputs)],
        neurons=[layer.size for layer in network.layers],
        u_wraps=whole.u_wraps,
        v_saturations=whole.v_saturations,
        comparison=None if other is None else Comparison(total, compared, first),
        check_wall_s=check_wall,
        silence=silence,
    )
