"""``delaynet inspect`` and ``delaynet profiles``."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from delaynet_lava import netx
from delaynet_lava.cli.output import figures, grid, say, speak_warnings, write_json
from delaynet_lava.export import check
from delaynet_lava.hw_profiles import load_profile, profile_names
from delaynet_lava.network import Dense, Network, Synapse


def _synapse_row(where: str, synapse: Synapse) -> dict[str, Any]:
    used = synapse.weight != 0
    delays = synapse.delay[used]
    return {
        "synapses": where,
        "shape": list(synapse.shape),
        "present": int(used.sum()),
        "weight_min": int(synapse.weight.min()),
        "weight_max": int(synapse.weight.max()),
        "weight_exp": synapse.weight_exp,
        "delays": sorted(set(delays.tolist())) if delays.size else [],
    }


def _describe(network: Network) -> dict[str, Any]:
    layers, synapses = [], []
    for i, layer in enumerate(network.layers):
        neuron = layer.neuron
        tau = -network.dt_ms / np.log1p(-neuron.dv / 4096) if 0 < neuron.dv < 4096 else None
        layers.append(
            {
                "layer": i,
                "neurons": layer.size,
                "kind": type(layer).__name__.lower() + (" readout" if neuron.is_readout else ""),
                "vth": neuron.vth,
                "du": neuron.du,
                "dv": neuron.dv,
                "tau_ms": None if tau is None else round(float(tau), 3),
                "reset": neuron.reset,
                "biased": int(np.count_nonzero(neuron.shifted_bias(layer.size))),
            }
        )
        if isinstance(layer, Dense):
            synapses.append(_synapse_row(f"layer {i} weight", layer.synapse))
            if layer.recurrent is not None:
                synapses.append(_synapse_row(f"layer {i} weight_rec", layer.recurrent))
    return {"layers": layers, "synapses": synapses}


def _delay_text(delays: list[int]) -> str:
    if len(delays) <= 6:
        return " ".join(map(str, delays)) or "-"
    return f"{delays[0]} to {delays[-1]} ({len(delays)} values)"


def inspect(
    net: Annotated[str, typer.Argument(help="A net.h5.")],
    profile: Annotated[str, typer.Option(help="Hardware profile, a name or a file.")] = "loihi2",
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Show a network's layers, synapses and delays, and what a chip's rules say of it.

    Exit code 1 where a rule is broken. Example: delaynet inspect net.h5 --profile loihi1
    """
    with speak_warnings("delaynet inspect"):
        network = netx.read(net)
    chip = load_profile(profile)
    findings = check(network, chip)
    content = {
        "path": net,
        "profile": chip.name,
        "summary": network.summary(),
        **_describe(network),
        "task": network.task,
        "provenance": network.provenance,
        "findings": [vars(f) for f in findings],
    }
    if json != "-":
        say(f"{net}: {network.summary()}")
        columns = ["layer", "neurons", "kind", "vth", "du", "dv", "tau_ms", "reset", "biased"]
        grid(
            columns, [["-" if row[c] is None else str(row[c]) for c in columns] for row in content["layers"]]
        )
        say("")
        grid(
            ["synapses", "shape", "present", "weights", "exp", "delays"],
            [
                [
                    row["synapses"],
                    "x".join(map(str, row["shape"])),
                    str(row["present"]),
                    f"{row['weight_min']} to {row['weight_max']}",
                    str(row["weight_exp"]),
                    _delay_text(row["delays"]),
                ]
                for row in content["synapses"]
            ],
        )
        say("")
        figures([(f"rules of {chip.name}", "all kept" if not findings else f"{len(findings)} findings")])
        for finding in findings:
            say(str(finding))
    write_json(json, content)
    return int(any(f.severity == "error" for f in findings))


def profiles(
    name: Annotated[str | None, typer.Argument(help="A profile's name or file; none lists all.")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Show the hardware profiles, or every value of one with unit, source and how sure it is.

    Example: delaynet profiles loihi2
    """
    chips = [load_profile(n) for n in ([name] if name else profile_names())]
    content = {c.name: {"title": c.title, "limits": {k: vars(v) for k, v in c.limits.items()}} for c in chips}
    if json != "-":
        if name:
            say(f"{chips[0].name}: {chips[0].title}")
            grid(
                ["limit", "value", "unit", "status", "source"],
                [[k, str(v.value), v.unit, v.status, v.source] for k, v in chips[0].limits.items()],
            )
        else:
            figures([(c.name, f"{c.title}, {len(c.limits)} values") for c in chips])
    write_json(json, content)
    return 0
