"""A SLAYER network of one's own on events of one's own, trained with lava-dl's Assistant, saved for the road.

Makes ``events.npz``, five classes of spike patterns, and trains stock SLAYER blocks on it, with delays and
``MeanOnlyBatchNorm``. What is saved, ``model.pt``, is then exported, checked, run and inspected:

    python examples/own_network.py FOLDER            # a minute
    python examples/own_network.py FOLDER --smoke    # seconds, and a network that knows little

docs/first-day.md goes on from here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import delaynet_lava

from lava.lib.dl import slayer  # isort: skip

CHANNELS, STEPS, CLASSES = 20, 100, 5
NEURON = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.05, "requires_grad": True}


def events(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes uint8 (count, steps, channels), labels: a class sweeps the channels at a pace of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    spikes = rng.random((count, STEPS, CHANNELS)) < 0.01
    for sample, label in enumerate(labels):
        pace = (-3, -1.5, 0, 1.5, 3)[label]
        middle = STEPS / 2 + rng.normal(0, 4)
        times = middle + pace * (np.arange(CHANNELS) - CHANNELS / 2) + rng.normal(0, 2, (4, CHANNELS))
        for line in times.round().astype(int):
            inside = (line >= 0) & (line < STEPS)
            spikes[sample, line[inside], np.flatnonzero(inside)] = True
    return spikes.astype(np.uint8), labels


class Network(torch.nn.Module):
    """Two hidden layers with learnt axonal delays, five output neurons that answer by their spikes."""

    def __init__(self) -> None:
        super().__init__()
        normed = NEURON | {"norm": slayer.neuron.norm.MeanOnlyBatchNorm}
        self.blocks = torch.nn.ModuleList(
            [
                slayer.block.cuba.Dense(normed, CHANNELS, 48, weight_scale=3, weight_norm=True, delay=True),
                slayer.block.cuba.Dense(normed, 48, 32, weight_scale=3, weight_norm=True, delay=True),
                slayer.block.cuba.Dense(NEURON, 32, CLASSES, weight_scale=3, weight_norm=True),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a short training")
    options = parser.parse_args()
    samples, epochs = (320, 3) if options.smoke else (1600, 12)

    sets = {"train": events(samples, 0), "validation": events(200, 1), "test": events(200, 2)}
    arrays = {f"{split}_inputs": x for split, (x, _) in sets.items()}
    arrays |= {f"{split}_labels": y for split, (_, y) in sets.items()}
    np.savez_compressed(options.folder / "events.npz", **arrays)

    torch.manual_seed(0)
    net = Network()
    error = slayer.loss.SpikeRate(true_rate=0.2, false_rate=0.03, reduction="sum")
    # A delay counts steps, a weight is below one: each wants a rate of its own.
    delays = [p for name, p in net.named_parameters() if name.endswith("delay.delay")]
    others = [p for name, p in net.named_parameters() if not name.endswith("delay.delay")]
    optimiser = torch.optim.Adam([{"params": others, "lr": 0.003}, {"params": delays, "lr": 0.1}])
    assistant = slayer.utils.Assistant(
        net, error, optimiser, slayer.utils.LearningStats(), classifier=slayer.classifier.Rate.predict
    )
    x, y = sets["train"]
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(samples)
        for batch in order.reshape(-1, 32):
            assistant.train(torch.from_numpy(x[batch]).transpose(1, 2).float(), torch.from_numpy(y[batch]))
        print(f"epoch {epoch + 1}: {assistant.stats.training}")
        assistant.stats.update()

    delaynet_lava.save_model(net, options.folder / "model.pt", task="events.npz")
    torch.save(net.state_dict(), options.folder / "state.pt")
    net.eval()
    with torch.no_grad():
        out = net(torch.from_numpy(sets["test"][0]).transpose(1, 2).float())
    right = float((slayer.classifier.Rate.predict(out) == torch.from_numpy(sets["test"][1])).float().mean())
    print(f"right on test samples: {right:.3f}; hidden delays up to {int(net.blocks[0].delay.delay.max())}")


if __name__ == "__main__":
    main()
