"""Start, drive and end Lava's operating-system processes, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, NamedTuple

from lava.magma.core.process.process import AbstractProcess, ProcessServer
from lava.magma.core.process.variable import Var, VarServer
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal
from lava.magma.runtime.runtime import Runtime

from delaynet_lava.errors import DelayNetError, InputError

__all__ = ["Made", "Simulation", "building"]

POLL_S = 0.002
LAST_WORDS_S = 1.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_REMEDIES = {
    errno.EMFILE: "raise the limit of open files, as ulimit -n 4096 does in a shell",
    errno.ENFILE: "the whole system has too many files open",
    errno.ENOMEM: "memory is short; use fewer samples or steps at a time",
    errno.ENOSPC: "/dev/shm is full; free some of it, or give the container more (--shm-size)",
}
_SHARED = "its processes share memory through /dev/shm: mount it so that it can be written"


class Made(NamedTuple):
    """What was built inside :func:`building`."""

    processes: list[AbstractProcess]
    variables: list[Var]


@contextlib.contextmanager
def building() -> Iterator[Made]:
    """Collect the Lava processes that are made inside, and undo what they do to the root logger.

    Each process adds a handler there and leaves it, so that one message appears as often as there
    ever were processes.
    """
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    processes, variables = len(ProcessServer().processes), len(VarServer().vars)
    made = Made([], [])
    try:
        yield made
    finally:
        made.processes.extend(ProcessServer().processes[processes:])
        made.variables.extend(VarServer().vars[variables:])
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Hold Ctrl-C back: processes forked inside never see it, this one does at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Its start, the first time that memory is shared, would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Tied:
    """Ties processes forked inside to this one: however it ends, the kernel ends them (Linux only)."""

    def __init__(self) -> None:
        self.parent: int | None = None
        if sys.platform == "linux":
            self._prctl = ctypes.CDLL(None).prctl
            os.register_at_fork(after_in_child=self._tie)

    def _tie(self) -> None:
        if self.parent is not None:
            self._prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.parent:  # it has ended meanwhile
                os._exit(1)
            self.parent = None

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """What is forked until the end of the block is tied."""
        self.parent = os.getpid()
        try:
            yield
        finally:
            self.parent = None


_tied = _Tied()


def _require_fork() -> None:
    """Lava's processes inherit what they work on."""
    method = multiprocessing.get_start_method()
    if method != "fork":
        raise InputError(
            "multiprocessing",
            f"the start method was set to {method!r} after Lava was imported, which needs 'fork'",
            "call multiprocessing.set_start_method('fork', force=True) before the run",
        )


@contextlib.contextmanager
def _garbage_stays() -> Iterator[None]:
    """Let processes that are forked inside never collect the garbage of this one.

    A destructor may wait for a thread, as that of torch's Gloo does; threads are not forked, so that it
    would wait for ever.
    """
    gc.collect()
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


class Simulation:
    """Context in which connected Lava processes are compiled and run; none of them outlives it.

    Lava's own ``run`` and ``stop`` wait for answers that a failed or interrupted process never
    gives. This one looks after the processes while they run, and kills them at the end: what they
    hold is worth nothing any more.

    Args:
        made: the whole graph, from :func:`building`.
        first: the process to start the compilation from; it belongs to the graph.
        config: selects the process models.

    Raises:
        DelayNetError: a process model failed; the message holds its exception. Or the system gives no
            more descriptors, shared memory or processes.
        InputError: processes are not forked here.
    """

    def __init__(self, made: Made, first: AbstractProcess, config: RunConfig) -> None:
        self._made, self._first, self._config = made, first, config
        self._runtime: Any = None  # Runtime, from __enter__ to __exit__

    def __enter__(self) -> Simulation:
        try:
            _require_fork()
            with _interrupt_later(), _tied.here(), _garbage_stays():
                self._first.create_runtime(run_cfg=self._config)
        except BaseException as error:
            self._runtime = self._first.runtime
            self._end()
            if isinstance(error, OSError):
                raise no_room(error) from error
            raise
        self._runtime = self._first.runtime
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def advance(self, steps: int) -> None:
        """Run that many steps and wait for the last."""
        runtime = self._runtime
        runtime.start(RunSteps(num_steps=steps, blocking=False))
        actors = runtime._messaging_infrastructure.actors
        (answer,) = runtime.service_to_runtime
        while not answer.probe():
            if not all(actor.is_alive() for actor in actors):
                raise self._failure()
            time.sleep(POLL_S)
        if not enum_equal(answer.recv(), MGMT_RESPONSE.DONE):
            raise self._failure()
        runtime._is_running = False

    def _failure(self) -> DelayNetError:
        # The word of a failure can arrive before the exception that caused it.
        deadline = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < deadline:
            for actor in self._runtime._messaging_infrastructure.actors:
                if actor.exception is not None:
                    cause, _ = actor.exception
                    error = DelayNetError(f"lava: a process failed: {type(cause).__name__}: {cause}")
                    error.__cause__ = cause
                    return error
            time.sleep(POLL_S)
        return DelayNetError("lava: a process ended before its time; was it killed, or is memory short?")

    def _end(self) -> None:
        runtime, self._runtime = self._runtime, None
        with _interrupt_later():
            try:
                if runtime is not None and runtime._messaging_infrastructure is not None:
                    _kill(runtime)
            finally:
                self._forget()

    def _forget(self) -> None:
        # Lava keeps every process and Var that ever was in two lists, weights and records included.
        for server, name in ((ProcessServer(), "processes"), (VarServer(), "vars")):
            mine = {id(item) for part in self._made for item in part}
            setattr(server, name, [item for item in getattr(server, name) if id(item) not in mine])
        for process in self._made.processes:
            process.runtime = None


def no_room(error: OSError) -> DelayNetError:
    """What the system refused to Lava, and what helps."""
    reason = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, _SHARED)
    return DelayNetError(f"lava: the simulator could not be started ({reason}); {remedy}")


def _kill(runtime: Runtime) -> None:
    infrastructure = runtime._messaging_infrastructure
    for actor in infrastructure.actors:
        if not actor._is_done:
            actor.kill()
    runtime.join()
    infrastructure.stop()
    runtime._watchdog_manager.stop()
    runtime._is_started = runtime._is_running = False
