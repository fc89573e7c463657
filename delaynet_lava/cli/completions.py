"""What a shell is offered for an option's value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

import click
from click.shell_completion import CompletionItem

__all__ = ["add_completions"]


def _of(module: str, name: str) -> Callable[[], Iterable[str]]:
    """A value of another module, a list or what returns one; imported when it is asked for."""

    def values() -> Iterable[str]:
        found = getattr(import_module(f"delaynet_lava.{module}"), name)
        return found() if callable(found) else found

    return values


# Parameters that take a network or a model, shipped ones too.
_NETWORKS = ("net", "nets", "model", "models", "init")


def _shipped() -> Iterable[str]:
    from delaynet_lava.models import PREFIX, names

    return [PREFIX + name for name in names()]


# By the name of a parameter; where it may also be a file, files are offered beside.
_WORDS: dict[str, Callable[[], Iterable[str]]] = {
    "profile": _of("hw_profiles", "profile_names"),
    "recipe": _of("training.recipe_file", "recipe_names"),
    "task": lambda: ("cue", "psmnist"),
    "backend": lambda: ("emulator", "lava", "loihi2"),
    "check": lambda: ("emulator", "lava"),
    "split": _of("tasks.base", "SPLITS"),
    "sweep": _of("analysis.sweep", "KINDS"),
    "part": lambda: ("training", "emulator", "lava"),
    "launch": lambda: ("sbatch", "direct"),
    "delay_overflow": lambda: ("error", "relay", "retime"),
    "sampler": lambda: ("tpe", "random", "paper"),
    "shell": lambda: ("bash", "zsh", "fish"),
    "unit": lambda: ("s", "ms"),
    "order": lambda: ("new", "old"),
    "decay": lambda: ("euler", "exponential"),
    "reset": lambda: ("zero", "subtract"),
    "loop": lambda: ("implicit", "explicit"),
    **dict.fromkeys(_NETWORKS, _shipped),
}
_FILES_TOO = ("profile", "recipe", "task", *_NETWORKS)
# Words of the user's own, which nothing can guess.
_NOTHING = ("host", "partition", "board", "loihi_gen", "system", "vary", "seeds", "set_", "cancel", "storage")


def _complete(param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    name = param.name or ""
    if name in _NOTHING:
        return []
    found = [word for word in _WORDS.get(name, tuple)() if word.startswith(incomplete)]
    files = name not in _WORDS or (name in _FILES_TOO and not found)
    return [CompletionItem(word) for word in found] + [CompletionItem(incomplete, type="file")] * files


def _completer(param: click.Parameter) -> Callable[[click.Context, str], list[CompletionItem]]:
    return lambda ctx, incomplete: _complete(param, incomplete)


def add_completions(command: click.Command) -> None:
    """Give each parameter that takes a text what a shell is to offer for it."""
    for param in command.params:
        if isinstance(param.type, click.types.StringParamType):
            param.shell_complete = _completer(param)  # type: ignore[method-assign, assignment]
