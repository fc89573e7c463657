"""What an execution recorded, and how two executions are compared: integer by integer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.checked import as_array
from delaynet_lava.drawings import draw_records
from delaynet_lava.errors import InputError, MismatchError, shown
from delaynet_lava.network import Dense, Encoder, Network
from delaynet_lava.neuron import SRC_OUTPUT_BITS_MAX
from delaynet_lava.tables import Table, notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "RECORDABLE",
    "Comparison",
    "Difference",
    "Trace",
    "check_inputs",
    "decide",
    "recorded_layers",
    "require_32_bits",
    "scores",
    "with_tail",
]

RECORDABLE = ("spikes", "voltage", "current", "slow")
"""What each step of a layer is recorded of; "slow" is h_s, of Spiking Recurrent Cells only."""
BOARD = "loihi2"
PROBE_AT_SPIKE = 128
"""What the probe of a Loihi 2 reads of a membrane at the step of a spike, instead of 0: Lava's issue 282, and
the trace of a chip in tests/test_chip_trace.py."""


@dataclass(frozen=True)
class Difference:
    """The first place, in time, where two traces differ."""

    what: str
    layer: int
    sample: int
    step: int
    neuron: int
    ours: int
    theirs: int

    def __str__(self) -> str:
        return (
            f"layer {self.layer} {self.what} first differ at sample {self.sample}, step {self.step}, "
            f"neuron {self.neuron}: {self.ours} against {self.theirs}"
        )


@dataclass(frozen=True)
class Comparison:
    """Result of :meth:`Trace.compare`.

    Attributes:
        mismatches: number of differing integers over everything that both traces recorded.
        compared: number of integers compared.
        first: the earliest difference in time, None where there is none.
        probe: membranes that a board's probe read as 128 at the step of a spike, where the other trace has
            another value: what the probe is known to do, counted here and not as mismatches.
    """

    mismatches: int
    compared: int
    first: Difference | None = None
    probe: int = 0

    def __bool__(self) -> bool:
        """True where the traces are equal."""
        return self.mismatches == 0

    def __str__(self) -> str:
        text = f"{self.mismatches} mismatches in {self.compared} integers"
        if self.probe:
            text += f" ({self.probe} membranes read 128 at a spike, as a board's probe does, not counted)"
        return text if self.first is None else f"{text}; {self.first}"

    def __repr__(self) -> str:
        return f"<Comparison {'equal' if self else 'different'}: {self}>"

    def _repr_html_(self) -> str:
        rows = [("mismatches", f"{self.mismatches:,}"), ("integers compared", f"{self.compared:,}")]
        if self.first is not None:
            rows.append(("first", str(self.first)))
        if self.probe:
            rows.append(("read 128 at a spike, as a board's probe does", f"{self.probe:,}"))
        return notebook("Equal" if self else "Different", [Table(("", "value"), rows)])


@dataclass(eq=False)
class Trace:
    """A record of one execution, the same class and time axis from every backend.

    Attributes:
        backend: what ran ("emulator", "lava", ...).
        steps, batch: extent of the input, the steps with the network's tail behind them.
        spikes: layer -> uint8, or int32 where payloads need it, (batch, steps, neurons), where recorded.
        voltage: layer -> int32 (batch, steps, neurons), the membrane after the reset at the end of
            each step, where recorded; h of Spiking Recurrent Cells.
        current, slow: likewise u, or i of Spiking Recurrent Cells; and their h_s, of no other layer.
        final_voltage: int32 (batch, neurons) for every layer.
        u_wraps, v_saturations: for every layer, how often the current left its 24 bits (u wraps, i
            saturates) and the membrane was clipped. Zero is the only quiet value. Empty: not counted, as on
            a board.
        spike_counts: int64 (batch,) for every layer, messages where they are graded. Empty: not counted.
        scores: int64 (batch, neurons) of the last layer, what the network's decision adds up over its
            window. None: the decision is on ``final_voltage``, or has to be taken from what was recorded.
        wall_s: seconds the execution itself took.
    """

    backend: str
    steps: int
    batch: int
    final_voltage: list[np.ndarray]
    u_wraps: list[int]
    v_saturations: list[int]
    spike_counts: list[np.ndarray]
    spikes: dict[int, np.ndarray] = field(default_factory=dict)
    voltage: dict[int, np.ndarray] = field(default_factory=dict)
    current: dict[int, np.ndarray] = field(default_factory=dict)
    slow: dict[int, np.ndarray] = field(default_factory=dict)
    scores: np.ndarray | None = None
    wall_s: float = 0.0

    def compare(self, other: Trace) -> Comparison:
        """Count the integers that differ in everything both traces hold.

        Final voltages always are; spikes, voltages, scores, spike counts and overflow counters where
        both have them. A board's probe reads :data:`PROBE_AT_SPIKE` at the step of a spike instead of the
        membrane after the reset: where both traces have the spike, that counts as ``probe``.

        Raises:
            InputError: the traces are of different extent and can't be compared at all.
        """
        ours = (self.batch, self.steps, [v.shape for v in self.final_voltage])
        theirs = (other.batch, other.steps, [v.shape for v in other.final_voltage])
        if ours != theirs:
            raise InputError("traces", f"of different extent: {ours} against {theirs}")
        total = compared = probe = 0
        firsts: list[Difference] = []
        last = self.steps - 1
        for layer, (a, b) in enumerate(zip(self.final_voltage, other.final_voltage, strict=True)):
            pairs = [("final voltages", a[:, None], b[:, None], last)]
            for name in RECORDABLE:
                x, y = getattr(self, name).get(layer), getattr(other, name).get(layer)
                if x is not None and y is not None:
                    pairs.append((name, x, y, 0))
            for name in ("spike_counts", "u_wraps", "v_saturations"):
                mine, yours = getattr(self, name), getattr(other, name)
                if mine and yours:
                    x, y = (np.reshape(counts[layer], (-1, 1, 1)) for counts in (mine, yours))
                    pairs.append((name.replace("_", " "), x, y, last))
            if layer == len(self.final_voltage) - 1 and self.scores is not None and other.scores is not None:
                pairs.append(("scores", self.scores[:, None], other.scores[:, None], last))
            for what, x, y, offset in pairs:
                differ = x != y
                if what in ("voltage", "final voltages"):
                    known = differ & self._probe_reads(other, layer, x, y, offset)
                    probe += int(np.count_nonzero(known))
                    differ &= ~known
                compared += x.size
                count = int(np.count_nonzero(differ))
                if count:
                    total += count
                    firsts.append(_first(what, layer, x, y, differ, offset))
        first = min(firsts, key=lambda d: (d.step, d.layer)) if firsts else None
        return Comparison(total, compared, first, probe)

    def _probe_reads(
        self, other: Trace, layer: int, x: np.ndarray, y: np.ndarray, first: int
    ) -> np.ndarray | bool:
        """Where a board's membrane is what its probe reads at a spike that both traces have."""
        if BOARD not in (self.backend, other.backend) or not (layer in self.spikes and layer in other.spikes):
            return False
        read: np.ndarray = (x if self.backend == BOARD else y) == PROBE_AT_SPIKE
        both = (self.spikes[layer] != 0) & (other.spikes[layer] != 0)
        return read & both[:, first:]

    def require_equal(self, other: Trace) -> Comparison:
        """:meth:`compare`, but a difference raises.

        Raises:
            MismatchError: with the place where the two first differ.
        """
        result = self.compare(other)
        if not result:
            raise MismatchError(f"{self.backend} and {other.backend}: {result}")
        return result

    def save(
        self, path: str | os.PathLike, network: Network | None = None, inputs: np.ndarray | None = None
    ) -> None:
        """Write the trace as NIRData (docs/nir.md), which ``nir.read_data`` reads too.

        What was recorded is there as ``spikes`` and ``voltage`` of a node a layer, time-gridded; membranes in
        units of the chip. Counters and the like are kept beside it, for :meth:`load`.

        Args:
            network: that ran; the nodes are then called as in its graph, and a step lasts as long as its.
                None: ``lif0`` and so on, and 1 ms.
            inputs: that it ran on (batch, steps, channels), kept as ``spikes`` of the node ``input``, so that
                the file is a task, too.

        Raises:
            InputError: a network or inputs of another extent, or a place that can't be written.
        """
        from delaynet_lava.formats import nir_data

        count = len(self.final_voltage)
        if network is not None and [n.size for n in network.layers] != [
            v.shape[1] for v in self.final_voltage
        ]:
            raise InputError("network", f"is not the one of this trace, which has {count} layers")
        dt = (1.0 if network is None else network.dt_ms) * 1e-3
        nodes: dict[str, dict[str, nir_data.Gridded]] = {}
        if inputs is not None:
            x = as_array(inputs, "inputs")
            if x.ndim != 3 or len(x) != self.batch or x.shape[1] > self.steps:
                raise InputError(
                    "inputs", f"have shape {x.shape}, the trace is of {self.batch} samples of {self.steps}"
                )
            nodes["input"] = {"spikes": nir_data.Gridded(_spikes(x), dt)}
        names = []
        for layer in range(count):
            readout = network is not None and network.layers[layer].neuron.is_readout
            name = nir_data.node_name(layer, readout)
            names.append(f"src{layer}" if layer in self.slow else name)
            held = {name: getattr(self, name).get(layer) for name in RECORDABLE}
            found = {
                name: nir_data.Gridded(_spikes(array) if name == "spikes" else array, dt)
                for name, array in held.items()
                if array is not None
            }
            nodes |= {names[-1]: found} if found else {}
        values = {name: getattr(self, name) for name in _PLAIN} | {"nodes": names}
        arrays = {f"{n}{k}": a for n in _LISTS for k, a in enumerate(getattr(self, n))}
        if self.scores is not None:
            arrays["scores"] = self.scores
        nir_data.write(path, nodes, None, (values, arrays))

    @staticmethod
    def load(path: str | os.PathLike) -> Trace:
        """A trace that :meth:`save` wrote, read as a stranger's file.

        Raises:
            InputError: not NIRData, or not a trace; parts that do not fit each other.
        """
        from delaynet_lava.formats import nir_data

        data = nir_data.read(path)
        values, own = nir_data.own_values(data)
        kinds: dict[str, type | tuple[type, ...]] = {
            "backend": str, "steps": int, "batch": int, "u_wraps": list, "v_saturations": list, "nodes": list,
            "wall_s": (int, float),
        }  # fmt: skip
        for name, kind in kinds.items():
            of = values.get(name)
            inside = of if isinstance(of, list) else []
            want = str if name == "nodes" else int
            if (
                not isinstance(of, kind)
                or isinstance(of, bool)
                or any(type(one) is not want for one in inside)
            ):
                raise own.refuse("values", f"{name} is {shown(of)}")
        batch, steps, names = values["batch"], values["steps"], values["nodes"]
        count = len(names)
        if batch < 1 or steps < 1 or not count or len(set(names)) < count:
            raise own.refuse("values", f"are of {count} layers, {batch} samples, {steps} steps")
        for name in ("u_wraps", "v_saturations"):
            if len(values[name]) not in (0, count):
                raise own.refuse("values", f"{name} has {len(values[name])} entries for {count} layers")
        final = [_whole(own, f"final_voltage{k}", np.int32, (batch, None)) for k in range(count)]
        counted = [k for k in range(count) if f"spike_counts{k}" in own.keys]
        counts = [_whole(own, f"spike_counts{k}", np.int64, (batch,)) for k in counted]
        if len(counts) not in (0, count):
            raise own.refuse("spike_counts", f"is there for {len(counts)} of {count} layers")
        scores = None
        if "scores" in own.keys:
            scores = _whole(own, "scores", np.int64, (batch, final[-1].shape[1]))
        found: dict[str, dict[int, np.ndarray]] = {name: {} for name in RECORDABLE}
        for layer, node in enumerate(names):
            for name in set(RECORDABLE) & set(data.names.get(node, ())):
                one = data.get(node, name)
                array = one.data if isinstance(one, nir_data.Gridded) else np.zeros(0)
                shape = (batch, steps, final[layer].shape[1])
                where = f"{data.where}: node {node[:60]!r}"
                whole = _fitted(array, np.int32, shape, f"{where}: {name}")
                # Cells send up to 256, and are known by their h_s.
                most = 1 << SRC_OUTPUT_BITS_MAX if "slow" in data.names[node] else 1
                if name == "spikes" and (whole.min() < 0 or whole.max() > most):
                    raise InputError(where, f"has spikes that are no whole numbers of 0 to {most}")
                small = name == "spikes" and whole.max() <= 255
                found[name][layer] = whole.astype(np.uint8) if small else whole
        return Trace(
            values["backend"], steps, batch, final, values["u_wraps"], values["v_saturations"], counts,
            **found, scores=scores, wall_s=float(values["wall_s"]),
        )  # fmt: skip

    def __repr__(self) -> str:
        sizes = " - ".join(str(v.shape[1]) for v in self.final_voltage)
        return f"<Trace of {self.backend}: {self.batch} samples x {self.steps} steps, neurons {sizes}>"

    def _repr_html_(self) -> str:
        rows = []
        for k, v in enumerate(self.final_voltage):
            recorded = [name for name in RECORDABLE if k in getattr(self, name)]
            spikes = f"{int(self.spike_counts[k].sum()):,}" if self.spike_counts else "-"
            wraps = str(self.u_wraps[k]) if self.u_wraps else "-"
            saturations = str(self.v_saturations[k]) if self.v_saturations else "-"
            rows.append(
                [str(k), str(v.shape[1]), spikes, wraps, saturations, ", ".join(recorded) or "nothing"]
            )
        heads = ("layer", "neurons", "spikes", "u wraps", "v saturations", "recorded")
        return notebook(repr(self)[1:-1], [Table(heads, rows)])

    def plot(self, sample: int = 0) -> Figure:
        """What was recorded of a sample over its steps: a figure that a notebook shows.

        Raises:
            InputError: no such sample, or nothing was recorded.
        """
        if not -self.batch <= sample < self.batch:
            raise InputError("sample", f"is {sample}, the trace has {self.batch}")
        records = [
            (f"layer {k} {name}", name, getattr(self, name)[k][sample])
            for k in range(len(self.final_voltage))
            for name in RECORDABLE
            if k in getattr(self, name)
        ]
        if not records:
            raise InputError("trace", "has no steps recorded", 'run it with record=("spikes", "voltage")')
        return draw_records(records)

    @staticmethod
    def join(traces: list[Trace]) -> Trace:
        """One trace of the samples of several, in order.

        Raises:
            InputError: no traces.
        """
        if not traces:
            raise InputError("traces", "none to join")
        head, layers = traces[0], range(len(traces[0].final_voltage))

        def cat(name: str, layer: int) -> np.ndarray:
            return np.concatenate([getattr(t, name)[layer] for t in traces])

        def total(name: str) -> list[int]:
            return [sum(getattr(t, name)[k] for t in traces) for k in layers if getattr(head, name)]

        return Trace(
            backend=head.backend,
            steps=head.steps,
            batch=sum(t.batch for t in traces),
            final_voltage=[cat("final_voltage", k) for k in layers],
            u_wraps=total("u_wraps"),
            v_saturations=total("v_saturations"),
            spike_counts=[cat("spike_counts", k) for k in layers if head.spike_counts],
            **{name: {k: cat(name, k) for k in getattr(head, name)} for name in RECORDABLE},
            scores=None if head.scores is None else np.concatenate([t.scores for t in traces]),
            wall_s=sum(t.wall_s for t in traces),
        )


# Attributes of a trace that are plain values, and those that are lists of arrays.
_PLAIN = ("backend", "steps", "batch", "u_wraps", "v_saturations", "wall_s")
_LISTS = ("final_voltage", "spike_counts")


def _spikes(values: np.ndarray) -> np.ndarray:
    """As NIRData keeps them: bool, where there are no payloads."""
    return values.astype(bool) if not np.any((values != 0) & (values != 1)) else values


def _whole(own: Any, name: str, dtype: type, shape: tuple[int | None, ...]) -> np.ndarray:
    return _fitted(own.array(name), dtype, shape, own.at(name))


def _fitted(array: np.ndarray, dtype: type, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """A stranger's whole numbers of a shape (None: of any extent), none changed by the type."""
    fits = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in "iu" or not fits or 0 in array.shape:
        raise InputError(where, f"has {array.dtype} {array.shape}, expected whole numbers {shape}")
    found: np.ndarray = array.astype(dtype)
    if not np.array_equal(found, array):
        raise InputError(where, f"has values beyond {np.dtype(dtype)}")
    return found


def _first(
    what: str, layer: int, x: np.ndarray, y: np.ndarray, differ: np.ndarray, offset: int
) -> Difference:
    step = int(np.flatnonzero(differ.any(axis=(0, 2)))[0])
    sample, neuron = (int(k) for k in np.argwhere(differ[:, step])[0])
    at = (sample, step, neuron)
    return Difference(what, layer, sample, step + offset, neuron, int(x[at]), int(y[at]))


def recorded_layers(network: Network, record: Collection[str], layers: Collection[int] | None) -> set[int]:
    """Indices of the layers to record, negative ones resolved; None: all.

    Raises:
        InputError: something to record that is not in :data:`RECORDABLE`, or no such layer.
    """
    if not isinstance(network, Network):
        raise InputError("network", f"is of type {type(network).__name__}", "give a Network, as load returns")
    for what in _listed(record, "record"):
        if not isinstance(what, str) or what not in RECORDABLE:
            raise InputError("record", f"{shown(what)} is not known", f"choose from {RECORDABLE}")
    count = len(network.layers)
    wanted = range(count) if layers is None else _listed(layers, "layers")
    for k in wanted:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise InputError(
                "layers", f"{shown(k)} is not the index of a layer", f"count from 0 to {count - 1}"
            )
    chosen = {k % count if -count <= k < count else k for k in wanted}
    if chosen - set(range(count)):
        raise InputError("layers", f"{shown(sorted(chosen))} with {count} layers in the network")
    return chosen


def _listed(values: object, where: str) -> list[Any]:
    if isinstance(values, Collection) and not isinstance(values, str | bytes):
        with contextlib.suppress(Exception):  # an array without dimensions, say
            return list(values)
    raise InputError(where, f"is {shown(values)}, expected several", "give a tuple or a list")


def check_inputs(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Inputs as a contiguous array (batch, steps, channels) of the type of the network's payload.

    Raises:
        InputError: another type or shape than the network takes, or a number that its payload has not.
    """
    x = as_array(inputs, "inputs")
    if x.ndim != 3:
        raise InputError("inputs", f"have shape {x.shape}, expected (batch, steps, channels)")
    if x.shape[2] != network.channels:
        raise InputError("inputs", f"have {x.shape[2]} channels, the network takes {network.channels}")
    if 0 in x.shape:
        raise InputError("inputs", f"are empty, shape {x.shape}")
    return network.payload.check(x)


def require_32_bits(network: Network, inputs: np.ndarray) -> None:
    """Refuse payloads whose sum at a neuron could pass 32 bits, in which Lava adds and wraps unseen.

    Raises:
        InputError: the sum that these inputs, or the payloads of layers within, can reach.
    """
    for k, layer in enumerate(network.layers[1:], 1):
        graded = network.payload_into(k).magnitude, layer.neuron.sends.magnitude
        if max(graded) > 1 and isinstance(layer, Dense):
            within = [np.abs(s.units).sum(axis=1) for s in (layer.synapse, layer.recurrent) if s is not None]
            _require_32_bits(sum(int((s * g).max()) for s, g in zip(within, graded, strict=False)), k)
    if not network.payload.bits and network.layers[0].neuron.sends.magnitude == 1:
        return
    first = network.layers[0]
    largest = np.maximum(inputs.max(axis=(0, 1)).astype(np.int64), -inputs.min(axis=(0, 1)).astype(np.int64))
    if isinstance(first, Encoder):
        reach = int(largest.max()) * abs(first.weight) + abs(first.bias)
    else:
        # Lava halves under an exponent of -1 when it has added.
        into = np.abs(first.synapse.weight.astype(np.int64)) @ largest << max(0, first.synapse.weight_exp)
        if first.recurrent is not None:
            into += np.abs(first.recurrent.units).sum(axis=1) * first.neuron.sends.magnitude
        reach = int(into.max())
    _require_32_bits(reach, 0)


def _require_32_bits(reach: int, layer: int) -> None:
    if reach >= 1 << 31:
        raise InputError(
            f"layer {layer}",
            f"these payloads can add up to {reach} in a step, and Lava's sums have 32 bits",
            "scale inputs and threshold down, or use the emulator",
        )


def with_tail(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Inputs (batch, steps, channels) with the network's :attr:`~network.Network.tail` of silence behind."""
    return np.pad(inputs, ((0, 0), (0, network.tail), (0, 0))) if network.tail else inputs


def scores(network: Network, trace: Trace) -> np.ndarray:
    """What the network's decision compares, int64 (batch, outputs): see :class:`network.Decision`.

    Where the network ends in an average, groups are summed first.

    Raises:
        InputError: the run was shorter than the decision's window, or what it asks for is in the trace
            neither as ``scores`` nor recorded.
    """
    last, decision = len(network.layers) - 1, network.answer
    decision.require_steps(trace.steps)
    if decision.kind == "last":
        values = trace.final_voltage[last].astype(np.int64)
    elif trace.scores is not None:
        values = trace.scores
    else:
        name = "voltage" if decision.of_membranes else "spikes"
        if last not in getattr(trace, name):
            raise InputError(f"layer {last}", f"{name} were not recorded, so there is no decision {decision}")
        window = decision.within(0, trace.steps)
        values = getattr(trace, name)[last][:, window].sum(axis=1, dtype=np.int64)
    return values.reshape(len(values), network.outputs, -1).sum(axis=2)


def decide(network: Network, trace: Trace) -> np.ndarray:
    """Class of each sample, int64 (batch,): argmax over :func:`scores`. The first of equals wins.

    Raises:
        InputError: as :func:`scores`.
    """
    return scores(network, trace).argmax(axis=1)
