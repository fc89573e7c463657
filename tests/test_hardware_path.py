"""What a bundle asks of Intel's closed package, seen by a stand-in: no board was involved.

The stand-in (tests/stand_in) executes Lava's CPU models and writes down what it was asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_tools import NETWORK, a_bundle, run_bundle

from delaynet_lava import fixedpoint as fx
from delaynet_lava.deploy import results
from delaynet_lava.deploy.bundle import Loihi
from delaynet_lava.network import Dense, Network, Neuron, Synapse

pytest.importorskip("lava.magma", reason="lava-nc is not installed")

STAND_IN = Path(__file__).parent / "stand_in"
STEPS = 40
RECURRENT = NETWORK.layers[0]
READOUT = Dense(Synapse(np.full((2, 11), [[40], [-6]]), weight_exp=2), Neuron(fx.VTH_MAX, 4096, 100))
# Few processes: Lava searches its folders for a hardware model of each, which takes seconds.
TWO_LAYERS = Network((RECURRENT, READOUT))
ONE_LAYER = Network((Dense(RECURRENT.synapse, READOUT.neuron),))


def run(folder: Path, path: Path = STAND_IN, **variables: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, errors and what the stand-in was asked; options of Python that hide it are left out."""
    log = folder.with_suffix(".log")
    log.touch()
    code, out, errors = run_bundle(
        folder, "--shard", "0", python=("-B",), PYTHONPATH=str(path), STAND_IN_LOG=str(log), **variables
    )
    assert out == ""
    return code, errors, [json.loads(line) for line in log.read_text().splitlines()]


def noted(log: list[dict[str, Any]], what: str, key: str) -> list[Any]:
    return [entry[key] for entry in log if entry["what"] == what]


def test_the_graph_for_a_board_gives_the_emulators_integers(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    loihi = Loihi(partition="oheogulch", board="ncl-ext-og-05", loihi_gen="N3B3")
    a_bundle(folder, 2, STEPS, TWO_LAYERS, backend="loihi2", loihi=loihi)
    code, errors, log = run(folder, LOIHI_GEN="N3C1", NOSLURM="1")
    assert (code, errors) == (0, "")
    outcome = results.merge(folder)
    comparison = results.compare_with_emulator(TWO_LAYERS, folder, outcome)
    assert comparison.mismatches == 0
    assert comparison.compared == 2 * (STEPS * 13 + 13 + 2)
    assert outcome.trace.backend == "loihi2"
    assert outcome.trace.spikes[0][:, -1].any(axis=1).all()
    # A graph a sample: one adapter in, one out of each layer.
    adapters = list(zip(noted(log, "adapter", "kind"), noted(log, "adapter", "shape"), strict=True))
    each = [("PyToNxAdapter", [9]), ("NxToPyAdapter", [11]), ("NxToPyAdapter", [2])]
    assert adapters == each * 2
    # Hardware models of all that is on a chip, chosen by the run configuration for a board.
    models = noted(log, "model", "kind")
    counts = {kind: models.count(kind) for kind in models}
    assert counts == {"NcL2ModelLif": 4, "NcModelDense": 4, "NcModelDelayDense": 2}
    assert noted(log, "profiler", "config") == ["Loihi2HwCfg"] * 2
    assert noted(log, "energy_probe", "steps") == noted(log, "execution_time_probe", "steps") == [STEPS] * 2
    # The environment was as the driver reads it before Lava's runtime started its processes.
    expected = {"SLURM": "1", "PARTITION": "oheogulch", "BOARD": "ncl-ext-og-05", "LOIHI_GEN": "N3B3"}
    assert all(entry["environment"] == expected for entry in log)
    figures = {
        "execution_time": pytest.approx(STEPS * 0.001),
        "energy": 0.5,
        "power": 0.25,
        "energy_breakdown": [1.0, 2.0, 3.0],
        "power_breakdown": None,
    }
    assert outcome.shards[0].profile == [figures] * 2
    assert outcome.shards[0].profile_error is None


def test_the_users_environment_stays_where_nothing_is_chosen(tmp_path: Path) -> None:
    """A board of one's own over ethernet; no spikes wanted, so no adapter brings any back."""
    folder = tmp_path / "own"
    a_bundle(folder, 1, STEPS, ONE_LAYER, backend="loihi2", record=())
    code, errors, log = run(folder, NOSLURM="1", LOIHI_GEN="N3C1")
    assert (code, errors) == (0, "")
    assert noted(log, "adapter", "kind") == ["PyToNxAdapter"]
    assert all(entry["environment"] == {"NOSLURM": "1", "LOIHI_GEN": "N3C1"} for entry in log)
    comparison = results.compare_with_emulator(ONE_LAYER, folder)
    assert (comparison.mismatches, comparison.compared) == (0, 11)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [(True, "RuntimeError: this board cannot measure energy"), (False, "not asked for")],
)
def test_a_run_without_figures_says_why(tmp_path: Path, profile: bool, reason: str) -> None:
    folder = tmp_path / "board"
    a_bundle(folder, 1, 5, ONE_LAYER, backend="loihi2", record=(), loihi=Loihi("kp", profile=profile))
    code, errors, log = run(folder, STAND_IN_NO_ENERGY="1")
    assert (code, errors) == (0, "")
    shard = results.read_shard(folder, 0)
    assert (shard.profile, shard.profile_error) == (None, reason)
    assert ("profiler" in [entry["what"] for entry in log]) == profile


def test_a_model_that_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", 1, 9, ONE_LAYER, backend="loihi2", record=())
    code, errors, _ = run(tmp_path / "b", STAND_IN_FAIL="7")
    assert (code, errors) == (
        1, "run.py: shard 0: lava: a process failed: ValueError: broken at a step\n"
    )  # fmt: skip
    assert results.status(tmp_path / "b", 0).error in errors


MISSING = (
    "run.py: shard 0: lava-loihi is not installed for {} ({} cannot be imported), and a board needs it; "
    "members of INRC get its wheel from Intel's research cloud and install it beside lava-nc\n"
)


def test_without_the_closed_package_the_line_says_what_is_missing(tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", samples=1, backend="loihi2")
    code, _, errors = run_bundle(tmp_path / "b", "--shard", "0")
    assert (code, errors) == (1, MISSING.format(sys.executable, "lava.utils.loihi2_profiler"))
    status = results.status(tmp_path / "b", 0)
    assert (status.state, status.done) == ("failed", 0)
    assert status.error in errors


def test_half_a_closed_package_is_seen(tmp_path: Path) -> None:
    half = tmp_path / "half" / "lava" / "utils"
    half.mkdir(parents=True)
    (half / "loihi2_profiler.py").touch()
    a_bundle(tmp_path / "b", samples=1, backend="loihi2")
    code, errors, _ = run(tmp_path / "b", tmp_path / "half")
    assert (code, errors) == (1, MISSING.format(sys.executable, "lava.proc.embedded_io.spike"))


def test_the_probe_sees_the_package(tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", samples=1)
    code, out, _ = run_bundle(tmp_path / "b", "--probe", python=("-B",), PYTHONPATH=str(STAND_IN))
    assert code == 0
    assert json.loads(out)["lava_loihi"] is True
