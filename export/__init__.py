"""The compiler: from a trained model to the integers of ``net.h5``, checked against a chip."""

from delaynet_lava.export.extract import extract
from delaynet_lava.export.netx_export import ExportReport, RuleBroken, export_netx
from delaynet_lava.export.rules import Finding, check

__all__ = ["ExportReport", "Finding", "RuleBroken", "check", "export_netx", "extract"]
