"""What the keys of a ``net.h5`` mean: from an HDF5 tree to a :class:`Network`.

Stock NetX's meaning wherever the keys are stock NetX's; ours for the keys listed in
:mod:`delaynet_lava.formats.netx`. What stock NetX ignores, and would change the network if it did not, is
returned as a note, never passed over.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.formats.content_hash import KEY, Digest, Seal
from delaynet_lava.formats.untrusted_hdf5 import MAX_ELEMENTS, MAX_FEW, Group
from delaynet_lava.network import (
    TAIL_MAX,
    Decision,
    Dense,
    Encoder,
    Layer,
    Network,
    Neuron,
    Payload,
    Src,
    Synapse,
)

__all__ = [
    "FORMAT_VERSION",
    "MAX_LAYERS",
    "MAX_PENDING",
    "MAX_TEXT",
    "SRC_KEYS",
    "pending",
    "read_network",
    "seal",
]

FORMAT_VERSION = 1
MAX_LAYERS = 4096
MAX_DEPTH = 8
MAX_TEXT = 1 << 22
"""Bytes of the profile's name, of ``task`` and of ``provenance``."""
MAX_SHARED = 1 << 20
"""Elements of a parameter that must be the same for all neurons of a layer."""
MAX_PENDING = 1 << 25
"""Neurons times the longest delay on their synapses, over all layers: what an execution keeps, in 4 or 8
bytes, of inputs that are still to come. 1024 neurons may have the longest delay."""

_COMMON = frozenset({"type", "shape"})
_MESSAGE = frozenset({"messageBits", "messageSigned"})
_DENSE = _COMMON | {"inFeatures", "outFeatures", "weight", "bias", "delay", "neuron", "weight_exp"}
_KEYS = {
    "input": _COMMON | _MESSAGE,
    "encoder": _COMMON | _MESSAGE | {"neuron", "weight", "bias"},
    "flatten": _COMMON,
    "average": _COMMON,
    "dense": _DENSE,
    "dense_rec": _DENSE | {"weight_rec", "delay_rec", "weight_rec_exp"},
    # What SpyTorch wrote for Loihi 1.
    "recurrent": _DENSE | {"recWeight", "weight_rec", "delay_rec", "weight_rec_exp"},
    # theta, tauRho, scaleRho and wgtExp are what lava-dl wrote before it had a CUBA neuron.
    "neuron": frozenset({"type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "messageBits"})
    | {"biasExp", "reset", "membraneBits", "fullScaleExp", "vInit", "uInit"}
    | {"theta", "tauRho", "scaleRho", "wgtExp", "weight_exp"},
    "simulation": frozenset({"Ts", "tSample"}),
    "delaynet": frozenset({"version", "dt_ms", "task", "profile", "provenance", "decision", "tail", KEY}),
    "root": frozenset({"layer", "simulation", "delaynet"}),
}
_REFUSED_LAYERS = {
    "conv": "convolutions",
    "convT": "transposed convolutions",
    "pool": "pooling",
    "unpool": "unpooling",
    "concat": "skip connections",
    "dense_comp": "complex weights",
}
_REFUSED_NEURONS = {
    "SDNN": "sigma-delta neurons",
    "RF": "resonate-and-fire neurons",
    "RF_PHASE": "resonate-and-fire neurons",
    "RF_IZHIKEVICH": "resonate-and-fire neurons",
    "ALIF": "adaptive thresholds",
    "ADRF_PHASE": "adaptive resonate-and-fire neurons",
    "ADRF_IZHIKEVICH": "adaptive resonate-and-fire neurons",
}
_ZERO = np.zeros((), np.int16)
_LIF_ONLY = "only input, flatten, dense, dense_rec and a last average can be read"
# Attributes of a Neuron and the keys that hold them: these always, those where they say something.
_REQUIRED = {"vth": "vThMant", "du": "iDecay", "dv": "vDecay"}
_OPTIONAL = {"bias_exp": "biasExp", "membrane_bits": "membraneBits", "full_scale_exp": "fullScaleExp"}
_STATES = {"v_init": "vInit", "u_init": "uInit"}
SRC_KEYS = {
    "decay": "iDecay", "shift": "inShift", "slow": "slow", "output_bits": "outputBits", "squash": "squash",
    "activation": "activation",
}  # fmt: skip
"""Attributes of a :class:`Src` and the keys that hold them, beside the layer's bias."""
_NEURON_KEYS = {
    name: f"neuron/{key}" for name, key in (_REQUIRED | _OPTIONAL | _STATES | {"reset": "reset"}).items()
}


@dataclass
class _Stack:
    """What the layers read so far amount to."""

    layers: list[Layer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    input_shape: tuple[int, ...] = ()
    size: int = 0  # number of outputs of the last layer, 0 where nothing is known yet
    unordered: tuple[int, ...] = ()  # shape of an input that has not been flattened
    average: int | None = None
    payload: Payload | None = None
    index: int = 0

    def note(self, group: Group, key: str, text: str) -> None:
        self.notes.append(f"{group.at(key)} {text}")

    def note_unknown(self, group: Group, known: frozenset[str]) -> None:
        unknown = sorted(group.keys - known)
        if unknown:
            names = ", ".join(ascii(name[:40]) for name in unknown[:8]) + (
                ", ..." if len(unknown) > 8 else ""
            )
            self.notes.append(f"{group.name}: unknown keys are ignored: {names}")


@contextlib.contextmanager
def _named(group: Group, keys: dict[str, str]) -> Iterator[None]:
    """Name an error of the representation by the key of the file that it came from."""
    try:
        yield
    except InputError as error:
        raise group.refuse(keys.get(error.where, error.where), error.problem, error.remedy) from error


def _whole(group: Group, key: str, low: int, high: int) -> np.ndarray:
    """int64, the shape of the dataset; every value whole and in a closed range."""
    array = group.array(key, MAX_FEW)
    if array.size == 0:
        raise group.refuse(key, "is empty")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    good = np.isfinite(array) & (array == np.rint(array)) & (array >= low) & (array <= high)
    if not good.all():
        raise group.refuse(key, f"is {array[~good].flat[0]}, expected whole numbers from {low} to {high}")
    return array.astype(np.int64)


def _one(group: Group, key: str, low: int, high: int, absent: int | None = None) -> int:
    """One whole number in a closed range; ``absent``, where it is given, stands for a missing key."""
    if absent is not None and not group.has_value(key):
        return absent
    array = _whole(group, key, low, high)
    if array.size != 1:
        raise group.refuse(key, f"has shape {array.shape}, expected one value")
    return int(array.reshape(-1)[0])


def _decays(group: Group, key: str) -> np.ndarray:
    """One value, or one for each neuron, as lava-dl writes them of neurons that do not share theirs."""
    array = group.array(key, MAX_SHARED)
    if array.size == 0:
        raise group.refuse(key, "is empty")
    return array.reshape(-1) if array.size > 1 else array.reshape(())


def _per_layer(group: Group, key: str) -> np.ndarray:
    """The one value of a parameter, which may stand there once for each neuron."""
    array = _decays(group, key)
    if array.size > 1 and not (array == array.flat[0]).all():
        raise group.refuse(
            key,
            f"has {len(np.unique(array))} different values in shape {array.shape}, expected one a layer",
            "train with shared_param=True",
        )
    return array.reshape(-1)[0]


def _shape(layer: Group) -> tuple[int, ...]:
    shape = tuple(int(n) for n in _whole(layer, "shape", 1, MAX_ELEMENTS).reshape(-1))
    if len(shape) > 8 or math.prod(shape) > MAX_ELEMENTS:
        raise layer.refuse("shape", f"is {shape[:8]}, more than {MAX_ELEMENTS} neurons or 8 dimensions")
    return shape


def _cells(layer: Group, group: Group, stack: _Stack, bias: np.ndarray) -> Src:
    parameters: dict[str, Any] = {
        name: group.text(key) if name in ("squash", "activation") else group.array(key, MAX_FEW)
        for name, key in SRC_KEYS.items()
    }
    stack.note_unknown(group, frozenset(SRC_KEYS.values()) | {"type"})
    with _named(layer, {name: f"neuron/{key}" for name, key in SRC_KEYS.items()}):
        return Src(bias, **parameters)


def _neuron(layer: Group, stack: _Stack, bias: np.ndarray = _ZERO) -> Neuron | Src:
    if "neuron" not in layer.keys:
        with _named(layer, {}):
            # NetX's neuron for a layer without one; it never spikes and never forgets its current.
            return Neuron(vth=1 << 17, du=0, dv=fx.DECAY_ONE, bias=bias)
    group = layer.group("neuron")
    kind = group.text("type")
    if kind == "SRC":
        return _cells(layer, group, stack, bias)
    if kind not in ("CUBA", "LOIHI"):
        what = _REFUSED_NEURONS.get(kind, "unknown to this package")
        raise group.refuse("type", f"is {kind!r} ({what})", "only CUBA (or LOIHI) and SRC can be read")
    for key in ("gradedSpike", "messageBits"):
        if group.has_value(key) and np.any(group.array(key, MAX_FEW)):
            raise group.refuse(key, "is not zero: graded spikes", "only binary spikes can be read")
    parameters: dict[str, Any] = {
        name: (_decays if name in ("du", "dv") else _per_layer)(group, key) for name, key in _REQUIRED.items()
    }
    parameters |= {name: group.array(key, MAX_FEW) for name, key in _OPTIONAL.items() if key in group.keys}
    parameters |= {name: group.array(key) for name, key in _STATES.items() if key in group.keys}
    if "reset" in group.keys:
        parameters["reset"] = group.text("reset")
    with _named(layer, _NEURON_KEYS):
        neuron = Neuron(**parameters, bias=bias)
    for key, neutral in (
        ("refDelay", 1),
        ("wgtExp", 0),
        ("weight_exp", 0),
        ("theta", neuron.vth << fx.STATE_SHIFT),
    ):
        if key in group.keys and np.any(group.array(key, MAX_FEW) != neutral):
            stack.note(group, key, f"is not {neutral}; it is ignored, as stock NetX does")
    stack.note_unknown(group, _KEYS["neuron"])
    return neuron


def _input(layer: Group, kind: str, stack: _Stack) -> None:
    if stack.index:
        raise layer.refuse("type", "is 'input', which only layer 0 can be")
    if "messageBits" in layer.keys:
        bits = _one(layer, "messageBits", 0, fx.PAYLOAD_BITS_MAX)
        with _named(layer, {"payload_signed": "messageSigned"}):
            stack.payload = Payload(bits, bool(_one(layer, "messageSigned", 0, 1, absent=0)))
    if "neuron" not in layer.keys:
        stack.note_unknown(layer, _KEYS["input"])
        stack.input_shape = _shape(layer) if "shape" in layer.keys else ()
    else:
        stack.note_unknown(layer, _KEYS["encoder"])
        stack.input_shape = _shape(layer)
        neuron = _neuron(layer, stack)
        if not isinstance(neuron, Neuron):
            raise layer.refuse(
                "neuron/type", "is 'SRC' of an input, whose values have no synapse", "use CUBA"
            )
        low, high = fx.WEIGHT_MIN, fx.WEIGHT_MAX
        weight = _one(layer, "weight", low, high, absent=fx.WEIGHT_SCALE)
        bias = _one(layer, "bias", low, high, absent=0)
        with _named(layer, _NEURON_KEYS):
            stack.layers.append(Encoder(neuron, math.prod(stack.input_shape), weight, bias))
    stack.size = math.prod(stack.input_shape) if stack.input_shape else 0
    stack.unordered = stack.input_shape


def _flatten(layer: Group, kind: str, stack: _Stack) -> None:
    stack.note_unknown(layer, _KEYS[kind])
    stack.unordered = ()
    if "shape" in layer.keys:
        shape = _shape(layer)
        if stack.size and math.prod(shape) != stack.size:
            raise layer.refuse("shape", f"is {shape}, but {stack.size} values come in")
        stack.size = math.prod(shape)
        stack.input_shape = stack.input_shape or (stack.size,)


def _matrix(layer: Group, key: str, size: int) -> np.ndarray:
    """(size, pre), from two dimensions or, as NetX does, from one."""
    if key in layer.keys and layer.is_group(key):
        raise layer.refuse(key, "is a group: complex weights", "only real weights can be read")
    array = layer.array(key)
    if array.ndim == 1 and array.size and array.size % size == 0:
        array = array.reshape(size, -1)
    if array.ndim != 2 or array.shape[0] != size:
        raise layer.refuse(key, f"has shape {array.shape}, but the layer has {size} neurons")
    return array


def _odd(layer: Group, key: str, weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights and exponent; odd words are halves of 8-bit ones, doubled here under an exponent one lower."""
    exponent = _one(
        layer, "weight_exp" if key == "weight" else "weight_rec_exp", 0, fx.WEIGHT_EXP_MAX, absent=0
    )
    with np.errstate(invalid="ignore"):
        odd = weight % 2 == 1
    if not odd.any():
        return weight, exponent
    low, high = fx.WEIGHT_MIN // 2, (fx.WEIGHT_MAX + 1) // 2
    if weight.min() < low or weight.max() > high:
        raise layer.refuse(
            key,
            f"has odd values, {weight[odd].flat[0]:g} is one, and reaches from {weight.min():g} to "
            f"{weight.max():g}, which takes 9 bits; 8-bit words are odd from {low} to {high}, or even",
            "quantise to 8 bits",
        )
    return weight.astype(np.int64) * 2, exponent - 1


def _delay(layer: Group, key: str, shape: tuple[int, int]) -> np.ndarray:
    """Delays of one synapse, as NetX reads them: one for all, one a neuron, or a full matrix."""
    if key not in layer.keys:
        return _ZERO
    delay, (post, pre) = layer.array(key), shape
    if delay.ndim == 0:
        return delay
    if delay.ndim == 1 and key == "delay":
        if delay.size == post:
            return np.repeat(delay.reshape(-1, 1), pre, axis=1)
        if delay.size == pre:
            return np.repeat(delay.reshape(1, -1), post, axis=0)
    if delay.shape != shape:
        raise layer.refuse(key, f"has shape {delay.shape} but the weights have {shape}")
    return delay


def _delay_rec(layer: Group, shape: tuple[int, int], forward: np.ndarray, stack: _Stack) -> np.ndarray:
    """Delays of the recurrent synapse; stock NetX gives it those of the input synapse."""
    post, pre = shape
    if "delay_rec" in layer.keys:
        return _delay(layer, "delay_rec", (post, post))
    if not np.any(forward):
        return _ZERO
    if post != pre:
        raise layer.refuse(
            "delay_rec",
            f"is missing: stock NetX gives 'delay' to both synapses, but they differ in shape, "
            f"{shape} and {(post, post)}",
            "write delay_rec as a (post, post) matrix, zeros where feedback is not delayed",
        )
    stack.note(layer, "delay", "is taken for weight_rec too, as stock NetX does; delay_rec says otherwise")
    return forward


def _dense(layer: Group, kind: str, stack: _Stack) -> None:
    size = math.prod(_shape(layer))
    weight = _matrix(layer, "weight", size)
    shape = (size, weight.shape[1])
    for key, expected in (("inFeatures", shape[1]), ("outFeatures", shape[0])):
        stated = _one(layer, key, 1, MAX_ELEMENTS, absent=expected)
        if stated != expected:
            raise layer.refuse(key, f"is {stated} but the weights have shape {shape}")
    if stack.size and shape[1] != stack.size:
        raise layer.refuse("weight", f"has shape {shape}, but {stack.size} values come in")
    if sum(n > 1 for n in stack.unordered) > 1:
        raise layer.refuse(
            "type",
            f"is {kind!r} behind an input of shape {stack.unordered} that nothing flattens",
            "put a flatten layer in between",
        )
    bias = layer.array("bias") if "bias" in layer.keys else _ZERO
    neuron = _neuron(layer, stack, bias)
    delay = _delay(layer, "delay", shape)
    weight, exponent = _odd(layer, "weight", weight)
    with _named(layer, {}):
        synapse = Synapse(weight, delay, exponent)
    recurrent = None
    if kind != "dense":
        word = "recWeight" if kind == "recurrent" and "recWeight" in layer.keys else "weight_rec"
        weight_rec = _matrix(layer, word, size)
        delay_rec = _delay_rec(layer, shape, synapse.delay, stack)
        if weight_rec.shape != (size, size):
            raise layer.refuse(word, f"has shape {weight_rec.shape}, expected {(size, size)}")
        weight_rec, exponent = _odd(layer, word, weight_rec)
        with _named(layer, {"weight": word, "delay": "delay_rec", "weight_exp": "weight_rec_exp"}):
            recurrent = Synapse(weight_rec, delay_rec, exponent)
    with _named(layer, _NEURON_KEYS):
        stack.layers.append(Dense(synapse, neuron, recurrent))
    misspelt = sorted(layer.keys & {"delays", "delays_rec"})
    if misspelt:
        named = " and ".join(misspelt)
        stack.note(
            layer, named, "are ignored, as stock NetX does: no spike is late; it reads delay, delay_rec"
        )
    stack.note_unknown(layer, _KEYS[kind] | set(misspelt))
    stack.input_shape = stack.input_shape or (shape[1],)
    stack.size, stack.unordered = size, ()


def _average(layer: Group, kind: str, stack: _Stack) -> None:
    stack.note_unknown(layer, _KEYS[kind])
    groups = _shape(layer)[0]
    if not stack.layers:
        raise layer.refuse("type", "is 'average', but no layer with neurons comes before it")
    if stack.size % groups:
        raise layer.refuse("shape", f"asks for {groups} equal groups of {stack.size} neurons")
    stack.average = groups


_READERS: dict[str, Callable[[Group, str, _Stack], None]] = {
    "input": _input,
    "flatten": _flatten,
    "dense": _dense,
    "dense_rec": _dense,
    "recurrent": _dense,
    "average": _average,
}


def _read_layer(layer: Group, stack: _Stack) -> None:
    kind = layer.text("type")
    if stack.average is not None:
        raise layer.refuse("type", f"is {kind!r} behind an average", "an average can only be the last layer")
    if kind not in _READERS:
        what = _REFUSED_LAYERS.get(kind, "unknown to this package")
        raise layer.refuse("type", f"is {kind[:32]!r} ({what})", _LIF_ONLY)
    layer.label(f"{layer.where} ({kind})")
    _READERS[kind](layer, kind, stack)


def _json(group: Group, key: str) -> dict[str, Any]:
    def refuse(text: str) -> float:
        raise ValueError(f"{text} is not a number of JSON")

    text = group.text(key, MAX_TEXT)
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise group.refuse(key, f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise group.refuse(key, f"holds a JSON {type(value).__name__}, expected an object")
    return value


def _metadata(root: Group, stack: _Stack) -> dict[str, Any]:
    if "delaynet" not in root.keys:
        return {}
    group = root.group("delaynet")
    version = _one(group, "version", 0, 1 << 30)
    if version != FORMAT_VERSION:
        raise group.refuse(
            "version", f"is {version}, this release reads {FORMAT_VERSION}", "update delaynet_lava"
        )
    stack.note_unknown(group, _KEYS["delaynet"])
    found: dict[str, Any] = {key: _json(group, key) for key in ("task", "provenance") if key in group.keys}
    if "tail" in group.keys:
        found["tail"] = _one(group, "tail", 0, TAIL_MAX)
    if "decision" in group.keys:
        with _named(group, {}):
            found["decision"] = Decision.parse(group.text("decision"))
    if "profile" in group.keys:
        found["profile"] = group.text("profile", MAX_TEXT)
    if "dt_ms" in group.keys:
        dt_ms = group.array("dt_ms", MAX_FEW)
        if dt_ms.size != 1 or not (np.isfinite(dt_ms).all() and (dt_ms > 0).all()):
            raise group.refuse("dt_ms", f"is {dt_ms.reshape(-1)[:4]}, expected one positive number")
        found["dt_ms"] = float(dt_ms.reshape(-1)[0])
    return found


def _simulation(root: Group, stack: _Stack) -> None:
    stack.note_unknown(root, _KEYS["root"])
    if "simulation" in root.keys:
        group = root.group("simulation")
        stack.note_unknown(group, _KEYS["simulation"])
        if "Ts" in group.keys and np.any(group.array("Ts", MAX_FEW) != 1):
            stack.note(group, "Ts", "is not 1; it is ignored, as stock NetX does")


def pending(layers: Iterable[Layer]) -> int:
    """Neurons times the longest delay on their synapses, over all layers."""
    return sum(
        layer.size * max(s.max_delay for s in (layer.synapse, layer.recurrent) if s is not None)
        for layer in layers
        if isinstance(layer, Dense)
    )


def _require_netx(root: Group) -> None:
    """Call other kinds of HDF5 files by their name."""
    if "layer" in root.keys:
        return
    if {"node", "version"} <= root.keys:
        raise InputError(root.where, "is a NIR graph, not NetX", "read it with delaynet import")
    if root.attribute_text("__type__") == "NIRGraphData":
        raise InputError(root.where, "is NIRData, samples and no network", "give it to --task")
    if root.keys & {"model_weights", "_layer_checkpoint_dependencies", "layer_names", "layers"}:
        raise InputError(root.where, "is a Keras file, not NetX", "export it with its framework's NIR writer")


def seal(root: Group) -> Seal:
    """The hash that a file states, and that of all groups and data in it.

    Raises:
        InputError: something in it can't be read.
    """
    stated = None
    if "delaynet" in root.keys and KEY in (metadata := root.group("delaynet")).keys:
        stated = metadata.text(KEY)
    digest = Digest()

    def take(group: Group, skip: frozenset[str], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InputError(group.name, f"has more than {MAX_DEPTH} levels")

        def put(key: str) -> None:
            if group.is_group(key):
                own = depth == 0 and key == "delaynet"
                take(group.group(key), frozenset({KEY} if own else ()), depth + 1)
            elif group.is_text(key):
                digest.value(group.text(key, MAX_TEXT))
            else:
                digest.numbers(group.array(key))

        digest.table(group.keys - skip, put)

    take(root.again(), frozenset(), 0)
    return Seal(stated, digest.hexdigest())


def read_network(root: Group) -> tuple[Network, list[str]]:
    """The network in an open file, and notes on what was ignored but matters.

    Raises:
        InputError: naming the layer and the key.
    """
    _require_netx(root)
    stack = _Stack()
    metadata = _metadata(root, stack)
    _simulation(root, stack)
    layers = root.group("layer")
    count = len(layers.keys)
    if count > MAX_LAYERS:
        raise root.refuse("layer", f"holds {count} layers, more than {MAX_LAYERS}")
    stray = sorted(layers.keys - {str(k) for k in range(count)})
    if stray:
        raise root.refuse("layer", f"holds {stray[0][:40]!a}, expected layers numbered 0 to {count - 1}")
    for stack.index in range(count):
        _read_layer(layers.group(str(stack.index), f"{root.where}: layer {stack.index}"), stack)
    if not stack.layers:
        raise root.refuse("layer", f"holds {count} layers, none of them with neurons")
    kept = pending(stack.layers)
    if kept > MAX_PENDING:
        raise root.refuse(
            "layer",
            f"keeps {kept} inputs pending, more than {MAX_PENDING} (neurons times longest delay)",
            "use shorter delays or a coarser time step",
        )
    with _named(root, {}):
        network = Network(
            tuple(stack.layers), stack.input_shape, stack.average, input_payload=stack.payload, **metadata
        )
    if "delaynet" in root.keys and (note := seal(root).require(root.where)):
        stack.notes.append(note)
    return network, stack.notes
