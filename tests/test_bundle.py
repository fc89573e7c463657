"""Bundles and results: written as a whole, the same every time, and read back as if a stranger sent them."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_tools import NETWORK, a_bundle
from netx_tools import arrays

from delaynet_lava.deploy import bundle, payload, results
from delaynet_lava.deploy.bundle import Loihi, read_inputs, read_manifest, write_bundle
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats import netx
from delaynet_lava.network import Encoder, Network, Neuron

STEPS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a_bundle(tmp_path / "b", 5, STEPS, shards=2)
    return tmp_path / "b"


def inputs_of(folder: Path) -> np.ndarray:
    bits, _ = read_inputs(folder, read_manifest(folder))
    return np.unpackbits(bits, axis=2, count=NETWORK.channels)


def give_results(folder: Path, changes: Callable[[dict[str, np.ndarray]], Any] = lambda found: None) -> None:
    """The files that run.py leaves, made from the emulator's trace."""
    manifest = read_manifest(folder)
    for shard in range(manifest.shards):
        mine = manifest.share(shard)
        trace = emulate(netx.read(folder / "net.h5"), inputs_of(folder)[mine.start : mine.stop])
        found = {f"voltage_{k}": v for k, v in enumerate(trace.final_voltage)}
        found |= {f"spikes_{k}": np.packbits(s, axis=2) for k, s in trace.spikes.items() if manifest.record}
        changes(found)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **found)
        put_result(folder, shard, buffer.getvalue())


def put_result(folder: Path, number: int, content: bytes, **changes: Any) -> None:
    (folder / payload.ARRAYS.format(number)).write_bytes(content)
    result = {
        "format": payload.RESULT_FORMAT, "version": payload.VERSION, "shard": number,
        "manifest": read_manifest(folder).sha256, "sha256": payload.digest(content), "bytes": len(content),
        "wall_s": 1.5, "build_s": 0.5, "versions": {"python": "3.10"}, "profile": None, "profile_error": None,
    }  # fmt: skip
    payload.write_json(str(folder), payload.RESULT.format(number), result | changes)


def refused(call: Callable[[], Any], *parts: str) -> None:
    """The message is one line and holds these parts."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    for part in parts:
        assert part in message, message


# Writing.


def test_a_bundle_holds_what_was_given(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["inputs.npz", "manifest.json", "net.h5", "run.py"]
    assert (manifest.samples, manifest.steps, manifest.channels, manifest.layers) == (5, STEPS, 9, (11, 6, 2))
    assert (manifest.backend, manifest.record, manifest.shards, manifest.loihi) == (
        "lava",
        ("spikes",),
        2,
        None,
    )
    assert arrays(netx.read(folder / "net.h5")) == arrays(NETWORK)
    assert (folder / "run.py").read_bytes() == Path(payload.__file__).read_bytes()
    again = np.random.default_rng(1)
    expected = again.random((5, STEPS, 9)) < np.linspace(0.1, 0.6, STEPS)[:, None]
    assert (inputs_of(folder) == expected).all()
    assert read_inputs(folder, manifest)[1].tolist() == again.integers(0, 2, 5).tolist()


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        a_bundle(tmp_path / name, task={"name": "cue", "cues": 7}, seed=3)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_loihi_bundle_says_where(tmp_path: Path) -> None:
    loihi = Loihi(partition="oheogulch_20m", loihi_gen="N3C1", profile=False)
    assert a_bundle(tmp_path / "a", backend="loihi2", loihi=loihi).loihi == loihi
    assert read_manifest(tmp_path / "a").loihi == loihi
    a_bundle(tmp_path / "b", backend="loihi2")
    assert read_manifest(tmp_path / "b").loihi == Loihi()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "../x"}, "bundle: name: is '../x'"),
        ({"name": "-x"}, "bundle: name"),
        ({"name": "x\n"}, "bundle: name"),
        ({"shards": 4}, "bundle: shards: is 4, expected a whole number from 1 to 3"),
        ({"shards": 0}, "bundle: shards"),
        ({"backend": "loihi1"}, "bundle: backend: is 'loihi1'"),
        ({"record": ("voltage",)}, "bundle: record"),
        ({"seed": -1}, "bundle: seed"),
        ({"task": {"a": float("nan")}}, "task: does not fit JSON"),
        ({"loihi": Loihi()}, "bundle: loihi"),
    ],
)
def test_arguments_out_of_range_leave_nothing(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    refused(lambda: a_bundle(tmp_path / "b", **options), problem)
    assert list(tmp_path.iterdir()) == []


def changed(**changes: Any) -> Network:
    return NETWORK.with_(layers=(replace(NETWORK.layers[0], **changes), *NETWORK.layers[1:]))


def test_networks_that_stock_lava_has_not(tmp_path: Path) -> None:
    first, second, last = NETWORK.layers
    delays = first.recurrent.delay.copy()
    delays[first.recurrent.weight != 0] = 63
    for network, problem in (
        (Network((Encoder(Neuron(10, 0, 0), 6), last)), "layer 0: is an encoder"),
        (changed(neuron=replace(first.neuron, reset="subtract")), "layer 0: resets softly"),
        (changed(neuron=replace(first.neuron, membrane_bits=6)), "layer 0: has a membrane of 6 bits"),
        (changed(recurrent=replace(first.recurrent, delay=delays)), "layer 0: has a delay of 63"),
        (Network((first, second)), "record: the last layer answers by its spikes"),
    ):
        refused(lambda n=network: a_bundle(tmp_path / "b", network=n, record=()), problem)
    assert list(tmp_path.iterdir()) == []


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    inputs = np.zeros((2, 5, 9), np.uint8)
    for labels in (np.zeros(3, int), np.zeros(2)):
        refused(lambda y=labels: write_bundle(tmp_path / "b", NETWORK, inputs, y, name="x"), "labels")


def test_a_place_that_is_taken_or_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    refused(lambda: a_bundle(folder), "exists and is not an empty folder")
    assert (folder / "manifest.json").read_bytes() == before
    (tmp_path / "empty").mkdir()
    a_bundle(tmp_path / "empty")
    assert read_manifest(tmp_path / "empty").samples == 3
    (tmp_path / "file").touch()
    refused(lambda: a_bundle(tmp_path / "file" / "b"), "cannot be written")


def test_a_bundle_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise InputError("net.h5", "no space")

    monkeypatch.setattr(bundle.netx, "write", fail)
    refused(lambda: a_bundle(tmp_path / "b"), "no space")
    assert list(tmp_path.iterdir()) == []


# A stranger's manifest.


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))


NOWHERE = {"partition": None, "board": None, "loihi_gen": None, "profile": True}
HASH = {"sha256": "0" * 64, "bytes": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 1},
        {"version": True},
        {"name": "a/b"},
        {"name": "a\u202eb"},
        {"samples": 0},
        {"samples": 1.0},
        {"samples": True},
        {"samples": 10**30},
        {"steps": "20"},
        {"channels": -1},
        {"layers": []},
        {"layers": [11, 6, 10**9]},
        {"layers": "abc"},
        {"shards": 6},
        {"record": "spikes"},
        {"record": ["spikes", "spikes"]},
        {"record": {}},
        {"task": []},
        {"versions": {"a": 1}},
        {"versions": {"a": "\x1b[2J"}},
        {"backend": "shell"},
        {"backend": ["lava"]},
        {"loihi": {}},
        {"backend": "loihi2"},
        {"backend": "loihi2", "loihi": {}},
        {"backend": "loihi2", "loihi": NOWHERE | {"partition": "-x"}},
        {"backend": "loihi2", "loihi": NOWHERE | {"partition": "a b"}},
        {"backend": "loihi2", "loihi": NOWHERE | {"board": "a;b"}},
        {"backend": "loihi2", "loihi": NOWHERE | {"loihi_gen": 3}},
        {"backend": "loihi2", "loihi": NOWHERE | {"profile": 1}},
        {"seed": None},
        {"seed": "absent"},
        {"extra": 1},
        {"files": {}},
        {"files": {"run.py": HASH, "net.h5": HASH, "inputs.npz": HASH, "../x": HASH}},
        {"files": {"run.py": HASH, "net.h5": HASH, "/etc/passwd": HASH}},
        {"files": {"run.py": HASH, "net.h5": HASH, "inputs.npz": {"sha256": "0", "bytes": 1}}},
        {"files": {"run.py": HASH, "net.h5": HASH, "inputs.npz": {"sha256": "0" * 64, "bytes": -1}}},
    ],
)
def test_a_manifest_with_something_else_in_it(folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder, **changes)
    refused(lambda: read_manifest(folder), f"{folder}/manifest.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"1" * 10_000, b" " * ((1 << 20) + 1)],
    ids=["empty", "open", "list", "no text", "deep", "no number", "long number", "too large"],
)
def test_a_manifest_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    refused(lambda: read_manifest(folder), f"{folder}/manifest.json: ")


def test_no_link_is_followed_and_no_pipe_waited_for(folder: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "net.h5"):
        path, aside = folder / name, tmp_path / name
        path.rename(aside)
        path.symlink_to(aside)
        refused(lambda: read_manifest(folder), f"{path}: is a link")
        path.unlink()
        os.mkfifo(path)
        refused(lambda: read_manifest(folder), f"{path}: is not a plain file")
        path.unlink()
        path.mkdir()
        refused(lambda: read_manifest(folder), str(path))
        path.rmdir()
        refused(lambda: read_manifest(folder), f"{path}: does not exist")
        aside.rename(path)
    assert read_manifest(folder)


@pytest.mark.parametrize("name", payload.FILES)
def test_a_file_of_the_bundle_that_is_not_the_one_written(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    refused(lambda: read_manifest(folder), f"{folder}/{name}: has {len(content) - 1} bytes, {len(content)}")
    (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    refused(lambda: read_manifest(folder), f"{folder}/{name}: was altered")


def test_inputs_of_another_extent_than_stated(folder: Path) -> None:
    rewrite(folder, steps=STEPS + 1)
    manifest = read_manifest(folder)
    refused(lambda: read_inputs(folder, manifest), "inputs.npz: bits: is uint8 (5, 20, 2)")


# Results.


def test_results_merge_and_compare(folder: Path) -> None:
    give_results(folder)
    outcome = results.merge(folder)
    assert results.compare_with_emulator(NETWORK, folder, outcome).mismatches == 0
    trace = emulate(NETWORK, inputs_of(folder))
    assert outcome.trace.compare(trace).mismatches == 0
    assert outcome.trace.compare(trace).compared == 5 * (STEPS * 19 + 19 + 3)
    assert outcome.decisions.tolist() == trace.final_voltage[2].argmax(axis=1).tolist()
    assert outcome.right == int((outcome.decisions == outcome.labels).sum())
    assert outcome.wall_s == 3.0
    assert [s.samples for s in outcome.shards] == [range(0, 2), range(2, 5)]


def test_the_comparison_is_the_same_in_small_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(found: dict[str, np.ndarray]) -> None:
        found["voltage_1"] = found["voltage_1"].copy()
        found["voltage_1"][-1, 4] += 1
        found["spikes_0"] = found["spikes_0"].copy()
        found["spikes_0"][-1, 7, 0] ^= 0b00100000

    give_results(folder, spoil)
    whole = results.compare_with_emulator(NETWORK, folder)
    # In each of two shares a membrane, a spike, and with it a spike count.
    assert whole.mismatches == 6
    assert (whole.first.layer, whole.first.step, whole.first.neuron) == (0, 7, 2)
    assert whole.first.sample == 1
    monkeypatch.setattr(results, "_BATCH_BYTES", 1)
    assert results.compare_with_emulator(NETWORK, folder) == whole


def test_a_network_whose_last_layer_spikes_answers_by_its_spikes(tmp_path: Path) -> None:
    spiking = NETWORK.with_(layers=NETWORK.layers[:2])
    a_bundle(tmp_path / "b", 3, STEPS, spiking)
    give_results(tmp_path / "b")
    counts = emulate(spiking, inputs_of(tmp_path / "b")).spikes[1].sum(axis=1)
    assert results.merge(tmp_path / "b").decisions.tolist() == counts.argmax(axis=1).tolist()


def test_another_network_than_the_bundles_is_refused(folder: Path) -> None:
    give_results(folder)
    other = NETWORK.with_(layers=NETWORK.layers[:2])
    refused(lambda: results.compare_with_emulator(other, folder), "network: is not of the bundle's shape")


def test_missing_results_are_named(folder: Path) -> None:
    give_results(folder)
    (folder / "result-1.npz").unlink()
    refused(lambda: results.merge(folder), f"{folder}/result-1.npz: does not exist")
    (folder / "result-1.json").unlink()
    refused(lambda: results.merge(folder), f"{folder}/result-1.json: does not exist", "has not ended")
    refused(lambda: results.read_shard(folder, 2), "shard: 2 is not one of the bundle's 2")


def test_truncated_and_altered_results_are_named(folder: Path) -> None:
    give_results(folder)
    path = folder / "result-0.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    refused(
        lambda: results.merge(folder), f"{path}: has {len(content) - 10} bytes, {len(content)} were written"
    )
    path.write_bytes(content[:100] + b"!" + content[101:])
    refused(lambda: results.merge(folder), f"{path}: was altered")


def test_results_of_another_bundle_or_shard_are_named(folder: Path, tmp_path: Path) -> None:
    a_bundle(tmp_path / "other", 5, STEPS, shards=2, seed=9)
    give_results(folder)
    give_results(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "result-1.json", folder)
    refused(lambda: results.merge(folder), f"{folder}/result-1.json: belongs to another bundle")
    give_results(folder)
    shutil.copy(folder / "result-0.json", folder / "result-1.json")
    refused(lambda: results.merge(folder), f"{folder}/result-1.json: is the result of shard 0")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"version": "1"},
        {"shard": "0"},
        {"manifest": None},
        {"bytes": 1 << 40},
        {"wall_s": "fast"},
        {"wall_s": -1},
        {"wall_s": True},
        {"versions": []},
        {"profile": [{}] * 3},
        {"profile": [{"energy": "much"}] * 2},
        {"profile": "none"},
        {"profile_error": "two\nlines"},
        {"extra": 0},
    ],
)
def test_a_result_with_something_else_in_it(folder: Path, changes: dict[str, Any]) -> None:
    give_results(folder)
    put_result(folder, 0, (folder / "result-0.npz").read_bytes(), **changes)
    refused(lambda: results.merge(folder), f"{folder}/result-0.json")


def npz(**members: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def good(layer: int = 9) -> dict[str, np.ndarray]:
    """Arrays of the right shapes for shard 0, without those of one layer."""
    sizes = {k: n for k, n in enumerate((11, 6, 2)) if k != layer}
    return {f"voltage_{k}": np.zeros((2, n), np.int32) for k, n in sizes.items()} | {
        f"spikes_{k}": np.zeros((2, STEPS, -(-n // 8)), np.uint8) for k, n in sizes.items()
    }


def bomb() -> bytes:
    """A member that says it is small and unpacks to far more."""
    buffer = io.BytesIO(npz(**good(2), voltage_2=np.zeros((2, 2), np.int32)))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array(header, np.zeros((2, STEPS, 1), np.uint8))
        archive.writestr("spikes_2.npy", header.getvalue() + bytes(50_000_000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a whole .npz file"),
        (b"PK\x03\x04" + bytes(200), "is not a whole .npz file"),
        (npz(**good(2)), "holds"),
        (npz(**good(), more=np.zeros(1)), "holds"),
        (npz(**{**good(), "voltage_1": np.zeros((2, 7), np.int32)}), "voltage_1: is int32 (2, 7)"),
        (npz(**{**good(), "voltage_1": np.zeros((2, 6))}), "voltage_1: is float64"),
        (npz(**{**good(), "voltage_1": np.array([[None] * 6] * 2)}), "voltage_1: is object"),
        (npz(**{**good(), "spikes_0": np.zeros((10**7,), np.uint8)}), "spikes_0: is uint8"),
        (bomb(), "spikes_2: has"),
    ],
    ids=["empty", "no zip", "too few", "too many", "shape", "float", "object", "large", "bomb"],
)
def test_arrays_that_are_not_what_the_manifest_implies(folder: Path, content: bytes, problem: str) -> None:
    give_results(folder)
    put_result(folder, 0, content)
    refused(lambda: results.merge(folder), f"{folder}/result-0.npz", problem)


def test_an_archive_with_a_damaged_member_is_named(folder: Path) -> None:
    give_results(folder)
    content = bytearray((folder / "result-0.npz").read_bytes())
    content[120:140] = bytes(20)
    put_result(folder, 0, bytes(content))
    refused(lambda: results.merge(folder), f"{folder}/result-0.npz: is not a whole .npz file")


# Status.


def test_status_before_while_and_after(folder: Path) -> None:
    assert results.status(folder, 0) is None
    report = payload.Status(str(folder), 0)
    report.of = 4
    report.write("running")
    assert (results.status(folder, 0).state, results.status(folder, 0).of) == ("running", 4)
    report.write("failed", payload.one_line("a\nb \x1b[2J"))
    found = results.status(folder, 0)
    assert (found.state, found.error, found.pid) == ("failed", "a b ?[2J", os.getpid())
    assert results.result_names(0) == ("status-0.json", "result-0.json", "result-0.npz")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"state": "lost", "done": 0, "of": 1, "error": null, "pid": 1, "host": "a"}',
        b'{"state": "done", "done": -1, "of": 1, "error": null, "pid": 1, "host": "a"}',
        b'{"state": "done", "done": 1, "of": 1, "error": "\\u001b[2J", "pid": 1, "host": "a"}',
        b'{"state": "done", "done": 1, "of": 1, "error": "\\ud800", "pid": 1, "host": "a"}',
        b" " * 70_000,
    ],
    ids=["empty", "no keys", "state", "negative", "escape", "surrogate", "too large"],
)
def test_a_status_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / "status-0.json").write_bytes(content)
    refused(lambda: results.status(folder, 0), f"{folder}/status-0.json")
