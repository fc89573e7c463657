"""Run one share of a bundle's samples on Lava: on its CPU simulator, or on a Loihi 2 board.

    python run.py --shard K     run share K of the samples in the folder where this file is
    python run.py --probe       print what this Python has, as one line of JSON

Needs lava-nc and h5py. The graph is made of Lava's stock processes, so the same one compiles for the
simulator and for a board. Progress goes to status-K.json, the answer to result-K.npz and result-K.json,
each written as a whole. Exit code 0: done, 1: failed, and status-K.json says why. With DELAYNET_DEBUG
set, Python's traceback goes to stderr.

--probe also runs as ``python3 - --probe < run.py`` on any Python from 3.6 on, to say what that one lacks:
the syntax stays that old, and packages are imported where they are used.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
import types
import warnings

MANIFEST, STATUS, RESULT, ARRAYS = "manifest.json", "status-{}.json", "result-{}.json", "result-{}.npz"
FILES = ("run.py", "net.h5", "inputs.npz")
BUNDLE_FORMAT, RESULT_FORMAT, VERSION = "delaynet_lava.bundle", "delaynet_lava.result", 2
MAX_DELAY = 62
# Of a graded spike, all that Lava and the adapter of a board have.
MESSAGE_BITS = 24
# What NetX gives to every bias, unless the file says otherwise.
BIAS_EXP = 6
WATCH_S, POLL_S, LAST_WORDS_S = 0.5, 0.02, 1.0
ENDING = (signal.SIGTERM, signal.SIGINT)
ENVIRONMENT = {"partition": "PARTITION", "board": "BOARD", "loihi_gen": "LOIHI_GEN"}
NO_LOIHI = (
    "lava-loihi is not installed for {} ({} cannot be imported), and a board needs it; members of INRC get "
    "its wheel from Intel's research cloud and install it beside lava-nc"
)


class Failure(Exception):
    """Something that ends a run, said in one line."""


def one_line(text):
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:400]


def share(samples, shards, shard):
    """Indices of the samples that a shard runs: contiguous, and as many as any other's, or one less."""
    return range(samples * shard // shards, samples * (shard + 1) // shards)


# Files.


def digest(content):
    return hashlib.sha256(content).hexdigest()


def read(folder, name):
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"{name}: cannot be read ({error.strerror})") from error


def write(folder, name, content):
    temporary = os.path.join(folder, "." + name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(folder, name))


def write_json(folder, name, content):
    write(folder, name, (json.dumps(content, sort_keys=True) + "\n").encode("ascii"))


class Status:
    """status-K.json, written at the start, after each sample and at the end."""

    def __init__(self, folder, shard):
        self.folder, self.shard, self.done, self.of = folder, shard, 0, 0

    def write(self, state, error=None):
        content = {"state": state, "done": self.done, "of": self.of, "error": error}
        content.update({"pid": os.getpid(), "host": socket.gethostname()})
        write_json(self.folder, STATUS.format(self.shard), content)


def load_manifest(folder):
    """The manifest and its hash, once every file of the bundle is the one that it names."""
    content = read(folder, MANIFEST)
    try:
        manifest = json.loads(content.decode("utf-8"))
        known = manifest["format"] == BUNDLE_FORMAT and manifest["version"] == VERSION
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{MANIFEST}: is not a bundle's manifest") from error
    if not known:
        raise Failure(f"{MANIFEST}: another format or version than {BUNDLE_FORMAT} {VERSION}")
    for name in FILES:
        if digest(read(folder, name)) != manifest["files"][name]["sha256"]:
            raise Failure(f"{name}: is not the file that {MANIFEST} names; send the bundle again")
    return manifest, digest(content)


def read_layers(path):
    """Layers with neurons, as plain arrays and numbers."""
    import h5py

    layers = []
    with h5py.File(path, "r") as file:
        group = file["layer"]
        for index in range(len(group)):
            layer = group[str(index)]
            kind = layer["type"][0].decode("ascii")
            if kind in ("dense", "dense_rec"):
                layers.append(read_layer(layer, kind, f"net.h5: layer {index}"))
            elif kind == "input" and "neuron" in layer:
                raise Failure("net.h5: layer 0: an input layer with neurons, whose bias nobody writes here")
            elif kind not in ("input", "flatten", "average"):
                raise Failure(f"net.h5: layer {index}: unknown type {kind!r}")
    return layers


def summed_steps(decision, steps):
    """First and last + 1 of the steps whose membranes the answer adds up; None: it adds none."""
    kind, _, window = decision.partition(":")
    if kind not in ("sum", "mean"):
        return None
    start, _, stop = window.partition(":")
    return int(start or 0), int(stop or steps)


def read_layer(layer, kind, where):
    import numpy as np

    def value(key, absent):
        return int(layer[key][()]) if key in layer else absent

    def decay(key):
        found = layer["neuron"][key][()]
        return found.reshape(-1).astype(np.int32) if np.size(found) > 1 else int(np.reshape(found, ())[()])

    def state(key):
        found = layer["neuron"][key][()] if key in layer["neuron"] else 0
        return np.broadcast_to(found, (size,)).astype(np.int32)

    cells = np.ravel(layer["neuron"]["type"][()])[0] == b"SRC"
    if "reset" in layer["neuron"] or "membraneBits" in layer["neuron"]:
        raise Failure(f"{where}: a soft reset or a narrow membrane, which Lava's neurons have not")
    size = layer["weight"].shape[0]
    bias = layer["bias"][()] if "bias" in layer else 0
    synapses = []
    for suffix in ("", "_rec") if kind == "dense_rec" else ("",):
        weight = layer["weight" + suffix][()].astype(np.int32)
        delay = layer["delay" + suffix][()] if "delay" + suffix in layer else np.zeros_like(weight)
        # No weight is no synapse, and its delay has no meaning.
        delay = np.where(weight != 0, delay, 0).astype(int)
        if delay.max() > MAX_DELAY:
            raise Failure(f"{where}: a delay of {delay.max()}, more than {MAX_DELAY}")
        exponent = value(f"weight{suffix}_exp", 0)
        if np.any(weight & 1):  # halves of 8-bit words
            weight, exponent = weight * 2, exponent - 1
        synapses.append({"weights": weight, "weight_exp": exponent, "delays": delay})
    if cells:
        return types.SimpleNamespace(size=size, neuron=cell(layer, bias, where), synapses=synapses)
    neuron = {
        "shape": (size,),
        "u": state("uInit"),
        "v": state("vInit"),
        # Lava adds 1 to du, a register of the chip, but not to dv.
        "du": decay("iDecay") - 1,
        "dv": decay("vDecay"),
        "vth": value("neuron/vThMant", 0),
        "bias_mant": np.broadcast_to(bias, (size,)).astype(np.int32),
        "bias_exp": value("neuron/biasExp", BIAS_EXP),
    }
    return types.SimpleNamespace(size=size, neuron=neuron, synapses=synapses)


def cell(layer, bias, where):
    """Spiking Recurrent Cells: the one kind of neuron whose process and arithmetic are not Lava's."""
    try:
        from delaynet_lava.formats.netx_read import SRC_KEYS
        from delaynet_lava.network import Src
    except ImportError as error:
        lacking = (
            "{}: Spiking Recurrent Cells, whose process is in delaynet_lava: install it beside lava-nc ({})"
        )
        raise Failure(lacking.format(where, one_line(str(error)))) from error
    found = {name: layer["neuron"][key][()] for name, key in SRC_KEYS.items()}
    return Src(bias, **{k: v.decode() if isinstance(v, bytes) else int(v) for k, v in found.items()})


# Lava.


def shared(shape, kind="u1"):
    """Zeros, by default uint8, in memory that the script and the processes that Lava forks see alike.

    Lava reads a Var element by element over two channels: a recording takes longer that way than the run.
    """
    import numpy as np

    return np.frombuffer(mmap.mmap(-1, shape[0] * shape[1] * np.dtype(kind).itemsize), kind).reshape(shape)


def mend_lava():
    """Give one class of Lava the hash that Python 3.11 asks for, as delaynet_lava.lava_compat does."""
    name = "lava.magma.compiler.var_model"
    if sys.version_info < (3, 11) or name in sys.modules:
        return
    from importlib.util import find_spec, module_from_spec

    spec = find_spec(name)
    plain, mended = "@dataclass\nclass ByteEncoder:", "@dataclass(unsafe_hash=True)\nclass ByteEncoder:"
    source = spec.loader.get_source(name).replace(plain, mended)
    module = sys.modules[name] = module_from_spec(spec)
    try:
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise


def lava_classes():
    """Processes of this script and their models, and Lava's stock ones for the simulator."""
    mend_lava()
    import numpy as np
    from lava.magma.core.decorator import implements, requires
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.lif.models import PyLifModelBitAcc
    from lava.proc.lif.process import LIF

    class Source(AbstractProcess):
        """Sends row t of ``steps``, (steps, channels), in step t."""

        def __init__(self, steps):
            super().__init__(steps=steps)
            self.s_out = OutPort(shape=steps.shape[1:])

    class Sink(AbstractProcess):
        """Writes what comes in step t to row t of ``steps``, (steps, neurons)."""

        def __init__(self, steps):
            super().__init__(steps=steps)
            self.a_in = InPort(shape=steps.shape[1:])

    @implements(proc=Source, protocol=LoihiProtocol)
    @requires(CPU)
    class SourceModel(PyLoihiProcessModel):
        s_out = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

        def run_spk(self):
            self.s_out.send(self.proc_params["steps"][self.time_step - 1].astype(np.int32))

    @implements(proc=Sink, protocol=LoihiProtocol)
    @requires(CPU)
    class SinkModel(PyLoihiProcessModel):
        a_in = LavaPyType(PyInPort.VEC_DENSE, np.int32)

        def run_spk(self):
            self.proc_params["steps"][self.time_step - 1] = self.a_in.recv() != 0

    @implements(proc=DelayDense, protocol=LoihiProtocol)
    @requires(CPU)
    class EventDelayDense(PyDelayDenseModelBitAcc):
        """Lava's model of DelayDense with work for each spike instead of each synapse and delay.

        ``a_buff`` is Lava's: column k is the synaptic input k steps ahead.
        """

        def __init__(self, proc_params):
            super().__init__(proc_params)
            self.senders = None

        def lay_out(self):
            weights = self.weights << (self.proc_params["weight_exp"] + 1) >> 1
            self.senders = []
            for sender, column in enumerate(weights.T):
                post = np.flatnonzero(column)
                cells = post * self.a_buff.shape[1] + self.delays[post, sender]
                self.senders.append((cells, column[post]))

        def run_spk(self):
            if self.senders is None:
                self.lay_out()
            self.a_out.send(self.a_buff[:, 0])
            self.a_buff[:, :-1] = self.a_buff[:, 1:]
            self.a_buff[:, -1] = 0
            ahead = self.a_buff.reshape(-1)
            sent = self.s_in.recv()
            graded = self.num_message_bits.item() > 0
            for sender in np.flatnonzero(sent):
                cells, weights = self.senders[sender]
                ahead[cells] += weights * int(sent[sender]) if graded else weights

    own = {Source: SourceModel, Sink: SinkModel}
    stock = {LIF: PyLifModelBitAcc, Dense: PyDenseModelBitAcc, DelayDense: EventDelayDense}
    return types.SimpleNamespace(
        Source=Source, Sink=Sink, LIF=LIF, Dense=Dense, DelayDense=DelayDense, own=own, stock=stock
    )


def neuron_process(classes, layer):
    """The process of a layer's neurons: Lava's LIF, or for cells that of delaynet_lava."""
    if isinstance(layer.neuron, dict):
        return classes.LIF(**layer.neuron)
    from delaynet_lava.lava.neurons import neuron_process as process_of
    from delaynet_lava.lava.src.models import SRCFixedModel

    process = process_of(layer.neuron, (layer.size,))
    classes.stock[type(process)] = SRCFixedModel
    return process


class Graph:
    """The network as connected Lava processes.

    Args:
        layers: from :func:`read_layers`.
        feed: (steps, channels), the input of the sample that runs.
        records: a uint8 array (steps, neurons) for each layer, or None where its spikes are not wanted.
        graded: whether the input is payloads.
        adapters: None, or the two processes between Python and a chip.
    """

    def __init__(self, classes, layers, feed, records, graded=False, adapters=None):
        from lava.utils.weightutils import SignMode

        self.processes, self.neurons = [], []
        self.first = self._add(classes.Source(steps=feed))
        out = self.first.s_out
        if adapters is not None:
            message = {"num_message_bits": MESSAGE_BITS} if graded else {}
            out = self._through(adapters.PyToNxAdapter, feed.shape[1:], out, **message)
        entry = out
        for layer, record in zip(layers, records, strict=True):
            neuron = self._add(neuron_process(classes, layer))
            # Lava would choose another sign mode for a matrix of one sign, and cut its weights.
            common = {"num_weight_bits": 8, "sign_mode": SignMode.MIXED}
            for synapse, sender in zip(layer.synapses, (out, neuron.s_out), strict=False):
                common["num_message_bits"] = MESSAGE_BITS if graded and sender is entry else 0
                delays, weights = synapse["delays"], {k: synapse[k] for k in ("weights", "weight_exp")}
                if delays.any():
                    last = int(delays.max())
                    dense = classes.DelayDense(delays=delays, max_delay=last, **weights, **common)
                else:
                    dense = classes.Dense(**weights, **common)
                self._add(dense)
                sender.connect(dense.s_in)
                dense.a_out.connect(neuron.a_in)
            out = neuron.s_out
            self.neurons.append(neuron)
            if record is not None:
                seen = self._through(adapters.NxToPyAdapter, (layer.size,), out) if adapters else out
                seen.connect(self._add(classes.Sink(steps=record)).a_in)

    def _add(self, process):
        self.processes.append(process)
        return process

    def _through(self, adapter, shape, out, **message):
        process = self._add(adapter(shape=shape, **message))
        out.connect(process.inp)
        return process.out

    def voltage(self, layer):
        """int32 (neurons,)."""
        import numpy as np

        neuron = self.neurons[layer]
        state = neuron.v if hasattr(neuron, "v") else neuron.h
        # A chip's 24 bits may come without their sign spread to the left.
        return state.get().reshape(-1).astype(np.int64).astype(np.int32) << 8 >> 8


class Execution:
    """Context in which a graph is compiled and run; none of Lava's processes outlives it.

    Args:
        clock: gets the seconds spent, ``build_s`` and ``wall_s``.
        stop: end it as Lava does, so that a board is given back. Lava waits for ever for a process that is
            no more, and on the simulator there is nothing to give back.
    """

    current = None

    def __init__(self, graph, config, clock, stop):
        self.first, self.config, self.clock, self.stop = graph.first, config, clock, stop

    def __enter__(self):
        Execution.current = self
        signal.setitimer(signal.ITIMER_REAL, WATCH_S)
        started = time.time()
        try:
            self.first.create_runtime(run_cfg=self.config)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        self.clock.build_s += time.time() - started
        return self

    def __exit__(self, kind, error, trace):
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            if kind is None and self.stop:
                self.first.stop()
        finally:
            self.kill()
            Execution.current = None
            forget()

    def advance(self, steps):
        """Run that many steps and wait for the last."""
        from lava.magma.core.run_conditions import RunSteps

        started = time.time()
        try:
            self.first.run(RunSteps(num_steps=steps))
        except RuntimeError as error:
            raise Failure(self.problem() or f"lava: {error}") from error
        self.clock.wall_s += time.time() - started

    def advance_adding(self, steps, window, graph):
        """Run that many steps; the sum of the last layer's membranes in the window, int64 (neurons,).

        Nothing in Lava's stock neurons adds membranes up, so the run stops after each step of the window.
        """
        import numpy as np

        start, stop = window
        if start:
            self.advance(start)
        total = np.zeros(graph.neurons[-1].s_out.shape, np.int64).reshape(-1)
        for _ in range(start, stop):
            self.advance(1)
            total += graph.voltage(-1)
        if stop < steps:
            self.advance(steps - stop)
        return total

    def problem(self):
        """What ended one of Lava's processes; None where all of them are alive."""
        infrastructure = self.first.runtime and self.first.runtime._messaging_infrastructure
        actors = infrastructure.actors if infrastructure else []
        if all(not actor._is_done and actor.is_alive() for actor in actors):
            return None
        # An exception can arrive after the end of the process that it comes from.
        deadline = time.time() + LAST_WORDS_S
        while time.time() < deadline:
            for actor in actors:
                if actor.exception is not None:
                    cause, where = actor.exception
                    if os.environ.get("DELAYNET_DEBUG"):
                        os.write(2, where.encode("utf-8"))
                    return f"lava: a process failed: {type(cause).__name__}: {cause}"
            time.sleep(POLL_S)
        return "lava: a process ended before its time; was it killed, or is memory short?"

    def kill(self):
        """End what is left; the memory that Lava's processes share is given back."""
        from lava.magma.runtime.message_infrastructure.multiprocessing import SystemProcess

        for child in multiprocessing.active_children():
            if isinstance(child, SystemProcess):
                child.kill()
        runtime = self.first.runtime
        # What is only half made cannot be taken down in order.
        with contextlib.suppress(Exception):
            runtime.join()
            runtime._messaging_infrastructure.stop()
            runtime._watchdog_manager.stop()
        if runtime is not None:
            # Or the destructor would try to stop it once more.
            runtime._is_started = runtime._is_running = False


def watch_signals(fail):
    """Call ``fail`` and end the script where it is told to end, or one of Lava's processes has ended.

    Lava's ``run`` waits for ever for a process that is no more, so a timer looks after them. Nothing is
    raised here: an exception can come where Python drops it, between two steps of a fork for instance.
    """
    script = os.getpid()

    def give_up(problem):
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        if Execution.current is not None:
            Execution.current.kill()
        fail(problem)
        os._exit(1)

    def ended(number, frame):
        if os.getpid() == script:
            give_up(f"terminated by signal {number} (cancelled, or its time was over)")

    def look(number, frame):
        problem = Execution.current and Execution.current.problem()
        if problem:
            give_up(problem)
        signal.setitimer(signal.ITIMER_REAL, WATCH_S if Execution.current else 0)

    def in_child():
        """What Lava forks is ended by this script alone, and at the latest with it."""
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(Exception):
            import ctypes

            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    for number in ENDING:
        signal.signal(number, ended)
    signal.signal(signal.SIGALRM, look)
    os.register_at_fork(after_in_child=in_child)


def forget():
    """Drop what Lava keeps of every graph there ever was, and the log handlers that each process adds."""
    from lava.magma.core.process.process import ProcessServer
    from lava.magma.core.process.variable import VarServer

    ProcessServer().processes.clear()
    VarServer().vars.clear()
    logging.getLogger().handlers.clear()


def execute(layers, inputs, feed, records, clock, graded=False, loihi=None, window=None):
    """Yield final voltages, sums and what a profiler found, sample after sample.

    Each sample has a fresh graph, and so starts from rest. To clear the one before, Var by Var, takes the
    simulator longer than to compile another, and on a board not all of it is within reach.

    Args:
        graded: whether inputs are payloads.
        loihi: None for the simulator; where the board is, from the manifest.
        window: of :func:`summed_steps`; None: there are no sums.
    """
    from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg

    adapters = closed_package(loihi) if loihi else None
    classes = lava_classes()
    models = {**classes.own, **(loihi_models(classes) if loihi else classes.stock)}
    for sample in inputs:
        feed[:] = sample
        graph = Graph(classes, layers, feed, records, graded, adapters)
        models.update({} if loihi else classes.stock)
        # Given process by process, a model spares Lava's compiler a search through its folders.
        chosen = {process: models[type(process)] for process in graph.processes if type(process) in models}
        if loihi:
            config = Loihi2HwCfg(exception_proc_model_map=chosen)
            profiler = probe_energy_and_time(config, len(feed)) if loihi["profile"] else "not asked for"
        else:
            config, profiler = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=chosen), None
        with Execution(graph, config, clock, stop=bool(loihi)) as execution:
            sums = None
            if window is None:
                execution.advance(len(feed))
            else:
                sums = execution.advance_adding(len(feed), window, graph)
            voltages = [graph.voltage(k) for k in range(len(layers))]
        # What Lava chose for one graph serves the next ones.
        models.update({type(process): process.model_class for process in graph.processes})
        yield voltages, sums, figures(profiler)


def loihi_models(classes):
    """The closed package has several models of LIF; this is the one for Loihi 2."""
    try:
        from lava.proc.lif.ncmodels import NcL2ModelLif
    except ImportError:
        return {}
    return {classes.LIF: NcL2ModelLif}


def closed_package(loihi):
    """Set the environment that the board's driver reads; return the adapters."""
    from lava.utils import loihi as lava_loihi

    name = "lava.utils.loihi2_profiler"
    if not lava_loihi.is_installed():
        raise Failure(NO_LOIHI.format(sys.executable, name))
    try:
        from lava.proc.embedded_io import spike
    except ImportError as error:
        raise Failure(NO_LOIHI.format(sys.executable, "lava.proc.embedded_io.spike")) from error
    chosen = {ENVIRONMENT[key]: loihi[key] for key in ENVIRONMENT if loihi[key]}
    if loihi["partition"] or loihi["board"]:
        chosen["SLURM"] = "1"
        before = {name: os.environ[name] for name in ENVIRONMENT.values() if name in os.environ}
        # It misreads what many a sinfo prints, and drops what it was not given.
        with contextlib.suppress(Exception):
            generation = lava_loihi.ChipGeneration(loihi["loihi_gen"] or before.get("LOIHI_GEN", "N3B3"))
            lava_loihi.use_slurm_host(loihi["partition"], loihi["board"], generation)
        lava_loihi.host = "SLURM"
        os.environ.pop("NOSLURM", None)
        os.environ.update(before)
    os.environ.update(chosen)
    return spike


def probe_energy_and_time(config, steps):
    """Lava's profiler for one run, or why there is none."""
    try:
        from lava.utils.profiler import Profiler

        profiler = Profiler.init(config)
        profiler.energy_probe(num_steps=steps)
        profiler.execution_time_probe(num_steps=steps)
    except Exception as error:
        return one_line(f"{type(error).__name__}: {error}")
    return profiler


def figures(profiler):
    """What a profiler found, as it gives it and None where it has nothing; or why there is none."""
    import numpy as np

    if profiler is None or isinstance(profiler, str):
        return profiler
    found = {}
    for name in ("execution_time", "energy", "power", "energy_breakdown", "power_breakdown"):
        try:
            value = getattr(profiler, name)
            value = np.asarray(value() if callable(value) else value, float)
            value = value.sum() if name == "execution_time" else value
            found[name] = value.tolist() if np.isfinite(value).all() else None
        except Exception:
            # What a board's profiler lacks is a gap in the answer, not the end of a run that went well.
            found[name] = None
    return found


# The commands.


def run_shard(folder, shard, status):
    manifest, name = load_manifest(folder)
    if not 0 <= shard < manifest["shards"]:
        raise Failure("--shard {}: the bundle has {} of them".format(shard, manifest["shards"]))
    mine = share(manifest["samples"], manifest["shards"], shard)
    status.of = len(mine)
    status.write("running")
    found = versions()
    if found["errors"]:
        package = sorted(found["errors"])[0]
        lacking = "{}: {} cannot be imported ({})"
        raise Failure(lacking.format(sys.executable, package, found["errors"][package]))
    import numpy as np

    layers = read_layers(os.path.join(folder, "net.h5"))
    if [layer.size for layer in layers] != manifest["layers"]:
        raise Failure(f"net.h5: its layers are not those that {MANIFEST} names")
    with np.load(os.path.join(folder, "inputs.npz"), allow_pickle=False) as arrays:
        graded = manifest["payload_bits"] > 0
        stored = arrays["values" if graded else "bits"][mine.start : mine.stop]
    steps, channels = manifest["steps"], manifest["channels"]
    inputs = stored if graded else (np.unpackbits(sample, axis=1)[:, :channels] for sample in stored)
    feed = shared((steps, channels), stored.dtype)
    wanted = "spikes" in manifest["record"]
    records = [shared((steps, layer.size)) if wanted else None for layer in layers]
    spikes, voltages, scores, profiles = [], [], [], []
    window = summed_steps(manifest["decision"], steps)
    clock = types.SimpleNamespace(build_s=0.0, wall_s=0.0)
    loihi = manifest["loihi"] if manifest["backend"] == "loihi2" else None
    executed = execute(layers, inputs, feed, records, clock, graded, loihi, window)
    # Closed, also where what is done here fails, it ends Lava's processes.
    with contextlib.closing(executed):
        for last, sums, profile in executed:
            voltages.append(last)
            scores.append(sums)
            spikes.append([np.packbits(record, axis=1) for record in records if wanted])
            profiles.append(profile)
            status.done += 1
            status.write("running")
    arrays = {f"voltage_{k}": np.stack([v[k] for v in voltages]) for k in range(len(layers))}
    if wanted:
        arrays.update((f"spikes_{k}", np.stack([s[k] for s in spikes])) for k in range(len(layers)))
    if window is not None:
        arrays["scores"] = np.stack(scores)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    write(folder, ARRAYS.format(shard), content)
    reason = next((p for p in profiles if isinstance(p, str)), None)
    result = {
        "format": RESULT_FORMAT,
        "version": VERSION,
        "shard": shard,
        "manifest": name,
        "sha256": digest(content),
        "bytes": len(content),
        "wall_s": clock.wall_s,
        "build_s": clock.build_s,
        "versions": {k: found[k] for k in ("python", "numpy", "h5py", "lava")},
        "profile": None if reason or profiles == [None] * len(profiles) else profiles,
        "profile_error": reason,
    }
    write_json(folder, RESULT.format(shard), result)
    status.write("done")


def versions():
    """Versions of what a run needs, None where it cannot be imported, and why not."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "executable": sys.executable, "errors": {}}
    for name, module in (("numpy", "numpy"), ("h5py", "h5py"), ("lava", "lava.magma.core.run_configs")):
        found[name] = None
        try:
            if name == "lava":
                mend_lava()
            loaded = __import__(module, fromlist=["__version__"])
            found[name] = getattr(loaded, "__version__", None) or installed("lava-nc")
        except Exception as error:
            found["errors"][name] = one_line(f"{type(error).__name__}: {error}")
    return found


def installed(package):
    try:
        from importlib.metadata import version

        return version(package)
    except Exception:
        # No such module before Python 3.8, no such package, or metadata that cannot be read.
        return "unknown"


def probe():
    found = versions()
    found["lava_loihi"] = False
    with contextlib.suppress(Exception):
        from lava.utils.loihi import is_installed

        found["lava_loihi"] = bool(is_installed())
    affinity = getattr(os, "sched_getaffinity", None)
    found["cores"] = len(affinity(0)) if affinity else os.cpu_count()
    print(json.dumps(found, sort_keys=True))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Run a share of a bundle's samples on Lava.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--shard", type=int, metavar="K", help="the share to run, from 0")
    action.add_argument("--probe", action="store_true", help="print what this Python has, as JSON")
    chosen = parser.parse_args(arguments)
    debug = bool(os.environ.get("DELAYNET_DEBUG"))
    if not debug:
        warnings.simplefilter("ignore")
    if chosen.probe:
        return probe()
    if chosen.shard < 0:
        parser.error("--shard counts from 0")
    folder = os.path.dirname(os.path.abspath(__file__))
    status = Status(folder, chosen.shard)

    def fail(problem):
        problem = one_line(problem)
        # Not print: what it locks may be held where a signal interrupts.
        os.write(2, f"run.py: shard {chosen.shard}: {problem}\n".encode())
        with contextlib.suppress(OSError):
            status.write("failed", problem)
        return 1

    watch_signals(fail)
    try:
        return run_shard(folder, chosen.shard, status)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return fail(error if isinstance(error, Failure) else f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
