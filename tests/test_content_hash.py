"""Damage that no other check sees is seen by the hash of the content, whoever wrote the file."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from netx_tools import a_network, arrays, read_quietly, reseal

from delaynet_lava.cli import main
from delaynet_lava.cli.output import figures, say
from delaynet_lava.formats import netx
from delaynet_lava.formats.content_hash import Altered, NoHashWarning, hash_of
from delaynet_lava.formats.model_file import ModelFile, load_model, save_model, write_tensors


def size(count: int) -> bytes:
    return struct.pack("<Q", count)


def test_the_encoding_is_the_one_that_is_described() -> None:
    value = {
        "b": [None, True, False, 12, -0.5],
        "a": np.array([[1, -2]], np.int8),
        "ä": {},
        "c": np.float32([1.5]),
        "d": np.array(1 << 63, np.uint64),
    }
    expected = b"delaynet_lava content 1\n" + b"M" + size(5)
    expected += b"S" + size(1) + b"aAi" + size(2) + size(1) + size(2) + struct.pack("<2q", 1, -2)
    expected += b"S" + size(1) + b"bL" + size(5) + b"NTFI" + size(2) + b"12D" + struct.pack("<d", -0.5)
    expected += b"S" + size(1) + b"cAf" + size(1) + size(1) + struct.pack("<d", 1.5)
    expected += b"S" + size(1) + b"dAu" + size(0) + struct.pack("<Q", 1 << 63)
    expected += b"S" + size(2) + "ä".encode() + b"M" + size(0)
    assert hash_of(value) == hashlib.sha256(expected).hexdigest()


def test_the_hash_does_not_ask_how_something_is_stored(tmp_path: Path) -> None:
    path, copy = tmp_path / "net.h5", tmp_path / "copy.h5"
    netx.write(a_network(), path)

    def again(group: h5py.Group, into: h5py.Group) -> None:
        for key in reversed(list(group)):
            if isinstance(group[key], h5py.Group):
                again(group[key], into.create_group(key))
            else:
                value = group[key][()]
                options = {"compression": "gzip", "chunks": True} if np.ndim(value) == 2 else {}
                wider = value.astype(">i4") if getattr(value, "dtype", np.dtype("S1")).kind == "i" else value
                into.create_dataset(key, data=wider, **options)

    with h5py.File(path) as file, h5py.File(copy, "w", userblock_size=512) as other:
        again(file, other)
    assert copy.read_bytes() != path.read_bytes()
    assert arrays(read_quietly(copy)) == arrays(a_network())


def test_no_bit_of_a_net_can_change_unseen(tmp_path: Path) -> None:
    """Before there was a hash, 157 of 400 such files loaded as another network."""
    path = tmp_path / "net.h5"
    netx.write(a_network(), path)
    content, whole, altered = path.read_bytes(), arrays(a_network()), 0
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(400):
            damaged = bytearray(content)
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                assert arrays(netx.read(path)) == whole
            except Altered:
                altered += 1
            except Exception as error:
                assert type(error).__name__ == "InputError"
    assert altered > 3
    weight = content.index(a_network().layers[1].synapse.weight.tobytes())
    path.write_bytes(content[:weight] + bytes([content[weight] ^ 2]) + content[weight + 1 :])
    with pytest.raises(Altered, match=r"net\.h5: was damaged or edited: its content has hash [0-9a-f]{12}"):
        netx.read(path)


def test_an_edited_net_is_told_until_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    netx.write(a_network(), path)
    with h5py.File(path, "a") as file:
        file["layer/2/neuron/vThMant"][()] = 101
    with pytest.raises(Altered):
        netx.read(path)
    reseal(path)
    assert read_quietly(path).layers[1].neuron.vth == 101


def test_a_net_without_a_hash_loads_with_one_note(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    netx.write(a_network(), path)
    with h5py.File(path, "a") as file:
        del file["delaynet/sha256"]
    with pytest.warns(netx.NetxWarning, match="has no content hash") as caught:
        assert arrays(netx.read(path)) == arrays(a_network())
    assert len(caught) == 1
    assert main_code("verify", str(path)) == 1


def a_model(**state: Any) -> ModelFile:
    return ModelFile(
        {"layers": [{"type": "Flatten"}], "dt_ms": 1.0}, state, {"seed": 3, "history": [{"loss": 0.5}]}
    )


def test_a_model_is_checked_and_an_old_one_noted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_model(path, a_model(a=torch.arange(4.0), b=torch.ones(2, dtype=torch.bfloat16)))
    assert load_model(path).provenance["seed"] == 3
    content = torch.load(path, weights_only=True)
    stated = content.pop("sha256")
    torch.save(content, path)
    with pytest.warns(NoHashWarning, match="has no content hash") as caught:
        load_model(path)
    assert len(caught) == 1
    content["state_dict"]["a"][2] = 2.5
    torch.save({**content, "sha256": stated}, path)
    with pytest.raises(Altered, match="was damaged or edited"):
        load_model(path)
    write_tensors(path, content)
    assert load_model(path).state_dict["a"][2] == 2.5
    assert "sha256" not in vars(load_model(path))


def test_the_hash_of_a_shipped_model_is_the_same_everywhere(repository: Path) -> None:
    """So a release of torch or Python that changed it would be seen here."""
    for name, start in SHIPPED.items():
        model = torch.load(repository / "delaynet_lava" / "models" / name, weights_only=True)
        assert model["sha256"].startswith(start)
        load_model(repository / "delaynet_lava" / "models" / name)


SHIPPED = {
    "cue_6bit.pt": "2a3e7a5a7950ca3c",
    "cue_dense.pt": "e5b854d020131007",
    "cue_loihi2.pt": "172bc6af23c3b14f",
    "cue_paper.pt": "231d2e6365268f69",
    "cue_src.pt": "70721a99ff10de3b",
    "mnist_lif.pt": "0a90120338b0f13a",
    "mnist_src.pt": "5bd88b53ae1141e1",
    "psmnist.pt": "f7573162d4213d45",
}


def main_code(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_verify(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture) -> None:
    net, model = tmp_path / "net.h5", repository / "delaynet_lava" / "models" / "cue_loihi2.pt"
    netx.write(a_network(), net)
    assert main_code("verify", str(net)) == 0
    out = capsys.readouterr().out
    assert "a network of integers (net.h5)" in out and "holds: the content is what was written" in out
    assert main_code("verify", str(model), "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["holds"]
        and found["stated"] == found["sha256"]
        and found["content"] == "DelayRecurrent - Readout"
    )
    with h5py.File(net, "a") as file:
        file["layer/2/neuron/vThMant"][()] = 101
    assert main_code("verify", str(net)) == 1
    assert "does not hold: the content was damaged or edited" in capsys.readouterr().out
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "m.pt").write_bytes(damaged)
    assert main_code("verify", str(tmp_path / "m.pt")) == 1
    shown = capsys.readouterr()
    assert "the file is damaged" in shown.out and "Bad CRC-32" in shown.err
    torch.save({"a": torch.ones(2)}, tmp_path / "theirs.pt")
    assert main_code("verify", str(tmp_path / "theirs.pt")) == 1
    assert "tensors that another program wrote" in capsys.readouterr().out
    (tmp_path / "text").write_text("nothing of ours")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        assert main_code("verify", str(path)) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_text_from_files_does_not_reach_the_terminal_raw(capsys: pytest.CaptureFixture) -> None:
    say("a\x1b[2Jb\nc\u202e")
    figures([("name", "[/x] [red]\x1b]0;title\x07")])
    out = capsys.readouterr().out
    assert "a\\x1b[2Jb\nc\\u202e\n" in out and "[/x] [red]\\x1b]0;title\\x07" in out and "\x1b" not in out
