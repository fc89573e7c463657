"""Fixed axonal delays for a population: groups by share, or the paper's three-dimensional lattice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["PAPER_SHARES", "delay_groups", "lattice_delays", "lattice_positions", "outwards"]

PAPER_SHARES = (0.176, 0.424, 0.400)
"""Shares of the paper's three delay groups, shortest delay first (125 neurons: 22, 53, 50)."""


def delay_groups(neurons: int, values: Sequence[int], shares: Sequence[float] = PAPER_SHARES) -> np.ndarray:
    """Delays in contiguous groups: ``values[k]`` for ``shares[k]`` of the neurons.

    Group borders are the rounded cumulative shares, so every neuron belongs to exactly one group.

    Returns:
        int64 (neurons,).

    Raises:
        InputError: lengths differ, a share is negative or the shares do not sum to 1.
    """
    if len(values) != len(shares):
        raise InputError("delay groups", f"{len(values)} values but {len(shares)} shares")
    if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
        raise InputError("delay groups", f"shares {tuple(shares)} must be >= 0 and sum to 1")
    borders = np.rint(np.cumsum(shares) * neurons).astype(int)
    return np.repeat(np.asarray(values, np.int64), np.diff(borders, prepend=0))


def lattice_positions(neurons: int, seed: int) -> np.ndarray:
    """Neurons on a cubic lattice with positional noise U(0, 0.5) in each coordinate (section 3.1).

    Returns:
        float64 (neurons, 3), in lattice units. The cube is the smallest that holds them all.
    """
    side = int(np.ceil(round(neurons ** (1 / 3), 9)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[:neurons] + np.random.default_rng(seed).uniform(0.0, 0.5, (neurons, 3))


def outwards(positions: np.ndarray) -> np.ndarray:
    """int64 (neurons,), the neurons in order of their distance from the centre."""
    return np.argsort(np.linalg.norm(positions - positions.mean(axis=0), axis=1), kind="stable")


def lattice_delays(
    neurons: int, values: Sequence[int], seed: int, shares: Sequence[float] = PAPER_SHARES
) -> np.ndarray:
    """Delays by distance from the lattice's centre: the nearest share takes the first value.

    The paper's text puts the borders at 20 and 30 % of the largest distance, which on its own
    lattice leaves one neuron in the first group and a handful in the second; its published network
    has 22, 53 and 50 of 125 neurons in shells by distance. The shares are followed here.

    Returns:
        int64 (neurons,).
    """
    delays = np.empty(neurons, np.int64)
    delays[outwards(lattice_positions(neurons, seed))] = delay_groups(neurons, values, shares)
    return delays
