"""What each core does, step by step, against a plain count; and prices of a fitted model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks
from test_cost import small

import delaynet_lava
from delaynet_lava.analysis.busiest import KINDS, core_load
from delaynet_lava.analysis.cost import cost
from delaynet_lava.cli import main
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile, Limit, load_profile
from delaynet_lava.hw_profiles.placement import place
from delaynet_lava.network import Dense, Network, Neuron, Synapse

STEPS, BATCH = 40, 2


def narrow(neurons: int, word_bits: int | None = None, **fitted: float) -> HardwareProfile:
    """A chip whose cores hold few neurons."""
    units = {"energy": "pJ", "time": "ns"}
    prices = {
        key: Limit(value, "%" if key.endswith("error") else units[key.split("_")[0]], "inferred", "fit")
        for key, value in fitted.items()
    }
    limits = {
        "neurons_per_core": Limit(neurons, "neuron", "documented", "here"),
        "time_per_step": Limit(0.6, "us", "documented", "here"),
    }
    if word_bits is not None:
        limits["synapse_word_bits"] = Limit(word_bits, "bit", "documented", "here")
    return HardwareProfile("narrow", "narrow", limits, {}, prices)


def words_of(synapses: int, delays: np.ndarray, neurons: int, word_bits: int) -> int:
    """Words of one list, written out bit by bit: blocks of up to 64 synapses with 10 bits ahead of each,
    8 bits of weight, 6 or more of target, as many of delay as the longest takes."""
    target = max(6, len(f"{neurons - 1:b}"))
    longest = int(delays.max()) if delays.size else 0
    each = 8 + target + (len(f"{longest:b}") if longest else 0)
    words = 0
    while synapses > 0:
        bits = 10 + each * min(synapses, 64)
        while bits > 0:
            words, bits = words + 1, bits - word_bits
        synapses -= 64
    return words


def plain(
    network: Network, x: np.ndarray, cores: int, homes: list[np.ndarray], neurons: int, word_bits: int
) -> np.ndarray:
    """int (samples, steps, kinds, cores), spike by spike."""
    trace = emulate(network, x, ("spikes",))
    done = np.zeros((*x.shape[:2], 4, cores), int)
    for k, layer in enumerate(network.layers):
        for home in homes[k]:
            done[:, :, 0, home] += 1
        if not isinstance(layer, Dense):
            continue
        ways = [(x if k == 0 else trace.spikes[k - 1], k - 1, layer.synapse)]
        if layer.recurrent is not None:
            ways.append((trace.spikes[k], k, layer.recurrent))
        for train, sender, synapse in ways:
            for sample, step, neuron in np.argwhere(train):
                hit = [homes[k][post] for post in np.flatnonzero(synapse.weight[:, neuron])]
                for core in hit:
                    done[sample, step, 1, core] += 1
                for core in set(hit):
                    longest = synapse.delay[synapse.weight != 0]
                    done[sample, step, 2, core] += words_of(hit.count(core), longest, neurons, word_bits)
                if sender >= 0:
                    done[sample, step, 3, homes[sender][neuron]] += len(set(hit))
    return done


@settings(max_examples=15, deadline=None)
@given(networks(max_neurons=10), st.integers(2, 12), st.sampled_from([None, 16, 40]), st.integers(0, 99))
def test_each_core_is_counted_as_a_plain_count_does(network, neurons, word_bits, seed):
    profile = narrow(neurons, word_bits)
    placed = place(network, profile)
    x = inputs_for(network, STEPS, BATCH, seed=seed)
    spikes = emulate(network, x, ("spikes",)).spikes
    halves = [
        (x[k : k + 1], [spikes[n][k : k + 1] for n in range(len(network.layers))]) for k in range(BATCH)
    ]
    load = core_load(network, profile, placed, halves)
    homes = [placed.core_of(k) for k in range(len(network.layers))]
    expected = plain(network, x, len(placed.cores), homes, neurons, word_bits or 64)
    for kind in range(4):
        by_core = expected[:, :, kind]
        assert [one.most[kind] for one in load.cores] == by_core.max(axis=(0, 1)).tolist()
        assert [one.mean[kind] for one in load.cores] == pytest.approx(by_core.mean(axis=(0, 1)))
        assert load.busiest[KINDS[kind]].tolist() == by_core.max(axis=2).sum(axis=1).tolist()
    assert load.messages.tolist() == expected[:, :, 3].sum(axis=(1, 2)).tolist()
    assert load.time_ns is None


def test_words_of_lists_longer_than_a_block():
    """70 neurons listen to one channel, with delays up to 5: 64 synapses of 8 + 7 + 3 bits and 10 more are
    19 words of 64 bits, 6 synapses and 10 bits are 2; on two cores of 35 neurons a synapse takes 17 bits."""
    delay = np.arange(70)[:, None] % 6
    network = Network((Dense(Synapse(np.full((70, 1), 2), delay), Neuron(vth=1000, du=4096, dv=100)),))
    x = np.zeros((1, 10, 1), np.uint8)
    x[0, 3] = 1
    for profile, expected in ((narrow(70), 19 + 2), (narrow(35), -(-(35 * (8 + 6 + 3) + 10) // 64))):
        result = cost(network, x, profile, placed=place(network, profile))
        assert {c.name: c.most for c in result.busiest}["memory words read"] == expected


def test_more_cores_leave_less_to_the_busiest():
    """By hand: two spiking neurons of a core each, a readout of its own."""
    network, x = small()
    one, several = (cost(network, x, p, placed=place(network, p)) for p in (narrow(3), narrow(1)))
    busiest = [{c.name: c.mean for c in result.busiest} for result in (one, several)]
    assert len(one.cores) == 1 and len(several.cores) == 3
    assert busiest[0]["synaptic operations"] == 4 and busiest[0]["neuron updates"] == 30
    # Sample 0: step 0 reaches both neurons' cores once; step 1 the readout twice and neuron 0 once.
    # Sample 1: step 0 neuron 1, step 1 the readout and neuron 0, once each.
    assert busiest[1]["synaptic operations"] == (1 + 2 + 1 + 1) / 2 and busiest[1]["neuron updates"] == 10
    assert not cost(network, x, narrow(3)).busiest


def test_the_time_of_the_busiest_core_is_the_largest_of_its_parts():
    network, x = small()
    fitted = {"time_per_synaptic_op": 900.0, "time_per_neuron_update": 100.0, "time_error": 20.0}
    profile = narrow(1, **fitted)
    found = {e.name: e for e in cost(network, x, profile, placed=place(network, profile)).estimates}
    one = found["time by the busiest core, fitted"]
    # Ten steps of 600 ns, the barrier, but 900 or 1800 where operations take longer.
    samples = [8 * 600 + 900 + 1800, 8 * 600 + 900 + 900]
    assert [one.least, one.most] == pytest.approx([min(samples) * 1e-9, max(samples) * 1e-9])
    assert (one.error_percent, one.unit, one.source) == (20.0, "s", "fit")


def test_loihi_1_has_sana_fes_prices_beside_the_documented_ones():
    network, x = small()
    profile = load_profile("loihi1")
    result = cost(network, x, profile, placed=place(network, profile))
    found = {e.name: e for e in result.estimates}
    counts = {c.name: c.mean for c in result.counts}
    parts = {
        "energy of synaptic operations, fitted": counts["synaptic operations"] * 33.6e-12,
        "energy of neuron updates, fitted": counts["neuron updates"] * 72.8e-12,
        "energy of spikes, fitted": counts["spikes of layer 0"] * 69.3e-12,
        # A spike of either neuron reaches the readout; that of neuron 1 neuron 0, too.
        "energy of messages, fitted": (3 + 2) / 2 * 111e-12,
    }
    for name, value in parts.items():
        assert found[name].mean == pytest.approx(value) and found[name].error_percent == 11.7
    assert found["dynamic energy, fitted"].mean == pytest.approx(sum(parts.values()))
    assert found["energy of synaptic operations"].error_percent is None
    assert any("off by up to the error" in note for note in result.notes)
    without = {e.name for e in cost(network, x, profile).estimates}
    assert "dynamic energy, fitted" not in without and "energy of spikes, fitted" in without


def test_loihi_2_gets_no_invented_constant():
    network, x = small()
    profile = load_profile("loihi2")
    result = cost(network, x, profile, placed=place(network, profile))
    assert {e.name for e in result.estimates} == {"time, at least", "static energy of a chip, at least"}
    assert [c.name for c in result.busiest] == list(KINDS)
    assert any("is not made up, and its count stands alone" in note for note in result.notes)
    static = result.estimates[1]
    assert static.mean == pytest.approx(10 * 1.16e-6 * 0.216)
    assert static.figure == "0.216 W of power_static for 1.16 us a step"


def test_inspect_shows_the_cores(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, x = small()
    delaynet_lava.save(network, "net.h5")
    np.savez("mine.npz", inputs=np.tile(x, (5, 1, 1)), labels=np.zeros(10, int))
    with pytest.raises(SystemExit) as stopped:
        outputs = ["--json", "r.json", "--html", "r.html"]
        main(["inspect", "net.h5", "--task", "mine.npz:split=0,0,1", "--profile", "loihi1", *outputs])
    assert stopped.value.code == 1  # voltage decays of 4096 are beyond the chip
    text, page = capsys.readouterr().out, (tmp_path / "r.html").read_text()
    content = json.loads((tmp_path / "r.json").read_text())["cost"]
    for words in ("synaptic operations of the busiest core", "dynamic energy, fitted", "11.7 %", "24.3 %"):
        assert words in text and words in page
    assert [c["name"] for c in content["busiest_core"]] == list(KINDS)
    assert content["cores"][0]["mean"][0] == 3 and content["cores"][0]["kinds"] == list(KINDS)
    errors = {e["name"]: e["error_percent"] for e in content["estimates"]}
    assert errors["time by the busiest core, fitted"] == 24.3
    assert all(e["error_percent"] for e in content["estimates"] if e["name"].endswith("fitted"))


HEAD = """name = "a"
title = "b"
[limits]
delay_max = { value = 5, unit = "time step", status = "measured", source = "x" }
"""


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        ("fitted = 3", "[fitted] is not a table"),
        ('[fitted]\nmade_up = { value = 1.0, unit = "pJ", status = "inferred", source = "x" }',
         "fitted: unknown keys ['made_up']"),
        ('[fitted]\nenergy_error = { unit = "%", status = "unknown", source = "x" }',
         "fitted.energy_error: has no value; leave out what is not known"),
        ('[fitted]\nenergy_error = { value = 1.0, unit = "pJ", status = "inferred", source = "x" }',
         "fitted.energy_error: unit is 'pJ', expected '%'"),
        ('[fitted]\nenergy_per_spike = { value = -1.0, unit = "pJ", status = "inferred", source = "x" }',
         "fitted.energy_per_spike: value is -1.0, expected a positive number"),
        ('[fitted]\ntime_per_synaptic_op = { value = 1.0, unit = "ns", status = "inferred", source = "x" }',
         "fitted.time_error: is missing, how far the fitted figures are off"),
    ],
)  # fmt: skip
def test_fitted_prices_that_are_none(tmp_path, fitted, message):
    text = f"{fitted}\n{HEAD}" if fitted.startswith("fitted") else f"{HEAD}{fitted}\n"
    (tmp_path / "chip.toml").write_text(text)
    with pytest.raises(InputError) as found:
        load_profile(tmp_path / "chip.toml")
    assert message in str(found.value)


def test_the_command_shows_fitted_prices(capsys):
    with pytest.raises(SystemExit):
        main(["profiles", "loihi1"])
    text = capsys.readouterr().out
    assert "fitted price" in text and "SANA-FE: 51.2 for access and 21.6 for the update" in text
