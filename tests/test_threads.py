"""Work is shared among threads without a rest, by loops that call themselves."""

from __future__ import annotations

import sys
import threading

import numba as nb
import numpy as np
import pytest

from delaynet_lava.kernels.threads import (
    borrowed,
    each,
    in_threads,
    myself,
    pieces_of,
    shared,
    spread,
)


@nb.njit(nogil=True)
def mark(pieces, seen, factor, calls):
    """Count pieces, and the calls of the loop."""
    if shared(pieces):
        in_threads(pieces, myself())
        return
    for piece in each(borrowed(pieces)):
        seen[0][piece] += factor * seen[1]
    calls[0] += 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("number", [0, 1, 2, 7, 1000])
def test_every_piece_is_drawn_once(threads: int, number: int) -> None:
    seen = np.zeros(number, np.int64)
    for rounds in range(1, 40):
        calls = np.zeros(1, np.int64)
        mark(pieces_of(number, threads), (seen, 2), 3, calls)
        assert (seen == 6 * rounds).all()
        # Counts of several threads may be lost.
        assert 1 <= calls[0] <= threads


@pytest.mark.parametrize("threads", [1, 2])
def test_no_reference_is_kept(threads: int) -> None:
    seen, calls = np.zeros(7, np.int64), np.zeros(1, np.int64)
    pieces = pieces_of(7, threads)
    before = [sys.getrefcount(one) for one in (pieces, seen, calls)]
    for _ in range(10):
        pieces[:] = 0, 7, threads, 0
        mark(pieces, (seen, 1), 1, calls)
    assert (seen == 10).all()
    assert [sys.getrefcount(one) for one in (pieces, seen, calls)] == before


def test_pieces_that_were_drawn_do_not_come_again() -> None:
    pieces, seen, calls = pieces_of(3), np.zeros(3, np.int64), np.zeros(1, np.int64)
    for _ in range(2):
        mark(pieces, (seen, 1), 1, calls)
    assert seen.tolist() == [1, 1, 1] and calls[0] == 2


def test_several_may_call_at_the_same_time() -> None:
    seen = np.zeros((6, 500), np.int64)

    def call(k: int) -> None:
        for _ in range(50):
            spread(mark, 500, (seen[k], 1), 1, np.zeros(1, np.int64))

    callers = [threading.Thread(target=call, args=(k,)) for k in range(len(seen))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (seen == 50).all()


@nb.njit(nogil=True)
def fail(pieces, at):
    if shared(pieces):
        in_threads(pieces, myself())
        return
    for piece in each(borrowed(pieces)):
        if piece == at:
            raise ValueError("mine")


@pytest.mark.parametrize("at", [0, 63])
def test_a_thread_that_fails_is_heard(at: int) -> None:
    for threads, error in ((1, ValueError), (2, MemoryError)):
        fail(pieces_of(64, threads), 64)
        with pytest.raises(error):
            fail(pieces_of(64, threads), at)
