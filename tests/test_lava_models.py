"""The fast CPU models of DelayDense against Lava's, step by step without a simulator around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("lava.magma", reason="lava-nc is not installed")

from lava.magma.core.run_conditions import RunSteps
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDelayDenseModelFloat
from lava.proc.dense.process import DelayDense
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF
from lava.utils.weightutils import SignMode
from lava_tools import bare_model
from strategies import synapses

from delaynet_lava import lava
from delaynet_lava.errors import InputError
from delaynet_lava.lava.synapses import FastDelayDenseFloat


@given(st.data())
def test_the_fast_delay_model_is_lavas(data) -> None:
    post, pre = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    synapse = data.draw(synapses(post, pre, max_delay=12))
    graded = data.draw(st.booleans())
    process = DelayDense(
        weights=synapse.weight.astype(int) + data.draw(st.sampled_from([0, 1])),
        delays=synapse.delay.astype(int),
        max_delay=data.draw(st.sampled_from([0, 12, 62])),
        weight_exp=data.draw(st.integers(-5, 7)),
        num_weight_bits=data.draw(st.sampled_from([8, 5])),
        sign_mode=data.draw(st.sampled_from([None, SignMode.MIXED])),
        num_message_bits=32 if graded else 0,
    )
    stock, fast = (bare_model(model, process) for model in (PyDelayDenseModelBitAcc, lava.FastDelayDense))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    # Graded spikes of 2^29 overflow in Lava: in a product already, or not before the sum.
    largest = data.draw(st.sampled_from([9, 1 << 29])) if graded else 1
    changed = rng.integers(0, 30)
    for step in range(60):
        spikes = (rng.random(pre) < 0.3) * (rng.integers(-largest, largest + 1, pre))
        for model in (stock, fast):
            if step == changed:
                model.weights[:] = np.roll(model.weights, 1)
                model.on_var_update()
            model.s_in.send(spikes.astype(np.int32))
            model.run_spk()
        assert (stock.a_out.recv() == fast.a_out.recv()).all()
        assert (stock.a_buff == fast.a_buff).all()


@given(st.data())
def test_the_fast_float_model_is_lavas_where_no_sum_is_rounded(data) -> None:
    post, pre = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    synapse = data.draw(synapses(post, pre, max_delay=12))
    graded = data.draw(st.booleans())
    process = DelayDense(
        weights=synapse.weight / 64,
        delays=synapse.delay.astype(int),
        max_delay=data.draw(st.sampled_from([0, 12, 70])),
        num_message_bits=16 if graded else 0,
    )
    stock, fast = (bare_model(model, process) for model in (PyDelayDenseModelFloat, FastDelayDenseFloat))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    changed = rng.integers(0, 30)
    for step in range(90):
        spikes = (rng.random(pre) < 0.3) * (rng.integers(-9, 10, pre) / 4 if graded else 1.0)
        for model in (stock, fast):
            if step == changed:
                model.weights[:] = np.roll(model.weights, 1)
                model.delays[:] = np.roll(model.delays, 1)
                model.on_var_update()
            model.s_in.send(spikes)
            model.run_spk()
        assert (stock.a_out.recv() == fast.a_out.recv()).all()
        assert (stock.a_buff == fast.a_buff).all()


def currents(model: type, process: DelayDense, spikes: np.ndarray, later: int = 0) -> np.ndarray:
    """What a model sends in each step, (steps, post); ``later`` is added to its delays."""
    made = bare_model(model, process)
    made.delays += later
    sent = []
    for step in spikes:
        made.s_in.send(step)
        made.run_spk()
        sent.append(made.a_out.recv())
    return np.array(sent)


def test_the_fast_float_model_differs_from_lavas_by_rounding_only() -> None:
    rng = np.random.default_rng(1)
    weights, delays = rng.normal(size=(40, 300)), rng.integers(0, 20, (40, 300))
    process = DelayDense(weights=weights, delays=delays, max_delay=21, num_message_bits=8)
    spikes = (rng.random((60, 300)) < 0.2) * rng.normal(size=(60, 300))
    stock = currents(PyDelayDenseModelFloat, process, spikes)
    fast = currents(FastDelayDenseFloat, process, spikes)
    np.testing.assert_allclose(fast, stock, rtol=0, atol=1e-12)
    # It is rounding that they differ by, and a delay that is off by one is no rounding.
    assert (fast != stock).any()
    assert np.abs(currents(FastDelayDenseFloat, process, spikes, later=1) - stock).max() > 1


@pytest.mark.parametrize(
    ("stock", "fast", "limit"),
    [(PyDelayDenseModelBitAcc, lava.FastDelayDense, 63), (PyDelayDenseModelFloat, FastDelayDenseFloat, 80)],
)
def test_the_fast_delay_model_names_a_delay_that_lavas_leaves_out(stock, fast, limit) -> None:
    def made(model: type, delay: int, max_delay: int) -> Any:
        process = DelayDense(weights=np.ones((1, 1), int), delays=np.array([[delay]]), max_delay=max_delay)
        built = bare_model(model, process)
        built.s_in.send(np.ones(1, np.int32))
        return built

    left_out = made(stock, 5, 3)
    for _ in range(8):
        left_out.run_spk()
    assert not left_out.a_buff.any()
    with pytest.raises(ValueError, match="delay 5, but at most 3"):
        made(fast, 5, 3).run_spk()
    with pytest.raises(ValueError, match=f"delay 81, but at most {limit}"):
        made(fast, 81, 80).run_spk()


def test_the_run_configuration_picks_the_model_of_the_arithmetic() -> None:
    process = DelayDense(weights=np.ones((1, 1), int), delays=np.zeros((1, 1), int))
    both = [PyDelayDenseModelFloat, PyDelayDenseModelBitAcc]
    chosen = {
        (models, tag): lava.run_config(models, tag).select(process, both)
        for models in ("fast", "stock")
        for tag in ("fixed_pt", "floating_pt")
    }
    assert chosen == {
        ("fast", "fixed_pt"): lava.FastDelayDense,
        ("fast", "floating_pt"): FastDelayDenseFloat,
        ("stock", "fixed_pt"): PyDelayDenseModelBitAcc,
        ("stock", "floating_pt"): PyDelayDenseModelFloat,
    }
    with pytest.raises(InputError, match="'float' is not known"):
        lava.run_config(select_tag="float")


def simulated(models: str, delay: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Membranes, currents and what is under way after 40 steps of a recurrent graph in floats."""
    rng = np.random.default_rng(2)
    source = RingBuffer(data=(rng.random((4, 40)) < 0.3).astype(float))
    into = DelayDense(weights=rng.integers(-20, 40, (6, 4)) / 64, delays=rng.integers(0, 9, (6, 4)))
    neuron = LIF(shape=(6,), du=0.5, dv=0.25, vth=0.75)
    back = DelayDense(
        weights=rng.integers(-20, 20, (6, 6)) / 64, delays=rng.integers(0, 8, (6, 6)) + delay, max_delay=9
    )
    source.s_out.connect(into.s_in)
    into.a_out.connect(neuron.a_in)
    neuron.s_out.connect(back.s_in)
    back.a_out.connect(neuron.a_in)
    try:
        neuron.run(RunSteps(num_steps=40), lava.run_config(models, "floating_pt"))
        return neuron.v.get(), neuron.u.get(), back.a_buff.get()
    finally:
        neuron.stop()


def test_a_float_graph_runs_alike_with_both_models() -> None:
    stock, fast, other = simulated("stock", 0), simulated("fast", 0), simulated("fast", 1)
    for theirs, ours in zip(stock, fast, strict=True):
        assert (theirs == ours).all()
    assert stock[2].any()
    assert any((a != b).any() for a, b in zip(fast, other, strict=True))
