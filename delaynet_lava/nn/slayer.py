"""SLAYER's own blocks; the one place that imports SLAYER, and only when asked for them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from delaynet_lava.errors import BackendMissing
from delaynet_lava.quiet import quiet_import

__all__ = ["STOCK", "kind_of"]

STOCK = ("Input", "Flatten", "Average", "Dense", "Affine", "Recurrent")
"""The cuba blocks that this package runs."""

_BLOCKS = "lava.lib.dl.slayer.block.cuba"
_PLACES = {
    "block": (_BLOCKS, None),
    "neuron": ("lava.lib.dl.slayer.neuron.cuba", None),
    "synapse": ("lava.lib.dl.slayer.synapse.layer", None),
    "MeanOnlyBatchNorm": ("lava.lib.dl.slayer.neuron.norm", "MeanOnlyBatchNorm"),
}


def kind_of(block: Any) -> str | None:
    """Which of SLAYER's cuba blocks this is, one of :data:`STOCK`; None: none of them, or a subclass.

    SLAYER is not imported: nobody can have a block of a module that was never imported.
    """
    module = sys.modules.get(_BLOCKS)
    return next((name for name in STOCK if type(block) is getattr(module, name, None)), None)


def __getattr__(name: str) -> Any:
    """``block``, ``neuron``, ``synapse`` and ``MeanOnlyBatchNorm`` of SLAYER.

    Raises:
        BackendMissing: lava-dl can't be imported.
    """
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path, attribute = _PLACES[name]
    try:
        with quiet_import():
            module = import_module(path)
    except ImportError as error:
        raise BackendMissing("SLAYER's own block", "lava-dl", str(error)) from error
    return module if attribute is None else getattr(module, attribute)
