"""``delaynet deploy``."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from delaynet_lava.cli.networks import NET, open_network
from delaynet_lava.cli.output import (
    complain,
    figures,
    progress,
    require_folder,
    say,
    speak_warnings,
    write_json,
)
from delaynet_lava.cli.samples import TASK, number, source
from delaynet_lava.deploy import job as jobs
from delaynet_lava.deploy import results
from delaynet_lava.deploy.bundle import BACKENDS, Loihi, read_manifest, require_runs, write_bundle
from delaynet_lava.deploy.hosts import ConnectionLost, host_of
from delaynet_lava.deploy.preflight import Target, broken, preflight, system_name
from delaynet_lava.deploy.slurm import SlurmMissing
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.models import located

NAME = "delaynet deploy"
SAMPLES = 8


def deploy(
    net: Annotated[str | None, typer.Argument(help=NET)] = None,
    task: Annotated[str | None, TASK] = None,
    samples: Annotated[int | None, typer.Option(help=f"Number of test samples. [default: {SAMPLES}]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. [default: 0]")] = None,
    backend: Annotated[str, typer.Option(help="loihi2: a board; lava: the CPU simulator.")] = "loihi2",
    host: Annotated[str | None, typer.Option(help="Front node, as ssh takes it; else this machine.")] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            help="sbatch: as a Slurm job; direct: in place, where a board's driver asks Slurm itself. "
            "[default: direct for loihi2, sbatch for lava]"
        ),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    board: Annotated[str | None, typer.Option(help="A board, which is a node of Slurm's.")] = None,
    loihi_gen: Annotated[str, typer.Option(help="Generation of the chip.")] = "N3B3",
    system: Annotated[
        str | None, typer.Option(help="System of the profile whose cores must do, such as oheogulch.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile, a name or a file.")] = "loihi2",
    time_limit: Annotated[float | None, typer.Option(help="Minutes after which Slurm ends the job.")] = None,
    shards: Annotated[int, typer.Option(help="Shares of the samples that run beside each other.")] = 1,
    record: Annotated[
        bool, typer.Option(help="Bring the spikes of all layers back, not the last membranes alone.")
    ] = True,
    python: Annotated[
        str | None, typer.Option(help="Python of the host. [default: python3, or this one without --host]")
    ] = None,
    setup: Annotated[
        str | None,
        typer.Option(help="File on the host that the shell reads first, such as /nfs/ncl/.bashrc."),
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="New folder of the job.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Send it although something stands against it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and write the bundle; send nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Send it, and do not wait.")] = False,
    attach: Annotated[
        str | None, typer.Option(help="Wait for a job sent before: its folder or number.")
    ] = None,
    cancel: Annotated[str | None, typer.Option(help="End a job sent before: its folder or number.")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - is stdout.")] = None,
) -> int:
    """Run a network on a Loihi 2 board, or on a cluster's CPUs, and compare it with the emulator.

    Checks everything first and says all that stands against it. Ctrl-C ends the job. Exit code 1 where a
    check or the job fails, or an integer differs.

    Example: delaynet deploy net.h5 --samples 4 --host me@front-node --partition oheogulch --dry-run
    """
    require_folder("--json", json)
    chosen = [
        name for name, value in (("a net.h5", net), ("--attach", attach), ("--cancel", cancel)) if value
    ]
    if len(chosen) != 1:
        what = " and ".join(chosen) or "nothing"
        raise InputError("arguments", f"{what} given", "give one of: a net.h5, --attach JOB, --cancel JOB")
    if cancel is not None:
        job = jobs.read_job(cancel)
        jobs.cancel(job)
        say(f"{job.words} was cancelled; its files stay in {job.folder}")
        return 0
    if attach is not None:
        return _wait(jobs.read_job(attach), json)
    assert net is not None
    if backend not in BACKENDS:
        raise InputError("--backend", f"{backend!r} is not known", f"choose from: {', '.join(BACKENDS)}")
    with speak_warnings(NAME):
        network = open_network(net)
    require_runs(network, backend)
    of = source(task, network, net, seed)
    samples = number(of, samples, SAMPLES)
    chip, where = load_profile(profile), host_of(host)
    target = Target(
        backend=backend,
        launch=launch or ("direct" if backend == "loihi2" else "sbatch"),
        python=python or (sys.executable if host is None else "python3"),
        partition=partition,
        board=board,
        loihi_gen=loihi_gen,
        system=None if system is None else system_name(chip, system),
        time_limit_min=time_limit,
        setup=setup,
    )
    _require_empty(output)
    findings = preflight(network, chip, target, where)
    for finding in findings:
        complain(NAME, str(finding))
    stopped = broken(findings)
    content: dict[str, Any] = {"net": net, "findings": [vars(finding) for finding in findings]}
    if stopped and not force and not dry_run:
        write_json(json, content)
        complain(NAME, f"nothing was sent: {stopped} of these stand against it (--force sends all the same)")
        return 1
    folder = _new_folder(Path(located(net))) if output is None else Path(output)
    manifest = write_bundle(
        folder / jobs.BUNDLE, network, *of.batch("test", 0, samples),
        name=_plain(folder.name), backend=backend, shards=shards, record=("spikes",) if record else (),
        task={"word": of.word}, seed=of.seed or 0,
        loihi=Loihi(partition, board, loihi_gen) if backend == "loihi2" else None,
    )  # fmt: skip
    size = sum(part.size for part in manifest.files.values())
    say(f"bundle: {folder / jobs.BUNDLE}, {samples} samples of {manifest.steps} steps, {size:,} bytes")
    if dry_run:
        content |= {"bundle": str(folder / jobs.BUNDLE), "script": jobs.job_script(target)}
        write_json(json, content)
        say(f"dry run: nothing was sent to {where.name}; {stopped or 'no'} errors")
        return int(stopped > 0)
    job = jobs.start(folder, target, where, host)
    say(f"{job.words} was sent to {where.name}, files there in {job.there}")
    if detach:
        write_json(json, content | {"job": str(folder), "ids": list(job.ids)})
        say(f"go on with: delaynet deploy --attach {folder}")
        return 0
    return _wait(job, json)


def _plain(text: str) -> str:
    """A name that a bundle may have, like ``text``."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.lstrip("._-")[:80] or "net"


def _new_folder(net: Path) -> Path:
    """A new folder for a job, made here: of two that begin in one second each has its own."""
    name = f"{_plain(net.stem)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for k in count():
        with contextlib.suppress(FileExistsError):
            return jobs.make_folder(f"{name}-{k}" if k else name)
    raise AssertionError


def _require_empty(output: str | None) -> None:
    if output is None or not os.path.lexists(output):
        return
    if not os.path.isdir(output) or any(Path(output).iterdir()):
        raise InputError(f"--output {output}", "exists and is not an empty folder", "choose another place")


def _wait(job: jobs.Job, json: str | None) -> int:
    """Wait for a job, bring its results here, and compare them."""
    try:
        with progress(job.words, read_manifest(job.bundle).samples) as advance:
            done = 0

            def show(now: jobs.Progress) -> None:
                nonlocal done
                advance(max(0, now.done - done), now.words)
                done = max(done, now.done)

            jobs.watch(job, show)
    except KeyboardInterrupt:
        try:
            jobs.cancel(job)
        except (ConnectionLost, SlurmMissing) as error:
            complain(NAME, f"interrupted, and {job.words} may still run ({error}); its files: {job.folder}")
        else:
            complain(NAME, f"interrupted; {job.words} was cancelled, its files stay in {job.folder}")
        return 130
    return _report(job, json)


def _report(job: jobs.Job, json: str | None) -> int:
    outcome = results.merge(job.bundle)
    comparison = results.compare_with_emulator(outcome.network, job.bundle, outcome)
    manifest = outcome.manifest
    speed = manifest.samples * manifest.steps / outcome.wall_s
    content = {
        "job": str(job.folder),
        "ids": list(job.ids),
        "backend": manifest.backend,
        "task": manifest.task,
        "seed": manifest.seed,
        "samples": manifest.samples,
        "steps": manifest.steps,
        "accuracy": outcome.right / manifest.samples,
        "decisions": outcome.decisions,
        "labels": outcome.labels,
        "wall_s": outcome.wall_s,
        "sample_steps_per_s": speed,
        "mismatches": comparison.mismatches,
        "compared_integers": comparison.compared,
        "first_mismatch": None if comparison.first is None else str(comparison.first),
        "profile": [entry for shard in outcome.shards for entry in shard.profile or []] or None,
        "profile_errors": sorted({s.profile_error for s in outcome.shards if s.profile_error}),
        "versions": outcome.shards[0].versions,
    }
    write_json(json, content)
    rows = [
        ("accuracy", f"{outcome.right / manifest.samples:.4f} ({outcome.right} of {manifest.samples})"),
        ("shards", f"{manifest.shards} on {job.host or 'this machine'}"),
        ("speed", f"{speed:,.0f} sample-steps/s a shard ({outcome.wall_s:.2f} s in all)"),
        *_energy(content),
    ]
    figures(rows)
    say(
        f"{comparison.mismatches} mismatches between {manifest.backend} and emulator in "
        f"{comparison.compared:,} integers"
    )
    if not comparison:
        complain(NAME, f"{comparison}; all files are in {job.folder}")
        return 1
    return 0


def _energy(content: dict[str, Any]) -> list[tuple[str, str]]:
    """What Lava's profiler measured, as it gave it."""
    if content["profile"]:
        first = {key: value for key, value in content["profile"][0].items() if value is not None}
        return [("profiler, sample 0", ", ".join(f"{key} {value}" for key, value in first.items()))]
    return [("profiler", error) for error in content["profile_errors"]]
