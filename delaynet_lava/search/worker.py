"""A worker of a search: takes attempts and trains them until no slot is left."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import DelayNetError, InputError, reason
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.search.space import suggest
from delaynet_lava.search.study import (
    STORAGE,
    Search,
    Watch,
    claim,
    load,
    mend,
    name_of,
    open_study,
    unfinished,
)
from delaynet_lava.training.recipe import Recipe, plain
from delaynet_lava.training.recipe_file import command_line
from delaynet_lava.training.trainer import Epoch, Outlook, train

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

__all__ = ["work"]

_IDLE_S = 0.5


class _Orphaned(Exception):
    """The process that started this one is gone."""


def work(folder: Path, grace_s: float) -> None:
    """Train until every slot of the search in a folder has ended.

    Raises:
        DelayNetError: a slot failed too often, or the search can't be read or its database reached.
        KeyboardInterrupt: stopped; the attempt that ran is marked, so that another goes on at once.
    """
    search = load(folder)
    parent = os.getppid()
    with open_study(search, os.environ.get(STORAGE) or search.url()) as study:
        watch = Watch(grace_s)
        while os.getppid() == parent:
            trial = claim(search, study, name_of(os.getpid()))
            if trial is not None:
                _attempt(search, study, trial, grace_s, parent)
            elif unfinished(study):
                mend(search, study, watch)
                time.sleep(_IDLE_S)
            else:
                return


def _attempt(search: Search, study: Study, trial: Trial, grace_s: float, parent: int) -> None:
    """One attempt, to whatever end; its record in the database says which."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    slot = trial.user_attrs["slot"]
    try:
        with _beating(trial, grace_s / 6):
            try:
                _end(study, trial, "COMPLETE", _train(search, trial, parent))
            except optuna.TrialPruned:
                search.checkpoint(slot).unlink(missing_ok=True)
                _end(study, trial, "PRUNED")
            except (KeyboardInterrupt, _Orphaned):
                trial.set_user_attr("end", "stopped")
                _end(study, trial, "FAIL")
                raise
            except (optuna.exceptions.OptunaError, SQLAlchemyError):
                raise
            except Exception as error:
                # A recipe can break a training in ways that nobody thought of; the next one may not.
                if not isinstance(error, DelayNetError):
                    traceback.print_exc()
                problem = str(error) if isinstance(error, DelayNetError) else reason(error)
                print(f"trial {slot}: {problem}", flush=True)
                trial.set_user_attr("problem", problem)
                _end(study, trial, "FAIL")
    except optuna.exceptions.UpdateFinishedTrialError:
        # Somebody took this worker for dead and gave the slot to another, which writes the same files.
        print(f"trial {slot}: went on elsewhere", flush=True)
    except _Orphaned:
        print(f"trial {slot}: stopped, the search is gone", flush=True)


def _end(study: Study, trial: Trial, state: str, value: float | None = None) -> None:
    import optuna

    try:
        study.tell(trial, value, optuna.trial.TrialState[state])
    except ValueError as error:
        raise optuna.exceptions.UpdateFinishedTrialError(str(error)) from error


@contextlib.contextmanager
def _beating(trial: Trial, every_s: float) -> Iterator[None]:
    """Count up in the attempt for as long as this process lives."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(every_s):
            count += 1
            # A database that does not answer now may do so at the next beat; the training finds out.
            with contextlib.suppress(Exception):
                trial.set_user_attr("beat", count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _train(search: Search, trial: Trial, parent: int) -> float:
    """Validation accuracy of the recipe that the sampler suggests; goes on where another attempt was."""
    import optuna

    slot = trial.user_attrs["slot"]
    try:
        recipe = suggest(search.space, search.base, trial)
    except InputError:
        trial.set_user_attr("end", "refused")
        raise
    trial.set_user_attr("recipe", plain(recipe))

    def report(epoch: Epoch, outlook: Outlook) -> None:
        print(f"trial {slot}: epoch {epoch.number}, accuracy {epoch.accuracy:.4f}", flush=True)
        if os.getppid() != parent:
            raise _Orphaned
        # How far along the curriculum, 1 being the full task without an error: those who are still at an
        # easy stage are behind those who are not.
        trial.report((epoch.stage + epoch.accuracy) / epoch.stages, epoch.number)
        if search.prune and trial.should_prune():
            raise optuna.TrialPruned

    made = _made(search.model(slot), recipe)
    if made is None:
        command = command_line(search.task, search.recipe, recipe, search.seed)
        model = train(recipe, search.task, search.model(slot), search.seed, report, command=command)
        made = model.provenance
    metrics = made["metrics"]
    trial.set_user_attr("rate", made["history"][-1]["rate"])
    trial.set_user_attr("epochs", metrics["epochs"])
    trial.set_user_attr("seconds", metrics["train_seconds"])
    return float(metrics["validation_accuracy"])


def _made(path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Provenance of the model that an attempt had written before it was killed; None: there is none."""
    if not path.exists():
        return None
    made = load_model(path).provenance
    return made if made.get("recipe") == plain(recipe) else None
