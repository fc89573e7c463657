"""Tasks from files: what is read, exactly, and one line for each thing that can't be."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delaynet_lava import task
from delaynet_lava.errors import InputError
from delaynet_lava.formats import npz

RNG = np.random.default_rng(3)
SPIKES = (RNG.random((20, 30, 5)) < 0.1).astype(np.uint8)
LABELS = RNG.integers(0, 4, 20)
LABELS[0] = 3
SAMPLE, STEP, UNIT = np.nonzero(SPIKES)
DENSE = {"inputs": SPIKES, "labels": LABELS}
EVENTS = {"times": STEP, "units": UNIT, "sample": SAMPLE, "labels": LABELS}
ALL = "split=0,0,1"


@pytest.fixture
def file(tmp_path: Path):
    """Writes a .npz and gives its path."""

    def write(name: str = "mine.npz", **arrays) -> str:
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def same(word: str, inputs: np.ndarray = SPIKES, labels: np.ndarray = LABELS) -> None:
    of = task(word)
    x, y = of.batch("test", 0, len(labels))
    np.testing.assert_array_equal(x, inputs)
    np.testing.assert_array_equal(y, labels)
    assert (x.dtype, y.dtype) == (np.int32 if of.payload_bits else np.uint8, np.int64)
    assert (of.steps, of.channels, of.seed) == (inputs.shape[1], inputs.shape[2], None)
    again, _ = of.batch("test", len(labels) // 2, 2)
    np.testing.assert_array_equal(again, inputs[len(labels) // 2 :][:2])


def refused(word: str, *, read: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        of = task(word)
        if read:
            of.batch("test", 0, of.size("test"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ dense


@pytest.mark.parametrize("kind", [np.uint8, bool, np.int64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dense_spikes_of_any_type_are_read_as_they_are(file, kind, order):
    path = file(inputs=np.asarray(SPIKES.astype(kind), order=order), labels=LABELS)
    same(f"{path}:{ALL}")


def test_a_packed_file_and_one_hot_labels_are_the_same_task(tmp_path):
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, inputs=SPIKES, labels=np.eye(4)[LABELS])
    same(f"{path}:{ALL}")
    assert task(str(path)).classes == 4


@pytest.mark.parametrize(
    ("low", "high", "bits", "signed"),
    [(0, 7, 3, False), (-8, 7, 4, True), (0, 2**24 - 1, 24, False), (-1, 1, 2, True)],
)  # fmt: skip
def test_whole_numbers_are_payloads_of_as_few_bits_as_they_need(file, low, high, bits, signed):
    values = RNG.integers(low, high, (4, 6, 2), endpoint=True).astype(np.float64)
    values.flat[:2] = low, high
    path = file(inputs=values, labels=np.arange(4))
    of = task(f"{path}:{ALL}")
    assert (of.payload_bits, of.payload_signed) == (bits, signed)
    same(f"{path}:{ALL}", values, np.arange(4))
    declared = f"{path}:{ALL},payload_bits={bits},payload_signed={str(signed).lower()}"
    same(declared, values, np.arange(4))
    fewer = refused(f"{path}:{ALL},payload_bits={bits - 1},payload_signed={str(signed).lower()}", read=True)
    assert f"payloads of {bits - 1} bits are" in fewer or "spikes are 0 to 1" in fewer


def test_samples_of_unequal_length_keep_their_lengths(file):
    lengths = RNG.integers(1, 30, 20)
    cut = SPIKES * (np.arange(30) < lengths[:, None])[:, :, None]
    path = file(inputs=cut, labels=LABELS, lengths=lengths)
    same(f"{path}:{ALL}", cut)
    np.testing.assert_array_equal(task(f"{path}:{ALL}").lengths("test", 2, 9), lengths[2:11])
    loud = file(inputs=SPIKES, labels=LABELS, lengths=np.full(20, 3))
    assert "is not silent behind its 3 steps" in refused(f"{loud}:{ALL}", read=True)


# ------------------------------------------------------------------ events


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_events_become_the_spikes_they_came_from(file, kind):
    mixed = RNG.permutation(len(SAMPLE))
    path = file(times=STEP.astype(kind), units=UNIT, sample=SAMPLE, labels=LABELS)
    other = file(
        "mixed.npz", times=STEP[mixed].astype(kind), units=UNIT[mixed], sample=SAMPLE[mixed], labels=LABELS
    )
    for one in (path, other):
        same(f"{one}:steps=30,{ALL}")
        lengths = [SPIKES[k].any(axis=1).nonzero()[0][-1] + 1 for k in range(20)]
        np.testing.assert_array_equal(task(f"{one}:{ALL}").lengths("test", 0, 20), lengths)


def test_units_of_time_and_steps_of_other_lengths(file):
    path = file(times=(STEP / np.float32(1000)).astype(np.float32), units=UNIT, sample=SAMPLE, labels=LABELS)
    same(f"{path}:unit=s,steps=30,{ALL}")
    coarse = SPIKES.reshape(20, 10, 3, 5).max(axis=2)
    same(f"{path}:unit=s,dt_ms=3,steps=10,{ALL}", coarse)
    assert task(f"{path}:unit=s,dt_ms=3").dt_ms == 3


def test_several_events_in_a_step_are_one_spike_or_counted(file):
    times, units, sample = np.array([0.1, 0.2, 0.9, 1.0]), np.array([1, 1, 1, 0]), np.zeros(4, int)
    path = file(times=times, units=units, sample=sample, labels=np.array([0]))
    x, _ = task(f"{path}:{ALL}").batch("test", 0, 1)
    assert x.tolist() == [[[0, 1], [1, 0]]]
    counted = task(f"{path}:several=count,{ALL}")
    assert counted.payload_bits == 8
    assert counted.batch("test", 0, 1)[0].tolist() == [[[0, 3], [1, 0]]]
    many = file(
        "many.npz", times=np.zeros(300), units=np.zeros(300, int), sample=np.zeros(300, int), labels=[0]
    )
    assert "300 events of a channel in one step, more than 255" in refused(
        f"{many}:several=count,{ALL}", read=True
    )


def test_what_comes_after_the_end_is_refused_unless_it_is_to_be_cut(file):
    path = file(**EVENTS)
    assert "the sample ends with step 19; raise steps, or say cut=true" in refused(
        f"{path}:steps=20,{ALL}", read=True
    )
    same(f"{path}:steps=20,cut=true,{ALL}", SPIKES[:, :20])


def write_hdf5(path: Path, labels=LABELS, times=np.float32, **storage) -> str:
    with h5py.File(path, "w") as out:
        group = out.create_group("spikes")
        a = group.create_dataset("times", (20,), h5py.vlen_dtype(times), **storage)
        b = group.create_dataset("units", (20,), h5py.vlen_dtype(np.uint16), **storage)
        for k in range(20):
            a[k], b[k] = STEP[k == SAMPLE] / 1000, UNIT[k == SAMPLE]
        out["labels"] = labels
        out.create_group("extra").create_dataset("speaker", data=np.zeros(20))
    return str(path)


@pytest.mark.parametrize(
    "storage", [{}, {"chunks": (3,)}, {"chunks": (8,), "compression": "gzip", "maxshape": (None,)}]
)
def test_hdf5_as_shd_has_it(tmp_path, storage):
    path = write_hdf5(tmp_path / "shd_test.h5", **storage)
    same(f"{path}:steps=30,{ALL}")
    halves = write_hdf5(tmp_path / "half.h5", times=np.float16, **storage)
    assert task(f"{halves}:steps=30").batch("train", 0, 1)[0].any()


def test_train_and_test_in_two_files(tmp_path):
    train, test = write_hdf5(tmp_path / "a.h5"), write_hdf5(tmp_path / "b.h5")
    of = task(f"{train}:test={test}")
    assert [of.size(split) for split in ("train", "validation", "test")] == [18, 2, 20]
    assert of.word == f"{train}:test={test},split=0.9,0.1"
    same(f"{train}:test={test},steps=30")


# ------------------------------------------------------------------ splits


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.tuples(*[st.integers(0, 9)] * 3).filter(any))
def test_a_split_is_a_partition_and_depends_on_nothing_else(tmp_path_factory, count, parts):
    path = tmp_path_factory.mktemp("split") / "n.npz"
    np.savez(path, inputs=np.ones((count, 1, 1), np.uint8), labels=np.arange(count))
    shares = ",".join(str(part / sum(parts)) for part in parts)
    found = []
    for seed in (0, 5):
        of = task(f"{path}:split={shares}", seed)
        held = [of.batch(s, 0, of.size(s))[1] for s in ("train", "validation", "test")]
        assert sorted(np.concatenate(held)) == list(range(count))
        for part, mine in zip(parts, held, strict=True):
            assert abs(len(mine) - count * part / sum(parts)) <= 1
        found.append([mine.tolist() for mine in held])
    assert found[0] == found[1]


def test_the_usual_split_is_said_and_keys_decide_where_there_are_some(file):
    path = file(**DENSE)
    of = task(path)
    assert of.word == f"{path}:split=0.8,0.1,0.1"
    assert [of.size(split) for split in ("train", "validation", "test")] == [16, 2, 2]
    keys = {
        "train_inputs": SPIKES[:10],
        "train_labels": LABELS[:10],
        "test_inputs": SPIKES[10:],
        "test_labels": LABELS[10:],
    }
    two = task(file("two.npz", **keys))
    assert [two.size(split) for split in ("train", "validation", "test")] == [9, 1, 10]
    three = {**keys, "validation_inputs": SPIKES[:2], "validation_labels": LABELS[:2]}
    path = file("three.npz", **three)
    of = task(path)
    assert (of.word, of.size("train"), of.size("validation")) == (path, 10, 2)
    np.testing.assert_array_equal(of.batch("test", 0, 10)[0], SPIKES[10:])
    assert "divided already" in refused(f"{path}:split=0.9,0.1")


@pytest.mark.parametrize(
    ("split", "line"),
    [
        ("0.5,0.5", "2 shares, expected 3 from 0 to 1 (train, validation, test)"),
        ("0.5,0.1,0.1", "the shares add up to 0.7, not to 1"),
        ("1.5,0,-0.5", "expected 3 from 0 to 1"),
        ("a,b,c", "'a,b,c' is not a list of numbers"),
    ],
)
def test_shares_that_are_none(file, split, line):
    assert line in refused(f"{file(**DENSE)}:split={split}")


def test_asking_for_more_than_there_is_says_both_numbers(file):
    of = task(f"{file(**DENSE)}:{ALL}")
    with pytest.raises(InputError, match="21 samples of the split test were asked for, it has 20"):
        of.batch("test", 1, 20)
    with pytest.raises(
        InputError, match="1 samples of the split train were asked for, it has 0; use another"
    ):
        of.batch("train", 0, 1)
    with pytest.raises(InputError, match="'tests' is not one of"):
        of.size("tests")


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"inputs": SPIKES}, "labels: is missing"),
        ({"labels": LABELS}, "times: is missing"),
        ({"x": SPIKES, "y": LABELS}, "holds no samples; its keys: x, y; give inputs and labels"),
        (DENSE | {"labels": LABELS[:7]}, "holds 20 inputs and 7 labels"),
        (DENSE | {"inputs": SPIKES[0]}, "have shape (30, 5), expected (samples, steps, channels)"),
        (DENSE | {"inputs": SPIKES[:, None]}, "have shape (20, 1, 30, 5)"),
        ({"inputs": SPIKES[:0], "labels": LABELS[:0]}, "holds no samples"),
        (DENSE | {"inputs": SPIKES[:, :0]}, "are empty, shape (20, 0, 5)"),
        (DENSE | {"inputs": SPIKES * 0.37}, "holds the value 0.37, inputs are whole"),
        (DENSE | {"inputs": np.where(SPIKES, np.nan, 0)}, "holds the value nan"),
        (DENSE | {"inputs": SPIKES.astype(int) << 25}, "which takes 26 bits"),
        (DENSE | {"inputs": SPIKES.astype(complex)}, "has type complex128, expected numbers"),
        (DENSE | {"inputs": SPIKES.astype("U1")}, "has type <U1, expected numbers"),
        (DENSE | {"labels": LABELS - 1}, "is -1, outside 0 to 65535"),
        (DENSE | {"labels": LABELS + 0.5}, "not a whole number"),
        (DENSE | {"labels": np.zeros((20, 4))}, "labels: row 0: is not one-hot"),
        (DENSE | {"labels": np.zeros((20, 4, 2))}, "labels: have shape (20, 4, 2)"),
        (DENSE | {"labels": LABELS > 2}, "have type bool"),
        (DENSE | {"lengths": LABELS + 40}, "lengths: are not 20 whole numbers from 0 to 30"),
        (DENSE | {"train_inputs": SPIKES}, "both with and without a split"),
        ({"times": STEP, "units": UNIT, "labels": LABELS}, "holds"),
        (EVENTS | {"units": UNIT[:-1]}, "give one of each an event"),
        (EVENTS | {"labels": LABELS[:9]}, "is outside 0 to 8; there are 9 labels"),
        (EVENTS | {"times": STEP - 1.0}, "has an event at -1.0; times count"),
        (EVENTS | {"units": UNIT - 1}, "has an event of unit -1"),
        (EVENTS | {"units": UNIT + 0.5}, "has an event of unit"),
        (EVENTS | {"times": STEP * np.nan}, "times: hold something that is not a"),
        (EVENTS | {"sample": SAMPLE + 0.0}, "sample: has type float64"),
        (EVENTS | {"times": STEP[:0], "units": UNIT[:0], "sample": SAMPLE[:0]}, "holds no event"),
        (EVENTS | {"times": STEP * 1e9}, "check unit, or raise dt_ms"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_samples(file, arrays, line):
    assert line in refused(f"{file(**arrays)}:{ALL}", read=True)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("unit=h", "unit: 'h' is not one of s, ms, us"),
        ("several=two", "several: 'two' is not one of one, count"),
        ("dt_ms=0", "dt_ms: 0.0 is not the length of a step"),
        ("steps=-1", "steps: -1 is negative"),
        ("channels=3", "outside 0 to 2"),
        ("classes=-2", "classes: -2 is outside 1 to 65536"),
        ("classes=2", "outside 0 to 1; raise classes"),
        ("payload_bits=3", "payload_bits is not one of its options"),
        ("test=nowhere.npz", "nowhere.npz: does not exist"),
        ("test=x.txt", "x.txt: ends in '.txt'; give one of: .npz, .h5, .hdf5"),
    ],
)
def test_options_that_do_not_fit(file, options, line):
    path = file(**EVENTS)
    assert line in refused(f"{path}:{ALL if 'test=' not in options else 'cut=true'},{options}", read=True)


def test_no_pickle_is_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    np.savez(tmp_path / "trap.npz", inputs=np.array([Trap()], object), labels=np.zeros(1, int))
    assert "inputs: holds Python objects, which are never opened" in refused(str(tmp_path / "trap.npz"))
    assert not (tmp_path / "ran").exists()


SHAPE = b"{'descr': '<i8', 'fortran_order': False, 'shape': %s}\n"


def member(header: bytes, data: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "labels: cannot be read"),
        (b"\x93NUMPY\x07\x00", "is in version (7, 0) of NumPy's format"),
        (member(SHAPE % b"(2,)", b"12345678"), "has 8 bytes, its shape (2,)"),
        (member(SHAPE % b"(-1,)", b""), "has shape (-1,)"),
        (member(b"{'descr': '<i8', 'shape': (1,)}\n", b"12345678"), "has a damaged header"),
        (member(b"(" * 5000, b""), "has a damaged header"),
        (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"x"), "holds Python objects"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_are_checked(tmp_path, content, line, packed):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packed) as out:
        out.writestr("labels.npy", content)
    assert line in refused(str(tmp_path / "x.npz"))


def test_what_is_packed_takes_its_own_size_and_no_more(tmp_path):
    size = 32 << 20
    np.savez_compressed(tmp_path / "x.npz", inputs=np.ones((size // 1024, 1024), np.uint8))
    tracemalloc.start()
    array = npz.Npz(tmp_path / "x.npz").array("inputs")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.all() and not array.flags.writeable
    assert size <= peak < 1.2 * size
    # All of a file, and what sorting its events takes, is to stay under 1 GiB.
    assert npz.MAX_BYTES <= 1 << 28


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_BYTES", 1 << 20)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4000, 4000)}\n"
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("inputs.npy", member(header, bytes(64_000_000)))
        labels = io.BytesIO()
        np.save(labels, np.arange(4))
        out.writestr("labels.npy", labels.getvalue())
    tracemalloc.start()
    line = refused(str(tmp_path / "bomb.npz"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "inputs: takes the file beyond 1048576 bytes unpacked" in line and peak < 1 << 22
    monkeypatch.setattr(npz, "MAX_ENTRIES", 1)
    assert "says it has 2 entries, more than 1" in refused(str(tmp_path / "bomb.npz"))


def test_a_mapped_file_is_read_in_parts(tmp_path):
    inputs = np.zeros((64, 1000, 1000), np.uint8)
    inputs[:, 3, 4] = 1
    np.savez(tmp_path / "large.npz", inputs=inputs, labels=np.arange(64) % 2)
    del inputs
    tracemalloc.start()
    of = task(f"{tmp_path / 'large.npz'}:payload_bits=0,{ALL}")
    x, _ = of.batch("test", 60, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.sum() == 2 and peak < 1 << 23


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_cut_files_are_refused(file, tmp_path, cut):
    whole = Path(file(**DENSE)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-cut])
    assert "is not a .npz file, or is cut off" in refused(str(tmp_path / "cut.npz"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_are_one_line_or_read(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("damage")
    np.savez(folder / "a.npz", inputs=SPIKES, labels=LABELS)
    content = bytearray((folder / "a.npz").read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    (folder / "a.npz").write_bytes(content)
    try:
        of = task(f"{folder / 'a.npz'}:{ALL}")
        of.batch("test", 0, of.size("test"))
    except InputError as error:
        assert "\n" not in str(error)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("nothing of the kind, but long enough for a directory")
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "none.npz")
    for name, line in (("empty", "is empty"), ("text", "is not a .npz file"), ("folder", "is a directory"),
                       ("missing", "does not exist"), ("none", "holds no samples; its keys")):  # fmt: skip
        assert line in refused(str(tmp_path / f"{name}.npz")), name
    with h5py.File(tmp_path / "net.h5", "w") as out:
        out.create_group("layer")
    assert "is a network, not samples" in refused(str(tmp_path / "net.h5"))
    with h5py.File(tmp_path / "flat.h5", "w") as out:
        out["spikes/times"], out["spikes/units"], out["labels"] = np.zeros(3), np.zeros(3), np.zeros(3)
    assert "spikes/times: has shape (3,), expected a list of rows" in refused(str(tmp_path / "flat.h5"))
    path = write_hdf5(tmp_path / "short.h5", labels=LABELS[:4])
    assert "holds 20 rows of times, 20 of units, 4 labels" in refused(path)
    with h5py.File(write_hdf5(tmp_path / "uneven.h5"), "r+") as out:
        out["spikes/units"][3] = []
    assert "times and 0 units" in refused(str(tmp_path / "uneven.h5"))
