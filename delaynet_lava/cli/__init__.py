"""Commands: argument parsing and printing only."""

from __future__ import annotations

import os
import sys
import traceback

import click
import typer

# Two runtimes share the cores here, torch's and Numba's. By default their idle threads spin, which on
# a busy machine makes a training ten times slower; the runtimes read this when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# First, see there.
from delaynet_lava.cli.streams import PIPE_CLOSED, lasting_stdout  # isort: split

from delaynet_lava.cli import (
    bench,
    check,
    deploy,
    evaluate,
    export,
    init,
    inspect,
    plot,
    profiles,
    run,
    search,
    train,
)
from delaynet_lava.cli.output import complain
from delaynet_lava.errors import DelayNetError

__all__ = ["FAULT", "app", "export_main", "main"]

FAULT = 70
"""Exit code of what should not happen; 1 would say that a check failed."""

app = typer.Typer(
    name="delaynet",
    help="Recurrent spiking networks with axonal delays: train, export, run on Lava, inspect.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("init")(init.init)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("evaluate")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.add_typer(plot.app, name="plot")
app.command("profiles")(profiles.profiles)
app.command("bench")(bench.bench)
app.command("search")(search.search)
app.command("deploy")(deploy.deploy)

export_app = typer.Typer(add_completion=False, rich_markup_mode=None)
export_app.command()(export.export)


class _Context(click.Context):
    """Help without the backslashes that typer writes before ``[required]`` for rich, which prints nothing."""

    def get_help(self) -> str:
        return super().get_help().replace("\\[", "[")


def _commands(typer_app: typer.Typer) -> click.Command:
    """What typer makes of an app, with contexts of ours all over."""
    command = typer.main.get_command(typer_app)
    waiting = [command]
    while waiting:
        one = waiting.pop()
        one.context_class = _Context
        waiting += one.commands.values() if isinstance(one, click.Group) else []
    return command


def _outcome(typer_app: typer.Typer, name: str, args: list[str], debug: bool) -> int:
    """Run a command; every failure is one line on stderr and an exit code."""
    try:
        result = _commands(typer_app).main(args, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except (KeyboardInterrupt, click.Abort):
        complain(name, "interrupted")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, click.ClickException):
            complain(name, f"{error.format_message()} (see {name} --help)")
            return 2
        if isinstance(error, DelayNetError):
            complain(name, str(error))
            return error.exit_code
        if isinstance(error, MemoryError):
            complain(name, "out of memory; use fewer samples at a time")
            return 2
        complain(name, f"a fault of the program, {_place(error)}; --debug shows where, please report it")
        return FAULT


def _place(error: BaseException) -> str:
    """What was raised, and in which line of ours."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "delaynet_lava" in f.filename] or [None]
    where = "" if ours[-1] is None else f" in {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"
    return f"{type(error).__name__}{where}: {str(error)[:200]}"


def _execute(typer_app: typer.Typer, name: str, args: list[str]) -> int:
    """:func:`_outcome`, and what became of the output."""
    debug = "--debug" in args
    with lasting_stdout() as stdout:
        code = _outcome(typer_app, name, [a for a in args if a != "--debug"], debug)
    if stdout.failure is None:
        return code
    if not stdout.reason:
        return PIPE_CLOSED
    complain(name, f"stdout cannot be written ({stdout.reason})")
    return code or 2


def main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet``."""
    sys.exit(_execute(app, "delaynet", sys.argv[1:] if args is None else args))


def export_main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet-export``."""
    sys.exit(_execute(export_app, "delaynet-export", sys.argv[1:] if args is None else args))
