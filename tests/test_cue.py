"""Cue accumulation is what the paper states, seeded, and independent of how it is read."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest

from delaynet_lava.errors import InputError
from delaynet_lava.tasks.base import batches
from delaynet_lava.tasks.cue import BACKGROUND, LEFT, RECALL, RIGHT, CueAccumulation


def test_rates_and_timing_are_the_papers():
    task = CueAccumulation(cues=7, wait_ms=1200, seed=3)
    assert task.steps == 2250
    x, labels = task.batch("test", 0, 400)
    sides = np.stack([task.sides("test", k) for k in range(400)])
    assert np.array_equal(labels, sides.sum(axis=1) > 3.5)
    assert abs(labels.mean() - 0.5) < 0.08
    # 4.5 million draws at 10 Hz, 200,000 to 600,000 at 40 Hz: five standard errors.
    assert abs(x[:, :, BACKGROUND].mean() - 0.010) < 0.0002
    assert abs(x[:, -150:, RECALL].mean() - 0.040) < 0.0013
    assert not x[:, :-150, RECALL].any()
    assert not x[:, 1050:, LEFT].any()
    assert not x[:, 1050:, RIGHT].any()
    for k in range(7):
        slot = x[:, 150 * k : 150 * (k + 1)]
        assert not slot[:, :50, LEFT].any()
        assert not slot[:, :50, RIGHT].any()
        right = sides[:, k]
        assert not slot[right][:, :, LEFT].any()
        assert not slot[~right][:, :, RIGHT].any()
        assert abs(slot[right][:, 50:, RIGHT].mean() - 0.040) < 0.003
        assert abs(slot[~right][:, 50:, LEFT].mean() - 0.040) < 0.003
    # Sides are drawn with 0.3 or 0.7 a sample: 0.21 is the variance that is left within a sample.
    within = sides.var(axis=1, ddof=1).mean()
    assert abs(within - 0.21) < 0.015


def test_a_sample_depends_on_seed_split_and_index_alone():
    task = CueAccumulation(seed=5)
    x, y = task.batch("test", 10, 6)
    for k in (0, 5):
        alone, label = task.batch("test", 10 + k, 1)
        assert np.array_equal(alone[0], x[k])
        assert label == y[k]
    read = list(batches(task, "test", 16, size=5))
    assert [len(labels) for _, labels in read] == [5, 5, 5, 1]
    assert np.array_equal(np.concatenate([spikes for spikes, _ in read])[10:], x)
    for other in (CueAccumulation(seed=6).batch("test", 10, 1), task.batch("train", 10, 1)):
        assert not np.array_equal(other[0][0], x[0])


@pytest.mark.parametrize("cues", [2, 4])
def test_even_numbers_of_cues_never_tie(cues):
    task = CueAccumulation(cues=cues, wait_ms=150)
    sides = np.stack([task.sides("test", k) for k in range(200)])
    assert not np.any(2 * sides.sum(axis=1) == cues)


def test_long_waits_of_many_samples_stay_small_in_memory():
    task = CueAccumulation(wait_ms=30_000)
    tracemalloc.start()
    source = batches(task, "test", 4096)
    x, _ = next(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.shape[1:] == (31_050, 40)
    assert peak < 300 * 2**20


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cues": 0}, "0 is below 1"),
        ({"wait_ms": 149}, "149 ms is below 150 ms"),
        ({"seed": -1}, "-1 is negative"),
        ({"cues": 10**9}, "more than 16,777,216 steps"),
    ],
)
def test_bad_options_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        CueAccumulation(**options)


def test_another_split_is_refused():
    for ask in (CueAccumulation().size, lambda split: CueAccumulation().batch(split, 0, 1)):
        with pytest.raises(InputError, match="'tests' is not one of train, validation, test"):
            ask("tests")


def test_the_samples_of_a_seed_are_those_of_earlier_releases():
    first = {
        "train": "43229fc18f62d3199160c59203c20f983afe8da493f17234c9cbc2d1845a9a7c",
        "validation": "fee387baf056ef228842f4aa47ad48aede3c6332e3283bb07b8cf00b7e1096af",
        "test": "e2d6dbba19dd6605a74a66a696b3b4f35ad273fdab1a5dcf94e04fa3d67c8566",
    }
    for split, digest in first.items():
        x, y = CueAccumulation(7, 1200, 0).batch(split, 3, 4)
        assert hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() == digest
    x, y = CueAccumulation(7, 1200, 0, (0.5, 0.5), 0.3).batch("train", 3, 4)
    digest = "0b0d8395d80632dd7a6a1b853763a0e8a169d18e0daa7f7b259d737a537bd4a4"
    assert hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() == digest


def test_the_curriculum_adds_cues_then_waits_and_ends_with_the_task():
    task = CueAccumulation(5, 400, 3, blocked=0.5)
    stages = task.curriculum()
    assert [(s.cues, s.wait_ms) for s in stages] == [(1, 150), (3, 150), (5, 150), (5, 300), (5, 400)]
    assert stages[-1] == task
    assert {(s.seed, s.blocked) for s in stages} == {(3, 0.5)}
    assert stages[-1].easier() == stages[2]


def test_the_probability_of_a_side_can_be_another_for_training():
    plain, same = CueAccumulation(7, 150, 3), CueAccumulation(7, 150, 3, right_p=(0.3, 0.7))
    np.testing.assert_array_equal(plain.batch("train", 5, 1)[0], same.batch("train", 5, 1)[0])
    close = CueAccumulation(7, 150, 3, right_p=(0.5,))
    leads = np.array([abs(2 * int(close.sides("train", i).sum()) - 7) for i in range(2000)])
    # 2 C(7, 3) / 2^7 of all samples are decided by one cue.
    assert np.mean(leads == 1) == pytest.approx(70 / 128, abs=0.04)
    usual = np.array([abs(2 * int(plain.sides("train", i).sum()) - 7) for i in range(2000)])
    assert np.mean(usual == 1) < 0.4
    for wrong in ((), (0.0,), (0.5, 1.0)):
        with pytest.raises(InputError, match="not probabilities"):
            CueAccumulation(right_p=wrong)


def test_the_cues_of_a_side_can_come_side_by_side_for_training():
    blocked = CueAccumulation(7, 150, 3, right_p=(0.5,), blocked=1.0)
    sides = np.stack([blocked.sides("train", i) for i in range(300)]).astype(int)
    changes = np.abs(np.diff(sides, axis=1)).sum(axis=1)
    assert changes.max() == 1
    first = sides[changes == 1, 0]
    assert 0.4 < first.mean() < 0.6
    some = CueAccumulation(7, 150, 3, right_p=(0.5,), blocked=0.25)
    plain = CueAccumulation(7, 150, 3, right_p=(0.5,))
    alike = [np.array_equal(some.sides("train", i), plain.sides("train", i)) for i in range(1000)]
    # One in eight random sequences is side by side already, one way or the other.
    assert 0.68 < np.mean(alike) < 0.85
    (spikes,), (label,) = blocked.batch("train", 0, 1)
    np.testing.assert_array_equal(blocked.batch("test", 0, 3)[0], plain.batch("test", 0, 3)[0])
    assert spikes[50:150, RIGHT if sides[0, 0] else LEFT].any()
    assert label == (sides[0].sum() > 3)
    with pytest.raises(InputError, match=r"1\.5 is not a share"):
        CueAccumulation(blocked=1.5)
