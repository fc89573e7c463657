"""SLAYER blocks with axonal delays inside the recurrent loop. Needs lava-dl (Python 3.10)."""

from delaynet_lava.errors import BackendMissing
from delaynet_lava.quiet import quiet_import

try:
    with quiet_import():
        import lava.lib.dl.slayer  # noqa: F401
except ImportError as error:
    raise BackendMissing("delaynet_lava.nn", "lava-dl", str(error)) from error

from delaynet_lava.lattice import PAPER_SHARES, delay_groups, lattice_delays, lattice_positions
from delaynet_lava.nn.adaptive import AdaptiveRecurrent
from delaynet_lava.nn.blocks import Neuron
from delaynet_lava.nn.dense import Dense, Readout
from delaynet_lava.nn.recurrent import DelayRecurrent

__all__ = [
    "PAPER_SHARES",
    "AdaptiveRecurrent",
    "DelayRecurrent",
    "Dense",
    "Neuron",
    "Readout",
    "delay_groups",
    "lattice_delays",
    "lattice_positions",
]
