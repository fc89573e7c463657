"""Lava's simulator computes what the emulator computes: every spike, membrane and count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("lava.magma", reason="lava-nc is not installed")
hdf5 = pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")

from lava_tools import cuba, stock_run, write_stock  # noqa: E402
from strategies import inputs_for, networks  # noqa: E402

from delaynet_lava import fixedpoint as fx  # noqa: E402
from delaynet_lava import lava  # noqa: E402
from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.formats import netx  # noqa: E402
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse  # noqa: E402
from delaynet_lava.trace import Comparison, Trace  # noqa: E402

EVERYTHING = ("spikes", "voltage")
# Each example starts a simulator.
simulated = settings(max_examples=9, suppress_health_check=list(HealthCheck))


def both(network: Network, inputs: np.ndarray, models: str = "fast") -> tuple[Trace, Comparison]:
    """The emulator's trace, and how Lava's compares to it."""
    expected = emulate(network, inputs, EVERYTHING)
    return expected, lava.run(network, inputs, EVERYTHING, models=models).compare(expected)


def dense(weight: list[list[int]], neuron: Neuron, **synapse) -> Dense:
    return Dense(Synapse(np.array(weight), **synapse), neuron)


@pytest.mark.parametrize("encoder", [False, True])
@simulated
@given(data=st.data())
def test_random_networks(encoder: bool, data: st.DataObject) -> None:
    network = data.draw(networks(min_layers=2, encoder=encoder))
    models = data.draw(st.sampled_from(["fast", "fast", "stock"]))
    _, comparison = both(network, inputs_for(network, seed=data.draw(st.integers(0, 99))), models)
    assert comparison.mismatches == 0, comparison
    assert comparison.compared > 2 * 120 * 2 * sum(layer.size for layer in network.layers)


@settings(simulated, max_examples=6)
@given(networks(max_layers=2, overflow=True), st.integers(0, 99))
def test_random_networks_that_overflow(network: Network, seed: int) -> None:
    _, comparison = both(network, inputs_for(network, seed=seed))
    assert comparison.mismatches == 0, comparison


def test_many_random_networks_spike_and_those_meant_to_overflow_do() -> None:
    seen: list[tuple[Trace, Trace]] = []

    @settings(simulated, max_examples=40)
    @given(networks(overflow=True), networks())
    def look(overflowing: Network, quiet: Network) -> None:
        seen.append(tuple(emulate(n, inputs_for(n)) for n in (overflowing, quiet)))

    look()
    overflowing, quiet = zip(*seen, strict=True)
    # Hypothesis draws from constants of whatever modules are loaded, so the shares vary with the run.
    assert np.mean([sum(t.u_wraps) > 0 for t in overflowing]) > 0.25
    assert np.mean([sum(t.v_saturations) > 0 for t in overflowing]) > 0.25
    assert np.mean([sum(t.v_saturations) == 0 for t in quiet]) > 0.25
    rates = [np.mean([s.mean() for s in t.spikes.values()]) for t in quiet]
    assert np.mean(np.array(rates) > 0) > 0.2
    assert np.mean(np.array(rates) < 0.6) > 0.6


def ones(network: Network, steps: int) -> np.ndarray:
    return np.ones((1, steps, network.channels), np.uint8)


NEVER = fx.VTH_MAX + 1


def test_wraps_and_saturations_are_counted_as_they_happen() -> None:
    steps = 20
    sums = {"weight_exp": 7}
    wrapping = Network((dense([[254] * 8, [-254] * 8], Neuron(NEVER, 4096, 4096), **sums),))
    trace, comparison = both(wrapping, ones(wrapping, steps))
    assert comparison.mismatches == 0
    assert trace.u_wraps == [2 * (steps - 1)] and trace.v_saturations == [0]
    saturating = Network((dense([[254] * 4, [-254] * 4], Neuron(NEVER, 4096, 0), **sums),))
    trace, comparison = both(saturating, ones(saturating, steps))
    assert comparison.mismatches == 0
    assert trace.u_wraps == [0] and trace.v_saturations == [2 * (steps - 2)]
    assert trace.final_voltage[0].tolist() == [[fx.V_MAX, -fx.V_MAX]]


def test_the_ends_of_24_bits() -> None:
    """2**23 is the largest current, and -2**23 is one that wraps."""
    network = Network((dense([[254] * 4 + [8], [-254] * 4 + [-8]], Neuron(NEVER, 4096, 4096), weight_exp=7),))
    trace, comparison = both(network, ones(network, 5))
    assert comparison.mismatches == 0
    assert trace.u_wraps == [4] and trace.v_saturations == [8]


def test_synaptic_sums_beyond_16_bits_are_whole() -> None:
    """Lava declares its port for them as int16, and hands on what comes."""
    network = Network((dense([[254] * 3, [-256] * 3], Neuron(NEVER, 4096, 4096), weight_exp=7),))
    trace, comparison = both(network, ones(network, 5))
    assert comparison.mismatches == 0
    assert trace.final_voltage[0].tolist() == [[3 * 254 << 13, -3 * 256 << 13]]
    assert trace.u_wraps == [0]


def test_a_current_that_lava_wraps_only_once() -> None:
    network = Network((dense([[254] * 13], Neuron(NEVER, 4096, 4096), weight_exp=7),))
    inputs = ones(network, 4)
    ours = emulate(network, inputs, EVERYTHING)
    with pytest.warns(
        RuntimeWarning, match=r"layer 0: the current went beyond 3 \* 2\*\*23 in one step 3 times"
    ):
        theirs = lava.run(network, inputs, EVERYTHING)
    assert ours.u_wraps == theirs.u_wraps == [3]
    sum_ = 13 * 254 << 13
    assert ours.final_voltage[0].tolist() == [[sum_ - 2 * (1 << 24)]]
    assert theirs.final_voltage[0].tolist() == [[fx.V_MAX]]
    assert not ours.compare(theirs)


def test_every_end_of_the_decays() -> None:
    """du = 0 is -1 in Lava, whose register adds 1; dv = 4096 is more than the chip's 12 bits."""
    rng = np.random.default_rng(1)
    decays = [(0, 4096), (1, 4095), (4095, 1), (4096, 0)]
    layers, pre = [], 12
    for du, dv in decays:
        # A current that never decays adds up, so it must not always grow.
        weight = 2 * rng.integers(*((-46, 47) if du < 2 else (-30, 60)), (10, pre))
        layers.append(Dense(Synapse(weight, rng.integers(0, 5, weight.shape)), Neuron(90, du, dv)))
        pre = 10
    network = Network(tuple(layers))
    trace, comparison = both(network, inputs_for(network, 150, 1))
    assert comparison.mismatches == 0
    assert all(0.02 < spikes.mean() < 0.98 for spikes in trace.spikes.values())


@pytest.mark.parametrize("weight, bias", [(254, 254), (254, -256), (-256, -256), (64, 0)])
def test_an_encoder_takes_all_of_its_range_in_the_same_step(weight: int, bias: int) -> None:
    network = Network((Encoder(Neuron(NEVER, 0, 4096), 6, weight, bias),))
    inputs = np.array([[[0, 1, 2, 127, 128, 255], [255, 254, 3, 2, 1, 0]]], np.uint8)
    trace, comparison = both(network, inputs)
    assert comparison.mismatches == 0
    assert (trace.voltage[0] == (weight * inputs.astype(int) + bias) << 6).all()


def busy_network(seed: int = 5, delay: int = fx.MAX_DELAY) -> Network:
    """Two recurrent layers with delays of every length and a readout."""
    rng = np.random.default_rng(seed)

    def random(post: int, pre: int, low: int, high: int, exponent: int = 0) -> Synapse:
        shape = (post, pre)
        return Synapse(2 * rng.integers(low, high, shape), rng.integers(0, delay + 1, shape), exponent)

    return Network(
        (
            Dense(random(20, 10, -20, 60), Neuron(300, 800, 200), random(20, 20, -20, 12)),
            Dense(random(15, 20, -20, 30, 1), Neuron(400, 4096, 100, 5), random(15, 15, -8, 6, 2)),
            Dense(random(2, 15, -60, 60), Neuron(fx.VTH_MAX, 4096, 100)),
        )
    )


def test_each_sample_starts_from_rest() -> None:
    """What is under way in the synapses when a sample ends does not reach the next one."""
    network = busy_network()
    inputs = inputs_for(network, 40, 3, 0.4)
    inputs[:, -20:] = 1
    for models in ("fast", "stock"):
        together = lava.run(network, inputs, EVERYTHING, models=models)
        assert together.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0
    longer = np.pad(inputs, ((0, 0), (0, fx.MAX_DELAY), (0, 0)))
    assert emulate(network, longer).spikes[1][:, 40:].any(axis=(1, 2)).all()
    for k in range(3):
        alone = lava.run(network, inputs[k : k + 1], EVERYTHING)
        assert (alone.spikes[1] == together.spikes[1][[k]]).all()
        assert (alone.voltage[2] == together.voltage[2][[k]]).all()


def test_fast_and_stock_models_at_the_published_size() -> None:
    rng = np.random.default_rng(0)
    back = Synapse(2 * rng.integers(-15, 16, (125, 125)), np.tile(rng.choice([0, 50, 62], 125), (125, 1)))
    network = Network(
        (
            Dense(Synapse(2 * rng.integers(-40, 60, (125, 40))), Neuron(800, 4096, 161), back),
            Dense(Synapse(2 * rng.integers(-60, 60, (2, 125))), Neuron(fx.VTH_MAX, 4096, 200)),
        )
    )
    inputs = inputs_for(network, 130, 1, 0.05)
    trace, comparison = both(network, inputs)
    assert comparison.mismatches == 0
    assert 0.01 < trace.spikes[0].mean() < 0.2
    assert lava.run(network, inputs, EVERYTHING, models="stock").compare(trace).mismatches == 0


# Wrong networks: the comparison sees each of them.


def without(network: Network, layer: int, **changes) -> Network:
    layers = list(network.layers)
    layers[layer] = replace(layers[layer], **changes)
    return network.with_(layers=tuple(layers))


@pytest.fixture(scope="module")
def busy() -> tuple[Network, np.ndarray, Trace]:
    network = busy_network()
    inputs = inputs_for(network, 150, 1, 0.3)
    return network, inputs, lava.run(network, inputs, EVERYTHING)


def test_the_busy_network_is_equal_and_all_of_it_spikes(busy) -> None:
    network, inputs, trace = busy
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0
    assert trace.spikes[0].any(axis=(0, 1)).mean() > 0.9
    assert trace.spikes[1].any(axis=(0, 1)).mean() > 0.9


@pytest.mark.parametrize("layer, which", [(0, "synapse"), (0, "recurrent"), (1, "recurrent")])
def test_a_delay_that_is_off_by_one_is_seen(busy, layer: int, which: str) -> None:
    network, inputs, trace = busy
    synapse = getattr(network.layers[layer], which)
    fired = (
        trace.spikes[layer if which == "recurrent" else layer - 1][0]
        if layer or which == "recurrent"
        else inputs[0]
    )
    sender = int(fired[:40].sum(axis=0).argmax())
    delay = synapse.delay.copy()
    delay[3, sender] += 1 if delay[3, sender] < fx.MAX_DELAY else -1
    wrong = without(network, layer, **{which: replace(synapse, delay=delay)})
    comparison = trace.compare(emulate(wrong, inputs, EVERYTHING))
    assert comparison.mismatches > 0
    # The first integer that differs is the membrane of the neuron behind that synapse.
    first = int(np.flatnonzero(fired[:, sender])[0])
    assert (comparison.first.layer, comparison.first.neuron) == (layer, 3)
    assert comparison.first.step == first + 1 + min(synapse.delay[3, sender], delay[3, sender])


def test_transposed_recurrent_weights_are_seen(busy) -> None:
    network, inputs, trace = busy
    back = network.layers[0].recurrent
    wrong = without(network, 0, recurrent=replace(back, weight=back.weight.T))
    assert trace.compare(emulate(wrong, inputs, EVERYTHING)).mismatches > 0


@pytest.mark.parametrize("which", ["synapse", "recurrent"])
def test_a_dropped_exponent_is_seen(busy, which: str) -> None:
    network, inputs, trace = busy
    wrong = without(network, 1, **{which: replace(getattr(network.layers[1], which), weight_exp=0)})
    comparison = trace.compare(emulate(wrong, inputs, EVERYTHING))
    assert comparison.mismatches > 0 and comparison.first.layer == 1


# Files that stock NetX builds rightly.


def random_weights(rng: np.random.Generator, post: int, pre: int) -> np.ndarray:
    weight = 2 * rng.integers(-60, 60, (post, pre))
    # One sign alone would make Lava choose another sign mode.
    weight[0, 0], weight[-1, -1] = -100, 100
    return weight


def rectangular_file() -> list[dict]:
    """Delays a sender and a neuron, a recurrent layer without, biases, and a layer without neuron."""
    rng = np.random.default_rng(2)
    return [
        {"type": "input", "shape": [9]},
        {
            "type": "dense", "shape": [8], "inFeatures": 9, "outFeatures": 8,
            "weight": random_weights(rng, 8, 9), "delay": rng.integers(0, 63, 9),
            "neuron": cuba(90, 900, 300),
        },
        {
            "type": "dense_rec", "shape": [6], "inFeatures": 8, "outFeatures": 6,
            "weight": random_weights(rng, 6, 8), "weight_rec": random_weights(rng, 6, 6) // 8 * 2,
            "bias": rng.integers(-30, 60, 6), "neuron": cuba(110, 4096, 300),
        },
        {
            "type": "dense", "shape": [7], "inFeatures": 6, "outFeatures": 7,
            "weight": random_weights(rng, 7, 6), "delay": rng.integers(0, 63, 7),
            "neuron": cuba(90, 2000, 250),
        },
        {
            "type": "dense", "shape": [3], "inFeatures": 7, "outFeatures": 3,
            "weight": random_weights(rng, 3, 7),
        },
    ]  # fmt: skip


def square_file() -> list[dict]:
    """A delay a neuron where the matrix is square, a full matrix, and one delay for all."""
    rng = np.random.default_rng(3)
    common = {"type": "dense", "shape": [7], "inFeatures": 7, "outFeatures": 7}
    delays = [rng.integers(0, 63, 7), rng.integers(0, 63, (7, 7)), np.full((7, 7), 32)]
    layers = [
        common
        | {"weight": random_weights(rng, 7, 7), "delay": delay, "neuron": cuba(90, 0 if k == 1 else 900, 400)}
        for k, delay in enumerate(delays)
    ]
    return [{"type": "input", "shape": [7]}, *layers]


def encoder_file() -> list[dict]:
    """An input layer with neurons, three axes of which a flatten layer makes one."""
    rng = np.random.default_rng(4)
    return [
        {"type": "input", "shape": [2, 3, 4], "neuron": cuba(300, 4096, 200), "weight": 5, "bias": -20},
        {"type": "flatten"},
        {
            "type": "dense", "shape": [6], "inFeatures": 24, "outFeatures": 6,
            "weight": random_weights(rng, 6, 24), "delay": rng.integers(0, 63, 24),
            "neuron": cuba(400, 1000, 300),
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    "layers", [rectangular_file(), square_file(), encoder_file()], ids=["rect", "square", "encoder"]
)
def test_our_network_is_the_stock_network_where_that_is_right(tmp_path: Path, layers: list[dict]) -> None:
    path = write_stock(tmp_path / "net.h5", layers)
    network = netx.read(path)
    inputs = inputs_for(network, 90, 1, 0.3, seed=1)
    expected = emulate(network, inputs, EVERYTHING)
    stock, ours = hdf5.Network(path), lava.Network(path)
    assert str(ours) == str(stock) and len(ours) == len(stock)
    assert [b.block for b in ours.layers] == [b.block for b in stock.layers]
    assert [b.shape for b in ours.layers] == [b.shape for b in stock.layers]
    assert (ours.inp.shape, ours.out.shape) == (stock.inp.shape, stock.out.shape)
    for net in (stock, ours):
        spikes, voltage = stock_run(net, inputs[0])
        for k in range(len(network.layers)):
            assert (spikes[k] == expected.spikes[k][0]).all()
            assert (voltage[k] == expected.voltage[k][0]).all()
    spiking = [k for k, layer in enumerate(network.layers) if not layer.neuron.is_readout]
    assert all(expected.spikes[k].any() for k in spiking)
    assert lava.run(network, inputs, EVERYTHING).compare(expected).mismatches == 0


@pytest.mark.parametrize("part", [{"num_layers": 3}, {"skip_layers": 2}, {"num_layers": 4, "skip_layers": 1}])
def test_parts_of_a_file_are_those_of_stock_netx(tmp_path: Path, part: dict[str, int]) -> None:
    path = write_stock(tmp_path / "net.h5", rectangular_file())
    stock, ours = hdf5.Network(path, **part), lava.Network(path, **part)
    assert [b.shape for b in ours.layers] == [b.shape for b in stock.layers]
    assert [b.neuron.vth.init for b in ours.layers] == [b.neuron.vth.init for b in stock.layers]
    assert str(ours) == str(stock) and ours.inp.shape == stock.inp.shape
