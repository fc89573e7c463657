"""``delaynet export`` and ``delaynet-export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delaynet_lava.cli.output import (
    complain,
    figures,
    require_folder,
    say,
    speak_warnings,
    write_json,
    written,
)
from delaynet_lava.errors import InputError
from delaynet_lava.models import PREFIX, located, stem


def export(
    model: Annotated[
        str, typer.Argument(help="A model.pt, model:NAME, a NetX file, or with --network a bare state_dict.")
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Write this .h5 or .nir; default: a .h5 beside; - is stdout."),
    ] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile, a name or a file.")] = "loihi2",
    force: Annotated[
        bool, typer.Option("--force", help="Write although rules are broken; they are recorded.")
    ] = False,
    delay_overflow: Annotated[
        str,
        typer.Option(
            help="Delays beyond the chip: error (a broken rule), relay (chains of relay neurons, exact) or "
            "retime (a coarser time step)."
        ),
    ] = "error",
    network: Annotated[
        str | None,
        typer.Option(help="The code that makes the network of a state_dict: file.py:Name. It is run."),
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the report here; - is stdout.")] = None,
) -> int:
    """Turn a trained network into the integers of a net.h5, checked against a chip.

    Example: delaynet export model.pt -o net.h5

    A graph for other frameworks, without a chip's rules: delaynet export net.h5 -o graph.nir

    A state_dict alone does not say what its layers are: delaynet export state.pt --network mine.py:Network
    """
    from delaynet_lava.export import RuleBroken, export_netx  # torch, which a usage error does without

    # What comes with the package is exported to here, all else beside it.
    beside = Path(stem(model)) if model.startswith(PREFIX) else Path(model)
    target = output or str(beside.with_suffix(".h5"))
    for option, path in (("--output", target), ("--json", json)):
        require_folder(option, path)
    if Path(target).resolve() == Path(located(model)).resolve():
        raise InputError(model, "would be overwritten by what is made of it", "name another file with -o")
    if Path(target).suffix == ".nir":
        return _to_graph(model, target, network, json)
    try:
        with speak_warnings("delaynet export"), written(target, ".h5") as place:
            report = export_netx(model, place, profile, force, delay_overflow, network)
    except RuleBroken as broken:
        for finding in broken.findings:
            complain("delaynet export", str(finding))
        count = sum(f.severity == "error" for f in broken.findings)
        complain("delaynet export", f"{target} was not written: {count} broken rules (--force writes it)")
        write_json(json, {"path": None, "findings": [vars(f) for f in broken.findings]})
        return broken.exit_code
    write_json(json, {**report.as_dict(), "path": target})
    say(f"{target}: {report.network.summary()}")
    figures([("profile", report.profile), ("findings", str(len(report.findings)))])
    for line in () if report.delays is None else report.delays.lines():
        say(f"{delay_overflow}: {line}")
    for finding in report.findings:
        complain("delaynet export", str(finding))
    return 0


def _to_graph(model: str, target: str, code: str | None, json: str | None) -> int:
    from delaynet_lava.export.nir_export import write_nir
    from delaynet_lava.export.source import network_of

    with speak_warnings("delaynet export"):
        found, _ = network_of(model, code)
    lost = write_nir(found, target)
    write_json(json, {"path": target, "left_out": lost})
    say(f"{target}: {found.summary()}")
    for text in lost:
        complain("delaynet export", text)
    return 0
