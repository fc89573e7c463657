"""A job: a bundle on a host, from the moment it is sent until its results are here.

A job's folder holds ``bundle/``, to which results and logs come back, and ``job.json``, which says where
it runs; with that, anybody who has the folder can go on waiting.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from delaynet_lava.deploy import results, slurm
from delaynet_lava.deploy.bundle import Manifest, read_manifest
from delaynet_lava.deploy.hosts import JOBS, ConnectionLost, Host, host_of
from delaynet_lava.deploy.preflight import READ_SETUP, Target
from delaynet_lava.deploy.untrusted import Fields, read_json
from delaynet_lava.errors import DelayNetError, InputError
from delaynet_lava.files import replace_file

__all__ = ["JOBS", "Job", "JobFailed", "cancel", "job_script", "make_folder", "read_job", "start", "watch"]

FORMAT, VERSION = "delaynet_lava.job", 1
JOB, BUNDLE, LOG = "job.json", "bundle", "job-{}.log"
POLL_S, LONGEST_POLL_S = 0.5, 15.0
RETRIES = 5
# Slurm writes status and log through a file system that the front node may see late.
GRACE_S = 5.0
# Reasons to wait that nobody's leaving the queue will end; all nodes may be down only for a moment.
STUCK = ("down", "drain", "notavail", "inactive", "badconstraints", "partitionconfig", "partitiontimelimit")
PATIENCE_S = 10.0


class JobFailed(DelayNetError):
    """A job that did not end well; the message says what happened and where its files are."""

    exit_code = 1


@dataclass(frozen=True)
class Job:
    """Where a bundle runs.

    Attributes:
        folder: local.
        host: destination of ssh; None: this machine.
        there: folder of the bundle on the host.
        launch: "sbatch" or "direct".
        ids: Slurm's job number, or a process number for each shard.
        manifest: hash of the bundle's manifest.
    """

    folder: Path
    host: str | None
    there: str
    launch: str
    ids: tuple[str, ...]
    manifest: str

    @property
    def bundle(self) -> Path:
        """Local folder of the bundle, to which results come back."""
        return self.folder / BUNDLE

    @property
    def words(self) -> str:
        """The job in a message."""
        return f"job {self.ids[0]}" if self.launch == "sbatch" else f"process {', '.join(self.ids)}"


def job_script(target: Target) -> str:
    """What the job's shell runs: the set-up file, then the share of the bundle that is the array's task, or
    the number in SHARD."""
    python, setup = shlex.quote(target.python), shlex.quote(target.setup or "")
    return (
        f"#!/bin/{target.shell}\n"
        f"set -- {python} {setup}\n"
        f"python=$1; shift; {READ_SETUP}\n"
        'exec "$python" run.py --shard "${SLURM_ARRAY_TASK_ID:-${SHARD:-0}}"\n'
    )


def start(folder: Path, target: Target, host: Host, destination: str | None) -> Job:
    """Send the bundle in ``folder/bundle`` and start it.

    Raises:
        Refused: Slurm does not take it. InputError: it can't be sent or started.
        ConnectionLost: see :class:`Host`.
    """
    manifest = read_manifest(folder / BUNDLE)
    # Where two users, or two runs, share a front node, the hash keeps their folders apart.
    there = host.place(folder / BUNDLE, f"{manifest.name}-{manifest.sha256[:8]}")
    script = job_script(target)
    if target.launch == "sbatch":
        number = slurm.submit(
            host, script, folder=there, name=f"delaynet {manifest.name}",
            log=LOG.format("%a") if manifest.shards > 1 else LOG.format(0),
            partition=target.partition, node=target.board, time_limit_min=target.time_limit_min,
            array=manifest.shards if manifest.shards > 1 else None,
        )  # fmt: skip
        ids: tuple[str, ...] = (number,)
    else:
        ids = tuple(_direct(host, there, target.shell, script, shard) for shard in range(manifest.shards))
    job = Job(folder, destination, there, target.launch, ids, manifest.sha256)
    content = {"format": FORMAT, "version": VERSION, **asdict(job), "folder": ""}
    replace_file(folder / JOB, (json.dumps(content, indent=1) + "\n").encode())
    return job


# In a session of its own, so that it outlives the connection; its shell answers with its number.
_START = 'cd -- "$1" && SHARD=$2 setsid nohup "$3" -c "$4" >"$5" 2>&1 </dev/null & echo "$!"'


def _direct(host: Host, there: str, shell: str, script: str, shard: int) -> str:
    answer = host.run(["sh", "-c", _START, "sh", there, str(shard), shell, script, LOG.format(shard)])
    if answer.code or not answer.out.strip().isdigit():
        raise InputError(host.name, f"the job can't be started there ({answer.reason})")
    return answer.out.strip()


def make_folder(name: str) -> Path:
    """A new folder in ``delaynet-jobs/``, which git is told to leave alone.

    Raises:
        FileExistsError: there is one of that name.
        InputError: it can't be made.
    """
    jobs = Path(JOBS)
    try:
        jobs.mkdir(exist_ok=True)
        ignored = jobs / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n")
        (jobs / name).mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(f"{JOBS}/{name}", f"cannot be made ({error.strerror})", "give --output") from error
    return jobs / name


def read_job(name: str) -> Job:
    """The job of a folder, or of a number that Slurm gave, below ``delaynet-jobs/``.

    Raises:
        InputError: no such job, or a damaged file.
    """
    if re.fullmatch(r"[0-9]+", name):
        for path in sorted(Path(JOBS).glob(f"*/{JOB}"), reverse=True):
            job = read_job(str(path.parent))
            if name in job.ids:
                return job
        raise InputError("job", f"none of {JOBS}/ has the number {name}", "give its folder")
    folder = Path(name)
    path = folder / JOB
    if not os.path.isfile(path):
        raise InputError(str(path), "does not exist", "name the folder that deploy printed")
    values, _ = read_json(path, 1 << 20)
    read = Fields(values, str(path), ["format", "version", *(f.name for f in fields(Job))])
    if values["format"] != FORMAT or values["version"] != VERSION:
        raise InputError(str(path), "is not a job of this release")
    ids, host = values["ids"], values["host"]
    if not isinstance(ids, list) or not ids or not all(re.fullmatch("[0-9]{1,10}", str(k)) for k in ids):
        raise read.refuse("ids", "job or process numbers")
    if host is not None:
        host_of(read.text("host"))
    launch = read.text("launch", "sbatch|direct")
    there = read.text("there")
    if not there.startswith("/"):
        raise read.refuse("there", "an absolute path")
    return Job(folder, host, there, launch, tuple(map(str, ids)), read.text("manifest", "[0-9a-f]{64}"))


@dataclass(frozen=True)
class Progress:
    """How far a job is: samples done, of all, and a few words; why it can't start, where it can't."""

    done: int
    of: int
    words: str
    stuck: str = ""


def watch(
    job: Job,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Wait until every shard's result is in the bundle's folder.

    A lost connection is tried again a few times, with longer and longer pauses.

    Raises:
        JobFailed: a shard ended without a result, or can't start; its log was fetched where there is one.
        ConnectionLost: for good; the job goes on, and so can the wait.
    """
    host, manifest = host_of(job.host), read_manifest(job.bundle)
    if manifest.sha256 != job.manifest:
        raise InputError(str(job.bundle), "is not the bundle that was sent", "keep a folder for each job")
    pause, lost, stuck_since = POLL_S, 0, None
    # By this wait: what an earlier one brought may not have been whole.
    fetched: set[int] = set()
    while True:
        try:
            progress = _look(job, host, manifest, fetched)
            lost = 0
        except (ConnectionLost, slurm.SlurmMissing) as error:
            lost += 1
            if lost > RETRIES:
                raise ConnectionLost(
                    host.name, f"{error}; {job.words} goes on: delaynet deploy --attach {job.folder}"
                ) from error
            progress = Progress(0, manifest.samples, f"no answer from {host.name}, trying again")
            sleep(min(2.0**lost, LONGEST_POLL_S))
        on_progress(progress)
        now = time.monotonic()
        stuck_since = (stuck_since or now) if progress.stuck else None
        if stuck_since is not None and now - stuck_since >= PATIENCE_S:
            raise JobFailed(
                f"{job.words} on {host.name} can't start: {progress.stuck}; it stays in the queue: "
                f"delaynet deploy --attach {job.folder} waits on, --cancel {job.folder} ends it"
            )
        if progress.done == progress.of:
            return
        sleep(pause)
        pause = min(1.2 * pause, LONGEST_POLL_S)


def _look(job: Job, host: Host, manifest: Manifest, fetched: set[int]) -> Progress:
    shards = range(manifest.shards)
    # Asked first: what a job wrote before it ended is there afterwards.
    ended, stuck = _ended(job, host, shards)
    waiting: list[int] = []
    names = [results.result_names(k)[0] for k in shards]
    there = host.collect(job.there, names, job.bundle)
    done = 0
    for k in shards:
        status = results.status(job.bundle, k) if names[k] in there else None
        if status is not None and status.state == "done":
            done += len(manifest.share(k))
            if k not in fetched:
                _fetch(job, host, k)
                fetched.add(k)
        elif (status is not None and status.state == "failed") or k in ended:
            _fail(job, host, k, ended.get(k, ""), status)
        elif status is None:
            waiting.append(k)
        else:
            # What is said to be done is not yet here.
            done += min(status.done, len(manifest.share(k)) - 1)
    words = f"{len(waiting)} of {len(shards)} waiting" if waiting else "running"
    return Progress(done, manifest.samples, f"{job.words}: {words}", stuck)


def _ended(job: Job, host: Host, shards: range) -> tuple[dict[int, str], str]:
    """Shards that no longer run, with how they ended; and what keeps others from ever starting."""
    if job.launch == "direct":
        # Not by kill -0: what nobody has asked after yet still answers that.
        alive = 'for p do case $(ps -o stat= -p "$p") in ""|Z*) ;; *) echo "$p";; esac; done'
        running = host.run(["sh", "-c", alive, "sh", *job.ids]).out.split()
        return {k: "" for k in shards if job.ids[k] not in running}, ""
    tasks = slurm.tasks(host, job.ids[0])
    stuck = [t for t in tasks if t.waiting and any(word in t.reason.lower() for word in STUCK)]
    known = {0 if task.index is None else task.index: task for task in tasks}
    ended = {}
    for k in shards:
        task = known.get(k)
        if task is None:
            ended[k] = "Slurm no longer knows it"
        elif task.ended:
            code = "" if task.exit_code is None else f" with exit code {task.exit_code}"
            at = f" on {task.node}" if task.node else ""
            ended[k] = f"{_WORDS.get(task.state, task.state.lower())}{code}{at}"
    return ended, stuck[0].reason if stuck else ""


_WORDS = {
    "TIMEOUT": "its time limit was over",
    "CANCELLED": "it was cancelled",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it ran out of memory",
    "COMPLETED": "it ended",
    "FAILED": "it failed",
}


def _fetch(job: Job, host: Host, shard: int) -> None:
    _, *wanted = results.result_names(shard)
    found = host.collect(job.there, wanted, job.bundle)
    if missing := [name for name in wanted if name not in found]:
        raise JobFailed(f"{host.name}:{job.there}/{missing[0]}: does not exist, though shard {shard} is done")


def _fail(job: Job, host: Host, shard: int, how: str, status: results.Status | None) -> None:
    """Say how a shard ended; unless its result came in at the very last moment.

    Raises:
        JobFailed: always but then.
    """
    name, log = results.result_names(shard)[0], LOG.format(shard)
    deadline = time.monotonic() + GRACE_S
    while (status is None or status.state == "running") and time.monotonic() < deadline:
        time.sleep(POLL_S)
        if host.collect(job.there, [name], job.bundle):
            status = results.status(job.bundle, shard)
            if status is not None and status.state == "done":
                return
    logged = host.collect(job.there, [log], job.bundle)
    reasons = [how] if how else []
    if status is not None and status.error:
        reasons.append(status.error)
    elif logged and (last := _last_line(job.bundle / log)):
        reasons.append(last)
    where = f"{job.bundle / log}" if logged else f"{host.name}:{job.there}"
    raise JobFailed(
        f"{job.words}, shard {shard} on {host.name}: {'; '.join(reasons) or 'it ended without a result'}; "
        f"see {where}"
    )


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1].strip())[:400] if lines else ""


def cancel(job: Job) -> None:
    """End a job, whether it waits or runs; one that is over is no error.

    Raises:
        ConnectionLost, SlurmMissing: it may still run.
    """
    host = host_of(job.host)
    if job.launch == "sbatch":
        slurm.cancel(host, job.ids[0])
    else:
        # The whole session: Lava's processes too.
        host.run(["sh", "-c", 'for p do kill -TERM "-$p" 2>/dev/null; done; true', "sh", *job.ids])
