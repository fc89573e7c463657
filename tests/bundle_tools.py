"""Bundles for tests, and how they are run: in a process of their own that knows nothing of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.deploy.bundle import Manifest, write_bundle
from delaynet_lava.network import Dense, Network, Neuron, Synapse

__all__ = ["NETWORK", "a_bundle", "run_bundle", "start_bundle"]


def _network() -> Network:
    """A recurrent layer that goes on by itself, one with delays behind it, and a readout."""
    rng = np.random.default_rng(5)

    def synapse(post: int, pre: int, low: int, high: int, delay: int, exponent: int = 0) -> Synapse:
        weight = 2 * rng.integers(low, high, (post, pre))
        return Synapse(weight, rng.integers(0, delay + 1, weight.shape), exponent)

    bias = rng.integers(0, 40, 11)
    return Network(
        (
            Dense(
                synapse(11, 9, -20, 60, 0), Neuron(200, 800, 200, bias, 5), synapse(11, 11, -20, 30, 62, 1)
            ),
            Dense(synapse(6, 11, -20, 60, 20), Neuron(300, 4096, 100), synapse(6, 6, -9, 9, 0)),
            Dense(synapse(2, 6, -60, 60, 3, 2), Neuron(fx.VTH_MAX, 4096, 100)),
        )
    )


NETWORK = _network()


def a_bundle(
    folder: Path, samples: int = 3, steps: int = 50, network: Network = NETWORK, **options: Any
) -> Manifest:
    """A bundle of random inputs that grow denser towards the end."""
    rng = np.random.default_rng(1)
    shape = (samples, steps, network.channels)
    inputs = (rng.random(shape) < np.linspace(0.1, 0.6, steps)[:, None]).astype(np.uint8)
    labels = rng.integers(0, 2, samples)
    return write_bundle(folder, network, inputs, labels, **{"name": "a-test", **options})


def start_bundle(
    folder: Path, *options: str, python: tuple[str, ...] = (), **variables: str
) -> subprocess.Popen:
    """Start run.py, isolated from this package and the user's settings unless ``python`` says otherwise."""
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR")}
    environment |= {"OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, *(python or ("-I",)), str(folder / "run.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder.parent,
        env=environment,
    )


def run_bundle(folder: Path, *options: str, **settings: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of run.py."""
    process = start_bundle(folder, *options, **settings)
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out, errors
