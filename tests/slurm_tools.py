"""A real Slurm of a test's own: munged, slurmctld and two slurmd on loopback, in a temporary directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

NODES = ("n0", "n1")
READY = ("idle", "mixed", "allocated", "completing")

# Two nodes of two CPUs on one machine, whatever it really has. "main" has both nodes, "oheogulch" the
# second one. ResumeTimeout and SlurmdTimeout: how soon a node that is gone counts as down.
CONFIG = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n.spool
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=5
KillWait=1
OverTimeLimit=0
MinJobAge=300
{options}
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs=2 State=UNKNOWN
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
PartitionName=oheogulch Nodes={second} MaxTime=02:30:00 State=UP
"""


def free_port() -> int:
    """A TCP port that nothing on loopback listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Ask ten times a second until it holds.

    Raises:
        TimeoutError: it never did.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


def start(argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a server in the foreground; it ends with the test, however that ends."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})},
        )  # fmt: skip


def stop(process: subprocess.Popen) -> None:
    """End a server: asked first, then by force."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def marked(*marks: str) -> list[int]:
    """Every other process that has all these texts in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone
            environment = (process / "environ").read_bytes()
            if process.name != str(os.getpid()) and all(mark.encode() in environment for mark in marks):
                found.append(int(process.name))
    return found


def kill(processes: list[int]) -> int:
    """Kill what is still there of these; how many there were."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(processes)


class Cluster:
    """A running Slurm.

    Attributes:
        env: variables with which Slurm's commands find it.
        folder: its configuration, state and logs.
    """

    def __init__(self, folder: Path, options: Mapping[str, object]) -> None:
        self.folder = folder
        self.env = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.name = f"dn{secrets.token_hex(4)}"
        self._mark = f"SLURM_CONF={self.env['SLURM_CONF']}\0"
        self._servers: dict[str, subprocess.Popen] = {}
        self._options = dict(options)
        self._ports = [free_port() for _ in range(1 + len(NODES))]
        self._configure()
        for part in ("state", *(f"{node}.spool" for node in NODES)):
            (folder / part).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)

    def _configure(self) -> None:
        text = CONFIG.format(
            name=self.name,
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            port=self._ports[0],
            ports=",".join(map(str, self._ports[1:])),
            nodes=",".join(NODES),
            second=NODES[1],
            options="\n".join(f"{key}={value}" for key, value in self._options.items()),
        )
        Path(self.env["SLURM_CONF"]).write_text(text)

    def command(self, *argv: str) -> str:
        """What a command of Slurm's says; its failure is an error with what it said on stderr."""
        done = subprocess.run(
            argv, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> None:
        """Start everything and wait until both nodes take jobs."""
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        # As root, without the checks that its directory is fit for all users of a machine.
        arguments = [f"--{option}={self.folder / file}" for option, file in files.items()]
        self._start("munged", ["munged", "--foreground", "--force", "--num-threads=2", *arguments])
        self._wait("munged", (self.folder / "munge.socket").exists)
        self.start_controller()
        for node in NODES:
            self.start_node(node)

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self._start("slurmctld", ["slurmctld", "-D", "-f", self.env["SLURM_CONF"]])
        self._wait("slurmctld", lambda: "UP" in self.command("scontrol", "ping"))

    def stop_controller(self) -> None:
        """Stop slurmctld; jobs run on."""
        stop(self._servers.pop("slurmctld"))

    def start_node(self, node: str) -> None:
        """Start a node's slurmd and wait until it takes jobs."""
        self._start(node, ["slurmd", "-D", "-N", node, "-f", self.env["SLURM_CONF"]])
        self._wait(node, lambda: self.state(node) in READY)

    def kill_node(self, node: str) -> None:
        """Kill a node as a loss of power does: its slurmd and everything that runs there."""
        self._servers[node].kill()
        self._servers.pop(node).wait()
        jobs = marked(f"SLURMD_NODENAME={node}\0", self._mark)
        # First what would report the end of the jobs. It writes its title over its environment.
        statuses = [Path(f"/proc/{job}/status").read_text() for job in jobs]
        parents = [int(line.split()[1]) for text in statuses for line in text.splitlines() if "PPid" in line]
        kill([p for p in parents if Path(f"/proc/{p}/comm").read_text() == "slurmstepd\n"])
        kill(jobs)

    def state(self, node: str) -> str:
        """A node's state, as sinfo says it."""
        return self.command("sinfo", "--noheader", f"--nodes={node}", "--format=%T").split()[0]

    def drain(self, node: str) -> None:
        """Let a node take no more jobs."""
        self.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def fail(self, node: str) -> None:
        """Declare a node down, with what runs there; ``resume`` brings it back."""
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Let a drained or failed node take jobs again."""
        with contextlib.suppress(RuntimeError):  # a failed one that answers may be back by itself
            self.command("scontrol", "update", f"nodename={node}", "state=resume")
        self._wait(node, lambda: self.state(node) in READY)

    def processes(self) -> list[str]:
        """The names of the programs that run with this cluster's configuration."""
        found = []
        for process in marked(self._mark):
            with contextlib.suppress(OSError):  # it is gone
                found.append(Path(f"/proc/{process}/comm").read_text().strip())
        return found

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left."""
        self.command("scancel", "--user=root")
        wait_for(lambda: not self.command("squeue", "--noheader"), "no job", 10)

    def kill_job(self, job: str) -> None:
        """Kill the processes of a job that runs, as somebody else on its node may."""
        wait_for(lambda: kill(marked(f"SLURM_JOB_ID={job}\0", self._mark)), f"a process of job {job}")

    def stop(self) -> None:
        """Stop everything, jobs included; also what is left of a start that failed."""
        if "slurmctld" in self._servers:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired, TimeoutError):
                self.cancel_all()
        for name in reversed(list(self._servers)):
            stop(self._servers.pop(name))
        kill(marked(self._mark))

    def _start(self, name: str, argv: list[str]) -> None:
        self._servers[name] = start(argv, self.folder / f"{name}.log", self.env)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        def asked() -> bool:
            if (code := self._servers[name].poll()) is not None:
                raise RuntimeError(f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()}")
            with contextlib.suppress(RuntimeError):  # of a command that finds nobody yet
                return ready()
            return False

        wait_for(asked, name)


def missing() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    absent = [
        name for name in ("munged", "slurmctld", "slurmd", "sbatch", "setpriv") if not shutil.which(name)
    ]
    if absent:
        return f"needs slurm-wlm and munge ({', '.join(absent)} not found)"
    return None if os.geteuid() == 0 else "needs root to start slurmd"


@contextlib.contextmanager
def cluster(**options: object) -> Iterator[Cluster]:
    """A Slurm with two nodes, ``n0`` and ``n1``, for the time of a ``with`` block.

    Where it can't be started the test is skipped.

    Args:
        options: further lines of slurm.conf, such as ``MaxJobCount=3``.
    """
    if reason := missing():
        pytest.skip(reason)
    # Not pytest's directory: a socket's path may not be longer than 108 characters.
    folder = Path(tempfile.mkdtemp(prefix="delaynet-slurm-"))
    made = Cluster(folder, options)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
