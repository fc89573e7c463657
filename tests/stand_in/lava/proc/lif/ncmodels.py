"""Stand-in (see stand_in.py): two "hardware" models of LIF, as the closed package has several."""

import os

from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.c.model import CLoihiProcessModel
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF
from stand_in import note


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(CPU)
class NcL1ModelLif(PyLifModelBitAcc, CLoihiProcessModel):
    """One for Loihi 1, which nobody must choose."""

    def __init__(self, proc_params):
        raise NotImplementedError("a model for Loihi 1")


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(CPU)
class NcL2ModelLif(PyLifModelBitAcc, CLoihiProcessModel):
    """Executes Lava's CPU model; fails at the step that STAND_IN_FAIL names."""

    def __init__(self, proc_params):
        super().__init__(proc_params)
        note("model", kind=type(self).__name__)

    def run_spk(self):
        if os.environ.get("STAND_IN_FAIL") == str(self.time_step):
            raise ValueError("broken\nat a step")
        super().run_spk()
