"""Layers as Lava processes, with the attributes of NetX's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from delaynet_lava import fixedpoint as fx
from delaynet_lava import network as ir
from delaynet_lava.errors import InputError
from delaynet_lava.lava.neurons import neuron_process
from delaynet_lava.lava.synapses import synapse_process

__all__ = [
    "Block",
    "BlockModel",
    "Dense",
    "DenseModel",
    "Input",
    "InputModel",
    "RecurrentDense",
    "RecurrentDenseModel",
    "build_blocks",
    "require_supported",
]


class Block(AbstractProcess):
    """A layer of neurons with what leads to it.

    Attributes:
        neuron: LIF, of the shape (W, H, C) that NetX gives to an input layer or (neurons,); or SRC.
        inp, out: ports to the layers before and after.
        shape: of the output.
        input_message_bits, output_message_bits: of the payloads that come in and go out; 0: spikes.
    """

    def __init__(
        self, *, layer: ir.Layer, shape: tuple[int, ...], message_bits: int = 0, **neuron_params: Any
    ) -> None:
        super().__init__(shape=shape)
        self.shape = shape
        self.input_message_bits, self.output_message_bits = message_bits, _message_bits(layer.neuron.sends)
        neuron = layer.neuron
        if isinstance(layer, ir.Encoder):
            # The input is all there is to an encoder's current: nothing of it lasts.
            neuron = replace(layer.neuron, du=fx.DECAY_ONE)
        self.neuron = neuron_process(neuron, shape, **neuron_params)
        self.out = OutPort(shape=shape)
        self.neuron.s_out.connect(self.out)

    @property
    def block(self) -> str:
        """Kind of the block."""
        return type(self).__name__


class Input(Block):
    """An :class:`~delaynet_lava.network.Encoder`: neurons that take ``weight * x + bias``.

    The value may come in through ``inp``, or be written to ``neuron.bias_mant`` at every step as
    with NetX's block; either way it acts in the step in which it is there.

    Attributes:
        transform: {"weight": int, "bias": int}.
    """

    def __init__(self, *, layer: ir.Encoder, shape: tuple[int, ...], **neuron_params: Any) -> None:
        super().__init__(layer=layer, shape=shape, **neuron_params)
        self.transform = {"weight": layer.weight, "bias": layer.bias}
        self.inp = InPort(shape=shape)
        self.inp.connect(self.neuron.a_in)


class Dense(Block):
    """A :class:`~delaynet_lava.network.Dense` layer without recurrent connections.

    Attributes:
        synapse: Lava's Dense or DelayDense.
    """

    def __init__(self, *, layer: ir.Dense, shape: tuple[int, ...], **neuron_params: Any) -> None:
        super().__init__(layer=layer, shape=shape, **neuron_params)
        self.synapse = synapse_process(layer.synapse, self.input_message_bits)
        self.inp = InPort(shape=self.synapse.s_in.shape)
        self.inp.connect(self.synapse.s_in)
        self.synapse.a_out.connect(self.neuron.a_in)


class RecurrentDense(Dense):
    """A :class:`~delaynet_lava.network.Dense` layer whose spikes come back to it.

    Attributes:
        synapse_rec: Lava's Dense or DelayDense, with delays and an exponent of its own.
    """

    def __init__(self, *, layer: ir.Dense, shape: tuple[int, ...], **neuron_params: Any) -> None:
        assert layer.recurrent is not None
        super().__init__(layer=layer, shape=shape, **neuron_params)
        self.synapse_rec = synapse_process(layer.recurrent, _message_bits(layer.neuron.sends))
        self.neuron.s_out.connect(self.synapse_rec.s_in)
        self.synapse_rec.a_out.connect(self.neuron.a_in)


@requires(CPU)
@tag("fixed_pt")
class BlockModel(AbstractSubProcessModel):
    """A block is nothing beside its processes, which it joins when it is made."""

    def __init__(self, proc: Block) -> None:
        pass


@implements(proc=Input, protocol=LoihiProtocol)
class InputModel(BlockModel):
    """Process model of :class:`Input`."""


@implements(proc=Dense, protocol=LoihiProtocol)
class DenseModel(BlockModel):
    """Process model of :class:`Dense`."""


@implements(proc=RecurrentDense, protocol=LoihiProtocol)
class RecurrentDenseModel(BlockModel):
    """Process model of :class:`RecurrentDense`."""


def require_supported(network: ir.Network) -> None:
    """Refuse delays and membranes that Lava and the chip do not have.

    Raises:
        InputError: names layer, what it has and the limit.
    """
    for k, layer in enumerate(network.layers):
        if layer.neuron.membrane_bits != fx.MEMBRANE_BITS:
            raise InputError(
                f"layer {k}: membrane_bits",
                f"{layer.neuron.membrane_bits}, but Lava and the chip have {fx.MEMBRANE_BITS}",
                "use the emulator",
            )
        for name in ("synapse", "recurrent"):
            synapse = getattr(layer, name)
            if synapse is not None and synapse.max_delay > fx.MAX_DELAY:
                where = f"layer {k}: {'delay' if name == 'synapse' else 'delay_rec'}"
                raise InputError(
                    where,
                    f"{synapse.max_delay} steps is more than the {fx.MAX_DELAY} that Lava and the chip take",
                    "legalise the delays at export, or use the emulator",
                )


def _message_bits(payload: ir.Payload) -> int:
    """All 24 for payloads of any size: Lava checks none of them, and a board's adapter has no others."""
    return fx.PAYLOAD_BITS_MAX if payload.bits else 0


def build_blocks(network: ir.Network, neuron_params: Sequence[dict[str, Any]] | None = None) -> list[Block]:
    """A block a layer, each connected to the next.

    Args:
        neuron_params: for each layer, what its neuron's process hands to its process model.

    Raises:
        InputError: a delay beyond 62, or a membrane of fewer bits.
    """
    require_supported(network)
    blocks: list[Block] = []
    for k, layer in enumerate(network.layers):
        params = dict(
            neuron_params[k] if neuron_params else {}, message_bits=_message_bits(network.payload_into(k))
        )
        if isinstance(layer, ir.Encoder):
            block: Block = Input(layer=layer, shape=network.input_shape[::-1], **params)
        elif layer.recurrent is not None:
            block = RecurrentDense(layer=layer, shape=(layer.size,), **params)
        else:
            block = Dense(layer=layer, shape=(layer.size,), **params)
        if blocks:
            out = blocks[-1].out
            if len(out.shape) > 1:
                out = out.transpose(list(range(len(out.shape)))[::-1]).flatten()
            out.connect(block.inp)
        blocks.append(block)
    return blocks
