"""Stand-in (see stand_in.py): "hardware" models that execute Lava's CPU models."""

from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.c.model import CLoihiProcessModel
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from stand_in import note


@implements(proc=Dense, protocol=LoihiProtocol)
@requires(CPU)
class NcModelDense(PyDenseModelBitAcc, CLoihiProcessModel):
    def __init__(self, proc_params):
        super().__init__(proc_params)
        note("model", kind=type(self).__name__)


@implements(proc=DelayDense, protocol=LoihiProtocol)
@requires(CPU)
class NcModelDelayDense(PyDelayDenseModelBitAcc, CLoihiProcessModel):
    def __init__(self, proc_params):
        super().__init__(proc_params)
        note("model", kind=type(self).__name__)
