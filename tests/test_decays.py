"""Neurons of one layer with decays of their own: every execution and every file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import plain
from strategies import inputs_for, networks

from delaynet_lava import fixedpoint as fx
from delaynet_lava.analysis.bitdepth import layer_memory
from delaynet_lava.analysis.overflow import bounds
from delaynet_lava.emulator import emulate, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.export.nir_export import left_out, to_nir
from delaynet_lava.export.nir_import import from_nir
from delaynet_lava.export.relay import relay
from delaynet_lava.export.retime import retime
from delaynet_lava.export.trainable import model_of
from delaynet_lava.formats import netx
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse

EVERYTHING = ("spikes", "voltage")
few = settings(max_examples=15, suppress_health_check=list(HealthCheck))
small = {"max_neurons": 9, "max_layers": 3, "encoder": False, "varied": True}


def three(**decays) -> Network:
    """One input, three neurons, delays 0, 3 and 7."""
    neuron = Neuron(vth=20, **{"du": [4096, 500, 3000], "dv": [50, 900, 128], **decays})
    loop = Synapse(np.array([[0, 8, 0], [-6, 0, 4], [2, 0, 0]]), np.array([7, 3, 0]) * np.ones((3, 1), int))
    return Network((Dense(Synapse(np.array([[12], [16], [10]])), neuron, loop),))


def with_readout(network: Network) -> Network:
    """Another layer behind it: relays would count as outputs of the last."""
    readout = Dense(Synapse(np.full((2, 3), 8)), Neuron(vth=fx.VTH_MAX, du=4096, dv=50))
    return network.with_(layers=(*network.layers, readout))


def swapped(network: Network) -> Network:
    """The negative control: the first layer's decays belong to other neurons."""
    neuron = network.layers[0].neuron
    other = replace(neuron, du=np.roll(neuron.du, 1), dv=np.roll(neuron.dv, 1))
    return network.with_(layers=(replace(network.layers[0], neuron=other), *network.layers[1:]))


@few
@given(networks(**small), st.integers(0, 99))
def test_the_emulator_computes_what_the_plain_contract_says(network: Network, seed: int) -> None:
    inputs = inputs_for(network, 40, seed=seed)
    assert emulate(network, inputs, EVERYTHING).compare(plain(network, inputs)[0]).mismatches == 0


@few
@given(networks(**{**small, "overflow": True}), st.integers(0, 99))
def test_wraps_and_clips_are_those_of_the_plain_contract(network: Network, seed: int) -> None:
    inputs = inputs_for(network, 40, seed=seed)
    assert emulate(network, inputs, EVERYTHING).compare(plain(network, inputs)[0]).mismatches == 0


def test_decays_of_other_neurons_are_another_network() -> None:
    network = three()
    inputs = inputs_for(network, 100, rate=0.5)
    assert (
        emulate(network, inputs, EVERYTHING).compare(emulate(swapped(network), inputs, EVERYTHING)).mismatches
    )


def test_a_decay_for_each_that_is_the_same_for_all_is_one() -> None:
    neuron = three(du=[7, 7, 7], dv=np.array([4096.0])).layers[0].neuron
    assert (neuron.du, neuron.dv) == (7, 4096)


def test_encoders_have_them_too() -> None:
    network = Network((Encoder(Neuron(vth=200, du=4096, dv=[5, 900, 4096]), 3),))
    inputs = inputs_for(network, 60, rate=0.7)
    trace = emulate(network, inputs, EVERYTHING)
    assert trace.compare(plain(network, inputs)[0]).mismatches == 0
    assert len(set(trace.spikes[0].sum(axis=(0, 1)).tolist())) == 3


@pytest.mark.filterwarnings("ignore::delaynet_lava.export.nir_import.NirWarning")
def test_initial_states_go_out_to_nir_and_in_again() -> None:
    pytest.importorskip("nir", reason="nir is not installed")
    begun = three(v_init=[100, -70, 0], u_init=[0, 900, -30])
    assert [
        text for text in left_out(begun) if "no initial states; with others neurons begin at rest" in text
    ]
    again = from_nir(to_nir(begun))
    inputs = inputs_for(begun, 40)
    assert emulate(begun, inputs, EVERYTHING).compare(emulate(again, inputs, EVERYTHING)).mismatches == 0
    assert emulate(begun, inputs, EVERYTHING).compare(emulate(three(), inputs, EVERYTHING)).mismatches


@settings(few, max_examples=4)
@given(network=networks(**small), models=st.sampled_from(["fast", "stock"]))
def test_lava_computes_what_the_emulator_computes(network: Network, models: str) -> None:
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    from delaynet_lava import lava

    inputs = inputs_for(network, 60)
    trace = lava.run(network, inputs, EVERYTHING, models=models)
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0


@few
@given(network=networks(**small))
def test_files_hold_them(network: Network, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("decays") / "net.h5"
    netx.write(network, path)
    for ours, theirs in zip(network.layers, netx.read(path).layers, strict=True):
        assert np.array_equal(ours.neuron.decays(ours.size), theirs.neuron.decays(ours.size))
        assert type(ours.neuron.du) is type(theirs.neuron.du)


@pytest.mark.filterwarnings("ignore::delaynet_lava.export.nir_import.NirWarning")
@few
@given(network=networks(**{**small, "resets": ("zero",)}))
def test_nir_holds_them(network: Network) -> None:
    pytest.importorskip("nir", reason="nir is not installed")
    again = from_nir(to_nir(network))
    inputs = inputs_for(network, 40)
    assert emulate(network, inputs, EVERYTHING).compare(emulate(again, inputs, EVERYTHING)).mismatches == 0


@few
@given(networks(**{**small, "overflow": True}), st.integers(0, 99))
def test_no_state_leaves_its_bound(network: Network, seed: int) -> None:
    for bound, seen in zip(
        bounds(network), extremes(network, inputs_for(network, 60, seed=seed)), strict=True
    ):
        wraps = fx.u_overflows(bound.u_low) | fx.u_overflows(bound.u_high)
        assert ((seen.u_high <= bound.u_high) | wraps).all() and ((seen.u_low >= bound.u_low) | wraps).all()
        assert (seen.v_high <= np.maximum(bound.v_high, 0)).all()


def test_the_slowest_neuron_remembers_for_its_layer() -> None:
    (memory,) = layer_memory(three())
    (slowest,) = layer_memory(three(dv=50))
    assert memory == slowest


def test_a_population_of_the_chip_has_one_decay() -> None:
    profile = load_profile("loihi2")
    found = [f for f in check(three(), profile) if "different decays" in f.problem]
    assert [f.severity for f in found] == ["error"]
    assert not [f for f in check(three(du=9, dv=9), profile) if "decays" in f.problem]


@pytest.mark.parametrize(
    ("convert", "problem"),
    [
        (lambda n: relay(n, 3), "du is 500 to 4096, so a relay's current would outlast its spike"),
        (lambda n: retime(n, 3), "differ between its neurons, which a coarser step would scale apart"),
        (model_of, "differ between its neurons, a block's neurons share theirs"),
    ],
)
def test_what_needs_one_decay_a_layer_says_so(convert, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        convert(with_readout(three()))


@pytest.mark.parametrize(
    ("decays", "problem"),
    [
        ({"du": [1, 2]}, r"du: has shape \(2,\), expected \(3,\)"),
        ({"dv": [1, 4097, 3]}, r"dv: value at \(1,\) is 4097, outside 0 to 4096"),
        ({"dv": [[1, 2, 3]]}, r"dv: has shape \(1, 3\), expected \(neurons,\)"),
        ({"du": []}, r"du: has shape \(0,\), expected \(neurons,\)"),
    ],
)
def test_decays_that_do_not_fit(decays: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        three(**decays)


WORLD = Path(__file__).parents[2] / "shared/data/netx/w22_per_neuron_decay.h5"


@pytest.mark.skipif(not WORLD.is_file(), reason=f"{WORLD} is not there")
def test_a_file_of_lava_dl_with_parameters_that_are_not_shared() -> None:
    (layer,) = netx.read(WORLD).layers
    assert layer.neuron.du.tolist() == [1024, 2048] and layer.neuron.dv == 128
