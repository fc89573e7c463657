"""What lava-nc 0.10.0 and lava-dl 0.6.0 need to run on Python 3.11 to 3.13, numpy 2 and today's torch.

Both were archived by Intel; no release will mend them. Each function below edits the source of one of
their modules while that module is imported. :func:`install`, which ``import delaynet_lava`` calls, only
puts an import hook in place: no module of Lava or torch is imported by it, nothing on disk is changed, and
a module that needs no mend here, or belongs to another version, is imported as it is. A module whose
mend is needed, but whose version or text is another, is left alone with a :class:`LavaCompatWarning`.

This file imports nothing but the standard library: a bundle for another machine takes it along.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType
from typing import Any

__all__ = ["MENDS", "LavaCompatWarning", "Mend", "install", "state"]


class LavaCompatWarning(UserWarning):
    """A module of Lava that would have to be mended was left as it is."""


@dataclass(frozen=True)
class Mend:
    """One edit of one module.

    Attributes:
        edit: the named function; its docstring says what breaks without it and why it is safe.
        package, version: the distribution that it is for; others are left alone.
        module: what is edited while it is imported.
        needed: whether anything would break here without it, asked when the module is imported.
    """

    edit: Callable[[str], str]
    package: str
    version: str
    module: str
    needed: Callable[[], bool]

    @property
    def name(self) -> str:
        """The function's name in words."""
        return self.edit.__name__.replace("_", " ")


MENDS: dict[str, Mend] = {}
"""The mends by name; those of one module are applied in this order."""

_done: dict[str, str] = {}  # by name, what came of each mend whose module was imported


def _mend(package: str, version: str, module: str, needed: Callable[[], bool]) -> Callable:
    def register(edit: Callable[[str], str]) -> Callable[[str], str]:
        mend = Mend(edit, package, version, module, needed)
        MENDS[mend.name] = mend
        return edit

    return register


class _OtherText(Exception):
    """The line to be edited is not there."""


def _replace(source: str, old: str, new: str, times: int = 1) -> str:
    found = source.count(old)
    if found != times:
        raise _OtherText(f"{old.splitlines()[-1].strip()!r} is in it {found} times, not {times}")
    return source.replace(old, new)


def _since_3_11() -> bool:
    return sys.version_info >= (3, 11)


@_mend("lava-nc", "0.10.0", "lava.magma.compiler.var_model", _since_3_11)
def byte_encoder_with_a_hash(source: str) -> str:
    """Three dataclasses have a ``ByteEncoder()`` as default of a field.

    Breaks: from Python 3.11 on a default must be hashable ("mutable default ... is not allowed"); no graph
    can be compiled, since the compiler imports this module.
    Safe: the class gets the hash of its three numbers and stays the same otherwise; the defaults are the
    same shared objects as on 3.10. Only the compiler for boards uses them, and hashes none.
    """
    return _replace(
        source, "@dataclass\nclass ByteEncoder:", "@dataclass(unsafe_hash=True)\nclass ByteEncoder:"
    )


def _raises(attempt: Callable[[Any], Any]) -> bool:
    """Whether the installed numpy, which Lava imports in any case, refuses something with a TypeError."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was deprecated first
        try:
            attempt(np)
        except TypeError:
            return True
    return False


def _no_newshape() -> bool:
    return _raises(lambda np: np.reshape(np.zeros(1), newshape=(1,)))


@_mend("lava-nc", "0.10.0", "lava.magma.core.process.ports.ports", _no_newshape)
def reshape_by_its_new_name(source: str) -> str:
    """Ports that are reshaped call ``np.reshape(..., newshape=...)``.

    Breaks: numpy 2.4 has no such argument any more; a graph with ``reshape`` in it (NetX's input and output
    of images, for one) stops at its first step.
    Safe: numpy 2.1 renamed the argument to ``shape`` and changed nothing else; applied only where the old
    name is gone.
    """
    return _replace(source, "ft.partial(np.reshape, newshape=", "ft.partial(np.reshape, shape=", times=2)


def _no_number_of_a_vector() -> bool:
    return _raises(lambda np: int(np.zeros(1)))


@_mend("lava-dl", "0.6.0", "lava.lib.dl.netx.hdf5", _no_number_of_a_vector)
def weight_of_an_input_layer(source: str) -> str:
    """NetX turns weight and bias of an input layer, arrays of one number each, into ``int`` as they are.

    Breaks: from numpy 2.4 on ``int`` takes arrays without dimensions only; a file whose input layer has a
    weight can't be loaded.
    Safe: the one number is taken out first; an array of several is refused as before.
    """
    for key in ("weight", "bias"):
        old = f"            {key} = int(layer_config['{key}'])"
        source = _replace(source, old, f"            {key} = int(np.asarray(layer_config['{key}']).item())")
    return source


@_mend("lava-nc", "0.10.0", "lava.proc.clp.nsm.models", _no_number_of_a_vector)
def prototype_to_allocate(source: str) -> str:
    """The allocator of Lava's prototype learning writes an array of one number into an element of another.

    Breaks: from numpy 2.4 on that is refused as ``int`` of such an array is; the process ends at its first
    allocation, and the run waits for it for ever.
    Safe: the one number is taken out first.
    """
    old = "alloc_signal[0] = self.next_alloc_id"
    return _replace(source, old, "alloc_signal[0] = np.asarray(self.next_alloc_id).item()")


@_mend("lava-nc", "0.10.0", "lava.proc.graded.models", _no_number_of_a_vector)
def inverse_root_of_one_number(source: str) -> str:
    """Lava's inverse square root in fixed point takes an array of one number for a number.

    Breaks: from numpy 2.4 on ``int`` of such an array is refused; the process ends at its first step, and
    the run waits for it for ever.
    Safe: the one number is taken out first; an array of several is refused as before.
    """
    source = _replace(source, "int(np.log2(val))", "int(np.asarray(np.log2(val)).item())")
    return _replace(source, "b_i = int(s_fp)", "b_i = int(np.asarray(s_fp).item())")


def _fork_was_set() -> bool:
    return multiprocessing.get_start_method(allow_none=True) == "fork"


@_mend("lava-nc", "0.10.0", "lava.magma.runtime.message_infrastructure.multiprocessing", _fork_was_set)
def start_method_set_once(source: str) -> str:
    """Lava sets the start method to "fork" while it is imported.

    Breaks: on every Python where the program has settled on a start method before: "context has already
    been set", even where it is the very same one.
    Safe: applied only where it is "fork" already, so that setting it again would change nothing.
    """
    return _replace(source, "    mp.set_start_method('fork')", "    pass")


def _no_vision() -> bool:
    if importlib.util.find_spec("cv2") is None or importlib.util.find_spec("torchvision") is None:
        return True
    try:
        import torchvision  # noqa: F401  (SLAYER imports it next in any case)
    except Exception:  # a build for another torch raises RuntimeError
        return True
    return False


_OBJECT_DETECTION = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"lava.lib.dl.slayer.obd.{name} needs OpenCV and a torchvision that fits torch: "
        "pip install opencv-python-headless torchvision"
    )
"""


@_mend("lava-dl", "0.6.0", "lava.lib.dl.slayer.object_detection", _no_vision)
def object_detection_left_out(source: str) -> str:
    """``lava.lib.dl.slayer`` imports its object detection, and that OpenCV and torchvision.

    Breaks: where either is missing or does not fit the installed torch, SLAYER can't be imported at all.
    Safe: nothing else of SLAYER or NetX uses the sub-package; asking for something in it says what is
    missing. With both installed it is imported as it is.
    """
    del source
    return _OBJECT_DETECTION


def _no_gradient_at_a_bound() -> bool:
    import torch

    at_bound = torch.zeros(1, requires_grad=True)
    at_bound.clamp(0, 1).sum().backward()
    return at_bound.grad is None or not bool(at_bound.grad.item())


_WITHIN = """

def _within(words, low, high):
    return torch.where((words < low) | (words > high), words.detach().clamp(low, high), words)
"""


@_mend("lava-dl", "0.6.0", "lava.lib.dl.slayer.neuron.base", _no_gradient_at_a_bound)
def gradient_of_the_largest_weight(source: str) -> str:
    """SLAYER clamps its weights to what 8 bits hold.

    Breaks: since torch 2.14 ``clamp`` gives no gradient to what lies at a bound itself; a weight that has
    come to 254 or -256 could never leave it again, and a training would end in other integers.
    Safe: the values are the same, and the gradient is that of torch before: of all that the bounds hold,
    themselves included.
    """
    old = (
        "quantize(\n                weight, step=2 / self.w_scale\n"
        "            ).clamp(-256 / self.w_scale, 254 / self.w_scale)"
    )
    new = "_within(quantize(weight, step=2 / self.w_scale), -256 / self.w_scale, 254 / self.w_scale)"
    return _replace(source, old, new, times=2) + _WITHIN


_UNKNOWN_NEURON = """
        remedy = ": load the file with delaynet_lava.lava.Network" if neuron_type == "SRC" else ""
        raise NotImplementedError(f"NetX has no process for neurons of the type {neuron_type!r}{remedy}")
"""


@_mend("lava-dl", "0.6.0", "lava.lib.dl.netx.hdf5", lambda: True)
def neuron_of_unknown_type_by_its_name(source: str) -> str:
    """NetX answers a neuron type that it does not know with None.

    Breaks: everywhere; a file with Spiking Recurrent Cells, say, ends in "'NoneType' object has no attribute
    'get'", which names neither the type nor what can load it.
    Safe: such a file could not be loaded before either; what was an error gets a sentence.
    """
    old = """                'state_exp': 6,
                'decay_bits': 12
            }
            return neuron_params
"""
    return _replace(source, old, old + _UNKNOWN_NEURON)


def _edited(mend: Mend, source: str) -> str:
    """The source to run for a module, mended or as it is; notes and says which."""
    if not mend.needed():
        _done[mend.name] = "not needed"
        return source
    try:
        installed = metadata.version(mend.package)
    except metadata.PackageNotFoundError:
        installed = "of unknown version"
    reason = f"{mend.package} is {installed}, the mend is for {mend.version}"
    if installed == mend.version:
        try:
            edited = mend.edit(source)
        except _OtherText as error:
            reason = f"{mend.package} {installed} was changed here: {error}"
        else:
            _done[mend.name] = "active"
            return edited
    _done[mend.name] = f"left alone: {reason}"
    warnings.warn(f"{mend.module}: left as it is: {reason}", LavaCompatWarning, stacklevel=2)
    return source


def _of_module(name: str) -> list[Mend]:
    return [mend for mend in MENDS.values() if mend.module == name]


class _Loader(SourceFileLoader):
    """Compiles the edited text; keeps and reads no .pyc, which would be the original's."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_source(fullname) or ""
        for mend in _of_module(fullname):
            source = _edited(mend, source)
        return self.source_to_code(source.encode(), path)


class _Finder(MetaPathFinder):
    """Finds modules as the finders after it do, and has those of ``MENDS`` loaded by :class:`_Loader`."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not _of_module(fullname):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if type(spec.loader) is SourceFileLoader:
                    spec.loader = _Loader(spec.loader.name, spec.loader.path)
                return spec
        return None


def install() -> None:
    """Mend what has to be mended as it is imported from now on; calling it again does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def state(mend: Mend) -> str:
    """What came of a mend in this process.

    Returns:
        "active", "not needed", "left alone: REASON", or "waiting" for a module not imported yet.
    """
    return _done.get(mend.name, "waiting")
