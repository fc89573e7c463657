"""``net.h5``: the file that NetX loads, read and written without losing a bit.

Layers are ``layer/0``, ``layer/1``, ... with the keys of lava-dl's NetX, so that its stock loader
reads everything it can express:

    type, shape, inFeatures, outFeatures, weight, weight_rec, bias, delay,
    neuron/{type, iDecay, vDecay, vThMant, refDelay, gradedSpike}

``type`` is ``input``, ``flatten``, ``dense``, ``dense_rec`` or, as the last layer, ``average``
(``shape[0]`` groups of output neurons). An input with a neuron is an
:class:`~delaynet_lava.network.Encoder`. Beside them stand keys of our own, each only where it says
something that NetX's keys do not:

    delay, delay_rec            int16 (post, pre) matrices, time steps; absent: all zero. A
                                recurrent layer has both or neither.
    weight_exp, weight_rec_exp  exponents of the synapses; absent: 0. Odd words, of -128 to 127, are
                                halves of 8-bit words, as stock NetX reads them: exponent -1.
    neuron/biasExp              exponent of the bias; absent: 6
    neuron/reset                "subtract"; absent: "zero"
    neuron/{membraneBits, fullScaleExp}     a membrane of fewer bits; absent: 24 and 23
    neuron/{vInit, uInit}       int32 (neurons,) or one value, state before step 0; absent: 0
    neuron/type                 "SRC": Spiking Recurrent Cells, whose bias is b_h, with
    neuron/{iDecay, inShift, slow, outputBits}      whole numbers, and
    neuron/{squash, activation}     words, all of :class:`~delaynet_lava.network.Src`. Cells begin at rest.
    layer/0/{messageBits, messageSigned}    bits of the whole numbers that come in, and whether one is the
                                sign (NetX has messageBits for what neurons send); absent: spikes, and
                                8 bits without sign for an input with a neuron
    delaynet/version            1; a group at the root, with
    delaynet/sha256             hash of everything else, see formats.content_hash
    delaynet/{dt_ms, profile, task, provenance}     the last two JSON objects
    delaynet/tail               steps without input behind each sample; absent: 0
    delaynet/decision           how the network answers (:class:`~delaynet_lava.network.Decision` as
                                text); absent: "last" of a readout, "count" of spiking neurons
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from typing import Any

import h5py
import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.files import replace_file
from delaynet_lava.formats.content_hash import KEY
from delaynet_lava.formats.netx_read import (
    FORMAT_VERSION,
    MAX_LAYERS,
    MAX_PENDING,
    MAX_TEXT,
    SRC_KEYS,
    pending,
    read_network,
    seal,
)
from delaynet_lava.formats.untrusted_hdf5 import MAX_BYTES, MAX_ELEMENTS, open_untrusted, root_of
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Src, Synapse

__all__ = ["NetxWarning", "read", "write", "write_layer"]


# Stands where the hash will be until all else is written.
_PLACE = hashlib.sha256(b"the place of the hash").hexdigest().encode()


class NetxWarning(UserWarning):
    """A key that stock NetX ignores, so we do too, although another tool may not."""


def read(path: str | os.PathLike) -> Network:
    """Read a ``net.h5``: ours, stock lava-dl's (old keys too), or another exporter's.

    Nothing in the file is executed, nothing outside it is opened, sizes are checked before they are
    read, and the HDF5 library, which trusts its input, does not see it. A layer without keys of
    ours means what stock NetX makes of it; only the delays that NetX would clamp to 62 stay as they
    are, for the rules of a profile to judge.

    Raises:
        InputError: the file, the layer and the key that can't be used, and why.

    Warns:
        NetxWarning: a key was ignored that could mean something elsewhere.
    """
    network, notes = read_network(open_untrusted(path))
    for note in notes:
        warnings.warn(note, NetxWarning, stacklevel=2)
    return network


def write(network: Network, path: str | os.PathLike) -> None:
    """Write a ``net.h5``; the same network always gives the same bytes.

    The file appears complete or not at all: it is built in memory, written beside its place,
    synced and renamed. ``task`` and ``provenance`` become JSON, which turns tuples into lists and
    keys into strings.

    Raises:
        InputError: the place can't be written, ``task`` or ``provenance`` do not fit JSON, or the
            network is beyond what :func:`read` accepts.
    """
    where = os.fspath(path)
    if pending(network.layers) > MAX_PENDING:
        problem = f"would keep {pending(network.layers)} inputs pending, more than {MAX_PENDING}"
        raise InputError(where, problem, "use shorter delays, or legalise them at export")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v108")) as file:
        _write_metadata(file.create_group("delaynet"), network, where)
        _write_layers(file.create_group("layer"), network, where)
    image = buffer.getvalue()
    if len(image) > MAX_BYTES:
        raise InputError(
            where, f"would have {len(image)} bytes, more than {MAX_BYTES}", "use a smaller network"
        )
    digest = seal(root_of(image, where)).found.encode()
    at = image.index(_PLACE)
    replace_file(path, image[:at] + digest + image[at + len(digest) :])


def _text(value: str, where: str) -> str:
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(where, f"is {value!a}, which is not Unicode text") from error
    if "\0" in value or size > MAX_TEXT:
        raise InputError(where, f"has {size} bytes or a zero character", f"at most {MAX_TEXT}, none zero")
    return value


def _json(value: dict[str, Any], where: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            where, f"does not fit JSON ({error})", "use plain numbers, strings and lists"
        ) from error


def _write_metadata(group: h5py.Group, network: Network, where: str) -> None:
    group["version"] = FORMAT_VERSION
    group[KEY] = np.array(_PLACE, "S64")
    group["dt_ms"] = float(network.dt_ms)
    group["profile"] = _text(network.profile, f"{where}: profile")
    task = {"word": network.task} if network.task else {}
    for key, value in (("task", task), ("provenance", network.provenance)):
        group[key] = _text(_json(value, f"{where}: {key}"), f"{where}: {key}")
    if network.tail:
        group["tail"] = network.tail
    if network.decision is not None:
        group["decision"] = str(network.decision)


def _write_layers(group: h5py.Group, network: Network, where: str) -> None:
    def new(kind: str, shape: tuple[int, ...]) -> h5py.Group:
        return _headed(group.create_group(str(len(group))), kind, shape)

    first = new("input", network.input_shape)
    if network.input_payload is not None:
        first["messageBits"], first["messageSigned"] = network.payload.bits, network.payload.signed
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Encoder):
            first["weight"], first["bias"] = layer.weight, layer.bias
            _write_neuron(first.create_group("neuron"), layer.neuron)
        if index == 0 and len(network.input_shape) > 1:
            new("flatten", (network.channels, 1, 1))
        if isinstance(layer, Dense):
            write_layer(group.create_group(str(len(group))), layer, f"{where}: layer {index}")
    if network.average is not None:
        new("average", (network.average, 1, 1))
    if len(group) > MAX_LAYERS:
        raise InputError(where, f"would have {len(group)} layers, more than {MAX_LAYERS}")


def _headed(group: h5py.Group, kind: str, shape: tuple[int, ...]) -> h5py.Group:
    group["type"] = np.array([kind], "S10")
    group["shape"] = np.array(shape, np.int64)
    return group


def write_layer(group: h5py.Group, layer: Dense, where: str = "layer") -> None:
    """Write one dense or recurrent layer into an empty HDF5 group.

    Raises:
        InputError: the layer is beyond what :func:`read` accepts.
    """
    synapse, recurrent, neuron = layer.synapse, layer.recurrent, layer.neuron
    post, pre = synapse.shape
    _headed(group, "dense" if recurrent is None else "dense_rec", (post,))
    if max(post, pre) * post > MAX_ELEMENTS:
        raise InputError(where, f"has {post} neurons and {pre} inputs, more than {MAX_ELEMENTS} synapses")
    group["inFeatures"], group["outFeatures"] = pre, post
    group["weight"], exponent = _words(synapse)
    # Without delay_rec, delay stands for both synapses: both or neither are written.
    delayed = any(np.any(s.delay) for s in (synapse, recurrent) if s is not None)
    if delayed:
        group["delay"] = synapse.delay
    if exponent:
        group["weight_exp"] = exponent
    if recurrent is not None:
        group["weight_rec"], exponent = _words(recurrent)
        if delayed:
            group["delay_rec"] = recurrent.delay
        if exponent:
            group["weight_rec_exp"] = exponent
    if np.ndim(neuron.bias) or np.any(neuron.bias):
        group["bias"] = neuron.bias
    _write_neuron(group.create_group("neuron"), neuron)


def _words(synapse: Synapse) -> tuple[np.ndarray, int]:
    """Weights and exponent of a file; halves as the odd words that stock NetX reads."""
    if synapse.weight_exp < 0:
        return synapse.weight >> 1, 0
    return synapse.weight, synapse.weight_exp


def _write_neuron(group: h5py.Group, neuron: Neuron | Src) -> None:
    if isinstance(neuron, Src):
        group["type"] = "SRC"
        for name, key in SRC_KEYS.items():
            group[key] = getattr(neuron, name)
        return
    group["type"] = "CUBA"
    group["iDecay"], group["vDecay"], group["vThMant"] = neuron.du, neuron.dv, neuron.vth
    group["refDelay"], group["gradedSpike"] = 1, False
    if neuron.bias_exp != fx.BIAS_EXP:
        group["biasExp"] = neuron.bias_exp
    if neuron.reset != "zero":
        group["reset"] = neuron.reset
    if neuron.membrane_bits != fx.MEMBRANE_BITS:
        group["membraneBits"], group["fullScaleExp"] = neuron.membrane_bits, neuron.full_scale_exp
    for key, state in (("vInit", neuron.v_init), ("uInit", neuron.u_init)):
        if np.any(state):
            group[key] = state
