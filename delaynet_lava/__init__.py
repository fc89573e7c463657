"""Recurrent spiking networks with axonal delays, from SLAYER to Loihi 2 without losing a bit."""

from delaynet_lava._version import __version__

__all__ = ["__version__"]
