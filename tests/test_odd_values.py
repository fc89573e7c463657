"""Wrong types and extreme values, in every place that takes a value: one line that names it, or it works."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from delaynet_lava import Dense, Encoder, Network, Neuron, Synapse, emulate, load, save, task
from delaynet_lava.emulator import extremes
from delaynet_lava.errors import DelayNetError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export.extract import extract
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.tasks.base import Task
from delaynet_lava.training.recipe import SECTIONS, Recipe, allowed, plain, recipe_of
from delaynet_lava.training.recipe_file import changed, load_recipe, toml_of
from delaynet_lava.training.trainer import train

LONGEST_LINE = 400


class Odd:
    """Something of a stranger's, whose text goes over lines."""

    def __repr__(self) -> str:
        return "odd\n\x1b[31m" + 2000 * "x"


class Raising:
    """Something that does not like to be asked."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("never mind")

    __len__ = __iter__ = __array__  # type: ignore[assignment]


VALUES: list[Any] = [
    # Plain ones.
    None, True, False, 0, -1, 1, 2, 1 << 31, 1 << 63, 1 << 64, -(1 << 64), 10**400, 10**5000, 0.5, -0.0,
    1e300, 1e-320, 1e9, float("inf"), float("-inf"), float("nan"), 1j, Decimal("1.5"), Fraction(1, 3),
    "", "a", "7", "a" * 100_000, "zero\n", "../..", "\udcff", "a\0b", b"zero", memoryview(b"12"),
    # Several.
    [], [[]], [0], [1, [2]], ["a"], [None], (), (1, 2, 3), [[1, 2], [3]], {}, {"a": 1}, set(), range(3),
    iter([1]),
    # Arrays.
    np.zeros(0), np.zeros((2, 2)), np.array(None), np.array("x"), np.array([1, "x"], object),
    np.float16("inf"),
    np.int8(-128), np.uint64(2**64 - 1), np.array([np.nan]), np.datetime64("2020"), np.zeros(2, [("a", int)]),
    np.ma.masked, np.zeros((0, 3), np.int64), np.zeros((1, 1, 1, 1)), torch.zeros(1), 
    torch.zeros(2, 2).to_sparse(),
    torch.zeros(2, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16),
    # Others.
    object(), Odd(), Raising(), print, int, Dense, lambda: None, ...,
]  # fmt: skip

NEURON = Neuron(vth=50, du=300, dv=40)
DENSE = Dense(Synapse([[2, 4], [6, 8]]), NEURON, Synapse([[2, 2], [2, 2]], 1))
ENCODER = Encoder(NEURON, 2)
NETWORK = Network((DENSE,))
WHOLE = [NEURON, DENSE, DENSE.synapse, ENCODER, NETWORK]
INPUTS = np.ones((1, 3, 2), np.uint8)


def kind(value: Any) -> str:
    return type(value).__name__


def tried(call: Any) -> str:
    """What went wrong, where it was not said in one line; empty where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    except DelayNetError as error:
        text = str(error)
        if len(text) > LONGEST_LINE or not text.isprintable():
            return f"message of {len(text)} characters: {text[:80]!r}"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return ""


def faults(calls: dict[str, Any]) -> list[str]:
    return [f"{name}: {found}" for name, call in calls.items() if (found := tried(call))]


@pytest.mark.parametrize("whole", WHOLE, ids=lambda one: type(one).__name__)
def test_every_field_of_a_network_takes_it_or_names_it(whole):
    calls = {}
    for field in dataclasses.fields(whole):
        for k, value in enumerate(VALUES):

            def call(name=field.name, value=value):
                made = dataclasses.replace(whole, **{name: value})
                # What is taken must run.
                network = made if isinstance(made, Network) else None
                if isinstance(made, Dense | Encoder):
                    network = Network((made,))
                elif isinstance(made, Neuron):
                    network = Network((Dense(DENSE.synapse, made),))
                elif isinstance(made, Synapse):
                    network = Network((Dense(made, NEURON),))
                assert network is not None
                emulate(network, np.ones((1, 3, network.channels), np.uint8))
                network.summary()

            calls[f"{field.name} = {kind(value)} ({k})"] = call
    found = faults(calls)
    assert found == []


@pytest.mark.parametrize("run", [emulate, extremes], ids=["emulate", "extremes"])
def test_every_argument_of_a_run_is_taken_or_named(run):
    calls = {}
    for k, value in enumerate(VALUES):
        calls[f"network = {kind(value)} ({k})"] = lambda value=value: run(value, INPUTS)
        calls[f"inputs = {kind(value)} ({k})"] = lambda value=value: run(NETWORK, value)
        calls[f"part = {kind(value)} ({k})"] = lambda value=value: run(NETWORK, [INPUTS, value])
        if run is emulate:
            calls[f"record = {kind(value)} ({k})"] = lambda value=value: run(NETWORK, INPUTS, value)
            calls[f"layers = {kind(value)} ({k})"] = lambda value=value: run(NETWORK, INPUTS, (), value)
            calls[f"layer = {kind(value)} ({k})"] = lambda value=value: run(NETWORK, INPUTS, (), [value])
    found = faults(calls)
    assert found == []


def test_every_argument_of_lavas_run_is_taken_or_named():
    lava = pytest.importorskip("delaynet_lava.lava", reason="lava-nc is not installed")
    calls = {}
    for k, value in enumerate(VALUES):
        for name in ("network", "inputs", "record", "layers", "models"):
            # What is taken would run, which takes seconds: of two arguments at least one is wrong.
            given = {"network": NETWORK, "inputs": None, name: value}
            calls[f"{name} = {kind(value)} ({k})"] = lambda given=given: lava.run(**given)
    found = faults(calls)
    assert found == []


PLACES = {
    "load": load,
    "save": lambda path: save(NETWORK, path),
    "load_model": load_model,
    "load_profile": load_profile,
    "task": task,
    "decision": lambda text: dataclasses.replace(NETWORK, decision=text),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_names_a_thing_is_taken_or_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What is no text is Python's own TypeError, as for open().
    words = [value for value in VALUES if isinstance(value, str)]
    calls = {f"{word[:30]!r}": lambda word=word: PLACES[name](word) for word in words}
    found = faults(calls)
    assert found == []


class Two(Task):
    """Samples that the network above takes."""

    name = word = "two"
    channels, steps, classes = 2, 3, 2

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((count, 3, 2), np.uint8), np.zeros(count, np.int64)


class Single(Two):
    def size(self, split: str) -> int:
        return int(split == "train")


def test_every_argument_of_an_evaluation_is_taken_or_named():
    calls = {}
    given = {"network": NETWORK, "task": Two(), "samples": 2, "run_on": "emulator", "check": None}
    given |= {"on_samples": None, "on_trace": None, "split": "test"}
    assert evaluate(**given).samples == 2
    for k, value in enumerate(VALUES):
        for name in given:
            # Many samples are much work, and what a caller's own function does is its own.
            many = name == "samples" and isinstance(value, int | np.integer) and value > 2
            if not many and not (name.startswith("on_") and callable(value)):
                call = {**given, name: value}
                calls[f"{name} = {kind(value)} ({k})"] = lambda call=call: evaluate(**call)
    found = faults(calls)
    assert found == []


def test_every_key_of_a_recipe_takes_it_or_names_it(tmp_path):
    calls = {}
    for section in SECTIONS:
        for k, value in enumerate(VALUES):
            calls[f"[{section}] = {kind(value)} ({k})"] = lambda s=section, v=value: recipe_of({s: v})
            calls[f"Recipe({section} = {kind(value)} ({k}))"] = lambda s=section, v=value: Recipe(**{s: v})
        for key in allowed(section):
            several = [*([v] for v in VALUES[:36:2]), *([[v]] for v in VALUES[:30:3])]
            for k, value in enumerate([*VALUES, *several]):

                def call(section=section, key=key, value=value):
                    # What is taken can be written, and is itself again.
                    made = recipe_of({section: {key: value}})
                    path = tmp_path / "again.toml"
                    path.write_text(toml_of(made), encoding="utf-8")
                    assert load_recipe(str(path)) == made
                    dataclasses.replace(made, **{section: SECTIONS[section](**{key: value})})

                calls[f"{section}.{key} = {kind(value)} ({k})"] = call
    found = faults(calls)
    assert found == []


WRITTEN = [
    "", "9" * 4301, "-1", "0", "1", "1e400", "1e308", "nan", "inf", "true", '""', '"', "[]", "{}",
    "1979-05-27", "[[1]]", "[[[1]]]", "1,2", "1,,2", ",", "a", "\udcff", "\x1b[2J", "a" * 100_000, "a\n[b]",
    '"\\u001b"', "[" * 3000, "9,9,9,9", '"a","b"', "[1,[2]]", "[true,1]", "1 # x", "=", "1=2",
]  # fmt: skip


def test_whatever_a_command_sets_is_taken_or_named():
    base, calls = Recipe(), {}
    for section in SECTIONS:
        for key in allowed(section):
            for k, text in enumerate(WRITTEN):
                change = f"{section}.{key}={text}"
                calls[f"{change[:60]!r} ({k})"] = lambda change=change: plain(changed(base, [change]))
    for text in [*WRITTEN, *(f"{one}=1" for one in WRITTEN), *(f"network.{one}=1" for one in WRITTEN)]:
        calls[f"{text[:60]!r}"] = lambda text=text: changed(base, [text])
        calls[f"40 times {text[:60]!r}"] = lambda text=text: changed(base, [text] * 40)
        calls[f"recipe {text[:60]!r}"] = lambda text=text: load_recipe(text)
        calls[f"TOML {text[:60]!r}"] = lambda text=text: load_recipe(text + ".toml")
    found = faults(calls)
    assert found == []


def test_values_that_a_recipe_of_a_file_may_hold_are_taken_or_named(tmp_path):
    path, calls = tmp_path / "mine.toml", {}
    for name in ["base", *(f"{section}.{key}" for section in SECTIONS for key in allowed(section))]:
        for k, text in enumerate(WRITTEN):

            def call(line=f"{name} = {text}"):
                path.write_bytes(line.encode("utf-8", "surrogateescape"))
                load_recipe(str(path))

            calls[f"{name} = {text[:40]!r} ({k})"] = call
    found = faults(calls)
    assert found == []


def test_every_argument_of_a_training_is_taken_or_named(tmp_path):
    calls = {}
    # What is taken would train, for hours: there is one sample, which is too few.
    given = {"recipe": Recipe(), "task": Single(), "path": str(tmp_path / "m.pt"), "seed": 0}
    with pytest.raises(DelayNetError, match="has 1 training samples"):
        train(**given)
    for k, value in enumerate(VALUES):
        for name in given:
            # What is no text is Python's own TypeError, as for open().
            if name != "path" or isinstance(value, str):
                call = {**given, name: value}
                calls[f"{name} = {kind(value)} ({k})"] = lambda call=call: train(**call)
        calls[f"seed of a task = {kind(value)} ({k})"] = lambda value=value: task("cue", value)
    found = faults(calls)
    assert found == []
    for name in ("recipe", "task", "seed"):
        with pytest.raises(DelayNetError, match=f"training: {name}"):
            train(**{**given, name: 1.5})


def test_values_that_a_profile_may_hold_are_taken_or_named(tmp_path, repository):
    source = (repository / "hw_profiles" / "loihi2.toml").read_text()
    path, calls = tmp_path / "chip.toml", {}
    values = ["9" * 4301, "-1", "0", "1e400", "nan", "inf", "true", '""', "[]", "{}", "1979-05-27", "[[1]]"]
    values.append('"\\u001b"')
    lines = [k for k, line in enumerate(source.splitlines()) if " = " in line and not line.startswith("#")]
    assert len(lines) > 10
    for number in lines:
        for value in values:

            def call(number=number, value=value):
                changed = source.splitlines()
                changed[number] = f"{changed[number].partition(' = ')[0]} = {value}"
                path.write_text("\n".join(changed))
                load_profile(path)

            calls[f"line {number + 1} = {value[:30]}"] = call
    found = faults(calls)
    assert found == []


def test_values_that_a_model_may_hold_are_taken_or_named(repository):
    whole = load_model(repository / "delaynet_lava" / "models" / "cue_loihi2.pt")
    calls = {}

    def places(part, path=()):
        """Of everything in the config: keys that lead there."""
        yield path
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            yield from places(part[key], (*path, key))

    def changed(path, value):
        config = copy.deepcopy(whole.config)
        part = {"config": config}
        for key in ("config", *path)[:-1]:
            part = part[key]
        part[("config", *path)[-1]] = value
        return dataclasses.replace(whole, config=part["config"] if not path else config)

    # What a file can hold: plain values only.
    plain = [v for v in VALUES if isinstance(v, int | float | str | list | dict | tuple | None)]
    for path in places(whole.config):
        for k, value in enumerate(plain):
            # The reader of the file sees to these.
            if path in ((), ("layers",)) or path[-1] == "type" or (len(path) == 2 and path[0] == "layers"):
                continue
            calls[f"{path} = {kind(value)} ({k})"] = lambda p=path, v=value: extract(changed(p, v))
    assert len(calls) > 500
    found = faults(calls)
    assert found == []
