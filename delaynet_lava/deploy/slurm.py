"""Slurm through its own commands: what it has, a job sent, watched and cancelled."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from delaynet_lava.deploy.hosts import NOT_FOUND, Answer, ConnectionLost, Host
from delaynet_lava.errors import DelayNetError, InputError

__all__ = [
    "Node", "Partition", "Refused", "SlurmMissing", "Task", "cancel", "partitions", "submit", "tasks",
]  # fmt: skip

# A tab separates: no name in Slurm's configuration holds one. %R is the partition's name, %P marks the
# default one with a star.
SINFO = ("%R", "%P", "%a", "%l", "%N", "%T", "%C")
# Columns of fixed width, which every version of squeue prints alike.
SQUEUE = (("ArrayTaskID", 20), ("State", 30), ("exit_code", 20), ("NodeList", 255), ("Reason", 255))

UP = frozenset({"idle", "mixed", "mix", "allocated", "alloc", "completing", "comp", "planned", "plnd"})
# Behind a node's state: "-" planned for a job, "#" starting up. Others, such as "*" not responding or "~"
# powered down, mean that nothing runs there now.
UP_MARKS = "-#"
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
ENDED = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL",
        "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT",
    }
)  # fmt: skip
# Ends at which the exit code is the script's own.
WITH_CODE = frozenset({"COMPLETED", "FAILED", "OUT_OF_MEMORY"})

_JOB = re.compile(r"[0-9]{1,10}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")

# sbatch on a full queue says so, and then tries again for two minutes. It is ended at that moment, while
# it sleeps between a refusal and its next try, so that no job comes of it. Its stderr goes through the
# pipe, behind its process id; its stdout, the job's id, goes around.
_SUBMIT = (
    'command -v "$1" >/dev/null || exit 127; exec 3>&1; '
    """sh -c 'echo $$; exec "$@" 2>&1 >&3 3>&-' sh "$@" | """
    '{ read -r pid; while read -r line; do printf "%s\\n" "$line" >&2; '
    'case $line in *retrying*) kill "$pid";; esac; done; }'
)


class SlurmMissing(DelayNetError):
    """No Slurm there, or one that does not answer."""

    def __init__(self, host: Host, command: str, answer: Answer) -> None:
        if answer.code == NOT_FOUND:
            problem, remedy = f"{command} is not on the PATH", "is this the cluster's front node?"
        else:
            problem, remedy = f"{command} failed ({_said(answer)})", "is Slurm running there?"
        super().__init__(f"{host.name}: {problem}; {remedy}")


class Refused(DelayNetError):
    """Slurm did not take a job; none was left behind."""


@dataclass(frozen=True)
class Node:
    """A node as sinfo shows it.

    Attributes:
        name: as Slurm calls it.
        state: sinfo's word with its mark, such as "idle" or "down*".
        up: whether it takes jobs, now or when those before are done.
        idle_cpus: CPUs that no job holds.
        cpus: all CPUs.
    """

    name: str
    state: str
    up: bool
    idle_cpus: int
    cpus: int


@dataclass(frozen=True)
class Partition:
    """A partition that has nodes.

    Attributes:
        name: without the star of the default one.
        default: whether jobs go here that name none.
        available: whether it takes jobs and starts them.
        time_limit_min: the longest a job may take; None: any time.
        nodes: in the order sinfo gives them.
    """

    name: str
    default: bool
    available: bool
    time_limit_min: float | None
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Task:
    """A job, or one task of a job array.

    Attributes:
        index: in the array; None for a job that is no array.
        state: Slurm's word, such as PENDING or NODE_FAIL.
        reason: why it waits or how it ended, in Slurm's words; empty where there is nothing to say.
        exit_code: the script's own, 128 + n where signal n ended it; None where it did not end by itself.
        node: where it runs or ran; empty before.
    """

    index: int | None
    state: str
    reason: str
    exit_code: int | None
    node: str

    @property
    def waiting(self) -> bool:
        """Not started yet."""
        return self.state in WAITING

    @property
    def ended(self) -> bool:
        """Over, however it went."""
        return self.state in ENDED

    @property
    def running(self) -> bool:
        """Started and not over."""
        return not self.waiting and not self.ended


def partitions(host: Host) -> list[Partition]:
    """What sinfo shows, with every node of each partition.

    Raises:
        SlurmMissing: no sinfo there, or it fails, or its answer can't be read.
        ConnectionLost: see ``Host.run``.
    """
    answer = host.run(["sinfo", "--noheader", "--Node", "--format=" + "\t".join(SINFO)])
    if answer.code:
        raise SlurmMissing(host, "sinfo", answer)
    rows: dict[str, list[list[str]]] = {}
    for line in answer.out.splitlines():
        if line.strip():
            row = [field.strip() for field in line.split("\t")]
            rows.setdefault(row[0], []).append(row)
    try:
        return [_partition(name, found) for name, found in rows.items()]
    except ValueError as error:
        raise SlurmMissing(host, "sinfo", Answer(0, "", f"its answer can't be read: {error}")) from error


def _partition(name: str, rows: list[list[str]]) -> Partition:
    nodes = []
    for row in rows:
        if len(row) != len(SINFO):
            raise ValueError(f"{len(row)} columns in {row}")
        _, starred, available, limit, node, state, cpus = row
        _, idle, _, total = map(int, cpus.split("/"))  # allocated, idle, other, total
        up = state.rstrip(UP_MARKS).lower() in UP
        nodes.append(Node(node, state, up, idle, total))
    return Partition(name, starred == name + "*", available == "up", _minutes(limit), tuple(nodes))


def _minutes(text: str) -> float | None:
    """Slurm's d-hh:mm:ss, with as many parts as it needs."""
    if text.lower() in ("infinite", "unlimited", "n/a"):
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) > 3:
        raise ValueError(f"a time limit of {text}")
    if not dash and len(parts) < 3:  # the clock begins with minutes; behind days it begins with hours
        parts.insert(0, 0)
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def submit(
    host: Host,
    script: str,
    *,
    folder: str,
    name: str,
    log: str,
    partition: str | None = None,
    node: str | None = None,
    time_limit_min: float | None = None,
    array: int | None = None,
    cpus: int = 1,
) -> str:
    """Send a batch script to Slurm. A job whose node fails is not started again.

    Args:
        host: where sbatch is.
        script: begins with ``#!``.
        folder: absolute, where the job runs.
        name: the job's name in Slurm's tables; any characters but control characters.
        log: file for stdout and stderr, from ``folder``; ``%A`` is the job's number and ``%a`` the task's.
        partition: None: the default one.
        node: None: any.
        time_limit_min: None: the partition's. Slurm counts whole minutes and rounds up.
        array: this many tasks, 0 to array - 1, instead of one job.
        cpus: for each task.

    Returns:
        The job's number.

    Raises:
        Refused: with sbatch's reason: queue full, no such partition or node, a limit.
        InputError: an argument that Slurm could not take or could misread.
        SlurmMissing: no sbatch there.
        ConnectionLost: no answer, see ``Host.run``; the job may have been sent all the same.
    """
    if not name or not name.isprintable():
        raise InputError("job name", f"{name!r} is empty or has control characters")
    if not folder.startswith("/"):
        raise InputError("job folder", f"{folder!r} is not absolute")
    argv = ["sbatch", "--parsable", "--no-requeue", "--ntasks=1", f"--cpus-per-task={cpus:d}"]
    argv += [f"--chdir={folder}", f"--job-name={name}", f"--output={log}"]
    if partition is not None:
        argv.append(f"--partition={_check(_NAME, 'partition', partition)}")
    if node is not None:
        argv.append(f"--nodelist={_check(_NAME, 'node', node)}")
    if time_limit_min is not None:
        if not 0 < time_limit_min < 1e6:  # Slurm takes 0 for no limit
            raise InputError("time limit", f"{time_limit_min:g} min is not between 0 and 1000000")
        argv.append(f"--time={math.ceil(time_limit_min)}")
    if array is not None:
        if array < 1:
            raise InputError("job array", f"{array} tasks; at least one is needed")
        argv.append(f"--array=0-{array - 1}")
    answer = host.run(["sh", "-c", _SUBMIT, "sh", *argv], input=script.encode())
    if answer.code == NOT_FOUND:
        raise SlurmMissing(host, "sbatch", answer)
    # "1234", or "1234;cluster" where there are several.
    if job := re.fullmatch(rf"({_JOB.pattern})(;\S*)?", answer.out.strip()):
        return job[1]
    reasons = [re.sub(r"^sbatch: (error: |fatal: )?", "", line) for line in answer.complaints]
    if full := [line for line in reasons if "retrying" in line]:
        raise Refused(
            f"{host.name}: Slurm takes no more jobs now ({full[0]}); nothing was sent; "
            "try later or with fewer shards"
        )
    said = "; ".join(reasons) or "sbatch said nothing"
    if "timed out" in said:
        raise ConnectionLost(host.name, said)
    if re.search("Unable to contact|configuration source", said):
        raise SlurmMissing(host, "sbatch", answer)
    raise Refused(f"{host.name}: Slurm refused the job ({said}); nothing was sent")


def tasks(host: Host, job: str) -> list[Task]:
    """The state of a job, or of each task of an array, in the array's order.

    Slurm forgets a task some minutes after its end (MinJobAge, 300 s as a rule), each task of an array by
    itself. Where it keeps accounts it is asked there when it has forgotten all of a job.

    Returns:
        Nothing when Slurm does not know the job, or no longer.

    Raises:
        InputError: ``job`` is no number.
        SlurmMissing: squeue is not there or fails, such as while Slurm is restarted.
        ConnectionLost: see ``Host.run``.
    """
    _check(_JOB, "job", job)
    columns = ",".join(f"{name}:{width}" for name, width in SQUEUE)
    answer = host.run(
        ["squeue", "--noheader", "--array", "--states=all", f"--Format={columns}", f"--job={job}"]
    )
    if answer.code and "Invalid job id" not in answer.err:
        raise SlurmMissing(host, "squeue", answer)
    try:
        found = [] if answer.code else [_queued(line) for line in answer.out.splitlines() if line.strip()]
    except ValueError as error:
        raise SlurmMissing(host, "squeue", Answer(0, "", f"its answer can't be read: {error}")) from error
    return sorted(found or _accounted(host, job), key=lambda task: task.index or 0)


def _queued(line: str) -> Task:
    fields, start = [], 0
    for _, width in SQUEUE:
        fields.append(line[start : start + width].strip())
        start += width
    index, state, status, node, reason = fields
    # The status as wait() gives it.
    code, signal = divmod(int(status), 256)
    return _task(None if index == "N/A" else int(index), state, reason, code, signal & 127, node)


def _accounted(host: Host, job: str) -> list[Task]:
    """What Slurm's accounts say of a job; nothing where none are kept."""
    answer = host.run(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--array",
         "--format=JobID,State,ExitCode,NodeList", f"--jobs={job}"]
    )  # fmt: skip
    found = []
    for line in answer.out.splitlines() if answer.code == 0 else []:
        if row := re.fullmatch(rf"{job}(?:_(\d+))?\|([A-Z_]+)[^|]*\|(\d+):(\d+)\|([^|]*)", line.strip()):
            index = None if row[1] is None else int(row[1])
            found.append(_task(index, row[2], "", int(row[3]), int(row[4]), row[5]))
    return found


def _task(index: int | None, state: str, reason: str, code: int, signal: int, node: str) -> Task:
    exit_code = (128 + signal if signal else code) if state in WITH_CODE else None
    blank = ("None", "None assigned", "N/A", "n/a")
    return Task(index, state, "" if reason in blank else reason, exit_code, "" if node in blank else node)


def cancel(host: Host, job: str) -> None:
    """Cancel a job with all its tasks; one that is over, or that Slurm does not know, is no error.

    Raises:
        InputError: ``job`` is no number.
        SlurmMissing: scancel is not there or fails.
        ConnectionLost: see ``Host.run``.
    """
    answer = host.run(["scancel", _check(_JOB, "job", job)])
    if answer.code and not re.search("Invalid job id|already complet", answer.err):
        raise SlurmMissing(host, "scancel", answer)


def _said(answer: Answer) -> str:
    """What a command said last, without the name of the command."""
    return re.sub(r"^\w+: (error: |fatal: )?", "", answer.reason)


def _check(pattern: re.Pattern[str], what: str, value: str) -> str:
    if not pattern.fullmatch(value):
        raise InputError(what, f"{value!r} is no name that Slurm gives")
    return value
