"""A torch archive that runs a program of its own where torch itself opens it."""

from __future__ import annotations

import torch


class Intruder(torch.nn.Module):
    """As TorchScript: an archive that writes a file of its choice while it is being opened."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save([1, 2, 3], self.path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x
