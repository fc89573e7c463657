"""Axonal delays of a layer's senders: fixed, or numbers that are learned and rounded before they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from delaynet_lava.errors import InputError
from delaynet_lava.kernels.delays import delay_gradient, early, late

__all__ = ["Axon", "SenderDelays", "delays_of"]


class SenderDelays(torch.nn.Module):
    """One delay for each sender.

    A delay that is learned is a real number, ``learned_delay``, clamped to 0 to ``max_delay`` and rounded in
    the forward pass, so that what is trained is what runs. Its gradient is taken over a window of
    ``delay_window`` steps to each side; 0 leaves it without one.

    Attributes:
        delay: int32 (senders,), what runs.
    """

    delay: torch.Tensor

    def hold_delays(
        self, delay: int | Sequence[int] | np.ndarray, senders: int, learn: bool, most: int, where: str
    ) -> None:
        """Begin with these delays.

        Raises:
            InputError: of another type or number, negative, or above what is to be learned.
        """
        delays = delays_of(delay, senders, where)
        self.register_buffer("delay", torch.from_numpy(delays))
        self.learn_delays, self.max_delay, self.delay_window = bool(learn), int(most), 1
        if self.learn_delays:
            if self.max_delay < 1 or delays.max() > self.max_delay:
                raise InputError(
                    f"{where}: delay",
                    f"is up to {delays.max()}, max_delay is {most}",
                    "learned delays begin at most at max_delay, which is at least 1",
                )
            self.learned_delay = torch.nn.Parameter(self.delay.to(torch.get_default_dtype()))

    @torch.no_grad()
    def round_delays(self) -> None:
        """Make ``delay``, which runs, what ``learned_delay`` is; without effect where none is learned."""
        if self.learn_delays:
            self.learned_delay.clamp_(0, self.max_delay)
            self.delay.copy_(torch.round(self.learned_delay))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.learn_delays and f"{prefix}delay" in state_dict:
            # A model.pt has the integers alone.
            begun = state_dict[f"{prefix}delay"].to(self.learned_delay.dtype)
            state_dict.setdefault(f"{prefix}learned_delay", begun)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _Later(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, learned, delay, window, most):  # type: ignore[override]
        ctx.save_for_backward(x.detach(), delay)
        ctx.window, ctx.most = window, most
        return late(x, delay)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, delay = ctx.saved_tensors
        slope = None
        if ctx.needs_input_grad[1]:
            slope = grad.new_zeros(len(delay))
            if ctx.window:
                slope = delay_gradient(x, grad, delay, ctx.window, ctx.most)
        return early(grad, delay) if ctx.needs_input_grad[0] else None, slope, None, None, None


class Axon(SenderDelays):
    """Spikes or payloads (B, T, N) that arrive later, each sender's by its delay.

    The gradient of a learned delay is that of :func:`~delaynet_lava.kernels.delays.delay_gradient`.

    Args:
        delay: steps, one integer or one a sender.
        senders: N.
        learn_delays, max_delay: see :class:`SenderDelays`.
        where: for errors.
    """

    def __init__(
        self,
        delay: int | Sequence[int] | np.ndarray,
        senders: int,
        learn_delays: bool = False,
        max_delay: int = 62,
        where: str = "Axon",
    ) -> None:
        super().__init__()
        self.hold_delays(delay, senders, learn_delays, max_delay, where)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as ``x``; what would arrive after the last step is lost, as in a network."""
        self.round_delays()
        # A copy: the delays of the next pass are written where these are.
        delay = self.delay.long()
        return _Later.apply(x, self.learned_delay if self.learn_delays else None, delay, self.delay_window,
                            self.max_delay)  # fmt: skip


def delays_of(delay: int | Sequence[int] | np.ndarray, neurons: int, where: str) -> np.ndarray:
    """int32 (neurons,) of one integer or of one for each.

    Raises:
        InputError: another type or number, or one that is negative.
    """
    values = np.asarray(delay)
    if values.dtype.kind not in "iu" or values.ndim > 1 or values.size not in (1, neurons):
        raise InputError(
            f"{where}: delay",
            f"has type {values.dtype} and shape {values.shape}",
            f"give one integer, or one for each of the {neurons} neurons",
        )
    if values.min() < 0:
        raise InputError(f"{where}: delay", f"{int(values.min())} is negative", "the fastest path is 0")
    return np.ascontiguousarray(np.broadcast_to(values, (neurons,)), dtype=np.int32)
