"""``delaynet init``."""

from __future__ import annotations

from typing import Annotated

import typer

from delaynet_lava.cli.output import complain, figures, say, write_json
from delaynet_lava.cli.train import parse_options
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import task as task_of
from delaynet_lava.training.options import PRESETS


def init(
    task: Annotated[str, typer.Argument(help="Benchmark: cue.")],
    preset: Annotated[str, typer.Option(help=f"One of: {', '.join(PRESETS)}.")] = "loihi2",
    seed: Annotated[int, typer.Option(help="Seed of weights, lattice and samples.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change an option: NAME=VALUE; repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples of the task to run, forward and backward.")] = 8,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Examine initial weights before training: spectral radii, branching factor, growth of the gradient.

    Exit code 1 where something stands against a training. Example: delaynet init cue --set radius=14
    """
    task_of(task)
    if samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
    options = parse_options(preset, seed, set_ or [])
    if options.network != "delaynet":
        raise InputError("delaynet init", f"examines DelayNets, {options.network!r} is another network")
    from delaynet_lava.analysis.initial import examine
    from delaynet_lava.training import delaynet  # needs SLAYER

    report = examine(delaynet.build(options), options, samples)
    if json != "-":
        loop, first, full = report.loop, report.first_steps, report.steps
        figures(
            [
                ("spectral radius of W", f"{report.radius:.3f} thresholds"),
                ("spectral radius of |W|", f"{report.absolute_radius:.3f} thresholds"),
                ("spikes per neuron and step", f"{report.rate:.4f}"),
                ("branching factor", f"{report.branching:.3f}"),
                ("gradient, a step back", f"times {report.growth:.4f}"),
                (f"gradient, a loop of {loop:.0f} steps", f"times {report.growth**loop:.3g}"),
                (f"gradient, first stage ({first} steps)", f"times 10^{report.first_decades:.1f}"),
                (f"gradient, full task ({full} steps)", f"times 10^{report.decades:.1f}"),
            ]
        )
        if not report.problems:
            say("nothing stands against training")
    for problem in report.problems:
        complain("delaynet init", problem)
    write_json(json, {"preset": preset, "seed": seed, **report.as_dict()})
    return 1 if report.problems else 0
