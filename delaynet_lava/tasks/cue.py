"""Cue accumulation: which side was cued more often, asked long after the last cue.

40 Poisson inputs at 1 ms: 10 left, 10 right, 10 recall, 10 background. Each cue slot is 150 ms:
50 ms pause, then 100 ms in which the cued side fires at 40 Hz. Then a wait, in whose last 150 ms
the recall inputs fire at 40 Hz. The background fires at 10 Hz throughout. The probability of the
right side is 0.3 or 0.7, drawn for each sample. The label is the side with more cues.

Source: Balafrej et al., doi 10.1088/2634-4386/add293, section 3, and its published code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

from delaynet_lava.errors import InputError

__all__ = ["CHANNELS", "CLASSES", "CueAccumulation", "last_cues_accuracy"]

CHANNELS, CLASSES = 40, 2
LEFT, RIGHT, RECALL, BACKGROUND = (slice(10 * k, 10 * k + 10) for k in range(4))
PAUSE_MS, CUE_MS, RECALL_MS = 50, 100, 150
SLOT_MS = PAUSE_MS + CUE_MS
SPIKE_P, BACKGROUND_P = 0.040, 0.010
RIGHT_P = (0.3, 0.7)
_SPLITS = {"train": 0, "validation": 1, "test": 2}
_BATCH_BYTES = 256 << 20


@dataclass(frozen=True)
class CueAccumulation:
    """A seeded, lazy source of samples; sample i depends on seed, split and i alone.

    Attributes:
        cues: number of cues, >= 1. With an even number a tie can occur; the sides of such a sample
            are drawn again until one side leads.
        wait_ms: from the end of the last cue to the end, >= 150 (the recall is its last 150 ms).
        seed: non-negative.
        split: "train", "validation" or "test": three streams that share no sample.
        right_p: probabilities of the right side, one of which is drawn for each sample. Closer to 0.5
            than the task's own they make close decisions more frequent, for training.
        blocked: share of samples whose cues come side by side, all of one side before all of the other,
            for training: the longest way out and back for whatever keeps the count.
    """

    cues: int = 7
    wait_ms: int = 1200
    seed: int = 0
    split: str = "test"
    right_p: tuple[float, ...] = RIGHT_P
    blocked: float = 0.0

    def __post_init__(self) -> None:
        if self.cues < 1:
            raise InputError("cue task: cues", f"{self.cues} is below 1")
        if self.wait_ms < RECALL_MS:
            raise InputError(
                "cue task: wait", f"{self.wait_ms} ms is below {RECALL_MS} ms, the length of the recall"
            )
        if self.seed < 0:
            raise InputError("cue task: seed", f"{self.seed} is negative")
        if not self.right_p or not all(0 < p < 1 for p in self.right_p):
            raise InputError("cue task: right_p", f"{self.right_p} are not probabilities between 0 and 1")
        if not 0 <= self.blocked <= 1:
            raise InputError("cue task: blocked", f"{self.blocked} is not a share between 0 and 1")
        if self.split not in _SPLITS:
            raise InputError("cue task: split", f"{self.split!r} is not one of {list(_SPLITS)}")

    @property
    def steps(self) -> int:
        """Time steps of a sample (1 ms each)."""
        return self.cues * SLOT_MS + self.wait_ms

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.seed, _SPLITS[self.split], index]))

    def _sides(self, rng: np.random.Generator) -> np.ndarray:
        """bool (cues,), True where the right side is cued."""
        p = self.right_p[rng.integers(len(self.right_p))]
        while True:
            right = rng.random(self.cues) < p
            if 2 * int(right.sum()) != self.cues:
                break
        if self.blocked and rng.random() < self.blocked:
            right = np.sort(right)[:: rng.choice((-1, 1))]
        return right

    def sides(self, index: int) -> np.ndarray:
        """bool (cues,), which cues of sample ``index`` are on the right; draws no spikes."""
        return self._sides(self._rng(index))

    def sample(self, index: int, out: np.ndarray | None = None) -> tuple[np.ndarray, int]:
        """One sample: spikes uint8 (steps, 40) and label (0 left, 1 right).

        Args:
            out: where to write the spikes; it must be zero.
        """
        rng = self._rng(index)
        right = self._sides(rng)
        spikes = np.zeros((self.steps, CHANNELS), np.uint8) if out is None else out
        for k, side in enumerate(right):
            start = k * SLOT_MS + PAUSE_MS
            spikes[start : start + CUE_MS, RIGHT if side else LEFT] = (
                rng.random((CUE_MS, 10), np.float32) < SPIKE_P
            )
        spikes[-RECALL_MS:, RECALL] = rng.random((RECALL_MS, 10), np.float32) < SPIKE_P
        spikes[:, BACKGROUND] = rng.random((self.steps, 10), np.float32) < BACKGROUND_P
        return spikes, int(2 * right.sum() > self.cues)

    def batch(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples ``first`` to ``first + count - 1``: uint8 (count, steps, 40), int64 (count,)."""
        spikes = np.zeros((count, self.steps, CHANNELS), np.uint8)
        labels = np.empty(count, np.int64)
        for k in range(count):
            _, labels[k] = self.sample(first + k, spikes[k])
        return spikes, labels

    def batches(self, samples: int, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All ``samples`` in order, a bounded amount of memory at a time.

        Args:
            size: samples a batch; None: as many as fit 256 MiB, at most 256.
        """
        if size is None:
            size = int(np.clip(_BATCH_BYTES // (self.steps * CHANNELS), 1, 256))
        for first in range(0, samples, size):
            yield self.batch(first, min(size, samples - first))


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
