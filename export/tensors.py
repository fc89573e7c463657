"""The tensors of a model's layers, each checked before anything is computed with it.

torch's own functions trust what they are given: ``_weight_norm`` of an empty matrix ends the process, of
a short vector of norms it writes where it should not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError

__all__ = ["LayerTensors", "quantize_weight", "require_all_taken"]

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# What SLAYER's modules keep beside what they compute with: states of the last pass, and a neuron that no
# threshold or no dynamics needs.
_STATES = re.compile(
    r"[0-9]+\.(spike_state|neuron\.(vth|current_decay|voltage_decay|current_state|voltage_state))"
)


def quantize_weight(weight: torch.Tensor, bits: int = 8) -> np.ndarray:
    """Integers of SLAYER's ``quantize_8bit``: float32 in units of 1/64 to int16.

    Args:
        bits: 2 to 8, of the words: multiples of ``2**(9 - bits)``.
    """
    step = 1 << (9 - bits)
    words = step * torch.round(weight.detach().to(torch.float32) * (fx.WEIGHT_SCALE / step))
    return words.clamp(fx.WEIGHT_MIN, -fx.WEIGHT_MIN - step).to(torch.int16).numpy()


class LayerTensors:
    """The tensors of one layer, by name, with errors that say where.

    Args:
        state: tensors of the whole model. index: of the layer.
        where: how errors name the layer.
        taken: names are added as they are asked for.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], index: int, where: str, taken: set[str] | None = None
    ) -> None:
        self.state, self.prefix, self.where = state, f"{index}.", where
        self.taken: set[str] = set() if taken is None else taken

    def has(self, name: str) -> bool:
        """Whether the layer has a tensor of this name."""
        return self.prefix + name in self.state

    def get(self, name: str, kinds: tuple[torch.dtype, ...] = _FLOATS + _WHOLE) -> torch.Tensor:
        """A plain tensor of finite numbers.

        Raises:
            InputError: missing, sparse or quantised, of another type, or not finite.
        """
        key = self.prefix + name
        if key not in self.state:
            raise InputError(self.where, f"tensor {key!r} is missing from state_dict")
        tensor = self.state[key].detach()
        self.taken.add(key)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(self.where, f"tensor {key!r} is sparse, quantised or without data")
        if tensor.dtype not in kinds:
            expected = "numbers" if len(kinds) > len(_FLOATS) else "floating-point numbers"
            raise InputError(self.where, f"tensor {key!r} has type {tensor.dtype}, expected {expected}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                self.where, f"tensor {key!r} holds NaN or infinity", "the training diverged; retrain"
            )
        return tensor

    def scalar(self, name: str) -> float:
        """The one value of a parameter.

        Raises:
            InputError: see :meth:`get`; or several values, or none.
        """
        tensor = self.get(name)
        if tensor.numel() != 1:
            raise InputError(
                self.where,
                f"{name} has {tensor.numel()} values, but the chip's LIF takes one a layer",
                "train with shared_param=True",
            )
        return float(tensor)

    def _matrix(self, name: str) -> torch.Tensor:
        weight = self.get(name, _FLOATS)
        if weight.ndim < 2 or weight.numel() == 0 or weight.numel() != weight.shape[0] * weight.shape[1]:
            raise InputError(self.where, f"{name} has shape {tuple(weight.shape)}, expected (post, pre)")
        return weight

    def matrix(self, synapse: str, bits: int = 8) -> np.ndarray:
        """Quantised weights (post, pre), after weight norm and mask where the layer has them.

        Args:
            bits: of the words, see :func:`quantize_weight`.

        Raises:
            InputError: see :meth:`get`; or shapes that are none or do not fit each other.
        """
        if self.has(f"{synapse}.weight_g"):
            weight, norms = self._matrix(f"{synapse}.weight_v"), self.get(f"{synapse}.weight_g", _FLOATS)
            expected = (weight.shape[0], *(1,) * (weight.ndim - 1))
            if norms.shape != expected or norms.dtype != weight.dtype:
                raise InputError(
                    self.where,
                    f"{synapse}.weight_g has shape {tuple(norms.shape)} and type {norms.dtype}, "
                    f"expected {expected} and {weight.dtype}",
                )
            # torch's own function: another order of operations could round the last bit differently.
            weight = torch._weight_norm(weight.contiguous(), norms.contiguous(), 0)
            if not bool(torch.isfinite(weight).all()):
                raise InputError(
                    self.where, f"{synapse}.weight_v has a row of zeros, which has no direction", "retrain"
                )
        else:
            weight = self._matrix(f"{synapse}.weight")
        if self.has("mask"):
            mask = self.get("mask", (*_FLOATS, *_WHOLE, torch.bool))
            if mask.numel() != weight.numel():
                raise InputError(
                    self.where, f"mask has shape {tuple(mask.shape)}, the weights {tuple(weight.shape)}"
                )
            weight = weight * mask.reshape(weight.shape)
        return quantize_weight(weight.reshape(weight.shape[:2]), bits)

    def square(self, synapse: str, size: int, bits: int = 8) -> np.ndarray:
        """:meth:`matrix` of a synapse between the layer's own neurons.

        Raises:
            InputError: see there; or not (size, size).
        """
        weight = self.matrix(synapse, bits)
        if weight.shape != (size, size):
            raise InputError(self.where, f"{synapse} has shape {weight.shape}, expected {(size, size)}")
        return weight

    def decay(self, name: str) -> int:
        """A decay in units of 1/4096, as SLAYER rounds it."""
        return int(torch.round(torch.tensor(self.scalar(name)).clamp(0, fx.DECAY_ONE)))


def require_all_taken(state: Mapping[str, torch.Tensor], taken: set[str], where: str) -> None:
    """Refuse tensors that no layer has a use for: what they were trained for would be lost in silence.

    Raises:
        InputError: naming them.
    """
    left = sorted(name for name in state.keys() - taken if not _STATES.fullmatch(name))
    if left:
        names = ", ".join(ascii(name[:40]) for name in left[:4]) + (", ..." if len(left) > 4 else "")
        raise InputError(
            where,
            f"state_dict has {len(left)} tensors that no layer has a use for: {names}",
            "save the model again without them",
        )
