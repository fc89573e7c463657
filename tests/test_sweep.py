"""Networks with fewer bits, and what a sweep over them reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from delaynet_lava.analysis.sweep import (
    KINDS,
    Point,
    clip_delays,
    draw,
    narrow_membranes,
    requantise_decays,
    requantise_weights,
    smallest_keeping,
    sweep,
)
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.extract import extract
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.tasks.cue import CueAccumulation

TASK = CueAccumulation(cues=1, wait_ms=150, seed=3)


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Network:
    return extract(load_model(repository / "delaynet_lava" / "models" / "cue_dense.pt"))


def matrices(network: Network) -> list[np.ndarray]:
    synapses = [s for layer in network.layers for s in (layer.synapse, layer.recurrent) if s is not None]
    return [synapse.weight.astype(np.int64) for synapse in synapses]


@settings(max_examples=30)
@given(networks(encoder=False, max_layers=2, max_neurons=10), st.integers(2, 8))
def test_weights_of_n_bits_are_the_nearest_of_any_power_of_two(network, bits):
    for before, after in zip(matrices(network), matrices(requantise_weights(network, bits)), strict=True):
        assert len(np.unique(after)) <= 2**bits
        units = [2**exp for exp in range(1, 10 - bits)]
        grids = [unit * np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) for unit in units]
        assert any(np.isin(after, grid).all() for grid in grids)
        nearest = [np.abs(before[..., None] - grid).min(axis=-1) for grid in grids]
        assert ((after - before) ** 2).sum() == min((gap**2).sum() for gap in nearest)
        if bits == 8:
            np.testing.assert_array_equal(after, before)


def test_decays_are_multiples_and_none_that_forgets_stops_forgetting():
    network = Network((Dense(Synapse([[2]]), Neuron(5, 4096, 132)), Dense(Synapse([[2]]), Neuron(5, 0, 9))))

    def decays(bits: int) -> list[tuple[int, int]]:
        layers = requantise_decays(network, bits).layers
        return [(layer.neuron.du, layer.neuron.dv) for layer in layers]

    assert decays(12) == [(4096, 132), (0, 9)]
    assert decays(8) == [(4096, 128), (0, 16)]
    assert decays(3) == [(4096, 512), (0, 512)]


def test_delays_are_clipped_in_every_synapse():
    delay = np.array([[0, 7], [30, 62]])
    weight = np.full((2, 2), 4)
    network = Network((Dense(Synapse(weight, delay), Neuron(5, 4096, 9), Synapse(weight, delay.T)),))
    (layer,) = clip_delays(network, 20).layers
    assert layer.synapse.delay.tolist() == [[0, 7], [20, 20]]
    assert layer.recurrent.delay.tolist() == [[0, 20], [7, 20]]


@pytest.mark.parametrize(
    ("change", "value", "problem"),
    [
        (requantise_weights, 1, "weight bits: 1 is outside 2 to 8"),
        (requantise_weights, 9, "weight bits: 9 is outside 2 to 8"),
        (requantise_decays, 0, "decay bits: 0 is outside 1 to 12"),
        (clip_delays, -1, "longest delay: -1 is outside 0"),
    ],
)
def test_widths_that_do_not_exist_are_refused(shipped, change, value, problem):
    with pytest.raises(InputError, match=problem):
        change(shipped, value)


class Watched(CueAccumulation):
    """A task that notes which samples were asked for."""

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((first, count))
        return super().batch(split, first, count)


class Choice(CueAccumulation):
    """The samples that scales are chosen on."""

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        return super().batch(split, 48 + first, count)


asked: list[tuple[int, int]] = []


def test_membranes_are_swept_with_scales_chosen_on_other_samples(shipped):
    task, seen = Watched(1, 150, 3), []
    asked.clear()
    points = sweep(shipped, "membrane-bits", [task], 48, (24, 10, 3), seen.append)
    assert asked == [(0, 48), (48, 48)]
    assert seen == points
    assert [point.value for point in points] == [24, 10, 3]
    for point in points:
        neurons = [layer.neuron for layer in point.network.layers]
        assert [neuron.membrane_bits for neuron in neurons] == [point.value] * 2
        assert tuple(neuron.full_scale_exp for neuron in neurons) == point.full_scale_exps
        assert evaluate(point.network, TASK, 48).accuracy == point.accuracy[0]
    assert points[0].right[0] == round(48 * evaluate(shipped, TASK, 48).accuracy)
    assert points[1].accuracy[0] > 0.9 > 0.75 > points[2].accuracy[0]
    # Full scales are those that threshold and readout suggest, and no other does better on the choice.
    assert points[1].full_scale_exps[0] in range(15, 19)
    chosen_on = Choice(1, 150, 3)
    best = evaluate(points[1].network, chosen_on, 48).accuracy
    hidden, readout = points[1].full_scale_exps
    for other in range(readout - 2, readout + 2):
        narrow = narrow_membranes(shipped, 10, (hidden, other))
        assert evaluate(narrow, chosen_on, 48).accuracy <= best + 1 / 48


@pytest.mark.parametrize(
    ("kind", "values", "change"),
    [
        ("weight-bits", (8, 5, 2), requantise_weights),
        ("decay-bits", (12, 3), requantise_decays),
        ("delay-max", (62, 10), clip_delays),
    ],
)
def test_a_point_is_the_accuracy_of_its_network(shipped, kind, values, change):
    longer = replace(TASK, wait_ms=400)
    points = sweep(shipped, kind, [TASK, longer], 32, values)
    for value, point in zip(values, points, strict=True):
        expected = [evaluate(change(shipped, value), task, 32).accuracy for task in (TASK, longer)]
        assert list(point.accuracy) == expected
        assert point.steps == (300, 550)
        assert point.as_dict()["accuracy"] == expected
    unchanged = [evaluate(shipped, task, 32).accuracy for task in (TASK, longer)]
    assert list(points[0].accuracy) == unchanged
    assert list(points[-1].accuracy) != unchanged


def test_default_delays_go_from_the_longest_to_none(shipped):
    points = sweep(shipped, "delay-max", [TASK], 2)
    assert [point.value for point in points] == [62, 54, 46, 39, 31, 23, 16, 8, 0]


@pytest.mark.parametrize(
    ("kind", "tasks", "samples", "values", "problem"),
    [
        ("bits", [TASK], 8, None, "sweep: 'bits' is not one of"),
        ("weight-bits", [], 8, None, "sweep: has no task"),
        ("weight-bits", [TASK], 0, None, "samples: 0 is outside 1"),
        ("membrane-bits", [TASK], 2, (25,), "membrane bits: 25 is outside 2 to 24"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(shipped, kind, tasks, samples, values, problem):
    with pytest.raises(InputError, match=problem):
        sweep(shipped, kind, tasks, samples, values)


def points_of(shipped: Network, right: dict[int, tuple[int, ...]]) -> list[Point]:
    return [Point(bits, hits, 100, (300, 550)[: len(hits)], shipped) for bits, hits in right.items()]


def test_the_smallest_that_keeps_a_share_has_none_above_it_that_does_not(shipped):
    points = points_of(shipped, {24: (99,), 10: (98,), 8: (97,), 6: (98,)})
    assert smallest_keeping(points, 0.98).value == 10
    assert smallest_keeping(points[::-1], 0.97).value == 6
    assert smallest_keeping(points, 0.995) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_figure_shows_accuracy_over_bits_and_over_length(shipped, kind):
    one = draw(points_of(shipped, {8: (99,), 4: (60,)}), kind, 0.5)
    (axes,) = one.axes
    assert axes.get_xlabel() == KINDS[kind]
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xydata(), [(4, 60), (8, 99)])
    two = draw(points_of(shipped, {8: (99, 98), 4: (60, 50)}), kind)
    np.testing.assert_allclose(
        [line.lines[0].get_ydata() for line in two.axes[1].containers], [(60, 50), (99, 98)]
    )
