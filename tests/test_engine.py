"""Threads, chunks, parts, batches, word sizes and kept memory change nothing in what the engine computes."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from weakref import WeakKeyDictionary

import numba
import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain

from delaynet_lava import emulator
from delaynet_lava import fixedpoint as fx
from delaynet_lava.emulator import Extremes, emulate, extremes
from delaynet_lava.errors import InputError
from delaynet_lava.kernels import layer, spikes, training_pass
from delaynet_lava.kernels.events import (
    NO_SYNAPSES,
    event_list,
    largest_sum,
    longest_delay,
    ring_length,
    state_types,
)
from delaynet_lava.kernels.layer import NO_VALUES
from delaynet_lava.kernels.row_sums import add_rows
from delaynet_lava.kernels.state import Rows, Rule, advance
from delaynet_lava.kernels.steps import move
from delaynet_lava.kernels.threads import pieces_of
from delaynet_lava.kernels.vectors import (
    BLOCK,
    LANES,
    MANY,
    ROWS,
    above,
    add_words,
    in_blocks,
    multiply,
    multiply_at,
)
from delaynet_lava.network import Dense, Network, Neuron, Synapse

BOTH = ("spikes", "voltage")


def all_equal(a, b):
    return bool(a.require_equal(b)) and a.steps == b.steps


def joined(parts):
    """Extremes of all samples from those of some each."""
    return [Extremes(*map(np.concatenate, zip(*layer, strict=True))) for layer in zip(*parts, strict=True)]


@settings(max_examples=25, deadline=None)
@given(network=strategies.networks(overflow=True), seed=st.integers(0, 99))
def test_results_do_not_depend_on_threads_batches_or_parts(network, seed):
    inputs = strategies.inputs_for(network, steps=90, batch=5, seed=seed)
    whole, ends = emulate(network, inputs, BOTH), extremes(network, inputs)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert all_equal(whole, emulate(network, inputs, BOTH))
        np.testing.assert_equal(extremes(network, inputs), ends)
    finally:
        numba.set_num_threads(threads)
    batches = [inputs[a:b] for a, b in ((0, 1), (1, 4), (4, 5))]
    assert all_equal(whole, emulator.Trace.join([emulate(network, part, BOTH) for part in batches]))
    np.testing.assert_equal(joined([extremes(network, part) for part in batches]), ends)
    cuts = sorted(np.random.default_rng(seed).integers(1, 90, 3).tolist())
    pieces = [p for p in np.split(inputs, cuts, axis=1) if p.shape[1]]
    assert all_equal(whole, emulate(network, iter(pieces), BOTH))
    np.testing.assert_equal(extremes(network, iter(pieces)), ends)


@settings(max_examples=10, deadline=None)
@given(network=strategies.networks(), chunk=st.integers(1, 70))
def test_results_do_not_depend_on_the_chunk(network, chunk):
    inputs = strategies.inputs_for(network, steps=130, seed=chunk)
    whole = emulate(network, inputs, BOTH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator, "_CHUNK", chunk)
        assert all_equal(whole, emulate(network, inputs, BOTH))


@settings(max_examples=15, deadline=None)
@given(network=strategies.networks(overflow=True))
def test_narrow_and_wide_state_hold_the_same_integers(network):
    inputs = strategies.inputs_for(network)
    trace = emulate(network, inputs, BOTH)
    with pytest.MonkeyPatch.context() as patch:
        for wider in (np.int32, np.int64) if fits_32_bits(network) else (np.int64,):
            patch.setattr(layer, "state_types", lambda *_, kind=wider: (np.dtype(kind),) * 2)
            assert all_equal(trace, emulate(network, inputs, BOTH))


def fits_32_bits(network):
    return all(emulator.lay_out(one, 1).state[0].dtype == np.int32 for one in network.layers)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ring_of_16_bits_holds_what_fits_and_no_more(sign):
    # 129 senders of 254, all at once, are 2**15 - 2; with one more of 2 it is 2**15.
    for last, fits in ((0, True), (2, False)):
        weight = sign * np.array([[254] * 129 + [last]])
        network = Network((Dense(Synapse(weight), Neuron(vth=100, du=4096, dv=4096)),))
        inputs = np.ones((1, 3, 130), np.uint8)
        assert emulator.lay_out(network.layers[0], 1).state[2].dtype == (np.int16 if fits else np.int32)
        right = emulate(network, inputs, BOTH)
        assert all_equal(right, plain(network, inputs)[0])
        assert right.spikes[0].any() == (sign > 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer, "state_types", lambda *_: (np.dtype(np.int32), np.dtype(np.int16)))
            # -2**15 is a word of 16 bits, 2**15 is none.
            assert bool(right.compare(emulate(network, inputs, BOTH))) == (fits or sign < 0)


def test_a_narrow_state_where_it_does_not_fit_would_be_noticed():
    size = 2048  # -256 * 2**7 * 64 from each at once is -2**32, which 32 bits take for 0
    weight = np.full((1, size), -256)
    network = Network((Dense(Synapse(weight, weight_exp=7), Neuron(vth=100, du=4096, dv=4096)),))
    inputs = np.ones((1, 3, size), np.uint8)
    right = emulate(network, inputs, BOTH)
    assert right.u_wraps == [2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "state_types", lambda *_: (np.dtype(np.int32),) * 2)
        assert not right.compare(emulate(network, inputs, BOTH))


def test_synapses_are_sorted_once_and_forgotten_with_their_network(monkeypatch):
    calls = []
    # Of its own: what earlier tests left may be collected at any moment.
    monkeypatch.setattr(emulator, "_SORTED", WeakKeyDictionary())
    monkeypatch.setattr(emulator, "event_list", lambda *args: calls.append(args) or event_list(*args))
    network = Network((Dense(Synapse([[2, 4]]), Neuron(100, 4096, 100), Synapse([[6]], 3)),))
    inputs = np.ones((1, 9, 2), np.uint8)
    assert all_equal(emulate(network, inputs, BOTH), emulate(network, inputs, BOTH))
    assert len(calls) == 2
    other = Network((Dense(Synapse([[2, 6]]), Neuron(100, 4096, 100), network.layers[0].recurrent),))
    assert not emulate(network, inputs, BOTH).compare(emulate(other, inputs, BOTH))
    assert len(calls) == 3
    assert len(emulator._SORTED) == 3
    del network, other
    gc.collect()
    assert len(emulator._SORTED) == 0


@pytest.mark.parametrize("wrong", ["neurons", "steps", "spikes", "synapses", "batch"])
def test_what_is_written_by_address_must_have_the_shape_of_the_layout(wrong):
    network = Network((Dense(Synapse([[2] * 20] * 6), Neuron(100, 4096, 100)),))
    run = emulator.lay_out(network.layers[0], 2)
    bits, fired = np.zeros((2, 2, 6, 1), np.uint64)
    voltage, current = np.zeros((2, 2, 3, 16), np.int32)
    run.advance(bits, NO_VALUES, 0, 3, 0, fired, voltage, current)
    if wrong == "neurons":
        current = np.zeros((2, 3, 6), np.int32)
    elif wrong == "steps":
        voltage = np.zeros((2, 2, 16), np.int32)
    elif wrong == "spikes":
        fired = np.zeros((2, 5, 1), np.uint64)
    elif wrong == "synapses":
        wide = event_list(np.full((20, 20), 2), np.zeros((20, 20), int), 0)
        run = layer.LayerRun(2, 6, wide, NO_SYNAPSES, (4096, 100), 100 << 6, 0, (0, fx.V_MAX))
    else:
        u, v, pending = run.state
        run.state = u, v[:1], pending
    with pytest.raises(ValueError, match="shapes of one layout"):
        run.advance(bits, NO_VALUES, 3, 3, 3, fired, voltage, current)


def test_words_of_the_state_and_of_its_ring():
    assert state_types((2**31 - 2**23 - 1) >> 6) == (np.int32, np.int32)
    assert state_types(2**31 - 2**23 >> 6) == (np.int64, np.int64)
    assert state_types(0, 1 << 30) == (np.int64, np.int64)
    assert state_types(2**15 - 1, 2**30 - 1) == (np.int32, np.int16)
    assert state_types(2**15) == (np.int32, np.int32)


@pytest.mark.parametrize("delay, length", [(0, 2), (1, 4), (2, 4), (3, 8), (61, 64), (62, 64), (63, 128)])
def test_ring_reaches_from_now_past_the_largest_delay(delay, length):
    assert ring_length(delay) == length >= delay + 2


def test_synapses_are_rows_only_where_a_sender_has_one_delay_and_many_targets():
    weight = np.full((4, 3), 2)
    axonal = np.tile([0, 5, 62], (4, 1))
    assert event_list(weight, axonal, 0).whole
    synaptic = axonal.copy()
    synaptic[0, 1] = 6
    mixed = event_list(weight, synaptic, 1)
    assert not mixed.whole and mixed.weight.tolist() == [4] * 12
    assert mixed.delay.tolist() == [0, 0, 0, 0, 6, 5, 5, 5, 62, 62, 62, 62]
    assert not event_list(2 * np.eye(33, dtype=int), np.zeros((33, 33), int), 0).whole
    assert largest_sum(mixed) == 12 and largest_sum(event_list(weight, axonal, 0)) == 6
    weight[0, 1] = 0  # where there is no weight the delay says nothing
    assert event_list(weight, synaptic, 0).whole
    assert longest_delay(event_list(weight, synaptic, 0)) == 62
    single = event_list(-2 * np.eye(33, dtype=int), np.tile(np.arange(33), (33, 1)), 0)
    assert not single.whole and single.axonal and single.delay.tolist() == list(range(33))
    assert largest_sum(single) == 2 and not mixed.axonal


@pytest.mark.parametrize("largest, share", [(256, 1.0), (256, 0.02), (40_000, 1.0)])
def test_synapses_in_training_are_those_of_the_words(largest, share):
    rng = np.random.default_rng(0)
    words = rng.integers(-largest, largest, (40, 70), endpoint=True) * (rng.random((40, 70)) < share)
    words[0, 0] = largest
    delay = rng.integers(0, 63, 70).astype(np.int32)
    found = training_pass._synapses(words / 64, delay)
    expected = event_list(words, np.broadcast_to(delay, words.shape), 0)
    assert found.whole == expected.whole == (share == 1) and found.axonal and expected.axonal
    for name in ("rows", "start", "target", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    sends = words.any(axis=0)  # where there is no weight the delay says nothing
    np.testing.assert_array_equal(found.delay[sends], expected.delay[sends])
    assert largest_sum(found) == np.abs(words).sum(axis=1).max()


def test_words_too_large_for_16_bits():
    short = event_list(np.array([[-256]]), np.array([[0]]), 7)
    assert short.rows.dtype == np.int16 and largest_sum(short) == 1 << 15
    assert event_list(np.array([[257]]), np.array([[0]]), 7).rows.dtype == np.int32


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 200)), seed=st.integers(0, 99))
def test_bits_and_spikes_are_the_same(shape, seed):
    values = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)
    bits = spikes.pack(values)
    assert bits.shape == (*shape[:2], -(-shape[2] // 64))
    assert np.array_equal(spikes.unpack(bits, shape[2]), values)
    strided = np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1).astype(np.float32)
    again = np.empty_like(bits)
    assert spikes.pack_tensor(strided, again) and np.array_equal(again, bits)
    for kind in (np.float32, np.uint8, np.int32, bool):
        again[:] = 7
        assert spikes.pack_tensor(values.astype(kind), again) and np.array_equal(again, bits)
    back = np.full(shape, 7, np.float32)
    spikes.unpack_tensor(pieces_of(len(back)), bits, 1, back)
    assert np.array_equal(back[:, 1:], values[:, :-1]) and not back[:, 0].any()
    counts, totals = np.full(shape[:2], 7, np.float32), np.ones((shape[0], shape[2]), np.int64)
    spikes.count(bits, 1, counts)
    assert np.array_equal(counts[:, 1:], values[:, :-1].sum(axis=2)) and (counts[:, 0] == 7).all()
    spikes.tally(pieces_of(len(bits)), bits, 1, shape[1], totals)
    assert np.array_equal(totals, 1 + values[:, 1:].sum(axis=1))


@pytest.mark.parametrize("other", [2.0, 0.5, -1.0, np.nan])
def test_what_is_not_a_spike_is_not_packed(other):
    for place in ((0, 0, 0), (0, 2, 63), (1, 2, 69)):
        whole = np.zeros((2, 3, 70), np.uint8)
        whole[place] = 2
        assert not spikes.pack_tensor(whole, np.empty((2, 3, 2), np.uint64))
    values = np.zeros((2, 3, 70), np.float32)
    values[1, 2, 69] = other
    by_neuron = np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    for same in (values, by_neuron):
        assert not spikes.pack_tensor(same, np.empty((2, 3, 2), np.uint64))


@numba.njit
def product(left, right, out):
    multiply_at(
        len(left), left.ctypes.data, left.shape[1], right.ctypes.data, right.shape[1], 0, right.shape[0],
        out.ctypes.data, out.shape[1],
    )  # fmt: skip


@pytest.mark.parametrize("rows", [ROWS, ROWS + MANY, ROWS + 2 * MANY])
@pytest.mark.parametrize("depth, columns", [(1, 1), (2, 125), (40, 64), (125, 125), (7, 65)])
def test_a_product_in_vectors_is_the_product(rows, depth, columns):
    rng = np.random.default_rng(depth)
    left = rng.standard_normal((rows, depth + 5)).astype(np.float32)
    right = rng.standard_normal((depth, columns)).astype(np.float32)
    blocks = in_blocks(right)
    out = np.full((rows, blocks.shape[0] * BLOCK), np.nan, np.float32)
    (multiply if rows == ROWS else product)(left, blocks, out)
    expected = left[:, :depth].astype(float) @ right
    assert np.allclose(out[:, :columns], expected, rtol=1e-5, atol=1e-5)
    assert not out[:, columns:].any()
    assert not np.allclose(out[:, :columns], expected[::-1], atol=1e-5)


@pytest.mark.parametrize("width", [1, 4, 5, 8, 11])
def test_rows_added_in_vectors_are_those_of_the_words(width):
    rng = np.random.default_rng(width)
    rows = rng.integers(-99, 99, (32, width * LANES)).astype(np.float32)
    words = np.array([1 << 63 | 1 << 31 | 0b1011, 0, 1], np.uint64)
    totals = np.ones((3, width * LANES), np.float32)
    add = numba.njit(lambda *given: add_rows(*given))
    add(totals, rows, 5, np.array([25, 0, 59], np.int32), words)
    assert np.array_equal(totals[0], 1 + sum(rows[(30 + k) % 32] for k in (0, 1, 3, 31, 63)))
    assert (totals[1] == 1).all() and np.array_equal(totals[2], 1 + rows[0])


@pytest.mark.parametrize(
    "total, row", [(np.int16, np.int16), (np.int32, np.int16), (np.int64, np.int16), (np.int64, np.int32)]
)
def test_words_added_in_vectors_keep_their_sign(total, row):
    info = np.iinfo(row)
    rows = np.random.default_rng(0).integers(info.min, info.max, (3, 80), row, endpoint=True)
    totals = np.arange(160, dtype=total).reshape(2, 80)
    add = numba.njit(lambda totals, rows: add_words(totals, 1, rows, 2))
    add(totals, rows)
    assert np.array_equal(totals[0], np.arange(80))
    assert np.array_equal(totals[1], (np.arange(80, 160) + rows[2].astype(np.int64)).astype(total))


@numba.njit
def advanced(u, v, slot, bias, u_out, v_out, counts, du, dv, unit_exp, limit, each):
    rows = Rows(
        u.ctypes.data, v.ctypes.data, slot.ctypes.data, bias.ctypes.data,
        u_out.ctypes.data, v_out.ctypes.data, counts.ctypes.data,
    )  # fmt: skip
    own = each.ctypes.data if each.size else 0
    advance(u, slot, u.size // LANES, rows, Rule(du, dv, unit_exp, limit, own))


@pytest.mark.parametrize("word, ring", [(np.int32, np.int16), (np.int32, np.int32), (np.int64, np.int64)])
@pytest.mark.parametrize("bits", [24, 9])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("du, dv", [(4096, 0), (4096, 41), (4096, 4096), (0, 4096), (700, 41), (1, 4095)])
def test_a_step_in_vectors_is_the_plain_arithmetic(word, ring, bits, du, dv, own):
    size, rng = 80, np.random.default_rng(du + dv)
    each, last = np.zeros((2, 0), word), (du, dv)
    if own:  # of one decay each, drawn; those of all are not read
        du, dv = rng.choice([du, 5, 4096], size), rng.choice([dv, 900, 4095], size)
        each, last = np.stack([du, dv]).astype(word), (1, 2)
    unit_exp, limit = fx.membrane_grid(bits, 21 if bits < 24 else 23)
    u, v = rng.integers(-fx.V_MAX, fx.V_MAX, (2, size))
    # Beyond what wraps, and what a short word's sum with half the range no longer holds.
    slot, bias = (
        rng.integers(-(1 << 24), (1 << 25) - (1 << 17) - 1, size),
        rng.integers(-(1 << 18), 1 << 18, size),
    )
    slot[::2] >>= 12
    if ring == np.int16:
        slot = rng.integers(-(1 << 15), 1 << 15, size)
    v = np.clip(v, -limit, limit) >> unit_exp << unit_exp
    wide_u = fx.synaptic_current(u, slot, du)
    current = fx.wrap_u(wide_u)
    if bits < 24:
        wide_v = fx.narrow_membrane_update(v, current, bias, dv, unit_exp)
    else:
        wide_v = fx.membrane_update(v, current, bias, dv)
    state = [x.astype(kind) for x, kind in ((u, word), (v, word), (slot, ring), (bias, word))]
    u_out, v_out, counts = np.empty(size, np.int32), np.empty(size, np.int32), np.ones((2, LANES), word)
    advanced(*state, u_out, v_out, counts, *last, unit_exp, limit, each)
    membrane = np.clip(wide_v, -limit, limit)
    assert np.array_equal(state[0], current) and np.array_equal(u_out, current)
    assert np.array_equal(state[1], membrane) and np.array_equal(v_out, membrane)
    assert not state[2].any() and np.array_equal(state[3], bias)
    faults = fx.u_overflows(wide_u), fx.saturates(wide_v, limit)
    assert counts.sum(axis=1).tolist() == [LANES + int(fault.sum()) for fault in faults]
    # A ring of 16 bits can't bring so much that all of them happen.
    assert ring == np.int16 or (faults[0].any() and faults[1].any())


@pytest.mark.parametrize("word", [np.int32, np.int64])
def test_bits_of_membranes_are_those_above_the_threshold(word):
    membranes = np.random.default_rng(0).integers(-fx.V_MAX, fx.V_MAX, 128).astype(word)
    membranes[[0, 63, 64, 127]] = 501, 501, 500, 500
    found = numba.njit(lambda of, k: above(of, of.ctypes.data + of.itemsize * 64 * k, 500))
    bits = np.array([found(membranes, 0), found(membranes, 1)], np.uint64)
    assert np.array_equal(spikes.unpack(bits, 128), membranes > 500)
    assert bits[0] & np.uint64(1) and not bits[1] >> np.uint64(63)


def test_parts_of_another_batch_or_none_are_refused():
    network = Network((Dense(Synapse(np.array([[2]])), Neuron(vth=1, du=4096, dv=4096)),))
    part = np.zeros((2, 4, 1), np.uint8)
    with pytest.raises(InputError, match="change from 2 samples to 1"):
        emulate(network, iter([part, part[:1]]))
    with pytest.raises(InputError, match="no part"):
        emulate(network, iter([]))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("by", [-9, -1, 0, 1, 3])
def test_steps_are_moved(kind, by):
    rng = np.random.default_rng(by + 9)
    source = rng.integers(-1000, 1000, (3, 4, 6)).astype(kind).transpose(0, 2, 1)[:, :, :3]
    target, expected = np.full((3, 6, 3), 7, np.float32), np.zeros((3, 6, 3), np.float32)
    move(source, by, np.float32(0.25), target)
    for t in range(6):
        if 0 <= t - by < 6:
            expected[:, t] = source[:, t - by] / 4
    np.testing.assert_array_equal(target, expected)


def test_a_stream_is_taken_part_by_part():
    network = Network((Dense(Synapse(np.array([[64]])), Neuron(vth=0, du=4096, dv=4096)),))
    taken = []

    def parts():
        for k in range(200):
            taken.append(k)
            yield np.ones((1, 100, 1), np.uint8)

    trace = emulate(network, parts(), record=())
    assert trace.steps == 20_000 and len(taken) == 200
    assert trace.spike_counts[0].tolist() == [19_999] and trace.spikes == {}


def peak_memory(parts):
    """Bytes that an emulation of so many parts of 500 steps takes at most."""
    network = Network((Dense(Synapse(np.full((30, 20), 64)), Neuron(vth=0, du=4096, dv=4096)),))
    emulate(network, np.ones((2, 1, 20), np.uint8))
    tracemalloc.start()
    emulate(network, (np.ones((2, 500, 20), np.uint8) for _ in range(parts)), record=())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_stream_takes_no_more_memory_when_it_is_longer():
    # What Python itself holds differs by some 30 kB from run to run, and by 80 where its tables happen to
    # grow just then; memory that grows with the stream is there each time.
    long, short = (min(peak_memory(parts) for _ in range(3)) for parts in (200, 10))
    assert long < 1.1 * short + 65536


LONG_TRAINING_STEP = """
import resource, torch
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.training import delaynet
from delaynet_lava.training.recipe_file import load_recipe

task = CueAccumulation(7, 30_000 - 1050, 0)
spikes, labels = task.batch("train", 0, 64)
net = delaynet.build(load_recipe("loihi2"), task, 0)
hidden = net[0](torch.from_numpy(spikes).transpose(1, 2).to(torch.float32))
assert hidden.shape == (64, 125, 30_000)
population = hidden.sum(dim=1)
loss = torch.nn.functional.cross_entropy(net[1](hidden)[..., -1], torch.from_numpy(labels))
loss = loss + 1e-6 * (population[:, 1:] - population[:, :-1]).square().sum(1).mean()
loss.backward()
assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_training_on_30000_steps_stays_below_4_gib():
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    result = subprocess.run(
        [sys.executable, "-c", LONG_TRAINING_STEP], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 4 * 2**30
