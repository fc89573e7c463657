"""Compiled loops over pieces of work, shared among threads.

A loop is compiled once, for one thread, and calls itself in the others: Numba's way to write it
(``parallel=True``, ``prange``) would type, lower and optimise what is in the loop several times over, which
takes two to three times as long. Each thread takes the next piece when it is done with one: who is disturbed
does less.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.errors import NumbaSystemWarning
from numba.extending import intrinsic

from delaynet_lava.kernels.compiled import inner

__all__ = [
    "Threads",
    "borrowed",
    "each",
    "in_threads",
    "myself",
    "pieces_of",
    "shared",
    "spread",
]

_SURVIVE_FORK = ("tbb", "workqueue")
_TAKE_ALL = ("tbb", "omp")
"""Layers of Numba's that several threads may call at once."""
_INT, _POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


def pieces_of(number: int, threads: int = 1) -> np.ndarray:
    """What :func:`each` draws from.

    Returns:
        int64 (4,): the next piece, how many there are, for how many threads, and whether one of them failed.
    """
    return np.array([0, number, threads, 0], np.int64)


@intrinsic
def _draw(_, pieces):
    """The next piece; no two threads get the same."""

    def generate(context, builder, signature, args):
        counter = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", counter, ir.Constant(_INT, 1), "monotonic")

    return nb.int64(pieces), generate


@inner()
def shared(pieces):
    """Whether a loop over these pieces is yet to go to several threads, by :func:`in_threads`."""
    return pieces[2] > 1


@inner()
def each(pieces):
    """Pieces of :func:`pieces_of`, ascending, that no other thread has drawn.

    Args:
        pieces: :func:`borrowed`: Numba's generators keep a reference to what they are given for ever.
    """
    piece = _draw(pieces)
    while piece < pieces[1]:
        yield piece
        piece = _draw(pieces)


@intrinsic
def myself(_):
    """What :func:`in_threads` calls: the function that this stands in, with the arguments that it was given.

    Returns:
        int64 (2,) as a tuple: addresses of a function of C, and of what it is to be given.
    """

    def generate(context, builder, signature, _args):
        me = builder.function
        # A thread's stack may begin anywhere: vectors that are kept there would cross lines of the cache, and
        # the loop of one thread take nearly twice as long as another's. (llvmlite 0.50 leaves alignstack out
        # of what has no other attribute; what is called by its address is not inlined anyway.)
        me.attributes.alignstack = 64
        me.attributes.add("noinline")
        # Before those come where it puts its result, and an exception.
        result, exception, *given = me.args
        kinds = ir.LiteralStructType([one.type for one in given])
        kept = cgutils.alloca_once(builder, kinds)
        for k, one in enumerate(given):
            builder.store(one, cgutils.gep_inbounds(builder, kept, 0, k))
        again = ir.Function(builder.module, ir.FunctionType(ir.IntType(32), [_POINTER]), f"{me.name}.again")
        again.linkage = "internal"
        inside = ir.IRBuilder(again.append_basic_block())
        arguments = inside.load(inside.bitcast(again.args[0], kinds.as_pointer()))
        places = [inside.alloca(one.type.pointee) for one in (result, exception)]
        inside.ret(
            inside.call(me, [*places, *(inside.extract_value(arguments, k) for k in range(len(given)))])
        )
        addresses = [builder.ptrtoint(one, _INT) for one in (again, kept)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return nb.types.UniTuple(nb.int64, 2)(), generate


@intrinsic
def _call(_, addresses):
    """Call what :func:`myself` gave: 0, or another number if it raised."""

    def generate(_context, builder, _signature, args):
        kind = ir.FunctionType(ir.IntType(32), [_POINTER]).as_pointer()
        function = builder.inttoptr(builder.extract_value(args[0], 0), kind)
        given = builder.inttoptr(builder.extract_value(args[0], 1), _POINTER)
        return builder.call(function, [given])

    return nb.int32(addresses), generate


@nb.njit(parallel=True)
def in_threads(pieces, loop):
    """Call a loop over pieces again in each of its threads: ``in_threads(pieces, myself())``.

    Raises:
        MemoryError: one of them found no memory for what it works with.
    """
    threads = pieces[2]
    pieces[2] = 1
    for _ in nb.prange(threads):
        if _call(loop) != 0:
            pieces[3] = 1
    if pieces[3] != 0:
        raise MemoryError("a compiled loop found no memory")


def _without_owner(context, builder, kind, value):  # type: ignore[no-untyped-def]
    """A value of a numba type, in which no array knows who owns its memory."""
    if isinstance(kind, nb.types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = context.get_constant_null(nb.types.MemInfoPointer(kind.dtype))
        array.parent = context.get_constant_null(nb.types.pyobject)
        return array._getvalue()
    if isinstance(kind, nb.types.BaseTuple):
        for k, part in enumerate(kind):
            inner = builder.extract_value(value, k)
            value = builder.insert_value(value, _without_owner(context, builder, part, inner), k)
    return value


@intrinsic
def borrowed(_, value):
    """An array, or tuples of arrays, whose references are not counted.

    Numba counts those of an array that is read from a tuple, or whose address is asked for, and threads that
    count those of one array wait for each other. The caller holds on to it meanwhile.
    """

    def generate(context, builder, signature, args):
        return _without_owner(context, builder, signature.args[0], args[0])

    return value(value), generate


class Threads:
    """Those of this process, and what it knows of them.

    Attributes:
        turn: held while threads are started, and for as long as a loop runs where only one may.
        alone: whether loops must run on one thread here: this process was forked, and the threads of GNU's
            OpenMP, which torch may have started too, do not come along. What then asks for them waits for
            ever or is ended.
    """

    def __init__(self, alone: bool = False) -> None:
        self.turn, self.alone = threading.RLock(), alone

    def available(self) -> int:
        """How many may share a loop; starts them, where they are not."""
        if _layer() is None:
            with self.turn, warnings.catch_warnings():
                # Without /dev/shm Numba can't keep forked processes from starting at once: no harm is done.
                warnings.simplefilter("ignore", NumbaSystemWarning)
                nb.get_num_threads()
        # Code from the cache refers to what comes with them, even where one thread runs it.
        return 1 if self.alone else int(nb.get_num_threads())

    def run(self, loop: Callable[..., None], number: int, *arguments: Any) -> None:
        """See :func:`spread`."""
        threads = min(number, self.available())
        at_once = threads < 2 or _layer() in _TAKE_ALL
        with contextlib.nullcontext() if at_once else self.turn:
            loop(pieces_of(number, threads), *arguments)


def _layer() -> str | None:
    """Numba's word for what starts the threads; None before they are."""
    try:
        return str(nb.threading_layer())
    except ValueError:
        return None


_here = Threads()


def _after_fork() -> None:
    global _here
    _here = Threads(_here.alone or _layer() not in _SURVIVE_FORK)


if hasattr(os, "register_at_fork"):
    # Forked while another thread starts them, the process would have half of what it needs.
    os.register_at_fork(
        before=lambda: _here.turn.acquire(),
        after_in_parent=lambda: _here.turn.release(),
        after_in_child=_after_fork,
    )


def spread(loop: Callable[..., None], number: int, *arguments: Any) -> None:
    """Call ``loop(pieces, *arguments)``, a loop over so many pieces of work, shared among Numba's threads.

    Several threads may do so at the same time; where Numba has no more than its own work queue, which ends
    the process then, they take turns. In a process that was forked from one whose threads it can't use, the
    loop runs on the calling thread: the numbers are the same.

    Args:
        loop: what :func:`kernels.compiled.compiled` makes, which goes over the pieces like this::

                if shared(pieces):
                    in_threads(pieces, myself())
                    return
                for piece in each(borrowed(pieces)):
                    ...
        number: of pieces: samples, mostly.
    """
    _here.run(loop, number, *arguments)
