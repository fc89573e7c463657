"""Cue accumulation: which side was cued more often, asked long after the last cue.

40 Poisson inputs at 1 ms: 10 left, 10 right, 10 recall, 10 background. Each cue slot is 150 ms:
50 ms pause, then 100 ms in which the cued side fires at 40 Hz. Then a wait, in whose last 150 ms
the recall inputs fire at 40 Hz. The background fires at 10 Hz throughout. The probability of the
right side is 0.3 or 0.7, drawn for each sample. The label is the side with more cues.

Source: Balafrej et al., doi 10.1088/2634-4386/add293, section 3, and its published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import comb

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import SPLITS, Task, require_samples
from delaynet_lava.tasks.words import join_word

__all__ = ["CHANNELS", "CLASSES", "CueAccumulation", "last_cues_accuracy"]

CHANNELS, CLASSES = 40, 2
LEFT, RIGHT, RECALL, BACKGROUND = (slice(10 * k, 10 * k + 10) for k in range(4))
PAUSE_MS, CUE_MS, RECALL_MS = 50, 100, 150
SLOT_MS = PAUSE_MS + CUE_MS
SPIKE_P, BACKGROUND_P = 0.040, 0.010
RIGHT_P = (0.3, 0.7)
REMEMBERED = 7
MAX_STEPS = 1 << 24  # a word may come from a file that somebody else made
LONGER = 3  # a sweep also runs the shortest wait, and so many times the wait


@dataclass(frozen=True)
class CueAccumulation(Task):
    """A seeded source of as many samples as wanted; sample i depends on seed, split and i alone.

    Attributes:
        cues: number of cues, >= 1. With an even number a tie can occur; the sides of such a sample
            are drawn again until one side leads.
        wait_ms: from the end of the last cue to the end, >= 150 (the recall is its last 150 ms).
        seed: non-negative.
        right_p: probabilities of the right side, one of which is drawn for each training sample. Closer
            to 0.5 than the task's own they make close decisions more frequent. The samples of the other
            splits are the task's own.
        blocked: share of training samples whose cues come side by side, all of one side before all of the
            other: the longest way out and back for whatever keeps the count.
    """

    cues: int = 7
    wait_ms: int = 1200
    seed: int = 0
    right_p: tuple[float, ...] = RIGHT_P
    blocked: float = 0.0
    steps: int = field(init=False)
    word: str = field(init=False)

    name = "cue"
    channels = CHANNELS
    classes = CLASSES

    def __post_init__(self) -> None:
        if self.cues < 1:
            raise InputError("cue task: cues", f"{self.cues} is below 1")
        if self.wait_ms < RECALL_MS:
            raise InputError(
                "cue task: wait", f"{self.wait_ms} ms is below {RECALL_MS} ms, the length of the recall"
            )
        if self.cues * SLOT_MS + self.wait_ms > MAX_STEPS:
            raise InputError(
                "cue task",
                f"{self.cues} cues and {self.wait_ms} ms are more than {MAX_STEPS:,} steps",
                "ask for a shorter sample",
            )
        if self.seed < 0:
            raise InputError("cue task: seed", f"{self.seed} is negative")
        if not self.right_p or not all(0 < p < 1 for p in self.right_p):
            raise InputError("cue task: right_p", f"{self.right_p} are not probabilities between 0 and 1")
        if not 0 <= self.blocked <= 1:
            raise InputError("cue task: blocked", f"{self.blocked} is not a share between 0 and 1")
        options = {"cues": self.cues, "wait_ms": self.wait_ms}
        usual = {"right_p": RIGHT_P, "blocked": 0.0}
        options |= {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        object.__setattr__(self, "steps", self.cues * SLOT_MS + self.wait_ms)
        object.__setattr__(self, "word", join_word(self.name, options))

    def curriculum(self) -> Sequence[CueAccumulation]:
        """First more cues, two at a time, with the shortest wait; then longer waits, 150 ms at a time."""
        first = self.easier().wait_ms
        waits = [*range(first, self.wait_ms, RECALL_MS), self.wait_ms]
        fewer = [replace(self, cues=cues, wait_ms=first) for cues in range(1, self.cues, 2)]
        return [*fewer, *(replace(self, wait_ms=wait) for wait in waits)]

    def easier(self) -> CueAccumulation:
        """The shortest wait."""
        return replace(self, wait_ms=RECALL_MS)

    def variations(self) -> Sequence[CueAccumulation]:
        """The shortest wait, and a longer one than its own."""
        waits = [wait for wait in (RECALL_MS, LONGER * self.wait_ms) if wait != self.wait_ms]
        return [replace(self, wait_ms=wait) for wait in waits]

    def references(self) -> Mapping[str, float]:
        """One who knows the last seven cues only."""
        return {f"last {REMEMBERED} cues": last_cues_accuracy(self.cues, REMEMBERED)}

    def describe(self, label: int) -> str:
        """The side with more cues."""
        return ("left", "right")[label]

    def _rng(self, split: str, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.seed, SPLITS.index(split), index]))

    def _sides(self, rng: np.random.Generator, split: str) -> np.ndarray:
        """bool (cues,), True where the right side is cued."""
        chances, blocked = (self.right_p, self.blocked) if split == "train" else (RIGHT_P, 0.0)
        p = chances[rng.integers(len(chances))]
        while True:
            right = rng.random(self.cues) < p
            if 2 * int(right.sum()) != self.cues:
                break
        if blocked and rng.random() < blocked:
            right = np.sort(right)[:: rng.choice((-1, 1))]
        return right

    def sides(self, split: str, index: int) -> np.ndarray:
        """bool (cues,), which cues of sample ``index`` are on the right; draws no spikes."""
        return self._sides(self._rng(split, index), split)

    def _sample(self, split: str, index: int, spikes: np.ndarray) -> int:
        """Writes one sample into zeros, uint8 (steps, 40); returns its label (0 left, 1 right)."""
        rng = self._rng(split, index)
        right = self._sides(rng, split)
        for k, side in enumerate(right):
            start = k * SLOT_MS + PAUSE_MS
            spikes[start : start + CUE_MS, RIGHT if side else LEFT] = (
                rng.random((CUE_MS, 10), np.float32) < SPIKE_P
            )
        spikes[-RECALL_MS:, RECALL] = rng.random((RECALL_MS, 10), np.float32) < SPIKE_P
        spikes[:, BACKGROUND] = rng.random((self.steps, 10), np.float32) < BACKGROUND_P
        return int(2 * right.sum() > self.cues)

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples ``first`` to ``first + count - 1``: uint8 (count, steps, 40), int64 (count,)."""
        require_samples(self, split, first, count)
        spikes = np.zeros((count, self.steps, CHANNELS), np.uint8)
        labels = [self._sample(split, first + k, spikes[k]) for k in range(count)]
        return spikes, np.array(labels, np.int64)


def last_cues_accuracy(cues: int, remembered: int = 7) -> float:
    """Accuracy of an observer who knows the last ``remembered`` cues perfectly, and no other.

    It answers by their majority (the paper's probabilistic model, section 4). Exact: with k cues to the
    right among those remembered and r among the others,

        sum over p, k, r of P(p) B(k; remembered, p) B(r; cues - remembered, p) [both majorities agree]

    over the probability that no tie occurs, since the task draws ties again. An observer's own tie counts
    half.

    Raises:
        InputError: below one cue.
    """
    if min(cues, remembered) < 1:
        raise InputError("last-cues model", f"{cues} cues, {remembered} remembered: both are at least 1")
    known = min(remembered, cues)
    right = untied = 0.0
    for p in RIGHT_P:
        for k in range(known + 1):
            for r in range(cues - known + 1):
                chance = _binomial(k, known, p) * _binomial(r, cues - known, p)
                lead, seen = 2 * (k + r) - cues, 2 * k - known
                if lead:
                    untied += chance
                    right += chance * (0.5 if seen == 0 else float((lead > 0) == (seen > 0)))
    return right / untied


def _binomial(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)
