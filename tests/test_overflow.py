"""Static bounds of current and membrane: no input exceeds them, some input reaches them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

from delaynet_lava import fixedpoint as fx
from delaynet_lava.analysis.overflow import UNBOUNDED, bounds, report, worst_found
from delaynet_lava.emulator import Extremes, emulate, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse


def exceeded(network: Network, inputs: np.ndarray, less: int = 0) -> list[str]:
    """Where a run leaves its bounds, made tighter by so much."""
    wrong = []
    for k, (bound, seen) in enumerate(zip(bounds(network), extremes(network, inputs), strict=True)):
        for name in Extremes._fields:
            limit, value = getattr(bound, name), getattr(seen, name)
            beyond = value < limit + less if name.endswith("low") else value > limit - less
            if name.startswith("u"):
                # A current that has wrapped is anywhere.
                beyond = beyond & ~bound.wraps
            wrong += [f"layer {k} {name}"] * bool(beyond.any())
    trace = emulate(network, inputs)
    for k, bound in enumerate(bounds(network)):
        wrong += [f"layer {k} wraps"] * bool(trace.u_wraps[k] and not bound.wraps.any())
        clips = trace.v_saturations[k] and not bound.saturates.any()
        wrong += [f"layer {k} saturates"] * bool(clips)
        wrong += [f"layer {k} fires"] * bool(trace.spikes[k][..., ~bound.fires].any())
    return wrong


@settings(max_examples=40)
@given(
    networks(max_neurons=8, max_layers=3),
    st.sampled_from(Extremes._fields),
    st.sampled_from([24, 24, 10, 6]),
    st.integers(0, 2**16),
)
def test_no_input_that_a_search_finds_exceeds_the_bound(network, state, bits, seed):
    if bits < 24:
        narrow = {"membrane_bits": bits, "full_scale_exp": 15}
        layers = [replace(layer, neuron=replace(layer.neuron, **narrow)) for layer in network.layers]
        network = network.with_(layers=tuple(layers))
    last = len(network.layers) - 1
    found = worst_found(network, last, state, steps=80, rounds=12, population=16, seed=seed)
    assert exceeded(network, found) == []
    assert exceeded(network, np.full((1, 300, network.channels), found.max(), np.uint8)) == []


@settings(max_examples=25)
@given(networks(max_neurons=12, max_layers=2, overflow=True), st.integers(0, 2**16))
def test_what_overflows_was_not_cleared(network, seed):
    assert exceeded(network, inputs_for(network, 200, 4, rate=0.5, seed=seed)) == []


def one_layer(du: int, dv: int, reset: str = "zero", vth: int = fx.VTH_MAX, **more: int) -> Network:
    weight = 2 * np.random.default_rng(du + dv).integers(-10, 11, (6, 20))
    return Network((Dense(Synapse(weight), Neuron(vth, du, dv, [5, -5, 0, 3, -9, 1], reset=reset, **more)),))


@pytest.mark.parametrize(("du", "dv"), [(4096, 100), (4096, 4096), (300, 90), (77, 4095)])
@pytest.mark.parametrize("narrow", [{}, {"membrane_bits": 12, "full_scale_exp": 23}])
def test_an_input_reaches_the_bound_of_a_neuron_that_never_fires(du, dv, narrow):
    network = one_layer(du, dv, **narrow)
    (bound,) = bounds(network)
    assert not bound.fires.any() and not bound.saturates.any()
    weight = network.layers[0].synapse.weight
    for sign, fields in ((1, ("u_high", "v_high")), (-1, ("u_low", "v_low"))):
        # Sample i drives neuron i with all weights of one sign, long enough to settle.
        inputs = np.broadcast_to((sign * weight > 0)[:, None], (6, 1500, 20)).astype(np.uint8)
        (seen,) = extremes(network, inputs)
        for field in fields:
            reached = np.diagonal(getattr(seen, field))
            np.testing.assert_array_equal(reached, getattr(bound, field))
            assert f"layer 0 {field}" in exceeded(network, inputs, less=1)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_neuron_that_fires_is_reset_before_it_gets_further(reset):
    network = Network((Dense(Synapse([[2, 90]]), Neuron(100, 4096, 0, reset=reset)),))
    (bound,) = bounds(network)
    assert bound.fires.all()
    assert (bound.v_low.tolist(), bound.v_high.tolist()) == ([0], [(100 + 92) << 6])
    # The small weight takes the membrane to the threshold, which is not above it; then both come.
    inputs = np.zeros((1, 60, 2), np.uint8)
    inputs[0, :51, 0] = inputs[0, 50, 1] = 1
    assert extremes(network, inputs)[0].v_high.tolist() == [[192 << 6]]
    assert exceeded(network, inputs) == []
    assert "layer 0 v_high" in exceeded(network, inputs, less=1)


def test_a_soft_reset_that_takes_less_than_comes_in_lets_the_membrane_grow():
    def bound(dv: int) -> int:
        layer = Dense(Synapse([[2, 250]]), Neuron(100, 4096, dv, reset="subtract"))
        inputs = np.ones((1, 3000, 2), np.uint8)
        reached = int(extremes(Network((layer,)), inputs)[0].v_high.max())
        (found,) = bounds(Network((layer,)))
        assert reached == found.v_high[0] or dv == 0
        return int(found.v_high[0])

    assert bound(0) == UNBOUNDED
    # Left behind it settles where its decay takes what comes in less the threshold.
    settled = ((250 + 2 - 100 << 6) - 1) * 4096 // 50 + 1
    assert bound(50) == settled + (100 << 6)


def test_a_neuron_that_cannot_fire_sends_nothing():
    """Neuron 0 gets too little to fire, so neuron 1, which it alone excites, never fires either."""
    neuron = Neuron(vth=100, du=4096, dv=4096)
    chain = Network((Dense(Synapse([[50], [0]]), neuron, Synapse([[0, 0], [200, 0]])),))
    (bound,) = bounds(chain)
    assert not bound.fires.any()
    assert bound.v_high.tolist() == [50 << 6, 0]
    (open_,) = bounds(Network((replace(chain.layers[0], synapse=Synapse([[102], [0]])),)))
    assert open_.fires.all()


def test_report_says_which_neurons_are_not_cleared_and_by_how_much():
    forgetful, endless = Neuron(fx.VTH_MAX, 4096, 4096), Neuron(fx.VTH_MAX, 0, 4096)
    weight = np.zeros((3, 4), int)
    weight[1] = 254
    weight[2, 0] = -254
    rows = report(Network((Dense(Synapse(weight, 0, 7), forgetful),)))
    largest = 4 * 254 << 13
    assert [row["state"] for row in rows] == ["u", "v"]
    assert (rows[0]["bound_low"], rows[0]["bound_high"], rows[0]["limit"]) == (-254 << 13, largest, 2**23)
    assert rows[0]["headroom_bits"] == pytest.approx(np.log2(2**23 / largest)) and largest < 2**23
    assert (rows[0]["cleared"], rows[0]["uncleared"]) == (3, [])
    # The membrane stays in its range, but not below the threshold of a readout.
    assert [entry["neuron"] for entry in rows[1]["uncleared"]] == []
    more = report(Network((Dense(Synapse(np.tile(weight, 2), 0, 7), forgetful),)))
    assert [entry["neuron"] for entry in more[0]["uncleared"]] == [1]
    assert more[0]["uncleared"][0]["bits"] == pytest.approx(np.log2(2 * largest / 2**23))
    grows = report(Network((Dense(Synapse(weight), endless),)))[0]
    assert (grows["bound_low"], grows["bound_high"], grows["headroom_bits"]) == (None, None, None)
    assert grows["uncleared"] == [{"neuron": 1, "bits": None}, {"neuron": 2, "bits": None}]
    assert bounds(Network((Dense(Synapse(weight), endless),)))[0].u_high[1] == UNBOUNDED


def test_an_encoder_is_bounded_by_its_values():
    network = Network((Encoder(Neuron(300, 0, 200), 2, -100, 7),))
    (bound,) = bounds(network)
    assert bound.u_low.tolist() == [(7 - 255 * 100) << 6] * 2
    assert bound.u_high.tolist() == [7 << 6] * 2
    assert exceeded(network, inputs_for(network, 200)) == []


def test_extremes_are_those_of_the_recorded_membranes():
    network = one_layer(300, 100)
    inputs = inputs_for(network, 400, 3)
    (whole,) = extremes(network, inputs)
    voltage = emulate(network, inputs, ("voltage",)).voltage[0]
    np.testing.assert_array_equal(whole.v_low, np.minimum(voltage.min(axis=1), 0))
    np.testing.assert_array_equal(whole.v_high, np.maximum(voltage.max(axis=1), 0))
    (parts,) = extremes(network, (inputs[:, k : k + 90] for k in range(0, 400, 90)))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="empty"):
        extremes(network, iter(()))


def test_a_trained_network_is_cleared_and_its_bound_is_within_1_bit(repository: Path):
    from delaynet_lava.export.extract import extract

    network = extract(load_model(repository / "delaynet_lava" / "models" / "cue_dense.pt"))
    for row in report(network):
        assert row["headroom_bits"] > 0 and row["uncleared"] == [], row
    for state in ("v_low", "v_high"):
        found = worst_found(network, 0, state, steps=200, rounds=120, population=24)
        assert exceeded(network, found) == []
        reached = np.abs(getattr(extremes(network, found)[0], state).astype(np.int64)).max()
        assert np.log2(np.abs(getattr(bounds(network)[0], state)).max() / reached) < 1
