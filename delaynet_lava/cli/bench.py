"""``delaynet bench``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

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
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import WORDS

# The rate is that of a hidden neuron: spikes in a step.
COLUMNS = ["median", "sample-steps/s", "threads", "rate", "peak MiB"]


def _parts(chosen: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    for part in chosen or ():
        if part not in known:
            raise InputError("--part", f"{part!r} is not known here", f"choose from: {', '.join(known)}")
    return tuple(part for part in known if not chosen or part in chosen)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1000:.3g} ms"


def _row(figure: Any) -> list[str]:
    """What stands in the columns of :data:`COLUMNS`."""
    peak = figure.peak_memory_mib
    return [
        _seconds(figure.median_s),
        f"{figure.speed:,.0f}",
        "" if figure.threads is None else str(figure.threads),
        f"{figure.facts['rate']:.3g}",
        "" if peak is None else f"{peak:,.0f}",
    ]


def _head(machine: dict[str, Any], versions: dict[str, str]) -> None:
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    say(f"{machine['cpu']}, {machine['cores']} cores{memory}, {machine['system']}")
    say(", ".join(f"{name} {version}" for name, version in versions.items()))


def _show_ratios(report: Any, quick: bool, parts: tuple[str, ...]) -> None:
    sizes = report.sizes
    for network in report.networks:
        kind = network["model"] or f"seeded {network['seed']}"
        say(f"{network['summary']} ({kind}), rate: {network['rate']:.3f} spikes of a hidden neuron in a step")
    runs = f"a warm-up, then medians of at least {sizes.repeats} runs"
    say(f"quick, so too short for the goals: {runs}" if quick else runs)
    each = {
        "training": f"training step of {sizes.train_samples} samples x {sizes.train_steps} steps",
        "emulator": f"emulator {sizes.emulator_samples} x {sizes.emulator_steps}",
        "lava": f"Lava {sizes.lava_steps} steps",
    }
    say("a run: " + ", ".join(each[part] for part in parts))
    say("")
    lines(["measured", *COLUMNS], [[f.name, *_row(f)] for f in report.figures])
    if not report.ratios:
        return
    say("")
    medians = {f.name: _seconds(f.median_s) for f in report.figures}
    rows = []
    for ratio in report.ratios:
        goal = "" if ratio.goal is None else f"{'<=' if ratio.at_most else '>='} {ratio.goal:,g}"
        rows.append([ratio.name, ratio.text, goal, medians[ratio.ours], medians[ratio.theirs]])
    lines(["ratio", "value", "goal", "ours", "theirs"], rows)


def _show_scaling(report: Any) -> None:
    for series in report.series:
        slope = "" if series.slope is None else f": time ~ {series.over}^{series.slope:.2f}"
        say(f"\n{series.name}{slope}")
        rows = [[f"{x:,.0f}", *_row(f)] for x, f in zip(series.x, series.figures, strict=True)]
        lines([series.over, *COLUMNS], rows)
    say("")


def _limits(shape: str, quick: bool, json: str | None, alone: bool) -> int:
    from delaynet_lava.bench import machine
    from delaynet_lava.bench.limits import LIMITED, Limits, measure_limits

    if not alone:
        raise InputError("--limits", "goes with --shape, --quick and --json alone", "leave the others out")
    if shape not in LIMITED:
        raise InputError("--limits", f"knows no parts of the shape {shape!r}", f"one of {', '.join(LIMITED)}")
    about: dict[str, Any] = {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "quick": quick,
        "shape": shape,
    }
    with progress("measuring", 1) as advance:
        found = measure_limits(shape, quick)
        advance(1, "limits")
    if not isinstance(found, Limits):
        raise InputError("--limits", found.reason)
    write_json(json, {**about, **found.as_dict()})
    _head(about["machine"], about["versions"])
    say(f"{found.summary}, rate: {found.rate:.3f} spikes of a hidden neuron in a step")
    say(f"products of its matrices {found.gflops:.0f} GFLOP/s, memory {found.mib_s / 1024:.1f} GiB/s")
    say("")
    rows = [
        [part.name, f"{1e3 * part.seconds:.1f} ms", f"{part.gflop:.2f}" if part.gflop else "",
         f"{part.mib:.0f}" if part.mib else "", f"{1e3 * part.bound_s:.1f} ms" if part.bound_s else ""]
        for part in found.parts
    ]  # fmt: skip
    rows.append(["the step", f"{1e3 * found.step_s:.1f} ms", "", "", f"{1e3 * found.bound_s:.1f} ms"])
    lines(["part", "median", "GFLOP", "MiB", "bound"], rows)
    return 0


def _startup(quick: bool, json: str | None, alone: bool) -> int:
    from delaynet_lava.bench import machine
    from delaynet_lava.bench.startup import COMMANDS, QUICK, REPEATS, measure_starts

    if not alone:
        raise InputError("--startup", "goes with --quick and --json alone", "leave the others out")
    rounds = 1 + (QUICK if quick else REPEATS)
    with progress("measuring", rounds * len(COMMANDS)) as advance:
        found = measure_starts(quick, _announce(advance))
    about: dict[str, Any] = {"machine": machine.describe(), "versions": machine.versions(), "quick": quick}
    write_json(json, {**about, "starts": [one.as_dict() for one in found]})
    _head(about["machine"], about["versions"])
    say("")
    rows = [
        [one.name, f"{one.wall_s:.2f} s", f"{one.cpu_s:.2f} s", f"{one.numpy:.1f}", f"{one.torch:.2f}"]
        for one in found
    ]
    lines(["started", "wall", "CPU", "in numpy's", "in torch's"], rows)
    return 0


def _left_out(left_out: list[Any]) -> None:
    for one in left_out:
        say(f"left out: {one.name} ({one.reason})")


def _announce(advance: Callable[..., None]) -> Callable[[str], None]:
    """Shows what is being measured; the bar moves on when the next thing begins."""
    done = iter([0])
    return lambda name: advance(next(done, 1), name)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Few and short runs, for a look.")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="How time grows with steps, samples, neurons and spikes.")
    ] = False,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits", help="The parts of a training step of ours, and what the machine needs for each."
        ),
    ] = False,
    startup: Annotated[
        bool,
        typer.Option("--startup", help="What it takes to start a command, beside import numpy and torch."),
    ] = False,
    shape: Annotated[
        str,
        typer.Option(
            help="cue: 40-125-2 at 2 % spikes; psmnist: 1-216-10 and 1-48-112-112-10, graded inputs, at 8 %; "
            "src: 784-100-10, Spiking Recurrent Cells."
        ),
    ] = "cue",
    model: Annotated[
        str | None,
        typer.Option(help="A model.pt or net.h5 to measure; default: a seeded network that spikes as often."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help=f"Whose inputs are run, such as {WORDS}. [default: the shape's own]")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Only this: training, emulator or lava; repeatable.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw them here: .png, .svg or .pdf; - is stdout, as SVG.")
    ] = None,
) -> int:
    """Measure this package against SLAYER, Lava and others on this machine; minutes.

    Each thing runs in a process of its own, a training step of ours in turns with each peer's; what is not
    installed is left out and said.
    Exit code 1 where Lava's simulator and the emulator disagree. Example: delaynet bench --json bench.json
    """
    from delaynet_lava.bench import SCALED, machine, parts_of, plots
    from delaynet_lava.bench.ratios import measure_ratios, plan_ratios
    from delaynet_lava.bench.scaling import measure_scaling, plan_scaling

    require_folder("--json", json)
    require_picture("--plot", plot)
    if scaling and (model or task or shape != "cue"):
        raise InputError(
            "--scaling", "takes many sizes, --shape, --model and --task one", "leave them or it out"
        )
    if startup:
        return _startup(quick, json, alone=not (limits or scaling or model or task or part or plot))
    if limits:
        return _limits(shape, quick, json, alone=not (scaling or model or task or part or plot))
    parts = _parts(part, SCALED if scaling else parts_of(shape))
    about: dict[str, Any] = {"machine": machine.describe(), "versions": machine.versions(), "quick": quick}
    report: Any
    if scaling:
        series = plan_scaling(quick, parts)
        with progress("measuring", sum(len(one.points) for one in series)) as advance:
            report = measure_scaling(series, _announce(advance))
    else:
        plan = plan_ratios(model, quick, parts, task, shape)
        with progress("measuring", len(plan.groups)) as advance:
            report = measure_ratios(plan, _announce(advance))
    write_json(json, {**about, **report.as_dict()})
    if plot is not None:
        title = f"{shape}: {about['machine']['cpu']}, {about['machine']['cores']} cores" + ", quick" * quick
        drawn = (
            plots.draw_scaling(report.series, title) if scaling else plots.draw_ratios(report.ratios, title)
        )
        draw(drawn, plot)
    _head(about["machine"], about["versions"])
    if scaling:
        _show_scaling(report)
    else:
        _show_ratios(report, quick, parts)
    _left_out(report.left_out)
    differ = [] if scaling else [f.name for f in report.figures if not f.facts.get("emulator_agrees", True)]
    for name in differ:
        complain("delaynet bench", f"{name}: its membranes are not the emulator's")
    return 1 if differ else 0
