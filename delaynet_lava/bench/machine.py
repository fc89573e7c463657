"""What was measured on: processor, memory, versions; and how much memory this process has used."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from delaynet_lava._version import __version__

__all__ = ["cores", "describe", "memory_mib", "versions"]

_PACKAGES = (
    "numpy", "numba", "torch", "lava-nc", "lava-dl", "jax", "spyx", "snntorch", "norse", "spikingjelly"
)  # fmt: skip


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Version of everything that takes part and is installed."""
    found = {"delaynet_lava": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _lines(path: str, key: str) -> list[str]:
    """Values of the lines "key: value" of a file of Linux's /proc; empty elsewhere."""
    try:
        text = Path(path).read_text()
    except OSError:
        return []
    pairs = [line.partition(":") for line in text.splitlines()]
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def describe() -> dict[str, Any]:
    """Processor, number of cores, memory, system, and how busy the machine is now."""
    name = _lines("/proc/cpuinfo", "model name") or [platform.processor() or platform.machine()]
    total = _lines("/proc/meminfo", "MemTotal")
    return {
        "cpu": name[0],
        "cores": cores(),
        "memory_gib": round(int(total[0].split()[0]) / 2**20, 1) if total else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def memory_mib(peak: bool = False) -> float | None:
    """Resident memory of this process in MiB: now, or the most it ever was; None where unknown.

    The peak counts processes that this one forked and that have ended; the largest one is told.
    """
    # Not getrusage: Linux hands the peak of the program that started this one down to it.
    lines = _lines("/proc/self/status", "VmHWM" if peak else "VmRSS")
    own = int(lines[0].split()[0]) / 2**10 if lines else None
    if not peak:
        return own
    try:
        import resource
    except ImportError:
        return own
    unit = 2**20 if sys.platform == "darwin" else 2**10
    if own is None:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit)
