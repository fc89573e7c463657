"""What a network takes of the cores of a chip: five resources, each counted by a stated rule.

The rules are those of Loihi 1, whose format is public. A core holds ranges of neurons of one or several
layers, with every synapse onto them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.network import Dense, Network, Synapse

__all__ = ["RESOURCES", "Demand", "Part", "Projection", "Resource", "least_cores", "reached"]

# The synapse format of Loihi 1: words of 64 bits, blocks of up to 64 synapses with a header of 4 + 6 bits,
# target indices of 6 bits or more, weights of 8 (nengo-loihi, SynapseConfig).
WORD_BITS, BLOCK, HEADER_BITS, LEAST_INDEX_BITS, WEIGHT_BITS = 64, 64, 10, 6, 8
OUTSIDE = -1  # what sends the network's input, where the first layer is not an encoder


@dataclass(frozen=True)
class Resource:
    """What a core has a number of.

    Attributes:
        name, unit: as printed.
        key: the profile's limit; None: no profile has one.
        rule: what takes one.
        status, source: how sure that rule is, and where it is from.
    """

    name: str
    unit: str
    key: str | None
    rule: str
    status: str
    source: str


RESOURCES = (
    Resource(
        "neurons", "neuron", "neurons_per_core", "one a neuron, readouts too; input channels take none",
        "documented", "lava-nc 0.10: a readout is a LIF neuron",
    ),
    Resource(
        "axons in", "axon", "axons_in_per_core",
        "one for every sender with a synapse on the core, forward and recurrent apart",
        "inferred", "nengo-loihi: an axon leads to one list of one group of synapses",
    ),
    Resource(
        "axons out", "axon", "axons_out_per_core",
        "one for every neuron and core that it reaches, forward and recurrent apart; what comes from "
        "outside takes none",
        "inferred", "nengo-loihi: one for each in-axon that a neuron sends to",
    ),
    Resource(
        "synapse memory", "word", "synapse_memory_per_core",
        "a list an in-axon, in blocks of up to 64 synapses, each rounded up to words: 10 bits a block; "
        "weight bits, index bits, and the bits of the longest delay a synapse",
        "inferred", "nengo-loihi, the format of Loihi 1; delay bits by analogy",
    ),
    Resource(
        "delay slots", "sum", None, "a ring of future inputs a neuron: its longest delay + 2",
        "inferred", "the least that delays need; no public source says what a chip has",
    ),
)  # fmt: skip
NEURONS, AXONS_IN, AXONS_OUT, MEMORY, SLOTS = range(len(RESOURCES))


@dataclass(frozen=True)
class Part:
    """Neurons ``start`` to ``stop - 1`` of a layer."""

    layer: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.layer}: {self.start}-{self.stop - 1}"


class Projection:
    """The synapses of one sender layer onto one target layer, as placement sees them."""

    def __init__(self, sender: int, target: int, synapse: Synapse, index_bits: int, weight_bits: int) -> None:
        self.sender, self.target = sender, target
        self.present = synapse.weight != 0
        self.delay = np.where(self.present, synapse.delay, 0)
        self.fan_in = np.count_nonzero(self.present, axis=1)
        self.fan_out = np.count_nonzero(self.present, axis=0)
        self.bits = weight_bits + index_bits + synapse.max_delay.bit_length()

    def words(self, word_bits: int) -> np.ndarray:
        """int64 (post + 1,), the memory of a list of n synapses."""
        whole, rest = np.divmod(np.arange(len(self.present) + 1), BLOCK)
        block = -(-(BLOCK * self.bits + HEADER_BITS) // word_bits)
        return whole * block + np.where(rest > 0, -(-(rest * self.bits + HEADER_BITS) // word_bits), 0)


class Demand:
    """What a network asks of the cores."""

    def __init__(self, network: Network, profile: HardwareProfile) -> None:
        self.sizes = [layer.size for layer in network.layers]
        largest = profile.get("neurons_per_core") or max(self.sizes)
        form = (
            max(LEAST_INDEX_BITS, (int(largest) - 1).bit_length()),
            profile.get("weight_bits") or WEIGHT_BITS,
        )
        self.word_bits = int(profile.get("synapse_word_bits") or WORD_BITS)
        self.into: list[list[Projection]] = []
        self.slots: list[np.ndarray] = []
        for k, layer in enumerate(network.layers):
            into = []
            if isinstance(layer, Dense):
                into.append(Projection(k - 1 if k else OUTSIDE, k, layer.synapse, *form))
                if layer.recurrent is not None:
                    into.append(Projection(k, k, layer.recurrent, *form))
            self.into.append(into)
            ring = [p.delay.max(axis=1).astype(np.int64) for p in into]
            self.slots.append(np.max(ring, axis=0) + 2 if ring else np.zeros(layer.size, np.int64))
        self.tables = {id(p): p.words(self.word_bits) for p in self.all()}

    def all(self) -> list[Projection]:
        return [p for into in self.into for p in into]

    def out_of(self, layer: int) -> list[Projection]:
        return [p for p in self.all() if p.sender == layer]

    def of_part(self, part: Part, axons_out: int) -> np.ndarray:
        """int64 (resources,), what a part takes of a core."""
        used = np.array([part.stop - part.start, 0, axons_out, 0, 0], np.int64)
        used[SLOTS] = self.slots[part.layer][part.start : part.stop].sum()
        for p in self.into[part.layer]:
            lists = np.count_nonzero(p.present[part.start : part.stop], axis=0)
            used[AXONS_IN] += np.count_nonzero(lists)
            used[MEMORY] += self.tables[id(p)][lists].sum()
        return used


def reached(projection: Projection, parts: Sequence[Part]) -> np.ndarray:
    """int64 (pre,), the number of these parts of the target layer that each sender reaches."""
    reached: np.ndarray = np.zeros(projection.present.shape[1], np.int64)
    for part in parts:
        reached += projection.present[part.start : part.stop].any(axis=0)
    return reached


def least_cores(demand: Demand, capacity: np.ndarray) -> dict[str, int]:
    """Cores that any placement needs: by what all neurons take together, and by the largest layer.

    No core holds more neurons of a layer than the cheapest of them fill it with, so a layer's share of a
    core is at most ``most``; a sender with f synapses onto it reaches at least f / most cores, which takes
    as many axons and lists; that in turn lowers ``most``, until nothing changes.
    """
    most = list(demand.sizes)
    while True:
        reach = {id(p): -(-p.fan_out // most[p.target]) for p in demand.all()}
        total, at_most = np.zeros(len(RESOURCES), np.int64), []
        for layer, size in enumerate(demand.sizes):
            cost = np.zeros((len(RESOURCES), size), np.int64)
            cost[NEURONS], cost[SLOTS] = 1, demand.slots[layer]
            cost[AXONS_OUT] = sum((reach[id(p)] for p in demand.out_of(layer)), np.zeros(size, np.int64))
            bits = sum((p.fan_in * p.bits for p in demand.into[layer]), np.zeros(size, np.int64))
            total += cost.sum(axis=1)
            for p in demand.into[layer]:
                total[AXONS_IN] += reach[id(p)].sum()
                blocks = np.maximum(reach[id(p)], -(-p.fan_out // BLOCK))
                total[MEMORY] += (-(-(p.fan_out * p.bits + HEADER_BITS * blocks) // demand.word_bits)).sum()
            cost[MEMORY] = bits
            room = capacity * np.where(np.arange(len(RESOURCES)) == MEMORY, demand.word_bits, 1)
            filled = np.cumsum(np.sort(cost, axis=1), axis=1)
            at_most.append(max(1, int((filled <= room[:, None]).sum(axis=1).min())))
        if at_most == most:
            break
        most = at_most
    limited = {r.name: total[k] / capacity[k] for k, r in enumerate(RESOURCES) if np.isfinite(capacity[k])}
    limited["largest layer"] = max(n / m for n, m in zip(demand.sizes, most, strict=True))
    return {name: max(1, int(np.ceil(share))) for name, share in limited.items()}
