"""run.py of a bundle on Lava's simulator, as a process that has Lava and h5py and nothing else of ours."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_tools import NETWORK, a_bundle, run_bundle, start_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for, networks

from delaynet_lava.deploy import payload, results
from delaynet_lava.deploy.bundle import write_bundle
from delaynet_lava.emulator import emulate
from delaynet_lava.network import Network


@pytest.fixture
def lava() -> None:
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three samples that has run."""
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    folder = tmp_path_factory.mktemp("bundle") / "a b'c"
    a_bundle(folder)
    assert run_bundle(folder, "--shard", "0") == (0, "", "")
    return folder


def test_samples_with_activity_at_their_end_are_the_emulators(done: Path) -> None:
    outcome = results.merge(done)
    comparison = results.compare_with_emulator(NETWORK, done, outcome)
    assert comparison.mismatches == 0
    assert comparison.compared == 3 * (50 * 19 + 19 + 3)
    trace = outcome.trace
    # Each sample ends with spikes under way in the synapses, which the next one must not see.
    assert trace.spikes[0][:, -1].any(axis=1).all()
    assert all(0.02 < trace.spikes[k].mean() < 0.9 for k in (0, 1))
    assert (trace.backend, trace.u_wraps, trace.v_saturations) == ("lava", [], [])
    assert results.status(done, 0).state == "done"


def test_the_comparison_sees_a_changed_weight(done: Path) -> None:
    synapse = NETWORK.layers[0].synapse
    weight = synapse.weight.copy()
    weight[4, 7] += 2
    layers = (replace(NETWORK.layers[0], synapse=replace(synapse, weight=weight)), *NETWORK.layers[1:])
    comparison = results.compare_with_emulator(NETWORK.with_(layers=layers), done)
    assert comparison.mismatches > 0
    assert (comparison.first.layer, comparison.first.neuron) == (0, 4)


@settings(max_examples=3)
@given(
    networks(min_layers=2, max_layers=3, resets=("zero",), encoder=False, max_weight_exp=7),
    st.integers(0, 99),
)
def test_random_networks(tmp_path_factory: pytest.TempPathFactory, network: Network, seed: int) -> None:
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    folder = tmp_path_factory.mktemp("random") / "bundle"
    inputs = inputs_for(network, 90, 2, 0.2, seed)
    write_bundle(folder, network, inputs, np.zeros(2, int), name="random")
    assert run_bundle(folder, "--shard", "0") == (0, "", "")
    comparison = results.compare_with_emulator(network, folder)
    assert comparison.mismatches == 0, comparison
    assert sum(int(c.sum()) for c in emulate(network, inputs).spike_counts) > 0


def test_shares_merge_to_what_one_run_gives(lava: None, done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    a_bundle(folder, shards=2)
    running = [start_bundle(folder, "--shard", str(k)) for k in range(2)]
    assert [(p.communicate(timeout=300), p.returncode) for p in running] == [(("", ""), 0)] * 2
    one, two = results.merge(done), results.merge(folder)
    assert [len(shard.samples) for shard in two.shards] == [1, 2]
    assert one.trace.compare(two.trace).mismatches == 0
    assert one.decisions.tolist() == two.decisions.tolist()
    assert results.compare_with_emulator(NETWORK, folder).mismatches == 0


def test_membranes_alone_when_spikes_are_not_recorded(lava: None, tmp_path: Path) -> None:
    a_bundle(tmp_path / "bare", samples=1, record=())
    assert run_bundle(tmp_path / "bare", "--shard", "0")[0] == 0
    outcome = results.merge(tmp_path / "bare")
    assert (outcome.trace.spikes, outcome.trace.spike_counts) == ({}, [])
    comparison = results.compare_with_emulator(NETWORK, tmp_path / "bare", outcome)
    assert (comparison.mismatches, comparison.compared) == (0, 19)


def test_it_imports_nothing_of_this_package(lava: None, tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", samples=1, steps=5)
    code, _, errors = run_bundle(tmp_path / "b", "--shard", "0", python=("-I", "-X", "importtime"))
    assert code == 0
    modules = {line.rpartition("|")[2].strip().split(".")[0] for line in errors.splitlines()}
    assert "lava" in modules
    assert "delaynet_lava" not in modules


def test_the_fast_synapse_is_lavas_in_its_messages_and_in_its_state(lava: None) -> None:
    # Lava's import fails where multiprocessing was used before, this package's does not.
    importlib.import_module("delaynet_lava.lava")
    from lava.proc.dense.models import PyDelayDenseModelBitAcc
    from lava.proc.dense.process import DelayDense
    from lava.utils.weightutils import SignMode
    from lava_tools import bare_model

    rng = np.random.default_rng(2)
    weights = 2 * rng.integers(-128, 128, (7, 5))
    weights[rng.random(weights.shape) < 0.3] = 0
    delays = rng.integers(0, 63, weights.shape)
    process = DelayDense(
        weights=weights, delays=delays, max_delay=62, weight_exp=3, num_weight_bits=8,
        sign_mode=SignMode.MIXED, num_message_bits=0,
    )  # fmt: skip
    fast = payload.lava_classes().stock[DelayDense]
    models = [bare_model(model, process) for model in (PyDelayDenseModelBitAcc, fast)]
    for _ in range(150):
        spikes = rng.random(5) < 0.2
        for model in models:
            model.s_in.send(spikes)
            model.run_spk()
        assert (models[0].a_out.data == models[1].a_out.data).all()
        assert (models[0].a_buff == models[1].a_buff).all()
    assert models[0].a_buff.any()


# Failures.


@pytest.fixture
def long(lava: None, tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """A bundle that runs for minutes, with Lava's processes under way."""
    folder = tmp_path / "long"
    a_bundle(folder, samples=1, steps=200_000)
    process = start_bundle(folder, "--shard", "0")
    try:
        deadline = time.monotonic() + 300
        while len(children(process.pid)) < 9 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        assert process.poll() is None
        yield folder, process
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


def gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(Path(f"/proc/{pid}").exists() for pid in processes)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look for processes")


@needs_proc
def test_sigterm_to_every_process_is_told_and_leaves_none(long: tuple[Path, subprocess.Popen]) -> None:
    """As scancel and a time limit do: the script and all it started get the signal."""
    folder, process = long
    started = children(process.pid)
    for pid in [*started, process.pid]:
        os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    status = results.status(folder, 0)
    assert (status.state, status.done, status.of) == ("failed", 0, 1)
    assert status.error.startswith("terminated by signal 15")
    assert errors == f"run.py: shard 0: {status.error}\n"
    assert gone(started)
    assert not (folder / "result-0.json").exists()


@needs_proc
def test_a_killed_process_of_lava_ends_the_run(long: tuple[Path, subprocess.Popen]) -> None:
    folder, process = long
    started = children(process.pid)
    # The last ones are those of the graph.
    os.kill(max(started), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.startswith("run.py: shard 0: lava: a process ended before its time")
    assert errors.count("\n") == 1
    assert results.status(folder, 0).error in errors
    assert gone(started)


@needs_proc
def test_nothing_outlives_a_script_that_is_killed(long: tuple[Path, subprocess.Popen]) -> None:
    _, process = long
    started = children(process.pid)
    process.kill()
    process.communicate(timeout=300)
    assert gone(started)


@pytest.mark.parametrize("name", payload.FILES)
def test_a_file_that_was_altered_is_named(tmp_path: Path, name: str) -> None:
    a_bundle(tmp_path / "b", samples=1)
    with open(tmp_path / "b" / name, "ab") as file:
        file.write(b"\n")
    code, out, errors = run_bundle(tmp_path / "b", "--shard", "0")
    assert (code, out) == (1, "")
    assert (
        errors
        == f"run.py: shard 0: {name}: is not the file that manifest.json names; send the bundle again\n"
    )
    assert results.status(tmp_path / "b", 0).error in errors


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", samples=1)
    (tmp_path / "b" / "net.h5").unlink()
    code, _, errors = run_bundle(tmp_path / "b", "--shard", "0")
    assert (code, errors) == (1, "run.py: shard 0: net.h5: cannot be read (No such file or directory)\n")


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    a_bundle(tmp_path / "b", shards=2)
    code, _, errors = run_bundle(tmp_path / "b", "--shard", "2")
    assert (code, errors) == (1, "run.py: shard 2: --shard 2: the bundle has 2 of them\n")
    assert run_bundle(tmp_path / "b", "--shard", "-1")[0] == 2


def test_a_python_without_lava_is_told(tmp_path: Path) -> None:
    """-S leaves out what is installed."""
    a_bundle(tmp_path / "b", samples=1)
    code, _, errors = run_bundle(tmp_path / "b", "--shard", "0", python=("-I", "-S"))
    assert code == 1
    assert errors.startswith(
        f"run.py: shard 0: {sys.executable}: h5py cannot be imported (ModuleNotFoundError"
    )
    assert errors.count("\n") == 1


# The probe, and the Pythons that it must run on.


def probe(*python: str) -> dict:
    """As on a machine where nothing of the bundle is yet."""
    result = subprocess.run(
        [*python, "-", "--probe"], input=Path(payload.__file__).read_bytes(), capture_output=True, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b"\n") == 1
    return json.loads(result.stdout)


def test_the_probe_finds_what_is_here(lava: None) -> None:
    found = probe(sys.executable, "-I")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["executable"] == sys.executable
    assert found["numpy"] == np.__version__
    assert found["lava"] == "0.10.0"
    assert found["errors"] == {}
    assert found["lava_loihi"] is False
    assert found["cores"] >= 1


def test_the_probe_of_a_python_without_lava() -> None:
    found = probe(sys.executable, "-I", "-S")
    assert (found["numpy"], found["h5py"], found["lava"]) == (None, None, None)
    assert found["errors"]["lava"] == "ModuleNotFoundError: No module named 'lava'"
    assert found["lava_loihi"] is False


@pytest.mark.parametrize("name", ["python3.6", "python3.8", "python3.12"])
def test_the_probe_on_other_pythons(name: str) -> None:
    python = shutil.which(name)
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"no {name} here")
    assert probe(python)["python"].startswith(name.removeprefix("python"))


def test_the_syntax_is_that_of_python_3_6_and_imports_are_few() -> None:
    tree = ast.parse(Path(payload.__file__).read_text(), feature_version=(3, 6))
    top = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert top <= sys.stdlib_module_names
    inside = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
        + ([node.module] if isinstance(node, ast.ImportFrom) else [])
    }
    # The package itself for Spiking Recurrent Cells alone, which nobody else has a process for.
    assert inside - top <= {"numpy", "h5py", "lava", "ctypes", "importlib", "delaynet_lava"}


def test_shares_are_contiguous_and_even() -> None:
    for samples, shards in ((10, 3), (3, 3), (7, 1), (1000, 7)):
        parts = [payload.share(samples, shards, k) for k in range(shards)]
        assert [i for part in parts for i in part] == list(range(samples))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
