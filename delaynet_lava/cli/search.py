"""``delaynet search``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delaynet_lava.cli.output import (
    complain,
    draw,
    lines,
    progress,
    require_folder,
    require_picture,
    say,
    write_json,
)
from delaynet_lava.cli.train import RECIPE_HELP, TASK_HELP, recipe_with
from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training.curriculum import stages_of
from delaynet_lava.training.recipe import recipe_of
from delaynet_lava.training.recipe_file import command_line

if TYPE_CHECKING:
    from delaynet_lava.search.coordinator import Record
    from delaynet_lava.search.study import Search

_SHOWN = 10
_EXIT_BROKEN = 1
_INTERRUPTED = 130


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which a cluster sends at the time limit, ends what runs as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def search(
    task: Annotated[str, typer.Argument(help=TASK_HELP)],
    output: Annotated[
        str, typer.Option("-o", "--output", help="The folder of the search; made if it is not there.")
    ],
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 2,
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler and of every training.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Give a key a value, SECTION.KEY=VALUE, and do not search it; repeatable."
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="A TOML file with what is searched instead of the default.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Database: sqlite:///FILE or postgresql://USER@HOST/DATABASE; default: in FOLDER."),
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="tpe, random, or paper: at random over two delays beside a group without.")
    ] = "tpe",
    prune: Annotated[
        bool, typer.Option("--prune", help="End trainings that are below the median of the others.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(min=1.0, help="Seconds without a sign of life after which a worker counts as dead."),
    ] = 60.0,
    slurm: Annotated[bool, typer.Option("--slurm", help="Workers are a job array of Slurm.")] = False,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition; default: Slurm's own.")] = None,
    time: Annotated[int | None, typer.Option(min=1, help="Time limit of the job in minutes.")] = None,
    export: Annotated[int, typer.Option(min=0, help="Write the net.h5 of so many of the best.")] = 0,
    plot: Annotated[str | None, typer.Option(help="Draw the search here: a .png, .svg or .pdf.")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write all trials here; - is stdout.")] = None,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> int:
    """Search a recipe's keys; a killed search goes on where it was when called again.

    Example: delaynet search cue --recipe loihi2 -o search --trials 20 --workers 2 --export 3
    """
    from delaynet_lava.search.storage import require_optuna

    require_optuna()
    folder = Path(output).absolute()
    if worker:
        from delaynet_lava.search.worker import work

        try:
            with _terminated_like_interrupted():
                work(folder, grace)
        except KeyboardInterrupt:
            complain("delaynet search", "this worker was stopped")
            return _INTERRUPTED
        return 0
    if not slurm and (partition is not None or time is not None):
        raise InputError("--partition, --time", "are of a Slurm job", "add --slurm")
    require_picture("--plot", plot)
    require_folder("--json", json)
    wanted, url = _define(folder, task, recipe, seed, set_ or [], space, storage, sampler, prune, slurm)

    from delaynet_lava.search.coordinator import Cluster, ranked, run

    cluster = Cluster(partition, time) if slurm else None
    try:
        with _terminated_like_interrupted(), progress("searching", trials) as advance:

            def report(record: Record) -> None:
                advance(1)
                say(_line(record))

            records = run(wanted, url, trials, workers, grace, cluster, report)
    except KeyboardInterrupt:
        kept = len(list(folder.glob("trial-*.pt")))
        complain("delaynet search", f"interrupted; {kept} models are kept in {folder}, call again to go on")
        return _INTERRUPTED
    best = ranked(records)
    exported, broken = _export(best[:export])
    if plot is not None:
        from delaynet_lava.analysis.search_plots import draw_search

        draw(draw_search(records, wanted.space), plot)
    content = {"folder": str(folder), "storage": wanted.url(), "sampler": sampler, "seed": seed}
    content |= {"best": best[0].trial if best else None, "exported": exported}
    write_json(json, content | {"trials": [asdict(record) for record in records]})
    _tell(wanted, records, best)
    for path in exported:
        say(f"exported: {path}")
    return _EXIT_BROKEN if broken else 0


def _define(
    folder: Path,
    task: str,
    recipe: str,
    seed: int,
    changes: list[str],
    space: str | None,
    storage: str | None,
    sampler: str,
    prune: bool,
    slurm: bool,
) -> tuple[Search, str]:
    """What is asked for, as far as it can be refused before the first training; and the database's URL."""
    from delaynet_lava.search.space import check, default_space, paper_space, read_space, without
    from delaynet_lava.search.storage import full_url, shown
    from delaynet_lava.search.study import SAMPLERS, Search, begin

    base = recipe_with(recipe, changes)
    if sampler not in SAMPLERS:
        raise InputError("--sampler", f"{sampler!r} is not one of {', '.join(SAMPLERS)}")
    if sampler == "paper" and space is not None:
        raise InputError(
            "--space", "cannot be given to the paper's search, which has its own", "use --sampler random"
        )
    if sampler == "paper" and base.network.kind != "delaynet":
        raise InputError(
            "--sampler", f"paper searches delays, and {base.network.kind} has none", "use random"
        )
    if space is not None:
        parts = read_space(space)
    else:
        parts = paper_space() if sampler == "paper" else default_space(base)
    # What does not fit the task is refused here, not by each worker.
    source = task_of(task, seed)
    stages_of(base, source, seed)
    parts = without(parts, {change.partition("=")[0] for change in changes})
    check(parts, base, space or "the space to search")
    if storage is not None and slurm and full_url(storage) != shown(storage):
        raise InputError(
            "--storage",
            "has a password, which a job's workers would not get",
            "leave it out and put it into ~/.pgpass",
        )
    kept = None if storage is None else shown(storage)
    wanted = begin(Search(folder, source.word, recipe, base, parts, sampler, seed, prune, kept))
    return wanted, wanted.url() if storage is None else full_url(storage)


def _line(record: Record) -> str:
    if record.accuracy is None:
        return f"trial {record.trial}: pruned"
    return f"trial {record.trial}: accuracy {record.accuracy:.4f}, rate {record.rate:.4f}, {record.seconds} s"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tell(wanted: Search, records: list[Record], best: list[Record]) -> None:
    pruned = len(records) - len(best)
    say(
        f"{wanted.folder}: {len(best)} trained" + (f", {pruned} pruned" if pruned else "")
        + "; their models stay there, trial-NNNN.pt"
    )  # fmt: skip
    if not best:
        return
    names = sorted({name for record in best for name in record.params})
    rows = [
        [str(r.trial), f"{r.accuracy:.4f}", f"{r.rate:.4f}", str(r.seconds)]
        + [_short(r.params.get(name, "-")) for name in names]
        for r in best[:_SHOWN]
    ]
    lines(["trial", "accuracy", "rate", "seconds", *names], rows)
    again = command_line(wanted.task, wanted.recipe, recipe_of(best[0].recipe), wanted.seed)
    say(f"the best again: {again}")


def _export(best: list[Record]) -> tuple[list[str], int]:
    """Files written, and how many models broke a rule; each of those is a line on stderr."""
    if not best:
        return [], 0
    from delaynet_lava.export import export_netx

    written, broken = [], 0
    for record in best:
        path = str(Path(str(record.model)).with_suffix(".h5"))
        try:
            export_netx(str(record.model), path)
            written.append(path)
        except DelayNetError as error:
            broken += 1
            complain("delaynet search", f"{path} was not written: {error}")
    return written, broken
