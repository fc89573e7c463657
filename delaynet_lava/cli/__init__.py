"""Commands: argument parsing and printing only."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click
import typer
from click.shell_completion import CompletionItem

# Two runtimes share the cores here, torch's and Numba's. By default their idle threads spin for long, which
# on a busy machine makes a training ten times slower; if they never spin, to wake them up takes half of the
# step of a small network. The runtimes read this when they are loaded, the second only GNU's: some 0.1 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# First, see there.
from delaynet_lava.cli.streams import PIPE_CLOSED, lasting_stdout  # isort: split

from delaynet_lava._version import __version__
from delaynet_lava.cli.completions import add_completions
from delaynet_lava.cli.interrupts import interrupts_arrive
from delaynet_lava.cli.output import complain, forget_stdout, tell_of_compiling
from delaynet_lava.errors import DelayNetError, one_line

__all__ = ["COMMANDS", "FAULT", "export_main", "main"]

# torch has a RuntimeError for it, worded otherwise by each allocator.
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|Unable to allocate", re.IGNORECASE)
FAULT = 70
"""Exit code of what should not happen; 1 would say that a check failed."""

COMMANDS = {
    "train": "Train a network on a task; a killed training goes on where it was.",
    "export": "Turn a trained network into the integers of a net.h5, checked against a chip.",
    "import": "Turn a NIR graph into the integers of a chip, and say what was assumed for it.",
    "check": "Compare a model's own forward pass with the emulator and Lava.",
    "run": "Run a network on samples of a task; with --check, compare two executions.",
    "evaluate": "Accuracy of networks over samples, classes and variations of a task.",
    "inspect": "What a chip will do to a network, and how few bits would do.",
    "plot": "Pictures of networks and trainings.",
    "init": "Examine initial weights before training.",
    "profiles": "Show the hardware profiles, or every value of one.",
    "deploy": "Run a network on a Loihi 2 board, or on a cluster's CPUs.",
    "search": "Search over a recipe's options.",
    "verify": "Say what a file is, and whether it is as it was written.",
    "bench": "Measure this package against SLAYER, Lava and others.",
    "setup-lava": "Install Lava and SLAYER here, on Python 3.10 to 3.13, and test them.",
    "completion": "Print what lets a shell complete commands, options and files.",
    "doctor": "Say what is installed, what works here, and what gets the rest.",
}
"""Command and what it is for. The function of a command bears its name, in the module of that name below."""


class _Context(click.Context):
    """Help without the backslashes that typer writes before ``[required]`` for rich, which prints nothing."""

    def get_help(self) -> str:
        return super().get_help().replace("\\[", "[")


def _command(name: str) -> click.Command:
    """What typer makes of a command's module, with contexts of ours all over."""
    word = name.replace("-", "_") + "_" * iskeyword(name)  # a function can't be called import
    module = import_module(f"delaynet_lava.cli.{word}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(getattr(module, module.__name__.rpartition(".")[2]))
    command = typer.main.get_command(app)
    waiting = [command]
    while waiting:
        one = waiting.pop()
        one.context_class = _Context
        add_completions(one)
        waiting += one.commands.values() if isinstance(one, click.Group) else []
    return command


class _Commands(click.Group):
    """Imports a command when it is called: most bring torch or Lava, and a help text needs neither."""

    context_class = _Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in COMMANDS else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # Of a group, click would import every command to ask for its help.
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name]) for name in names] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(name: str) -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            print(f"{name} {__version__}")
            ctx.exit()

    flags: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True}
    return click.Option(["--version"], callback=show, help="Show the version.", **flags)


def _delaynet() -> click.Command:
    return _Commands(
        "delaynet",
        help="Recurrent spiking networks with axonal delays: train, export, run on Lava, inspect.",
        no_args_is_help=True,
        params=[_version("delaynet")],
    )


def _export_alone() -> click.Command:
    command = _command("export")
    command.params.append(_version("delaynet-export"))
    # typer's own expects the shell to ask in another way.
    command._main_shell_completion = click.Command._main_shell_completion.__get__(command)  # type: ignore[method-assign]
    return command


def _usage(error: click.ClickException, name: str) -> str:
    """What was wrong with the words of a command, and whose help says more."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else name
    text = error.format_message().rstrip(".")
    unknown = re.fullmatch(r"No such command '(.*)'", text, re.DOTALL)
    if unknown and context is not None and isinstance(context.command, click.Group):
        near = difflib.get_close_matches(unknown[1], context.command.list_commands(context), 2, 0.65)
        text += f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{text} (see {where} --help)"


def _outcome(command: Callable[[], click.Command], name: str, args: list[str], debug: bool) -> int:
    """Run a command; every failure is one line on stderr and an exit code."""
    try:
        result = command().main(
            args, prog_name=name, standalone_mode=False, help_option_names=["-h", "--help"]
        )
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except (KeyboardInterrupt, click.Abort):
        complain(name, "interrupted; files it had written are whole, others are as they were; call it again")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, click.ClickException):
            complain(name, _usage(error, name))
            return 2
        if isinstance(error, DelayNetError):
            complain(name, str(error))
            return error.exit_code
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            complain(name, "out of memory; use fewer samples at a time")
            return 2
        complain(name, f"a fault of the program, {_place(error)}; --debug shows where, please report it")
        return FAULT


def _place(error: BaseException) -> str:
    """What was raised, and in which line of ours; of torch not its words, which are about its own sources."""
    passed = traceback.extract_tb(error.__traceback__)
    ours = [f for f in passed if "delaynet_lava" in f.filename]
    where = f" in {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else ""
    # What its compiled part raises is a RuntimeError, and leaves no line of torch behind.
    of_torch = "torch" in sys.modules and (
        type(error) is RuntimeError or f"{os.sep}torch{os.sep}" in passed[-1].filename
    )
    words = "raised by torch" if of_torch else one_line(str(error), 200)
    return f"{type(error).__name__}{where}: {words}"


def _execute(command: Callable[[], click.Command], name: str, args: list[str]) -> int:
    """:func:`_outcome`, and what became of the output."""
    debug = "--debug" in args
    if sys.stderr.isatty():
        tell_of_compiling(name)
    try:
        with lasting_stdout() as stdout, interrupts_arrive():
            code = _outcome(command, name, [a for a in args if a != "--debug"], debug)
    finally:
        forget_stdout()
    if stdout.failure is None:
        return code
    if not stdout.reason:
        return PIPE_CLOSED
    complain(name, f"stdout cannot be written ({stdout.reason})")
    return code or 2


def main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet``."""
    sys.exit(_execute(_delaynet, "delaynet", sys.argv[1:] if args is None else args))


def export_main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet-export``."""
    sys.exit(_execute(_export_alone, "delaynet-export", sys.argv[1:] if args is None else args))
