"""lava-dl beside us: what its blocks write we read, and what we write its loader opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed")
hdf5 = pytest.importorskip("lava.lib.dl.netx.hdf5", reason="lava-dl is not installed")

import torch  # noqa: E402
from lava.lib.dl import slayer  # noqa: E402
from netx_tools import read_quietly  # noqa: E402

from delaynet_lava.formats import netx  # noqa: E402
from delaynet_lava.network import Dense, Encoder, Layer, Network, Neuron, Synapse  # noqa: E402


@pytest.fixture(scope="module")
def slayer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that SLAYER's own blocks wrote, and the integers they hold."""
    torch.manual_seed(3)
    cuba = slayer.block.cuba
    neuron = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.03}
    normed = {**neuron, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    blocks = torch.nn.ModuleList(
        [
            cuba.Input({**neuron, "current_decay": 1.0}, weight=1.25, bias=0.5),
            cuba.Flatten(),
            cuba.Dense(neuron, 12, 8, weight_norm=True, delay=True),
            cuba.Dense(normed, 8, 8, delay=True),
            cuba.Recurrent(neuron, 8, 6, delay=True),
            cuba.Recurrent(neuron, 6, 5),
            cuba.Affine(neuron, 5, 4),
        ]
    )
    signal = torch.rand(2, 3, 2, 2, 20)
    for block in blocks:
        signal = block(signal)
    # Delays start below one step; training moves them.
    for k in (2, 3):
        blocks[k].delay.delay.data = torch.linspace(0, 70, 8)
    blocks[3].neuron.norm.running_mean = torch.linspace(-1, 1, 8)
    blocks[3].neuron.norm.pre_hook_fx = blocks[3].neuron.quantize_8bit
    path = tmp_path_factory.mktemp("slayer") / "slayer.net"
    with h5py.File(path, "w") as file:
        for k, block in enumerate(blocks):
            block.export_hdf5(file.create_group(f"layer/{k}"))
    return path


def test_files_of_slayer_blocks(slayer_file: Path) -> None:
    network = read_quietly(slayer_file)
    encoder, dense, square, delayed, plain, readout = network.layers
    assert network.input_shape == (3, 2, 2)
    assert (encoder.weight, encoder.bias, encoder.neuron.du) == (80, 32, 4096)
    assert dense.synapse.delay[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 62]
    assert (dense.synapse.delay == dense.synapse.delay[:, :1]).all()
    assert (square.synapse.delay == square.synapse.delay[:, :1]).all()
    assert square.neuron.bias.shape == (8,) and len(set(square.neuron.bias.tolist())) == 8
    assert (dense.neuron.vth, dense.neuron.du) == (80, 1024)
    assert delayed.recurrent.shape == (6, 6) and plain.recurrent.shape == (5, 5)
    assert readout.neuron.vth == 262143
    with h5py.File(slayer_file) as file:
        for k, layer in zip(range(2, 7), network.layers[1:], strict=True):
            assert (layer.synapse.weight == file[f"layer/{k}/weight"][()]).all()
            assert layer.synapse.weight.any()


def assert_same(ours: Sequence[Layer], theirs: Sequence[Any]) -> None:
    """Parameters, biases and delays that stock NetX gave to its processes are those of our layers."""
    for mine, layer in zip(ours, theirs, strict=True):
        neuron = layer.neuron
        # Lava's decay of the current stands one below.
        assert (neuron.du.init + 1, neuron.dv.init) == (mine.neuron.du, mine.neuron.dv)
        assert neuron.vth.init == mine.neuron.vth
        if isinstance(mine, Encoder):
            assert layer.transform == {"weight": mine.weight, "bias": mine.bias}
            continue
        assert (np.asarray(neuron.bias_mant.init) == mine.neuron.bias).all()
        assert neuron.bias_exp.init == mine.neuron.bias_exp
        assert layer.synapse.weights.init.shape == mine.synapse.shape
        delays = layer.synapse.delays.init if hasattr(layer.synapse, "delays") else 0
        assert (delays == mine.synapse.delay).all()
        assert hasattr(layer, "synapse_rec") == (mine.recurrent is not None)


def test_stock_netx_builds_what_we_read(slayer_file: Path) -> None:
    # The delayed recurrent layer has unequal sizes, which stock NetX does not build.
    theirs = hdf5.Network(net_config=str(slayer_file), num_layers=4).layers
    assert_same(read_quietly(slayer_file).layers[:3], theirs)


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (5, 1, 1)])
@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("largest_delay", [0, 62])
def test_stock_netx_opens_what_we_write(
    tmp_path: Path, shape: tuple[int, ...], encoder: bool, largest_delay: int
) -> None:
    rng = np.random.default_rng(8)
    sizes = (5, 7, 7, 3)
    layers: list[Layer] = [Encoder(Neuron(64, 4096, 10), 5, 32, -6)] if encoder else []
    for k, (pre, post) in enumerate(pairwise(sizes)):
        recurrent = Synapse(rng.integers(-100, 100, (post, post)) * 2) if k == 1 else None
        delay = rng.integers(0, largest_delay, (post, pre), endpoint=True) * (k != 1)
        synapse = Synapse(rng.integers(-100, 100, (post, pre)) * 2, delay)
        bias = rng.integers(-100, 100, post) if k else 0
        layers.append(Dense(synapse, Neuron(80 + k, 1024, 128, bias=bias), recurrent))
    netx.write(Network(tuple(layers), shape), tmp_path / "net.h5")
    built = hdf5.Network(net_config=str(tmp_path / "net.h5")).layers
    assert_same(layers, built)


def test_the_comparison_with_stock_netx_sees_a_single_delay(tmp_path: Path) -> None:
    layer = Dense(Synapse(np.array([[2, -4]]), np.array([[1, 2]])), Neuron(80, 1024, 128))
    netx.write(Network((layer,)), tmp_path / "net.h5")
    built = hdf5.Network(net_config=str(tmp_path / "net.h5")).layers
    assert_same([layer], built)
    with pytest.raises(AssertionError):
        assert_same([replace(layer, synapse=replace(layer.synapse, delay=np.array([[1, 3]])))], built)
