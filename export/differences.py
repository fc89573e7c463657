"""Where a network, as it stands, is not what SLAYER trained: findings, beside those of a chip's rules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.hw_profiles.rules import Finding
from delaynet_lava.network import Dense, Network, Neuron, span

__all__ = ["differences"]


def differences(network: Network) -> list[Finding]:
    """Warnings: what :func:`~delaynet_lava.export.extract.extract` noted, and biases that begin too early."""
    noted = [Finding("slayer", "warning", **one) for one in network.provenance.get("differs", [])]
    return noted + list(_early_biases(network))


def _early_biases(network: Network) -> Iterator[Finding]:
    """A bias acts from step 0 on, one step before any input can; in SLAYER both act together.

    The state before step 0 makes up for that, where a membrane can hold it.
    """
    for k, layer in enumerate(network.layers):
        neuron = layer.neuron
        if not isinstance(layer, Dense) or not isinstance(neuron, Neuron):
            continue
        if not np.any(neuron.bias) or neuron.starts_quiet:
            continue
        if np.any(neuron.v_init) or np.any(neuron.u_init):
            if not np.array_equal(neuron.v_init, neuron.quietened().v_init):
                continue  # It has a start of its own.
            problem = (
                f"no membrane before step 0 is taken to rest by it, with a decay of {span(neuron.dv)}/4096"
            )
            remedy = "train with a slower membrane, or a smaller bias"
        elif np.all(np.equal(neuron.dv, fx.DECAY_ONE)):
            if not np.any(neuron.shifted_bias(layer.size) > neuron.threshold):
                continue  # Forgotten before the first input, and no spike.
            problem = "it makes neurons spike at step 0, before SLAYER's begin"
            remedy = "train with a membrane that remembers, or a smaller bias"
        else:
            problem = "it acts one step before the first input can, in SLAYER together with it"
            remedy = "export it anew from its model.pt or network"
        yield Finding("initial-state", "warning", f"layer {k}: bias", problem, remedy)
