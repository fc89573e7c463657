"""A :class:`~delaynet_lava.network.Network` as Lava processes. Needs lava-nc.

:func:`run` executes a network on Lava's CPU simulator in fixed point, :class:`Network` is a drop-in
replacement for NetX's loader, :func:`run_config` selects the process models for a graph of one's
own.
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import BackendMissing, InputError

# Lava sets the start method while it is imported, which raises where a program has settled on another.
if "lava.magma.runtime.message_infrastructure.multiprocessing" not in sys.modules:
    _method = multiprocessing.get_start_method(allow_none=True)
    if _method not in (None, "fork"):
        raise InputError(
            "delaynet_lava.lava",
            f"Lava forks its processes, but this program's start method is {_method!r}",
            "call multiprocessing.set_start_method('fork', force=True) before this import, and give a data "
            f"loader, or what else needs it, multiprocessing_context={_method!r}",
        )

try:
    import lava.magma.core.run_configs
    import lava.magma.runtime.runtime
    import lava.proc.dense.models  # noqa: F401
except (ImportError, RuntimeError, ValueError) as error:  # ValueError: a Lava that is not mended
    raise BackendMissing("delaynet_lava.lava", "lava-nc", str(error)) from error

from delaynet_lava.lava.runner import run, run_config
from delaynet_lava.lava.synapses import FastDelayDense, FastDelayDenseFloat

if TYPE_CHECKING:
    from delaynet_lava.lava.network import Network

__all__ = ["FastDelayDense", "FastDelayDenseFloat", "Network", "run", "run_config"]


def __getattr__(name: str) -> Any:
    # NetX brings all of SLAYER and torch, which the simulator does without.
    if name != "Network":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from delaynet_lava.lava.network import Network
    except ImportError as error:
        raise BackendMissing("delaynet_lava.lava.Network", "lava-dl", str(error)) from error
    return Network
