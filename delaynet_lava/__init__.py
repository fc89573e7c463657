"""Recurrent spiking networks with axonal delays, from SLAYER to Loihi 2 without losing a bit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from delaynet_lava import lava_compat
from delaynet_lava._version import __version__

if TYPE_CHECKING:
    from delaynet_lava.emulator import emulate
    from delaynet_lava.evaluation import evaluate
    from delaynet_lava.export.agreement import check
    from delaynet_lava.export.nir_export import to_nir
    from delaynet_lava.export.nir_import import from_nir
    from delaynet_lava.formats.netx import read as load
    from delaynet_lava.formats.netx import write as save
    from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse
    from delaynet_lava.nn.model import load_model, save_model
    from delaynet_lava.sparse import SparseSynapse
    from delaynet_lava.tasks.registry import task
    from delaynet_lava.trace import Trace
    from delaynet_lava.training.trainer import train

# Nothing above imports Lava; whoever does so after this line gets it mended where that is needed.
lava_compat.install()

__all__ = [
    "Dense",
    "Encoder",
    "Network",
    "Neuron",
    "SparseSynapse",
    "Synapse",
    "Trace",
    "__version__",
    "check",
    "emulate",
    "evaluate",
    "from_nir",
    "load",
    "load_model",
    "save",
    "save_model",
    "task",
    "to_nir",
    "train",
]

# Imported when first asked for: compilers, torch and Lava take seconds, and no help text needs them.
_LATER = {
    "Dense": ("network", "Dense"),
    "Encoder": ("network", "Encoder"),
    "Network": ("network", "Network"),
    "Neuron": ("network", "Neuron"),
    "SparseSynapse": ("sparse", "SparseSynapse"),
    "Synapse": ("network", "Synapse"),
    "Trace": ("trace", "Trace"),
    "check": ("export.agreement", "check"),
    "emulate": ("emulator", "emulate"),
    "evaluate": ("evaluation", "evaluate"),
    "from_nir": ("export.nir_import", "from_nir"),
    "load": ("formats.netx", "read"),
    "load_model": ("nn.model", "load_model"),
    "save": ("formats.netx", "write"),
    "save_model": ("nn.model", "save_model"),
    "task": ("tasks.registry", "task"),
    "to_nir": ("export.nir_export", "to_nir"),
    "train": ("training.trainer", "train"),
}


_PACKAGES = ("export", "hw_profiles", "lava", "models", "nn")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
