"""Recurrent spiking networks with axonal delays, from SLAYER to Loihi 2 without losing a bit."""

from delaynet_lava._version import __version__
from delaynet_lava.emulator import emulate
from delaynet_lava.formats.netx import read as load
from delaynet_lava.formats.netx import write as save
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse
from delaynet_lava.trace import Trace

__all__ = [
    "Dense",
    "Encoder",
    "Network",
    "Neuron",
    "Synapse",
    "Trace",
    "__version__",
    "emulate",
    "load",
    "save",
]
