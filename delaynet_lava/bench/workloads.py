"""What is measured of whole executions: the emulator, and Lava's simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from delaynet_lava.bench.harness import Work
from delaynet_lava.bench.subject import Subject, inputs_and_labels, made, parts, task_inputs
from delaynet_lava.emulator import emulate
from delaynet_lava.network import Network, Synapse
from delaynet_lava.trace import Trace

__all__ = ["emulator", "lava"]


def emulator(
    subject: dict[str, Any], samples: int, steps: int, inputs: str = "task", rate: float | None = None
) -> Work:
    """The emulator over a batch, for the membranes after the last step."""
    x, _ = inputs_and_labels(subject, inputs, samples, steps)
    network = made(subject, x, rate)
    traces: list[Trace] = []

    def run() -> None:
        traces[:] = [emulate(network, x, record=())]

    def facts() -> dict[str, Any]:
        (trace,) = traces
        spikes = sum(int(counts.sum()) for counts in trace.spike_counts[:-1])
        return {
            "rate": spikes / (samples * steps * sum(layer.size for layer in network.layers[:-1])),
            "spikes": spikes,
            "overflows": sum(trace.u_wraps) + sum(trace.v_saturations),
        }

    return Work(run, samples * steps, facts)


def undelayed(network: Network) -> Network:
    """The same network with every spike on the fastest path."""
    hidden, back, readout = parts(network)
    fast = Synapse(back.weight, weight_exp=back.weight_exp)
    return network.with_(layers=(replace(hidden, recurrent=fast), readout))


def lava(subject: dict[str, Any], steps: int, models: str, delayed: bool = True) -> Work:
    """Steps of Lava's simulator on the processes that NetX makes, compiled and started before.

    The input is a sample of the task, from a ring buffer of Lava's, and each run goes on where
    the one before ended; nothing is recorded. Afterwards the membranes must be those of the emulator
    over all the steps that were run.

    Args:
        steps: of one run.
        models: "fast" or "stock", see :func:`delaynet_lava.lava.run_config`.
        delayed: False makes the recurrent synapse a plain Dense.
    """
    # Before Lava's own modules: it keeps one of them from failing where it sets how processes start.
    import delaynet_lava.lava as simulator  # isort: skip
    from lava.magma.core.run_conditions import RunSteps
    from lava.proc.io.source import RingBuffer

    x, _ = task_inputs(1, word=Subject.of(subject).word)
    network = Subject.of(subject).network()
    if not delayed:
        network = undelayed(network)
    graph = simulator.Network(network)
    source = RingBuffer(data=x[0].T.astype(np.int32))
    source.s_out.connect(graph.inp)
    config, condition = simulator.run_config(models), RunSteps(num_steps=steps)
    runs = 0

    def run() -> None:
        nonlocal runs
        source.run(condition=condition, run_cfg=config)
        runs += 1

    def facts() -> dict[str, Any]:
        simulated = [np.asarray(block.neuron.v.get()) for block in graph.layers]
        shown = np.resize(x[0], (1, runs * steps, x.shape[2]))  # around again, as the buffer does
        trace = emulate(network, shown, record=())
        pairs = zip(simulated, trace.final_voltage, strict=True)
        return {
            "rate": int(trace.spike_counts[0].sum()) / (runs * steps * network.layers[0].size),
            "emulator_agrees": all(bool((a == b[0]).all()) for a, b in pairs),
        }

    return Work(run, steps, facts, source.stop, threads=False)
