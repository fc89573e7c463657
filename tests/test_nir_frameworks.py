"""Graphs in other frameworks: ours in snnTorch, and the Braille networks of the NIR paper in ours."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delaynet_lava.emulator import emulate
from delaynet_lava.export import float_layers
from delaynet_lava.export.nir_check import run_late
from delaynet_lava.export.nir_import import Readings, import_nir

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "nir"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recurrent", [False, True])
def test_snntorch_spikes_as_our_graph_does(recurrent, monkeypatch):
    pytest.importorskip("snntorch")
    pytest.importorskip("nirtorch")
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    from nir_frameworks import compare, loop_is_lost, random_network

    for seed in range(2):
        found = compare(seed, recurrent, steps=150)
        assert found["spikes"] > 50 and found["float64 differs in"] < 0.5 * found["spikes"]
        if recurrent:
            # Its reset comes a step late: known, and nothing else differs.
            assert found["snnTorch differs from float64 in"] > 20
            assert found["and from a late reset in"] == 0
        else:
            assert found["snnTorch differs from float64 in"] == 0
    if recurrent:
        assert loop_is_lost(random_network(0, True))


def braille(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"no published graph at ../shared/data/nir/{name}")
    return DATA / name


def agrees_until(spikes: np.ndarray, published: np.ndarray) -> int:
    """The first step that differs."""
    return int(np.argmax((spikes != published).any(axis=1)))


def test_the_silent_start_of_the_published_sample_tells_the_readings_apart():
    """Its input is not published. Until it begins the bias alone makes spikes: snnTorch's first 7 steps are
    those of our default readings, and of none that differs in one."""
    path = braille("braille_noDelay_bias_zero.nir")
    published = np.load(braille("snntorch_activity_noDelay_bias_zero.npy"))
    silence = np.zeros((1, 20, 12), np.uint8)
    usual = Readings()
    seen = {}
    for change in ({}, {"order": "old"}, {"decay": "exponential"}, {"reset": "subtract"}):
        found = import_nir(path, replace(usual, **change))
        assert found.readings.dt_ms == pytest.approx(0.1) and found.sources["dt_ms"] == "file"
        spikes = float_layers.run(found.layers, silence)[0][0][0]
        seen[str(change)] = agrees_until(spikes, published[:20])
    assert seen == {"{}": 7, "{'order': 'old'}": 2, "{'decay': 'exponential'}": 3, "{'reset': 'subtract'}": 4}


@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_the_quantised_braille_networks_are_within_the_stated_error(name):
    found = import_nir(braille(f"{name}.nir"))
    for made, layer, rounding in zip(found.network.layers, found.layers, found.roundings, strict=True):
        pairs = [(made.synapse, layer.weight)]
        if made.recurrent is not None:
            pairs.append((made.recurrent, layer.weight_rec))
        for synapse, weight in pairs:
            off = np.abs(synapse.units / rounding.unit - weight / layer.threshold[:, None])
            # Half a step of the words; a whole one where -256 to 254 is not even-handed.
            assert off.max() <= rounding.weight_error * 1.001
            assert off.max() <= 1.01 * (2 << synapse.weight_exp) / rounding.unit
        for decay, keep in ((made.neuron.du, layer.keep_u), (made.neuron.dv, layer.keep_v)):
            assert np.abs(1 - decay / 4096 - keep).max() <= rounding.decay_error <= 0.5 / 4096
        assert abs(made.neuron.vth / rounding.unit - 1) <= rounding.threshold_error * 1.001 <= 1e-3


def test_norses_neuron_spikes_as_published():
    """One LIF neuron over 1000 steps: the default step of 0.1 ms is Norse's here, a step of 1 ms is not."""
    recorded = np.loadtxt(braille("lif_norse.csv"), delimiter=",")
    inputs, published = (recorded[None, :, :1] != 0).astype(np.uint8), recorded[:, 2]
    assert published.sum() == 4
    found = import_nir(braille("lif_norse.nir"))
    assert found.sources["dt_ms"] == "default" and found.readings.dt_ms == 0.1
    assert np.array_equal(float_layers.run(found.layers, inputs)[0][0][0, :, 0], published)
    assert np.array_equal(run_late(found.network, inputs)[0][0][0, :, 0], published)
    wrong = import_nir(braille("lif_norse.nir"), Readings(dt_ms=1.0), frozenset({"dt_ms"}))
    assert float_layers.run(wrong.layers, inputs)[0][0].sum() > 20


def test_an_imported_network_on_lava():
    lava = pytest.importorskip("delaynet_lava.lava")
    network = import_nir(braille("braille_noDelay_bias_zero.nir")).network
    inputs = (np.random.default_rng(0).random((1, 60, 12)) < 0.1).astype(np.uint8)
    trace = emulate(network, inputs, ("spikes", "voltage"))
    assert trace.spikes[1].sum() > 50
    assert lava.run(network, inputs, record=("spikes", "voltage")).compare(trace)
