"""``delaynet doctor``."""

from __future__ import annotations

import platform
import sys
import warnings
from typing import Annotated, Any

import typer

from delaynet_lava import lava_compat
from delaynet_lava.cli.output import complain, lines, require_folder, say, write_json


def _test() -> tuple[list[str], bool, dict[str, Any]]:
    """Lines that the self-test prints, whether all is equal, and its figures."""
    from delaynet_lava.installation import self_test

    with warnings.catch_warnings():
        # torch, of SLAYER's weight normalisation.
        warnings.filterwarnings("ignore", ".*weight_norm.*")
        result = self_test()
    compared = sum(layer.compared for layer in result.layers)
    spikes = sum(layer.spikes for layer in result.layers)
    count = f"{compared:,} integers ({spikes:,} spikes)"
    said = [f"{result.differing} mismatches between SLAYER and emulator in {count}"]
    if result.lava is not None:
        lava = result.lava
        said.append(f"{lava.mismatches} mismatches between emulator and lava in {lava.compared:,} integers")
    return said, bool(result), result.as_dict()


def doctor(
    test: Annotated[bool, typer.Option("--test", help="Run a small network on SLAYER and Lava.")] = False,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Say what is installed, which mends of Lava are active, what works here, and what gets the rest.

    Exit code 1 where training, SLAYER or Lava's simulator do not work, or the test finds a difference.

    Example: delaynet doctor --test
    """
    from delaynet_lava.installation import PACKAGES, REQUIRED, abilities, version

    require_folder("--json", json)
    versions = {name: version(name) for name in PACKAGES}
    with warnings.catch_warnings():
        # Of Lava, about parts that nobody asked for here.
        warnings.simplefilter("ignore")
        found = list(abilities())
    works = all(one.works for one in found if one.what in REQUIRED)
    said, equal, figures = _test() if test and works else ([], True, {})
    mends = [(m, lava_compat.state(m)) for m in lava_compat.MENDS.values()]
    content = {
        "python": platform.python_version(),
        "packages": versions,
        "mends": {m.name: {"module": m.module, "state": state} for m, state in mends},
        "abilities": {one.what: vars(one) for one in found},
        "test": figures or None,
    }
    write_json(json, content)
    say(f"Python {platform.python_version()}, {sys.executable}")
    lines(["package", "version"], [[name, found or "-"] for name, found in versions.items()])
    say("")
    rows = [[m.name, f"{m.package} {m.version}", m.module, state] for m, state in mends]
    lines(["mend", "for", "module", "here"], rows)
    say("")
    rows = [[one.what, "yes" if one.works else "no", one.detail, one.remedy] for one in found]
    lines(["what", "works", "how, or why not", "what gets it"], rows)
    if said:
        say("")
    for line in said:
        say(line)
    for one in found:
        if not one.works and one.what in REQUIRED:
            complain("delaynet doctor", f"{one.what}: {one.detail}; {one.remedy}")
    return 0 if works and equal else 1
