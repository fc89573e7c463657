"""Compile the backward loop of a training in a process beside the one that compiles the forward loop.

Each takes one core for some ten seconds, once for all processes. Both are kept in the same place, where the
training finds what the other has compiled.
"""

from __future__ import annotations

import atexit
import contextlib
import subprocess
from functools import cache

import numba as nb
import numpy as np

from delaynet_lava.kernels import recurrence
from delaynet_lava.kernels.vectors import LANES
from delaynet_lava.processes import command_of, end_with_parent

__all__ = ["compile_now", "start"]

_ENDS_S = 5.0


@cache
def start() -> None:
    """Begin, where nothing is kept yet and there is a core for it; the loop's first call waits for it."""
    if nb.get_num_threads() < 2 or recurrence.backward_segment.kept():
        return
    with contextlib.suppress(OSError):  # then this process compiles it
        other = subprocess.Popen(
            command_of("delaynet_lava.kernels.ahead"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(_end, other)
        recurrence.backward_segment.wait_for(other)


def _end(other: subprocess.Popen[bytes]) -> None:
    if other.poll() is None:
        other.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            other.wait(_ENDS_S)


def compile_now() -> None:
    """Call the backward loop for no samples, with arguments of the types that a training's have."""
    floats, numbers = np.zeros((0, 0, 0), np.float32), np.zeros((0, 0, 0), np.int32)
    bits, delay = np.zeros((0, 0, 0), np.uint64), np.zeros(1, np.int32)
    layout = recurrence.columns_of(delay, LANES)
    states, ring = np.zeros((0, LANES), np.float32), np.zeros((0, 1, LANES), np.float32)
    recurrence.backward_segment(
        0, 0,
        recurrence.Arriving(floats, np.zeros((0, 0), np.float32), floats, 0),
        np.zeros((0, 0, LANES), np.int32), np.zeros((0, 0, LANES), np.int32),
        recurrence.Sent(bits, 0, bits, numbers),
        recurrence.Synapses(floats, floats, delay),
        layout,
        recurrence.Rule(0, 0, 0, 0, 0, 1.0, 1.0, 1.0, 1.0, 1.0, 0, 0),
        recurrence.Flight(states, states, ring, np.zeros((0, 1, layout.width), np.float32)),
        recurrence.Gradients(
            floats, floats, floats, np.zeros((recurrence.GROUPS, 3)), np.zeros((0, 1))
        ),
    )  # fmt: skip


if __name__ == "__main__":
    end_with_parent()
    compile_now()
