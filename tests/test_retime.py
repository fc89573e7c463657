"""A coarser time step: what it keeps, what it changes, and that the report says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from strategies import inputs_for

import delaynet_lava
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.retime import retime
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.tasks.rebinned import Rebinned, at_step_of, rebin


def network(delays=(0, 79, 99), dt_ms: float = 1.0, **neuron) -> Network:
    rng = np.random.default_rng(0)
    size = len(delays)
    back = Synapse(2 * rng.integers(10, 60, (size, size)), np.tile(delays, (size, 1)))
    hidden = Dense(
        Synapse(2 * rng.integers(10, 60, (size, 40))),
        Neuron(**({"vth": 300, "du": 4096, "dv": 231} | neuron)),
        back,
    )
    readout = Neuron(131071, 4096, 271)
    return Network((hidden, Dense(Synapse(2 * rng.integers(-9, 9, (2, size))), readout)), dt_ms=dt_ms)


@pytest.mark.parametrize(
    ("longest_lag", "factor"),
    [(64, 2), (126, 2), (127, 3), (190, 3), (191, 4), (500, 8), (508, 9), (32768, 517)],
)
def test_the_factor_is_the_smallest_that_fits(longest_lag, factor):
    """Lags round half up: 127 / 2 is 64 new steps, one too many; 190 / 3 is 63, 500 / 8 is 63."""
    coarse, report = retime(network((0, longest_lag - 1)))
    assert report.factor == factor
    assert coarse.layers[0].recurrent.max_delay <= 62
    fits = [k for k in range(1, factor) if int(longest_lag / k + 0.5) <= 63]
    assert fits == []


def test_lags_decays_and_biases_are_recomputed():
    bias = np.array([3, -40, 90])
    old = network((0, 79, 100), bias=bias, bias_exp=0, dt_ms=0.5)
    coarse, report = retime(old)
    hidden = coarse.layers[0]
    assert (report.factor, coarse.dt_ms) == (2, 1.0)
    assert np.array_equal(hidden.recurrent.delay[0] + 1, [1, 40, 51])
    assert not np.any(hidden.synapse.delay)
    assert hidden.neuron.dv == 4096 - round(4096 * ((4096 - 231) / 4096) ** 2)
    assert hidden.neuron.du == 4096
    assert hidden.neuron.vth == 300
    q = (4096 - 231) / 4096
    assert np.array_equal(hidden.neuron.bias, np.rint(bias * (1 + q)))
    assert np.array_equal(hidden.recurrent.weight, old.layers[0].recurrent.weight)
    line = report.layers[0]
    # Lags of 1 and 101 old steps of 0.5 ms become 2 and 102 of them.
    assert (line.lags, line.lag_error_ms) == (3, 0.5)
    assert line.tau_v_ms == pytest.approx(-0.5 / np.log(q))
    assert line.tau_v_new_ms == pytest.approx(line.tau_v_ms, rel=2e-3)
    assert line.tau_v_new_ms != line.tau_v_ms
    assert (line.tau_u_ms, line.tau_u_new_ms) == (0.0, 0.0)
    assert line.bias_error == pytest.approx(
        np.abs(hidden.neuron.bias - bias * (1 + q)).max() / (300 << 6), abs=1e-12
    )
    text = "\n".join(report.lines())
    assert "time step 0.5 ms -> 1 ms (2 steps become one); this is not exact" in text
    assert "of the lags change by up to 0.5 ms" in text
    content = json.loads(json.dumps(report.as_dict()))
    assert (content["kind"], content["factor"], content["layers"][0]["lag_error_ms"]) == ("retime", 2, 0.5)


def test_a_lasting_current_lowers_the_threshold_instead_of_raising_weights():
    """A spike's whole charge over the threshold stays: 1 / (1 - p) against 1 / (1 - p^k)."""
    coarse, _ = retime(network(du=1024, vth=30000))
    p = 1 - 1024 / 4096
    assert coarse.layers[0].neuron.vth == round(30000 / (1 + p))
    assert coarse.layers[0].neuron.du == 4096 - round(4096 * p**2)
    assert coarse.layers[1].neuron.vth == 131071
    charge = 4096 / coarse.layers[0].neuron.du / coarse.layers[0].neuron.vth
    assert charge == pytest.approx(4096 / 1024 / 30000, rel=1e-3)


def test_a_membrane_is_followed_at_the_coarser_step():
    """Bias alone charges it: the coarse membrane is the fine one at every k-th step, up to rounding."""
    old = network((0, 300), bias=np.array([50, -70]), vth=100000)
    coarse, report = retime(old)
    silence = np.zeros((1, 500, 40), np.uint8)
    fine = delaynet_lava.emulate(old, silence, ("voltage",)).voltage[0][0]
    slow = delaynet_lava.emulate(coarse, rebin(silence, report.factor)[0], ("voltage",)).voltage[0][0]
    every = fine[report.factor - 1 :: report.factor]
    assert np.allclose(slow[: len(every)], every, rtol=0.01)
    assert not np.allclose(slow[: len(every)], fine[: len(every)], rtol=0.01)


def test_a_bias_that_outgrows_its_mantissa_moves_to_the_next_exponent():
    coarse, _ = retime(network(bias=np.array([4095, 1, 0]), bias_exp=5))
    assert (coarse.layers[0].neuron.bias_exp, coarse.layers[0].neuron.bias.max()) == (6, 3980)
    with pytest.raises(InputError, match=r"layer 0: bias: 1018759 at the coarser step exceeds .* 524160"):
        retime(network(bias=np.array([4095, 1, 0]), bias_exp=7))


def test_short_delays_change_nothing():
    old = network((0, 61, 62))
    same, report = retime(old)
    assert same is old
    assert (report.factor, list(report.lines())) == (1, ["no delay exceeds 62, the time step stays 1 ms"])


def test_spikes_merge_and_are_counted():
    spikes = np.zeros((1, 7, 2), np.uint8)
    spikes[0, [0, 1, 2, 6], 0] = 1
    spikes[0, [3, 4], 1] = 1
    binned, merged = rebin(spikes, 3)
    assert np.array_equal(binned[0], [[1, 0], [0, 1], [1, 0]])
    assert merged == 3
    same, none = rebin(spikes.astype(bool), 1)
    assert np.array_equal(same, spikes) and none == 0
    for wrong, factor in ((spikes[0], 2), (spikes.astype(float), 2), (spikes + 1, 2), (spikes, 0)):
        with pytest.raises(InputError):
            rebin(wrong, factor)


def test_a_task_runs_at_the_coarser_step():
    coarse, report = retime(network())
    task = Rebinned(CueAccumulation(1, 155, seed=3), report.factor)
    assert task.steps == 153
    result = evaluate(coarse, task, 4)
    assert result.steps == 153
    direct, labels = CueAccumulation(1, 155, seed=3).batch("test", 0, 4)
    assert np.array_equal(labels, result.labels)
    assert task.spikes == direct.sum()
    assert 0 < task.merged == direct.sum() - rebin(direct, 2)[0].sum()


def test_values_of_an_encoder_are_refused():
    old = network()
    encoded = Network((Encoder(Neuron(30, 4096, 800), 40), *old.layers))
    assert inputs_for(encoded).max() > 1
    with pytest.raises(InputError, match="layer 0: is an encoder"):
        retime(encoded)
    with pytest.raises(InputError, match="delay_max: -1"):
        retime(old, -1)


def test_a_task_comes_at_the_networks_own_step(tmp_path, capsys):
    task = CueAccumulation(1, 155, seed=3)
    assert at_step_of(network().dt_ms, task) is task
    coarse = at_step_of(2.0, task)
    assert (coarse.steps, coarse.factor) == (153, 2)
    for dt in (0.5, 1.5):
        with pytest.raises(InputError, match="no whole number"):
            at_step_of(dt, task)
    path, report = tmp_path / "net.h5", tmp_path / "r.json"
    delaynet_lava.save(retime(network())[0], path)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(path), "--samples", "2", "--task", "cue:cues=1,wait_ms=155", "--json", str(report)])
    assert stop.value.code == 0
    assert json.loads(report.read_text())["steps"] == 153
