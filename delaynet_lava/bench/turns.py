"""Turns of two processes, of which one works while the other waits."""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["ALONE", "BURST_S", "Turns", "pair_of_ends"]

BURST_S = 0.25
"""What a process does in a turn fills so many seconds, or is one run: what is short would find its memory in
no cache after each turn of the other."""
_GOES_ON, _HAS_ENOUGH = b"0", b"1"


def pair_of_ends() -> tuple[tuple[int, int], tuple[int, int]]:
    """File descriptors for the :class:`Turns` of two processes; the first of them begins."""
    (first_takes, second_gives), (second_takes, first_gives) = os.pipe(), os.pipe()
    os.write(second_gives, _GOES_ON)
    return (first_takes, first_gives), (second_takes, second_gives)


class Turns:
    """The turns of this process.

    Args:
        ends: one of :func:`pair_of_ends`; None: there is no other process.

    Attributes:
        burst_s: how long a turn should be.
    """

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        self._ends = ends
        self.burst_s = 0.0 if ends is None else BURST_S

    def wait(self) -> bool:
        """Wait for a turn; whether the other process asks for more of them. One that has ended does not."""
        return self._ends is not None and os.read(self._ends[0], 1) == _GOES_ON

    def hand_over(self, enough: bool) -> None:
        """It is the other's turn; enough: this process needs no more."""
        if self._ends is not None:
            with suppress(BrokenPipeError):  # the other has ended
                os.write(self._ends[1], _HAS_ENOUGH if enough else _GOES_ON)


ALONE = Turns()
"""Of a process that takes turns with none."""
