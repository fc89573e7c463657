"""Measuring this package and its peers in one run: what ``delaynet bench`` prints and draws."""

from delaynet_lava.bench.harness import Figure, LeftOut
from delaynet_lava.bench.ratios import PARTS, Ratio, Report, measure_ratios, parts_of, plan_ratios
from delaynet_lava.bench.scaling import SCALED, Scaling, Series, measure_scaling, plan_scaling

__all__ = [
    "PARTS",
    "SCALED",
    "Figure",
    "LeftOut",
    "Ratio",
    "Report",
    "Scaling",
    "Series",
    "measure_ratios",
    "measure_scaling",
    "parts_of",
    "plan_ratios",
    "plan_scaling",
]
