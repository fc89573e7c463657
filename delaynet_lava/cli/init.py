"""``delaynet init``."""

from __future__ import annotations

from typing import Annotated

import typer

from delaynet_lava.cli.output import complain, figures, require_folder, say, write_json
from delaynet_lava.cli.train import RECIPE_HELP, SET_HELP, TASK_HELP, recipe_with
from delaynet_lava.errors import InputError
from delaynet_lava.tasks.registry import task as task_of


def init(
    task: Annotated[str, typer.Argument(help=TASK_HELP)],
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, lattice and samples.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    samples: Annotated[int, typer.Option(help="Samples of the task to run, forward and backward.")] = 8,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Examine initial weights before training: spectral radii, branching factor, growth of the gradient.

    Exit code 1 where something stands against a training.

    Example: delaynet init cue --recipe loihi2 --set init.radius=14
    """
    require_folder("--json", json)
    if samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
    made, source = recipe_with(recipe, set_), task_of(task, seed)
    if made.network.kind == "lsnn":
        raise InputError("delaynet init", "examines networks of integers, an lsnn has none")
    from delaynet_lava.analysis.initial import examine
    from delaynet_lava.training.curriculum import stages_of
    from delaynet_lava.training.networks import build_network

    net = build_network(made, stages_of(made, source, seed)[-1].pool, seed)
    report = examine(net, made, source, seed, samples)
    write_json(json, {"task": source.word, "recipe": recipe, "seed": seed, **report.as_dict()})
    loop, first, full = report.loop, report.first_steps, report.steps
    figures(
        [
            ("spectral radius of W", f"{report.radius:.3f} thresholds"),
            ("spectral radius of |W|", f"{report.absolute_radius:.3f} thresholds"),
            ("spikes per neuron and step", f"{report.rate:.4f}"),
            ("branching factor", f"{report.branching:.3f}"),
            ("gradient, a step back", f"times {report.growth:.4f}"),
            *(
                [(f"gradient, a loop of {loop:.0f} steps", f"times {report.growth**loop:.3g}")]
                if loop
                else []
            ),
            (f"gradient, first stage ({first} steps)", f"times 10^{report.first_decades:.1f}"),
            ("spikes by layer", " ".join(f"{one:.4f}" for one in report.layer_rates)),
            ("gradient by layer", " ".join(f"{one:.1e}" for one in report.layer_gradients)),
            (f"gradient, full task ({full} steps)", f"times 10^{report.decades:.1f}"),
        ]
    )
    if not report.problems:
        say("nothing stands against training")
    for problem in report.problems:
        complain("delaynet init", problem)
    return 1 if report.problems else 0
