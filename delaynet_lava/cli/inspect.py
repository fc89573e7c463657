"""``delaynet inspect``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from delaynet_lava.analysis import KINDS
from delaynet_lava.analysis.page import Section, Table, write_page
from delaynet_lava.cli.networks import NET, open_network
from delaynet_lava.cli.output import (
    draw,
    lines,
    progress,
    require_folder,
    require_picture,
    say,
    speak_warnings,
    write_json,
    written,
)
from delaynet_lava.cli.samples import TASK, number, seed_words, source
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.network import Network
from delaynet_lava.tasks.base import Task

if TYPE_CHECKING:
    from delaynet_lava.analysis.report import Sweep

SAMPLES, SWEEP_SAMPLES = 32, 256
ROWS = 40  # of a table, in a terminal


def _task(word: str | None, network: Network, path: str, seed: int | None) -> tuple[Task | None, str]:
    """The task to run, and what it is called; or none, and why. One that was asked for must fit."""
    try:
        of = source(word, network, path, seed)
        return of, f"{of.word}{seed_words(of)}"
    except InputError as error:
        if word is not None:
            raise
        return None, str(error)


def _sweep(network: Network, kind: str, of: Task, samples: int | None) -> Sweep:
    """Over the task, and over the others of its kind that it names."""
    from delaynet_lava.analysis.report import Sweep
    from delaynet_lava.analysis.sweep import sweep, usual_values

    tasks = [of, *of.variations()]
    samples = min(number(one, samples, SWEEP_SAMPLES) for one in tasks)
    with progress(f"sweep of {kind}", len(usual_values(network, kind))) as advance:
        points = sweep(network, kind, tasks, samples, on_point=lambda point: advance(1))
    words = f"{', '.join(one.word for one in tasks)}{seed_words(of)}, {samples} samples of each"
    return Sweep(kind, tuple(points), words, 1 / network.outputs)


def _lines(table: Table) -> None:
    lines(table.columns, table.rows[:ROWS])
    if len(table.rows) > ROWS:
        say(f"and {len(table.rows) - ROWS} more rows, which --json and --html show")


def _print(section: Section) -> None:
    say("")
    say(section.title)
    for paragraph in filter(None, section.text.split("\n\n")):
        say(paragraph)
    for k, table in enumerate(section.tables):
        if k or section.text:
            say("")
        _lines(table)


def inspect(
    net: Annotated[str, typer.Argument(help=NET)],
    profile: Annotated[str, typer.Option(help="Hardware profile, a name or a file.")] = "loihi2",
    task: Annotated[str | None, TASK] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Test samples. [default: {SAMPLES}, in a sweep {SWEEP_SAMPLES}]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
    sweep: Annotated[str | None, typer.Option(help=f"How little would do of: {', '.join(KINDS)}.")] = None,
    bit_depth: Annotated[
        bool, typer.Option("--bit-depth", help="Draw how long membranes remember by their bits.")
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(help="Draw the sweep here, or the bit depth: .png, .svg or .pdf; - is stdout."),
    ] = None,
    html: Annotated[
        str | None, typer.Option(help="Write all tables and pictures as one page; - is stdout.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """What a chip will do to a network, and how few bits would do.

    Rules, overflow, bit depth, placement; with a task accuracy, extremes and cost. Exit code 1 where a
    rule is broken. Example: delaynet inspect net.h5 --profile loihi1 --html report.html
    """
    from delaynet_lava.analysis import report_sections as parts
    from delaynet_lava.analysis.report import gather

    picture = plot or ("bit-depth.png" if bit_depth else None)
    require_picture("--plot", picture)
    for option, path in (("--html", html), ("--json", json)):
        require_folder(option, path)
    if sweep is not None and sweep not in KINDS:
        raise InputError("--sweep", f"{sweep!r} is not known", f"choose from: {', '.join(KINDS)}")
    if samples is not None and samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
    with speak_warnings("delaynet inspect"):
        network = open_network(net)
    chip = load_profile(profile)
    of, words = _task(task, network, net, seed)
    if sweep is not None and of is None:
        raise InputError("--sweep", f"there is nothing to run: {words}")
    count = 0 if of is None else number(of, samples, SAMPLES)
    with progress("running", 2 * count) as advance:
        report = gather(network, chip, of, words, count, advance)
    if sweep is not None and of is not None:
        report = replace(report, sweep=_sweep(network, sweep, of, samples))
    # Files first: who reads the tables may go away.
    write_json(json, {"path": net, **report.as_dict()})
    if picture is not None:
        swept = None if bit_depth else report.sweep
        draw(parts.bit_depth_figure(report) if swept is None else parts.sweep_figure(swept), picture)
    if html is not None:
        with written(html, ".html") as place:
            below = f"{network.summary()}, on {chip.title}"
            write_page(place, net, parts.sections(report), below, parts.verdict(report))
    say(f"{net}: {network.summary()}")
    for section in parts.sections(report, page=False):
        _print(section)
    return int(report.broken > 0)
