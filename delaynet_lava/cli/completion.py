"""``delaynet completion``."""

from __future__ import annotations

from typing import Annotated

import click
import typer
from click.shell_completion import BashComplete, add_completion_class, get_completion_class

from delaynet_lava.cli.output import say
from delaynet_lava.errors import InputError

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("delaynet", "delaynet-export")

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


def completion(shell: Annotated[str, typer.Argument(help=f"{', '.join(SHELLS)}.")]) -> int:
    """Print what lets a shell complete commands, options and files.

    For bash, in ~/.bashrc: eval "$(delaynet completion bash)"; for zsh, in ~/.zshrc, behind compinit:
    eval "$(delaynet completion zsh)"; for fish, in config.fish: delaynet completion fish | source

    Example: delaynet completion bash
    """
    if shell not in SHELLS:
        raise InputError("shell", f"{shell!r} is not known", f"choose from: {', '.join(SHELLS)}")
    add_completion_class(_Bash, "bash")
    maker = get_completion_class(shell)
    assert maker is not None
    for name in PROGRAMS:
        variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
        say(maker(click.Command(name), {}, name, variable).source().rstrip(), fold=False)
    return 0
