"""What stands against a deployment, all of it at once, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delaynet_lava.deploy import payload
from delaynet_lava.deploy.hosts import NOT_FOUND, Host
from delaynet_lava.deploy.slurm import Node, Partition, SlurmMissing, partitions
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.hw_profiles.placement import place
from delaynet_lava.hw_profiles.rules import Finding, check
from delaynet_lava.network import Network

__all__ = ["GENERATIONS", "LAVA", "Target", "broken", "preflight"]

GENERATIONS = ("N2A2", "N3B2", "N3B3", "N3C1", "N3D1")
"""Of chips, as ``lava.utils.loihi.ChipGeneration`` names them."""
LAVA = "0.10.0"
"""The release of lava-nc that the bundle's script was written for, and Intel's last."""
PYTHONS = {"loihi2": ("3.10",), "lava": ("3.10", "3.11", "3.12", "3.13")}
"""By backend: Intel's closed package is made for one Python, the simulator was run on all these."""
ANOTHER = "name another with --python"
PROBE_S = 120.0  # importing Lava from a network drive takes its time
LAUNCHES = ("sbatch", "direct")
NO_SETUP = 97
READ_SETUP = f'if [ -n "$1" ]; then [ -r "$1" ] || exit {NO_SETUP}; . "$1" >/dev/null; fi; '
"""Of a shell: read the set-up file $1, where there is one."""


@dataclass(frozen=True)
class Target:
    """Where a bundle is to run.

    Attributes:
        backend: "loihi2" or "lava".
        launch: "sbatch" hands the job to Slurm; "direct" starts it on the host itself, where a board's
            driver asks Slurm for it.
        python: of the host.
        partition, board: None leaves the choice to Slurm. A board is a node.
        loihi_gen: one of :data:`GENERATIONS`.
        system: of the hardware profile, such as "oheo_gulch"; None: not checked.
        time_limit_min: of the job; None: the partition's.
        setup: file on the host that the job's shell reads before Python starts.
    """

    backend: str
    launch: str
    python: str = "python3"
    partition: str | None = None
    board: str | None = None
    loihi_gen: str = "N3B3"
    system: str | None = None
    time_limit_min: float | None = None
    setup: str | None = None

    def __post_init__(self) -> None:
        if self.launch not in LAUNCHES:
            raise InputError("launch", f"{self.launch!r} is not one of {', '.join(LAUNCHES)}")
        if self.loihi_gen not in GENERATIONS:
            raise InputError("loihi-gen", f"{self.loihi_gen!r} is not one of {', '.join(GENERATIONS)}")
        for name in ("python", "setup"):
            value = getattr(self, name)
            if value is not None and (not value or not value.isprintable() or value.startswith("-")):
                raise InputError(name, f"{value!r} is not a path", "name a file on the host")
        if self.setup is not None and not self.setup.startswith("/"):
            raise InputError("setup", f"{self.setup!r} is not absolute", "name it from / on")

    @property
    def shell(self) -> str:
        """What reads the set-up file, which is written for bash as a rule."""
        return "sh" if self.setup is None else "bash"

    @property
    def slurm(self) -> bool:
        """Whether Slurm has a part in it."""
        return self.launch == "sbatch" or self.backend == "loihi2"


def _says(rule: str, where: str, problem: str, remedy: str = "", severity: str = "error") -> Finding:
    return Finding(rule, severity, where, problem, remedy)


def broken(findings: list[Finding]) -> int:
    """How many findings keep a job from being sent."""
    return sum(finding.severity == "error" for finding in findings)


def preflight(network: Network, profile: HardwareProfile, target: Target, host: Host) -> list[Finding]:
    """Ask everything that can be asked from here; nothing is left on the host.

    The network against the profile's rules and, where a system is named, its cores (both for a board
    only); Python, Lava and, for a board, Intel's closed package on the host; partition, board and time
    limit in Slurm. How many of a board's cores others use can't be seen from outside.

    Raises:
        ConnectionLost: the host does not answer.
    """
    findings: list[Finding] = []
    if target.backend == "loihi2":
        findings += check(network, profile)
        findings += _room(network, profile, target.system)
    findings += _python(host, target)
    if target.slurm:
        try:
            findings += _slurm(partitions(host), target, host.name)
        except SlurmMissing as error:
            findings.append(_says("slurm", host.name, str(error).removeprefix(f"{host.name}: ")))
    return findings


def system_name(profile: HardwareProfile, text: str) -> str:
    """A system of the profile by its name, however it is written: oheogulch is oheo_gulch.

    Raises:
        InputError: no such system.
    """

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    for name in profile.systems:
        if plain(name) == plain(text):
            return name
    known = ", ".join(profile.systems) or "none"
    raise InputError("system", f"{text!r} is not in profile {profile.name}", f"it has: {known}")


def _room(network: Network, profile: HardwareProfile, system: str | None) -> Iterator[Finding]:
    placement = place(network, profile)
    if system is not None and (cores := profile.cores(system)) is not None and len(placement.cores) > cores:
        problem = f"needs {len(placement.cores)} cores, {system} has {cores}"
        yield _says("cores", "network", problem, "use fewer neurons, or a larger system")


def _python(host: Host, target: Target) -> Iterator[Finding]:
    where = f"{host.name}: {target.python}"
    # As the job will: what a set-up file puts on the path counts.
    argv = [target.shell, "-c", f'{READ_SETUP}exec "$0" - --probe', target.python, target.setup or ""]
    answer = host.run(argv, Path(payload.__file__).read_bytes(), PROBE_S)
    if target.setup is not None and answer.code == NO_SETUP:
        yield _says("setup", f"{host.name}: {target.setup}", "cannot be read", "name a file on the host")
        return
    if answer.code in (NOT_FOUND, NOT_FOUND - 1):
        yield _says("python", where, "is not there", ANOTHER)
        return
    try:
        seen: dict[str, Any] = json.loads(answer.out.splitlines()[-1])
        version, lava = str(seen["python"]), str(seen["lava"])
        missing = [name for name in ("lava", "h5py") if seen[name] is None]
        loihi = bool(seen["lava_loihi"])
    except (ValueError, KeyError, IndexError, TypeError):
        yield _says("python", where, f"does not run as Python ({answer.reason})", ANOTHER)
        return
    if version.rpartition(".")[0] not in PYTHONS[target.backend]:
        needed = " or ".join(PYTHONS[target.backend])
        yield _says("python", where, f"is Python {version}, this backend needs {needed}", ANOTHER)
    for name in missing:
        package = {"lava": "lava-nc"}.get(name, name)
        why = seen.get("errors", {}).get(name, "not installed")
        yield _says(name, where, f"{package} cannot be imported ({why})", f"install {package} there")
    if "lava" not in missing and lava != LAVA:
        problem = f"has lava-nc {lava}, the script was written for {LAVA}"
        yield _says("lava", where, problem, f"install {LAVA} if it fails", severity="warning")
    if target.backend == "loihi2" and not loihi:
        yield _says(
            "lava-loihi", where, "lava-loihi, Intel's closed part, is not installed",
            "INRC members find its wheel on Intel's research cloud; --backend lava runs on the simulator",
        )  # fmt: skip


def _slurm(found: list[Partition], target: Target, where: str) -> Iterator[Finding]:
    names = ", ".join(partition.name for partition in found) or "none"
    if target.partition is not None:
        candidates = [partition for partition in found if partition.name == target.partition]
        if not candidates:
            problem = f"there is no partition {target.partition!r}"
            yield _says("partition", where, problem, f"there are: {names}")
            return
    elif target.board is not None or target.launch == "direct":
        candidates = found
    else:
        candidates = [partition for partition in found if partition.default]
        if not candidates:
            yield _says("partition", where, "has no default partition", f"name one of: {names}")
            return
    if target.board is not None:
        candidates = [p for p in candidates if any(node.name == target.board for node in p.nodes)]
        if not candidates:
            of = f"partition {target.partition}" if target.partition else "Slurm"
            boards = ", ".join(sorted({node.name for p in found for node in p.nodes})) or "none"
            yield _says("board", where, f"{of} has no board {target.board!r}", f"there are: {boards}")
            return
    open_ones = [partition for partition in candidates if partition.available]
    if not open_ones:
        closed = ", ".join(partition.name for partition in candidates) or "any partition"
        yield _says("partition", where, f"{closed} takes no jobs now", "name another, or try later")
        return
    yield from _nodes(open_ones, target, where)
    limits = [partition.time_limit_min for partition in open_ones]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    if target.time_limit_min is not None and longest is not None and target.time_limit_min > longest:
        problem = f"{target.time_limit_min:g} min are asked for, at most {longest:g} are given"
        yield _says("time-limit", where, problem, "ask for less, or name another partition")


def _nodes(open_ones: list[Partition], target: Target, where: str) -> Iterator[Finding]:
    nodes: list[Node] = [node for p in open_ones for node in p.nodes if target.board in (None, node.name)]
    up = [node for node in nodes if node.up]
    if not up:
        states = ", ".join(sorted({f"{node.name} is {node.state}" for node in nodes})) or "it has no nodes"
        what = f"board {target.board}" if target.board else f"no node of {open_ones[0].name}"
        verb = "is not up" if target.board else "is up"
        yield _says("board" if target.board else "partition", where, f"{what} {verb}: {states}", "try later")
    elif not any(node.idle_cpus for node in up):
        yield _says("queue", where, "every node is busy; the job will wait", severity="warning")
