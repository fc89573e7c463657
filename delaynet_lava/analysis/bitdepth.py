"""How long a membrane alone can hold a trace: the paper's section 2.1.1 and its Fig. 3.

Without recurrence a membrane that starts at the largest integer of n bits is below 1 after

    tau ln(2**n - 1)

at the latest (plus the step that is under way), however it rounds. What it really holds is less: each step
multiplies by ``exp(-dt / tau)`` and rounds down, and near the end that takes a whole unit a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from delaynet_lava.errors import InputError
from delaynet_lava.network import Network, Neuron, time_constant_ms
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BITS", "TAUS_MS", "LayerMemory", "SequenceLength", "draw", "layer_memory", "max_sequence_length"]

BITS = tuple(range(2, 25))
TAUS_MS = (5.0, 20.6, 100.0, 500.0, 2000.0)
MAX_BITS = 52


class SequenceLength(NamedTuple):
    """Longest sequences in ms, float64, of the broadcast shape of tau and bits."""

    bound: np.ndarray
    empirical: np.ndarray


def max_sequence_length(tau_ms: ArrayLike, bits: ArrayLike, dt_ms: float = 1.0) -> SequenceLength:
    """Longest trace that a membrane of n bits (unsigned) and a time constant can hold.

    The bound is ``tau ln(2**n - 1)``. The empirical length starts at ``2**n - 1``, multiplies by
    ``exp(-dt / tau)`` and rounds down at each step, and counts the steps until the value is below 1: at
    most the bound and one step more.

    Args:
        tau_ms: time constant, positive; bits: 1 to 52. Both broadcast.
        dt_ms: duration of a step.

    Raises:
        InputError: a value out of its range.
    """
    tau, width = np.broadcast_arrays(np.asarray(tau_ms, np.float64), np.asarray(bits))
    for where, good, problem in (
        ("tau", np.isfinite(tau) & (tau > 0), "is not positive"),
        ("bits", (width == np.rint(width)) & (width >= 1) & (width <= MAX_BITS), f"is not 1 to {MAX_BITS}"),
        ("dt", np.array(np.isfinite(dt_ms) and dt_ms > 0), "is not positive"),
    ):
        if not good.all():
            of = {"tau": tau, "bits": width, "dt": np.array(dt_ms)}[where]
            raise InputError(where, f"{of[~good].flat[0]} {problem}")
    largest = 2.0**width - 1
    steps = np.zeros(tau.size)
    left = np.arange(tau.size)
    value, factor = largest.ravel(), np.exp(-dt_ms / tau).ravel()
    while left.size:
        value = np.floor(value * factor)
        steps[left] += 1
        alive = value >= 1
        if not alive.all():
            left, value, factor = left[alive], value[alive], factor[alive]
    return SequenceLength(tau * np.log(largest), dt_ms * steps.reshape(tau.shape))


class LayerMemory(NamedTuple):
    """How long a layer's membrane alone can remember.

    Attributes:
        bits: of the magnitude; a signed word of n bits has n - 1.
        tau_ms, bound_ms, empirical_ms: infinite where the membrane does not decay.
    """

    layer: int
    tau_ms: float
    bits: int
    bound_ms: float
    empirical_ms: float


def layer_memory(network: Network) -> list[LayerMemory]:
    """One entry a layer of membranes, from their word and decay: of the slowest neuron where they differ."""
    found = []
    for k, layer in enumerate(network.layers):
        if not isinstance(layer.neuron, Neuron):
            continue
        dv, bits = layer.neuron.dv, layer.neuron.membrane_bits - 1
        tau = time_constant_ms(dv, network.dt_ms)
        if tau is None:
            found.append(LayerMemory(k, np.inf, bits, np.inf, np.inf))
        elif not tau:
            found.append(LayerMemory(k, 0.0, bits, 0.0, network.dt_ms))
        else:
            length = max_sequence_length(tau, bits, network.dt_ms)
            found.append(LayerMemory(k, tau, bits, float(length.bound), float(length.empirical)))
    return found


def draw(
    network: Network | None = None,
    asked_ms: float | None = None,
    taus_ms: tuple[float, ...] = TAUS_MS,
    bits: tuple[int, ...] = BITS,
) -> Figure:
    """Fig. 3: length over bits for several time constants, bound dashed, empirical solid.

    Args:
        network: its layers are marked where their membranes stand.
        asked_ms: how long the task asks to remember; a line across.
    """
    figure = new_figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    dt_ms = 1.0 if network is None else network.dt_ms
    lengths = max_sequence_length(np.array(taus_ms)[:, None], np.array(bits), dt_ms)
    for tau, colour, bound, empirical in zip(taus_ms, COLOURS, *lengths, strict=False):
        axes.plot(bits, bound, "--", color=colour, linewidth=1.2)
        axes.plot(bits, empirical, color=colour, linewidth=1.6, label=f"tau {tau:g} ms")
    axes.set_yscale("log")
    axes.set_xlabel("bits of the largest integer (a signed word has one more)")
    axes.set_ylabel("longest sequence (ms)")
    axes.set_title("What a membrane alone remembers: bound dashed, with rounding solid", loc="left")
    if asked_ms is not None:
        axes.axhline(asked_ms, color=GREY, linewidth=1.2, linestyle=":")
        text = f"the task: {asked_ms:g} ms"
        axes.text(bits[-1], asked_ms, text, color=GREY, ha="right", va="bottom")
    markers = "o^sDvP"
    for memory in [] if network is None else layer_memory(network):
        if 0 < memory.empirical_ms < np.inf:
            axes.plot(
                memory.bits,
                memory.empirical_ms,
                markers[memory.layer % len(markers)],
                color="black",
                markersize=8,
                linestyle="none",
                label=f"layer {memory.layer}: tau {memory.tau_ms:.1f} ms, {memory.empirical_ms:,.0f} ms",
            )
    axes.legend(frameon=False, fontsize=9)
    return figure
