"""Where stock NetX and Lava change a network in silence: what they do, and that we do not."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed")
hdf5 = pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")

from lava.lib.dl.netx import utils  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.proc.bit_check.process import BitCheck  # noqa: E402
from lava.proc.dense import process as lava_dense  # noqa: E402
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc  # noqa: E402
from lava.proc.io.source import RingBuffer  # noqa: E402
from lava.proc.lif.process import LIF  # noqa: E402
from lava.utils.weightutils import SignMode  # noqa: E402
from lava_tools import bare_model, cuba, stock_run, write_stock  # noqa: E402
from strategies import inputs_for  # noqa: E402

from delaynet_lava import lava  # noqa: E402
from delaynet_lava.emulator import emulate  # noqa: E402
from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.formats import netx  # noqa: E402
from delaynet_lava.lava import blocks  # noqa: E402
from delaynet_lava.network import Dense, Network, Neuron, Synapse  # noqa: E402

EVERYTHING = ("spikes", "voltage")
NEVER = 1 << 17


def recurrent_layer(
    rng: np.random.Generator, size: int, channels: int, delay: np.ndarray, delay_rec
) -> Dense:
    """Small weights, which NetX shifts up and gives an exponent to shift them down again."""
    return Dense(
        Synapse(2 * rng.integers(-15, 15, (size, channels)), delay),
        Neuron(40, 4096, 300),
        Synapse(2 * rng.integers(-15, 15, (size, size)), delay_rec),
    )


def one_layer(weight, delay=0, weight_exp: int = 0, neuron: Neuron | None = None) -> Network:
    return Network(
        (Dense(Synapse(np.array(weight), delay, weight_exp), neuron or Neuron(NEVER, 4096, 4096)),)
    )


def effective_weights(process: lava_dense.Dense) -> np.ndarray:
    """What one spike of each sender adds on Lava's own model, (post, pre)."""
    stock = PyDelayDenseModelBitAcc if isinstance(process, lava_dense.DelayDense) else PyDenseModelBitAcc
    columns = []
    for spike in np.eye(process.s_in.shape[0], dtype=np.int32):
        model = bare_model(stock, process)
        model.s_in.send(spike)
        model.run_spk()
        columns.append(model.a_buff.reshape(process.a_out.shape[0], -1).sum(axis=1))
    return np.array(columns).T


def test_recurrent_dense_gives_the_delay_to_both_synapses_and_drops_the_exponent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    delay = rng.integers(1, 63, (6, 6))
    layer = recurrent_layer(rng, 6, 6, delay, rng.integers(0, 63, (6, 6)))
    network = Network((layer,))
    path = tmp_path / "net.h5"
    netx.write(network, path)

    stock = hdf5.Network(str(path)).layers[0]
    assert (stock.synapse.delays.init == delay).all()
    assert (stock.synapse_rec.delays.init == delay).all()
    assert stock.synapse_rec.proc_params.get("weight_exp") is None
    for made, meant in ((stock.synapse, layer.synapse), (stock.synapse_rec, layer.recurrent)):
        assert (effective_weights(made) == 8 * meant.weight).all()

    net = lava.Network(path)
    ours = net.layers[0]
    for made, meant in ((ours.synapse, layer.synapse), (ours.synapse_rec, layer.recurrent)):
        assert (made.delays.init[meant.weight != 0] == meant.delay[meant.weight != 0]).all()
        assert (effective_weights(made) == meant.weight).all()
    inputs = inputs_for(network, 120, 1, 0.4)
    expected = emulate(network, inputs, EVERYTHING)
    spikes, voltage = stock_run(net, inputs[0])
    assert spikes[0].any()
    assert (spikes[0] == expected.spikes[0][0]).all() and (voltage[0] == expected.voltage[0][0]).all()
    wrong_spikes, _ = stock_run(hdf5.Network(str(path)), inputs[0])
    assert (wrong_spikes[0] != expected.spikes[0][0]).any()


def test_recurrent_dense_with_delays_cannot_differ_in_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layer = recurrent_layer(rng, 6, 4, rng.integers(1, 63, (6, 4)), rng.integers(1, 63, (6, 6)))
    path = tmp_path / "net.h5"
    netx.write(Network((layer,)), path)
    with pytest.raises(ValueError, match="same shape than the weight matrix"):
        hdf5.Network(str(path))
    ours = lava.Network(path).layers[0]
    assert (ours.synapse.delays.shape, ours.synapse_rec.delays.shape) == ((6, 4), (6, 6))


def test_each_synapse_keeps_its_own_exponent(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    weight = 2 * rng.integers(-100, 100, (2, 5, 5))
    layer = Dense(Synapse(weight[0], 3, 1), Neuron(500, 4096, 300), Synapse(weight[1], 7, 5))
    path = tmp_path / "net.h5"
    netx.write(Network((layer,)), path)
    ours = lava.Network(path).layers[0]
    assert (effective_weights(ours.synapse) == weight[0] << 1).all()
    assert (effective_weights(ours.synapse_rec) == weight[1] << 5).all()


@pytest.mark.parametrize("kind", ["dense", "dense_rec"])
def test_delays_over_62_are_clamped(tmp_path: Path, kind: str) -> None:
    weight = np.array([[10, -20], [30, 40]])
    layer = {
        "type": kind, "shape": [2], "inFeatures": 2, "outFeatures": 2,
        "weight": weight, "delay": np.array([[0, 100], [62, 63]]), "neuron": cuba(100, 4096, 300),
    }  # fmt: skip
    if kind == "dense_rec":
        layer["weight_rec"], layer["delay_rec"] = weight, np.array([[70, 0], [0, 0]])
        del layer["delay"]
    path = write_stock(tmp_path / "net.h5", [{"type": "input", "shape": [2]}, layer])
    if kind == "dense":
        with pytest.warns(UserWarning, match="Found max delay of 100. Clamping"):
            stock = hdf5.Network(path)
        assert stock.layers[0].synapse.delays.init.max() == 62
    else:
        # NetX does not know the key at all.
        assert isinstance(hdf5.Network(path).layers[0].synapse_rec, lava_dense.Dense)
    name, worst = ("delay", 100) if kind == "dense" else ("delay_rec", 70)
    with pytest.raises(InputError, match=f"layer 0: {name}: {worst} steps .* more than the 62"):
        lava.Network(path)
    network = netx.read(path)
    with pytest.raises(InputError, match=f"layer 0: {name}: {worst} steps .* more than the 62"):
        lava.run(network, inputs_for(network, 5, 1))


def test_lavas_delay_dense_takes_63() -> None:
    process = lava_dense.DelayDense(weights=np.full((1, 1), 2), delays=np.full((1, 1), 63))
    model = bare_model(PyDelayDenseModelBitAcc, process)
    model.s_in.send(np.ones(1, np.int32))
    model.run_spk()
    assert model.a_buff[0, 63] == 2
    network = one_layer([[2]], 63)
    with pytest.raises(InputError, match="layer 0: delay: 63 steps is more than the 62"):
        lava.run(network, inputs_for(network, 5, 1))


def test_a_delay_without_a_synapse_is_no_reason_to_refuse() -> None:
    network = one_layer([[2, 0]], np.array([[3, 500]]))
    inputs = np.ones((1, 8, 2), np.uint8)
    assert lava.run(network, inputs, EVERYTHING).compare(emulate(network, inputs, EVERYTHING)).mismatches == 0


def test_optimize_weight_bits_cannot_take_zeros(tmp_path: Path) -> None:
    zeros = np.zeros((3, 2), int)
    with warnings.catch_warnings(), pytest.raises(OverflowError):
        warnings.simplefilter("ignore", RuntimeWarning)
        utils.optimize_weight_bits(zeros)
    network = one_layer(zeros, neuron=Neuron(5, 4096, 0, 3))
    path = tmp_path / "net.h5"
    netx.write(network, path)
    inputs = np.ones((1, 10, 2), np.uint8)
    trace = lava.run(netx.read(path), inputs, EVERYTHING)
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0
    assert trace.spike_counts[0] > 0
    assert effective_weights(lava.Network(path).layers[0].synapse).tolist() == zeros.tolist()


def test_a_zero_matrix_does_not_disturb_another_synapse() -> None:
    """Between layers that spike: a recurrent matrix whose training ended at zero."""
    layer = Dense(
        Synapse(np.array([[60], [80]]), 2), Neuron(50, 4096, 100), Synapse(np.zeros((2, 2), int), 9)
    )
    network = Network((layer,))
    inputs = np.ones((1, 12, 1), np.uint8)
    trace = lava.run(network, inputs, EVERYTHING)
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0


@pytest.mark.parametrize(
    "weight, on_stock",
    [
        ([[256, 2]], [[0, 0]]),
        ([[-128, -128]], [[0, 0]]),
        ([[-64, 0]], [[-32, 0]]),
        ([[-256, -254]], [[-254, -254]]),
        ([[-256, -2]], [[-254, -2]]),
    ],
)
def test_netx_turns_weights_into_others(tmp_path: Path, weight: list, on_stock: list) -> None:
    """A weight beyond 8 bits takes the small ones with it, an inhibitory power of two all of itself."""
    layer = {"type": "dense", "shape": [1], "weight": np.array(weight), "neuron": cuba(100, 4096, 300)}
    path = write_stock(tmp_path / "net.h5", [{"type": "input", "shape": [2]}, layer])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        stock = hdf5.Network(path).layers[0].synapse
    assert effective_weights(stock).tolist() == on_stock
    if np.max(weight) > 254:
        with pytest.raises(InputError, match=r"layer 1 .*weight: value at .* is 256"):
            lava.Network(path)
    else:
        assert effective_weights(lava.Network(path).layers[0].synapse).tolist() == weight


def test_lava_clips_256_where_a_matrix_is_inhibitory() -> None:
    weight = np.array([[-256, -254], [-2, 0]])
    alone = lava_dense.Dense(weights=weight)
    assert effective_weights(alone).tolist() == [[-255, -254], [-2, 0]]
    for delay in (0, 4):
        network = one_layer(weight, delay)
        synapse = blocks.build_blocks(network)[0].synapse
        assert synapse.proc_params["sign_mode"] is SignMode.MIXED
        assert effective_weights(synapse).tolist() == weight.tolist()
        inputs = np.ones((1, 10, 2), np.uint8)
        trace = lava.run(network, inputs, EVERYTHING)
        assert trace.final_voltage[0].tolist() == [[-510 << 6, -2 << 6]]
        assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0


@pytest.mark.parametrize(
    "delay, on_stock, needed", [(1, 0, 1), (2, 1, 2), (31, 5, 5), (32, 5, 6), (62, 6, 6)]
)
def test_num_delay_bits(delay: int, on_stock: int, needed: int) -> None:
    assert utils.num_delay_bits(np.array([delay])) == on_stock
    assert delay.bit_length() == needed


def test_num_delay_bits_of_no_delay_is_not_even_a_number_of_bits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert utils.num_delay_bits(np.array([0])) < 0


def test_each_delay_is_kept_whatever_its_bits() -> None:
    delays = [0, 1, 2, 31, 32, 61, 62]
    network = one_layer(np.diag([2] * 7), np.diag(delays), neuron=Neuron(NEVER, 4096, 4096))
    inputs = np.zeros((1, 70, 7), np.uint8)
    inputs[0, 3] = 1
    trace = lava.run(network, inputs, EVERYTHING)
    arrivals = [np.flatnonzero(trace.voltage[0][0, :, k]).tolist() for k in range(7)]
    assert arrivals == [[3 + 1 + delay] for delay in delays]


@pytest.mark.parametrize(
    "weight, dv, field", [([[254] * 8], 4096, "u_wraps"), ([[254] * 4], 0, "v_saturations")]
)
def test_bit_check_looks_after_the_overflow(weight: list, dv: int, field: str) -> None:
    network = one_layer(weight, 0, 7, Neuron(NEVER, 4096, dv))
    (block,) = blocks.build_blocks(network)
    source = RingBuffer(data=np.ones((len(weight[0]), 1), int))
    source.s_out.connect(block.inp)
    checks = BitCheck(bits=24), BitCheck(bits=24)
    checks[0].connect_var(block.neuron.u)
    checks[1].connect_var(block.neuron.v)
    try:
        block.neuron.run(RunSteps(num_steps=6), Loihi2SimCfg(select_tag="fixed_pt"))
        assert [check._overflowed.get().item() for check in checks] == [0, 0]
    finally:
        block.neuron.stop()
    inputs = np.ones((1, 6, len(weight[0])), np.uint8)
    trace = lava.run(network, inputs)
    assert getattr(trace, field)[0] > 0
    assert getattr(trace, field) == getattr(emulate(network, inputs), field)


def test_unknown_neurons_are_named(tmp_path: Path) -> None:
    """Stock NetX gives None, and ends somewhere else; mended it says what it has no process for."""
    with pytest.raises(NotImplementedError, match=r"type 'ALIF'$"):
        hdf5.Network.get_neuron_params({"type": "ALIF"})
    layer = {
        "type": "dense",
        "shape": [1],
        "weight": np.array([[2]]),
        "neuron": cuba(1, 1, 1) | {"type": "ALIF"},
    }
    path = write_stock(tmp_path / "net.h5", [{"type": "input", "shape": [1]}, layer])
    with pytest.raises(InputError, match="ALIF"):
        lava.Network(path)


def test_a_threshold_beyond_17_bits_runs_and_never_spikes() -> None:
    network = one_layer([[254] * 4], 0, 7, Neuron((1 << 18) - 1, 0, 0))
    inputs = np.ones((1, 30, 4), np.uint8)
    trace = lava.run(network, inputs, EVERYTHING)
    assert trace.compare(emulate(network, inputs, EVERYTHING)).mismatches == 0
    assert trace.spike_counts[0] == 0 and trace.v_saturations[0] > 0


def test_lava_processes_leave_handlers_on_the_root_logger() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        LIF(shape=(1,))
        assert len(root.handlers) == len(before) + 1
    finally:
        root.handlers[:] = before
    network = one_layer([[2]])
    lava.Network(network)
    lava.run(network, np.ones((1, 3, 1), np.uint8))
    assert root.handlers == before


@pytest.mark.parametrize(
    "option, value",
    [("reset_interval", 100), ("sparse_fc_layer", True), ("num_layers", 1)],
)
def test_options_that_would_not_be_honoured_are_refused(option: str, value) -> None:
    with pytest.raises(InputError, match=f"^{option}: {value}"):
        lava.Network(one_layer([[2]]), **{option: value})
