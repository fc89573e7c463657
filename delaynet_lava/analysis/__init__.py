"""What a network does and would do: pure functions, and pictures that return a Figure."""

KINDS = {
    "membrane-bits": "bits of all membranes",
    "weight-bits": "bits of all weights",
    "decay-bits": "bits of all decays",
    "delay-max": "longest delay (steps)",
}
"""What a sweep goes over, see :mod:`analysis.sweep`."""
