"""The compiler: from a trained model to the integers of ``net.h5``, the rules of a chip kept."""

from delaynet_lava.export.extract import extract
from delaynet_lava.export.netx_export import ExportReport, RuleBroken, export_netx

__all__ = ["ExportReport", "RuleBroken", "export_netx", "extract"]
