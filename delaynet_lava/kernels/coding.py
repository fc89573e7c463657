"""Intensities as rates of spikes."""

from __future__ import annotations

import numba as nb
import numpy as np

from delaynet_lava.kernels.compiled import compiled

__all__ = ["keys_of", "rate_coded"]

_STEP, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_RIGHT = tuple(np.uint64(n) for n in (30, 27, 31, 40))


@nb.njit(inline="always")
def _mixed(x):
    """SplitMix64's output for a state (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> _RIGHT[0])) * _FIRST
    x = (x ^ (x >> _RIGHT[1])) * _SECOND
    return x ^ (x >> _RIGHT[2])


@compiled()
def keys_of(seeds, numbers, keys):
    """Write to uint64 (N,) where the random numbers of each sample begin.

    Plain version: ``drawn`` in tests/test_mnist.py.

    Args:
        seeds: uint64 (K,), what all samples have in common. numbers: uint64 (N,), the samples'.
    """
    for n in range(numbers.shape[0]):
        key = _mixed(numbers[n] + _STEP)
        for k in range(seeds.shape[0]):
            key = _mixed(key + seeds[k] + _STEP)
        keys[n] = key


@compiled()
def rate_coded(chances, keys, spikes):
    """Spikes with a chance of their own for each channel, one step as another.

    Plain version: ``drawn`` in tests/test_mnist.py.

    Args:
        chances: int64 (N, C), of 2**24. keys: uint64 (N,), of :func:`keys_of`.
        spikes: uint8 (N, T, C), zeros, written.
    """
    steps, channels = spikes.shape[1:]
    for b in range(spikes.shape[0]):
        bright = np.flatnonzero(chances[b])
        for t in range(steps):
            for k in range(bright.shape[0]):
                j = bright[k]
                number = np.uint64(t * channels + j)
                drawn = _mixed(keys[b] + number * _STEP) >> _RIGHT[3]
                spikes[b, t, j] = np.int64(drawn) < chances[b, j]
