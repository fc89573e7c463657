"""What a network does: its delays in space, its spikes, and the frequencies they hold (Figs. 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network
from delaynet_lava.nn.lattice import lattice_positions
from delaynet_lava.pictures import COLOURS, GREY, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Activity", "axonal_delays", "draw_activity", "draw_lattice", "observe"]

HIGHEST_HZ = 100.0


def axonal_delays(network: Network) -> tuple[int, np.ndarray]:
    """Number of the recurrent layer, and int64 (neurons,): the delay with which each neuron sends.

    Raises:
        InputError: no recurrent layer, or neurons that send to it with several delays.
    """
    for k, layer in enumerate(network.layers):
        if isinstance(layer, Dense) and layer.recurrent is not None:
            there = layer.recurrent.weight != 0
            delay = layer.recurrent.delay.astype(np.int64)
            largest = np.where(there, delay, 0).max(axis=0)
            if np.any(there & (delay != largest)):
                raise InputError(f"layer {k}", "delays differ within a sending neuron; they are not axonal")
            return k, largest
    raise InputError("network", "has no recurrent layer, and so no axonal delays")


def draw_lattice(network: Network) -> Figure:
    """The recurrent neurons on the lattice that their delays were given by, coloured by lag.

    Raises:
        InputError: the file does not say from which seed the lattice was drawn.
    """

    _, delays = axonal_delays(network)
    seed = network.provenance.get("seed")
    if not isinstance(seed, int):
        raise InputError("network", "its provenance has no seed, so its lattice is not known")
    x, y, z = lattice_positions(len(delays), seed).T
    figure = new_figure(figsize=(6.4, 5.6), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    for lag, colour in zip(np.unique(delays) + 1, COLOURS * 9, strict=False):
        of_group = delays == lag - 1
        share = f"{lag * network.dt_ms:g} ms ({int(of_group.sum())} neurons)"
        axes.scatter(x[of_group], y[of_group], z[of_group], s=46, color=colour, depthshade=True, label=share)
    axes.legend(title="lag", fontsize=9, frameon=False, loc="upper left")
    for name in "xyz":
        getattr(axes, f"set_{name}label")(name)
    return figure


@dataclass(frozen=True)
class Activity:
    """Spikes of one sample, and the spectrum of the recurrent layer's spike rate over several.

    Attributes:
        inputs, hidden: uint8 (steps, channels) and (steps, neurons), the first sample.
        delays: int64 (neurons,).
        frequency: float64, Hz. power: mean over samples of ``|F(n - mean n)|^2``, n the spikes a step.
        dt_ms: duration of a step.
    """

    inputs: np.ndarray
    hidden: np.ndarray
    delays: np.ndarray
    frequency: np.ndarray
    power: np.ndarray
    dt_ms: float


def observe(network: Network, inputs: np.ndarray) -> Activity:
    """Run a network on samples and look at its recurrent layer.

    Args:
        inputs: uint8 (samples, steps, channels).
    """
    layer, delays = axonal_delays(network)
    fired = emulate(network, inputs, record=("spikes",), layers=[layer]).spikes[layer] != 0
    hidden = fired.astype(np.uint8)
    population = hidden.sum(axis=2, dtype=float)
    centred = population - population.mean(axis=1, keepdims=True)
    power = (np.abs(np.fft.rfft(centred, axis=1)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(population.shape[1], network.dt_ms / 1000)
    return Activity(inputs[0], hidden[0], delays, frequency, power, network.dt_ms)


def draw_activity(activity: Activity, samples: int) -> Figure:
    """Input raster, hidden raster by delay, and the spectrum with the delays' frequencies marked."""
    figure = new_figure(figsize=(8.4, 8.4), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=(1, 2.2, 1.5))
    for axes in (top, middle, bottom):
        bare(axes)
    step, channel = np.nonzero(activity.inputs)
    top.scatter(step * activity.dt_ms, channel, s=1.2, color=GREY, linewidths=0)
    top.set_ylabel("input")
    order = np.argsort(activity.delays, kind="stable")
    lags = np.unique(activity.delays) + 1
    step, row = np.nonzero(activity.hidden[:, order])
    colour_of = dict(zip(lags.tolist(), COLOURS * 9, strict=False))
    colours = [colour_of[lag] for lag in (activity.delays[order][row] + 1).tolist()]
    middle.scatter(step * activity.dt_ms, row, s=1.2, c=colours, linewidths=0)
    middle.set_ylabel("neuron, by lag")
    middle.set_xlabel("ms")
    middle.sharex(top)
    shown = (activity.frequency > 0) & (activity.frequency <= HIGHEST_HZ)
    bottom.semilogy(activity.frequency[shown], activity.power[shown], color=GREY, lw=0.9)
    for lag in lags[lags * activity.dt_ms > 2 * 1000 / HIGHEST_HZ].tolist():
        base = 1000 / (lag * activity.dt_ms)
        for k in range(1, int(HIGHEST_HZ / base) + 1):
            label = f"1 / {lag * activity.dt_ms:g} ms and harmonics" if k == 1 else None
            bottom.axvline(k * base, color=colour_of[lag], lw=1.4 if k == 1 else 0.7, alpha=0.7, label=label)
    bottom.set_xlabel("Hz")
    bottom.set_ylabel(f"power, {samples} samples")
    if bottom.get_legend_handles_labels()[0]:
        bottom.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
