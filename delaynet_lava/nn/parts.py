"""What the blocks are made of, as in SLAYER and without it: rounding, a CUBA neuron's parameters, a synapse.

Names, tensors of a ``state_dict``, random first weights, and gradients are those of lava-dl 0.6.0, so that
weights go from one to the other; the tests compare both. What neurons do with them is in the kernels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from delaynet_lava import fixedpoint
from delaynet_lava.errors import InputError

__all__ = ["SURROGATE_HEIGHT", "SURROGATE_WIDTH", "Cuba", "Synapse", "hold", "quantize"]

SURROGATE_WIDTH, SURROGATE_HEIGHT = 100, 0.1
"""Factors of SLAYER's surrogate gradient (its ``TAU_RHO_MULT`` and ``SCALE_RHO_MULT``)."""


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step):  # type: ignore[override]
        return torch.round(x / step) * step

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return grad, None


def quantize(x: torch.Tensor, step: float = 1) -> torch.Tensor:
    """The nearest multiple of ``step``, a half to the even one; gradients pass as if nothing happened."""
    if x.requires_grad:
        return _Quantize.apply(x, step)
    return torch.round(x) if step == 1 else torch.round(x / step) * step


def hold(one: torch.Tensor, least: float, most: float) -> None:
    """Bring a tensor of one number back between two bounds."""
    if not least <= one.item() <= most:
        with torch.no_grad():
            one.clamp_(least, most)


class Cuba(torch.nn.Module):
    """Parameters of current-based LIF neurons: one threshold and two decays for a layer.

    Args:
        threshold: in SLAYER's units, floored to a multiple of 1/64.
        current_decay, voltage_decay: parts of u and v that decay in a step, 0 to 1.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        requires_grad: whether the decays are trained.

    Attributes:
        current_decay, voltage_decay: float32 (1,), times 4096, trained in these units.
        shape: of the neurons; the block sets it.
        p_scale, w_scale, s_scale: 1.0 of a decay, of a weight and of a state, as integers.
    """

    def __init__(
        self,
        threshold: float,
        current_decay: float,
        voltage_decay: float,
        tau_grad: float = 1,
        scale_grad: float = 1,
        requires_grad: bool = False,
    ) -> None:
        super().__init__()
        self.p_scale, self.w_scale = fixedpoint.DECAY_ONE, fixedpoint.WEIGHT_SCALE
        self.s_scale = self.w_scale << fixedpoint.STATE_SHIFT
        self._threshold = int(threshold * self.w_scale) / self.w_scale
        self.tau_grad, self.scale_grad = float(tau_grad), float(scale_grad)
        self.requires_grad, self.shared_param = requires_grad, True
        self.shape: torch.Size | None = None
        for name, value in (("current_decay", current_decay), ("voltage_decay", voltage_decay)):
            tensor = torch.tensor([self.p_scale * value], dtype=torch.float32)
            self.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=requires_grad))
        self.clamp()

    @property
    def threshold(self) -> float:
        """Threshold in SLAYER's units, a multiple of 1/64."""
        return self._threshold

    @property
    def v_th_mant(self) -> int:
        """The threshold's integer."""
        return int(self.threshold * self.w_scale)

    @property
    def cx_current_decay(self) -> int:
        """The integer of the current's decay, 0 to 4096."""
        return self._decay(self.current_decay)

    @property
    def cx_voltage_decay(self) -> int:
        """The integer of the membrane's decay, 0 to 4096."""
        return self._decay(self.voltage_decay)

    @property
    def device_params(self) -> dict[str, Any]:
        """The integers as SLAYER calls them."""
        return {
            "type": "CUBA",
            "iDecay": self.cx_current_decay,
            "vDecay": self.cx_voltage_decay,
            "vThMant": self.v_th_mant,
            "refDelay": 1,
            "gradedSpike": False,
        }

    def quantize_8bit(self, weight: torch.Tensor, descale: bool = False) -> torch.Tensor:
        """Weights that 8 bits hold: multiples of 2/64 from -256/64 to 254/64; ``descale``: as integers.

        The gradient passes to weights whose nearest word is one of these.

        Raises:
            InputError: weights that are not finite, for which torch has a word too.
        """
        if not math.isfinite(weight.detach().sum().item()):
            where = f"{type(self).__name__}: weights"
            raise InputError(where, "are not all finite", "train with a smaller lr")
        low, high = fixedpoint.WEIGHT_MIN // 2, fixedpoint.WEIGHT_MAX // 2
        words = torch.fake_quantize_per_tensor_affine(weight, 2 / self.w_scale, 0, low, high)
        return words * self.w_scale if descale else words

    def clamp(self) -> None:
        """Keep the decays in 0 to 4096."""
        hold(self.current_decay, 0, self.p_scale)
        hold(self.voltage_decay, 0, self.p_scale)

    def _decay(self, value: torch.Tensor) -> int:
        self.clamp()
        return int(quantize(value.detach()))


class Synapse(torch.nn.Module):
    """Weights from every neuron to every other, held like those of SLAYER's ``synapse.Dense``.

    Args:
        in_neurons, out_neurons: number of neurons.
        weight_scale: factor on the first weights, which are uniform within 1 / sqrt(in_neurons).
        weight_norm: hold each row as a length and a direction (``weight_g``, ``weight_v``).

    Attributes:
        weight: float32 (out, in, 1, 1, 1).
        pre_hook_fx: what quantises the weights; None: nothing.
    """

    def __init__(
        self, in_neurons: int, out_neurons: int, weight_scale: float = 1, weight_norm: bool = False
    ) -> None:
        super().__init__()
        weight = torch.empty(out_neurons, in_neurons, 1, 1, 1)
        # The numbers of a convolution's reset_parameters, and as many of them.
        torch.nn.init.kaiming_uniform_(weight, a=np.sqrt(5).item())
        self.weight = torch.nn.Parameter(weight if weight_scale == 1 else weight_scale * weight)
        self.pre_hook_fx: Callable | None = None
        self.weight_norm_enabled = False
        if weight_norm:
            self.enable_weight_norm()

    @property
    def shape(self) -> torch.Size:
        """Shape of the weights."""
        return self.weight.shape

    @property
    def grad_norm(self) -> float:
        """Norm of the weights' gradient by their number, for SLAYER's ``grad_flow``; 0 before the first."""
        held = self.weight_g if self.weight_norm_enabled else self.weight
        return 0.0 if held.grad is None else torch.norm(held.grad).item() / held.numel()

    def enable_weight_norm(self) -> None:
        """Hold the weights as lengths and directions."""
        with warnings.catch_warnings():
            # The new way has other names in a state_dict than SLAYER, which keeps to this one.
            warnings.filterwarnings("ignore", "`?torch.nn.utils.weight_norm`? is deprecated")
            torch.nn.utils.weight_norm(self, name="weight")
        self.weight_norm_enabled = True

    def disable_weight_norm(self) -> None:
        """Hold the weights themselves again."""
        torch.nn.utils.remove_weight_norm(self, name="weight")
        self.weight_norm_enabled = False
