"""How close each part of a training step comes to what the machine can do.

A compiled loop is held against the larger of two times: that of its products of matrices, at the rate that
the BLAS reaches at products of the same shape, and that of the numbers it has to read and write, each once,
at the rate at which memory is copied.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from delaynet_lava.bench.harness import Figure, Job, LeftOut, Work, measure
from delaynet_lava.bench.ratios import sizes_of
from delaynet_lava.bench.shapes import SHAPES
from delaynet_lava.bench.subject import Subject, calibrated, inputs_and_labels, made, probe, stack
from delaynet_lava.bench.training import step_of
from delaynet_lava.kernels.events import padded
from delaynet_lava.kernels.factored import pays
from delaynet_lava.kernels.threads import Threads
from delaynet_lava.kernels.vectors import BLOCK
from delaynet_lava.network import Network

__all__ = ["LIMITED", "Limits", "Part", "measure_limits", "workload"]

LIMITED = tuple(SHAPES)
"""Shapes whose parts are known."""

COPIED_MIB, TRIES = 256, 5
_FLOAT = 4


@dataclass(frozen=True)
class Part:
    """A part of a step.

    Attributes:
        seconds: median. gflop: of products of matrices. mib: that have to be read and written.
        bound_s: what the machine needs for these; 0: not known.
    """

    name: str
    seconds: float
    gflop: float
    mib: float
    bound_s: float


@dataclass(frozen=True)
class Limits:
    """What a run found.

    Attributes:
        step_s: median of the whole step; parts: its compiled loops, in their order, and the rest.
        gflops: of products by the BLAS. mib_s: copied, read and written both counted.
        summary: of the network. rate: spikes of a hidden neuron in a step.
    """

    step_s: float
    parts: list[Part]
    gflops: float
    mib_s: float
    summary: str
    rate: float

    @property
    def bound_s(self) -> float:
        """What the machine needs for all parts, one after the other."""
        return sum(part.bound_s for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@contextlib.contextmanager
def _recorded() -> Iterator[list[tuple[str, float]]]:
    """Which compiled loops were run, in their order, and how long each took, seconds."""
    seen: list[tuple[str, float]] = []
    plain = Threads.run

    def timed(threads: Threads, loop: Any, number: int, *arguments: Any) -> None:
        started = time.perf_counter()
        plain(threads, loop, number, *arguments)
        seen.append((loop.py_func.__name__, time.perf_counter() - started))

    Threads.run = timed  # type: ignore[assignment,method-assign]
    try:
        yield seen
    finally:
        Threads.run = plain  # type: ignore[method-assign]


def _work(network: Network, cells: int, x: np.ndarray) -> dict[str, list[tuple[str, float, float]]]:
    """By the name of a loop, for each of its calls in a step: its part, GFLOP and MiB.

    Args:
        cells: samples times steps.
    """
    hidden, readout = stack(network)
    layers = [layer for layer, _ in hidden] + [readout]
    # Numbers of a step's gradient of what each layer takes; the readout's is a factor where that is less.
    handed = [0, *(layer.size for layer, _ in hidden), 0]
    if pays(readout.size, handed[-2]):
        handed[-2] = readout.size
    forward: list[tuple[str, float, float]] = []
    backward: list[tuple[str, float, float]] = []
    for k, layer in enumerate(layers):
        last, inputs = k == len(layers) - 1, layer.synapse.weight.shape[1]
        name = "readout" if last else "hidden layer" if len(layers) == 2 else f"hidden layer {k + 1}"
        membranes = _FLOAT * cells * padded(layer.size)
        forward.append((f"{name}, forward", 0.0, membranes / 2**20))
        columns = 0 if last else -(-layer.size // BLOCK) * BLOCK
        flops = 2 * cells * layer.size * (columns + (inputs if k else 0))
        moved = membranes + _FLOAT * cells * (handed[k] + handed[k + 1])
        backward.insert(0, (f"{name}, backward", flops / 1e9, moved / 2**20))
    packed = [("inputs packed", 0.0, x.nbytes / 2**20)]
    of_readout, *of_hidden = backward
    return {
        "_pack_by_step": packed, "run_layer": forward, "filter_back": [of_readout],
        "backward_segment": of_hidden,
    }  # fmt: skip


def _best_s(run: Callable[[], Any]) -> float:
    """Of a few runs."""
    best = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def _gflops(rows: int, size: int) -> float:
    """Of float32 (rows, size) times (size, size)."""
    left, right = torch.rand(rows, size), torch.rand(size, size)
    return 2 * rows * size**2 / _best_s(lambda: torch.mm(left, right)) / 1e9


def _mib_s() -> float:
    """Copied, read and written both counted."""
    here = torch.rand(COPIED_MIB << 18)
    there = torch.empty_like(here)
    return 2 * COPIED_MIB / _best_s(lambda: there.copy_(here))


def workload(subject: dict[str, Any], samples: int, steps: int) -> Work:
    """A training step whose facts are its parts; see :class:`Limits`."""
    inputs, labels = inputs_and_labels(subject, "task", samples, steps)
    network = made(subject, inputs, None)
    step = step_of(network, inputs, labels)
    runs: list[tuple[float, list[tuple[str, float]]]] = []

    def run() -> None:
        with _recorded() as seen:
            started = time.perf_counter()
            step.run()
            runs.append((time.perf_counter() - started, seen))

    def facts() -> dict[str, Any]:
        largest = max(layer.size for layer, _ in stack(network)[0])
        gflops, mib_s = _gflops(samples * steps, largest), _mib_s()
        work = _work(network, samples * steps, inputs)
        # The first runs compile, or have another number of threads.
        kept = runs[len(runs) // 2 :]
        step_s = float(np.median([whole for whole, _ in kept]))
        names = [name for name, _ in kept[-1][1]]
        each = np.median([[seconds for _, seconds in seen] for _, seen in kept], axis=0)
        parts = []
        for name, seconds in zip(names, each.tolist(), strict=True):
            known = work.get(name, [])
            what, gflop, mib = known.pop(0) if known else (name.strip("_").replace("_", " "), 0.0, 0.0)
            parts.append(Part(what, seconds, gflop, mib, max(gflop / gflops, mib / mib_s)))
        parts.append(Part("everything else", step_s - float(each.sum()), 0.0, 0.0, 0.0))
        found = Limits(step_s, parts, gflops, mib_s, network.summary(), step.facts()["rate"])
        return {**step.facts(), "limits": found.as_dict()}

    return Work(run, samples * steps, facts)


def measure_limits(shape: str, quick: bool = False) -> Limits | LeftOut:
    """Measure the parts of a training step of one of :data:`LIMITED`, in a process of its own."""
    sizes = sizes_of(shape, quick)
    subject = Subject(shape=shape)
    subject, _ = calibrated(subject, probe(subject, min(16, sizes.emulator_samples), sizes.train_steps)[0])
    options = {"subject": subject.options(), "samples": sizes.train_samples, "steps": sizes.train_steps}
    job = Job("limits", "limits", options, {}, sizes.repeats, sizes.fill_s)
    (found,) = measure([job])
    if not isinstance(found, Figure):
        return found
    held = found.facts["limits"]
    return Limits(**{**held, "parts": [Part(**part) for part in held["parts"]]})
