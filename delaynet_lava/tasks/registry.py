"""What the commands that run a task have in common."""

from __future__ import annotations

from delaynet_lava.errors import InputError
from delaynet_lava.network import Network
from delaynet_lava.tasks.cue import CHANNELS, CLASSES


def require_task(task: str) -> None:
    """Refuse an unknown task."""
    if task != "cue":
        raise InputError("task", f"{task!r} is not known", "choose from: cue")


def require_cue(task: str, network: Network, path: str) -> None:
    """Refuse an unknown task, and a network that has not its inputs and outputs."""
    require_task(task)
    if (network.channels, network.outputs) != (CHANNELS, CLASSES):
        raise InputError(
            path,
            f"takes {network.channels} inputs and gives {network.outputs} outputs, the cue task has "
            f"{CHANNELS} and {CLASSES}",
            "run it on the task it was trained for",
        )
