"""``delaynet setup-lava``."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from delaynet_lava.cli.output import complain, require_folder


def setup_lava(
    json: Annotated[
        str | None, typer.Option("--json", help="Write what delaynet doctor finds then here.")
    ] = None,
) -> int:
    """Install lava-nc 0.10.0 and lava-dl 0.6.0 here, on Python 3.10 to 3.13, and test them.

    Into the environment of this command, without OpenCV, torchvision or another torch; pip checks the files'
    hashes. Ends with delaynet doctor --test, whose exit code is this one's. Example: delaynet setup-lava
    """
    from delaynet_lava.installation import install_lava

    require_folder("--json", json)
    new = install_lava()
    complain("delaynet setup-lava", f"installed {', '.join(new)}" if new else "Lava was installed already")
    # In a process of its own: this one may have loaded what pip has just replaced.
    options = ["--test"] if json is None else ["--test", "--json", json]
    return subprocess.run([sys.executable, "-m", "delaynet_lava", "doctor", *options]).returncode
