"""A network of ours as a NIR graph in snnTorch: spikes compared, step by step.

    python examples/nir_frameworks.py

Seen with snnTorch 1.0.0 and nirtorch 2.6:

- Layers without recurrence spike as the graph in float64 does, and ours do up to what integers truncate.
- ``import_from_nir`` loses a loop: its interpreter runs input, ``w_rec``, neuron, and no spike comes back.
- ``RSynaptic``, meant for such a loop and made here by its importer's own function,
  resets a step late although it is made with ``reset_delay=False``: in the step after a spike it is
  empty, the input of that step included. With that rule in our equations, its spikes are ours.

snnTorch's importer takes a step of 0.1 ms whatever the graph says, and knows no Delay and no readout, so the
networks have that step, none of either, and the hard reset. Needs pip install "snntorch>=1.0,<2" nirtorch.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch

import delaynet_lava
from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava.export import float_layers
from delaynet_lava.export.float_layers import FloatLayer
from delaynet_lava.export.nir_check import run_late
from delaynet_lava.export.nir_import import import_nir


def random_network(seed: int, recurrent: bool) -> Network:
    """Two layers, the first recurrent or not, that spike at a few per cent."""
    rng = np.random.default_rng(seed)
    words = [2 * rng.integers(-50, 64, shape) for shape in ((30, 10), (30, 30), (5, 30))]
    first = Synapse(words[0])
    layer = Dense(first, Neuron(700, 1200, 300), Synapse(words[1] - 40) if recurrent else None)
    return Network((layer, Dense(Synapse(words[2]), Neuron(500, 2000, 500))), dt_ms=0.1)


def in_snntorch(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Spikes of the first layer, uint8 (batch, steps, neurons)."""
    from snntorch import import_nir

    graph = delaynet_lava.to_nir(network)
    with contextlib.redirect_stdout(io.StringIO()):  # the importer prints
        if network.layers[0].recurrent is not None:
            graph = import_nir._replace_rnn_subgraph_with_nirgraph(graph)
        fc = import_nir._nir_to_snntorch_module(graph.nodes["fc0"])
        lif = import_nir._nir_to_snntorch_module(graph.nodes["lif0"])
    count = lif.forward.__code__.co_argcount - 2
    states = [torch.zeros(len(inputs), network.layers[0].size) for _ in range(count)]
    x, spikes = torch.from_numpy(inputs.astype(np.float32)), []
    with torch.no_grad():
        for t in range(inputs.shape[1]):
            spike, *rest = lif(fc(x[:, t]), *states)
            states = [spike, *rest] if len(states) == 3 else rest
            spikes.append(spike)
    return torch.stack(spikes, 1).numpy().astype(np.uint8)


def loop_is_lost(network: Network) -> bool:
    """Whether what ``import_from_nir`` makes of a recurrent network has no recurrent neurons."""
    import snntorch
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):
        made = import_from_nir(delaynet_lava.to_nir(network))
    return not any(isinstance(module, snntorch.RSynaptic) for module in made.modules())


def reset_late(layer: FloatLayer, inputs: np.ndarray) -> np.ndarray:
    """Spikes of a recurrent layer whose membrane is empty in the step after a spike."""
    assert layer.weight_rec is not None and layer.threshold is not None
    batch, steps, _ = inputs.shape
    u, v = np.zeros((2, batch, layer.size))
    spikes = np.zeros((batch, steps, layer.size), np.uint8)
    fired = np.zeros((batch, layer.size), bool)
    for t in range(steps):
        u = layer.keep_u * u + inputs[:, t] @ layer.weight.T + fired @ layer.weight_rec.T
        v = np.where(fired, 0, layer.keep_v * v + u)
        fired = v > layer.threshold
        spikes[:, t] = fired
    return spikes


def compare(seed: int, recurrent: bool, steps: int = 300) -> dict[str, int]:
    """Spikes of our first layer, and in how many places others differ from it."""
    network = random_network(seed, recurrent)
    inputs = (np.random.default_rng(seed).random((4, steps, 10)) < 0.03).astype(np.uint8)
    ours, _, _ = run_late(network, inputs)
    layers = import_nir(delaynet_lava.to_nir(network)).layers
    floats = [spikes for spikes, _ in float_layers.run(layers, inputs)]
    theirs = in_snntorch(network, inputs)
    found = {"places": ours[0].size, "spikes": int(ours[0].sum()), "spikes in snnTorch": int(theirs.sum())}
    found["float64 differs in"] = int((ours[0] != floats[0]).sum())
    found["snnTorch differs from float64 in"] = int((theirs != floats[0]).sum())
    if recurrent:
        found["and from a late reset in"] = int((theirs != reset_late(layers[0], inputs)).sum())
    return found


def main() -> None:
    """Print the comparison for a few networks."""
    try:
        import nirtorch  # noqa: F401
        import snntorch  # noqa: F401
    except ImportError as error:
        print(f"nothing is compared: {error.name} is not installed")
        return
    for recurrent in (False, True):
        for seed in range(3):
            print("recurrent" if recurrent else "feed-forward", seed, compare(seed, recurrent))
    print("import_from_nir loses the loop:", loop_is_lost(random_network(0, True)))


if __name__ == "__main__":
    main()
