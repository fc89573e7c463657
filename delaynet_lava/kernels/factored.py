"""A gradient that is a product of two matrices, and stays one until somebody reads its numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map_only

__all__ = ["Factored", "pays"]

_LAST_TWO = {(1, 2), (2, 1), (-2, -1), (-1, -2)}


def pays(outputs: int, inputs: int) -> bool:
    """Whether the gradient of so many inputs is clearly less as two factors."""
    return 2 * outputs <= inputs


class _Product:
    """``left @ right``, computed once, when it is asked for; from then on the numbers are what counts."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        self.factors: tuple[torch.Tensor, torch.Tensor] | None = (left, right)
        self.shape, self.dtype = (*left.shape[:2], right.shape[1]), left.dtype
        self._whole = left[..., :0]

    def whole(self) -> torch.Tensor:
        if self.factors is not None:
            left, right = self.factors
            self._whole, self.factors = left @ right, None
        return self._whole


class Factored(torch.Tensor):
    """(B, T, N) that is the product of (B, T, M) and (M, N); or (B, N, T), the transpose of such.

    To torch it is a tensor like any other: what is done to it, in place too, is done to the product, which
    is then computed. Only a transposition of the last two axes leaves the factors, and :meth:`factors`
    gives them to who can do with them. So a readout of 2 neurons hands 2 numbers a step to 125 neurons.

    Made by :meth:`of`.
    """

    _product: _Product
    _turned: bool

    @classmethod
    def of(cls, left: torch.Tensor, right: torch.Tensor) -> Factored:
        """Of (B, T, M) and (M, N), of one type."""
        return cls._make(_Product(left, right), turned=False)

    @classmethod
    def _make(cls, product: _Product, turned: bool) -> Factored:
        batch, steps, n = product.shape
        # Sizes and strides: torch is told how the numbers will lie in memory.
        size, strides = (batch, steps, n), (steps * n, n, 1)
        if turned:
            size, strides = (batch, n, steps), (steps * n, 1, n)
        new: Factored = torch.Tensor._make_wrapper_subclass(cls, size, strides, dtype=product.dtype)
        new._product, new._turned = product, turned
        return new

    def factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Left and right one; None of a transpose, and where the product was computed."""
        return None if self._turned else self._product.factors

    def plain(self) -> torch.Tensor:
        """The product, as a tensor of no class of its own."""
        whole = self._product.whole()
        return whole.transpose(1, 2) if self._turned else whole

    # What the function below returns is not made into this class once more. (Torch's own annotations have
    # both as methods of an object.)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What torch calls for every operation on such a tensor."""
        if function is torch.ops.aten.transpose.int and tuple(args[1:]) in _LAST_TWO:
            return cls._make(args[0]._product, not args[0]._turned)
        plain, named = tree_map_only(cls, cls.plain, (args, kwargs or {}))
        return function(*plain, **named)
