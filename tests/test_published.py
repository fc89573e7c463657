"""The published cue network: its own outputs from floats, and what integers and relays make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.float_network import FloatNetwork, read_published
from delaynet_lava.export.relay import relay
from delaynet_lava.export.retime import retime
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.tasks.rebinned import Rebinned
from delaynet_lava.trace import decide

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "published_cue_125.npz"


@pytest.fixture(scope="module")
def published() -> tuple[FloatNetwork, dict[str, np.ndarray]]:
    return read_published(DATA)


def test_floats_reproduce_the_published_figures(published):
    network, data = published
    assert data["x"].shape == (24, 2250, 40)
    for dtype, tolerance in ((np.float32, 1e-3), (np.float64, 1e-4)):
        membrane, spikes = network.run(data["x"], dtype)
        assert membrane.dtype == dtype
        assert np.allclose(membrane, data["out_membrane"], rtol=0, atol=tolerance)
        assert np.array_equal(spikes.sum(axis=2), data["hidden_spikes_per_step"])
        assert np.array_equal(spikes.sum(axis=1), data["hidden_spikes_per_neuron"])
        assert np.array_equal(membrane.argmax(axis=1), data["y"])


def test_the_comparison_notices_one_lag_and_the_spikes_of_step_0(published):
    """Negative control: lags of one neuron off by one step, and delivery of what step 0 sent."""
    network, data = published
    x = data["x"][:4, :400]
    right = network.run(x)[1]
    assert np.array_equal(right.sum(axis=2), data["hidden_spikes_per_step"][:4, :400])
    lag = network.lag.copy()
    lag[np.argmax(right.sum(axis=(0, 1)))] += 1
    changed = FloatNetwork(**{**vars(network), "lag": lag})
    assert not np.array_equal(changed.run(x)[1], right)

    # Every neuron fires at once and sends with a lag of 1: in step 0 that never arrives, in step 1 it does.
    parts = {"w_in": np.ones((125, 40)), "b_rec": np.zeros(125), "lag": np.ones((125, 125), int)}
    joined = FloatNetwork(**{**vars(network), **parts})
    alone = FloatNetwork(**{**vars(joined), "w_rec": np.zeros((125, 125))})
    for first, arrives in ((0, False), (1, True)):
        burst = np.zeros((1, first + 2, 40), np.uint8)
        burst[:, first, 0] = 1
        one, two = joined.run(burst)[1], alone.run(burst)[1]
        assert one[0, first].all()
        assert np.array_equal(one, two) != arrives


def test_integers_use_the_words_and_decide_as_the_floats(published):
    network, data = published
    integers = network.quantise()
    hidden, readout = integers.layers
    assert (hidden.recurrent.weight.min(), readout.synapse.weight.max()) == (-256, 254)
    assert np.abs(hidden.synapse.weight).max() > 128
    assert hidden.neuron.dv == round(4096 * (1 - np.exp(-1 / network.tau_rec_ms)))
    assert readout.neuron.dv == round(4096 * (1 - np.exp(-1 / network.tau_out_ms)))
    assert hidden.neuron.vth == 707
    assert sorted(np.unique(hidden.recurrent.delay)) == [0, 79, 99]
    unit = hidden.neuron.vth / network.threshold
    for synapse, weight in ((hidden.synapse, network.w_in), (hidden.recurrent, network.w_rec)):
        value = (synapse.weight.astype(float) * 2**synapse.weight_exp) / unit
        assert np.abs(value - weight)[weight != 0].max() < 1.1 * 2**synapse.weight_exp / unit
    assert np.abs(hidden.neuron.bias / 64 / unit - network.b_rec).max() < 1e-4

    trace = delaynet_lava.emulate(integers, data["x"], ("spikes",))
    assert np.array_equal(decide(integers, trace), data["y"])
    assert trace.u_wraps == [0, 0] and trace.v_saturations == [0, 0]
    # Rounded weights move single spikes, not how much fires.
    assert trace.spike_counts[0].sum() == pytest.approx(data["hidden_spikes_per_step"].sum(), rel=0.05)


@pytest.mark.parametrize(("bits", "added"), [(8, 375), (7, 250), (6, 125)])
def test_relays_change_no_decision_spike_or_membrane(published, bits, added):
    """One chain of two hops a neuron; a threshold of 707 takes 3 senders of 254, 2 of 508, 1 of 1016."""
    network, data = published
    integers = network.quantise(bits)
    legal, report = relay(integers, load_profile("loihi2").get("delay_max"))
    m = 707 // (254 << (8 - bits)) + 1
    assert report.added == legal.layers[0].size - 125 == added == 125 * m * (2 - 1)
    x = data["x"][: 24 if bits == 8 else 4]
    one, two = (delaynet_lava.emulate(n, x, ("spikes", "voltage")) for n in (integers, legal))
    for k, size in enumerate((125, 2)):
        assert np.array_equal(one.spikes[k], two.spikes[k][:, :, :size])
        assert np.array_equal(one.voltage[k], two.voltage[k][:, :, :size])
    assert np.array_equal(decide(integers, one), decide(legal, two))
    clamped = integers.layers[0].recurrent
    clamped = type(clamped)(clamped.weight, np.minimum(clamped.delay, 62), clamped.weight_exp)
    wrong = type(integers.layers[0])(integers.layers[0].synapse, integers.layers[0].neuron, clamped)
    other = delaynet_lava.emulate(integers.with_(layers=(wrong, integers.layers[1])), x[:2])
    assert not np.array_equal(other.spikes[0], one.spikes[0][:2])


def test_only_the_soft_reset_stays_against_the_rules(published):
    chip = load_profile("loihi2")
    integers = published[0].quantise()
    errors = lambda network: {f.rule for f in check(network, chip) if f.severity == "error"}  # noqa: E731
    assert errors(integers) == {"delay-range", "reset-kind"}
    assert errors(relay(integers)[0]) == {"reset-kind"}


def test_accuracy_on_fresh_samples_at_each_stage(published):
    network, _ = published
    task, samples = CueAccumulation(seed=11), 64
    x, y = task.batch("test", 0, samples)
    decisions = network.run(x)[0].argmax(axis=1)
    integers = network.quantise()
    result = evaluate(integers, task, samples)
    coarse, report = retime(integers)
    slow = evaluate(coarse, Rebinned(task, report.factor), samples)
    assert report.factor == 2
    for right in (decisions == y, result.decisions == y, slow.decisions == y):
        assert right.mean() > 0.9
    assert np.mean(decisions == result.decisions) > 0.9
    legal = evaluate(relay(integers)[0], task, samples)
    assert np.array_equal(legal.decisions, result.decisions)


def test_what_cannot_be_quantised_or_read_is_refused(tmp_path):
    some = np.array([[0.5, -0.2], [0.1, 0.3]])
    parts = dict(w_in=some, w_rec=some, w_out=some, lag=np.full((2, 2), 90), b_rec=some[0], b_out=some[1])
    network = FloatNetwork(**parts, tau_rec_ms=20.0, tau_out_ms=20.0, threshold=1.0)
    legal, _ = relay(network.quantise(5))
    assert legal.layers[0].recurrent.max_delay <= 62
    for change, problem in (
        ({"w_rec": some * 0}, "recurrent weights: are 0.0 to 0.0"),
        ({"b_rec": some[0] * 1e6}, "layer 0: bias"),
        ({"threshold": 1e-3}, "weight_exp: 10 exceeds 7"),
    ):
        with pytest.raises(InputError, match=problem):
            FloatNetwork(**{**vars(network), **change}).quantise()
    with pytest.raises(InputError, match="9 is not 2 to 8"):
        network.quantise(9)
    path = tmp_path / "published.npz"
    with pytest.raises(InputError, match="is not a file"):
        read_published(path)
    np.savez(path, w_in=some)
    with pytest.raises(InputError, match="is not the published network"):
        read_published(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not the published network"):
        read_published(path)
