"""Run a Network on Lava's CPU simulator in fixed point."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection

import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.lif.process import LIF

from delaynet_lava.errors import InputError
from delaynet_lava.lava import blocks
from delaynet_lava.lava.neurons import RecordingLIF, RecordingSRC, RecordingSubtractLIF, SubtractLIF
from delaynet_lava.lava.session import CLIPS, LOST, SPIKES, WRAPS, Clock, Feed, Record
from delaynet_lava.lava.simulation import Simulation, building
from delaynet_lava.lava.source import Source, SourceModel
from delaynet_lava.lava.src.process import SRC
from delaynet_lava.lava.synapses import FastDelayDense, FastDelayDenseFloat, load_loop
from delaynet_lava.network import Encoder, Network
from delaynet_lava.trace import RECORDABLE, Trace, check_inputs, recorded_layers, require_32_bits, with_tail

__all__ = ["MODELS", "run", "run_config"]

MODELS = ("fast", "stock")
_FAST_MODELS = {"fixed_pt": FastDelayDense, "floating_pt": FastDelayDenseFloat}

# What "fixed_pt" selects; given process by process it spares Lava's compiler the search, which
# executes every module beside that of a process, once for each process.
_SELECTED = {
    Source: SourceModel,
    Dense: PyDenseModelBitAcc,
    LIF: RecordingLIF,
    SubtractLIF: RecordingSubtractLIF,
    SRC: RecordingSRC,
    blocks.Input: blocks.InputModel,
    blocks.Dense: blocks.DenseModel,
    blocks.RecurrentDense: blocks.RecurrentDenseModel,
}


def run_config(models: str = "fast", select_tag: str = "fixed_pt") -> Loihi2SimCfg:
    """Run configuration for Lava's CPU simulator, for any graph of Lava processes.

    Args:
        models: "fast" runs ``DelayDense`` with :class:`FastDelayDense` or its counterpart in
            floating point, "stock" everything with Lava's own models. The integers are the same;
            for floats see :class:`FastDelayDenseFloat`.
        select_tag: Lava's word for the arithmetic, "fixed_pt" or "floating_pt". What this package
            builds of a network is in fixed point only.

    Raises:
        InputError: another word.
    """
    if models not in MODELS:
        raise InputError("models", f"{models!r} is not known", f"choose from {MODELS}")
    if select_tag not in _FAST_MODELS:
        raise InputError("select_tag", f"{select_tag!r} is not known", f"choose from {tuple(_FAST_MODELS)}")
    exceptions = {DelayDense: _FAST_MODELS[select_tag]} if models == "fast" else {}
    return Loihi2SimCfg(select_tag=select_tag, exception_proc_model_map=exceptions)


def run(
    network: Network,
    inputs: np.ndarray,
    record: Collection[str] = ("spikes",),
    layers: Collection[int] | None = None,
    models: str = "fast",
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Run a batch of inputs, one after the other, on Lava's fixed-point CPU models.

    The graph is compiled once. Between two samples it runs as many quiet steps as the longest lag
    has, with the neurons held in their initial state.

    Args:
        inputs: integers or bool (batch, steps, channels), as for :func:`delaynet_lava.emulate`.
        record: any of "spikes", "voltage", "current" and "slow" (:class:`Trace`); final voltages and counters
            are always kept.
        layers: indices of the layers to record (negative ones count from the end); None: all.
        models: "fast" or "stock", see :func:`run_config`.
        progress: called with the number of samples done and their total after each.

    Returns:
        The trace, equal to the emulator's integer by integer; ``wall_s`` leaves out compilation.

    Raises:
        InputError: inputs that the network does not take, an unknown thing to record, a delay
            beyond 62, or payloads whose sums could leave 32 bits.
        DelayNetError: one of Lava's processes failed.

    Warns:
        RuntimeWarning: a current went beyond ``3 * 2**23`` in one step, where Lava subtracts
            ``2**24`` only once and its current is no longer the chip's.
    """
    chosen = recorded_layers(network, record, layers)
    inputs = with_tail(network, check_inputs(network, inputs))
    require_32_bits(network, inputs)
    config = run_config(models)
    if models == "fast":
        load_loop()
    blocks.require_supported(network)
    batch, steps, _ = inputs.shape
    clock = Clock(steps, pause=_longest_lag(network))
    last = len(network.layers) - 1
    records = [
        Record(
            clock,
            layer.size,
            [name for name in record if k in chosen and (name != "slow" or layer.neuron.kind == "src")],
            layer.neuron.sends.dtype,
            decision=network.answer if k == last else None,
        )
        for k, layer in enumerate(network.layers)
    ]
    feed = _feed(network, clock)
    with building() as made:
        first = blocks.build_blocks(network, [{"record": kept} for kept in records])[0]
        source = Source(shape=first.inp.shape, feed=feed)
        source.s_out.connect(first.inp)
    selected = {DelayDense: FastDelayDense if models == "fast" else PyDelayDenseModelBitAcc, **_SELECTED}
    config.exception_proc_model_map.update({p: selected[type(p)] for p in made.processes})
    traces = []
    lost = np.zeros(len(records), np.int64)
    with Simulation(made, source, config) as simulation:
        for k, sample in enumerate(inputs):
            feed.values[:] = sample
            started = time.perf_counter()
            simulation.advance(steps + (clock.pause if k else 0))
            traces.append(_read(records, steps, time.perf_counter() - started))
            lost += [kept.counts[LOST] for kept in records]
            for kept in records:
                kept.clear()
            if progress is not None:
                progress(k + 1, batch)
    for layer in np.flatnonzero(lost):
        warnings.warn(
            f"layer {layer}: the current went beyond 3 * 2**23 in one step {lost[layer]} times; Lava wraps "
            "it once only, so it no longer is the current of the emulator and the chip; lower the weights",
            RuntimeWarning,
            stacklevel=2,
        )
    return Trace.join(traces)


def _longest_lag(network: Network) -> int:
    synapses = [s for layer in network.layers for s in (layer.synapse, layer.recurrent) if s is not None]
    return 1 + max((s.max_delay for s in synapses), default=0)


def _feed(network: Network, clock: Clock) -> Feed:
    first = network.layers[0]
    weight, bias = (first.weight, first.bias) if isinstance(first, Encoder) else (1, 0)
    return Feed(clock, network.channels, network.payload.dtype, weight, bias)


def _read(records: list[Record], steps: int, wall_s: float) -> Trace:
    """The trace of the sample that has just run."""
    return Trace(
        backend="lava",
        steps=steps,
        batch=1,
        final_voltage=[r.final[None].copy() for r in records],
        u_wraps=[int(r.counts[WRAPS]) for r in records],
        v_saturations=[int(r.counts[CLIPS]) for r in records],
        spike_counts=[r.counts[[SPIKES]] for r in records],
        **{
            name: {k: r.states[name][None].copy() for k, r in enumerate(records) if name in r.states}
            for name in RECORDABLE
        },
        scores=None if records[-1].scores is None else records[-1].scores[None].copy(),
        wall_s=wall_s,
    )
