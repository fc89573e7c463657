"""A stand-in for Intel's closed lava-loihi package, for tests: NO BOARD WAS INVOLVED in anything it says.

With this folder on PYTHONPATH, Lava finds beside its own modules those that the closed package would add
(``lava`` is a namespace package). Its "hardware" process models execute Lava's CPU models, its adapters
pass spikes on, its profiler returns made-up figures. What it was asked is written, a JSON object a line,
to the file that STAND_IN_LOG names. It shows that a script asks for the right things; whether a board would
answer, and answer the same, it cannot show.
"""

import json
import os

VARIABLES = ("SLURM", "NOSLURM", "PARTITION", "BOARD", "LOIHI_GEN")


def note(what, **details):
    """Append one line to the log, with the variables that a board's driver reads."""
    details.update(what=what, environment={k: os.environ[k] for k in VARIABLES if k in os.environ})
    with open(os.environ["STAND_IN_LOG"], "a") as file:
        file.write(json.dumps(details) + "\n")
