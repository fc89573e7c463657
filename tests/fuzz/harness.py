"""Runs cases of hostile input in a process of its own, and says of each fault which case it was.

A fault is: the process ends, a case takes more than 2 s of computing time, anything is raised but a
:class:`DelayNetError`, a message is longer than 400 characters or not printable, it takes 1 GiB,
a program is started, a connection made, or a file written that the case did not ask for.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from delaynet_lava.errors import MAX_MESSAGE, DelayNetError

__all__ = ["Found", "Target", "run"]

CASE_S, SILENT_S, START_S, MEMORY, CHUNK = 2.0, 60.0, 600.0, 1 << 30, 1000
_RUNS = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "ctypes.dlopen",
    "webbrowser.open",
    "os.startfile",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Target:
    """A reader, and how its input is made.

    Attributes:
        prepare: (folder) -> state; writes what every case needs.
        case: (state, rng) -> writes one case into the folder; returns what keeps it for a report.
        read: (state) -> reads it.
    """

    name: str
    prepare: Callable[[Path], Any]
    case: Callable[[Any, Random], bytes]
    read: Callable[[Any], Any]


@dataclass
class Found:
    """What the cases of a target gave."""

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    longest: int = 0
    memory: int = 0
    messages: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        """Take in the figures of a chunk."""
        self.read, self.refused = self.read + other["read"], self.refused + other["refused"]
        for name in ("slowest_s", "longest", "memory"):
            setattr(self, name, max(getattr(self, name), other[name]))
        self.messages.update(other["messages"])
        self.faults += other["faults"]


class Hang(BaseException):
    """A case that takes too long."""


def _hang(*_: Any) -> None:
    raise Hang


class _Watch:
    """Sees what a case does beside reading; nothing of it is meant to happen."""

    def __init__(self) -> None:
        self.active, self.seen = False, ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple) -> None:
        if not self.active:
            return
        if event.startswith(_RUNS) or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES):
            self.seen = f"{event} {args!r:.100}"

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        self.active, self.seen = True, ""
        try:
            yield
        finally:
            self.active = False


def _kind(message: str, folder: Path) -> str:
    """A message without what differs from case to case."""
    words = message.replace(str(folder), "").split()
    return " ".join(w for w in words if w.isascii() and w.isalpha())[:60]


def _peak() -> int:
    """Most memory that this process had at a time, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _chunk(
    target: Target, seed: int, cases: range, folder: Path, now: mmap.mmap, keep: Path | None
) -> dict[str, Any]:
    """Run some cases in this process."""
    found = Found()
    before = _peak()
    state = target.prepare(folder)
    files = set(os.listdir(folder))
    watch = _Watch()
    signal.signal(signal.SIGPROF, _hang)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in cases:
            now[:8] = struct.pack("<q", k)
            content = target.case(state, Random(f"{target.name}-{seed}-{k}"))
            files |= set(os.listdir(folder)) if k == cases.start else set()
            started = time.process_time()
            fault = ""
            signal.setitimer(signal.ITIMER_PROF, CASE_S)
            try:
                with watch.on():
                    target.read(state)
                found.read += 1
            except DelayNetError as error:
                message = str(error)
                found.refused += 1
                found.longest = max(found.longest, len(message))
                found.messages[_kind(message, folder)] += 1
                if len(message) > MAX_MESSAGE or not message.isprintable():
                    fault = f"message of {len(message)} characters: {message[:200]!a}"
            except Hang:
                fault = f"takes more than {CASE_S} s"
            except Exception as error:
                trace = error.__traceback__
                while trace is not None and trace.tb_next is not None:
                    trace = trace.tb_next
                place = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
                fault = f"{type(error).__name__}: {error!s:.200}{place}"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            found.slowest_s = max(found.slowest_s, time.process_time() - started)
            if watch.seen:
                fault = f"did more than read: {watch.seen}"
            look = fault or k == cases.stop - 1 or k % 50 == 0
            if look and (extra := set(os.listdir(folder)) - files):
                fault = fault or f"left {sorted(extra)!r:.100} behind (this case or one of 50 before it)"
                files |= extra
            if fault:
                found.faults.append(f"{target.name} case {k}: {fault}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{target.name}-{seed}-{k}").write_bytes(content)
    found.memory = _peak()
    # What a large process had when it forked is not the reader's.
    if found.memory - before > MEMORY:
        found.faults.append(
            f"{target.name} cases {cases.start} to {cases.stop - 1}: {found.memory:,} bytes of memory"
        )
    return {**vars(found), "messages": dict(found.messages)}


def _fork(
    target: Target, seed: int, cases: range, keep: Path | None
) -> tuple[dict[str, Any] | None, int, str]:
    """The figures of some cases; or the case at which their process ended, and how."""
    now = mmap.mmap(-1, 8)
    now[:8] = struct.pack("<q", -1)
    folder = Path(
        tempfile.mkdtemp(prefix="delaynet-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    report = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    try:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                # A bomb ends in a MemoryError here, not in the machine's swap.
                used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
                resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY, used + 2 * MEMORY))
                report.write(json.dumps(_chunk(target, seed, cases, folder, now, keep)).encode())
                report.flush()
                code = 0
            finally:
                if code:
                    sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(code)
        last, since = -1, time.monotonic()
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            case = struct.unpack("<q", now[:8])[0]
            if case != last:
                last, since = case, time.monotonic()
            elif time.monotonic() - since > (START_S if case < 0 else SILENT_S):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                if case < 0:
                    raise RuntimeError(f"{target.name}: its files were not prepared within {START_S:.0f} s")
                return None, case, f"does not return within {SILENT_S:.0f} s and can't be interrupted"
            time.sleep(0.02)
        if status == 0:
            report.seek(0)
            return json.loads(report.read()), 0, ""
        how = (
            f"signal {os.WTERMSIG(status)}"
            if os.WIFSIGNALED(status)
            else f"exit code {os.WEXITSTATUS(status)}"
        )
        case = struct.unpack("<q", now[:8])[0]
        if case < 0:
            raise RuntimeError(f"{target.name}: its files can't be prepared ({how})")
        return None, case, f"ends the process with {how}"
    finally:
        report.close()
        shutil.rmtree(folder, ignore_errors=True)


def run(target: Target, cases: int, seed: int = 0, first: int = 0, keep: Path | None = None) -> Found:
    """Run cases ``first`` to ``first + cases - 1`` of a target; case k of a seed is always the same.

    Args:
        keep: folder for the input of each case that has a fault.
    """
    found = Found()
    at, end = first, first + cases
    while at < end:
        stop = min(at + CHUNK, end)
        figures, case, how = _fork(target, seed, range(at, stop), keep)
        if figures is None:
            found.faults.append(f"{target.name} case {case}: {how}")
            # What came before is run again; what comes after goes on.
            if case > at:
                figures, _, _ = _fork(target, seed, range(at, case), keep)
            stop = case + 1
        if figures is not None:
            found.add(figures)
        at = stop
    return found
