"""``delaynet check``."""

from __future__ import annotations

from typing import Annotated

import typer

from delaynet_lava.cli.output import complain, figures, require_folder, say, speak_warnings, write_json
from delaynet_lava.errors import InputError


def check(
    model: Annotated[str, typer.Argument(help="A model.pt, or with --network a bare state_dict.")],
    task: Annotated[str | None, typer.Option(help="The samples; default: the model's own task.")] = None,
    samples: Annotated[int, typer.Option(help="Samples for the model and the emulator.")] = 64,
    lava_samples: Annotated[int, typer.Option(help="How many of them Lava runs too; 0: without Lava.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
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
    from delaynet_lava import task as make_task
    from delaynet_lava.export.agreement import check as compare
    from delaynet_lava.export.source import model_of

    require_folder("--json", json)
    with speak_warnings("delaynet check"):
        found, word = model_of(model, network)
        if not (task or word):
            raise InputError(model, "does not say which task it is for", "name the samples with --task")
        source = make_task(task or word, seed)
        result = compare(found, source, samples, lava_samples)
    if json != "-":
        say(f"{model}: {samples} samples of {source.word}, {source.steps} steps")
        rows = []
        for layer in result.layers:
            count = f"{layer.differing:,} of {layer.compared:,} differ"
            if layer.what == "spikes":
                count += f" ({layer.spikes:,} spikes)"
            if layer.offset:
                when = "later" if layer.offset > 0 else "earlier"
                count += f", {abs(layer.offset)} steps {when} than in the model"
            rows.append((f"layer {layer.layer} {layer.what}", count))
        rows.append(("decisions", f"{samples - result.decisions} of {samples} differ"))
        if result.right is not None:
            rows.append(("right", f"{result.right} of {samples}"))
        figures(rows)
        if result.lava is not None:
            say(
                f"{result.lava.mismatches} mismatches between emulator and lava in "
                f"{result.lava.compared:,} integers ({result.lava_samples} samples)"
            )
    write_json(json, {"model": model, "task": source.word, "seed": seed, **result.as_dict()})
    for line in result.notes:
        complain("delaynet check", f"note: {line}")
    if result.first is not None:
        complain("delaynet check", f"model (first) and emulator: {result.first}")
    if result.lava is not None and not result.lava:
        complain("delaynet check", f"emulator (first) and lava: {result.lava}")
    return 0 if result else 1
