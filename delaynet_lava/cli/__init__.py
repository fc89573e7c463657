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

__all__ = ["app", "export_main", "main"]

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


def _execute(typer_app: typer.Typer, name: str, args: list[str]) -> int:
    """Run a command; every expected failure is one line on stderr and an exit code."""
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    try:
        result = _commands(typer_app).main(args, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.ClickException as error:
        if debug:
            traceback.print_exc()
        complain(name, f"{error.format_message()} (see {name} --help)")
        return 2
    except DelayNetError as error:
        if debug:
            traceback.print_exc()
        complain(name, str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain(name, "interrupted")
        return 130
    except MemoryError:
        complain(name, "out of memory; use fewer samples at a time")
        return 2


def main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet``."""
    sys.exit(_execute(app, "delaynet", sys.argv[1:] if args is None else args))


def export_main(args: list[str] | None = None) -> None:
    """Entry point of ``delaynet-export``."""
    sys.exit(_execute(export_app, "delaynet-export", sys.argv[1:] if args is None else args))
