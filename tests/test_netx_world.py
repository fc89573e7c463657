"""NetX files of other exporters: ml_genn_netx, SpyTorch, and files that are none."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netx_tools import NEURON, put_keys

import delaynet_lava
from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "netx"


def given_file(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"no foreign NetX file at ../shared/data/netx/{name}")
    return DATA / name


def run(network: Network, steps: int, at: dict[int, list[int]]) -> tuple[list[list[int]], list[int]]:
    """Spike steps of every neuron, and final membranes; Lava's too, where it is installed."""
    x = np.zeros((1, steps, network.channels), np.uint8)
    for channel, times in at.items():
        x[0, times, channel] = 1
    trace = delaynet_lava.emulate(network, x, ("spikes", "voltage"))
    try:
        from delaynet_lava import lava

        assert lava.run(network, x, record=("spikes", "voltage")).compare(trace)
    except delaynet_lava.errors.BackendMissing:
        pass
    spikes = trace.spikes[0][0]
    return [np.flatnonzero(column).tolist() for column in spikes.T], trace.final_voltage[0][0].tolist()


def test_keys_without_a_value():
    with pytest.warns(netx.NetxWarning, match="refDelay is not 1"):
        network = netx.read(given_file("w01_empty_keys.h5"))
    spikes, final = run(network, 12, {0: [0, 4], 1: [0, 5]})
    assert spikes == [[5], [1, 2, 4, 5, 6, 7, 8, 9, 10]]
    assert final == [-12354, 5541]


def test_odd_weights_are_read_exactly_and_written_as_they_were(tmp_path):
    network = netx.read(given_file("w02_odd_weights.h5"))
    assert network.layers[0].synapse.units.tolist() == [[127, -128, 3], [-1, 5, -77]]
    spikes, final = run(network, 6, {0: [0, 2], 1: [2], 2: [1, 2]})
    # Lava's own models say so too; the 0 that the files' notes give is the membrane a step earlier.
    assert spikes[0] == [1, 2, 4] and final == [3844, -24931]
    netx.write(network, tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5") as file:
        layer = file["layer/1"]
        assert layer["weight"][()].tolist() == [[127, -128, 3], [-1, 5, -77]] and "weight_exp" not in layer
    assert netx.read(tmp_path / "net.h5").layers[0].synapse.weight_exp == -1


def test_odd_weights_of_nine_bits_are_refused():
    with pytest.raises(InputError, match=r"weight: has odd values, 201 is one, .* takes 9 bits"):
        netx.read(given_file("w02b_odd_beyond_7_bits.h5"))


def test_misspelt_delays_are_named():
    with pytest.warns(netx.NetxWarning, match="delays and delays_rec are ignored") as found:
        network = netx.read(given_file("w03_delays_misspelt.h5"))
    assert len(found) == 1
    assert run(network, 6, {0: [0], 1: [1]})[0] == [[1, 2]]


def test_old_words_are_the_same_network():
    old, new = (
        netx.read(given_file(f"w09_{name}.h5")) for name in ("recurrent_old_words", "same_in_netx_words")
    )
    for a, b in zip(old.layers, new.layers, strict=True):
        assert np.array_equal(a.synapse.weight, b.synapse.weight)
        assert np.array_equal(a.recurrent.weight, b.recurrent.weight)
        assert (a.neuron.vth, a.neuron.du, a.neuron.dv) == (b.neuron.vth, b.neuron.du, b.neuron.dv)
    assert run(old, 20, {0: [0, 3, 4], 1: [1, 6]}) == run(new, 20, {0: [0, 3, 4], 1: [1, 6]})


def test_files_of_other_kinds_are_called_by_their_name(tmp_path):
    with pytest.raises(InputError, match=r"is a Git LFS pointer, .* git lfs pull"):
        netx.read(given_file("w13_lfs_pointer.net"))
    path = tmp_path / "net.h5"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(InputError, match=r"is a zip archive .* not HDF5"):
        netx.read(path)
    for keys, message in (
        (("node", "version"), "is a NIR graph, not NetX; read it with delaynet import"),
        (("model_weights",), "is a Keras file, not NetX"),
        (("layers", "vars"), "is a Keras file, not NetX"),
    ):
        with h5py.File(path, "w") as file:
            for key in keys:
                file.create_group(key)
        with pytest.raises(InputError, match=message):
            netx.read(path)


def written(path: Path, **keys) -> Path:
    """A recurrent layer of two neurons."""
    weight = np.array([[60, 40], [0, 80]])
    layer = {
        "type": "dense_rec",
        "shape": np.array([2]),
        "weight": weight,
        "weight_rec": weight,
        "neuron": NEURON,
    }
    with h5py.File(path, "w") as file:
        put_keys(file.create_group("layer"), {"0": layer | keys})
    return path


def test_odd_and_even_matrices_side_by_side(tmp_path):
    path = written(tmp_path / "net.h5", weight_rec=np.array([[1, -3], [127, 0]]), weight_rec_exp=3)
    layer = netx.read(path).layers[0]
    assert (layer.synapse.weight_exp, layer.recurrent.weight_exp) == (0, 2)
    assert layer.recurrent.units.tolist() == [[8, -24], [1016, 0]]
    for bad, reach in (([[1, 128], [0, 0]], "0 to 128"), ([[-130, 1], [0, 0]], "-130 to 1")):
        with pytest.raises(
            InputError, match=f"weight_rec: has odd values, 1 is one, and reaches from {reach}"
        ):
            netx.read(written(path, weight_rec=np.array(bad)))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 16), delayed=st.booleans())
def test_halves_on_lava_and_emulator(tmp_path_factory, seed, delayed):
    lava = pytest.importorskip("delaynet_lava.lava")
    rng = np.random.default_rng(seed)
    matrices = [2 * rng.integers(-128, 128, shape) for shape in ((5, 3), (5, 5))]
    delay = rng.integers(0, 20, (5, 5)) if delayed else np.array(0)
    layer = Dense(Synapse(matrices[0], weight_exp=-1), Neuron(60, 1000, 300), Synapse(matrices[1], delay, -1))
    network = Network((layer,))
    x = (rng.random((1, 80, 3)) < 0.2).astype(np.uint8)
    trace = delaynet_lava.emulate(network, x, ("spikes", "voltage"))
    assert trace.spikes[0].sum() > 5
    assert lava.run(network, x, record=("spikes", "voltage")).compare(trace)
    path = tmp_path_factory.mktemp("odd") / "net.h5"
    netx.write(network, path)
    assert delaynet_lava.emulate(netx.read(path), x, ("spikes", "voltage")).compare(trace)
    twice = Network((Dense(Synapse(matrices[0]), layer.neuron, Synapse(matrices[1], delay)),))
    assert not delaynet_lava.emulate(twice, x, ("spikes", "voltage")).compare(trace)


def test_lower_exponents_are_refused():
    assert Synapse([[6]], weight_exp=-1).units.tolist() == [[3]]
    with pytest.raises(InputError, match="weight_exp: value at \\(\\) is -2, outside -1 to 7"):
        Synapse([[6]], weight_exp=-2)
    assert fx.WEIGHT_EXP_MAX == 7


def test_a_new_warning_is_the_only_one(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        netx.read(written(tmp_path / "net.h5"))
