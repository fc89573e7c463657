"""Cost of an inference: every count against a plain count over spikes and weights, and its price."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

from delaynet_lava.analysis import cost as module
from delaynet_lava.analysis.cost import COLUMNS, ESTIMATE_COLUMNS, cost
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile, Limit, load_profile
from delaynet_lava.network import Dense, Network, Neuron, Synapse

STEPS, BATCH = 60, 3


def plain(network: Network, x: np.ndarray) -> dict[str, list[int]]:
    """Each spike on its own: how many neurons listen to its sender, weight by weight."""
    trace = emulate(network, x, ("spikes",))
    total: dict[str, list[int]] = {}
    for sample in range(len(x)):
        counts: dict[str, int] = {"synaptic operations": 0}
        trains = [x[sample], *(trace.spikes[k][sample] for k in range(len(network.layers)))]
        counts["input events"] = sum(1 for value in x[sample].ravel() if value)
        for k, layer in enumerate(network.layers):
            counts[f"spikes of layer {k}"] = sum(int(v) for v in trains[k + 1].ravel())
            if not isinstance(layer, Dense):
                continue
            ways = [(f"forward into layer {k}", layer.synapse, trains[k])]
            if layer.recurrent is not None:
                ways.append((f"recurrent in layer {k}", layer.recurrent, trains[k + 1]))
            for name, synapse, train in ways:
                n = 0
                for _, sender in np.argwhere(train):
                    n += sum(1 for w in synapse.weight[:, sender] if w != 0)
                counts[f"synaptic operations {name}"] = n
                counts["synaptic operations"] += n
        counts["time steps"] = len(trains[0])
        counts["neuron updates"] = len(trains[0]) * sum(layer.size for layer in network.layers)
        for name, n in counts.items():
            total.setdefault(name, []).append(n)
    return total


@settings(max_examples=20)
@given(networks(max_neurons=10), st.integers(0, 99))
def test_counts_are_those_of_a_plain_count(network, seed):
    x = inputs_for(network, STEPS, BATCH, seed=seed)
    result = cost(network, x, load_profile("loihi2"))
    counted = {c.name: (c.mean, c.least, c.most) for c in result.counts}
    expected = {k: (np.mean(n), min(n), max(n)) for k, n in plain(network, x).items()}
    assert counted == expected


def small() -> tuple[Network, np.ndarray]:
    """Two channels, two neurons that spike whenever anything arrives, a readout; known by hand."""
    hidden = Dense(
        Synapse(np.array([[254, 0], [254, 254]])),
        Neuron(vth=1, du=4096, dv=4096),
        Synapse(np.array([[0, -2], [0, 0]]), np.array([[0, 5], [0, 0]])),
    )
    readout = Dense(Synapse(np.array([[2, 2]])), Neuron(vth=131071, du=4096, dv=0))
    x = np.zeros((2, 10, 2), np.uint8)
    x[0, 0] = 1, 0  # neurons 0 and 1 spike at step 1
    x[1, 0] = 0, 1  # neuron 1 alone
    return Network((hidden, readout)), x


def test_counts_known_by_hand():
    network, x = small()
    counts = {c.name: (c.mean, c.least, c.most) for c in cost(network, x, load_profile("loihi2")).counts}
    assert counts == {
        "time steps": (10, 10, 10),
        "neuron updates": (30, 30, 30),
        "input events": (1, 1, 1),
        "spikes of layer 0": (1.5, 1, 2),
        "spikes of layer 1": (0, 0, 0),
        "synaptic operations": (4, 3, 5),
        "synaptic operations forward into layer 0": (1.5, 1, 2),
        "synaptic operations recurrent in layer 0": (1, 1, 1),
        "synaptic operations forward into layer 1": (1.5, 1, 2),
    }


def test_a_synapse_more_costs_more():
    network, x = small()
    hidden = network.layers[0]
    more = Synapse(np.array([[0, -2], [0, -2]]), 5)
    other = network.with_(layers=(replace(hidden, recurrent=more), network.layers[1]))
    totals = [
        {c.name: c.mean for c in cost(n, x, load_profile("loihi2")).counts}["synaptic operations"]
        for n in (network, other)
    ]
    assert totals == [4, 5]


def test_a_trace_spares_the_run_and_must_belong_to_the_inputs():
    network, x = small()
    profile = load_profile("loihi1")
    trace = emulate(network, x)
    assert cost(network, x, profile, trace) == cost(network, x, profile)
    with pytest.raises(InputError, match="2 samples of 10 steps, the inputs are 1 of 10"):
        cost(network, x[:1], profile, trace)
    with pytest.raises(InputError, match=r"no spikes of layers \[0\]"):
        cost(network, x, profile, emulate(network, x, layers=[1]))


def test_samples_in_pieces_count_the_same(monkeypatch):
    network, _ = small()
    x = inputs_for(network, 50, 7)
    whole = cost(network, x, load_profile("loihi2"))
    monkeypatch.setattr(module, "_BYTES", 50 * 3 * 2)
    assert cost(network, x, load_profile("loihi2")) == whole


def priced(**limits: Limit) -> HardwareProfile:
    return HardwareProfile("mine", "mine", limits)


def test_prices_are_counts_times_figures_with_their_status_and_source():
    network, x = small()
    profile = priced(
        energy_per_synaptic_op=Limit(2.5, "pJ", "measured", "bench"),
        energy_per_neuron_update=Limit(10.0, "pJ", "inferred", "guess"),
        power_static=Limit(0.25, "W", "documented", "sheet"),
        time_per_step=Limit(1.5, "us", "measured", "clock"),
    )
    found = {e.name: e for e in cost(network, x, profile).estimates}
    expected = {
        "energy of synaptic operations": (10e-12, 7.5e-12, 12.5e-12, "J", "measured", "bench"),
        "energy of neuron updates": (300e-12, 300e-12, 300e-12, "J", "inferred", "guess"),
        "static energy of a chip, at least": (3.75e-6, 3.75e-6, 3.75e-6, "J", "documented", "sheet"),
        "time, at least": (15e-6, 15e-6, 15e-6, "s", "measured", "clock"),
    }
    assert found.keys() == expected.keys()
    for name, (mean, least, most, unit, status, source) in expected.items():
        one = found[name]
        assert [one.mean, one.least, one.most] == pytest.approx([mean, least, most], rel=1e-12)
        assert (one.unit, one.figure_status, one.source) == (unit, status, source)
    assert found["time, at least"].figure == "1.5 us of time_per_step"


def test_where_the_profile_is_silent_there_are_counts_only():
    network, x = small()
    result = cost(network, x, priced())
    assert result.estimates == () and result.estimate_rows() == []
    assert len(result.counts) == 9
    assert [note.split(": ")[0] for note in result.notes] == [
        f"mine has no figure for {key}"
        for key in (
            "energy_per_synaptic_op",
            "energy_per_neuron_update",
            "time_per_step",
            "power_static",
        )
    ]


def test_a_figure_that_goes_with_no_count_is_named_and_not_used():
    network, x = small()
    result = cost(network, x, priced(energy_dynamic_per_step=Limit(44.0, "nJ", "measured", "two neurons")))
    assert result.estimates == ()
    assert any(note.startswith("energy_dynamic_per_step is not used") for note in result.notes)


def test_no_joule_stands_alone():
    """Every energy or time in the tables and in the JSON has its range, status and source beside it."""
    network, x = small()
    for name in ("loihi1", "loihi2"):
        result = cost(network, x, load_profile(name))
        assert result.estimates
        for row in result.estimate_rows():
            cells = dict(zip(ESTIMATE_COLUMNS, row, strict=True))
            assert cells["status"] == "inferred"
            assert cells["figure is"] in ("documented", "measured", "inferred")
            assert all(cells.values())
        for row in result.rows():
            assert dict(zip(COLUMNS, row, strict=True))["status"] == "measured"
        content = result.as_dict()
        assert all(
            e["status"] == "inferred" and e["figure_status"] and e["source"] for e in content["estimates"]
        )
        assert all(c["status"] == "measured" for c in content["counts"])


def test_units_are_written_to_three_digits():
    assert module._scaled(6.7713e-5, "J") == "67.7 uJ"
    assert module._scaled(2.61e-3, "s") == "2.61 ms"
    assert module._scaled(3.0, "s") == "3 s"
    assert module._scaled(0.0, "J") == "0 pJ"
