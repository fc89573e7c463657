"""The process that feeds a network on the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from delaynet_lava.lava.session import Feed

__all__ = ["Source", "SourceModel"]


class Source(AbstractProcess):
    """Sends the input of each step in that step.

    Args:
        shape: of the port, (channels,) or NetX's (W, H, C).
        feed: what to send.
    """

    def __init__(self, *, shape: tuple[int, ...], feed: Feed) -> None:
        super().__init__(shape=shape, feed=feed)
        self.s_out = OutPort(shape=shape)


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
class SourceModel(PyLoihiProcessModel):
    """CPU model of :class:`Source`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.feed: Feed = proc_params["feed"]
        self.axes = proc_params["shape"][::-1]

    def run_spk(self) -> None:
        """Send one step, channels in C, H, W order."""
        self.s_out.send(self.feed.at(self.time_step).reshape(self.axes).T)
