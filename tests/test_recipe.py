"""Recipes: what they can hold, that text and values are one, and that all mistakes are told at once."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from delaynet_lava.cli import main
from delaynet_lava.errors import MAX_MESSAGE, InputError, InputErrors
from delaynet_lava.training.recipe import (
    SECTIONS,
    Allowed,
    Init,
    Network,
    Recipe,
    allowed,
    of_layer,
    plain,
    recipe_of,
)
from delaynet_lava.training.recipe_file import (
    changed,
    changes_from,
    command_line,
    load_recipe,
    recipe_names,
    toml_of,
)

NAMES = [
    "default", "lif-20ms", "lif-2s", "lif-2s-eprop", "lif-2s-ff", "loihi2", "loihi2-dense", "lsnn", "lsnn-ff",
    "paper", "psmnist", "psmnist-delays", "psmnist-paper", "smoke", "src", "src-256", "src-256-lif",
    "src-cue", "src-deep", "src-deep-lif", "src-fpga", "src-lif",
]  # fmt: skip


def a_value(rule: Allowed, layers: int) -> st.SearchStrategy:
    """Values that a key can have."""
    if rule.choices:
        one: st.SearchStrategy = st.sampled_from(rule.choices)
    elif rule.kind is bool:
        one = st.booleans()
    elif rule.kind is str:
        one = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        one |= st.text(' "[]=,x', max_size=4)
    else:
        low = rule.least if rule.least is not None else (rule.above or 0)
        high = rule.most if rule.most is not None else (rule.below or 1e9)
        if rule.kind is int:
            one = st.integers(int(low), int(high))
        else:
            out = {"exclude_min": rule.least is None, "exclude_max": rule.below is not None}
            one = st.floats(low, high, **out)
    one = st.lists(one, min_size=1, max_size=3) if rule.many else one
    return one | st.lists(one, min_size=layers, max_size=layers) if rule.each else one


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes with some keys at random, as far as they do not contradict each other."""
    layers = draw(st.integers(1, 3))
    table: dict = {"network": {"layers": [4] * layers}}
    # What other keys have a say in stays as it is.
    apart = {"layers", "delays", "shares", "readout", "kind", "rule", "betas", "tau_min_ms", "tau_max_ms",
             "learn_delays", "delays_in", "learn_delays_in"}  # fmt: skip
    names = [(s, key) for s in SECTIONS for key in allowed(s) if key not in apart]
    for section, key in draw(st.lists(st.sampled_from(names), max_size=6, unique=True)):
        table.setdefault(section, {})[key] = draw(a_value(allowed(section)[key], layers))
    return recipe_of(table)


@settings(max_examples=50, deadline=None)
@given(recipes())
def test_text_values_and_changes_say_the_same(recipe):
    assert recipe_of(plain(recipe)) == recipe
    assert recipe_of(tomli.loads(toml_of(recipe))) == recipe
    assert changed(Recipe(), changes_from(Recipe(), recipe)) == recipe
    assert changed(recipe, changes_from(recipe, Recipe())) == Recipe()


def test_every_key_says_what_it_means_and_has_a_default_that_it_allows():
    for section in SECTIONS:
        for key, rule in allowed(section).items():
            assert rule.about, key
            assert rule.taken(getattr(SECTIONS[section](), key)) == getattr(SECTIONS[section](), key)


def test_the_shipped_recipes_are_there_and_start_from_each_other():
    assert recipe_names() == NAMES
    assert load_recipe("default") == Recipe()
    assert load_recipe("lsnn-ff").schedule == load_recipe("lsnn").schedule
    loihi2, paper = load_recipe("loihi2"), load_recipe("paper")
    assert (loihi2.network.delays, paper.network.delays) == ((0, 50, 62), (0, 79, 99))
    assert (paper.optimiser.name, paper.loss.branching_over) == ("madgrad", "batch")
    assert load_recipe("lif-2s-eprop").gradient.rule == "eprop"


def test_values_for_each_layer():
    recipe = changed(
        Recipe(),
        [
            "network.layers=112,64",
            "network.recurrent=true,false",
            "network.delays=[[0, 20], [0]]",
            "init.radius=1,2",
        ],
    )
    network = recipe.network
    assert [of_layer(network.recurrent, k) for k in (0, 1)] == [True, False]
    assert [of_layer(network.delays, k, many=True) for k in (0, 1)] == [(0, 20), (0,)]
    assert [of_layer(network.tau_ms, k) for k in (0, 1)] == [20.0, 20.0]
    assert recipe.init.radius == (1.0, 2.0)
    assert changed(recipe, ["network.delays=0,5"]).network.delays == (0, 5)
    with pytest.raises(InputError, match=r"init\.radius: has 2 values for 1 layers"):
        changed(recipe, ["network.layers=9", "network.recurrent=true", "network.delays=0"])


def test_all_mistakes_are_told_at_once_in_one_line(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        base = "loihi2"
        speed = 3
        [network]
        layer = [3]
        tau_ms = "slow"
        membrane_bits = 25
        [optimiser]
        name = "sgd"
        lr = true
        betas = [0.9, nan]
        [averaging]
        decay = 1
        """
    )
    with pytest.raises(SystemExit) as stop:
        main(["train", "cue", "--recipe", str(path), "-o", str(tmp_path / "m.pt")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) <= len("delaynet: ") + MAX_MESSAGE
    assert re.search(r"speed: is no section; .*; and \d mistakes more$", line)
    with pytest.raises(InputErrors) as error:
        load_recipe(str(path))
    told = error.value.problems
    assert len(told) == 8
    for said in (
        "speed: is no section; they are network, init, loss,",
        "network.layer: is no key (did you mean network.layers?)",
        "network.tau_ms: 'slow' is not a number above 0, or a list with one for each layer",
        "network.membrane_bits: 25 is not a whole number of at least 2 and of at most 24",
        "optimiser.name: 'sgd' is not one of adam, adamw, madgrad",
        "optimiser.lr: True is not a number of at least 0",
        "optimiser.betas: [0.9, nan] is not a list of numbers of at least 0 and below 1",
        "averaging.decay: 1 is not a number of at least 0 and below 1",
    ):
        assert any(problem.startswith(said) for problem in told), said
    assert not list(tmp_path.glob("m.pt*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["lr=1"], "lr=1: is not SECTION.KEY=VALUE with a known key (did you mean optimiser.lr?)"),
        (["optimizer.lr=1"], "did you mean optimiser.lr?"),
        (["optimiser.lr"], "is not SECTION.KEY=VALUE"),
        (["optimiser.lr=fast", "bogus.key=1"], "bogus.key=1: is not SECTION.KEY=VALUE"),
        (["optimiser.lr=fast", "bogus.key=1"], "optimiser.lr: 'fast' is not a number of at least 0"),
        (["schedule.batch=0"], "schedule.batch: 0 is not a whole number of at least 1"),
        (["network.layers=[]"], "network.layers: is empty"),
        (["network.delays=0,1", "network.shares=0.5,0.6"], "must be >= 0 and sum to 1"),
        (["network.delays=0,1", "network.shares=1"], "2 values but 1 shares"),
        (["network.delays=[]"], "write [0] for recurrence without delay"),
        (["network.tau_min_ms=9", "network.tau_max_ms=5"], "leaves no time constant"),
        (["loss.readout=first"], "loss.readout: 'first' is n"),
        (["loss.kind=spike-rate"], "spike-rate is of spikes; make loss.readout count, it is mean"),
        (["gradient.rule=eprop"], "eprop does without loss.readout mean"),
        (["gradient.rule=eprop", "loss.readout=last", "loss.branching=1"], "without a branching-factor loss"),
        (["gradient.rule=eprop", "loss.readout=last", "network.kind=lsnn", "network.delays=0"], "an lsnn"),
        (["gradient.rule=eprop", "loss.readout=last", "network.layers=2,2"], "without 2 layers"),
        (["network.kind=lsnn"], "an lsnn has no delays"),
        (["network.kind=lsnn", "network.delays=0", "loss.readout=count"], "an lsnn has no answer in spikes"),
        (["optimiser.betas=0.9"], "betas: has 1 numbers; give two"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        changed(Recipe(), changes)
    assert "\n" not in str(error.value)


def test_texts_on_a_command_line_need_no_quotes():
    recipe = changed(Recipe(), ["init.model=a, b.pt", "optimiser.name=madgrad", 'loss.readout="sum:1:5"'])
    assert (recipe.init.model, recipe.optimiser.name, recipe.loss.readout) == (
        "a, b.pt",
        "madgrad",
        "sum:1:5",
    )
    reset = changed(Recipe(), ["network.layers=1,1", "network.reset=zero,subtract"]).network.reset
    assert reset == ("zero", "subtract")


def test_sections_made_in_python_are_checked_too():
    recipe = Recipe(network=Network(layers=[5], tau_ms=3), init=Init(radius=1))
    assert (recipe.network.layers, recipe.network.tau_ms, recipe.init.radius) == ((5,), 3.0, 1.0)
    with pytest.raises(
        InputError, match=r"network.tau_ms: -1 is not a number above 0.*; init.rate: 1 is not"
    ):
        Recipe(network=Network(tau_ms=-1), init=Init(rate=1))
    with pytest.raises(InputError, match="batch: 0 is not"):
        replace(recipe, schedule=replace(recipe.schedule, batch=0))


def test_show_prints_a_file_that_is_the_recipe(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "cue", "--recipe", "paper", "--set", "optimiser.lr=0.5", "--show"])
    assert not stop.value.code
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(str(path)) == changed(load_recipe("paper"), ["optimiser.lr=0.5"])
    text = path.read_text()
    assert all(f"\n{key} = " in text for section in plain(Recipe()).values() for key in section)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[network", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b'base = "best"', "base: 'best' is not one of default,"),
        (b"network = 3", "network: is 3, expected a section [network]"),
        (b"#" * ((1 << 20) + 1), "has more than 1048576 bytes"),
        (None, "cannot be read (No such file"),
    ],
)
def test_files_that_are_no_recipes_are_refused(tmp_path, content, said):
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        load_recipe(str(path))
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="'best' is not one of default, lif-20ms"):
        load_recipe("best")


def test_the_command_line_makes_the_recipe_again():
    recipe = changed(load_recipe("paper"), ["network.layers=8,9", "network.delays=[[0, 1, 2], [3, 4, 5]]"])
    assert asdict(recipe)["network"]["delays"] == ((0, 1, 2), (3, 4, 5))
    text = command_line("cue:cues=1,wait_ms=150", "paper", recipe, 4, processes=2)
    assert text == (
        "torchrun --nproc-per-node 2 -m delaynet_lava train cue:cues=1,wait_ms=150 --recipe paper --seed 4 "
        "--set network.layers=8,9 --set 'network.delays=[[0,1,2],[3,4,5]]'"
    )
    assert (
        command_line("cue", "paper", load_recipe("paper"), 0) == "delaynet train cue --recipe paper --seed 0"
    )
