"""The search: what it suggests, and that nothing is lost when workers and the search itself are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
pytest.importorskip("optuna", reason="optuna is not installed")

import optuna
import slurm_tools
import sqlalchemy
from postgres_tools import PASSWORD, QUOTED, postgresql

from delaynet_lava.analysis.search_plots import draw_search
from delaynet_lava.cli import main
from delaynet_lava.cli.train import recipe_with
from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.nn.lattice import PAPER_SHARES
from delaynet_lava.pictures import write
from delaynet_lava.search import coordinator, worker
from delaynet_lava.search.coordinator import Record, ranked
from delaynet_lava.search.space import (
    check,
    default_space,
    option_of,
    paper_space,
    read_space,
    suggest,
    without,
)
from delaynet_lava.search.storage import open_storage, require_optuna
from delaynet_lava.search.study import (
    Search,
    Watch,
    attempts,
    begin,
    claim,
    finished,
    load,
    mend,
    open_study,
    top_up,
    unfinished,
)
from delaynet_lava.training.recipe import plain, recipe_of
from delaynet_lava.training.recipe_file import recipe_names
from delaynet_lava.training.trainer import train

require_optuna()  # quiet

TASK = "cue:cues=1,wait_ms=150"
SMALL = ["network.layers=8", "schedule.epoch_samples=32", "schedule.batch=32", "schedule.validation=32"]
BASE = recipe_with("smoke", SMALL)


def a_search(folder: Path, **changes: Any) -> Search:
    values: dict[str, Any] = {
        "folder": folder,
        "task": TASK,
        "recipe": "smoke",
        "base": BASE,
        "space": default_space(BASE),
        "sampler": "random",
        "seed": 3,
    }
    return begin(Search(**(values | changes)))


def refused(capsys: pytest.CaptureFixture, *words: str | Path) -> str:
    """The single line on stderr of a command that exits with 2."""
    with pytest.raises(SystemExit) as stop:
        main(["search", *map(str, words)])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


# What is suggested


def suggested(search: Search, order: list[int]) -> dict[int, dict[str, Any]]:
    """Options of each slot, asked for in an order; kept in memory, which is faster than on a disk."""
    found = {}
    study = optuna.create_study(direction="maximize")
    for slot in order:
        study.enqueue_trial({}, user_attrs={"slot": slot})
        trial = claim(search, study, "test:1")
        assert trial is not None and trial.user_attrs == {"slot": slot, "worker": "test:1"}
        found[slot] = plain(suggest(search.space, search.base, trial))
        study.tell(trial, 0.5 + 0.01 * slot)
    return found


def rate(recipe: dict[str, Any]) -> float:
    return recipe["optimiser"]["lr"]


def test_random_suggestions_depend_on_the_seed_and_the_trial_alone(tmp_path):
    forwards = suggested(a_search(tmp_path / "a"), [0, 1, 2, 3])
    backwards = suggested(a_search(tmp_path / "b"), [3, 2, 1, 0])
    assert forwards == backwards
    other = suggested(a_search(tmp_path / "c", seed=4), [0, 1, 2, 3])
    assert all(rate(other[k]) != rate(forwards[k]) for k in range(4))
    assert len({rate(forwards[k]) for k in range(4)}) == 4


def test_tpe_gives_the_same_again_and_learns(tmp_path):
    order = list(range(16))
    tpe = suggested(a_search(tmp_path / "a", sampler="tpe"), order)
    assert tpe == suggested(a_search(tmp_path / "b", sampler="tpe"), order)
    random = suggested(a_search(tmp_path / "c"), order)
    # The first ten are drawn at random by both; from then on what was found so far has a say.
    assert next(k for k in order if tpe[k] != random[k]) == 10


def test_the_papers_search_draws_two_delays_in_its_shares_and_nothing_else(tmp_path):
    found = suggested(a_search(tmp_path, sampler="paper", space=paper_space()), list(range(30)))
    for options in found.values():
        network = options["network"]
        first, second, third = network["delays"]
        assert first == 0 and 1 <= second <= third <= 62
        assert network["shares"] == list(PAPER_SHARES)
        assert options | {"network": network | {"delays": [0, 50, 62]}} == plain(BASE)
    assert len({tuple(options["network"]["delays"]) for options in found.values()}) > 25


def test_the_default_space_is_that_of_the_network(tmp_path):
    names = {"network.delays", "network.tau_ms", "init.radius", "loss.branching", "optimiser.lr"}
    assert set(default_space(BASE)) == names | {"init.input_gain"}
    # Weights that are scaled to a rate have no gain of their own.
    assert set(default_space(recipe_with("default", []))) == names | {"init.rate"}
    for name in recipe_names():
        base = recipe_with(name, [])
        check(default_space(base), base, "default")
    assert set(default_space(recipe_with("lif-2s-eprop", []))) == {"optimiser.lr"}


SPACE = """
[schedule]
batch = { low = 8, high = 32, step = 8 }

[optimiser]
lr = { low = 1e-3, high = 1e-1, log = true }

[gradient]
surrogate = { choices = ["paper", "triangle"] }

[curriculum]
walk = { choices = [true, false] }

[network]
layers = { choices = [[8], [4, 4]] }
delays = { items = [{ low = 0, high = 62 }, 5, { low = 10, high = 40, step = 10 }] }
shares = { items = [1.0, { low = 0.5, high = 4.0 }, { low = 0.5, high = 4.0 }] }
"""


def test_a_space_file_gives_every_form(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    space = read_space(str(path))
    check(space, BASE, "space.toml")
    found = suggested(a_search(tmp_path / "s", space=space), list(range(40))).values()
    assert {o["schedule"]["batch"] for o in found} == {8, 16, 24, 32}
    assert all(1e-3 <= rate(o) <= 1e-1 for o in found)
    assert 8 < sum(rate(o) < 1e-2 for o in found) < 32  # a range without log would have 4 there
    assert {o["gradient"]["surrogate"] for o in found} == {"paper", "triangle"}
    assert {o["curriculum"]["walk"] for o in found} == {True, False}
    assert {tuple(o["network"]["layers"]) for o in found} == {(8,), (4, 4)}
    for options in found:
        network = options["network"]
        assert network["delays"] == sorted(network["delays"]) and 5 in network["delays"]
        assert {10, 20, 30, 40} & set(network["delays"])
        assert sum(network["shares"]) == pytest.approx(1, abs=1e-12)
        assert list(recipe_of(options).network.layers) == network["layers"]
    assert option_of("network.delays.1") == ("network", "delays", 1)
    assert option_of("optimiser.lr") == ("optimiser", "lr", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key to search"),
        ("x.velocity = { low = 1, high = 2 }", "'x' is no section; they are network, init,"),
        ("lr = { low = 1, high = 2 }", "'lr' is no section"),
        ("loss.velocity = { low = 1, high = 2 }", "'loss.velocity' is no key that can be searched"),
        ("init.model = { choices = ['a'] }", "'init.model' is no key"),
        (
            "optimiser.lr = 0.1",
            "lr: is not of a form that this key can have; write { choices = [...] } or { low =",
        ),
        ("optimiser.lr = { low = 0.1 }", "lr: has the keys ['low']"),
        ("optimiser.lr = { low = 0.1, high = 0.2, size = 3 }", "has the keys ['high', 'low', 'size']"),
        ("optimiser.lr = { low = 0.1, high = 0.1 }", "low 0.1 is not below high 0.1"),
        ("optimiser.lr = { low = 0, high = 0.1, log = true }", "low 0 has no logarithm"),
        ("optimiser.lr = { low = 0.1, high = 0.2, log = 1 }", "log is 1; write true or false"),
        ("optimiser.lr = { low = 0.1, high = nan }", "high: nan is no number"),
        ("optimiser.lr = { low = 0.1, high = inf }", "high: inf is no number"),
        ("optimiser.lr = { low = true, high = 2 }", "low: True is not a number"),
        ("optimiser.lr = { low = 0.1, high = 0.2, step = 0 }", "step that is not above 0"),
        ("optimiser.lr = { low = 0.1, high = 0.2, step = 0.1, log = true }", "or a logarithm as well"),
        ("schedule.batch = { low = 8.5, high = 20 }", "batch: low: 8.5 is not a whole number"),
        ("schedule.batch = { choices = [] }", "choices are no list of values"),
        ("schedule.batch = { choices = [8, 8] }", "has a choice twice"),
        ("schedule.batch = { choices = [8, true] }", "choice 1: True is not a whole number"),
        ("gradient.surrogate = { low = 1, high = 2 }", "surrogate: is not of a form"),
        ("network.delays = { low = 1, high = 2 }", "delays: is not of a form that this key can have"),
        ("network.delays = { choices = [5] }", "choice 0: 5 is not a list of whole numbers"),
        ("network.delays = { items = [] }", "items are no list"),
        ("network.delays = { items = [0, {low = 3, high = 1}, 9] }", "item 1: low 3 is not below high 1"),
        ("network.delays = { items = [0, 9] }", "2 values but 3 shares"),
        ("network.delays = { choices = [[0, 1, 2], [0, 1]] }", "2 values but 3 shares"),
        (
            "network.delays = { items = [0, 9, {low = -9, high = 9}] }",
            "suggests a recipe that cannot be trained",
        ),
        ("network.shares = { items = [0.0, 0.0, {low = 0.0, high = 1.0}] }", "cannot be trained"),
        ("optimiser.name = { choices = ['adam', 'sgd'] }", "'sgd' is not one of adam, adamw, madgrad"),
        ("schedule.batch = { low = 0, high = 20 }", "0 is not a whole number of at least 1"),
        ("optimiser.lr = ", "is not TOML"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_in_one_line(tmp_path, capsys, text, said):
    path = tmp_path / "space.toml"
    path.write_text(text)
    line = refused(capsys, TASK, "-o", tmp_path / "s", "--recipe", "smoke", "--space", path)
    assert said in line and str(path) in line
    assert not (tmp_path / "s").exists()


def test_set_takes_an_option_out_of_the_space():
    assert set(without(default_space(BASE), {"optimiser.lr", "network.delays"})) == {
        "init.radius",
        "init.input_gain",
        "network.tau_ms",
        "loss.branching",
    }


# Bad requests


def test_bad_requests_end_in_one_line(tmp_path, capsys):
    folder = tmp_path / "s"
    (tmp_path / "file").write_text("")
    for words, said in (
        (["maze", "-o", folder], "'maze' is not known"),
        (["cue", "-o", folder, "--sampler", "grid"], "'grid' is not one of tpe, random, paper"),
        (["cue", "-o", folder, "--sampler", "paper", "--space", "x.toml"], "use --sampler random"),
        (["cue", "-o", folder, "--sampler", "paper", "--recipe", "lif-2s"], "lif has none"),
        (["cue", "-o", folder, "--recipe", "best"], "'best' is not one of"),
        (["cue", "-o", folder, "--set", "speed=1"], "SECTION.KEY=VALUE with a known key"),
        (["cue", "-o", folder, "--space", tmp_path / "none.toml"], "cannot be read (No such file"),
        (["cue", "-o", folder, "--partition", "main"], "add --slurm"),
        (["cue", "-o", folder, "--plot", tmp_path / "a.gif"], "ends in '.gif'"),
        (["cue", "-o", folder, "--plot", tmp_path / "no" / "a.png"], "its folder does not exist"),
        (["cue", "-o", folder, "--json", tmp_path / "no" / "a.json"], "its folder does not exist"),
        (["cue", "-o", folder, "--trials", "0"], "--trials"),
        (["cue", "-o", tmp_path / "file"], "cannot be a folder"),
        (["cue", "-o", folder, "--worker"], "search.json: cannot be read"),
    ):
        assert said in refused(capsys, *words)
        assert not folder.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url", "--storage: is not a database URL"),
        ("postgresql://me:secret!@host:port/db", "--storage: is not a database URL"),
        ("mysql://me:secret!@host/db", "--storage: 'mysql' is not known; use sqlite or postgresql"),
        ("sqlite://", "is a database in memory"),
        ("sqlite:///:memory:", "is a database in memory"),
        ("sqlite:////no/such/folder/a.db", "cannot be used (unable to open database file)"),
        # Nothing listens on port 1; nobody may see the password there.
        ("postgresql://me:secret!@127.0.0.1:1/db", "postgresql+psycopg://me@127.0.0.1:1/db: cannot be used"),
        ("postgresql://me@127.0.0.1:1/db?password=secret!", "postgresql+psycopg://me@127.0.0.1:1/db: cannot"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(tmp_path, capsys, url, said):
    line = refused(capsys, "cue", "-o", tmp_path / "s", "--recipe", "smoke", "--storage", url)
    assert said in line
    assert "secret!" not in line
    assert not any("secret!" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_file_that_is_no_database_is_one_line(tmp_path, capsys):
    (tmp_path / "a.db").write_text("far from it" * 100)
    line = refused(capsys, "cue", "-o", tmp_path / "s", "--storage", f"sqlite:///{tmp_path / 'a.db'}")
    assert "a.db: cannot be used (file is not a database)" in line


def test_two_that_open_an_empty_database_at_once_both_get_it(tmp_path, monkeypatch):
    real, made = optuna.storages.RDBStorage, []

    def second(*args: Any, **more: Any) -> Any:
        made.append(args)
        if len(made) == 1:
            raise sqlalchemy.exc.IntegrityError("CREATE TABLE", {}, Exception("duplicate key"))
        return real(*args, **more)

    monkeypatch.setattr(optuna.storages, "RDBStorage", second)
    with open_storage(f"sqlite:///{tmp_path / 'a.db'}"):
        assert len(made) == 2


def test_passwords_do_not_go_to_a_cluster(tmp_path, capsys):
    url = "postgresql://me:secret!@127.0.0.1/db"
    line = refused(capsys, "cue", "-o", tmp_path / "s", "--slurm", "--storage", url)
    assert "put it into ~/.pgpass" in line and "secret!" not in line


def test_without_optuna_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'delaynet_lava[search]'" in refused(capsys, "cue", "-o", tmp_path / "s")


def test_another_search_in_the_same_folder_is_refused(tmp_path, capsys):
    first = a_search(tmp_path / "s")
    assert a_search(tmp_path / "s") == first == load(tmp_path / "s")
    space = without(first.space, {"optimiser.lr"})
    for changes, said in (
        ({"space": space}, "space: optimiser.lr"),
        ({"seed": 4}, "seed: 3, not 4"),
        ({"sampler": "tpe"}, "sampler: random, not tpe"),
        ({"base": recipe_with("smoke", [*SMALL, "optimiser.lr=0.5"])}, "base: optimiser.lr"),
        ({"storage": "sqlite:////tmp/else.db"}, "storage: None, not sqlite:////tmp/else.db"),
    ):
        with pytest.raises(InputError, match=r"is of another search") as error:
            a_search(tmp_path / "s", **changes)
        assert said in str(error.value)
    line = refused(capsys, "cue", "-o", tmp_path / "s", "--recipe", "smoke", "--sampler", "random")
    assert "search.json: is of another search (task: " in line
    for damage in (b"", b"[]", b'{"format": "delaynet_lava.search", "version": 1}', b'{"format": 1'):
        (tmp_path / "s" / "search.json").write_bytes(damage)
        with pytest.raises(InputError, match="is not a search of this release"):
            load(tmp_path / "s")


# Attempts


@contextmanager
def opened(folder: Path, trials: int, **changes: Any) -> Iterator[tuple[Search, Any]]:
    search = a_search(folder, **changes)
    with open_study(search, search.url()) as study:
        top_up(search, study, trials)
        yield search, study


def test_slots_are_queued_once(tmp_path):
    with opened(tmp_path, 3) as (search, study):
        top_up(search, study, 3)
        top_up(search, study, 2)
        assert sorted(attempts(study)) == [0, 1, 2]
        top_up(search, study, 5)
        assert {slot: len(tries) for slot, tries in attempts(study).items()} == dict.fromkeys(range(5), 1)
        claimed = [claim(search, study, "a:1") for _ in range(6)]
        assert [t and t.user_attrs["slot"] for t in claimed] == [0, 1, 2, 3, 4, None]
        assert unfinished(study) == 5 and finished(study) == {}


def test_a_silent_worker_loses_its_attempt_and_one_that_counts_does_not(tmp_path):
    with opened(tmp_path, 2) as (search, study):
        watch = Watch(0.2)
        silent = claim(search, study, "a:1")
        suggest(search.space, search.base, silent)
        alive = claim(search, study, "a:2")
        mend(search, study, watch)
        with worker._beating(alive, 0.02):
            for _ in range(10):
                time.sleep(0.05)
                mend(search, study, watch)
        tries = attempts(study)
        assert [t.state.name for t in tries[0]] == ["FAIL", "WAITING"]
        assert [t.state.name for t in tries[1]] == ["RUNNING"]
        # The slot's next attempt trains the same options, whatever the sampler would say by now.
        again = claim(search, study, "a:3")
        wanted = suggest(search.space, search.base, again)
        assert again.user_attrs["slot"] == 0 and again.params == silent.params
        assert plain(wanted) == suggested(a_search(tmp_path / "other"), [0])[0]


def test_the_attempts_of_a_worker_that_is_known_to_be_dead_are_lost_at_once(tmp_path):
    with opened(tmp_path, 2) as (search, study):
        claim(search, study, "a:1"), claim(search, study, "a:2")
        mend(search, study, Watch(1e9), dead="a:1")
        assert [t.state.name for t in attempts(study)[0]] == ["FAIL", "WAITING"]
        assert [t.state.name for t in attempts(study)[1]] == ["RUNNING"]


def test_a_trial_that_always_fails_ends_the_search_and_a_new_call_forgives(tmp_path, monkeypatch, capsys):
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(worker, "train", broken)
    with opened(tmp_path, 1) as (search, study):
        for _ in range(2):
            worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
            mend(search, study, Watch(60.0))
        worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
        with pytest.raises(DelayNetError, match=r"trial 0 failed 3 times; the last time: ValueError.*luck"):
            mend(search, study, Watch(60.0))
        assert len({tuple(t.params.items()) for t in attempts(study)[0]}) == 1
        top_up(search, study, 1)
        mend(search, study, Watch(60.0))
        assert attempts(study)[0][-1].state.name == "WAITING"
    assert "ValueError: no such luck" in capsys.readouterr().err


def test_options_that_are_refused_are_replaced(tmp_path, monkeypatch):
    with opened(tmp_path, 1) as (search, study):
        real = worker.suggest

        def refuse(*args: Any) -> None:
            real(*args)
            raise InputError("training: lr", "is not to my liking")

        monkeypatch.setattr(worker, "suggest", refuse)
        worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
        mend(search, study, Watch(60.0))
        first, second = attempts(study)[0]
        assert first.params and first.user_attrs["end"] == "refused"
        assert second.system_attrs["fixed_params"] == {}


def test_a_stopped_attempt_waits_again_and_is_no_failure(tmp_path, monkeypatch):
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "train", stopped)
    with opened(tmp_path, 1) as (search, study):
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
            mend(search, study, Watch(60.0))
        assert [t.state.name for t in attempts(study)[0]] == ["FAIL"] * 5 + ["WAITING"]


def test_a_worker_that_was_wrongly_taken_for_dead_gives_way(tmp_path, monkeypatch, capsys):
    """Its trial runs elsewhere: what it comes to is thrown away, and it goes on with the next."""
    with opened(tmp_path, 1) as (search, study):
        real = worker.train

        def slow(*args: Any, **more: Any) -> Any:
            mend(search, study, Watch(60.0), dead="a:1")
            return real(*args, **more)

        monkeypatch.setattr(worker, "train", slow)
        worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
        assert "went on elsewhere" in capsys.readouterr().out
        assert [t.state.name for t in attempts(study)[0]] == ["FAIL", "WAITING"]
        monkeypatch.setattr(worker, "train", real)
        worker._attempt(search, study, claim(search, study, "a:2"), 60.0, os.getppid())
        assert [t.state.name for t in attempts(study)[0]] == ["FAIL", "COMPLETE"]


def test_a_worker_killed_between_its_model_and_the_database_need_not_train_again(tmp_path, monkeypatch):
    with opened(tmp_path, 1) as (search, study):
        trial = claim(search, study, "a:1")
        options = suggest(search.space, search.base, trial)
        model = train(options, search.task, search.model(0), search.seed)
        mend(search, study, Watch(60.0), dead="a:1")

        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(worker, "train", never)
        worker._attempt(search, study, claim(search, study, "a:2"), 60.0, os.getppid())
        assert finished(study)[0].value == model.provenance["metrics"]["validation_accuracy"]


def test_pruning_ends_a_training_below_the_median(tmp_path):
    with opened(tmp_path, 6, prune=True) as (search, study):
        for _ in range(5):
            trial = claim(search, study, "a:1")
            trial.report(2.0, 1)  # better than anything can be
            trial.set_user_attr("recipe", plain(BASE))
            study.tell(trial, 1.0)
        worker._attempt(search, study, claim(search, study, "a:1"), 60.0, os.getppid())
        last = finished(study)[5]
        assert last.state.name == "PRUNED" and list(last.intermediate_values) == [1]
        assert unfinished(study) == 0
        assert not list(tmp_path.glob("trial-0005*"))


# What comes out


def a_record(trial: int, accuracy: float | None, rate: float, **params: Any) -> Record:
    return Record(trial, accuracy, rate, 1.0, params, plain(BASE), "trial.pt", 1)


def test_the_best_is_accurate_then_sparse_then_early():
    records = [a_record(0, 0.9, 0.2), a_record(1, 0.9, 0.1), a_record(2, None, 0.0), a_record(3, 0.9, 0.1)]
    records.append(a_record(4, 0.95, 0.9))
    assert [r.trial for r in ranked(records)] == [4, 1, 3, 0]


def test_the_picture_shows_history_and_every_option(tmp_path):
    space = {"optimiser.lr": {"low": 0.001, "high": 0.1, "log": True}}
    space["gradient.surrogate"] = {"choices": ["paper", "triangle"]}
    space["network.delays"] = {"items": [0, {"low": 1, "high": 9}]}
    records = [
        a_record(
            k,
            0.5 + 0.1 * k,
            0.1,
            **{"optimiser.lr": 10.0 ** (k - 3), "gradient.surrogate": s, "network.delays.1": k},
        )
        for k, s in enumerate(("paper", "triangle", "paper"))
    ]
    figure = draw_search([*records, a_record(3, None, 0.1)], space)
    history, kind, delay, lr = figure.axes
    best = next(line for line in history.lines if line.get_label() == "best")
    assert list(best.get_ydata()) == pytest.approx([0.5, 0.6, 0.7])
    assert [line.get_label() for line in history.lines] == ["trial", "best", "pruned"]
    assert (lr.get_xlabel(), lr.get_xscale(), delay.get_xscale()) == ("optimiser.lr", "log", "linear")
    assert [t.get_text() for t in kind.get_xticklabels()] == ["paper", "triangle"]
    write(figure, str(tmp_path / "a.png"))
    with pytest.raises(InputError, match="no trial that was trained"):
        draw_search([a_record(0, None, 0.1)], space)


def test_workers_that_cannot_start_end_the_search_in_one_line(tmp_path, monkeypatch):
    broken = [sys.executable, "-c", "print('first'); print('no such module'); raise SystemExit(3)"]
    monkeypatch.setattr(coordinator, "_command", lambda *_: broken)
    search = a_search(tmp_path)
    with pytest.raises(DelayNetError, match=r"worker-\d.log: workers end at once \(exit code 3\): no such m"):
        coordinator.run(search, search.url(), 2, 2)


# Whole searches: real processes, killed


def command(folder: Path, trials: int, *more: str) -> list[str]:
    """A search of trainings that take a second or two: long enough to be killed in one."""
    small = [*SMALL, "schedule.epoch_samples=512", "network.layers=27", "schedule.epochs=6"]
    words = ["search", TASK, "-o", str(folder), "--recipe", "smoke", "--seed", "5", "--trials", str(trials)]
    return [
        sys.executable, "-m", "delaynet_lava", *words, *(w for s in small for w in ("--set", s)), *more
    ]  # fmt: skip


@contextmanager
def started(words: list[str], log: Path) -> Iterator[subprocess.Popen]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with open(log, "w") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(what: Callable[[], Any], process: subprocess.Popen | None, log: Path) -> Any:
    """What a condition gives when it is true; the process has to live until then."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        assert process is None or process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"waited too long: {log.read_text()}")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # One that nobody waits for any more stays in the table after its end.
    return state != "Z"


def worker_of(trial: Any) -> int:
    """The process that an attempt was taken by."""
    return int(trial.user_attrs["worker"].rpartition(":")[2])


def kill_one(study: Any, after: int) -> list[int]:
    """Kill a worker in a training, once so many trials have ended; its slot, or nothing if it was faster."""
    if len(finished(study)) < after:
        return []
    for slot, tries in attempts(study).items():
        trial = tries[-1]
        if trial.state.name == "RUNNING" and trial.intermediate_values:
            pid = worker_of(trial)
            os.kill(pid, signal.SIGKILL)
            while alive(pid):
                time.sleep(0.01)
            # The search may have seen its end by now.
            return [slot] if attempts(study)[slot][len(tries) - 1].state.name in ("RUNNING", "FAIL") else []
    return []


def survive(folder: Path, trials: int, url: str | None = None, killed_too: bool = True) -> None:
    """A search of 2 workers: one is killed in a training, then the search itself, then it is called again."""
    log, report = folder.with_name("log"), folder.with_name("report.json")
    more = ["--workers", "2", "--json", str(report), "--export", "1"]
    more += [] if url is None else ["--storage", url]
    written = {}
    with started(command(folder, trials, *more), log) as process:
        wait_for((folder / "search.json").exists, process, log)
        search = load(folder)
        with open_study(search, url or search.url()) as study:
            (killed,) = wait_for(lambda: kill_one(study, trials // 4), process, log)
            if killed_too:
                wait_for(lambda: len(finished(study)) >= trials // 2, process, log)
                process.kill()
                process.wait()
                every = [t for tries in attempts(study).values() for t in tries if "worker" in t.user_attrs]
                # Workers whose search is gone end by themselves.
                wait_for(lambda: not any(alive(worker_of(trial)) for trial in every), None, log)
                assert trials // 2 <= len(finished(study)) < trials, "the trainings are too short"
                written = {slot: search.model(slot).stat().st_mtime_ns for slot in finished(study)}
            else:
                assert process.wait(900) == 0, log.read_text()

    if killed_too:
        with started(command(folder, trials, *more), log) as process:
            assert process.wait(900) == 0, log.read_text()
    text = log.read_text()
    assert PASSWORD not in text and QUOTED not in text and "arning" not in text, text
    made = json.loads(report.read_text())
    assert [t["trial"] for t in made["trials"]] == list(range(trials))
    assert all(t["accuracy"] is not None for t in made["trials"])
    assert len(made["exported"]) == 1 and Path(made["exported"][0]).exists()
    assert not list(folder.glob("*.checkpoint"))
    with open_study(search, url or search.url()) as study:
        tries = attempts(study)
        states = {slot: [t.state.name for t in some] for slot, some in tries.items()}
        assert all(names == ["FAIL"] * (len(names) - 1) + ["COMPLETE"] for names in states.values()), states
        assert states[killed] == ["FAIL", "COMPLETE"]
        assert tries[killed][0].params == tries[killed][1].params
        # The second attempt went on from the first one's checkpoint, not from the beginning.
        assert min(tries[killed][1].intermediate_values) > min(tries[killed][0].intermediate_values) == 1
        # What had ended before the search was killed was left alone.
        assert written == {slot: search.model(slot).stat().st_mtime_ns for slot in written}
    # Killed or not, a trial comes to the weights of a training that nobody disturbed.
    recipe = recipe_of(made["trials"][killed]["recipe"])
    whole = train(recipe, TASK, folder.with_name("whole.pt"), 5)
    there = load_model(search.model(killed))
    for name, tensor in whole.state_dict.items():
        assert torch.equal(tensor, there.state_dict[name]), name


def test_a_search_survives_the_death_of_a_worker(tmp_path):
    survive(tmp_path / "s", 2, killed_too=False)


@pytest.mark.slow
def test_twenty_trials_survive_over_sqlite(tmp_path):
    survive(tmp_path / "s", 20)


@pytest.mark.slow
def test_twenty_trials_survive_over_postgresql(tmp_path, capsys):
    with postgresql() as server:
        survive(tmp_path / "s", 20, server.url)
        for path in (tmp_path / "s").iterdir():
            assert PASSWORD.encode() not in path.read_bytes() and QUOTED.encode() not in path.read_bytes()
        server.stop()
        words = command(tmp_path / "s", 20, "--storage", server.url)[4:]
        line = refused(capsys, *words)
        assert (
            f"--storage postgresql+psycopg://tester@127.0.0.1:{server.port}/postgres: cannot be used" in line
        )
        assert PASSWORD not in line and QUOTED not in line


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_leaves_a_search_that_goes_on(tmp_path):
    folder, log = tmp_path / "s", tmp_path / "log"
    with started(command(folder, 3, "--workers", "1"), log) as process:
        wait_for(lambda: list(folder.glob("*.checkpoint")), process, log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert log.read_text() == "delaynet search: interrupted; call again to go on\n"
    search = load(folder)
    with open_study(search, search.url()) as study:
        (running,) = (t[-1] for t in attempts(study).values() if "worker" in t[-1].user_attrs)
        assert (running.state.name, running.user_attrs["end"]) == ("FAIL", "stopped")
        assert not alive(int(running.user_attrs["worker"].rpartition(":")[2]))


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_array_searches_and_survives_a_killed_worker(tmp_path, monkeypatch):
    folder, log, trials = tmp_path / "s", tmp_path / "log", 4
    with slurm_tools.cluster() as slurm:
        for name, value in slurm.env.items():
            monkeypatch.setenv(name, value)
        more = ["--workers", "2", "--slurm", "--partition", "main", "--time", "10", "--grace", "15"]
        with started(command(folder, trials, *more), log) as process:
            wait_for((folder / "search.json").exists, process, log)
            search = load(folder)
            with open_study(search, search.url()) as study:
                (killed,) = wait_for(lambda: kill_one(study, 0), process, log)
                assert process.wait(900) == 0, log.read_text()
                states = {slot: [t.state.name for t in tries] for slot, tries in attempts(study).items()}
        assert states.pop(killed) == ["FAIL", "COMPLETE"]
        assert list(states.values()) == [["COMPLETE"]] * (trials - 1)
        assert len(list(folder.glob("worker-*_[01].log"))) == 2


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_whose_workers_all_end_is_one_line_and_the_next_call_goes_on(tmp_path, monkeypatch):
    folder, log = tmp_path / "s", tmp_path / "log"
    with slurm_tools.cluster() as slurm:
        for name, value in slurm.env.items():
            monkeypatch.setenv(name, value)
        more = ["--workers", "1", "--slurm"]
        with started(command(folder, 2, *more), log) as process:
            wait_for(lambda: list(folder.glob("*.checkpoint")), process, log)
            slurm.command("scancel", "--name=delaynet-search")
            assert process.wait(60) == 2
            assert "all workers have ended (CANCELLED) with 0 of 2 trials done" in log.read_text()
        with started(command(folder, 2, *more), log) as process:
            assert process.wait(900) == 0, log.read_text()
        search = load(folder)
        with open_study(search, search.url()) as study:
            assert len(finished(study)) == 2
