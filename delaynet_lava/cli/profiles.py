"""``delaynet profiles``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from delaynet_lava.cli.output import lines, require_folder, say, write_json
from delaynet_lava.hw_profiles import HardwareProfile, load_profile, profile_names


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _cores(chip: HardwareProfile, system: str) -> str:
    stated = chip.systems[system].cores is not None
    return _text(chip.cores(system)) + ("" if stated else " (inferred)")


def _systems(chips: list[HardwareProfile]) -> None:
    rows = [
        [name, chip.name, str(system.chips), _cores(chip, name), system.status, system.source]
        for chip in chips
        for name, system in chip.systems.items()
    ]
    if rows:
        say("")
        lines(["system", "chip", "chips", "cores", "status", "source"], rows)


def _show(chip: HardwareProfile) -> None:
    say(f"{chip.name}: {chip.title}")
    lines(
        ["limit", "value", "unit", "status", "source"],
        [[key, _text(one.value), one.unit, one.status, one.source] for key, one in chip.limits.items()],
    )
    if chip.fitted:
        say("")
        lines(
            ["fitted price", "value", "unit", "status", "source"],
            [[key, _text(one.value), one.unit, one.status, one.source] for key, one in chip.fitted.items()],
        )
    _systems([chip])
    say("")
    say(f"unknown: {', '.join(chip.unknown) or 'nothing'}")


def _content(chip: HardwareProfile) -> dict[str, Any]:
    return {
        "title": chip.title,
        "limits": {key: vars(one) for key, one in chip.limits.items()},
        "systems": {
            name: {
                **vars(system),
                "cores": chip.cores(name),
                "cores_status": system.status if system.cores is not None else "inferred",
            }
            for name, system in chip.systems.items()
        },
        "fitted": {key: vars(one) for key, one in chip.fitted.items()},
        "unknown": list(chip.unknown),
    }


def profiles(
    name: Annotated[str | None, typer.Argument(help="A profile's name or file; none lists all.")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Show the hardware profiles and their systems, or every value of one with unit, source and status.

    Example: delaynet profiles loihi2
    """
    require_folder("--json", json)
    chips = [load_profile(n) for n in ([name] if name else profile_names())]
    write_json(json, {chip.name: _content(chip) for chip in chips})
    if name:
        _show(chips[0])
    else:
        lines(
            ["profile", "limits", "unknown", "title"],
            [[c.name, str(len(c.limits)), str(len(c.unknown)), c.title] for c in chips],
        )
        _systems(chips)
    return 0
