"""What stands against a deployment is said all at once, before anything is sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import pytest

from delaynet_lava.deploy.hosts import Answer, Local
from delaynet_lava.deploy.preflight import Target, broken, preflight, system_name
from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.network import Dense, Network, Neuron, Synapse

LOIHI2 = load_profile("loihi2")
PROBE = {"python": "3.10.13", "lava": "0.10.0", "h5py": "3.11.0", "errors": {}, "lava_loihi": True}
SINFO = (
    "main\tmain*\tup\t1:00:00\tog-01\tidle\t0/2/0/2\n"
    "main\tmain*\tup\t1:00:00\tog-02\tdown*\t0/0/2/2\n"
    "kp\tkp\tdown\tinfinite\tkp-01\tidle\t0/2/0/2\n"
    "full\tfull\tup\tinfinite\tog-03\tallocated\t2/0/0/2\n"
    "\n"
)


class Front:
    """A host that answers what it is told to."""

    name = "front"

    def __init__(self, probe: Answer | dict, sinfo: Answer | str = SINFO) -> None:
        self.probe = (
            Answer(0, "a login message\n" + json.dumps(probe), "") if isinstance(probe, dict) else probe
        )
        self.sinfo = Answer(0, sinfo, "") if isinstance(sinfo, str) else sinfo
        self.asked: list[list[str]] = []

    def run(self, argv, input=b"", timeout_s=60.0, env=None):
        self.asked.append(list(argv))
        return self.sinfo if argv[0] == "sinfo" else self.probe


def network(reset: str = "zero", delay: int = 3) -> Network:
    hidden = Dense(
        Synapse(np.full((4, 3), 2)), Neuron(100, 4096, 200, reset=reset), Synapse(np.full((4, 4), 2), delay)
    )
    return Network((hidden, Dense(Synapse(np.full((2, 4), 2)), Neuron(131071, 4096, 200))), (3,))


def rules(findings) -> list[str]:
    return [finding.rule for finding in findings]


def test_a_host_that_has_everything_is_told_nothing():
    front = Front(PROBE)
    for target in (
        Target("loihi2", "direct", partition="main", board="og-01", system="oheo_gulch", time_limit_min=60),
        Target("lava", "sbatch"),
        Target("lava", "direct"),
    ):
        assert preflight(network(), LOIHI2, target, front) == []
    # Without Slurm nobody asks it.
    assert sum(argv[0] == "sinfo" for argv in front.asked) == 2


def test_all_findings_come_together_each_with_a_remedy():
    probe = PROBE | {"python": "3.12.1", "lava": None, "lava_loihi": False, "errors": {"lava": "No module"}}
    target = Target("loihi2", "direct", partition="nahuku32")
    findings = preflight(network("subtract", 70), LOIHI2, target, Front(probe))
    assert rules(findings) == ["delay-range", "reset-kind", "python", "lava", "lava-loihi", "partition"]
    assert broken(findings) == 6
    assert all(finding.remedy and "\n" not in str(finding) for finding in findings)
    said = " | ".join(map(str, findings))
    for part in ("3.12.1", "No module", "INRC", "'nahuku32'", "main, kp, full"):
        assert part in said


@pytest.mark.parametrize(
    ("target", "rule", "words"),
    [
        ({"partition": "kp"}, "partition", "kp takes no jobs now"),
        ({"partition": "main", "board": "og-02"}, "board", "og-02 is down*"),
        ({"partition": "main", "board": "og-03"}, "board", "partition main has no board 'og-03'"),
        ({"board": "og-9"}, "board", "Slurm has no board 'og-9'"),
        ({"time_limit_min": 61}, "time-limit", "61 min are asked for, at most 60 are given"),
    ],
)
def test_partitions_boards_and_limits_are_checked_against_sinfo(target, rule, words):
    findings = preflight(network(), LOIHI2, Target("lava", "sbatch", **target), Front(PROBE))
    assert rules(findings) == [rule]
    assert words in str(findings[0])
    assert broken(findings) == 1


def test_a_busy_queue_is_a_warning():
    findings = preflight(network(), LOIHI2, Target("lava", "sbatch", partition="full"), Front(PROBE))
    assert rules(findings) == ["queue"]
    assert broken(findings) == 0


@pytest.mark.parametrize(
    ("sinfo", "words"),
    [
        (Answer(127, "", "sinfo: command not found"), "sinfo is not on the PATH"),
        (Answer(1, "", "sinfo: error: no controller"), "no controller"),
        ("", "no default partition"),
        ("main\tmain\tup\tinfinite\tn\tidle\t0/2/0/2\n", "no default partition"),
        ("gibberish\n", "can't be read"),
    ],
)
def test_a_slurm_that_is_missing_or_silent_is_one_finding(sinfo, words):
    findings = preflight(network(), LOIHI2, Target("lava", "sbatch"), Front(PROBE, sinfo))
    assert len(findings) == 1
    assert words in str(findings[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(127, "", "x: command not found"), "is not there"),
        (Answer(1, "Python 2\n", "SyntaxError: invalid syntax"), "SyntaxError"),
        (Answer(0, "", ""), "does not run as Python"),
        (Answer(0, "[]", ""), "does not run as Python"),
        (PROBE | {"lava": "0.9.0"}, "0.9.0"),
        (PROBE | {"h5py": None, "errors": {"h5py": "gone"}}, "h5py cannot be imported (gone)"),
    ],
)
def test_what_is_wrong_with_python_there_is_said(answer, words):
    findings = preflight(network(), LOIHI2, Target("lava", "direct"), Front(answer))
    assert len(findings) == 1
    assert words in str(findings[0])


def test_a_real_python_answers_with_and_without_a_set_up_file(tmp_path):
    setup = tmp_path / "set up'.sh"
    setup.write_text("export PATH=/bin:/usr/bin\nshopt -s nullglob\n")  # bash's own, as users' files are
    seen = []
    for chosen in (None, str(setup), str(tmp_path / "none")):
        findings = preflight(
            network(), LOIHI2, Target("lava", "direct", python=sys.executable, setup=chosen), Local()
        )
        seen.append([f for f in rules(findings) if f not in ("lava", "python")])
    assert seen == [[], [], ["setup"]]


def test_a_network_that_is_too_large_for_the_system_is_refused():
    small = LOIHI2.__class__("x", "x", LOIHI2.limits, {"tiny": LOIHI2.systems["oheo_gulch"]})
    cores: Callable[[str], int] = lambda name: 0  # noqa: E731
    object.__setattr__(small, "cores", cores)
    findings = preflight(network(), small, Target("loihi2", "direct", system="tiny"), Front(PROBE))
    assert rules(findings)[-1] == "cores"
    assert "needs 1 cores, tiny has 0" in str(findings[-1])


def test_systems_are_found_however_they_are_written():
    assert {system_name(LOIHI2, text) for text in ("oheogulch", "Oheo Gulch", "oheo_gulch")} == {"oheo_gulch"}
    with pytest.raises(InputError, match=r"nahuku.*it has: oheo_gulch"):
        system_name(LOIHI2, "nahuku")


@pytest.mark.parametrize(
    "wrong",
    [
        {"launch": "ssh"},
        {"loihi_gen": "N4"},
        {"python": "-c"},
        {"python": ""},
        {"setup": "bashrc"},
        {"setup": "/a\nb"},
    ],
)
def test_a_target_that_cannot_be_is_refused(wrong):
    with pytest.raises(InputError):
        Target(**{"backend": "lava", "launch": "direct", **wrong})
