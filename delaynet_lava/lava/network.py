"""NetX's ``hdf5.Network``, with the delayed recurrent block built as the file says."""

from __future__ import annotations

import math
import os
from typing import Any

from lava.magma.core.decorator import implements
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from delaynet_lava import network as ir
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.lava.blocks import Block, BlockModel, build_blocks, require_supported
from delaynet_lava.lava.simulation import building
from delaynet_lava.quiet import quiet_import

with quiet_import():
    from lava.lib.dl.netx import hdf5
    from lava.lib.dl.netx.utils import NetDict

__all__ = ["Network", "NetworkModel"]


class Network(hdf5.Network):
    """A ``net.h5`` as a Lava process: a drop-in for ``lava.lib.dl.netx.hdf5.Network``.

    Feed-forward and recurrent synapse have delays and exponents of their own, weights keep their
    8 bits, and nothing is clamped. The graph is made of Lava's stock processes and compiles for the
    simulator and, unless a layer subtracts at its reset, for a board.

    Args:
        net_config: path of the file, or a :class:`delaynet_lava.network.Network`.
        num_layers: only the file's layers before this one; None: all. Not for a network object.
        skip_layers: leave out the file's layers before this one. Not for a network object.
        input_shape: checked against the number of input channels.
        reset_offset, spike_exp: without effect, as in NetX where there is no ``reset_interval`` and
            no graded spike.
        input_message_bits: 0, or what the network's payload has; a file that does not say what comes in
            takes payloads of so many bits then.
        reset_interval, sparse_fc_layer: only at their defaults.

    Attributes:
        network: what was built, a :class:`delaynet_lava.network.Network`.
        layers: a block a layer, with ``neuron``, ``synapse``, ``synapse_rec``, ``inp``, ``out``.
        in_layer, out_layer, inp, out, net_str, net_config: as NetX's. A last average layer is not
            part of the graph; ``network.average`` holds it.

    Raises:
        InputError: a file that cannot be read, a delay beyond 62, or an option that is not
            supported.
    """

    # Lava's destructor asks for it, also where the constructor raised before it was set.
    _runtime = None

    def __init__(
        self,
        net_config: str | os.PathLike | ir.Network,
        num_layers: int | None = None,
        skip_layers: int | None = 0,
        input_message_bits: int | None = 0,
        input_shape: tuple[int, ...] | None = None,
        reset_interval: int | None = None,
        reset_offset: int = 0,
        spike_exp: int = 6,
        sparse_fc_layer: bool = False,
    ) -> None:
        _refuse(
            "reset_interval",
            reset_interval,
            None,
            "it would not reset the spikes under way; run samples one by one with delaynet_lava.lava.run",
        )
        _refuse("sparse_fc_layer", bool(sparse_fc_layer), False, "Lava's sparse synapses are not supported")
        self.num_layers, self.skip_layers = num_layers, skip_layers or 0
        self.input_shape = input_shape
        self.reset_interval, self.reset_offset = None, reset_offset
        self.spike_exp, self.sparse_fc_layer = spike_exp, False
        if isinstance(net_config, ir.Network):
            _refuse("num_layers", num_layers, None, "a network object is built as it is")
            _refuse("skip_layers", self.skip_layers, 0, "a network object is built as it is")
            self.filename, self.network = None, net_config
        else:
            self.filename = os.fspath(net_config)
            self.network = netx.read(self.filename)
            self.net_config = NetDict(self.filename)
            if num_layers is not None or self.skip_layers:
                self.network = self._part(self.network)
        if input_message_bits:
            self.network = _taking(self.network, input_message_bits)
        self.input_message_bits = self.network.payload.bits
        if input_shape is not None and math.prod(input_shape) != self.network.channels:
            raise InputError(
                "input_shape", f"{input_shape} does not hold {self.network.channels} input channels"
            )
        require_supported(self.network)
        with building():
            # NetX's own constructor knows files only.
            AbstractProcess.__init__(
                self, net_config=net_config, num_layers=num_layers, input_message_bits=input_message_bits
            )
            self.net_str = ""
            self.layers = self._create()
            self.in_layer, self.out_layer = self.layers[0], self.layers[-1]
            self.inp, self.out = (
                InPort(shape=self.in_layer.inp.shape),
                OutPort(shape=self.out_layer.out.shape),
            )
            self.inp.connect(self.in_layer.inp)
            self.out_layer.out.connect(self.out)
            self.output_message_bits = self.out_layer.output_message_bits

    def _create(self) -> list[Block]:
        layers = build_blocks(self.network)
        rows = [self._table_str(header=True)]
        for layer, block in zip(self.network.layers, layers, strict=True):
            synapses = [s for s in (layer.synapse, layer.recurrent) if s is not None]
            width, height, channels = (1, 1, layer.size)
            if len(block.shape) > 1:
                width, height, channels = (*block.shape, 1)[:3]
            rows.append(
                self._table_str(
                    type_str="Input" if isinstance(layer, ir.Encoder) else "Dense",
                    width=width,
                    height=height,
                    channel=channels,
                    delay=any(s.max_delay for s in synapses),
                )
            )
        self.net_str = "\n".join(rows)
        return layers

    def _part(self, network: ir.Network) -> ir.Network:
        """The layers that ``num_layers`` and ``skip_layers`` leave, both in the file's count."""
        config: Any = self.net_config["layer"]
        stop = len(config) if self.num_layers is None else min(len(config), self.num_layers)
        kinds = [config[k]["type"] for k in range(len(config))]
        numbers = [
            k
            for k, kind in enumerate(kinds)
            if kind in ("dense", "dense_rec") or (kind == "input" and "neuron" in config[k].f)
        ]
        kept = [
            layer for k, layer in zip(numbers, network.layers, strict=True) if self.skip_layers <= k < stop
        ]
        if not kept:
            raise InputError(
                "num_layers, skip_layers",
                f"{self.num_layers} and {self.skip_layers} leave no neurons of {len(config)} layers",
            )
        whole_start, whole_end = kept[0] is network.layers[0], stop == len(config)
        return network.with_(
            layers=tuple(kept),
            input_shape=network.input_shape if whole_start else (),
            average=network.average if whole_end else None,
            input_payload=network.input_payload if whole_start else None,
            decision=network.decision if kept[-1] is network.layers[-1] else None,
        )


def _taking(network: ir.Network, bits: int) -> ir.Network:
    """The network with payloads of so many bits, sign included, where it does not say otherwise."""
    if network.input_payload is None and isinstance(network.layers[0], ir.Dense):
        return network.with_(input_payload=ir.Payload(bits, signed=True))
    if network.payload.bits != bits:
        raise InputError("input_message_bits", f"{bits}, but the network takes {network.payload}")
    return network


def _refuse(option: str, value: Any, supported: Any, reason: str) -> None:
    if value != supported:
        raise InputError(option, f"{value!r} is not supported: {reason}", f"leave it at {supported!r}")


@implements(proc=Network, protocol=LoihiProtocol)
class NetworkModel(BlockModel):
    """Process model of :class:`Network`."""
