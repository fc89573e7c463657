"""Samples that are stored as they are run: one array (samples, steps, channels)."""

from __future__ import annotations

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["PAYLOAD_BITS", "DenseSource", "payload_of"]

PAYLOAD_BITS = 24
"""The most bits that a payload may have."""
_LOOK_BYTES = 1 << 24


class DenseSource:
    """Samples of an array, which may be mapped from a file and larger than memory.

    Args:
        inputs: (samples, steps, channels), numbers.
        labels: int64 (samples,).
        lengths: steps of each sample, silent behind them; None: all have all steps.
        payload: bits (0: spikes), and whether one is the sign.

    Raises:
        InputError: arrays that do not fit each other.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        lengths: np.ndarray | None,
        payload: tuple[int, bool],
        where: str,
    ) -> None:
        require_shape(inputs, where)
        count, self.steps, self.channels = inputs.shape
        if len(labels) != count:
            raise InputError(where, f"holds {count} inputs and {len(labels)} labels", "give one a sample")
        if lengths is not None:
            good = lengths.shape == (count,) and lengths.dtype.kind in "iu"
            if not good or (count and not 0 <= lengths.min() <= lengths.max() <= self.steps):
                raise InputError(
                    f"{where}: lengths", f"are not {count} whole numbers from 0 to {self.steps} steps"
                )
        self.inputs, self.labels, self.where = inputs, labels, where
        self._lengths = lengths
        self._bits, self._signed = payload

    def length(self, index: int) -> int:
        """Steps of a sample."""
        return self.steps if self._lengths is None else int(self._lengths[index])

    def sample(self, index: int) -> np.ndarray:
        """Spikes uint8 or payloads int32 (steps of this sample, channels)."""
        raw = np.asarray(self.inputs[index])
        where = f"{self.where}: sample {index}"
        low, high = bounds(self._bits, self._signed)
        _require_whole(raw, where)
        if raw.size and (raw.min() < low or raw.max() > high):
            bad = raw[(raw < low) | (raw > high)][0]
            kind = f"payloads of {self._bits} bits are" if self._bits else "spikes are"
            raise InputError(where, f"holds the value {bad}, {kind} {low} to {high}")
        end = self.length(index)
        if np.any(raw[end:]):
            raise InputError(where, f"is not silent behind its {end} steps", "set what follows to 0")
        return raw[:end].astype(np.int32 if self._bits else np.uint8)


def require_shape(inputs: np.ndarray, where: str) -> None:
    """Refuse what is not (samples, steps, channels).

    Raises:
        InputError: for that reason.
    """
    if inputs.ndim != 3:
        hint = {2: "inputs[:, :, None] where there is one channel"}.get(
            inputs.ndim, "inputs.reshape(samples, steps, -1)"
        )
        raise InputError(
            f"{where}: inputs", f"have shape {inputs.shape}, expected (samples, steps, channels)", hint
        )
    if 0 in inputs.shape:
        raise InputError(f"{where}: inputs", f"are empty, shape {inputs.shape}")


def bounds(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest value: of spikes, or of payloads of so many bits."""
    if not bits:
        return 0, 1
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _require_whole(raw: np.ndarray, where: str) -> None:
    if raw.dtype.kind == "f":
        bad = ~np.isfinite(raw) | (raw != np.rint(raw))
        if bad.any():
            raise InputError(
                where,
                f"holds the value {raw[bad][0]}, inputs are whole numbers",
                "scale and round them where you made them, such as numpy.rint(16 * inputs)",
            )


def payload_of(inputs: np.ndarray, where: str) -> tuple[int, bool]:
    """Fewest payload bits for all values, 0 where all are 0 or 1, and whether a sign is needed.

    Looks at all of the array, some at a time.

    Raises:
        InputError: numbers that are not whole, or beyond :data:`PAYLOAD_BITS`.
    """
    require_shape(inputs, where)
    if inputs.dtype.kind == "b":
        return 0, False
    low = high = 0
    some = max(1, _LOOK_BYTES // max(1, inputs[:1].nbytes))
    for first in range(0, len(inputs), some):
        part = np.asarray(inputs[first : first + some])
        _require_whole(part, f"{where}: samples {first} to {first + len(part) - 1}")
        low, high = min(low, int(part.min())), max(high, int(part.max()))
    if (low, high) in ((0, 0), (0, 1)):
        return 0, False
    bits = max(high.bit_length(), (-low - 1).bit_length()) + 1 if low < 0 else high.bit_length()
    if bits > PAYLOAD_BITS:
        raise InputError(
            f"{where}: inputs",
            f"reach from {low} to {high}, which takes {bits} bits",
            "scale them down",
        )
    return bits, low < 0
