"""Model files and checkpoints from strangers: nothing in them runs, what is odd is refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intruder import Intruder

from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.export.extract import extract
from delaynet_lava.formats import untrusted_torch
from delaynet_lava.formats.model_file import ModelFile, load_model, load_tensors
from delaynet_lava.nn.model import build

HERE = Path(__file__).parent
# What newer releases of torch say of the programs and words that this file plants.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.*deprecated:UserWarning"),
]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "written-by-the-file"


@pytest.fixture
def intruder(tmp_path: Path, canary: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(Intruder(str(canary))), path)
    assert not canary.exists()
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and len(text) <= 400 and text.isprintable()
    return text.removeprefix(f"{path}: ")


# Programs.


@pytest.mark.skipif(torch.__version__ >= "2.6", reason="torch refuses such archives itself")
def test_torchs_own_reader_runs_the_program(intruder: Path, canary: Path) -> None:
    """What the other tests are held against: the archive works."""
    with pytest.warns(UserWarning, match="TorchScript"):
        torch.load(intruder, weights_only=True)
    assert canary.exists()


@pytest.mark.parametrize("name", ["model.pt", "other.zip", "x"])
@pytest.mark.parametrize("read", [load_model, load_tensors])
def test_no_reader_runs_the_program(intruder: Path, canary: Path, read: Callable, name: str) -> None:
    path = intruder.rename(intruder.with_name(name))
    with pytest.raises(InputError, match="a TorchScript archive, which is a program"):
        read(path)
    assert not canary.exists()


@pytest.mark.parametrize("drop", [["constants.pkl"], ["constants.pkl", "code"], ["code"]])
def test_nor_where_its_parts_are_renamed(intruder: Path, canary: Path, drop: list[str]) -> None:
    """Without the member that torch looks for, what is left names classes of the archive's own."""
    with zipfile.ZipFile(intruder) as old:
        members = {n: old.read(n) for n in old.namelist() if not any(d in n for d in drop)}
    with zipfile.ZipFile(intruder, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    assert "more than tensors and plain values and was not opened" in refusal(intruder)
    assert not canary.exists()


def test_no_command_runs_the_program(
    intruder: Path, canary: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(intruder.parent)
    checkpoint = intruder.with_name("trained.pt.checkpoint")
    checkpoint.write_bytes(intruder.read_bytes())
    for command in (
        ["export", "model.pt"],
        ["train", "cue", "-o", "new.pt", "--init", "model.pt"],
        ["train", "cue", "-o", "trained.pt"],
        ["plot", "learning", "model.pt"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(command)
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and "TorchScript archive" in lines[0], lines
        assert not canary.exists()


def test_objects_are_not_made(tmp_path: Path, canary: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(canary),)

    torch.save({"a": Bomb()}, tmp_path / "m.pt")
    assert "(posix.mkdir)" in refusal(tmp_path / "m.pt")
    for value, name in (
        (np.zeros(3), f"{np.zeros(3).__reduce__()[0].__module__}._reconstruct"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (b"bytes", "_codecs.encode"),
        ({1, 2}, "__builtin__.set"),
        (torch.float32, "torch.float32"),
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), "torch._utils._rebuild_qtensor"),
        (torch.empty(10**12, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.zeros(2, dtype=torch.complex64), "torch.ComplexFloatStorage"),
    ):
        torch.save({"a": value}, tmp_path / "m.pt")
        assert f"({name})" in refusal(tmp_path / "m.pt")
    assert not canary.exists()


# Formats.


def test_older_formats_say_how_to_save_again(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert "save it again with torch.save" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "save it again with torch.save" in refusal(path)


def test_a_tar_whose_member_is_a_pipe_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.FIFOTYPE
            archive.addfile(member)
    assert "before 1.6" in refusal(path)
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "is not a plain file; give the path of a model.pt"


def same(one: Any, two: Any) -> bool:
    if isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(two, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in two)
    if isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def everything() -> dict[str, Any]:
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(linear.parameters())
    linear(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    kinds = (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool,
    )  # fmt: skip
    return {
        "model": linear.state_dict(),
        "optimiser": optimiser.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "kinds": [torch.arange(6).to(kind) for kind in kinds],
        "transposed": torch.arange(12.0).reshape(3, 4).T,
        "view": torch.arange(10)[1:9:2],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
        "plain": [0, 255, 256, 65536, -1, 2**40, -(2**70), 0.1, True, None, "ä", (1, 2, 3, 4)],
    }


def test_everything_plain_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    torch.save(everything(), tmp_path / "m.pt")
    assert same(load_tensors(tmp_path / "m.pt"), torch.load(tmp_path / "m.pt", weights_only=True))


def test_files_of_other_releases_of_torch(repository: Path) -> None:
    """Written by torch 2.13 with ``everything()``; the shipped models come from 2.3."""
    newer = HERE / "files" / "torch-2.13.pt"
    assert list(load_tensors(newer)) == list(everything())
    for path in (newer, *(repository / "delaynet_lava" / "models").glob("*.pt")):
        theirs = torch.load(path, weights_only=True)
        theirs.pop("sha256", None)
        assert same(load_tensors(path), theirs), path


# Damage and bombs.


def archive_of(code: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A torch file with this pickle and these storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr("m/data.pkl", code)
        for key, content in (storages or {}).items():
            archive.writestr(f"m/data/{key}", content)
    return buffer.getvalue()


def code_of(value: Any) -> bytes:
    """The pickle of a plain value."""
    return pickle.dumps(value, 2)


def tensor_code(offset: int, size: tuple, stride: tuple, count: int, kind: str = "FloatStorage") -> bytes:
    """The pickle of ``{"a": tensor}``."""
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    shape = b"".join(b"(" + b"".join(map(number, ns)) + b"t" for ns in (size, stride))
    text = lambda word: b"X" + struct.pack("<i", len(word)) + word.encode()  # noqa: E731
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu")
    storage += number(count) + b"tQ"
    tail = b"\x89ccollections\nOrderedDict\n)R"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset)
    return b"\x80\x02}" + text("a") + rebuilt + shape + tail + b"tRs."


def test_layouts(tmp_path: Path) -> None:
    path, twelve = tmp_path / "m.pt", {"0": np.arange(12, dtype=np.float32).tobytes()}
    path.write_bytes(archive_of(tensor_code(1, (2, 3), (1, 3), 12), twelve))
    assert load_tensors(path)["a"].tolist() == [[1, 4, 7], [2, 5, 8]]
    for offset, size, stride, problem in (
        (0, (13,), (1,), "a tensor of shape (13,) in 12 values"),
        (1, (12,), (1,), "a tensor of shape (12,) in 12 values"),
        (0, (2, 7), (6, 1), "a tensor of shape (2, 7) in 12 values"),
        (-1, (2,), (1,), "a tensor of an unknown form"),
        (0, (-2,), (1,), "a tensor of an unknown form"),
        (0, (2,), (-1,), "a tensor of an unknown form"),
        (0, (1 << 62, 4), (1, 1), "a tensor of an unknown form"),
        (0, (2, 2), (1,), "a tensor of an unknown form"),
        (0, (1 << 39,), (0,), "has an expanded tensor, 549755813888 values kept as 12"),
        (0, (3, 4), (0, 1), "has an expanded tensor, 12 values kept as 12"),
        (0, (9, 4), (1, 1), "has an expanded tensor, 36 values kept as 12"),
        (0, (1,) * 9, (1,) * 9, "a tensor of shape (1, 1, 1, 1, 1, 1, 1, 1) in"),
    ):
        path.write_bytes(archive_of(tensor_code(offset, size, stride, 12), twelve))
        assert problem in refusal(path), (offset, size, stride)
    path.write_bytes(archive_of(tensor_code(0, (12,), (1,), 11), twelve))
    assert "'data/0' has 48 bytes, not 11 values" in refusal(path)
    path.write_bytes(archive_of(tensor_code(0, (1,), (1,), 12)))
    assert "'data/0' is missing" in refusal(path)
    path.write_bytes(archive_of(tensor_code(0, (12,), (1,), 12), twelve | {"1": b"12"}))
    assert "nothing refers to 'data/1'" in refusal(path)


def test_a_bool_is_true_or_false(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(archive_of(tensor_code(0, (4,), (1,), 4, "BoolStorage"), {"0": b"\0\1\2\xff"}))
    found = load_tensors(path)["a"]
    assert found.dtype == torch.bool and found.view(torch.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "content, problem",
    [
        (archive_of(b"\x80\x02" + b"]" * 20_000_000), "a pickle of 20000002 bytes, more than 16777216"),
        (archive_of(b"\x80\x02" + b"]" * 2_000_000 + b"."), "a pickle of more than 524288 instructions"),
        (archive_of(b"\x80\x02]r\xff\xff\xff\x7f."), "holds a list, expected a dict"),
        (archive_of(b"\x80\x02]q\0h\0a."), "64 levels"),
        (archive_of(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."), "64 levels"),
        (archive_of(b"\x80\x02" + b")" + b"\x85" * 500_000 + b"."), "64 levels"),
        (archive_of(b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"Ns."), "a tuple as a key"),
        (archive_of(b"\x80\x02X\xff\xff\xff\x7fabc."), "its pickle is cut short"),
        (archive_of(b"\x80\x02X\xff\xff\xff\xffabc."), "its pickle is cut short"),
        (archive_of(b"\x80\x02X\2\0\0\0\xff\xff."), "is not a torch file, or a damaged one"),
        (archive_of(b"\x80\x04]."), "not of protocol 2"),
        (archive_of(b"\x80\x02"), "cut short"),
        (archive_of(b""), "cut short"),
        (archive_of(b"\x80\x02."), "does not end with one value"),
        (archive_of(b"\x80\x02a."), "its pickle, IndexError"),
        (archive_of(b"\x80\x02h\1."), "its pickle, KeyError: 1"),
        (archive_of(b"\x80\x02}K\1R."), "(a call)"),
        (archive_of(b"\x80\x02\x8b\xff\xff\xff\x7f1."), "instruction b'\\x8b' of its pickle"),
        (archive_of(b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"."), "(a number of 2040 bits)"),
        (archive_of(code_of({}) + b"x"), "does not end with one value"),
        (archive_of(b"\x80\x02cos\n\x1b[2J\x1b]0;gotcha\x07\n."), r"os.\x1b[2J\x1b]0;gotcha\x07"),
        (archive_of(b"\x80\x02ctorch\nFloatStorage\n."), "and was not opened (name)"),
        (archive_of(code_of([]), compression=zipfile.ZIP_DEFLATED), "has a compressed member 'm/data.pkl'"),
        (archive_of(code_of([1])), "holds a list, expected a dict"),
        (b"PK\3\4" + b"PK\1\2" * 20_000, "has more than 16384 members"),
        (b"PK\3\4" + bytes(1000), "is not a torch file, or a damaged one"),
        (b"x" * 1000, "is not a torch file, or a damaged one (it is not a zip archive)"),
        (b"", "has 0 bytes, expected 1 to 2147483648"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_torch_would_not_write(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    started = time.process_time()
    assert problem in refusal(path)
    assert time.process_time() - started < 10  # some 0.5 s where nobody else computes


def test_little_that_stands_for_much(tmp_path: Path) -> None:
    """Ten lists of ten of the same list of ten of the same, and so on: a billion values in 300 bytes."""
    depth = 9
    code = b"](" * depth + b"]q\0" + b"".join(b"h%c" % k * 9 + b"eq%c" % (k + 1) for k in range(depth))
    (tmp_path / "m.pt").write_bytes(archive_of(b"\x80\x02" + code + b"."))
    assert "holds more than 524288 values" in refusal(tmp_path / "m.pt")
    text = b"X" + struct.pack("<i", 100_000) + b"x" * 100_000
    code = b"](" + text + b"q\0" + b"h\0" * 1000 + b"e."
    (tmp_path / "m.pt").write_bytes(archive_of(b"\x80\x02" + code))
    assert "67108864 characters" in refusal(tmp_path / "m.pt")


def test_a_storage_that_many_tensors_share_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.arange(1000.0)
    torch.save({str(k): whole[k:] for k in range(50)}, tmp_path / "m.pt")
    assert load_tensors(tmp_path / "m.pt")["7"][0] == 7
    monkeypatch.setattr(untrusted_torch, "MAX_TENSORS", 100_000)
    assert refusal(tmp_path / "m.pt") == "has tensors of more than 100000 bytes in all"


def test_damage_to_any_byte_of_a_tensor_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = path.read_bytes()
    start = content.index(torch.arange(1000.0).numpy().tobytes())
    for k in range(0, 4000, 37):
        damaged = bytearray(content)
        damaged[start + k] ^= 1 << k % 8
        path.write_bytes(damaged)
        assert "Bad CRC-32" in refusal(path)


def test_json_of_the_shipped_models_is_as_before(repository: Path) -> None:
    for path in (repository / "delaynet_lava" / "models").glob("*.pt"):
        model = load_model(path)
        assert json.dumps(model.config) and json.dumps(model.provenance)


# Tensors that do not fit their layer, before anything is computed with them.


def a_model(**changes: Any) -> ModelFile:
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
    state: dict[str, Any] = {
        "0.synapse.weight_v": torch.ones(4, 3, 1, 1, 1),
        "0.synapse.weight_g": torch.ones(4, 1, 1, 1, 1),
        "0.neuron.current_decay": torch.tensor([4096.0]),
        "0.neuron.voltage_decay": torch.tensor([400.0]),
    }
    state |= {f"0.{name.replace('__', '.')}": value for name, value in changes.items()}
    layers = [{"type": "Dense", "neuron": neuron}]
    return ModelFile({"layers": layers}, {k: v for k, v in state.items() if v is not None})


TENSORS: list[tuple[dict[str, Any], str]] = [
    # The first ended the process with a division by zero, the second corrupted the heap.
    (
        {"synapse__weight_v": torch.ones(4, 0, 1, 1, 1)},
        "has shape (4, 0, 1, 1, 1), expected",
    ),
    (
        {"synapse__weight_g": torch.ones(1, 1, 1, 1, 1)},
        "weight_g has shape (1, 1, 1, 1, 1) and",
    ),
    ({"synapse__weight_g": torch.ones(0)}, "weight_g has shape (0,)"),
    (
        {"synapse__weight_g": torch.ones(4, 1, 1, 1, 1, dtype=torch.float64)},
        "float64, expected (4",
    ),
    ({"synapse__weight_g": torch.ones(4, 1, 1, 1, 1, dtype=torch.int32)}, "torch.int32, expected floating"),
    ({"synapse__weight_v": torch.ones(4, 3, 2)}, "has shape (4, 3, 2), expected (post, pre)"),
    ({"synapse__weight_v": torch.ones(())}, "has shape (), expected (post, pre)"),
    ({"synapse__weight_v": torch.zeros(4, 3, 1, 1, 1)}, "has a row of zeros, which has no direction"),
    ({"synapse__weight_v": torch.full((4, 3, 1, 1, 1), torch.nan)}, "holds NaN or infinity"),
    ({"synapse__weight_v": torch.ones(4, 3).to_sparse()}, "is sparse, quantised or without data"),
    ({"synapse__weight_v": torch.ones(4, 3, device="meta")}, "is sparse, quantised or without data"),
    ({"synapse__weight_v": torch.ones(4, 3, dtype=torch.complex64)}, "has type torch.complex64"),
    ({"mask": torch.ones(4, 4)}, "mask has shape (4, 4), the weights (4, 3, 1, 1, 1)"),
    ({"neuron__current_decay": torch.ones(2)}, "neuron.current_decay has 2 values"),
    ({"neuron__current_decay": torch.tensor([True])}, "has type torch.bool, expected numbers"),
    ({"neuron__current_decay": None}, "tensor '0.neuron.current_decay' is missing from state_dict"),
    ({"neuron__norm__running_mean": torch.ones(3)}, "bias"),
    ({"delay__delay": torch.full((4,), 1e30)}, "has a delay of 1e+30 steps, more than 32767"),
    ({"delay__delay": torch.ones(3)}, "has 3 delays for 4 neurons"),
    ({"synapse__bias": torch.ones(4)}, "1 tensors that no layer has a use for: '0.synapse.bias'"),
    ({"\x1b[2J" * 99: torch.ones(4)}, "1 tensors that no layer has a use for"),
]


@pytest.mark.parametrize(
    "changes, problem", TENSORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_tensors_are_checked_before_they_are_used(changes: dict[str, Any], problem: str) -> None:
    assert extract(a_model()).layers[0].size == 4
    with pytest.raises(InputError) as caught:
        extract(a_model(**changes))
    assert problem in str(caught.value) and str(caught.value).isprintable()
    assert str(caught.value).startswith("model")


def test_options_that_make_no_block_are_named() -> None:
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
    layer = {"type": "DelayRecurrent", "neuron": neuron, "in_neurons": 2, "out_neurons": 3, "bogus": 1}
    with pytest.raises(InputError) as caught:
        build(ModelFile({"layers": [layer]}, {}))
    assert str(caught.value) == (
        "model: layer 0: has options that make no DelayRecurrent: bogus, current_decay, in_neurons, "
        "out_neurons, threshold, voltage_decay; "
        "write the file anew with save_model"
    )


def test_a_recurrent_weight_is_square() -> None:
    decays = {
        "0.neuron.current_decay": torch.tensor([4096.0]),
        "0.neuron.voltage_decay": torch.tensor([400.0]),
    }
    state = {"0.input_synapse.weight": torch.ones(3, 4), "0.recurrent_synapse.weight": torch.ones(3, 5)}
    state |= {"0.neuron.vth": torch.ones(1), "0.delay": torch.ones(3), **decays}
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
    layers = [{"type": "DelayRecurrent", "neuron": neuron, "self_connection": False}]
    with pytest.raises(InputError, match=r"recurrent_synapse has shape \(3, 5\), expected \(3, 3\)"):
        extract(ModelFile({"layers": layers}, state))


@pytest.mark.parametrize("count", [0, 2])
def test_the_weight_of_an_input_block_is_one_value(count: int) -> None:
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
    state = {
        "0.neuron.current_decay": torch.tensor([4096.0]),
        "0.neuron.voltage_decay": torch.tensor([410.0]),
        "0.weight": torch.ones(count),
    }
    config = {"layers": [{"type": "Input", "neuron": neuron, "shape": [3]}]}
    with pytest.raises(InputError, match=f"weight has {count} values"):
        extract(ModelFile(config, state))
