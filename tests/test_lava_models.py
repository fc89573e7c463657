"""The fast CPU model of DelayDense against Lava's, step by step without a simulator around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("lava.magma", reason="lava-nc is not installed")

from lava.proc.dense.models import PyDelayDenseModelBitAcc
from lava.proc.dense.process import DelayDense
from lava.utils.weightutils import SignMode
from lava_tools import bare_model
from strategies import synapses

from delaynet_lava import lava


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
        num_message_bits=16 if graded else 0,
    )
    stock, fast = (bare_model(model, process) for model in (PyDelayDenseModelBitAcc, lava.FastDelayDense))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    changed = rng.integers(0, 30)
    for step in range(60):
        spikes = (rng.random(pre) < 0.3) * (rng.integers(-9, 10, pre) if graded else 1)
        for model in (stock, fast):
            if step == changed:
                model.weights[:] = np.roll(model.weights, 1)
                model.on_var_update()
            model.s_in.send(spikes.astype(np.int32))
            model.run_spk()
        assert (stock.a_out.recv() == fast.a_out.recv()).all()
        assert (stock.a_buff == fast.a_buff).all()


def test_the_fast_delay_model_names_a_delay_that_lavas_leaves_out() -> None:
    process = DelayDense(weights=np.ones((1, 1), int), delays=np.full((1, 1), 5), max_delay=3)
    stock, fast = (bare_model(model, process) for model in (PyDelayDenseModelBitAcc, lava.FastDelayDense))
    for model in (stock, fast):
        model.s_in.send(np.ones(1, np.int32))
    for _ in range(8):
        stock.run_spk()
    assert not stock.a_buff.any()
    with pytest.raises(ValueError, match="delay 5, but at most 3"):
        fast.run_spk()
