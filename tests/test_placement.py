"""Placement: every neuron and synapse once, no core over a limit, and a lower bound that never lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile, Limit, System, load_profile
from delaynet_lava.hw_profiles.cores import RESOURCES, Part
from delaynet_lava.hw_profiles.placement import COLUMNS, MODEL_COLUMNS, Placement, draw_placement, place
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse

KEYS = [r.key for r in RESOURCES]
NEURON = Neuron(vth=100, du=4096, dv=100)


def profile_of(systems: dict[str, System] | None = None, **values: int | None) -> HardwareProfile:
    limits = {k: Limit(v, "1", "documented", "test") for k, v in values.items() if v is not None}
    return HardwareProfile("mine", "mine", limits, systems or {})


def ways(network: Network) -> Iterator[tuple[int, int, Synapse]]:
    """(sender layer or -1, target layer, synapse) of everything that connects."""
    for k, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            yield k - 1, k, layer.synapse
            if layer.recurrent is not None:
                yield k, k, layer.recurrent


def words(n: int, bits: int, word: int = 64) -> int:
    """Memory of a list of n synapses, block by block."""
    total = 0
    while n > 0:
        total += -(-(min(n, 64) * bits + 10) // word)
        n -= 64
    return total


def used_by(
    network: Network, where: list[list[int]], core: int, index_bits: int, weight_bits: int
) -> list[int]:
    """What one core uses, neuron by neuron and synapse by synapse."""
    held = [{i for i, c in enumerate(cores) if c == core} for cores in where]
    neurons, axons_in, axons_out, memory = sum(map(len, held)), 0, 0, 0
    rings = {(layer, i): 2 for layer, these in enumerate(held) for i in these}
    for sender, target, synapse in ways(network):
        bits = weight_bits + index_bits + synapse.max_delay.bit_length()
        for j in range(synapse.shape[1]):
            targets = [i for i in range(synapse.shape[0]) if synapse.weight[i, j] != 0]
            here = [i for i in targets if i in held[target]]
            axons_in += bool(here)
            memory += words(len(here), bits)
            if sender >= 0 and j in held[sender]:
                axons_out += len({where[target][i] for i in targets})
            for i in here:
                rings[target, i] = max(rings[target, i], int(synapse.delay[i, j]) + 2)
    slots = sum(n for (layer, _), n in rings.items() if isinstance(network.layers[layer], Dense))
    return [neurons, axons_in, axons_out, memory, slots]


def index_bits(network: Network, profile: HardwareProfile) -> int:
    widest = profile.get("neurons_per_core") or max(layer.size for layer in network.layers)
    return max(6, int(np.ceil(np.log2(widest))))


def verify(placement: Placement, network: Network, profile: HardwareProfile) -> None:
    """Fails unless the placement is whole, counted rightly and within every limit."""
    where = []
    for k, layer in enumerate(network.layers):
        parts = [(p, c) for c, core in enumerate(placement.cores) for p in core.parts if p.layer == k]
        neurons = [i for p, _ in parts for i in range(p.start, p.stop)]
        assert sorted(neurons) == list(range(layer.size)), "every neuron exactly once"
        where.append(placement.core_of(k).tolist())
        assert all(where[k][i] == c for p, c in parts for i in range(p.start, p.stop))
    present = sum(int(np.count_nonzero(s.weight)) for *_, s in ways(network))
    assert sum(core.synapses for core in placement.cores) == present, "every synapse counted"
    form = index_bits(network, profile), profile.get("weight_bits") or 8
    for c, core in enumerate(placement.cores):
        assert core.parts, "no core is empty"
        assert list(core.used) == used_by(network, where, c, *form)
        for n, key in zip(core.used, KEYS, strict=True):
            limit = None if key is None else profile.get(key)
            assert limit is None or n <= limit, "no core over a limit"
    assert len(placement.cores) >= placement.bound


def alone(network: Network, bits: int) -> list[int]:
    """The most of each resource that a neuron takes where each has a core of its own."""
    where, next_core = [], 0
    for layer in network.layers:
        where.append(list(range(next_core, next_core + layer.size)))
        next_core += layer.size
    return np.max([used_by(network, where, c, bits, 8) for c in range(next_core)], axis=0).tolist()


@st.composite
def cases(draw: st.DrawFn, max_neurons: int = 9, max_layers: int = 3) -> tuple[Network, HardwareProfile]:
    """A network, and cores just large enough for its most demanding neuron or somewhat larger."""
    network = draw(networks(max_neurons=max_neurons, max_layers=max_layers))
    least = alone(network, 6)
    limits = {
        key: draw(st.one_of(st.none(), st.integers(n, 4 * n + 4)))
        for key, n in zip(KEYS, least, strict=True)
        if key is not None
    }
    return network, profile_of(**{k: None if v is None else max(1, v) for k, v in limits.items()})


@settings(max_examples=40)
@given(cases())
def test_every_neuron_and_synapse_is_on_a_core_and_no_core_over_a_limit(case):
    network, profile = case
    verify(place(network, profile), network, profile)


def partitions(items: list[int]) -> Iterator[list[int]]:
    """Every way to share items over cores: the core of each, cores numbered in order of appearance."""

    def go(k: int, cores: list[int], used: int) -> Iterator[list[int]]:
        if k == len(items):
            yield list(cores)
            return
        for c in range(used + 1):
            yield from go(k + 1, [*cores, c], max(used, c + 1))

    yield from go(0, [], 0)


@settings(max_examples=25)
@given(cases(max_neurons=3, max_layers=2))
def test_the_best_of_all_placements_lies_between_the_bound_and_the_greedy_one(case):
    """Neurons in any order and any mixture, all ways tried."""
    network, profile = case
    sizes = [layer.size for layer in network.layers]
    limits = [None if key is None else profile.get(key) for key in KEYS]
    bits = index_bits(network, profile)
    best = sum(sizes)
    for cores in partitions(list(range(sum(sizes)))):
        count = max(cores) + 1
        if count >= best:
            continue
        where = [cores[sum(sizes[:k]) : sum(sizes[: k + 1])] for k in range(len(sizes))]
        used = [used_by(network, where, c, bits, 8) for c in range(count)]
        if all(m is None or n <= m for one in used for n, m in zip(one, limits, strict=True)):
            best = count
    found = place(network, profile)
    assert found.bound <= best <= len(found.cores)


@pytest.fixture
def split() -> tuple[Network, HardwareProfile, Placement]:
    rng = np.random.default_rng(0)
    hidden = Dense(
        Synapse(2 * rng.integers(1, 9, (40, 6))),
        NEURON,
        Synapse(2 * rng.integers(-2, 3, (40, 40)), rng.integers(0, 20, (40, 40))),
    )
    network = Network((hidden, Dense(Synapse(np.full((3, 40), 2)), NEURON)))
    profile = profile_of(neurons_per_core=16, axons_out_per_core=80)
    return network, profile, place(network, profile)


def test_the_check_above_sees_what_is_wrong(split):
    network, profile, placement = split
    verify(placement, network, profile)
    first, second, *rest = placement.cores
    part = first.parts[0]
    shorter = replace(first, parts=(replace(part, stop=part.stop - 1), *first.parts[1:]))
    with pytest.raises(AssertionError, match="every neuron exactly once"):
        verify(replace(placement, cores=(shorter, second, *rest)), network, profile)
    twice = replace(second, parts=(*second.parts, Part(part.layer, part.start, part.start + 1)))
    with pytest.raises(AssertionError, match="every neuron exactly once"):
        verify(replace(placement, cores=(first, twice, *rest)), network, profile)
    with pytest.raises(AssertionError, match="every synapse counted"):
        verify(replace(placement, cores=(replace(first, synapses=1), second, *rest)), network, profile)
    tight = replace(profile, limits=profile.limits | {"neurons_per_core": Limit(15, "1", "inferred", "")})
    with pytest.raises(AssertionError, match="no core over a limit"):
        verify(placement, network, tight)


def test_known_by_hand():
    """Two hidden neurons on a core each, since a core holds one: both axons go both ways."""
    hidden = Dense(Synapse(np.array([[2, 0], [2, 2]]), 3), NEURON, Synapse(np.array([[0, 2], [2, 2]]), 62))
    network = Network((hidden,))
    placement = place(network, profile_of(neurons_per_core=1))
    # 8 + 6 + 2 bits forward, 8 + 6 + 6 recurrent: every list fits a word of 64 bits.
    assert [core.used for core in placement.cores] == [(1, 2, 1, 2, 64), (1, 4, 2, 4, 64)]
    assert [core.synapses for core in placement.cores] == [2, 4]
    assert [str(core.parts[0]) for core in placement.cores] == ["0: 0-0", "0: 1-1"]
    whole = place(network, profile_of())
    assert [core.used for core in whole.cores] == [(2, 4, 2, 4, 128)]
    assert whole.cores[0].longest_delay == 62


@pytest.mark.parametrize(("synapses", "expected"), [(1, 1), (2, 1), (3, 2), (64, 25), (65, 26), (128, 50)])
def test_memory_of_a_list(synapses, expected):
    """24 bits a synapse (8 weight, 10 index, 6 delay) and 10 a block of 64, in words of 64."""
    network = Network((Dense(Synapse(np.full((synapses, 1), 2), 62), NEURON),))
    assert place(network, load_profile("loihi1")).cores[0].used[3] == expected == words(synapses, 24)


def test_small_layers_share_a_core_and_large_ones_are_split():
    rng = np.random.default_rng(1)
    sizes = [30, 50, 8, 4]
    layers = [
        Dense(Synapse(2 * rng.integers(1, 9, (n, pre))), NEURON)
        for pre, n in zip([5, *sizes], sizes, strict=False)
    ]
    placement = place(Network(tuple(layers)), profile_of(neurons_per_core=32))
    assert len(placement.cores) == placement.bound == 3
    assert sorted(len(core.parts) for core in placement.cores) == [1, 2, 3]


def test_dense_layers_come_near_the_bound():
    """All to all, memory and axons scarce: the layers that train well on Loihi 1."""
    rng = np.random.default_rng(2)

    def full(post: int, pre: int) -> Synapse:
        return Synapse(2 * rng.integers(1, 100, (post, pre)), rng.integers(0, 62, (post, pre)))

    network = Network((Dense(full(600, 300), NEURON, full(600, 600)), Dense(full(10, 600), NEURON)))
    placement = place(network, load_profile("loihi1"))
    assert placement.bound <= len(placement.cores) <= 1.15 * placement.bound
    for core in placement.cores:
        assert all(share is None or share <= 1 for share in placement.utilisation(core))


def test_an_encoder_has_neurons_and_axons_out_and_no_synapses():
    network = Network((Encoder(NEURON, 3), Dense(Synapse(np.array([[2, 2, 0]])), NEURON)))
    placement = place(network, profile_of())
    assert placement.cores[0].used == (4, 2, 2, 2, 2)
    assert placement.cores[0].synapses == 2


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"axons_in_per_core": 4}, "layer 0: neuron 1: takes 5 of axons in, a core of mine has 4;"),
        (
            {"synapse_memory_per_core": 4},
            "layer 0: neuron 1: takes 5 of synapse memory, a core of mine has 4;",
        ),
    ],
)
def test_a_neuron_too_large_for_a_core_is_named(limit, text):
    weight = np.array([[2, 2, 0, 0, 0], [2, 2, 2, 2, 2]])
    network = Network((Dense(Synapse(weight), NEURON),))
    with pytest.raises(InputError) as error:
        place(network, profile_of(**limit))
    assert str(error.value).startswith(text)
    key = next(iter(limit))
    assert len(place(network, profile_of(**{key: 5})).cores) == 1


def test_a_network_too_large_for_a_chip_or_for_every_system_is_told_so():
    network = Network((Dense(Synapse(np.full((10, 1), 2)), NEURON),))
    systems = {
        "board": System(1, None, "documented", "test"),
        "rack": System(3, None, "documented", "test"),
    }

    def on(chip_cores: int) -> Placement:
        return place(network, profile_of(systems, neurons_per_core=1, cores_per_chip_usable=chip_cores))

    assert (on(10).chips, on(10).systems) == (1, {"board": 1, "rack": 3})
    two = on(9)
    assert (two.chips, two.systems) == (2, {"rack": 3})
    assert "10 cores exceed one chip: 2 chips of mine are needed" in two.notes
    four = on(3)
    assert (four.chips, four.systems) == (4, {})
    assert "4 chips exceed the largest system that mine names, 3 chips" in four.notes
    assert ("fits", "no system that the profile names") in four.summary()
    assert not any("exceed" in note for note in on(10).notes)


def test_what_the_profile_does_not_know_limits_nothing_and_is_named():
    network = Network((Dense(Synapse(np.full((300, 500), 2)), NEURON),))
    placement = place(network, load_profile("loihi2"))
    assert len(placement.cores) == 1
    note = next(n for n in placement.notes if n.startswith("loihi2 gives no capacity for"))
    assert all(name in note for name in ("axons in", "axons out", "synapse memory", "delay slots"))
    assert placement.utilisation(placement.cores[0])[1:] == [None] * 4
    model = [dict(zip(MODEL_COLUMNS, row, strict=True)) for row in placement.model_rows()]
    assert [m["a core has"] for m in model] == ["8,192", *["unknown"] * 4]
    assert all(m["status"] in ("documented", "inferred") and m["source"] for m in model)
    known = place(network, load_profile("loihi1"))
    assert [n for n in known.notes if "capacity" in n] == [
        "loihi1 gives no capacity for delay slots: counted, but no limit here"
    ]


def test_table_json_and_picture_say_the_same(split):
    _, _, placement = split
    rows = placement.rows()
    assert len(rows) == len(placement.cores) and all(len(row) == len(COLUMNS) for row in rows)
    content = json.loads(json.dumps(placement.as_dict()))
    assert content["cores_needed"] == len(rows) and content["cores_bound"] == placement.bound
    for row, core in zip(rows, content["cores"], strict=True):
        cells = dict(zip(COLUMNS, row, strict=True))
        used = core["used"]["neurons"]
        assert cells["neurons"] == f"{used} ({used / 16:.1%})"
        assert cells["synapses"] == f"{core['synapses']:,}"
    figure = draw_placement(placement)
    assert len(figure.axes) == len(RESOURCES)
    # Layer by layer, then one bar a core in every other panel.
    assert [len(axes.patches) for axes in figure.axes] == [2 * len(rows)] + [len(rows)] * 4


def test_few_cores_are_a_small_picture_of_lines(split):
    _, _, placement = split
    one = replace(placement, cores=placement.cores[:1])
    figure = draw_placement(one)
    (axes,) = figure.axes
    assert figure.get_size_inches()[1] < 2.5
    shown = [text.get_text() for text in axes.texts]
    assert shown[0].startswith(f"{one.cores[0].used[0]} of 16, ") and len(axes.patches) == len(shown)
    unknown = [
        capacity is None for capacity, used in zip(one.capacity, one.cores[0].used, strict=True) if used
    ]
    assert ["capacity unknown" in text for text in shown] == unknown
