"""What a shell is offered for an option's value, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

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


# click's own asks for the words as bash breaks them, which is at colons too: of model:NAME it sees the end.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line=$COMP_LINE words=() at=0 k word blank whole stays= type value
    for ((k = 0; k < ${#COMP_WORDS[@]}; k++)); do
        word=${COMP_WORDS[k]}
        blank=${line%%%%[![:blank:]]*}
        line=${line#"$blank"}
        line=${line#"$word"}
        if ((k == 0)) || [[ $blank ]]; then words+=("$word"); else words[-1]+=$word; fi
        if ((k == COMP_CWORD)); then at=$((${#words[@]} - 1)); fi
    done
    # What stands before bash's own word stays where it is.
    whole=${words[at]##*=}
    if [[ $COMP_WORDBREAKS == *:* ]]; then stays=${whole%%"${whole##*:}"}; fi
    for word in $(env COMP_WORDS="${words[*]}" COMP_CWORD=$at %(complete_var)s=bash_complete "$1"); do
        IFS=, read -r type value <<<"$word"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$stays"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH


class _WholeWords(ShellComplete):
    """For shells to which --init=model:NAME is one word: what they are offered has the option before it."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--"):
            for item in found:
                item.value = f"{option}={item.value}" if item.type == "plain" else item.value
        return found


class _Zsh(_WholeWords, ZshComplete):
    pass


class _Fish(_WholeWords, FishComplete):
    pass


# click finds them by the shell's name, when a shell asks.
for _shell in (_Bash, _Zsh, _Fish):
    add_completion_class(_shell)
