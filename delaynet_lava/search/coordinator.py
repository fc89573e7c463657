"""A whole search: its slots, its workers on this machine or on a cluster, and what came out."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import DelayNetError
from delaynet_lava.processes import command_of
from delaynet_lava.search.space import option_of
from delaynet_lava.search.study import (
    STORAGE,
    Search,
    Watch,
    attempts,
    finished,
    mend,
    name_of,
    open_study,
    top_up,
    unfinished,
)

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["Cluster", "Record", "ranked", "run"]

_POLL_S = 0.5
_ASK_SLURM_S = 5.0
_UNANSWERED = 24
_STOP_S = 15.0
_IN_VAIN = 3
"""Workers that end without having taken an attempt; so many in a row end the search."""
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Cluster:
    """Where a job array is sent: Slurm's partition (None: its own default) and time limit."""

    partition: str | None = None
    time_min: int | None = None


@dataclass(frozen=True)
class Record:
    """What a trial came to.

    Attributes:
        accuracy: of validation; None: pruned before that.
        rate: spikes of a hidden neuron in a step, in the last epoch.
        params: what was varied, as the training had it: "network.delays.1" is the second delay after sorting.
        recipe: of the training, as a table.
        attempts: 1, or more where workers were lost or stopped.
    """

    trial: int
    accuracy: float | None
    rate: float | None
    seconds: float | None
    params: dict[str, Any]
    recipe: dict[str, Any]
    model: str | None
    attempts: int


def _records(search: Search, study: Study) -> list[Record]:
    tries = attempts(study)
    found = []
    for slot, trial in sorted(finished(study).items()):
        made, complete = trial.user_attrs, trial.state.name == "COMPLETE"
        found.append(
            Record(
                slot,
                trial.value if complete else None,
                made.get("rate"),
                made.get("seconds"),
                {name: _varied(name, value, made["recipe"]) for name, value in trial.params.items()},
                made["recipe"],
                str(search.model(slot)) if complete else None,
                len(tries[slot]),
            )
        )
    return found


def _varied(name: str, suggested: Any, recipe: dict[str, Any]) -> Any:
    section, key, item = option_of(name)
    return suggested if item is None else recipe[section][key][item]


def ranked(records: list[Record]) -> list[Record]:
    """The best first: most accurate, then fewest spikes, then first asked for; without the pruned ones."""
    whole = [r for r in records if r.accuracy is not None]
    return sorted(whole, key=lambda r: (-(r.accuracy or 0.0), r.rate or 0.0, r.trial))


def run(
    search: Search,
    url: str,
    trials: int,
    workers: int,
    grace_s: float = 60.0,
    cluster: Cluster | None = None,
    on_trial: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Search until so many trials have ended, and give what they came to.

    Called again it goes on: trials that have ended stay, those under way continue from their
    checkpoints. However it ends, its local workers are stopped and its job is cancelled.

    Args:
        url: of the database, with a password if it needs one.
        workers: processes at a time. Several have one thread each.
        grace_s: a worker that shows no life for so long has lost its trial.
        cluster: workers are the tasks of a job array there; None: processes on this machine.
        on_trial: called once for each trial that has ended, in this call or before.

    Raises:
        DelayNetError: a trial failed too often, workers end at once, or the database or Slurm fails.
    """
    with open_study(search, url) as study:
        top_up(search, study, trials)
        told: set[int] = set()

        def done() -> bool:
            ended = finished(study)
            if ended.keys() - told:
                for record in _records(search, study):
                    if record.trial not in told:
                        told.add(record.trial)
                        if on_trial is not None:
                            on_trial(record)
            return all(slot in ended for slot in attempts(study))

        if not done():
            crew = (
                _local(search, url, workers, grace_s)
                if cluster is None
                else _job(search, workers, grace_s, cluster)
            )
            with crew as tend:
                watch = Watch(grace_s)
                while not done():
                    mend(search, study, watch)
                    tend(study, watch)
                    time.sleep(_POLL_S)
        _tidy(search, finished(study).keys())
        return _records(search, study)


def _tidy(search: Search, slots: Any) -> None:
    """A worker that was wrongly taken for dead may leave a checkpoint behind."""
    for slot in slots:
        search.checkpoint(slot).unlink(missing_ok=True)


def _command(search: Search, grace_s: float) -> list[str]:
    folder = str(search.folder.absolute())
    command = [*command_of("delaynet_lava"), "search", search.task, f"--output={folder}"]
    return [*command, "--worker", f"--grace={grace_s}"]


@contextlib.contextmanager
def _local(
    search: Search, url: str, workers: int, grace_s: float
) -> Iterator[Callable[[Study, Watch], None]]:
    """Processes of this machine; what is given replaces those that were killed."""
    environment = os.environ | {STORAGE: url}
    if workers > 1:
        environment |= dict.fromkeys(_ONE_THREAD, "1")
    crew: list[tuple[int, subprocess.Popen]] = []
    in_vain = 0

    def log(k: int) -> Path:
        return search.folder / f"worker-{k}.log"

    def start(k: int) -> None:
        with open(log(k), "ab") as file:
            process = subprocess.Popen(
                _command(search, grace_s),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to this process, which stops them one by one.
                start_new_session=True,
            )
        crew.append((k, process))

    def tend(study: Study, watch: Watch) -> None:
        nonlocal in_vain
        for k, process in list(crew):
            if process.poll() is None:
                continue
            crew.remove((k, process))
            if process.returncode == 0 and not unfinished(study):
                continue
            name = name_of(process.pid)
            mend(search, study, watch, dead=name)
            took = any(t.user_attrs.get("worker") == name for t in study.get_trials(deepcopy=False))
            in_vain = 0 if took else in_vain + 1
            if in_vain >= _IN_VAIN:
                raise DelayNetError(
                    f"{log(k)}: workers end at once (exit code {process.returncode}): {_last_line(log(k))}"
                )
            start(k)

    try:
        for k in range(workers):
            start(k)
        yield tend
        for _, process in crew:  # they see by themselves that nothing is left
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
    finally:
        _stop([process for _, process in crew])


def _stop(crew: list[subprocess.Popen]) -> None:
    """End processes, after they have marked their attempts as stopped if they are quick about it."""
    for process in crew:
        process.terminate()
    end = time.monotonic() + _STOP_S
    for process in crew:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@contextlib.contextmanager
def _job(
    search: Search, workers: int, grace_s: float, cluster: Cluster
) -> Iterator[Callable[[Study, Watch], None]]:
    """A job array; what is given says when all its tasks have ended too early."""
    from delaynet_lava.deploy import slurm
    from delaynet_lava.deploy.hosts import Local

    host = Local()
    threads = "".join(f"export {name}=1\n" for name in _ONE_THREAD)
    folder = str(search.folder.absolute())
    job = slurm.submit(
        host,
        f"#!/bin/sh\n{threads}exec {shlex.join(_command(search, grace_s))}\n",
        folder=folder,
        name="delaynet-search",
        log="worker-%A_%a.log",
        partition=cluster.partition,
        time_limit_min=cluster.time_min,
        array=workers,
    )
    asked, unanswered = time.monotonic(), 0

    def tend(study: Study, watch: Watch) -> None:
        nonlocal asked, unanswered
        if time.monotonic() - asked < _ASK_SLURM_S:
            return
        asked = time.monotonic()
        try:
            tasks = slurm.tasks(host, job)
            unanswered = 0
        except DelayNetError:
            # Slurm is restarted now and then, and the workers do not mind.
            unanswered += 1
            if unanswered >= _UNANSWERED:
                raise
            return
        if all(task.ended for task in tasks) and unfinished(study):
            ends = sorted({task.state for task in tasks}) or ["forgotten by Slurm"]
            raise DelayNetError(
                f"job {job}: all workers have ended ({', '.join(ends)}) with {len(finished(study))} of "
                f"{len(attempts(study))} trials done; see {folder}/worker-{job}_*.log, call again to go on"
            )

    try:
        yield tend
    except BaseException:
        slurm.cancel(host, job)
        raise
    # Workers that run see by themselves that nothing is left; some may still wait.
    with contextlib.suppress(DelayNetError):
        slurm.cancel(host, job)
