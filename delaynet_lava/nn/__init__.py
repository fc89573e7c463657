"""SLAYER blocks with axonal delays inside the recurrent loop, and lattices of delays."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from delaynet_lava.nn.lattice import PAPER_SHARES, delay_groups, lattice_delays, lattice_positions

if TYPE_CHECKING:
    from delaynet_lava.nn.adaptive import AdaptiveRecurrent
    from delaynet_lava.nn.axon import Axon
    from delaynet_lava.nn.blocks import Neuron
    from delaynet_lava.nn.cell import SpikingRecurrentCell
    from delaynet_lava.nn.dense import Dense, Readout
    from delaynet_lava.nn.recurrent import DelayRecurrent

__all__ = [
    "PAPER_SHARES",
    "AdaptiveRecurrent",
    "Axon",
    "DelayRecurrent",
    "Dense",
    "Neuron",
    "Readout",
    "SpikingRecurrentCell",
    "delay_groups",
    "lattice_delays",
    "lattice_positions",
]

# Imported when first asked for: they bring torch, which the lattice and the rest do without.
_BLOCKS = {
    "AdaptiveRecurrent": "adaptive",
    "Axon": "axon",
    "DelayRecurrent": "recurrent",
    "Dense": "dense",
    "Neuron": "blocks",
    "Readout": "dense",
    "SpikingRecurrentCell": "cell",
}


def __getattr__(name: str) -> Any:
    if name not in _BLOCKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_BLOCKS[name]}"), name)
