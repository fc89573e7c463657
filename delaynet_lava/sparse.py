"""Synapses of large networks in which few neurons are connected: kept as they are, not as a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.checked import integer, require
from delaynet_lava.errors import InputError
from delaynet_lava.network import DELAY_LIMIT, Synapse
from delaynet_lava.payloads import SPIKES, Payload

__all__ = ["DENSE_LIMIT", "SparseSynapse"]

DENSE_LIMIT = 1 << 29
"""Bytes that ``weight`` or ``delay`` may take as a matrix."""


class SparseSynapse(Synapse):
    """A :class:`~delaynet_lava.network.Synapse` of a sparse matrix, for :func:`~delaynet_lava.emulate`.

    The emulator takes it as it is, in some ten bytes a synapse. Everything else that reads ``weight`` and
    ``delay`` gets a matrix, which is made anew each time, and refused beyond :data:`DENSE_LIMIT`.

    Args:
        weight: a SciPy matrix or array (post, pre) of any sparse format, such as CSR, or a dense one; values
            as of :class:`~delaynet_lava.network.Synapse`. Entries of one place are added, as SciPy does.
        delay: one for all, what broadcasts to (post, pre), such as one a sender, or a sparse matrix, which
            says 0 where it has no entry.
        weight_exp: as of :class:`~delaynet_lava.network.Synapse`.

    Attributes:
        start: int64 (pre + 1,): the synapses of sender j are those from ``start[j]`` to ``start[j + 1]``.
        post: int32 (synapses,), their receivers, ascending; words: int16, their weights; lags: int16, their
            delays.

    Raises:
        InputError: a value out of range or odd, or shapes that disagree.
    """

    start: np.ndarray
    post: np.ndarray
    words: np.ndarray
    lags: np.ndarray

    def __init__(self, weight: Any, delay: Any = 0, weight_exp: int = 0) -> None:
        self._set(_shape=_shape(weight))
        start, post, values = _by_sender(weight)
        senders = np.repeat(np.arange(len(start) - 1), np.diff(start))
        words = _whole("weight", values, fx.WEIGHT_MIN, fx.WEIGHT_MAX, post, senders, 2)
        kept = words != 0
        if not kept.all():
            post, senders, words = post[kept], senders[kept], words[kept]
            start = np.searchsorted(senders, np.arange(len(start)))
        lags = _whole("delay", self._delays(delay, post, senders), 0, DELAY_LIMIT, post, senders)
        self._set(
            start=start.astype(np.int64),
            post=post.astype(np.int32),
            words=words,
            lags=lags,
            weight_exp=integer(weight_exp, "weight_exp", -1, fx.WEIGHT_EXP_MAX),
        )
        for array in (self.start, self.post, self.words, self.lags):
            array.setflags(write=False)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _delays(self, delay: Any, post: np.ndarray, senders: np.ndarray) -> np.ndarray:
        """Of each synapse."""
        if not _is_sparse(delay):
            given = np.asarray(delay)
            try:
                found: np.ndarray = np.broadcast_to(given, self.shape)[post, senders]
            except ValueError:
                raise InputError(
                    "delay", f"has shape {given.shape} but the weights have {self.shape}"
                ) from None
            return found
        require(
            _shape(delay) == self.shape,
            "delay",
            f"has shape {_shape(delay)} but the weights have {self.shape}",
        )
        start, rows, values = _by_sender(delay)
        places = np.repeat(np.arange(len(start) - 1), np.diff(start)) * self.shape[0] + rows
        if not len(places):
            return np.zeros(len(post), np.int16)
        wanted = senders * self.shape[0] + post
        at = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        return np.where(places[at] == wanted, values[at], 0)

    def __repr__(self) -> str:
        weights, delays = self.spans
        return (
            f"<SparseSynapse {self.shape[0]}x{self.shape[1]}, {self.count:,} synapses, "
            f"weights {weights}, delays {delays}>"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(post, pre)."""
        return self._shape  # type: ignore[attr-defined, no-any-return]

    @property
    def weight(self) -> np.ndarray:  # type: ignore[override]
        """int16 (post, pre), made anew.

        Raises:
            InputError: it would take more than :data:`DENSE_LIMIT`.
        """
        return self._matrix(self.words)

    @property
    def delay(self) -> np.ndarray:  # type: ignore[override]
        """int16 (post, pre), made anew; 0 where there is no synapse. Raises as :attr:`weight`."""
        return self._matrix(self.lags)

    def _matrix(self, values: np.ndarray) -> np.ndarray:
        post, pre = self.shape
        require(
            2 * post * pre <= DENSE_LIMIT,
            "synapse",
            f"of {post} x {pre} would take {2 * post * pre >> 20} MiB as a matrix, more than "
            f"{DENSE_LIMIT >> 20}",
            "only emulate takes it sparse; use a smaller layer for this",
        )
        found = np.zeros((post, pre), np.int16)
        found[self.post, np.repeat(np.arange(pre), np.diff(self.start))] = values
        found.setflags(write=False)
        return found

    @property
    def count(self) -> int:
        """Number of synapses."""
        return len(self.words)

    @property
    def spans(self) -> tuple[str, str]:
        """Least and largest weight and delay of a synapse, for people."""
        ends = [(int(x.min(initial=0)), int(x.max(initial=0))) for x in (self.words, self.lags)]
        weights, delays = (f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in ends)
        return weights, delays

    def sums(
        self, payload: Payload = SPIKES, senders: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest sum that can arrive at each neuron in one step, see :class:`Synapse`."""
        units = self.words.astype(np.int64) << (self.weight_exp + 1) >> 1
        if senders is not None:
            units = units * np.repeat(senders, np.diff(self.start))
        # Sums of fewer than 2**30 words are exact in float64.
        up, down = (
            np.bincount(self.post, weights=part, minlength=self.shape[0]).astype(np.int64)
            for part in (np.maximum(units, 0), np.minimum(units, 0))
        )
        return down * payload.high + up * payload.low, up * payload.high + down * payload.low

    @property
    def max_delay(self) -> int:
        """Largest delay of a synapse; 0 where there is none."""
        return int(self.lags.max(initial=0))


def _is_sparse(values: Any) -> bool:
    return hasattr(values, "tocsc")


def _shape(matrix: Any) -> tuple[int, int]:
    shape = tuple(int(n) for n in np.shape(matrix))
    require(len(shape) == 2, "weight", f"has shape {shape}, expected (post, pre)")
    require(min(shape) > 0, "weight", f"is empty, shape {shape}")
    return shape  # type: ignore[return-value]


def _by_sender(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the entries of each column begin, their rows, ascending, and their values."""
    dense = matrix if _is_sparse(matrix) else np.asarray(matrix)
    require(dense.dtype.kind in "iufb", "synapse", f"has type {dense.dtype}, expected integers")
    if not _is_sparse(matrix):
        pre, post = np.nonzero(dense.T)
        return np.searchsorted(pre, np.arange(dense.shape[1] + 1)), post, dense[post, pre]
    # As numbers whose sums are exact: SciPy adds those of 8 bits in 8 bits.
    columns = matrix.astype(np.float64).tocsc(copy=True)
    columns.sum_duplicates()
    return columns.indptr.astype(np.int64), columns.indices.astype(np.int64), columns.data


def _whole(
    where: str, values: np.ndarray, low: int, high: int, post: np.ndarray, pre: np.ndarray, step: int = 1
) -> np.ndarray:
    """int16 of whole numbers of a range, multiples of ``step``; the first that is none is named."""
    require(values.dtype.kind in "iufb", where, f"has type {values.dtype}, expected integers")
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        bad = ~((values >= low) & (values <= high) & (values % step == 0))
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(
            where,
            f"value at ({int(post[k])}, {int(pre[k])}) is {values[k]:g}, expected "
            f"{'an even' if step == 2 else 'a'} whole number of {low} to {high} ({int(bad.sum())} such)",
        )
    return values.astype(np.int16)
