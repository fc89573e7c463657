"""The shapes of network and training step that are measured, and the inputs of those that need no task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CELLS", "SHAPES", "Shape", "images", "inputs_of"]

CELLS = "src"
"""The shape whose hidden layer is of Spiking Recurrent Cells; it has no :class:`Shape`."""
DARK, GAIN = 0.81, 0.25
"""Share of the pixels that are 0, and the spikes of a white one in a step: those of MNIST, rate-coded."""


@dataclass(frozen=True)
class Shape:
    """Input, layers of recurrent LIF neurons with axonal delays, and a readout.

    Attributes:
        task: the word of the task whose inputs are run; "": pixels of seeded images, one a step.
        channels, classes, payload_bits: of those pixels; a task says its own.
        layers: neurons of each hidden layer; deeper: of a second network that is measured beside the first.
        delays, shares: of the groups of neurons of a layer, first to last.
        tau_ms, tau_out_ms: of membranes.
        input_sd: standard deviation of the input weights, in the chip's integers.
        rate: spikes of a hidden neuron in a step, for which the thresholds are found.
        samples, steps: of a training step; emulator_samples: of a run of the emulator.
        parts: what is measured of it.
    """

    task: str
    channels: int
    classes: int
    payload_bits: int
    layers: tuple[int, ...]
    deeper: tuple[int, ...]
    delays: tuple[int, ...]
    shares: tuple[float, ...]
    tau_ms: float
    tau_out_ms: float
    input_sd: float
    rate: float
    samples: int
    steps: int
    emulator_samples: int
    parts: tuple[str, ...]


SHAPES = {
    # The shipped model's: its groups, its time constants, and how often it spikes on its task.
    "cue": Shape(
        "cue:cues=7,wait_ms=1200", 40, 2, 0, (125,), (), (0, 50, 62), (0.176, 0.424, 0.400), 25.0, 20.0,
        100.0, 0.024, 64, 2250, 256, ("training", "emulator", "lava"),
    ),
    # The published network's groups, with lags that a chip has; the membranes of the shipped recipe.
    "psmnist": Shape(
        "", 1, 10, 8, (216,), (48, 112, 112), (0, 25, 62), (0.1667, 0.4167, 0.4166), 7.0, 20.0,
        6.0, 0.08, 128, 784, 128, ("training", "emulator"),
    ),
}  # fmt: skip


def images(samples: int, seed: int = 0) -> np.ndarray:
    """Seeded stand-ins of MNIST, as dark as it is: uint8 (samples, 784)."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(1, 255, (samples, 784), np.uint8, endpoint=True)
    return np.where(rng.random(grey.shape) < DARK, np.uint8(0), grey)


def inputs_of(samples: int, steps: int, rates: bool = False, seed: int = 0) -> np.ndarray:
    """Seeded images as inputs, uint8: (samples, steps, 1), a pixel a step, or (samples, steps, 784), spikes.

    Steps behind the last pixel begin with the first again.
    """
    pixels = images(samples, seed)
    if not rates:
        return np.ascontiguousarray(np.resize(pixels.T, (steps, samples)).T[:, :, None])
    drawn = np.random.default_rng(seed + 1).random((samples, steps, pixels.shape[1]), np.float32)
    return (drawn < np.float32(GAIN / 255) * pixels[:, None]).astype(np.uint8)
