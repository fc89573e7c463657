"""``delaynet run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from delaynet_lava.cli.networks import NET, open_network
from delaynet_lava.cli.output import (
    complain,
    figures,
    lines,
    progress,
    require_folder,
    say,
    speak_warnings,
    write_json,
    written,
)
from delaynet_lava.cli.samples import TASK, number, seed_words, source
from delaynet_lava.network import Network
from delaynet_lava.tasks.base import SPLITS
from delaynet_lava.trace import Trace

if TYPE_CHECKING:
    from delaynet_lava.evaluation import Evaluation

SAMPLES = 256


def _cells(network: Network) -> bool:
    return any(layer.neuron.kind == "src" for layer in network.layers)


def _print(result: Evaluation, network: Network) -> None:
    from delaynet_lava.evaluation import class_rows

    def by_layer(values: Sequence[float], form: str) -> str:
        return " / ".join(format(v, form) for v in values)

    rows = [
        (
            "accuracy",
            f"{result.accuracy:.4f} ({round(result.accuracy * result.samples)} of {result.samples})",
        ),
        ("steps", f"{result.steps} a sample"),
        ("spikes", f"{by_layer(result.spikes, 'd')} by layer"),
        ("spikes per neuron and step", by_layer(result.spikes_per_neuron_step, ".4f")),
        ("u wraps", by_layer(result.u_wraps, "d")),
        ("v saturations", by_layer(result.v_saturations, "d")),
        *((name.replace("_", " "), str(count)) for name, count in result.silence.as_dict().items()),
        (
            "speed",
            f"{result.sample_steps_per_s:,.0f} sample-steps/s ({result.wall_s:.2f} s on {result.backend})",
        ),
    ]
    if result.check:
        check_speed = result.samples * result.steps / result.check_wall_s
        rows.append(
            (f"speed of {result.check}", f"{check_speed:,.0f} sample-steps/s ({result.check_wall_s:.2f} s)")
        )
    figures(rows)
    lines(*class_rows(result.confusion, result.names))
    if result.comparison is not None:
        say(
            f"{result.comparison.mismatches} mismatches between {result.backend} and {result.check} in "
            f"{result.comparison.compared:,} integers (spikes and membranes of every layer at every step"
            f"{', i and h_s of cells' * _cells(network)})"
        )


def run(
    net: Annotated[str, typer.Argument(help=NET)],
    task: Annotated[str | None, TASK] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Number of samples. [default: {SAMPLES}, or all of a smaller task]")
    ] = None,
    split: Annotated[str, typer.Option(help=f"Of which samples: {', '.join(SPLITS)}.")] = "test",
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
    backend: Annotated[str, typer.Option(help="emulator or lava.")] = "emulator",
    check: Annotated[
        str | None, typer.Option(help="Run on this backend too and compare every integer.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Keep what every layer did here, as NIRData: trace.nir.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Run a network on samples of a task; with --check, compare two executions.

    Exit code 1 where they differ. Example: delaynet run net.h5 --samples 8 --backend lava --check emulator
    """
    from delaynet_lava.evaluation import evaluate, unwanted

    for option, path in (("--trace", trace), ("--json", json)):
        require_folder(option, path)
    with speak_warnings("delaynet run"):
        network = open_network(net)
    of = source(task, network, net, seed)
    samples = number(of, samples, SAMPLES, split)
    kept: list[tuple[np.ndarray, Trace]] = []
    keep = None if trace is None else lambda inputs, one: kept.append((inputs, one))
    with progress(f"{backend}, {of.steps} steps", samples) as advance:
        result = evaluate(network, of, samples, backend, check, advance, split, keep)
    if trace is not None:
        inputs = np.concatenate([inputs for inputs, _ in kept])
        with written(trace, ".nir") as place:
            Trace.join([one for _, one in kept]).save(place, network, inputs)
    # Files first: who reads the table may go away.
    content = {"net": net, "task": of.word, "split": split, "seed": of.seed, **result.as_dict()}
    write_json(json, content)
    say(f"{net}: {network.summary()}, {samples} {split} samples of {of.word}{seed_words(of)}")
    _print(result, network)
    for note in result.silence.notes():
        complain("delaynet run", f"note: {note}")
    clipped = unwanted(network, result.v_saturations)
    wide = "u wrapped or i saturated" if _cells(network) else "u wrapped"
    for name, counts in ((wide, result.u_wraps), ("v saturated", clipped)):
        if any(counts):
            complain("delaynet run", f"warning: {name} {sum(counts)} times (by layer: {counts})")
    if result.comparison is not None and not result.comparison:
        complain("delaynet run", str(result.comparison))
        return 1
    return 0
