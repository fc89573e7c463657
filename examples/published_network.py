"""The published cue network, from floats with lags of 100 ms to integers with delays of at most 62.

125 neurons trained by Balafrej et al. (doi 10.1088/2634-4386/add293; repository
NECOTIS/TemporalLearningInRSNNs) with lags of 1, 80 and 100 ms, biases and a soft reset:

    python examples/published_network.py                  # 256 samples a stage
    python examples/published_network.py --samples 2048
    python examples/published_network.py --smoke          # 8 samples
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import delaynet_lava
from delaynet_lava.errors import BackendMissing, InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.float_network import read_published
from delaynet_lava.export.relay import relay
from delaynet_lava.export.retime import retime
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.tasks.base import batches
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.tasks.rebinned import Rebinned

DATA = Path(__file__).resolve().parent / "data" / "published_cue_125.npz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default=str(DATA), help="published_cue_125.npz")
parser.add_argument("--samples", type=int, default=256, help="fresh samples a stage")
parser.add_argument("--seed", type=int, default=2026)
parser.add_argument("--smoke", action="store_true", help="a short run: 8 samples")
options = parser.parse_args()
samples = 8 if options.smoke else options.samples
try:
    published, data = read_published(options.data)
    task = CueAccumulation(seed=options.seed)
    if samples < 1:
        raise InputError("--samples", f"{samples} is below 1")
except InputError as error:
    print(f"published_network: {error}", file=sys.stderr)
    raise SystemExit(2) from None

# What was published with the weights: 24 samples, and what they gave in float32.
membrane, spikes = published.run(data["x"])
off = int(np.count_nonzero(spikes.sum(axis=2) != data["hidden_spikes_per_step"]))
off += int(np.count_nonzero(spikes.sum(axis=1) != data["hidden_spikes_per_neuron"]))
same = int(np.sum(membrane.argmax(axis=1) == data["out_membrane"].argmax(axis=1)))
largest = np.abs(membrane - data["out_membrane"]).max()
print(
    f"published outputs, {len(membrane)} samples: {same} decisions equal, {off} spike counts differ, ", end=""
)
print(f"membranes within {largest:.1g}")

chip = load_profile("loihi2")
integers = published.quantise()
legal, cost = relay(integers, chip.get("delay_max"))
print("\n".join(["", f"integers  {integers.summary()}", *cost.lines()]))
for name, network in (("integers", integers), ("relays", legal)):
    print(f"\n{chip.name}, {name}:")
    print("\n".join(str(f) for f in check(network, chip)) or "every rule kept")

# Spikes and membranes of the 125 neurons and of the readout, at every step.
few = data["x"][:4]
before, after = (delaynet_lava.emulate(n, few, ("spikes", "voltage")) for n in (integers, legal))
pairs = [
    (one[k], two[k][:, :, : one[k].shape[2]])
    for one, two in ((before.spikes, after.spikes), (before.voltage, after.voltage))
    for k in range(len(integers.layers))
]
broken = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
print(f"\nrelays against unlimited delays: {broken} mismatches in {sum(a.size for a, _ in pairs):,} integers")
try:
    from delaynet_lava.lava import run

    part = few[:1, : 100 if options.smoke else 600]
    emulated = delaynet_lava.emulate(legal, part, ("spikes", "voltage"))
    result = emulated.compare(run(legal, part, ("spikes", "voltage")))
    print(f"Lava against the emulator, {part.shape[1]} steps: {result}")
    broken += result.mismatches
except BackendMissing as error:
    print(f"Lava: {error}")

# The same fresh samples at each stage; accuracy, and how many decisions are those of the floats.
rows: list[tuple[str, int, np.ndarray]] = []
answers = [published.run(x)[0].argmax(axis=1) for x, _ in batches(task, "test", samples, 64)]
labels = np.concatenate([y for _, y in batches(task, "test", samples, 64)])
rows.append(("float32, lags 1, 80, 100 ms", published.w_rec.shape[0], np.concatenate(answers)))
clipped = 0
for bits in (8, 7, 6, 5):
    stage = published.quantise(bits)
    for name, network in ((f"{bits}-bit weights", stage), ("  with relays", relay(stage)[0])):
        result = evaluate(network, task, samples)
        rows.append((name, network.layers[0].size, result.decisions))
        clipped += sum(result.u_wraps) + sum(result.v_saturations)
    broken += int(np.count_nonzero(rows[-1][2] != rows[-2][2]))
hard = legal.layers[0]
hard = replace(hard, neuron=replace(hard.neuron, reset="zero"))
zero = evaluate(legal.with_(layers=(hard, *legal.layers[1:])), task, samples)
rows.append(("8 bits, relays, reset to zero", hard.size, zero.decisions))
coarse, report = retime(integers, chip.get("delay_max"))
binned = Rebinned(task, report.factor)
rows.append((f"8 bits, steps of {report.dt_new_ms:g} ms", 125, evaluate(coarse, binned, samples).decisions))

print(f"\n{samples} fresh samples, 7 cues, 1200 ms wait, seed {options.seed}; not retrained")
print(f"{'stage':32s}{'neurons':>9s}{'accuracy':>10s}{'as float':>10s}")
for name, neurons, decisions in rows:
    right, alike = np.mean(decisions == labels), np.mean(decisions == rows[0][2])
    print(f"{name:32s}{neurons:9d}{right:10.2%}{alike:10.2%}")
print(f"overflows of the integers: {clipped}; input spikes merged by the coarse step: ", end="")
print(f"{binned.merged} of {binned.spikes}")
raise SystemExit(0 if broken == 0 and same == len(membrane) else 1)
