"""The Spiking Recurrent Cell after training: plain integers, emulator and files do the same."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain
from strategies import inputs_for, src_networks

from delaynet_lava import fixedpoint as fx
from delaynet_lava import task
from delaynet_lava.analysis import overflow
from delaynet_lava.analysis.sweep import narrow_membranes, requantise_decays
from delaynet_lava.emulator import emulate, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.export.agreement import check
from delaynet_lava.export.extract import extract
from delaynet_lava.export.nir_export import write_nir
from delaynet_lava.export.relay import relay
from delaynet_lava.export.retime import retime
from delaynet_lava.export.trainable import model_of
from delaynet_lava.formats import netx
from delaynet_lava.kernels import spikes
from delaynet_lava.kernels.src_cells import new_row, step_cells, step_sloped, sum_type
from delaynet_lava.network import Dense as DenseLayer
from delaynet_lava.network import Network, Neuron, Src, Synapse
from delaynet_lava.nn import DelayRecurrent, Dense, Readout, SpikingRecurrentCell
from delaynet_lava.nn.model import describe
from delaynet_lava.trace import Trace

ALL = ("spikes", "voltage", "current", "slow")


def a_cell(weight: int = 100, decision: str | None = None, **options) -> Network:
    """Sixteen cells, each with an input of its own."""
    bias = np.linspace(fx.SRC_BIAS_MIN, fx.SRC_BIAS_MAX["parabola", 7], 16).astype(int)
    return Network(
        (DenseLayer(Synapse(weight * np.eye(16, dtype=int)), Src(bias, **options)),), decision=decision
    )


@settings(max_examples=25, deadline=None)
@given(network=src_networks(), seed=st.integers(0, 99), rate=st.sampled_from([0.03, 0.1, 0.3]))
def test_emulator_is_the_plain_integers(network: Network, seed: int, rate: float) -> None:
    inputs = inputs_for(network, 100, 1, rate, seed)
    theirs, ends = plain(network, inputs)
    ours = emulate(network, inputs, ALL)
    result = ours.compare(theirs)
    assert result, result
    assert set(ours.slow) == {k for k, layer in enumerate(network.layers) if layer.neuron.kind == "src"}
    for one, other in zip(extremes(network, inputs), ends, strict=True):
        for low, same in zip(one, other, strict=True):
            # The state at rest, 0, counts in both.
            np.testing.assert_array_equal(low, same)


def test_random_networks_speak() -> None:
    """Else their equality would say little."""
    speak, graded = [], []

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(network=src_networks())
    def look(network: Network) -> None:
        trace = emulate(network, inputs_for(network, 100, 2))
        speak.append(any(c.any() for c in trace.spike_counts))
        graded.append(max(int(s.max()) for s in trace.spikes.values()) > 1)

    look()
    assert np.mean(speak) > 0.3 and np.mean(graded) > 0.1


@st.composite
def stacks(draw: st.DrawFn) -> tuple[torch.nn.Sequential, torch.Tensor]:
    """Blocks as they are trained, cells and others, and spikes for them."""
    seed, channels = draw(st.integers(0, 2**31 - 1)), draw(st.integers(2, 16))
    rng, lif = np.random.default_rng(seed), {"threshold": 1.5, "current_decay": 1.0, "voltage_decay": 0.1}
    blocks: list[torch.nn.Module] = []
    torch.manual_seed(seed)
    before, bits = channels, 0
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(2, 12))
        kind = draw(st.sampled_from(["cell", "cell", "recurrent cell", "DelayRecurrent", "Dense"]))
        if kind == "DelayRecurrent" and not bits:
            blocks.append(DelayRecurrent(lif, before, size, delay=rng.integers(0, 9, size)))
        elif kind == "Dense" and not bits:
            blocks.append(Dense(lif, before, size))
        else:
            recurrent = kind == "recurrent cell"
            sent = bits if recurrent else draw(st.sampled_from([0, 0, 3, 8]))
            blocks.append(
                SpikingRecurrentCell(
                    {
                        "bias": draw(st.floats(-7, -6)),
                        "current_decay": draw(st.sampled_from([0.1, 0.02, 1.0])),
                        "squash": draw(st.sampled_from(["parabola", "sign", "clip"])),
                        "activation": draw(st.sampled_from(["parabola", "clip"])),
                        "slow": draw(st.sampled_from([7, 8])),
                    },
                    before,
                    size,
                    delay=rng.integers(0, 6, before),
                    recurrent_delay=rng.integers(0, 9, size) if recurrent else None,
                    weight_bits=draw(st.integers(2, 8)),
                    weight_exp=draw(st.integers(0, 3)),
                    in_exp=bits,
                    output_bits=sent,
                    self_connection=draw(st.booleans()),
                )
            )
            bits = sent
        if not isinstance(blocks[-1], SpikingRecurrentCell):
            bits = 0
        before = size
    if draw(st.booleans()) and not bits:
        blocks.append(Readout({"current_decay": 1.0, "voltage_decay": 0.03}, before, 3))
    elif bits:
        blocks.append(SpikingRecurrentCell({}, before, 3, in_exp=bits))
    net = torch.nn.Sequential(*blocks)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("synapse.weight"):
                weight.copy_(torch.rand(weight.shape) * 4 - 1.2)
    fires = torch.rand(2, channels, 80) < draw(st.sampled_from([0.03, 0.1]))
    return net.eval(), fires.float()


@settings(max_examples=25, deadline=None)
@given(made=stacks())
def test_the_emulator_does_what_was_trained(made: tuple[torch.nn.Sequential, torch.Tensor]) -> None:
    net, x = made
    network = extract(describe(net))
    trace = emulate(network, x.numpy().transpose(0, 2, 1).astype(np.uint8), ALL)
    for k, block in enumerate(net):
        x = block(x)
        record, one = trace.spikes[k], 1
        if isinstance(block, Readout):
            record, one = trace.voltage[k], 4096
        late = 0 if getattr(block, "delay_shift", True) else 1
        wanted = np.rint(x.detach().double().numpy().transpose(0, 2, 1) * one)
        np.testing.assert_array_equal(record[:, late:], wanted[:, : wanted.shape[1] - late])


@settings(max_examples=15, deadline=None)
@given(network=src_networks())
def test_net_h5_keeps_every_number(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    path = tmp_path_factory.getbasetemp() / "net.h5"
    netx.write(network, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = netx.read(path)
    for one, other in zip(network.layers, again.layers, strict=True):
        assert type(one.neuron) is type(other.neuron)
        for name in one.neuron.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one.neuron, name), getattr(other.neuron, name))
    inputs = inputs_for(network, 60, 2)
    assert emulate(network, inputs, ALL).compare(emulate(again, inputs, ALL))


def stepped(network: Network, inputs: np.ndarray, step: Any) -> np.ndarray:
    """Spikes (steps, neurons) of the first layer of one sample without delays, by another step."""
    layer = network.layers[0]
    state, bias = layer.neuron.initial(layer.size).astype(np.int64), layer.neuron.bias.astype(np.int64)
    sent = []
    for t in range(inputs.shape[1]):
        a = layer.synapse.units @ (inputs[0, t - 1].astype(np.int64) if t else np.zeros(inputs.shape[2], int))
        state, out, _ = step(state, a, bias, layer.neuron.form)
        sent.append(out)
    return np.array(sent)


def gate_on_the_new_h(state: Any, a: Any, bias: Any, form: Any) -> Any:
    _, h, slow = state
    after, out, wide = fx.src_step(state, a, bias, form)
    after[2] = np.where(after[1] > 2048, h, h + fx.decay(slow - h, fx.SRC_DECAY))
    return after, out, wide


def tanh(state: Any, a: Any, bias: Any, form: Any) -> Any:
    after, _, wide = fx.src_step(state, a, bias, form)
    p = fx.src_potential(after[0], state[1], state[2], bias, form.squash, form.slow)
    after[1] = np.rint(4096 * np.tanh(p / 4096)).astype(np.int64)
    return after, fx.src_payload(after[1], form.output_bits), wide


def test_other_cells_would_be_noticed() -> None:
    """Negative controls: the right step is equal, each wrong one is not."""
    network, rng = a_cell(250, shift=4), np.random.default_rng(3)
    inputs = (rng.random((1, 400, 16)) < 0.1).astype(np.uint8)
    ours = emulate(network, inputs).spikes[0][0]
    assert ours.sum() > 50
    np.testing.assert_array_equal(stepped(network, inputs, fx.src_step), ours)
    for other in (gate_on_the_new_h, tanh):
        assert (stepped(network, inputs, other) != ours).sum() > 10, other
    layer = network.layers[0]
    late = Network((replace(layer, synapse=replace(layer.synapse, delay=1)),))
    assert (emulate(late, inputs).spikes[0][0] != ours).any()


@nb.njit
def _stepped(ring, at, row, form, slope_h, slope_x):
    if slope_h.shape[0]:
        return step_sloped(ring, at, row, form, slope_h, slope_x, 1)
    return step_cells(ring, at, row, form)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        fx.SrcForm, st.integers(-8, 8), st.integers(0, 4096),
        st.sampled_from(sorted(fx.SRC_SQUASHES.values())),
        st.sampled_from(sorted(fx.SRC_ACTIVATIONS.values())), st.sampled_from(fx.SRC_SLOW), st.integers(0, 8),
    ),
    st.integers(0, 2**31 - 1), st.sampled_from([16, 48, 112, 160]),
    st.sampled_from([1 << 10, 1 << 15, 1 << 28]), st.booleans(),
)  # fmt: skip
def test_a_step_in_vectors_is_the_plain_arithmetic(
    form: fx.SrcForm, seed: int, cells: int, most: int, sloped: bool
) -> None:
    rng = np.random.default_rng(seed)
    ring = rng.integers(-most, most, (3, cells), endpoint=True).astype(sum_type(most, form.shift))
    bias = rng.integers(fx.SRC_BIAS_MIN, fx.SRC_BIAS_MAX["parabola", 7], cells).astype(np.int32)
    i = rng.integers(-fx.V_MAX, fx.V_MAX, cells, endpoint=True) >> rng.integers(0, 20, cells)
    state = np.stack([i, *rng.integers(-4096, 4096, (2, cells), endpoint=True)])
    row = new_row(bias, *state.astype(np.int32))
    arriving, others = ring[1].astype(np.int64), ring[[0, 2]].copy()
    slopes = np.full((2, 2 * sloped, cells), 7, np.int16)
    over = _stepped(ring, 1, row, form, *slopes)
    after, sent, wide = fx.src_step(state, arriving, bias.astype(np.int64), form)
    np.testing.assert_array_equal([row.i, row.h, row.slow], after)
    np.testing.assert_array_equal(row.sent, sent)
    np.testing.assert_array_equal(spikes.unpack(row.fired, cells), sent > 0)
    potential = fx.src_potential(after[0], state[1], state[2], bias.astype(np.int64), form.squash, form.slow)
    if sloped:
        for slope, state, width in zip(slopes, (potential, after[0]), (2, 6), strict=True):
            expected = np.maximum(0, 4096 * width - np.abs(state))
            np.testing.assert_array_equal(slope, [np.full(cells, 7), expected])
    assert over == np.count_nonzero(np.abs(wide) > fx.V_MAX)
    assert not ring[1].any() and np.array_equal(ring[[0, 2]], others)


@pytest.mark.parametrize("activation", ["parabola", "clip"])
@pytest.mark.parametrize("slow", fx.SRC_SLOW)
def test_without_input_no_cell_spikes_ever(activation: str, slow: int) -> None:
    """For each b_h that is accepted: without input the state is followed until it comes back."""
    most = fx.SRC_BIAS_MAX[activation, slow]
    neuron = Src(np.arange(fx.SRC_BIAS_MIN, most + 1), activation=activation, slow=slow)
    bias, form = neuron.bias.astype(np.int64), neuron.form._replace(input_decay=4096)
    rest = neuron.initial(len(bias)).astype(np.int64)
    came_back(rest, bias, form)
    # And after an input, up or down, of any of these lengths, once its last spikes are gone.
    for current in (-12288, 12288):
        for length in (1, 5, 40):
            state = rest
            for _ in range(length):
                state, _, _ = fx.src_step(state, current >> form.shift, bias, form)
            for _ in range(400):
                state, _, _ = fx.src_step(state, 0, bias, form)
            came_back(state, bias, form)


def came_back(state: np.ndarray, bias: np.ndarray, form: fx.SrcForm) -> None:
    """Each of these cells is silent until it is in a state again that it was in before: for ever."""
    before, back = state, np.zeros(len(bias), bool)
    for t in range(1 << 14):
        state, sent, _ = fx.src_step(state, 0, bias, form)
        assert not sent.any(), bias[sent.astype(bool)]
        back |= (state == before).all(axis=0)
        if back.all():
            return
        if t & (t + 1) == 0:
            # What is compared with moves on, so that it lies on the cycle at last (Brent's way).
            before = state
    raise AssertionError(f"b_h {bias[~back]} do not come back")


@pytest.mark.parametrize("activation", ["parabola", "clip"])
@pytest.mark.parametrize("slow", fx.SRC_SLOW)
def test_the_first_pacemaker_is_the_one_that_the_source_states(activation: str, slow: int) -> None:
    stated = {("parabola", 7): -19035, ("parabola", 8): -22198, ("clip", 7): -21306, ("clip", 8): -24534}
    bias = np.arange(fx.SRC_BIAS_MAX[activation, slow], -16384)
    form = fx.SrcForm(0, 410, 0, fx.SRC_ACTIVATIONS[activation], slow, 0)
    state, fires = np.full((3, len(bias)), -4096, np.int64) * [[0], [1], [1]], np.zeros(len(bias), bool)
    for t in range(4000):
        state, sent, _ = fx.src_step(state, 0, bias, form)
        fires |= (sent > 0) & (t >= 1000)
    assert bias[fires][0] == stated[activation, slow]
    with pytest.raises(InputError, match="bias: value at"):
        Src(bias[fires][:1], activation=activation, slow=slow)


@settings(max_examples=20, deadline=None)
@given(network=src_networks(), seed=st.integers(0, 99), far=st.integers(0, 4))
def test_no_state_leaves_its_bound(network: Network, seed: int, far: int) -> None:
    layers = [
        replace(one, neuron=replace(one.neuron, shift=min(12, one.neuron.shift + far)))
        if isinstance(one.neuron, Src)
        else one
        for one in network.layers
    ]
    network = network.with_(layers=tuple(layers))
    inputs = inputs_for(network, 150, 2, 0.5, seed)
    seen, trace = extremes(network, inputs), emulate(network, inputs)
    for k, (bound, found) in enumerate(zip(overflow.bounds(network), seen, strict=True)):
        assert (found.u_low >= np.maximum(bound.u_low, -fx.V_MAX)).all()
        assert (found.u_high <= np.minimum(bound.u_high, fx.V_MAX)).all() or not bound.clips
        assert (found.v_low >= bound.v_low).all() and (found.v_high <= bound.v_high).all()
        assert bound.wraps.any() or trace.u_wraps[k] == 0
        assert bound.fires.any() or trace.spike_counts[k].sum() == 0


def test_a_current_that_can_saturate_does() -> None:
    """The bound is met: one unit less of shift and it is cleared, and the current stays within."""
    ones = np.ones((1, 600, 16), np.uint8)
    for decay, wraps in ((12, False), (11, True)):
        network = a_cell(96, shift=8, decay=decay)
        assert bool(overflow.bounds(network)[0].wraps.any()) is wraps
        assert (emulate(network, np.tile(ones, (1, 10, 1))).u_wraps[0] > 0) is wraps


def test_what_is_for_membranes_refuses_cells_by_name(tmp_path: Path) -> None:
    far = Synapse(100 * np.eye(16, dtype=int), 200)
    cell = a_cell().layers[0]
    network = Network((replace(cell, synapse=far), a_cell().layers[0]))
    tries = {
        "no node of NIR": lambda: write_nir(network, tmp_path / "graph.nir"),
        "among which relays": lambda: relay(network),
        "cannot be made coarser": lambda: retime(network),
        "no fewer bits": lambda: narrow_membranes(network, 12, [20, 20]),
        "decays are fixed": lambda: requantise_decays(network, 8),
        "trained from their model.pt": lambda: model_of(a_cell()),
        "counts the spikes of cells that send": lambda: a_cell(output_bits=4),
    }
    for text, attempt in tries.items():
        with pytest.raises(InputError, match=text):
            attempt()
    assert not list(tmp_path.iterdir())


def test_relays_pass_cells_by() -> None:
    """Of a layer of LIF neurons behind them with long delays of its own."""
    lif = Neuron(20, 4096, 4096)
    long = DenseLayer(
        Synapse(100 * np.eye(16, dtype=int)), lif, Synapse(64 * np.eye(16, dtype=int)[::-1], 100)
    )
    out = DenseLayer(Synapse(np.full((2, 16), 20)), Neuron(fx.VTH_MAX, 4096, 100))
    network = Network((a_cell(250, shift=6).layers[0], long, out))
    made, report = relay(network)
    assert report.layers[0].layer == 1
    inputs = inputs_for(network, 300, 1)
    one, other = emulate(network, inputs, ALL), emulate(made, inputs, ALL)
    np.testing.assert_array_equal(one.final_voltage[2], other.final_voltage[2])
    assert one.spike_counts[1].sum() > 20


def test_check_compares_a_model_with_its_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        SpikingRecurrentCell({}, 8, 12, delay=[0, 1] * 4, recurrent_delay=3, in_exp=4, output_bits=4),
        SpikingRecurrentCell({}, 12, 6, in_exp=4, weight_bits=4),
        Readout({"current_decay": 1.0, "voltage_decay": 0.03}, 6, 3),
    )
    with torch.no_grad():
        for block in net:
            block.synapse.weight.add_(0.6)
    rng = np.random.default_rng(0)
    inputs = ((rng.random((9, 60, 8)) < 0.2) * rng.integers(1, 16, (9, 60, 8))).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", inputs=inputs, labels=np.arange(9) % 3)
    found = check(net, task(f"{tmp_path / 'mine.npz'}:split=0,0,1"), 9)
    assert found and found.layers[0].spikes > 50 and found.layers[1].spikes > 50


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    network = a_cell(250, output_bits=8, shift=6, decision="last")
    trace = emulate(network, inputs_for(network, 200, 2), ALL)
    assert trace.spikes[0].max() > 100
    trace.save(tmp_path / "trace.nir", network)
    again = Trace.load(tmp_path / "trace.nir")
    assert set(again.slow) == {0} and again.compare(trace)


@pytest.mark.slow
def test_a_hundred_million_integers(tmp_path: Path) -> None:
    """Emulator against whole arrays: i, h, h_s and what is sent, of 1000 cells with recurrent delays."""
    rng = np.random.default_rng(7)
    size, steps = 1000, 25_000
    bias = rng.integers(fx.SRC_BIAS_MIN, fx.SRC_BIAS_MAX["parabola", 7], size)
    back = 2 * rng.integers(-30, 40, (size, size)) * (rng.random((size, size)) < 0.02)
    delay = np.broadcast_to(rng.integers(0, 60, size), (size, size))
    into = 2 * rng.integers(-20, 60, (size, 50))
    cells = DenseLayer(Synapse(into), Src(bias, shift=5), Synapse(back, delay))
    network = Network((cells,))
    inputs = (rng.random((1, steps, 50)) < 0.05).astype(np.uint8)
    trace = emulate(network, inputs, ALL)
    ring, state = np.zeros((64, size), np.int64), cells.neuron.initial(size).astype(np.int64)
    weights, wide_bias, compared = back.T.astype(np.int64), bias.astype(np.int64), 0
    for t in range(steps):
        a = ring[t % 64].copy()
        ring[t % 64] = 0
        if t:
            a += into @ inputs[0, t - 1].astype(np.int64)
        state, sent, _ = fx.src_step(state, a, wide_bias, cells.neuron.form)
        for j in np.flatnonzero(sent):
            ring[(t + 1 + delay[0, j]) % 64] += weights[j]
        for record, truth in zip((trace.current, trace.voltage, trace.slow), state, strict=True):
            np.testing.assert_array_equal(record[0][0, t], truth)
        np.testing.assert_array_equal(trace.spikes[0][0, t], sent)
        compared += 4 * size
    assert compared == 100_000_000 and 0.005 < trace.spikes[0].mean() < 0.2
