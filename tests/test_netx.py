"""net.h5: what we write we read back, and what others write means what stock NetX makes of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netx_tools import NEURON, arrays, put_keys, read_quietly, reseal, stock_file
from strategies import inputs_for, networks

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.formats.netx import NetxWarning
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse

JSON = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def even(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-100, 100, shape) * 2


@pytest.fixture
def recurrent() -> Network:
    rng = np.random.default_rng(5)
    layers = (
        Dense(
            Synapse(even(rng, 6, 4), rng.integers(0, 63, (6, 4)), 1),
            Neuron(200, 4096, 100, bias=np.arange(6), bias_exp=3, reset="subtract"),
            Synapse(even(rng, 6, 6), rng.integers(0, 63, (6, 6)), 2),
        ),
        Dense(Synapse(even(rng, 4, 6)), Neuron((1 << 18) - 1, 4096, 50)),
    )
    task = "cue:cues=7"
    return Network(layers, (2, 2, 1), 2, 0.5, task, "loihi2", {"command": "träin 訓練", "accuracy": 0.98})


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    networks(),
    st.text(max_size=30).filter(str.isprintable),
    JSON,
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, network: Network, task: str, provenance: dict, profile: str
) -> None:
    folder = tmp_path_factory.mktemp("round")
    size = network.layers[-1].size
    network = network.with_(task=task, provenance=provenance, profile=profile, average=size, dt_ms=1.25)
    netx.write(network, folder / "a.h5")
    again = read_quietly(folder / "a.h5")
    assert arrays(again) == arrays(network)
    netx.write(again, folder / "b.h5")
    assert (folder / "a.h5").read_bytes() == (folder / "b.h5").read_bytes()
    inputs = inputs_for(network, steps=60)
    record = ("spikes", "voltage")
    assert emulate(again, inputs, record).compare(emulate(network, inputs, record)).mismatches == 0


def test_the_comparison_of_round_trips_sees_a_single_integer(recurrent: Network) -> None:
    before = arrays(recurrent)
    first = recurrent.layers[0]
    delay = first.recurrent.delay.copy()
    delay[3, 2] ^= 1
    changed = replace(first, recurrent=replace(first.recurrent, delay=delay))
    after = arrays(recurrent.with_(layers=(changed, recurrent.layers[1])))
    assert [key for key in before if before[key] != after[key]] == ["0 recurrent delay"]


@pytest.mark.parametrize("shape", [(4,), (2, 2), (4, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("encoder", [False, True])
def test_input_shapes_survive(tmp_path: Path, shape: tuple[int, ...], encoder: bool) -> None:
    first = [Encoder(Neuron(64, 4096, 10), 4, 3, -2)] if encoder else []
    network = Network((*first, Dense(Synapse(np.full((2, 4), 8)), Neuron(20, 4096, 0))), shape)
    netx.write(network, tmp_path / "net.h5")
    assert arrays(read_quietly(tmp_path / "net.h5")) == arrays(network)


def test_only_what_stock_netx_cannot_say_needs_keys_of_ours(tmp_path: Path, recurrent: Network) -> None:
    def keys(network: Network) -> set[str]:
        netx.write(network, tmp_path / "net.h5")
        found: set[str] = set()
        with h5py.File(tmp_path / "net.h5") as file:
            file["layer"].visit(lambda name: found.add(name.split("/", 1)[-1]))
        return found

    ours = {"delay_rec", "weight_exp", "weight_rec_exp", "neuron/biasExp", "neuron/reset"}
    assert ours <= keys(recurrent)
    first = recurrent.layers[0]
    plain = replace(
        first,
        synapse=Synapse(first.synapse.weight),
        recurrent=Synapse(first.recurrent.weight),
        neuron=replace(first.neuron, bias_exp=6, reset="zero"),
    )
    assert not (ours | {"delay"}) & keys(recurrent.with_(layers=(plain, recurrent.layers[1])))
    # One delayed synapse needs both matrices: without delay_rec, delay would stand for both.
    for part in ("synapse", "recurrent"):
        delayed = replace(plain, **{part: replace(getattr(plain, part), delay=1)})
        assert {"delay", "delay_rec"} <= keys(recurrent.with_(layers=(delayed, recurrent.layers[1])))


# What is written, and where.


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, recurrent: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.h5"
    netx.write(recurrent, path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"net\.h5: cannot be written \(No space left on device\)"):
        netx.write(recurrent.with_(dt_ms=2.0), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.h5"]


def test_places_that_cannot_be_written(tmp_path: Path, recurrent: Network) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    places = ("folder", "pipe", "missing/net.h5", "x" * 300, "loop")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in places:
        with pytest.raises(InputError) as caught:
            netx.write(recurrent, tmp_path / place)
        assert str(caught.value).startswith(str(tmp_path / place)[:200])
    assert sorted(os.listdir(tmp_path)) == ["folder", "loop", "pipe"]


def test_links_are_followed_and_permissions_are_usual(tmp_path: Path, recurrent: Network) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "net.h5").symlink_to(tmp_path / "data" / "real.h5")
    netx.write(recurrent, tmp_path / "net.h5")
    assert (tmp_path / "net.h5").is_symlink()
    assert arrays(read_quietly(tmp_path / "data" / "real.h5")) == arrays(recurrent)
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("data/real.h5", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"provenance": {"a": float("nan")}}, "provenance: does not fit JSON"),
        ({"provenance": {"a": object()}}, "provenance: does not fit JSON"),
        ({"profile": "a\0b"}, "profile: has 3 bytes or a zero"),
        ({"profile": "\ud800"}, "profile: is .* not Unicode"),
        ({"profile": "x" * (1 << 24) + "x"}, "profile: has 16777217 bytes"),
    ],
)
def test_metadata_that_cannot_be_written(
    tmp_path: Path, recurrent: Network, changes: dict, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        netx.write(recurrent.with_(**changes), tmp_path / "net.h5")
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_that_could_not_be_read(
    tmp_path: Path, recurrent: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in (("MAX_ELEMENTS", 35), ("MAX_LAYERS", 4), ("MAX_BYTES", 5000)):
        with monkeypatch.context() as patch:
            patch.setattr(netx, name, limit)
            with pytest.raises(InputError, match=f"more than {limit}"):
                netx.write(recurrent, tmp_path / "net.h5")
    assert os.listdir(tmp_path) == []


def test_the_same_network_gives_the_same_bytes_at_any_time(tmp_path: Path, recurrent: Network) -> None:
    netx.write(recurrent, tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 can note times, in seconds
    netx.write(recurrent, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_provenance_survives_as_json(tmp_path: Path, recurrent: Network) -> None:
    provenance = {"π": "\u2028\n\0\ud800", "deep": [[[{"a": None}]]], "": -0.0, "big": 10**40}
    netx.write(recurrent.with_(provenance=provenance), tmp_path / "net.h5")
    assert read_quietly(tmp_path / "net.h5").provenance == provenance
    with h5py.File(tmp_path / "net.h5") as file:
        assert json.loads(file["delaynet/provenance"][()]) == provenance


# What others write.


def test_stock_keys_mean_what_netx_makes_of_them(tmp_path: Path) -> None:
    neuron = {**NEURON, "refDelay": 1, "gradedSpike": False, "type": "LOIHI", "theta": 5120}
    neuron |= {"wgtExp": 0, "tauRho": 0.1, "scaleRho": 1e-3, "messageBits": 0, "weight_exp": 0}
    flat = np.arange(0, 24, 2).astype(np.float32)
    network = read_quietly(
        stock_file(
            tmp_path / "net.h5",
            {"type": "input", "shape": [1, 1, 4]},
            {"type": "flatten", "shape": [4, 1, 1]},
            {"type": "dense", "shape": [3, 1, 1], "inFeatures": 4, "outFeatures": 3, "weight": flat}
            | {"bias": np.array([1.0, 0.0, -4096.0]), "delay": np.float32([0, 62, 32767]), "neuron": neuron},
            {"type": "dense_rec", "shape": [2], "weight": np.full((2, 3), -256.0)}
            | {"weight_rec": np.arange(8, 16, 2), "neuron": NEURON},
            {"type": "dense", "shape": 4, "weight": np.full((4, 2), 254, np.uint8)},
            {"type": "average", "shape": [2, 1, 1]},
            simulation={"Ts": 1, "tSample": 3000},
        )
    )
    first, second, third = network.layers
    assert (network.input_shape, network.average, network.channels) == ((1, 1, 4), 2, 4)
    assert (network.dt_ms, network.task, network.profile, network.provenance) == (1.0, "", "", {})
    assert first.synapse.weight.tolist() == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20, 22]]
    assert first.synapse.delay.tolist() == [[0] * 4, [62] * 4, [32767] * 4]
    assert first.neuron.bias.tolist() == [1, 0, -4096]
    assert (first.neuron.vth, first.neuron.du, first.neuron.dv) == (80, 1024, 128)
    assert (first.neuron.bias_exp, first.neuron.reset, first.synapse.weight_exp) == (6, "zero", 0)
    assert second.recurrent.weight.tolist() == [[8, 10], [12, 14]]
    assert not second.recurrent.delay.any() and not second.synapse.delay.any()
    # NetX writes its default threshold 1 << 18 - 1, which is 1 << 17.
    assert (third.neuron.vth, third.neuron.du, third.neuron.dv) == (131072, 0, 4096)


@pytest.mark.parametrize(
    "shape, delay, matrix",
    [
        ((2, 3), 5.0, [[5, 5, 5], [5, 5, 5]]),
        ((2, 3), [1, 2], [[1, 1, 1], [2, 2, 2]]),
        ((2, 3), [1, 2, 3], [[1, 2, 3], [1, 2, 3]]),
        ((2, 2), [1, 2], [[1, 1], [2, 2]]),
        ((2, 2), [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ((1, 3), [7], [[7, 7, 7]]),
        ((3, 1), [7], [[7], [7], [7]]),
    ],
)
def test_delays_as_netx_reads_them(tmp_path: Path, shape: tuple[int, int], delay: Any, matrix: list) -> None:
    layer = {"type": "dense", "shape": shape[:1], "weight": np.full(shape, 2), "delay": delay}
    network = read_quietly(stock_file(tmp_path / "net.h5", layer))
    assert network.layers[0].synapse.delay.tolist() == matrix
    assert network.channels == shape[1]


def dense_rec(post: int, pre: int, **keys: Any) -> dict[str, Any]:
    weights = {"weight": np.full((post, pre), 2), "weight_rec": np.full((post, post), 4)}
    return {"type": "dense_rec", "shape": [post], **weights, "neuron": NEURON, **keys}


def test_delay_without_delay_rec_is_for_both_synapses_where_netx_can_do_it(tmp_path: Path) -> None:
    path = stock_file(tmp_path / "net.h5", dense_rec(2, 2, delay=[3, 4]))
    with pytest.warns(NetxWarning, match=r"layer 0 \(dense_rec\): delay is taken for weight_rec too"):
        layer = netx.read(path).layers[0]
    assert layer.synapse.delay.tolist() == layer.recurrent.delay.tolist() == [[3, 3], [4, 4]]
    path = stock_file(tmp_path / "net.h5", dense_rec(2, 3, delay=[3, 4]))
    with pytest.raises(InputError, match=r"layer 0 \(dense_rec\): delay_rec: is missing.*write delay_rec"):
        netx.read(path)
    # lava-dl writes zeros for delays that were not trained; they say the same for any shape.
    layer = read_quietly(stock_file(tmp_path / "net.h5", dense_rec(2, 3, delay=[0.0, 0.0]))).layers[0]
    assert not layer.synapse.delay.any() and not layer.recurrent.delay.any()


def test_delay_matrices_of_another_exporter(tmp_path: Path) -> None:
    delay, delay_rec = [[1, 2, 3], [4, 5, 6]], [[0, 7], [8, 0]]
    layer = dense_rec(2, 3, delay=delay, delay_rec=delay_rec)
    layer = read_quietly(stock_file(tmp_path / "net.h5", layer)).layers[0]
    assert layer.synapse.delay.tolist() == delay
    assert layer.recurrent.delay.tolist() == delay_rec
    layer = read_quietly(stock_file(tmp_path / "net.h5", dense_rec(2, 3, delay_rec=delay_rec))).layers[0]
    assert not layer.synapse.delay.any()
    assert layer.recurrent.delay.tolist() == delay_rec


def test_input_with_a_neuron_is_an_encoder(tmp_path: Path) -> None:
    first = {"type": "input", "shape": [3], "neuron": NEURON}
    then = {"type": "dense", "shape": [1], "weight": np.full((1, 3), 2)}
    encoder = read_quietly(stock_file(tmp_path / "net.h5", first, then)).layers[0]
    assert (encoder.size, encoder.weight, encoder.bias) == (3, 64, 0)
    first |= {"weight": np.float32([[76]]), "bias": np.float32([-6])}
    encoder = read_quietly(stock_file(tmp_path / "net.h5", first, then)).layers[0]
    assert (encoder.weight, encoder.bias, encoder.neuron.vth) == (76, -6, 80)


def test_parameters_that_neurons_share_by_value(tmp_path: Path) -> None:
    layer = {"type": "dense", "shape": [3], "weight": np.full((3, 2), 2)}
    layer["neuron"] = {**NEURON, "iDecay": [7, 7, 7]}
    assert read_quietly(stock_file(tmp_path / "net.h5", layer)).layers[0].neuron.du == 7


@pytest.mark.parametrize(
    "keys, neuron, message",
    [
        ({}, {"weight_exp": [0, 2, 0]}, r"layer 0 \(dense\): neuron/weight_exp is not 0; it is ignored"),
        ({}, {"wgtExp": 1}, "neuron/wgtExp is not 0"),
        ({}, {"refDelay": 2}, "neuron/refDelay is not 1"),
        ({}, {"theta": 1}, "neuron/theta is not 5120"),
        ({}, {"zeta": 1}, "neuron: unknown keys are ignored: 'zeta'"),
        ({"dleay": 1, "a\u2028": 1}, {}, r"\(dense\): unknown keys are ignored: 'a\\u2028', 'dleay'$"),
        ({"weight_rec": 1, "delay_rec": 1}, {}, "unknown keys are ignored: 'delay_rec', 'weight_rec'"),
    ],
)
def test_what_netx_ignores_is_not_passed_over(tmp_path: Path, keys: dict, neuron: dict, message: str) -> None:
    plain = {"type": "dense", "shape": [3], "weight": np.full((3, 2), 2), "neuron": NEURON}
    expected = arrays(read_quietly(stock_file(tmp_path / "net.h5", plain)))
    odd = {**plain, **keys, "neuron": NEURON | neuron}
    with pytest.warns(NetxWarning, match=message) as caught:
        network = netx.read(stock_file(tmp_path / "net.h5", odd))
    assert arrays(network) == expected
    assert len(caught) == 1 and caught[0].filename == __file__
    assert str(caught[0].message).startswith(str(tmp_path / "net.h5"))


def test_unknown_keys_elsewhere_are_not_passed_over(tmp_path: Path, recurrent: Network) -> None:
    netx.write(recurrent, tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        put_keys(file, {"extra": 1, "simulation": {"Ts": 2, "tsample": 1}})
        file["delaynet/seed"] = file["layer/0/weight"] = 1
        file["layer/1/shapes"] = 1
    reseal(tmp_path / "net.h5")
    with pytest.warns(NetxWarning) as caught:
        assert arrays(netx.read(tmp_path / "net.h5")) == arrays(recurrent)
    texts = [str(w.message).removeprefix(f"{tmp_path}/net.h5: ") for w in caught]
    unknown = "unknown keys are ignored:"
    assert sorted(texts) == [
        f"delaynet: {unknown} 'seed'",
        f"layer 0 (input): {unknown} 'weight'",
        f"layer 1 (flatten): {unknown} 'shapes'",
        "simulation/Ts is not 1; it is ignored, as stock NetX does",
        f"simulation: {unknown} 'tsample'",
        f"{unknown} 'extra'",
    ]


# Files that lava-dl ships.


def shipped(name: str) -> Path:
    """A file of lava-dl's own tests, which its wheel installs."""
    try:
        package = importlib.metadata.distribution("lava-dl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lava-dl is not installed")
    path = Path(str(package.locate_file(f"tests/lava/lib/dl/netx/{name}")))
    if not path.is_file():
        pytest.skip(f"lava-dl was installed without its test file {name}")
    return path


def test_shipped_mnist() -> None:
    network = read_quietly(shipped("mnist.net"))
    assert network.summary() == "784 - 784 encoder - 512 - 512 - 10"
    encoder = network.layers[0]
    assert (encoder.weight, encoder.bias, encoder.neuron.du, encoder.neuron.dv) == (76, 64, 4096, 123)
    assert [layer.neuron.vth for layer in network.layers] == [80, 80, 80, 131072]
    assert network.layers[3].neuron.du == 0
    with h5py.File(shipped("mnist.net")) as file:
        for k in (1, 2, 3):
            assert (network.layers[k].synapse.weight == file[f"layer/{k}/weight"][()]).all()


def test_shipped_ntidigits_spikes_as_its_record() -> None:
    network = read_quietly(shipped("gts/ntidigits/ntidigits.net"))
    assert (network.input_shape, network.average) == ((1, 1, 64), 11)
    assert network.summary() == "64 - 256 (delays up to 62) - 256 (delays up to 62) - 242"
    inputs = np.load(shipped("gts/ntidigits/input.npy")).T[None].astype(np.uint8)
    record = np.load(shipped("gts/ntidigits/output.npy")).T
    spikes = emulate(network, inputs, layers=[-1]).spikes[2][0]
    # The record stands one step later: SLAYER's blocks shift their output.
    assert record.sum() == 22572
    assert (spikes[:-1] == record[1:]).all()
    # Negative control: the square layer's delays read per source do not give the record.
    wrong = network.layers[1].synapse
    wrong = replace(network.layers[1], synapse=replace(wrong, delay=wrong.delay.T))
    layers = (network.layers[0], wrong, network.layers[2])
    spikes = emulate(network.with_(layers=layers), inputs, layers=[-1]).spikes[2][0]
    assert (spikes[:-1] != record[1:]).any()


@pytest.mark.parametrize(
    "name, problem",
    [
        ("tiny.net", r"layer 1: type: is 'conv' \(convolutions\)"),
        ("gts/pilotnet_lif/network.net", r"layer 1: type: is 'conv' \(convolutions\)"),
        ("gts/pilotnet_sdnn/network.net", r"layer 0 \(input\): neuron/type: is 'SDNN' \(sigma-delta"),
        ("gts/pilotnet_sdnn/square_network.net", "neuron/type: is 'SDNN'"),
    ],
)
def test_shipped_files_beyond_us(name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        netx.read(shipped(name))


def test_reading_needs_neither_lava_nor_torch(tmp_path: Path, recurrent: Network) -> None:
    netx.write(recurrent, tmp_path / "net.h5")
    code = (
        "import sys; sys.modules.update(lava=None, torch=None)\n"
        "from delaynet_lava.formats import netx\n"
        "netx.write(netx.read(sys.argv[1]), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "net.h5"), str(tmp_path / "copy.h5")]
    subprocess.run(command, check=True)
    assert (tmp_path / "net.h5").read_bytes() == (tmp_path / "copy.h5").read_bytes()
