"""``delaynet import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from delaynet_lava.cli.output import complain, require_folder, say, write_json, written
from delaynet_lava.cli.samples import number, seed_words, source
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.network import Network
from delaynet_lava.tasks.registry import WORDS

SAMPLES, RANDOM_RATE, RANDOM_STEPS = 32, 0.05, 256


def _samples(
    network: Network, word: str | None, samples: int | None, seed: int | None, path: str
) -> tuple[np.ndarray, str]:
    """Inputs to try readings with, and what they are called."""
    if word is None:
        samples, seed = SAMPLES if samples is None else samples, seed or 0
        rng = np.random.default_rng(seed)
        shape = (samples, RANDOM_STEPS, network.channels)
        text = (
            f"{samples} samples of random spikes, {RANDOM_RATE:g} a step, {RANDOM_STEPS} steps, seed {seed}"
        )
        return (rng.random(shape) < RANDOM_RATE).astype(np.uint8), text
    of = source(word, network, path, seed, labelled=False)
    samples = number(of, samples, SAMPLES)
    return of.batch("test", 0, samples)[0], f"{samples} samples of {of.word}{seed_words(of)}"


def import_(
    graph: Annotated[str, typer.Argument(help="A NIR graph, graph.nir.")],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", help="Write this: a net.h5, or a model.pt to train on; - is stdout, as net.h5."
        ),
    ],
    unit: Annotated[str, typer.Option(help="Of the graph's times: s or ms.")] = "",
    dt_ms: Annotated[float | None, typer.Option(help="A step; default: of the file, else 0.1.")] = None,
    order: Annotated[
        str, typer.Option(help="A membrane takes the current of its step: new; of the step before: old.")
    ] = "",
    decay: Annotated[str, typer.Option(help="What a step keeps: euler, 1 - dt/tau; exponential.")] = "",
    reset: Annotated[str, typer.Option(help="What a spike does to the membrane: zero or subtract.")] = "",
    loop: Annotated[
        str, typer.Option(help="Whether a loop takes a step more than its Delay: implicit, or not: explicit.")
    ] = "",
    check_readings: Annotated[
        bool, typer.Option("--check-readings", help="Run samples under every other reading too.")
    ] = False,
    task: Annotated[
        str | None, typer.Option(help=f"Samples for it, such as {WORDS}. Without it, random spikes.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"Number of samples. [default: {SAMPLES}, or all of a smaller task]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile whose rules are looked at.")] = "loihi2",
    force: Annotated[bool, typer.Option("--force", help="Replace a model.pt that is there.")] = False,
    json: Annotated[str | None, typer.Option("--json", help="Write the report here; - is stdout.")] = None,
) -> int:
    """Turn a NIR graph into the integers of a chip, and say what was assumed for it.

    Example: delaynet import graph.nir -o net.h5 --check-readings
    """
    from delaynet_lava.export.nir_check import against_floats, compare_readings
    from delaynet_lava.export.nir_import import DEFAULTS, Readings, import_nir
    from delaynet_lava.formats import netx, nir_graph

    for option, path in (("-o", output), ("--json", json)):
        require_folder(option, path)
    if output != "-" and Path(output).suffix not in (".h5", ".pt", ".net"):
        raise InputError(f"-o {output}", "is neither a net.h5 nor a model.pt", "name a .h5 or a .pt")
    if samples is not None and samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
    chip = load_profile(profile)
    chosen = {"unit": unit, "order": order, "decay": decay, "reset": reset, "loop": loop}
    given = frozenset(name for name, value in chosen.items() if value) | ({"dt_ms"} if dt_ms else set())
    readings = Readings(dt_ms=dt_ms, **{name: value or DEFAULTS[name] for name, value in chosen.items()})
    whole = nir_graph.read(graph)
    trains = Path(output).suffix == ".pt"
    if trains and Path(output).exists() and not force:
        raise InputError(f"-o {output}", "is there already", "name another file, or --force to replace it")
    found = import_nir(whole, readings, given, 0 if trains else 7)
    content = {"path": output, "graph": graph, **found.as_dict()}
    said = [f"{output}: {found.network.summary()}", *found.lines()]
    if check_readings or task is not None:
        inputs, text = _samples(found.network, task, samples, seed, graph)
        floats = against_floats(found, inputs)
        others = compare_readings(whole, found, given, inputs) if check_readings else []
        said += [f"on {text}:", f"  integers and {floats}", *(f"  {other}" for other in others)]
        content |= {"samples": text, "floats": floats.as_dict(), "others": [o.as_dict() for o in others]}
    network = found.network.with_(
        provenance={**found.network.provenance, "nir": {"graph": Path(graph).name, **found.as_dict()}}
    )
    if trains:
        from delaynet_lava.export.trainable import model_of
        from delaynet_lava.formats.model_file import save_model

        save_model(output, model_of(network))
    else:
        with written(output, ".h5") as place:
            netx.write(network, place)
    write_json(json, content)
    for line in said:
        say(line)
    for text in found.assumed:
        complain("delaynet import", f"assumed: {text}")
    for finding in check(network, chip):
        complain("delaynet import", str(finding))
    return 0
