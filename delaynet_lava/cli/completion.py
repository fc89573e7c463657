"""``delaynet completion``."""

from __future__ import annotations

from typing import Annotated

import click
import typer
from click.shell_completion import get_completion_class

from delaynet_lava.cli.output import say
from delaynet_lava.errors import InputError

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("delaynet", "delaynet-export")


def completion(shell: Annotated[str, typer.Argument(help=f"{', '.join(SHELLS)}.")]) -> int:
    """Print what lets a shell complete commands, options and files.

    For bash, in ~/.bashrc: eval "$(delaynet completion bash)"; for zsh, in ~/.zshrc, behind compinit:
    eval "$(delaynet completion zsh)"; for fish, in config.fish: delaynet completion fish | source

    Example: delaynet completion bash
    """
    if shell not in SHELLS:
        raise InputError("shell", f"{shell!r} is not known", f"choose from: {', '.join(SHELLS)}")
    maker = get_completion_class(shell)
    assert maker is not None
    for name in PROGRAMS:
        variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
        say(maker(click.Command(name), {}, name, variable).source().rstrip(), fold=False)
    return 0
