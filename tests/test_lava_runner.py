"""The runner and the graph it builds: options, progress, and no process of Lava left behind."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed")

from lava.magma.core.process.process import ProcessServer
from lava.magma.core.process.variable import VarServer
from lava.magma.core.run_conditions import RunSteps
from lava.proc.dense.process import DelayDense
from lava.proc.dense.process import Dense as LavaDense
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF
from strategies import inputs_for

from delaynet_lava import lava
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.lava.neurons import SubtractLIF
from delaynet_lava.lava.synapses import FastDelayDense
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse

EVERYTHING = ("spikes", "voltage")


def small_network(reset: str = "zero") -> Network:
    rng = np.random.default_rng(0)
    return Network(
        (
            Dense(
                Synapse(2 * rng.integers(-30, 60, (9, 6))),
                Neuron(150, 900, 300, reset=reset),
                Synapse(2 * rng.integers(-20, 20, (9, 9)), rng.integers(0, 9, (9, 9)), 1),
            ),
            Dense(Synapse(2 * rng.integers(-30, 60, (2, 9))), Neuron(131071, 4096, 200)),
        )
    )


NETWORK = small_network()


@pytest.mark.parametrize(
    "inputs, options",
    [
        (np.ones((1, 5, 6), float), {}),
        (np.ones((5, 6), bool), {}),
        (np.ones((1, 5, 7), bool), {}),
        (np.ones((0, 5, 6), bool), {}),
        (np.full((1, 5, 6), 2, np.uint8), {}),
        (np.ones((1, 5, 6), bool), {"record": ("nothing",)}),
        (np.ones((1, 5, 6), bool), {"layers": [2]}),
    ],
)
def test_arguments_are_refused_as_the_emulator_refuses_them(inputs: np.ndarray, options: dict) -> None:
    messages = []
    for execute in (emulate, lava.run):
        with pytest.raises(InputError) as caught:
            execute(NETWORK, inputs, **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_unknown_models_are_refused() -> None:
    with pytest.raises(InputError, match="models: 'quick' is not known"):
        lava.run(NETWORK, inputs_for(NETWORK), models="quick")


def test_what_is_recorded_is_what_was_asked_for() -> None:
    inputs, done = inputs_for(NETWORK, 30, 3).astype(bool), []
    trace = lava.run(NETWORK, inputs, ("voltage",), layers=[-1], progress=lambda k, n: done.append((k, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert (list(trace.spikes), list(trace.voltage)) == ([], [1])
    assert (trace.backend, trace.steps, trace.batch) == ("lava", 30, 3)
    assert trace.wall_s > 0
    expected = emulate(NETWORK, inputs, EVERYTHING)
    assert trace.compare(expected).mismatches == 0
    assert (trace.voltage[1][:, -1] == trace.final_voltage[1]).all()
    for ours, theirs in zip(trace.spike_counts, expected.spike_counts, strict=True):
        assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist())
    bare = lava.run(NETWORK, inputs, ())
    assert not bare.spikes and not bare.voltage and bare.compare(expected).mismatches == 0


def leftovers() -> tuple[int, int, int, int]:
    gc.collect()
    return (
        len(multiprocessing.active_children()),
        len(ProcessServer().processes),
        len(VarServer().vars),
        len(logging.getLogger().handlers),
    )


def test_nothing_is_left_after_a_run() -> None:
    before = leftovers()
    lava.run(NETWORK, inputs_for(NETWORK, 10, 2))
    assert leftovers() == before


def test_a_failure_in_one_process_ends_all_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FastDelayDense.run_spk

    def fail(self) -> None:
        if self.time_step == 7:
            raise ValueError("step 7")
        original(self)

    monkeypatch.setattr(FastDelayDense, "run_spk", fail)
    before = leftovers()
    with pytest.raises(DelayNetError, match=r"^lava: a process failed: ValueError: step 7$"):
        lava.run(NETWORK, inputs_for(NETWORK, 30, 1))
    assert leftovers() == before


def test_a_killed_process_does_not_make_the_run_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FastDelayDense.run_spk

    def die(self) -> None:
        if self.time_step == 7:
            os._exit(1)
        original(self)

    monkeypatch.setattr(FastDelayDense, "run_spk", die)
    before = leftovers()
    with pytest.raises(DelayNetError, match="ended before its time"):
        lava.run(NETWORK, inputs_for(NETWORK, 30, 1))
    assert leftovers() == before


def test_an_exception_between_samples_ends_all_processes() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = leftovers()
    with pytest.raises(KeyboardInterrupt):
        lava.run(NETWORK, inputs_for(NETWORK, 10, 3), progress=stop)
    assert leftovers() == before


# A program inherits an ignored SIGINT from whoever started it in the background; a terminal's does not.
INTERRUPTED = """
import multiprocessing, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
import delaynet_lava
from test_lava_runner import NETWORK, inputs_for, lava
try:
    lava.run(NETWORK, inputs_for(NETWORK, 50, 1000), progress=lambda done, total: print(done, flush=True))
except KeyboardInterrupt:
    print("children", len(multiprocessing.active_children()), flush=True)
"""


def test_ctrl_c_reaches_the_program_alone() -> None:
    """As a terminal does, the signal goes to every process of the group, Lava's included."""
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(tests=os.path.dirname(__file__))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert program.stdout.readline() == "1\n"
        os.killpg(program.pid, signal.SIGINT)
        out, errors = program.communicate(timeout=300)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
    assert out.splitlines()[-1] == "children 0"
    assert (program.returncode, errors) == (0, "")


def fresh(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


RUN_ONE = """
import sys
import numpy as np
from delaynet_lava import lava
from delaynet_lava.network import Dense, Network, Neuron, Synapse

layer = Dense(Synapse(np.full((2, 2), 2), 1), Neuron(1, 4096, 0), Synapse(np.full((2, 2), 2), 1))
lava.run(Network((layer, layer)), np.ones((1, 3, 2), np.uint8))
print([name for name in ("torch", "lava.lib.dl") if name in sys.modules])
"""


def test_the_simulator_needs_neither_slayer_nor_torch_and_prints_nothing() -> None:
    assert fresh(RUN_ONE) == "[]\n"


def test_netx_is_imported_without_its_noise() -> None:
    pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")
    assert fresh("from delaynet_lava.lava import Network; print(Network.__mro__[1].__module__)") == (
        "lava.lib.dl.netx.hdf5\n"
    )


def test_multiprocessing_may_have_been_used_before() -> None:
    """Lava sets the start method at its import, which raises where it is set already."""
    code = "import multiprocessing; multiprocessing.set_start_method('fork'); import delaynet_lava.lava"
    assert fresh(code) == ""


def graph(network: Network) -> lava.Network:
    pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")
    return lava.Network(network)


def test_the_graph_is_made_of_stock_processes() -> None:
    """A board has models for these classes, not for subclasses of ours."""
    net = graph(NETWORK)
    first, last = net.layers
    assert [type(p) for p in (first.neuron, first.synapse, first.synapse_rec)] == [LIF, LavaDense, DelayDense]
    assert [type(p) for p in (last.neuron, last.synapse)] == [LIF, LavaDense]
    assert first.synapse_rec.a_buff.shape == (9, 9)
    assert not hasattr(last, "synapse_rec")
    assert (net.in_layer, net.out_layer, len(net)) == (first, last, 2)
    assert (first.block, last.block) == ("RecurrentDense", "Dense")
    assert net.network is NETWORK
    soft = graph(small_network("subtract"))
    assert type(soft.layers[0].neuron) is SubtractLIF


@pytest.mark.parametrize("models", ["fast", "stock"])
def test_the_graph_runs_like_any_other_of_lava(models: str) -> None:
    """With the search for process models that Lava does by itself, soft reset included."""
    network = small_network("subtract")
    inputs = inputs_for(network, 40, 1, 0.4)
    net = graph(network)
    source = RingBuffer(data=inputs[0].T.astype(int))
    source.s_out.connect(net.inp)
    try:
        net.run(RunSteps(num_steps=25), lava.run_config(models))
        net.run(RunSteps(num_steps=15))
        voltage = [layer.neuron.v.get() for layer in net.layers]
    finally:
        net.stop()
    expected = emulate(network, inputs)
    assert expected.spikes[0].any()
    for layer in range(2):
        assert (voltage[layer] == expected.final_voltage[layer][0]).all()


def test_an_encoder_keeps_the_axes_of_its_input() -> None:
    rng = np.random.default_rng(3)
    layers = (
        Encoder(Neuron(3000, 0, 300), 24, 40, -10),
        Dense(
            Synapse(2 * rng.integers(-30, 60, (5, 24)), rng.integers(0, 9, (5, 24))), Neuron(150, 900, 300)
        ),
    )
    network = Network(layers, input_shape=(2, 3, 4))
    inputs = inputs_for(network, 40, 2)
    trace = lava.run(network, inputs, EVERYTHING)
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0
    assert trace.spikes[1].any()
    net = graph(network)
    assert net.in_layer.shape == net.inp.shape == (4, 3, 2)
    assert net.in_layer.transform == {"weight": 40, "bias": -10}
    flat = network.with_(input_shape=(24,))
    assert lava.run(flat, inputs, EVERYTHING).compare(trace).mismatches == 0


def test_an_input_shape_that_does_not_fit_is_refused() -> None:
    pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")
    with pytest.raises(InputError, match="input_shape"):
        lava.Network(NETWORK, input_shape=(5, 1, 1))
