"""``delaynet check``."""

from __future__ import annotations

from typing import Annotated

import typer

from delaynet_lava.cli.output import complain, figures, require_folder, say, speak_warnings, write_json
from delaynet_lava.cli.samples import TASK, number, seed_words, source

SAMPLES = 64


def check(
    model: Annotated[str, typer.Argument(help="A model.pt, model:NAME, or a state_dict with --network.")],
    task: Annotated[str | None, TASK] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Number of samples. [default: {SAMPLES}, or all of a smaller task]")
    ] = None,
    lava_samples: Annotated[int, typer.Option(help="How many of them Lava runs too; 0: without Lava.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
    network: Annotated[
        str | None,
        typer.Option(help="The code that makes the network of a state_dict: file.py:Name. It is run."),
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Compare a model's own forward pass with the emulator and Lava, on samples of a task.

    Exit code 1 where a spike, a membrane or a decision differs.

    Example: delaynet check model.pt --task mine.npz
    """
    from delaynet_lava.export.agreement import check as compare
    from delaynet_lava.export.source import model_of

    require_folder("--json", json)
    with speak_warnings("delaynet check"):
        found, integers = model_of(model, network)
        of = source(task, integers, model, seed)
    count = number(of, samples, SAMPLES)
    result = compare(found, of, count, lava_samples, network=integers)
    write_json(json, {"model": model, "task": of.word, "seed": of.seed, **result.as_dict()})
    say(f"{model}: {count} samples of {of.word}{seed_words(of)}, {of.steps} steps")
    rows = []
    for layer in result.layers:
        text = f"{layer.differing:,} of {layer.compared:,} differ"
        if layer.what == "spikes":
            text += f" ({layer.spikes:,} spikes)"
        if layer.offset:
            when = "later" if layer.offset > 0 else "earlier"
            text += f", {abs(layer.offset)} steps {when} than in the model"
        rows.append((f"layer {layer.layer} {layer.what}", text))
    rows.append(("decisions", f"{count - result.decisions} of {count} differ"))
    if result.right is not None:
        rows.append(("right", f"{result.right} of {count}"))
    figures(rows)
    if result.lava is not None:
        say(
            f"{result.lava.mismatches} mismatches between emulator and lava in "
            f"{result.lava.compared:,} integers ({result.lava_samples} samples)"
        )
    for line in result.notes:
        complain("delaynet check", f"note: {line}")
    if result.first is not None:
        complain("delaynet check", f"model (first) and emulator: {result.first}")
    if result.lava is not None and not result.lava:
        complain("delaynet check", f"emulator (first) and lava: {result.lava}")
    return 0 if result else 1
