"""Slurm: reading what its commands say, and jobs in a real one, however they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_tools import Cluster, cluster, wait_for
from ssh_tools import front_node

from delaynet_lava.deploy.hosts import Answer, ConnectionLost, Local, Ssh
from delaynet_lava.deploy.slurm import (
    Node,
    Partition,
    Refused,
    SlurmMissing,
    Task,
    cancel,
    partitions,
    submit,
    tasks,
)
from delaynet_lava.errors import InputError

SLEEP = '#!/bin/sh\ntouch "begun-$SLURM_JOB_ID"\nsleep 1000\n'


class Said(Local):
    """A host whose commands say what a test wants, and that remembers what it was asked."""

    name = "there"

    def __init__(self, out: str = "", err: str = "", code: int = 0, **commands: Answer) -> None:
        self.commands, self.otherwise = commands, Answer(code, out, err)
        self.asked: list[list[str]] = []

    def run(self, argv, input=b"", timeout_s=60.0, env=None) -> Answer:
        self.asked.append(list(argv))
        return self.commands.get(argv[0], self.otherwise)


def sinfo(*rows: str) -> Said:
    return Said("".join(row.replace("|", "\t") + "\n" for row in rows))


# --- reading


def test_partitions_of_sinfo():
    host = sinfo(
        "main|main*|up|infinite|n0|idle|0/4/0/4",
        "main|main*|up|infinite|n1|mixed|3/1/0/4",
        "oheogulch|oheogulch|up|1-02:30:00|ncl-ext-og-05|allocated|8/0/0/8",
        "oheogulch|oheogulch|up|1-02:30:00|ncl-ext-og-06|down*|0/0/8/8",
        "kp|kp|drain|20:00|n2|drained|0/0/4/4",
    )
    assert partitions(host) == [
        Partition(
            "main", True, True, None,
            (Node("n0", "idle", True, 4, 4), Node("n1", "mixed", True, 1, 4)),
        ),
        Partition(
            "oheogulch", False, True, 1590.0,
            (Node("ncl-ext-og-05", "allocated", True, 0, 8), Node("ncl-ext-og-06", "down*", False, 0, 8)),
        ),
        Partition("kp", False, False, 20.0, (Node("n2", "drained", False, 0, 4),)),
    ]  # fmt: skip


def test_one_line_per_node_with_an_unambiguous_separator_is_asked_for():
    partitions(host := sinfo())
    assert host.asked == [["sinfo", "--noheader", "--Node", "--format=%R\t%P\t%a\t%l\t%N\t%T\t%C"]]


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_a_slurm_without_partitions(text):
    assert partitions(Said(text)) == []


def test_a_trailing_newline_makes_no_partition():
    (partition,) = partitions(Said("main\tmain*\tup\t1:00\tn0\tidle\t0/1/0/1\n\n"))
    assert partition.name == "main"


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("infinite", None), ("UNLIMITED", None), ("n/a", None), ("0:30", 0.5), ("20:00", 20), ("5", 5),
        ("1:00:00", 60), ("2:30:00", 150), ("1-00:00:00", 1440), ("7-12", 10800), ("1-02:30", 1590),
        ("365-00:00:30", 525600.5),
    ],
)  # fmt: skip
def test_time_limits(limit, minutes):
    (partition,) = partitions(sinfo(f"main|main|up|{limit}|n0|idle|0/1/0/1"))
    assert partition.time_limit_min == minutes


@pytest.mark.parametrize(
    ("up", "states"),
    [
        (True, "idle mixed allocated completing planned idle- mixed- idle# mix alloc comp IDLE"),
        (
            False,
            "down down* idle* mixed* drained draining drained* drng drain fail failing failg maint idle$",
        ),
        (
            False,
            "unknown unk powered_down powering_down idle~ mixed~ idle% idle! idle@ idle^ reserved resv error",
        ),
        (False, "inval future perfctrs blocked no_respond rebooting n/a"),
    ],
)
def test_nodes_that_are_up(up, states):
    for state in states.split():
        (partition,) = partitions(sinfo(f"main|main|up|infinite|n0|{state}|0/1/0/1"))
        assert [node.up for node in partition.nodes] == [up], state


@pytest.mark.parametrize(
    ("word", "available"), [("up", True), ("down", False), ("drain", False), ("inact", False)]
)
def test_partitions_that_take_jobs(word, available):
    (partition,) = partitions(sinfo(f"main|main|{word}|infinite|n0|idle|0/1/0/1"))
    assert partition.available is available


def test_a_star_marks_the_default_and_is_no_part_of_a_name():
    first, second = partitions(sinfo("b|b|up|1:00|n0|idle|0/1/0/1", "a|a*|up|1:00|n0|idle|0/1/0/1"))
    assert [(p.name, p.default) for p in (first, second)] == [("b", False), ("a", True)]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            Said(err="bash: line 1: sinfo: command not found", code=127),
            "sinfo is not on the PATH; is this the cl",
        ),
        (
            Said(err="slurm_load_partitions: Unable to contact slurm controller (refused)\n", code=1),
            r"sinfo failed \(Unable to contact slurm controller \(refused\)\); is Slurm running there\?",
        ),
        (Said(code=1), r"sinfo failed \(exit code 1\)"),
        (Said("Welcome to the front node\n"), "its answer can't be read: 1 columns in .*Welcome"),
        (sinfo("main|main|up|soon|n0|idle|0/1/0/1"), "its answer can't be read"),
        (sinfo("main|main|up|1:2:3:4|n0|idle|0/1/0/1"), "its answer can't be read: a time limit of 1:2:3:4"),
        (sinfo("main|main|up|1:00|n0|idle|0/1"), "its answer can't be read"),
    ],
)
def test_no_sinfo_and_answers_that_are_none(host, message):
    with pytest.raises(SlurmMissing, match=f"^there: .*{message}") as error:
        partitions(host)
    assert "\n" not in str(error.value)


def test_a_machine_without_slurm(tmp_path, monkeypatch):
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    host = Local()
    with pytest.raises(SlurmMissing, match=r"^this machine: sinfo is not on the PATH"):
        partitions(host)
    with pytest.raises(SlurmMissing, match=r"^this machine: sbatch is not on the PATH"):
        submit(host, SLEEP, folder="/", name="x", log="x")
    with pytest.raises(SlurmMissing, match=r"^this machine: squeue is not on the PATH"):
        tasks(host, "1")
    with pytest.raises(SlurmMissing, match=r"^this machine: scancel is not on the PATH"):
        cancel(host, "1")


def queued(index: str, state: str, status: int, node: str = "", reason: str = "None") -> str:
    return f"{index:20}{state:30}{status:<20}{node:255}{reason:255}\n"


def test_tasks_of_squeue():
    host = Said(
        queued("3", "PENDING", 0, reason="Nodes required for job are DOWN")
        + queued("2", "RUNNING", 0, "n0")
        + queued("1", "FAILED", 3 * 256, "n1", "NonZeroExitCode")
        + queued("0", "FAILED", 9, "n0", "JobLaunchFailure")
    )
    assert tasks(host, "7") == [
        Task(0, "FAILED", "JobLaunchFailure", 137, "n0"),
        Task(1, "FAILED", "NonZeroExitCode", 3, "n1"),
        Task(2, "RUNNING", "", None, "n0"),
        Task(3, "PENDING", "Nodes required for job are DOWN", None, ""),
    ]
    assert tasks(Said(queued("N/A", "COMPLETED", 0, "n0")), "7") == [Task(None, "COMPLETED", "", 0, "n0")]


@pytest.mark.parametrize(
    ("property", "states"),
    [
        ("waiting", "PENDING REQUEUED"),
        ("running", "RUNNING COMPLETING CONFIGURING SUSPENDED STAGE_OUT"),
        ("ended", "COMPLETED FAILED TIMEOUT CANCELLED NODE_FAIL OUT_OF_MEMORY PREEMPTED BOOT_FAIL DEADLINE"),
    ],
)
def test_every_state_is_one_of_three(property, states):
    for state in states.split():
        task = Task(None, state, "", None, "")
        assert [p for p in ("waiting", "running", "ended") if getattr(task, p)] == [property], state


INVALID = Answer(1, "", "slurm_load_jobs error: Invalid job id specified\n")


def test_a_job_that_slurm_forgot_is_looked_up_in_its_accounts():
    kept = (
        "7_1|CANCELLED by 0|0:15|n1\n7_0|FAILED|3:0|n0\n7_2|FAILED|0:9|n0\n"
        "7_3|NODE_FAIL|1:0|None assigned\n71|COMPLETED|0:0|n0\n"
    )
    assert tasks(Said(squeue=INVALID, sacct=Answer(0, kept, "")), "7") == [
        Task(0, "FAILED", "", 3, "n0"),
        Task(1, "CANCELLED", "", None, "n1"),
        Task(2, "FAILED", "", 137, "n0"),
        Task(3, "NODE_FAIL", "", None, ""),
    ]
    one = Answer(0, "7|COMPLETED|0:0|n0\n", "")
    assert tasks(Said(squeue=INVALID, sacct=one), "7") == [Task(None, "COMPLETED", "", 0, "n0")]
    for none in (
        Answer(1, "", "Slurm accounting storage is disabled\n"),
        Answer(127, "", ""),
        Answer(0, "", ""),
    ):
        assert tasks(Said(squeue=INVALID, sacct=none), "7") == []


@pytest.mark.parametrize("out", ["garbage\n", queued("N/A", "RUNNING", 0).replace("N/A", "0-3")])
def test_an_answer_of_squeue_that_is_none(out):
    with pytest.raises(SlurmMissing, match=r"^there: squeue failed .its answer can't be read"):
        tasks(Said(out), "7")


@pytest.mark.parametrize("out", ["12\n", "12;cluster\n"])
def test_the_number_of_a_job(out):
    assert submit(Said(out), SLEEP, folder="/", name="x", log="x") == "12"


@pytest.mark.parametrize(
    ("err", "raised", "message"),
    [
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
            ConnectionLost, "there: no answer .*Socket timed out",
        ),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (refused)\n",
            SlurmMissing, r"there: sbatch failed \(.*Unable to contact",
        ),
        (
            "sbatch: error: x\x1b[2J\nsbatch: error: Batch job submission failed: No\n",
            Refused, r"there: Slurm refused the job \(x\?\[2J; Batch job submission failed: No\); nothing",
        ),
        ("", Refused, "sbatch said nothing"),
    ],
)  # fmt: skip
def test_answers_of_sbatch_without_a_number(err, raised, message):
    with pytest.raises(raised, match=message):
        submit(Said(err=err), SLEEP, folder="/", name="x", log="x")


HOSTILE = ["", "-x", "--help", "a b", "a;b", "$(x)", "a\n", "1\n2", "a'b", "../a", "a,b", "n[0-9]", "*"]


@pytest.mark.parametrize("value", HOSTILE)
def test_names_that_slurm_never_gives_reach_no_command(value):
    host = Said("1\n")
    for call in (
        lambda: tasks(host, value),
        lambda: cancel(host, value),
        lambda: submit(host, SLEEP, folder="/", name="x", log="x", partition=value),
        lambda: submit(host, SLEEP, folder="/", name="x", log="x", node=value),
    ):
        with pytest.raises(InputError, match="is no name that Slurm gives"):
            call()
    assert not host.asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "job name: '' is empty"), ({"name": "a\nb"}, "control characters"),
        ({"name": "a\x1b"}, "control characters"), ({"folder": "a"}, "job folder: 'a' is not absolute"),
        ({"folder": "-x"}, "not absolute"), ({"time_limit_min": 0}, "time limit: 0 min is not between"),
        ({"time_limit_min": -1}, "time limit"), ({"time_limit_min": float("nan")}, "time limit: nan"),
        ({"array": 0}, "job array: 0 tasks; at least one"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        submit(host := Said("1\n"), SLEEP, **{"folder": "/", "name": "x", "log": "x", **change})
    assert not host.asked


# --- a real one


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def slurm(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with no job in it, which this machine's commands find."""
    for variable, value in running_cluster.env.items():
        monkeypatch.setenv(variable, value)
    yield running_cluster
    running_cluster.cancel_all()


def send(folder: Path, script: str = SLEEP, **options: object) -> str:
    return submit(
        Local(), script, **{"folder": str(folder), "name": "test", "log": "log-%A_%a.txt", **options}
    )


def until(job: str, condition: Callable[[Task], bool], seconds: float = 30) -> list[Task]:
    """Wait until it holds for every task of a job."""
    found: list[Task] = []

    def holds() -> bool:
        found[:] = tasks(Local(), job)
        return bool(found) and all(map(condition, found))

    wait_for(holds, f"job {job}, which is {found}", seconds)
    return found


def begin(folder: Path, **options: object) -> str:
    """A job that has begun and runs until something ends it."""
    job = send(folder, **options)
    wait_for((folder / f"begun-{job}").exists, f"the beginning of job {job}")
    return job


def ended(task: Task) -> bool:
    return task.ended


@pytest.mark.slurm
def test_partitions_of_a_real_slurm(slurm):
    n0, n1 = (Node(name, "idle", True, 2, 2) for name in ("n0", "n1"))
    assert partitions(Local()) == [
        Partition("main", True, True, None, (n0, n1)),
        Partition("oheogulch", False, True, 150.0, (n1,)),
    ]
    slurm.command("scontrol", "update", "partitionname=oheogulch", "state=inactive")
    slurm.drain("n0")
    slurm.fail("n1")
    try:
        main, oheogulch = partitions(Local())
    finally:
        slurm.command("scontrol", "update", "partitionname=oheogulch", "state=up")
        slurm.resume("n0")
        slurm.resume("n1")
    assert [(node.state, node.up) for node in main.nodes] == [("drained", False), ("down", False)]
    assert (main.available, oheogulch.available) == (True, False)


@pytest.mark.slurm
def test_a_job_runs_where_and_as_it_was_asked(slurm, tmp_path):
    folder = tmp_path / "-o a b'c\"d\ne;f$(touch pwned)"
    folder.mkdir()
    name = "--help 'a' \"b\"; $(touch pwned) %x"
    script = (
        '#!/bin/sh\npwd\necho "$SLURM_JOB_NAME|$SLURM_JOB_PARTITION|$SLURM_CPUS_PER_TASK"\necho oops >&2\n'
    )
    job = send(folder, script, name=name, partition="oheogulch", node="n1", cpus=2, time_limit_min=0.5)
    assert slurm.command("squeue", "--noheader", f"--job={job}", "--format=%l").strip() == "1:00"
    assert until(job, ended) == [Task(None, "COMPLETED", "", 0, "n1")]
    (log,) = folder.iterdir()
    assert log.read_text() == f"{folder}\n{name}|oheogulch|2\noops\n"
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.slurm
def test_an_array_of_four(slurm, tmp_path):
    job = send(tmp_path, "#!/bin/sh\nexit $SLURM_ARRAY_TASK_ID\n", array=4)
    waiting = tasks(Local(), job)
    assert [task.index for task in waiting] == [0, 1, 2, 3]  # one line in Slurm's own table
    found = until(job, ended)
    assert [(task.index, task.state, task.exit_code) for task in found] == [
        (0, "COMPLETED", 0), (1, "FAILED", 1), (2, "FAILED", 2), (3, "FAILED", 3),
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"log-{job}_{k}.txt" for k in range(4)]


@pytest.mark.slurm
def test_jobs_that_are_killed(slurm, tmp_path):
    cancelled, killed = begin(tmp_path), begin(tmp_path)
    assert [task.running for job in (cancelled, killed) for task in tasks(Local(), job)] == [True, True]
    cancel(Local(), cancelled)
    slurm.kill_job(killed)
    (task,) = until(cancelled, ended)
    assert (task.state, task.exit_code) == ("CANCELLED", None)
    (task,) = until(killed, ended)
    assert (task.state, task.exit_code) == ("FAILED", 137)
    cancel(Local(), cancelled)  # once more, and one that never was
    cancel(Local(), "999999")
    assert tasks(Local(), "999999") == []


@pytest.mark.slurm
def test_cancel_ends_every_task_of_an_array_also_those_that_wait(slurm, tmp_path):
    job = send(tmp_path, array=3, cpus=2)
    wait_for(lambda: sum(task.running for task in tasks(Local(), job)) == 2, "two of three tasks")
    cancel(Local(), job)
    assert [task.state for task in until(job, ended)] == ["CANCELLED"] * 3


@pytest.mark.slurm
def test_a_drained_node_makes_a_job_wait_and_says_why(slurm, tmp_path):
    slurm.drain("n1")
    try:
        job = send(tmp_path, partition="oheogulch")
        (task,) = until(job, lambda task: task.waiting and bool(task.reason))
        # Slurm says it in one of two ways.
        assert "DRAINED" in task.reason or task.reason == "ReqNodeNotAvail, UnavailableNodes:n1"
    finally:
        slurm.resume("n1")
    until(job, lambda task: task.running)


@pytest.mark.slurm
def test_a_job_beyond_a_partitions_limits_is_taken_and_says_why_it_waits(slurm, tmp_path):
    wide, long = send(tmp_path, cpus=99), send(tmp_path, partition="oheogulch", time_limit_min=151)
    for job in (wide, long):
        (task,) = until(job, lambda task: task.reason not in ("", "Priority", "Resources"))
        assert task.waiting and task.reason.startswith("Partition")


@pytest.mark.slurm
def test_a_job_ends_with_its_node_and_is_not_started_again(slurm, tmp_path):
    job = begin(tmp_path, node="n1")
    slurm.fail("n1")
    try:
        (task,) = until(job, ended)
    finally:
        slurm.resume("n1")
    assert (task.state, task.exit_code, task.node) == ("NODE_FAIL", None, "n1")


@pytest.mark.slow
@pytest.mark.slurm
def test_a_node_that_loses_its_power(slurm, tmp_path):
    job = begin(tmp_path, node="n1")
    slurm.kill_node("n1")
    try:
        (task,) = until(job, ended, 90)
        ((_, node), _) = (partition.nodes for partition in partitions(Local()))
    finally:
        slurm.start_node("n1")
    assert (task.state, node.up) == ("NODE_FAIL", False)


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_longer_than_its_time_limit(slurm, tmp_path):
    job = send(tmp_path, time_limit_min=1)
    (task,) = until(job, ended, 180)
    assert (task.state, task.exit_code) == ("TIMEOUT", None)


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"partition": "nosuch"}, "Invalid partition name"), ({"node": "nosuch"}, "Invalid node name"),
        ({"partition": "oheogulch", "node": "n0"}, "Requested node configuration is not available"),
        ({"array": 100_000}, "Invalid job array specification"),
        ({"script": "echo"}, "does not look like a batch script"), ({"script": ""}, "Batch script is empty"),
    ],
)  # fmt: skip
def test_jobs_that_slurm_refuses(slurm, tmp_path, options, reason):
    try:
        job = send(tmp_path, **options)
    except Refused as error:
        assert reason in str(error) and str(error).endswith("; nothing was sent")
        assert not slurm.command("squeue", "--noheader")
    else:
        pytest.fail(f"job {job} was taken")


@pytest.mark.slurm
def test_a_full_queue_refuses_at_once_and_leaves_no_job(tmp_path, monkeypatch):
    with cluster(MaxJobCount=3) as full:
        for variable, value in full.env.items():
            monkeypatch.setenv(variable, value)
        jobs = [send(tmp_path), send(tmp_path)]
        with pytest.raises(
            Refused, match=r"^this machine: Slurm takes no more jobs now .*nothing was sent; try l"
        ):
            send(tmp_path, name="too many")
        # Nor is there an sbatch any more that would try again.
        assert "sbatch" not in full.processes()
        assert full.command("squeue", "--noheader", "--states=all", "--format=%j").split() == ["test"] * 2
        for job in jobs:
            cancel(Local(), job)


@pytest.mark.slurm
def test_two_slurms_do_not_meet(slurm, tmp_path, monkeypatch):
    mine = begin(tmp_path)
    with cluster() as other:
        assert not other.command("squeue", "--noheader")
    assert [task.state for task in tasks(Local(), mine)] == ["RUNNING"]


@pytest.mark.slow
@pytest.mark.slurm
def test_a_slurm_that_is_stopped_and_started_again(slurm, tmp_path):
    job = begin(tmp_path)
    slurm.stop_controller()
    try:
        for call in (lambda: partitions(Local()), lambda: tasks(Local(), job), lambda: send(tmp_path)):
            with pytest.raises(SlurmMissing, match="Unable to contact slurm controller"):
                call()
    finally:
        slurm.start_controller()
    assert [task.state for task in tasks(Local(), job)] == ["RUNNING"]


@pytest.mark.slurm
def test_over_ssh(slurm, monkeypatch):
    with front_node({**slurm.env, "PATH": os.environ["PATH"]}) as front:
        for variable, value in front.env.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("SLURM_CONF")
        host = Ssh(front.alias)
        assert [partition.name for partition in partitions(host)] == ["main", "oheogulch"]
        name = "-a 'b' \"c\"; touch pwned"
        script = '#!/bin/sh\necho "$SLURM_JOB_NAME" >&2\nexit 5\n'
        job = submit(host, script, folder=str(front.home), name=name, log="log", array=1)
        wait_for(lambda: all(task.ended for task in tasks(host, job)), "the job")
        assert tasks(host, job) == [Task(0, "FAILED", "NonZeroExitCode", 5, "n0")]
        assert (front.home / "log").read_text() == f"{name}\n"
        with pytest.raises(Refused, match=r"^frontnode: Slurm refused the job \(.*Invalid partition name"):
            submit(host, script, folder=str(front.home), name=name, log="log", partition="nosuch")
        cancel(host, job)
        assert not list(front.home.rglob("pwned"))
