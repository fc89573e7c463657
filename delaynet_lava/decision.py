"""How a network answers: by a membrane at the end, or by what adds up over a window of steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from delaynet_lava.errors import InputError

__all__ = ["KINDS", "Decision"]

KINDS = ("last", "sum", "mean", "count")
_TEXT = re.compile(r"([a-z]+)(?::([0-9]{0,12}):([0-9]{0,12}))?\Z")
_REMEDY = "write last, or sum, mean or count with or without a window of steps: sum, mean:100:, count:0:500"


@dataclass(frozen=True)
class Decision:
    """What the output neurons are compared by; the largest number is the class, the first of equals.

    ``last``: the membrane after the last step. ``sum``: ``sum_t v[t]`` over the window, v the membrane at
    the end of a step, after the reset. ``mean``: that over the number of steps, kept as the sum, which
    orders the classes alike and is a whole number. ``count``: the spikes of the window.

    Attributes:
        kind: one of :data:`KINDS`.
        start, stop: the window is steps start to stop - 1, counted from 0; None: to the end.

    Raises:
        InputError: another kind, a window that is empty or begins before 0, a window with ``last``.
    """

    kind: str
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("decision", f"{self.kind!r} is not one of {list(KINDS)}", _REMEDY)
        for name, value in (("start", self.start), ("stop", self.stop)):
            if type(value) is not int and not (name == "stop" and value is None):
                raise InputError("decision", f"its {name} is {value!r:.40}, expected whole steps", _REMEDY)
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise InputError("decision", f"its window {self.start} to {self.stop} holds no step", _REMEDY)
        if self.kind == "last" and (self.start, self.stop) != (0, None):
            raise InputError("decision", "'last' takes no window", _REMEDY)

    @staticmethod
    def parse(text: str) -> Decision:
        """The decision of a text like ``last``, ``sum``, ``mean:100:`` or ``count:0:500``.

        Raises:
            InputError: another text.
        """
        match = _TEXT.match(text)
        if match is None:
            raise InputError("decision", f"{text!r:.60} is none", _REMEDY)
        kind, start, stop = match.groups()
        return Decision(kind, int(start or 0), int(stop) if stop else None)

    def __str__(self) -> str:
        if (self.start, self.stop) == (0, None):
            return self.kind
        return f"{self.kind}:{self.start}:{'' if self.stop is None else self.stop}"

    @property
    def of_membranes(self) -> bool:
        """True where membranes add up over the window: ``sum`` and ``mean``."""
        return self.kind in ("sum", "mean")

    def covers(self, step: int) -> bool:
        """Whether a step lies in the window."""
        return self.start <= step and (self.stop is None or step < self.stop)

    def within(self, first: int, steps: int) -> slice:
        """Which of ``steps`` steps from step ``first`` on lie in the window; maybe none."""
        stop = first + steps if self.stop is None else min(self.stop, first + steps)
        low = max(self.start, first) - first
        return slice(low, max(low, stop - first))

    def require_steps(self, steps: int) -> None:
        """Refuse a run of so few steps that the window is not whole.

        Raises:
            InputError: the window begins or ends after the last step.
        """
        if self.start >= steps or (self.stop is not None and self.stop > steps):
            raise InputError(
                "decision",
                f"{self} asks for steps {self.start} to {'the end' if self.stop is None else self.stop - 1}, "
                f"but the samples have {steps}",
                "give longer samples, or another window",
            )

    def later(self, steps: int) -> Decision:
        """The window so many steps later; ``last`` has none and stays."""
        if self.kind == "last":
            return self
        return Decision(self.kind, self.start + steps, None if self.stop is None else self.stop + steps)

    def coarser(self, factor: int) -> Decision:
        """The window in steps of ``factor`` of the old ones: all that it touches."""
        stop = None if self.stop is None else -(-self.stop // factor)
        return Decision(self.kind, self.start // factor, stop)
