"""Tensors by step, moved in time."""

from __future__ import annotations

from delaynet_lava.kernels.compiled import compiled

__all__ = ["move"]


@compiled()
def move(source, by, factor, target):
    """``target[:, t] = factor * source[:, t - by]``, and 0 where there is no such step.

    Of a small tensor NumPy's passes, and waking torch's threads, cost several times this.

    Plain version: ``test_steps_are_moved`` in tests/test_engine.py.

    Args:
        source: float32 or int32 (B, T, N), any strides. by: steps, of either sign. factor: float32.
        target: float32 (B, T, N), C order.
    """
    batch, steps, neurons = source.shape
    for b in range(batch):
        for t in range(steps):
            if 0 <= t - by < steps:
                for n in range(neurons):
                    target[b, t, n] = factor * source[b, t - by, n]
            else:
                target[b, t] = 0
