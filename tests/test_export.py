"""Export from live models, the rules, and the profiles they are taken from."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from strategies import inputs_for

import delaynet_lava
from delaynet_lava.errors import InputError
from delaynet_lava.export import RuleBroken, check, export_netx, extract
from delaynet_lava.hw_profiles import load_profile, profile_names
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.nn import DelayRecurrent, Readout
from delaynet_lava.nn.model import describe

NEURON = {"threshold": 2.0, "current_decay": 0.7, "voltage_decay": 0.1}


def make_model(**options) -> torch.nn.Sequential:
    torch.manual_seed(0)
    options = {"self_connection": False, "weight_scale": 4} | options
    return torch.nn.Sequential(
        DelayRecurrent(NEURON, 6, 5, [0, 1, 20, 61, 62], **options), Readout(NEURON, 5, 2, weight_scale=3)
    )


def same(one: Network, two: Network) -> bool:
    x = inputs_for(one, steps=150, rate=0.3)
    traces = [delaynet_lava.emulate(n, x, ("spikes", "voltage")) for n in (one, two)]
    assert traces[0].spike_counts[0].sum() > 20
    return bool(traces[0].compare(traces[1]))


@pytest.mark.parametrize("options", [{}, {"self_connection": True}, {"weight_norm": True}], ids=str)
def test_slayers_own_way_to_export_writes_the_same_layers(options, tmp_path):
    """A SLAYER model writes its file block by block; the result is what export_netx writes."""
    model = make_model(**options)
    ours = tmp_path / "ours.h5"
    report = export_netx(model, ours)
    theirs = tmp_path / "theirs.h5"
    with h5py.File(theirs, "w") as file:
        for k, block in enumerate(model):
            block.export_hdf5(file.create_group(f"layer/{k}"))
    by_block = delaynet_lava.load(theirs)
    assert same(report.network, by_block)
    assert same(report.network, delaynet_lava.load(ours))
    diagonal = by_block.layers[0].recurrent.weight.diagonal()
    assert bool(np.any(diagonal)) == options.get("self_connection", False)


def test_training_goes_on_after_an_export(tmp_path):
    """An export changes nothing in the model."""
    model = make_model(weight_norm=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    export_netx(model, tmp_path / "net.h5")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def limit(synapse: dict | None = None, neuron: dict | None = None) -> Network:
    """A network at every limit of loihi2, with changes to its synapse or neuron."""
    weight = np.array([[254, -256]])
    s = {"weight": weight, "delay": np.array([[62, 0]]), "weight_exp": 7} | (synapse or {})
    n = {"vth": 131071, "du": 4096, "dv": 0, "bias": np.array([4095]), "bias_exp": 7} | (neuron or {})
    return Network((Dense(Synapse(**s), Neuron(**n)),))


@pytest.mark.parametrize("neuron", [{}, {"du": 1, "dv": 4095, "bias": np.array([-4096])}], ids=str)
def test_a_network_at_every_limit_passes(neuron):
    for name in ("loihi1", "loihi2"):
        assert check(limit(neuron=neuron), load_profile(name)) == []


@pytest.mark.parametrize(
    ("network", "rule", "text"),
    [
        (limit(synapse={"delay": np.array([[63, 0]])}), "delay-range", "delay 63 exceeds 62 (1 synapses)"),
        (limit(neuron={"vth": 131072}), "threshold", "131072 exceeds 131071"),
        (limit(neuron={"du": 0}), "decay", "du: 0 is below 1"),
        (limit(neuron={"dv": 4096}), "decay", "dv: 4096 exceeds 4095"),
        (
            limit(neuron={"vth": 131070, "reset": "subtract"}),
            "reset-kind",
            "'subtract' is not one of ['zero']",
        ),
    ],
)
def test_each_rule_finds_its_breach_and_no_other_does(network, rule, text):
    findings = check(network, load_profile("loihi2"))
    assert [f.rule for f in findings] == [rule]
    assert text in str(findings[0])


def narrow(**limits):
    """loihi2 with other limits, for what no Network can break on the real chip."""
    profile = load_profile("loihi2")
    changed = {k: replace(profile.limits[k], value=v) for k, v in limits.items()}
    return replace(profile, limits={**profile.limits, **changed})


@pytest.mark.parametrize(
    ("profile", "rule"),
    [
        (narrow(weight_max=252), "weight-range"),
        (narrow(weight_min=-254), "weight-range"),
        (narrow(weight_exp_max=6), "weight-exponent"),
        (narrow(bias_mantissa_max=4094), "bias"),
        (narrow(bias_exp_max=6), "bias"),
    ],
)
def test_rules_read_their_limits_from_the_profile(profile, rule):
    assert [f.rule for f in check(limit(), profile)] == [rule]


def test_a_delay_without_a_synapse_breaks_nothing():
    network = limit(synapse={"weight": np.array([[254, 0]]), "delay": np.array([[62, 500]])})
    assert check(network, load_profile("loihi2")) == []


def test_all_broken_rules_are_reported_and_nothing_is_written(tmp_path):
    model = make_model(reset="subtract")
    model[0].delay[2] = 80
    with pytest.raises(RuleBroken) as broken:
        export_netx(model, tmp_path / "net.h5")
    assert [f.rule for f in broken.value.findings] == ["delay-range", "reset-kind"]
    assert list(tmp_path.iterdir()) == []


def test_thresholds_and_decays_that_training_moved_are_exported():
    model = make_model()
    model[0].neuron.vth.data.fill_(2.99)
    model[0].neuron.voltage_decay.data.fill_(321.6)
    neuron = extract(describe(model)).layers[0].neuron
    assert (neuron.vth, neuron.du, neuron.dv) == (int(2.99 * 64), round(0.7 * 4096), 322)


def test_every_value_of_every_profile_names_its_source():
    for name in profile_names():
        profile = load_profile(name)
        assert profile.name == name
        assert all(one.source and one.unit for one in profile.limits.values())


def test_a_profile_of_ones_own_is_read_and_all_its_mistakes_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\ntitle = "t"\n[limits.delay_max]\n'
        'value = 5\nunit = "step"\nsource = "me"\nstatus = "measured"\n'
    )
    assert load_profile(path).get("delay_max") == 5
    assert load_profile(path).get("threshold_max") is None
    assert [f.rule for f in check(limit(), load_profile(path))] == ["delay-range"]
    path.write_text(
        "title = 3\nextra = 1\n[limits.a]\nvalue = 5\n"
        '[limits.b]\nvalue = nan\nunit = ""\nsource = ""\nstatus = "sure"\n'
    )
    with pytest.raises(InputError) as error:
        load_profile(path)
    for part in (
        "'name' is missing",
        "'title' is missing",
        "limits.a needs",
        "is nan",
        "'sure'",
        "['extra']",
    ):
        assert part in str(error.value)
    path.write_text("name = ")
    with pytest.raises(InputError, match="not valid TOML"):
        load_profile(path)
