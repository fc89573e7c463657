"""Stand-in (see stand_in.py): a profiler with made-up figures."""

import os

import numpy as np
from stand_in import note


class Loihi2HWProfiler:
    power, energy = 0.25, 0.5

    def __init__(self, run_cfg):
        note("profiler", config=type(run_cfg).__name__)

    def energy_probe(self, num_steps):
        if "STAND_IN_NO_ENERGY" in os.environ:
            raise RuntimeError("this board\ncannot measure energy")
        note("energy_probe", steps=num_steps)

    def execution_time_probe(self, num_steps, buffer_size=1024, dt=1):
        self.steps = num_steps
        note("execution_time_probe", steps=num_steps)

    @property
    def execution_time(self):
        return np.full(self.steps, 0.001)

    def energy_breakdown(self):
        return np.array([1.0, 2.0, 3.0])

    def power_breakdown(self):
        raise ValueError("nothing measured")
