"""A SLAYER model with delayed recurrence, from torch to net.h5 to Lava, checked at every step.

Any ``torch.nn.Sequential`` of this package's blocks and SLAYER's own can take this road:

    python examples/slayer_to_lava.py            # 400 steps
    python examples/slayer_to_lava.py --smoke    # 60 steps
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import delaynet_lava
import delaynet_lava.lava
from delaynet_lava.export import export_netx
from delaynet_lava.nn import DelayRecurrent, Readout, delay_groups

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="a short run")
steps = 60 if parser.parse_args().smoke else 400

# After delaynet_lava, which mends lava-dl where that is needed.
from lava.lib.dl import slayer  # noqa: E402

torch.manual_seed(0)
neuron = {"threshold": 2.0, "current_decay": 1.0, "voltage_decay": 0.04}
model = torch.nn.Sequential(
    slayer.block.cuba.Dense(neuron, 20, 32, weight_scale=4),
    DelayRecurrent(neuron, 32, 48, delay_groups(48, (0, 20, 62)), weight_scale=3, self_connection=False),
    Readout({"current_decay": 1.0, "voltage_decay": 0.05}, 48, 4, weight_scale=3),
)

# Inputs are (batch, steps, channels) for every execution here, NCT for SLAYER.
spikes = (np.random.default_rng(0).random((2, steps, 20)) < 0.1).astype(np.uint8)
with torch.no_grad():
    hidden = model[:2](torch.from_numpy(spikes).transpose(1, 2).float())
    membrane = model[2](hidden)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "net.h5"
    report = export_netx(model, path, profile="loihi2")
    network = delaynet_lava.load(path)
print(f"network     {network.summary()}")
print(f"findings    {len(report.findings)}")

emulated = delaynet_lava.emulate(network, spikes, record=("spikes", "voltage"))
same_spikes = np.array_equal(emulated.spikes[1], hidden.numpy().transpose(0, 2, 1))
same_membrane = np.array_equal(emulated.voltage[2], membrane.numpy().transpose(0, 2, 1) * 4096)
print(f"SLAYER      hidden spikes equal: {same_spikes}, readout membranes equal: {same_membrane}")

simulated = delaynet_lava.lava.run(network, spikes, record=("spikes", "voltage"))
print(f"Lava        {emulated.compare(simulated)}")
print(f"overflows   u wraps {emulated.u_wraps}, v saturations {emulated.v_saturations}")
raise SystemExit(0 if same_spikes and same_membrane and emulated.compare(simulated) else 1)
