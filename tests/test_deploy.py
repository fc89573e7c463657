"""``delaynet deploy`` as a user calls it: in place, on a real Slurm, over a real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_tools import Cluster, cluster, wait_for
from ssh_tools import FrontNode, front_node

from delaynet_lava.cli import main
from delaynet_lava.deploy import job as jobs
from delaynet_lava.formats import netx

pytest.importorskip("lava", reason="lava-nc is not installed")

MODEL = Path(__file__).resolve().parent.parent / "delaynet_lava" / "models" / "cue_loihi2.pt"
SHORT = ("--backend", "lava", "--task", "cue:cues=1,wait_ms=150")
LONG = ("--backend", "lava", "--samples", "200")


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a net") / "it's; a net.h5"
    assert call("export", str(MODEL), "-o", str(path)) == 0
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # What the commands start must find this package's interpreter only, not the package.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def on_slurm(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    return slurm


def started(*args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "delaynet_lava", "deploy", *args]
    # Where the tests themselves run in the background, a shell may have told them to ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def only_job() -> jobs.Job:
    """The one job of this folder, once it is sent."""
    wait_for(lambda: list(Path("delaynet-jobs").glob("*/job.json")), "a job", 90)
    (path,) = Path("delaynet-jobs").glob("*/job.json")
    return jobs.read_job(str(path.parent))


def running(job: jobs.Job) -> bool:
    return (job.bundle / "status-0.json").exists()


def one_line(capsys: pytest.CaptureFixture) -> str:
    (line,) = [k for k in capsys.readouterr().err.splitlines() if "warning" not in k]
    return line


def test_in_place_with_shards_every_integer_is_the_emulators(net, capsys):
    assert call("deploy", str(net), *SHORT, "--launch", "direct", "--samples", "3", "--shards", "2",
                "--json", "it.json") == 0  # fmt: skip
    found = json.loads(Path("it.json").read_text())
    assert found["mismatches"] == 0
    # Spikes of 125 and 2 neurons over 300 steps, and the last membranes.
    assert found["compared_integers"] >= 3 * (300 + 1) * 127
    assert len(found["decisions"]) == 3
    out = capsys.readouterr().out
    assert "0 mismatches between lava and emulator" in out
    (folder,) = Path("delaynet-jobs").glob("[!.]*")
    assert folder.name.startswith("it-s--a-net-")


def test_a_result_that_differs_is_told_with_its_place_and_exit_code_1(net, capsys):
    assert call("deploy", str(net), *SHORT, "--launch", "direct", "--samples", "1", "--detach") == 0
    job = only_job()
    # Another network than the one that is compared with.
    other = netx.read(net)
    jobs.watch(job)
    changed = other.layers[0].recurrent.weight.copy()
    changed[0] += 2 * (changed[0] < 100)
    for name in ("net.h5",):
        layers = (
            type(other.layers[0])(
                other.layers[0].synapse,
                other.layers[0].neuron,
                type(other.layers[0].recurrent)(changed, other.layers[0].recurrent.delay),
            ),
            other.layers[1],
        )
        netx.write(other.with_(layers=layers), job.bundle / name)
    capsys.readouterr()
    assert call("deploy", "--attach", str(job.folder)) == 2
    assert "net.h5" in one_line(capsys)


def test_a_dry_run_sends_nothing_and_says_what_a_board_would_need(net, capsys):
    assert (
        call("deploy", str(net), "--samples", "1", "--dry-run", "--partition", "oheogulch", "--json", "-")
        == 1
    )
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "lava-loihi" in [finding["rule"] for finding in found["findings"]]
    assert "run.py --shard" in found["script"]
    bundle = Path(found["bundle"])
    assert sorted(path.name for path in bundle.iterdir()) == [
        "inputs.npz",
        "manifest.json",
        "net.h5",
        "run.py",
    ]
    assert json.loads((bundle / "manifest.json").read_text())["loihi"]["partition"] == "oheogulch"
    assert not list(Path("delaynet-jobs").glob("*/job.json"))
    assert "INRC" in err


def test_without_force_nothing_is_written_where_something_stands_against_it(net, capsys):
    assert call("deploy", str(net), "--samples", "1", "--launch", "direct") == 1
    assert not Path("delaynet-jobs").exists()
    assert "nothing was sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "nothing given"),
        (("NET", "--attach", "x"), "a net.h5 and --attach given"),
        (("NET", "--backend", "gpu"), "'gpu' is not known"),
        (("NET", "--samples", "0"), "0 is below 1"),
        (("NET", "--host", "-oProxyCommand=touch x"), "is not host, user@host"),
        (("NET", "--host", "a b"), "is not host, user@host"),
        (("NET", "--host", "a;touch x"), "is not host, user@host"),
        (("NET", "--system", "moon"), "it has: oheo_gulch"),
        (("NET", "--loihi-gen", "N9"), "N3B3"),
        (("NET", "--launch", "rsh"), "sbatch, direct"),
        (("--attach", "nowhere"), "job.json: does not exist"),
        (("--attach", "17"), "none of delaynet-jobs/ has the number 17"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(net, elsewhere, capsys, args, words):
    assert call("deploy", *(str(net) if arg == "NET" else arg for arg in args)) == 2
    assert words in one_line(capsys)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"there": "somewhere"}, "an absolute path"),
        ({"ids": ["1; touch x"]}, "job or process numbers"),
        ({"ids": []}, "job or process numbers"),
        ({"host": "-oProxyCommand=touch x"}, "is not host, user@host"),
        ({"launch": "rsh"}, "launch"),
        ({"version": 9}, "not a job of this release"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_strangers_job_file_runs_nothing(elsewhere, capsys, spoil, words):
    content = {"format": "delaynet_lava.job", "version": 1, "folder": "", "host": None, "there": "/tmp",
               "launch": "sbatch", "ids": ["1"], "manifest": "0" * 64}  # fmt: skip
    Path("job").mkdir()
    Path("job/job.json").write_text(json.dumps(content | spoil))
    assert call("deploy", "--attach", "job") == 2
    assert words in one_line(capsys)
    assert [path.name for path in elsewhere.iterdir()] == ["job"]


def test_ctrl_c_ends_the_job_and_what_it_started(net):
    process = started(str(net), *LONG, "--launch", "direct")
    job = only_job()
    wait_for(lambda: running(job), "a start", 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "was cancelled" in err
    assert str(job.folder) in err
    status = job.bundle / "status-0.json"
    wait_for(lambda: json.loads(status.read_text())["state"] == "failed", "the end of the job")
    left = subprocess.run(["ps", "-o", "stat=", "-g", job.ids[0]], capture_output=True, text=True)
    assert all(state.startswith("Z") for state in left.stdout.split())


def test_a_job_that_fails_in_place_is_told_with_its_log(net, capsys):
    assert call("deploy", str(net), *SHORT, "--launch", "direct", "--samples", "1", "--dry-run") == 0
    (folder,) = Path("delaynet-jobs").glob("[!.]*")
    target = jobs.Target("lava", "direct", python=sys.executable)
    (folder / "bundle" / "run.py").write_text("raise SystemExit('no such luck')")
    with pytest.raises(Exception, match=r"run\.py"):  # its hash is not the manifest's
        jobs.start(folder, target, jobs.host_of(None), None)
    assert call("deploy", str(net), *SHORT, "--launch", "direct", "--samples", "1", "--force",
                "--python", "/bin/false", "-o", "other") == 1  # fmt: skip
    line = capsys.readouterr().err.splitlines()[-1]
    assert "shard 0 on this machine" in line
    assert "job-0.log" in line


@pytest.mark.slurm
def test_slurm_runs_it_and_a_job_array_gives_the_same(net, on_slurm):
    found = []
    for shards in ("1", "4"):
        args = (*SHORT, "--samples", "5", "--shards", shards, "--partition", "oheogulch", "--time-limit", "5")
        assert call("deploy", str(net), *args, "--json", "it.json") == 0
        found.append(json.loads(Path("it.json").read_text()))
    assert [one["mismatches"] for one in found] == [0, 0]
    assert found[0]["decisions"] == found[1]["decisions"]
    assert found[0]["compared_integers"] == found[1]["compared_integers"] >= 5 * 301 * 127
    assert found[0]["ids"] != found[1]["ids"]


@pytest.mark.slurm
def test_a_job_sent_before_is_found_by_its_number(net, on_slurm, capsys):
    assert call("deploy", str(net), *SHORT, "--samples", "1", "--detach") == 0
    number = only_job().ids[0]
    assert call("deploy", "--attach", number) == 0
    assert "0 mismatches" in capsys.readouterr().out
    # And once more, when all is over.
    assert call("deploy", "--attach", number) == 0


@pytest.mark.slurm
def test_a_killed_job_ends_in_one_line_that_says_where_its_files_are(net, on_slurm):
    process = started(str(net), *LONG)
    job = only_job()
    wait_for(lambda: running(job), "a start", 60)
    on_slurm.kill_job(job.ids[0])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"job {job.ids[0]}, shard 0 on this machine" in err
    assert str(job.bundle) in err
    assert err.count("\n") == 1
    assert (job.bundle / "job-0.log").exists()


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_beyond_its_time_says_so(net, on_slurm):
    process = started(str(net), *LONG)
    job = only_job()
    wait_for(lambda: running(job), "a start", 60)
    # Slurm counts whole minutes, and looks once in a while.
    on_slurm.command("scontrol", "update", f"jobid={job.ids[0]}", "timelimit=0:01")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "its time limit was over" in err
    assert err.count("\n") == 1


@pytest.mark.slurm
def test_ctrl_c_cancels_the_job(net, on_slurm):
    process = started(str(net), *LONG)
    job = only_job()
    wait_for(lambda: running(job), "a start", 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "was cancelled" in err
    assert job.ids[0] not in on_slurm.command("squeue", "--noheader", "--format=%A", "--states=R,PD").split()


@pytest.mark.slurm
def test_a_drained_node_is_found_before_and_told_after(net, on_slurm, capsys):
    on_slurm.drain("n1")
    try:
        assert call("deploy", str(net), *SHORT, "--samples", "1", "--partition", "oheogulch") == 1
        err = capsys.readouterr().err
        assert "n1 is drained" in err
        assert "nothing was sent" in err
        # Drained only after the checks: it waits, and the wait ends.
        assert call("deploy", str(net), *SHORT, "--samples", "1", "--partition", "oheogulch", "--force") == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert "can't start" in line
        assert "--attach" in line
        job = only_job()
        assert call("deploy", "--cancel", str(job.folder)) == 0
    finally:
        on_slurm.resume("n1")


@pytest.mark.slurm
def test_a_full_queue_leaves_the_bundle_and_no_job(net, monkeypatch, capsys):
    with cluster(MaxJobCount=3) as full:
        for name, value in full.env.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):  # one less than the limit is taken
            full.command("sbatch", "--wrap=sleep 60")
        assert call("deploy", str(net), *SHORT, "--samples", "1") == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "takes no more jobs now" in line
        assert len(full.command("squeue", "--noheader").splitlines()) == 2
        assert list(Path("delaynet-jobs").glob("*/bundle/run.py"))


@contextlib.contextmanager
def reached(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontNode]:
    """A front node of that Slurm, over ssh only."""
    with front_node(slurm.env | {"PATH": os.environ["PATH"]}) as front:
        for name, value in front.env.items():
            monkeypatch.setenv(name, value)
        yield front


@pytest.mark.slurm
def test_over_ssh_a_dropped_connection_costs_nothing(net, slurm, monkeypatch, capsys):
    with reached(slurm, monkeypatch) as front:
        args = (*SHORT, "--host", front.alias, "--python", sys.executable, "--samples", "2", "--shards", "2")
        process = started(str(net), *args)
        job = only_job()
        front.drop()
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        assert "0 mismatches" in out
        assert job.there.startswith(str(front.home))
        # The far side goes away for good: the job does not, and somebody can come back for it.
        assert call("deploy", str(net), *args, "--detach", "-o", "second") == 0
        front.stop()
        monkeypatch.setattr(jobs, "RETRIES", 1)
        capsys.readouterr()
        assert call("deploy", "--attach", "second") == 2
        line = one_line(capsys)
        assert "delaynet deploy --attach second" in line
        front.start()
        assert call("deploy", "--attach", "second") == 0
        assert "0 mismatches" in capsys.readouterr().out


def test_over_ssh_a_result_that_was_cut_short_is_named(net, monkeypatch, capsys):
    with front_node({"PATH": os.environ["PATH"]}) as front:
        for name, value in front.env.items():
            monkeypatch.setenv(name, value)
        args = (
            *SHORT,
            "--host",
            front.alias,
            "--python",
            sys.executable,
            "--samples",
            "1",
            "--launch",
            "direct",
        )
        assert call("deploy", str(net), *args, "--detach", "-o", "a job") == 0
        there = Path(jobs.read_job("a job").there)
        wait_for(lambda: (there / "result-0.json").exists(), "a result", 60)
        whole = (there / "result-0.npz").read_bytes()
        (there / "result-0.npz").write_bytes(whole[:-10])
        capsys.readouterr()
        assert call("deploy", "--attach", "a job") == 2
        assert "result-0.npz" in one_line(capsys)
        # Whole again, it is fetched again.
        (there / "result-0.npz").write_bytes(whole)
        assert call("deploy", "--attach", "a job") == 0
