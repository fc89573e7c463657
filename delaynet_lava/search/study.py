"""A search on disk: what it searches, in ``search.json``, and its trials, in a database.

A search of N trials is N numbered slots. An Optuna trial is one attempt at a slot: a killed worker leaves an
attempt behind that never ends, and the slot gets another with the same options, which goes on from the
slot's checkpoint. Who has an attempt waits for nobody; who looks for one holds the folder's lock, because
SQLite alone would give the same attempt to two who ask at the same time.

Optuna's own heartbeats are not used: an attempt that is killed before its first one stays for ever, and
they compare clocks. Here a worker counts up in its attempt, and one that is not seen to count has lost it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import socket
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.files import replace_file
from delaynet_lava.search.space import Space
from delaynet_lava.search.storage import full_url, open_storage
from delaynet_lava.training.checkpoint import differences
from delaynet_lava.training.recipe import Recipe, plain, recipe_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

__all__ = [
    "SAMPLERS",
    "STORAGE",
    "Attempts",
    "Search",
    "Watch",
    "attempts",
    "begin",
    "claim",
    "fail",
    "finished",
    "load",
    "mend",
    "name_of",
    "open_study",
    "sampler",
    "top_up",
    "unfinished",
]

FORMAT, VERSION = "delaynet_lava.search", 2
STORAGE = "DELAYNET_SEARCH_STORAGE"
"""Environment variable that gives a worker the database's URL with its password: ``ps`` shows arguments."""
SAMPLERS = ("tpe", "random", "paper")
MOST_FAILURES = 3
"""A slot that failed so often since the search was last called ends the search."""

Attempts = dict[int, "list[FrozenTrial]"]


@dataclass(frozen=True)
class Search:
    """What decides the outcome of a search.

    Attributes:
        study: name in the database.
        storage: URL without its password; None: ``search.db`` in the folder.
        task: its word. recipe: name of the one that ``base`` was made from, or its file.
        base: of every training, but for what the space touches.
        seed: of the sampler, and of every training.
    """

    folder: Path
    task: str
    recipe: str
    base: Recipe
    space: Space
    sampler: str
    seed: int
    prune: bool = False
    storage: str | None = None
    study: str = field(default_factory=lambda: f"delaynet-search-{secrets.token_hex(8)}")

    def url(self) -> str:
        """Where its trials are, without a password."""
        return self.storage or full_url(f"sqlite:///{self.folder / 'search.db'}")

    def model(self, slot: int) -> Path:
        """The model of a slot."""
        return self.folder / f"trial-{slot:04d}.pt"

    def checkpoint(self, slot: int) -> Path:
        """Where the training of a slot goes on."""
        model = self.model(slot)
        return model.with_name(model.name + ".checkpoint")

    def _record(self) -> dict[str, Any]:
        content = asdict(self) | {"format": FORMAT, "version": VERSION}
        del content["folder"]
        content["base"] = plain(self.base)
        return json.loads(json.dumps(content))


def begin(search: Search) -> Search:
    """Write what a search is into its folder, or go on with the one that is there.

    Raises:
        InputError: the folder holds another search, or can't be made or written.
    """
    path = search.folder / "search.json"
    try:
        search.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(search.folder), f"cannot be a folder ({error.strerror or error})") from error
    with locked(search):
        if not path.exists():
            replace_file(path, (json.dumps(search._record(), indent=2) + "\n").encode())
            return search
    there = load(search.folder)
    mine, theirs = replace(search, study=there.study)._record(), there._record()
    changed = [key for key in mine if mine[key] != theirs[key]]
    if changed:
        detail = "; ".join(_difference(key, theirs[key], mine[key]) for key in changed)
        raise InputError(
            str(path), f"is of another search ({detail})", "ask for the same, or search in another folder"
        )
    return there


def _difference(key: str, theirs: Any, mine: Any) -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        return f"{key}: {', '.join(differences(mine, theirs))}"
    return f"{key}: {theirs}, not {mine}"


def load(folder: Path) -> Search:
    """The search of a folder.

    Raises:
        InputError: there is none, or it can't be read.
    """
    path = folder / "search.json"
    try:
        content = json.loads(path.read_bytes())
        if (content.pop("format"), content.pop("version")) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        return Search(folder=folder, base=recipe_of(content.pop("base")), **content)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        raise InputError(
            str(path), f"is not a search of this release ({error})", "search elsewhere"
        ) from error


@contextlib.contextmanager
def open_study(search: Search, url: str) -> Iterator[Study]:
    """The trials of a search.

    Raises:
        InputError: the database can't be reached, or fails while it is used.
    """
    with open_storage(url) as storage:
        import optuna

        study = optuna.create_study(
            storage=storage,
            study_name=search.study,
            direction="maximize",
            load_if_exists=True,
            sampler=sampler(search, 0),
            pruner=optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner(),
        )
        yield study


def sampler(search: Search, slot: int) -> BaseSampler:
    """What suggests the options of a slot.

    Each slot has one of its own seed, so that random suggestions depend on nothing that happened before.
    """
    import optuna

    seed = int(np.random.SeedSequence([search.seed, slot]).generate_state(1)[0])
    if search.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        # Trials that run count as bad ones until they end, or workers would all try the same.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)


@contextlib.contextmanager
def locked(search: Search) -> Iterator[None]:
    """Alone with the search among all its processes; the lock of a killed one is free."""
    path = search.folder / "search.lock"
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(str(path), f"cannot be locked ({error.strerror or error})") from error
        yield


def attempts(study: Study) -> Attempts:
    """All attempts at each slot, oldest first."""
    found: Attempts = {}
    for trial in study.get_trials(deepcopy=False):
        if "slot" in trial.user_attrs:
            found.setdefault(trial.user_attrs["slot"], []).append(trial)
    return found


def finished(study: Study) -> dict[int, FrozenTrial]:
    """The attempt at each slot that came to an end, trained or pruned."""
    return {
        slot: next(t for t in tries if t.state.name in ("COMPLETE", "PRUNED"))
        for slot, tries in attempts(study).items()
        if any(t.state.name in ("COMPLETE", "PRUNED") for t in tries)
    }


def unfinished(study: Study) -> int:
    """Slots that still have to be trained, or are being trained."""
    return len(attempts(study)) - len(finished(study))


def top_up(search: Search, study: Study, trials: int) -> None:
    """Queue a first attempt at every slot that has none; earlier failures no longer count."""
    with locked(search):
        there = attempts(study)
        study.set_user_attr("forgiven", len(study.get_trials(deepcopy=False)))
        for slot in range(trials):
            if slot not in there:
                study.enqueue_trial({}, user_attrs={"slot": slot})


def claim(search: Search, study: Study, worker: str) -> Trial | None:
    """Take the first attempt that waits; None: there is none."""
    import optuna

    with locked(search):
        waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        if not waiting:
            return None
        first = min(waiting, key=lambda trial: trial.number)
        study.sampler = sampler(search, first.user_attrs["slot"])
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        return trial


def name_of(pid: int) -> str:
    """How a worker on this machine signs its attempts."""
    return f"{socket.gethostname()}:{pid}"


class Watch:
    """Tells which running attempts nobody works on: those that do not count for ``grace_s`` seconds."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._seen: dict[int, tuple[int, float]] = {}

    def stale(self, trial: FrozenTrial) -> bool:
        """Whether a running attempt has not counted for too long, as seen from here."""
        beat, now = trial.user_attrs.get("beat", 0), time.monotonic()
        if self._seen.get(trial.number, (-1, 0.0))[0] != beat:
            self._seen[trial.number] = beat, now
        return now - self._seen[trial.number][1] > self.grace_s


def fail(study: Study, number: int) -> None:
    """End a running attempt, unless its worker was faster."""
    import optuna

    with contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
        study.tell(number, state=optuna.trial.TrialState.FAIL)


def mend(search: Search, study: Study, watch: Watch, dead: str | None = None) -> None:
    """Give every slot that was lost another attempt: its worker is dead, silent, or was stopped.

    Args:
        dead: a worker that is known to have ended.

    Raises:
        DelayNetError: a slot failed too often.
    """
    with locked(search):
        for tries in attempts(study).values():
            for trial in tries:
                if trial.state.name == "RUNNING" and (
                    watch.stale(trial) or (dead is not None and trial.user_attrs.get("worker") == dead)
                ):
                    fail(study, trial.number)
        forgiven = study.user_attrs.get("forgiven", 0)
        for slot, tries in attempts(study).items():
            if any(trial.state.name != "FAIL" for trial in tries):
                continue
            failures = [t for t in tries if t.number >= forgiven and t.user_attrs.get("end") != "stopped"]
            if len(failures) >= MOST_FAILURES:
                raise DelayNetError(f"{search.folder}: trial {slot} {_story(failures)}")
            last = tries[-1]
            # Recipes that can't be trained are replaced; others go on from their checkpoint.
            params = {} if last.user_attrs.get("end") == "refused" else last.params
            study.enqueue_trial(params, user_attrs={"slot": slot})


def _story(failures: list[FrozenTrial]) -> str:
    last = failures[-1]
    problem = last.user_attrs.get("problem")
    what = f"the last time: {problem}" if problem else f"worker {last.user_attrs.get('worker', '?')} died"
    params = last.params or "nothing suggested"
    return f"failed {len(failures)} times; {what}; with {params}; call again to go on"
