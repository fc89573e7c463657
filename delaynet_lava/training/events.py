"""Event files for TensorBoard: the figures of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import InputError

if TYPE_CHECKING:
    from delaynet_lava.training.trainer import Epoch

__all__ = ["event_writer"]

_CURVES = ("loss", "accuracy", "validation", "rate", "branching", "gradient", "feedback", "stage")


def event_writer(folder: str) -> Callable[[Epoch], None]:
    """What writes an epoch's figures into event files in a folder, at once.

    The epochs of a training that goes on follow those that are there.

    Raises:
        InputError: neither tensorboard nor tensorboardX is installed, or the folder can't be written.
    """
    writer: Any = None

    def write(epoch: Epoch) -> None:
        for name, value in asdict(epoch).items():
            if name in _CURVES and value is not None:
                writer.add_scalar(name, value, epoch.number)
        writer.flush()

    try:
        writer = _writer_class()(folder)
    except OSError as error:
        raise InputError(
            f"--tensorboard {folder}", f"cannot be written ({error.strerror or error})"
        ) from error
    return write


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        pass
    else:
        return SummaryWriter
    try:
        from tensorboardX import SummaryWriter as OtherWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard",
            f"needs a package that is not installed ({error})",
            "pip install 'delaynet_lava[tensorboard]'",
        ) from error
    return OtherWriter
