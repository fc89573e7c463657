"""The parts of lava-dl that our blocks are made of; the one place of this package that imports SLAYER.

Raises:
    BackendMissing: lava-dl can't be imported.
"""

from delaynet_lava.errors import BackendMissing
from delaynet_lava.quiet import quiet_import

try:
    with quiet_import():
        from lava.lib.dl.slayer.block import cuba as block
        from lava.lib.dl.slayer.neuron import cuba as neuron
        from lava.lib.dl.slayer.neuron.norm import MeanOnlyBatchNorm
        from lava.lib.dl.slayer.synapse import layer as synapse
        from lava.lib.dl.slayer.utils.quantize import quantize
except ImportError as error:
    raise BackendMissing("delaynet_lava.nn", "lava-dl", str(error)) from error

__all__ = ["MeanOnlyBatchNorm", "block", "neuron", "quantize", "synapse"]
