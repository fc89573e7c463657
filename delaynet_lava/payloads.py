"""What a sender puts into a step: a spike, or a whole number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import PAYLOAD_BITS_MAX

__all__ = ["SPIKES", "Payload"]


@dataclass(frozen=True)
class Payload:
    """A spike, 0 or 1, or a whole number of so many bits. 0 is silence.

    Attributes:
        bits: 0 for spikes, else 1 to 24, a sign included where there is one.
        signed: numbers from ``-2**(bits - 1)`` to ``2**(bits - 1) - 1`` instead of 0 to ``2**bits - 1``.

    Raises:
        InputError: other numbers of bits, or spikes with a sign.
    """

    bits: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 0 <= self.bits <= PAYLOAD_BITS_MAX:
            raise InputError(
                "payload_bits", f"{self.bits!r:.40} is no whole number from 0 (spikes) to {PAYLOAD_BITS_MAX}"
            )
        if type(self.signed) is not bool:
            raise InputError("payload_signed", f"{self.signed!r:.40} is not true or false")
        if self.signed and not self.bits:
            raise InputError("payload_signed", "is true, but spikes have no sign", "give payload_bits")

    @property
    def low(self) -> int:
        """The least number."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest number."""
        return (1 << (self.bits - self.signed)) - 1 if self.bits else 1

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(self.high, -self.low)

    @property
    def dtype(self) -> np.dtype:
        """uint8 where all numbers fit, else int32."""
        return np.dtype(np.uint8 if not self.signed and self.bits <= 8 else np.int32)

    def __str__(self) -> str:
        if not self.bits:
            return "spikes"
        return f"whole numbers of {self.bits} bits" + (", one of them the sign" if self.signed else "")

    def check(self, values: np.ndarray, where: str = "inputs") -> np.ndarray:
        """The numbers as a contiguous array of :attr:`dtype`.

        Raises:
            InputError: another type than bool and integers, or a number that is none of these.
        """
        x = np.asarray(values)
        if x.dtype.kind not in "biu":
            raise InputError(where, f"have type {x.dtype}", "give integers or bool")
        if x.size and x.dtype.kind != "b":
            low, high = int(x.min()) if x.dtype.kind == "i" else 0, int(x.max())
            if low < self.low or high > self.high:
                worst = high if high > self.high else low
                raise InputError(
                    where,
                    f"hold the value {worst}, but the network takes {self}, {self.low} to {self.high}",
                    "scale the inputs, or say in the network what they are (input_payload)",
                )
        if x.dtype.kind == "b":
            x = np.ascontiguousarray(x).view(np.uint8)
        return np.ascontiguousarray(x, self.dtype)


SPIKES = Payload()
"""What spiking neurons send, and what a network takes that says nothing else."""
