"""Export from live models: what is written, and what keeps it from being written."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from strategies import inputs_for

import delaynet_lava
from delaynet_lava.export import RuleBroken, export_netx, extract
from delaynet_lava.network import Network
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
