"""What a chip demands of a network: one small function a rule, all findings together.

A rule takes a :class:`Network` and a :class:`HardwareProfile` and yields findings; it changes
nothing. A limit that the profile does not know is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.network import Dense, Network, Synapse

__all__ = ["RULES", "Finding", "check"]


@dataclass(frozen=True)
class Finding:
    """One breach: which rule, how grave, where, actual value, limit and remedy in one line."""

    rule: str
    severity: str
    where: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.severity} [{self.rule}] {self.where}: {self.problem}"
        return f"{text}; {self.remedy}" if self.remedy else text


Breach = tuple[str, str, str]
Rule = Callable[[Network, HardwareProfile], Iterator[Breach]]


def _synapses(network: Network) -> Iterator[tuple[str, Synapse]]:
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            yield f"layer {i}: weight", layer.synapse
            if layer.recurrent is not None:
                yield f"layer {i}: weight_rec", layer.recurrent


def weight_range(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Weights fit the chip's words."""
    low, high = profile.get("weight_min"), profile.get("weight_max")
    for where, synapse in _synapses(network):
        least, most = int(synapse.weight.min()), int(synapse.weight.max())
        if low is not None and least < low:
            yield where, f"{least} is below {low}", "scale weights and threshold down"
        if high is not None and most > high:
            yield where, f"{most} exceeds {high}", "scale weights and threshold down"


def weight_exponent(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Weight exponents fit."""
    limit = profile.get("weight_exp_max")
    for where, synapse in _synapses(network):
        if limit is not None and synapse.weight_exp > limit:
            yield where, f"weight_exp {synapse.weight_exp} exceeds {limit}", "scale the threshold down"


def delay_range(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Delays of existing synapses fit the chip's delay word."""
    limit = profile.get("delay_max")
    for where, synapse in _synapses(network):
        if limit is not None and synapse.max_delay > limit:
            count = int(np.count_nonzero((synapse.delay > limit) & (synapse.weight != 0)))
            yield (
                where.replace("weight", "delay"),
                f"delay {synapse.max_delay} exceeds {limit} ({count} synapses)",
                f"train with delays of at most {limit} (lags of at most {limit + 1} steps)",
            )


def threshold(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Thresholds fit the chip's mantissa."""
    limit = profile.get("threshold_max")
    for i, layer in enumerate(network.layers):
        if limit is not None and layer.neuron.vth > limit:
            remedy = f"a readout can use {limit}" if layer.neuron.is_readout else "scale the weights down"
            yield f"layer {i}: vth", f"{layer.neuron.vth} exceeds {limit}", remedy


def decay(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Decays fit the chip's registers."""
    low, high = profile.get("current_decay_min"), profile.get("current_decay_max")
    limit = profile.get("voltage_decay_max")
    for i, layer in enumerate(network.layers):
        du, dv = layer.neuron.du, layer.neuron.dv
        if isinstance(layer, Dense) and low is not None and du < low:
            yield f"layer {i}: du", f"{du} is below {low}", f"use current_decay of at least {low}/4096"
        if isinstance(layer, Dense) and high is not None and du > high:
            yield f"layer {i}: du", f"{du} exceeds {high}", ""
        if limit is not None and dv > limit:
            yield f"layer {i}: dv", f"{dv} exceeds {limit}", f"use voltage_decay of at most {limit}/4096"


def bias(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Biases fit mantissa and exponent."""
    low, high = profile.get("bias_mantissa_min"), profile.get("bias_mantissa_max")
    limit = profile.get("bias_exp_max")
    for i, layer in enumerate(network.layers):
        mantissa = layer.neuron.bias
        if low is not None and int(mantissa.min()) < low:
            yield f"layer {i}: bias", f"mantissa {int(mantissa.min())} is below {low}", "scale the layer down"
        if high is not None and int(mantissa.max()) > high:
            yield f"layer {i}: bias", f"mantissa {int(mantissa.max())} exceeds {high}", "scale the layer down"
        if limit is not None and layer.neuron.bias_exp > limit:
            yield f"layer {i}: bias", f"exponent {layer.neuron.bias_exp} exceeds {limit}", ""


def reset_kind(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """The chip knows the reset."""
    known = profile.get("resets")
    for i, layer in enumerate(network.layers):
        reset = layer.neuron.reset
        if known is not None and reset not in known and not layer.neuron.is_readout:
            yield f"layer {i}: reset", f"{reset!r} is not one of {known}", "train with reset='zero'"


RULES: dict[str, tuple[str, Rule]] = {
    "weight-range": ("error", weight_range),
    "weight-exponent": ("error", weight_exponent),
    "delay-range": ("error", delay_range),
    "threshold": ("error", threshold),
    "decay": ("error", decay),
    "bias": ("error", bias),
    "reset-kind": ("error", reset_kind),
}


def check(network: Network, profile: HardwareProfile) -> list[Finding]:
    """Run every rule; findings in the order of the rules."""
    return [
        Finding(name, severity, *breach)
        for name, (severity, rule) in RULES.items()
        for breach in rule(network, profile)
    ]
