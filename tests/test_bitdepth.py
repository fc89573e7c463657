"""Longest sequences of a membrane of few bits, against a loop over one number."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from delaynet_lava.analysis import bitdepth
from delaynet_lava.analysis.bitdepth import draw, layer_memory, max_sequence_length
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network, Neuron, Synapse

TAUS, BITS = range(1, 2001), range(2, 25)


@numba.njit
def plain_steps(tau_ms, bits, dt_ms):
    value = float(2**bits - 1)
    steps = 0
    while value >= 1:
        value = float(int(value * math.exp(-dt_ms / tau_ms)))
        steps += 1
    return steps


def test_every_tau_to_2000_ms_at_every_width_to_24_bits():
    found = max_sequence_length(np.array(TAUS)[:, None], np.array(BITS))
    assert found.bound.shape == found.empirical.shape == (2000, 23)
    steps = [[plain_steps(float(tau), n, 1.0) for n in BITS] for tau in TAUS]
    np.testing.assert_array_equal(found.empirical, steps)
    bound = [[tau * math.log(2**n - 1) for n in BITS] for tau in TAUS]
    np.testing.assert_allclose(found.bound, bound, rtol=1e-14)
    # One step may be under way when the bound is reached.
    assert (found.empirical <= found.bound + 1).all()


def test_the_comparison_sees_a_rounding_that_is_not_down(monkeypatch):
    monkeypatch.setattr(bitdepth.np, "floor", np.trunc)
    assert max_sequence_length(50, 8).empirical == plain_steps(50.0, 8, 1.0)
    monkeypatch.setattr(bitdepth.np, "floor", lambda x: np.trunc(x - 0.1))
    assert max_sequence_length(50, 8).empirical != plain_steps(50.0, 8, 1.0)


def test_the_papers_membrane():
    """6 bits and 20.6 ms hold 85 ms; with a step of 0.5 ms the bound stays."""
    assert float(max_sequence_length(20.6, 6).bound) == pytest.approx(85.35, abs=0.01)
    half = max_sequence_length(20.6, [6, 12], dt_ms=0.5)
    np.testing.assert_array_equal(half.bound, max_sequence_length(20.6, [6, 12]).bound)
    assert half.empirical.tolist() == [plain_steps(20.6, n, 0.5) / 2 for n in (6, 12)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((0, 8), "tau: 0.0 is not positive"),
        (([5, -1], 8), "tau: -1.0 is not positive"),
        ((np.nan, 8), "tau: nan is not positive"),
        ((5, 0), "bits: 0 is not 1 to 52"),
        ((5, [8, 2.5]), "bits: 2.5 is not 1 to 52"),
        ((5, 8, 0.0), "dt: 0.0 is not positive"),
    ],
)
def test_what_has_no_length_is_refused(arguments, problem):
    with pytest.raises(InputError, match=problem):
        max_sequence_length(*arguments)


def network_of(*dvs: int) -> Network:
    narrow = {"membrane_bits": 8, "full_scale_exp": 16}
    neurons = [Neuron(100, 4096, dv, **(narrow if k else {})) for k, dv in enumerate(dvs)]
    return Network(tuple(Dense(Synapse([[2]]), neuron) for neuron in neurons), dt_ms=2.0)


def test_layers_remember_with_their_own_word_and_decay():
    first, second, endless, none = layer_memory(network_of(132, 203, 0, 4096))
    assert (first.bits, second.bits) == (23, 7)
    assert first.tau_ms == pytest.approx(-2 / math.log(1 - 132 / 4096))
    assert second.empirical_ms == 2 * plain_steps(second.tau_ms, 7, 2.0)
    assert endless.bound_ms == np.inf
    assert (none.bound_ms, none.empirical_ms) == (0, 2)


def test_the_figure_marks_layers_and_task():
    axes = draw(network_of(132, 203, 0), 2250.0, taus_ms=(20.6, 100.0)).axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert [text.split(":")[0] for text in labels] == ["tau 20.6 ms", "tau 100 ms", "layer 0", "layer 1"]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed[0].get_ydata(), max_sequence_length(20.6, range(2, 25), 2.0).bound)
    assert len(draw().axes[0].lines) == 2 * len(bitdepth.TAUS_MS)
