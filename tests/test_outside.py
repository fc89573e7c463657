"""Tasks that others made: data sets through tonic, written here in their own layout, and own classes."""

from __future__ import annotations

import struct
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_cli import call
from test_cli import refused as complained

from delaynet_lava import save, task
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Network, Neuron, Synapse

RNG = np.random.default_rng(8)


def refused(word: str, seed: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        task(word, seed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ tonic


@pytest.fixture(scope="module")
def tonic():
    return pytest.importorskip("tonic")


def nmnist(root: Path) -> dict[tuple[str, int], np.ndarray]:
    """Two recordings a digit and part; what each must become: (steps, 34 * 34 * 2), steps of 1 ms."""
    expected: dict[tuple[str, int], np.ndarray] = {}
    for folder, split in (("Train", "train"), ("Test", "test")):
        index = 0
        for digit in (0, 3, 7):
            place = root / "NMNIST" / folder / str(digit)
            place.mkdir(parents=True)
            for name in ("00002.bin", "00010.bin"):
                x, y, p = RNG.integers(0, 34, 40), RNG.integers(0, 34, 40), RNG.integers(0, 2, 40)
                t = np.sort(RNG.integers(0, 50_000, 40))
                raw = b"".join(
                    struct.pack("BB", int(a), int(b)) + (int(c) << 23 | int(d)).to_bytes(3, "big")
                    for a, b, c, d in zip(x, y, p, t, strict=True)
                )
                (place / name).write_bytes(raw)
                spikes = np.zeros((50, 34 * 34 * 2), np.uint8)
                spikes[t // 1000, x + 34 * (y + 34 * p)] = 1
                expected[split, index] = spikes
                index += 1
    return expected


def test_nmnist_is_every_event_at_its_pixel_and_step(tonic, tmp_path):
    expected = nmnist(tmp_path)
    of = task(f"tonic:NMNIST:root={tmp_path},steps=50,split=1,0")
    assert (of.channels, of.classes, of.describe(3)) == (2312, 10, "3 - three")
    for split in ("train", "test"):
        x, y = of.batch(split, 0, 6)
        assert y.tolist() == [0, 0, 3, 3, 7, 7]
        for k in range(6):
            np.testing.assert_array_equal(x[k], expected[split, k])
    assert of.word == f"tonic:NMNIST:root={tmp_path},steps=50,split=1,0"
    coarse = task(f"tonic:NMNIST:root={tmp_path},dt_ms=5,several=count")
    assert coarse.payload_bits == 8 and coarse.steps == 10
    assert coarse.batch("test", 0, 6)[0].sum() == 6 * 40


def hsd(path: Path, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    spikes = np.zeros((count, 60, 700), np.uint8)
    labels = RNG.integers(0, classes, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as out:
        times = out.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
        units = out.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for k in range(count):
            stored = RNG.uniform(0, 0.059, 30).astype(np.float16)
            times[k], units[k] = stored, RNG.integers(0, 700, 30)
            microseconds = (stored.astype(np.float64) * 1e6).astype(int)
            spikes[k, microseconds // 1000, units[k]] = 1
        out["labels"] = labels
        out["extra/keys"] = np.array([f"word {k}".encode() for k in range(classes)])
        out["extra/speaker"] = np.zeros(count)
    return spikes, labels


def test_shd_through_tonic_is_shd_as_a_file(tonic, tmp_path):
    hsd(tmp_path / "SHD" / "shd_train.h5", 20, 20)
    spikes, labels = hsd(tmp_path / "SHD" / "shd_test.h5", 7, 20)
    of = task(f"tonic:SHD:root={tmp_path},steps=60")
    assert (of.channels, of.classes, of.describe(4)) == (700, 20, "word 4")
    assert [of.size(split) for split in ("train", "validation", "test")] == [18, 2, 7]
    x, y = of.batch("test", 0, 7)
    np.testing.assert_array_equal(x, spikes)
    np.testing.assert_array_equal(y, labels)
    own = task(f"{tmp_path / 'SHD' / 'shd_test.h5'}:steps=60,channels=700,classes=20,split=0,0,1")
    np.testing.assert_array_equal(own.batch("test", 0, 7)[0], spikes)


def test_ssc_has_a_validation_of_its_own(tonic, tmp_path):
    held = {}
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        held[split] = hsd(tmp_path / "SSC" / f"ssc_{name}.h5", 4, 35)
    of = task(f"tonic:SSC:root={tmp_path},steps=60")
    assert of.classes == 35 and "split" not in of.word
    for split, (spikes, _) in held.items():
        np.testing.assert_array_equal(of.batch(split, 0, 4)[0], spikes)


def test_dvs_gesture_is_in_the_order_of_its_paths(tonic, tmp_path):
    expected, labels = [], []
    for user in ("user01_fluorescent", "user02_led"):
        folder = tmp_path / "DVSGesture" / "ibmGestureTest" / user
        folder.mkdir(parents=True)
        for label in ("0", "10", "3"):
            x, y, p = RNG.integers(0, 128, 25), RNG.integers(0, 128, 25), RNG.integers(0, 2, 25)
            t = np.sort(RNG.integers(0, 40, 25))
            np.save(folder / f"{label}.npy", np.stack([x, y, p, t], 1).astype(np.int64))
            spikes = np.zeros((40, 128 * 128 * 2), np.uint8)
            spikes[t, x + 128 * (y + 128 * p)] = 1
            expected.append(spikes)
            labels.append(int(label))
    of = task(f"tonic:DVSGesture:root={tmp_path},steps=40")
    assert [of.size(split) for split in ("train", "validation", "test")] == [0, 0, 6]
    x, y = of.batch("test", 0, 6)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(x, expected)
    assert of.describe(3) == "Right arm cw"


def test_what_is_not_there_is_one_line_and_nothing_is_fetched(tmp_path, monkeypatch):
    assert f"none of Train, Test is in {tmp_path}/NMNIST" in refused(f"tonic:NMNIST:root={tmp_path}")
    assert "'CIFAR' is not one of NMNIST, SHD, SSC, DVSGesture" in refused("tonic:CIFAR")
    assert "unit is not one of its options" in refused("tonic:SHD:unit=s")
    (tmp_path / "SHD").mkdir()
    (tmp_path / "SHD" / "shd_test.h5").write_bytes(b"nothing")
    if "tonic" in sys.modules:
        assert "tonic cannot open it" in refused(f"tonic:SHD:root={tmp_path}")
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    line = refused(f"tonic:SHD:root={tmp_path}")
    assert "needs tonic, which cannot be imported" in line and "pip install 'delaynet_lava[tonic]'" in line


# ------------------------------------------------------------------ own classes

GOOD = """
import numpy as np

class Blobs:
    channels, classes = 4, 3

    def __init__(self, steps: int = 5, seed: int = 0, share: float = 0.5):
        self.steps, self.seed, self.share = steps, seed, share

    def size(self, split):
        return 6 if split == "test" else None

    def batch(self, split, first, count):
        x = np.zeros((count, self.steps, self.channels), bool)
        y = np.arange(first, first + count) % self.classes
        x[np.arange(count), self.seed % self.steps, y] = True
        return x, y

    def describe(self, label):
        return "abc"[label]

def make(count: int, name):
    return Blobs(count)
"""


@pytest.fixture
def code(tmp_path):
    def write(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return str(tmp_path / name)

    return write


def test_an_own_class_runs_with_its_options_and_seed(code):
    path = code(GOOD)
    of = task(f"{path}:Blobs:steps=7,share=0.25", seed=3)
    assert (of.steps, of.channels, of.classes, of.seed, of.dt_ms, of.payload_bits) == (7, 4, 3, 3, 1.0, 0)
    x, y = of.batch("test", 2, 3)
    assert (x.dtype, y.dtype, y.tolist()) == (np.uint8, np.int64, [2, 0, 1])
    assert np.argwhere(x).tolist() == [[0, 3, 2], [1, 3, 0], [2, 3, 1]]
    assert of.word == f"{path}:Blobs:steps=7,share=0.25" and of.name == "Blobs"
    assert (of.size("train"), of.size("test"), of.describe(1)) == (None, 6, "b")
    assert of.lengths("test", 0, 2).tolist() == [7, 7] and of.curriculum()[-1].steps == 7
    assert task(f"{path}:make:count=9,name=x").steps == 9


def test_an_own_class_of_a_module(code, tmp_path, monkeypatch):
    code(GOOD, "a_module_of_mine.py")
    monkeypatch.chdir(tmp_path)
    assert task("a_module_of_mine:Blobs").steps == 5


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("channels, classes = 4, 3", "channels = 4"), "has no attribute classes"),
        (("channels, classes = 4, 3", "channels, classes, dt_ms = 4.5, 3, 0"),
         "channels is 4.5, expected a whole number from 1 on; dt_ms is 0, expected a length in ms"),
        (("def batch", "def batches"), "has no method batch"),
        (("def size(self, split)", "def size(self)"), "size('train') fails (TypeError"),
        (("return 6 if", "return 'six' if"), "size('test') is 'six', expected a number or None"),
        (("return x, y", "return x"), "gives a ndarray, expected inputs and labels"),
        (("return x, y", "return x * 0.5, y"), "inputs have type float64, expected whole numbers"),
        (("return x, y", "return x * 2, y"), "inputs reach from 0 to 2, expected 0 to 1"),
        (("return x, y", "return x[:, 1:], y - 1"),
         "inputs have shape (1, 4, 4), expected (1, 5, 4); labels reach from -1 to -1, expected 0 to 2"),
        (("return x, y", "return x, y * 1.0"), "labels are float64 (1,), expected whole numbers (1,)"),
        (("x[np", "x[0, 0, 99] = 1; x[np"), "batch('train', 0, 1) fails (IndexError"),
        (("self.steps, self.seed", "1 / 0; self.steps, self.seed"), "fails when it is made (ZeroDiv"),
        (("6 if split == \"test\" else None", "0"), "has no samples in any split"),
    ],
)  # fmt: skip
def test_a_class_that_is_no_task_is_told_why(code, change, line):
    assert change[0] in GOOD
    assert line in refused(f"{code(GOOD.replace(*change))}:Blobs")


def test_words_for_code_that_is_not_there(code):
    path = code(GOOD)
    assert "has no Blob; it defines: Blobs, make" in refused(f"{path}:Blob")
    assert "does not exist" in refused("nowhere.py:Blobs")
    assert "fails when it is run (ModuleNotFoundError" in refused("no.such.module:Blobs")
    assert "steps: 'x' is not a whole number; n is not one of its options" in refused(
        f"{path}:Blobs:steps=x,n=1"
    )
    assert f"needs name; write {path}:make:name=VALUE" in refused(f"{path}:make:count=3")
    assert "is a int; name a class or a function" in refused(f"{code('x = 1', 'x.py')}:x")


def test_a_network_does_not_run_the_code_it_names(code, tmp_path, capsys):
    marker = tmp_path / "ran"
    path = code(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n{GOOD}")
    net = tmp_path / "net.h5"
    weight = np.zeros((3, 4), int)
    weight[range(3), range(3)] = 64
    save(Network((Dense(Synapse(weight), Neuron(131071, 4096, 0)),), task=f"{path}:Blobs"), net)
    for command in (["run", str(net)], ["evaluate", str(net)], ["plot", "activity", str(net)]):
        line = complained(capsys, *command)
        assert "no file says what code runs here; if you trust it, say so with --task" in line
    assert not marker.exists()
    capsys.readouterr()
    assert call("run", str(net), "--task", f"{path}:Blobs") == 0
    assert marker.exists() and "1.0000 (6 of 6)" in capsys.readouterr().out
    more = complained(capsys, "run", str(net), "--task", f"{path}:Blobs", "--samples", "7")
    assert "--samples 7: " in more and "has 6 in the split test; ask for at most 6" in more


def test_the_class_of_the_page_is_a_task(code, repository):
    text = (repository / "docs" / "tasks.md").read_text()
    path = code(text.split("```python")[1].split("```")[0])
    of = task(f"{path}:Digits:noise=0.1", seed=2)
    x, y = of.batch("validation", 3, 5)
    assert x.any() and set(y) <= {0, 1, 2}
    np.testing.assert_array_equal(of.batch("validation", 5, 1)[0][0], x[2])
