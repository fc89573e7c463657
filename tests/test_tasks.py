"""The word for a task: its grammar, its options, and one line for each thing that is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network, Neuron, Synapse, task_word
from delaynet_lava.tasks.cue import CueAccumulation
from delaynet_lava.tasks.registry import is_code, varied
from delaynet_lava.tasks.words import join_word, read_options, split_word


def test_a_word_makes_the_task_that_has_this_word():
    task = delaynet_lava.task("cue:cues=11,wait_ms=3000", seed=4)
    assert task == CueAccumulation(11, 3000, 4)
    assert task.word == "cue:cues=11,wait_ms=3000"
    assert delaynet_lava.task(task.word, 4) == task
    assert delaynet_lava.task("cue") == CueAccumulation()
    both = delaynet_lava.task("cue:right_p=0.4,0.6,blocked=0.1")
    assert both == CueAccumulation(right_p=(0.4, 0.6), blocked=0.1)
    assert both.word == "cue:cues=7,wait_ms=1200,right_p=0.4,0.6,blocked=0.1"
    assert varied(both.word, wait_ms=150) == "cue:cues=7,wait_ms=150,right_p=0.4,0.6,blocked=0.1"


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("cue", ("cue", {})),
        ("tonic:SHD", ("tonic:SHD", {})),
        ("tonic:SHD:root=C:/a,b,dt_ms=1", ("tonic:SHD", {"root": "C:/a,b", "dt_ms": "1"})),
        ("a:b.npz:split=0.8,0.1,0.1", ("a:b.npz", {"split": "0.8,0.1,0.1"})),
        ("pack.age:Name:x=", ("pack.age:Name", {"x": ""})),
    ],
)
def test_words_are_taken_apart_and_put_together(word, parts):
    assert split_word(word) == parts
    assert join_word(*parts) == word


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("", "task: '' names none; write cue, mine.npz or package.module:Name"),
        ("queue", "task: 'queue' is not known"),
        ("cue:cues=3,cues=5", "task cue:cues=3,cues=5: cues is given twice"),
        (
            "cue:cues=x,wait=3",
            "task cue:cues=x,wait=3: cues: 'x' is not a whole number; wait is not one of its options "
            "(cues, wait_ms, right_p, blocked)",
        ),
        ("cue:right_p=0.5,,", "right_p: '0.5,,' is not a list of numbers"),
        ("cue:cues=0", "cue task: cues: 0 is below 1"),
    ],
)
def test_what_is_wrong_with_a_word_is_said_in_one_line(word, line):
    with pytest.raises(InputError) as caught:
        delaynet_lava.task(word)
    assert line in str(caught.value)


def test_options_keep_the_types_of_the_usual_ones():
    usual = {"on": True, "name": "x", "share": 0.5}
    assert read_options("w", {"on": "False", "share": "1"}, usual) == {"on": False, "name": "x", "share": 1.0}
    with pytest.raises(InputError, match="on: 'yes' is not true or false"):
        read_options("w", {"on": "yes"}, usual)


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ({}, ""),
        ("", ""),
        ({"name": "cue", "cues": 7, "wait_ms": 1200}, "cue:cues=7,wait_ms=1200"),
        ({"name": "cue"}, "cue"),
        ({"word": "a:b.npz:dt_ms=2"}, "a:b.npz:dt_ms=2"),
        ("mine.npz", "mine.npz"),
    ],
)
def test_what_a_file_says_of_its_task_is_a_word(stored, word):
    assert task_word(stored) == word


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        ({"a": 1}, "task: has neither word nor name"),
        (3, "task: is a int; give its word"),
        ({"word": ["x"]}, "task: is a list"),
        ("cue\x1b[2J", "is no word of a task"),
        ("x" * 1001, "is no word of a task"),
    ],
)
def test_what_is_no_word_is_refused(stored, line):
    with pytest.raises(InputError, match=line):
        task_word(stored)


def test_the_word_goes_through_files(tmp_path):
    network = Network((Dense(Synapse(np.full((2, 3), 2)), Neuron(64, 4096, 0)),), task="mine.npz:dt_ms=2")
    delaynet_lava.save(network, tmp_path / "net.h5")
    assert delaynet_lava.load(tmp_path / "net.h5").task == "mine.npz:dt_ms=2"


@pytest.mark.parametrize(
    ("word", "code"),
    [("cue", False), ("cue:cues=3", False), ("a.npz:split=1,0,0", False), ("tonic:SHD", False),
     ("os:system", True), ("mine.py:Task:a=1", True)],
)  # fmt: skip
def test_words_that_name_code_are_told_apart(word, code):
    assert is_code(word) == code
