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


@pytest.mark.parametrize(
    "reading", [{}, {"order": "old"}, {"decay": "exponential"}, {"reset": "subtract"}, {"dt_ms": 0.05}]
)
@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_the_quantised_braille_networks_are_within_the_stated_error(name, reading):
    found = import_nir(braille(f"{name}.nir"), Readings(**reading), frozenset(reading))
    assert all(found.sources[key] == "option" for key in reading)
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


def one_neuron(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (1, steps, 1), membrane and spikes of a run of Norse's neuron."""
    recorded = np.loadtxt(braille(name), delimiter=",")
    return (recorded[None, :, :1] != 0).astype(np.uint8), recorded[:, 1], recorded[:, 2]


def floats_of(inputs: np.ndarray, **readings: str) -> tuple[np.ndarray, np.ndarray]:
    """Membrane and spikes in float64; the spikes of the integers are the same."""
    found = import_nir(braille("lif_norse.nir"), Readings(**readings), frozenset(readings))
    spikes, membrane = (one[0, :, 0] for one in float_layers.run(found.layers, inputs)[0])
    assert np.array_equal(run_late(found.network, inputs)[0][0][0, :, 0], spikes)
    return membrane, spikes


@pytest.mark.parametrize(("name", "unit"), [("lif_norse.csv", 1.0), ("lif_snntorch.csv", 25.0)])
def test_the_same_neuron_in_norse_and_in_snntorch(name, unit):
    """snnTorch's membrane counts in tau / dt = 25 of Norse's."""
    inputs, published, spikes = one_neuron(name)
    membrane, fired = floats_of(inputs)
    assert fired.sum() == 4 and np.array_equal(fired, spikes)
    assert np.abs(membrane * unit - published).max() < 2e-6 * unit
    other, _ = floats_of(inputs, decay="exponential")
    assert np.abs(other * unit - published).max() > 1e-3 * unit


def test_the_exact_solution_resets_within_a_step():
    """The equation solved without steps: ours of exponential decay until the first spike, and at every spike
    ahead by what the rest of the step still adds after the reset."""
    inputs, published, spikes = one_neuron("lif_exact.csv")
    membrane, fired = floats_of(inputs, decay="exponential")
    assert fired.sum() == 4 and np.array_equal(fired, spikes)
    first = int(np.argmax(spikes))
    assert np.abs(membrane[:first] - published[:first]).max() < 1e-7
    off, keep = published - membrane, np.exp(-0.1 / 2.5)
    assert 5e-3 < off[first] < 7e-3
    expected, rest = np.zeros(len(off)), 0.0
    for t in range(first, len(off)):
        rest *= keep
        if spikes[t]:
            # From v the threshold 0.1 is reached once 1 - v has fallen to 0.9; the input is on all the step.
            rest = 1 - keep * (1 - published[t - 1]) / 0.9
        expected[t] = rest
    assert np.abs(off - expected).max() < 1e-6
    euler, _ = floats_of(inputs)
    assert np.abs(euler[:first] - published[:first]).max() > 1e-4


@pytest.mark.parametrize(("decay", "period"), [("euler", 179), ("exponential", 180)])
def test_two_neurons_in_a_row(decay, period):
    """The first rises to 1.2 and spikes at 1; the second, at 20, takes no more than 0.01 of a spike."""
    found = import_nir(braille("two_lif_neurons.nir"), Readings(decay=decay), frozenset({"decay"}))
    assert found.readings.dt_ms == 0.1 and found.sources["dt_ms"] == "default"
    silence = np.zeros((1, 1000, 1), np.uint8)
    (first, _), (second, membrane) = float_layers.run(found.layers, silence)
    at = np.flatnonzero(first)
    assert at.tolist() == list(range(period - 1, 1000, period))
    assert not second.any() and membrane.max() == pytest.approx(0.01, rel=0.3)
    (integers, quiet), _, _ = run_late(found.network, silence)
    assert not quiet.any()
    # A decay of 40.76 of 4096 is rounded to 41: the membrane rises a little less.
    assert np.abs(np.diff(np.flatnonzero(integers)) - period).max() <= 2


def test_an_imported_network_on_lava():
    lava = pytest.importorskip("delaynet_lava.lava")
    network = import_nir(braille("braille_noDelay_bias_zero.nir")).network
    inputs = (np.random.default_rng(0).random((1, 60, 12)) < 0.1).astype(np.uint8)
    trace = emulate(network, inputs, ("spikes", "voltage"))
    assert trace.spikes[1].sum() > 50
    assert lava.run(network, inputs, record=("spikes", "voltage")).compare(trace)
