"""MNIST as tasks: files as people have them, what is wrong with some, pixels in the order they are sent."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava.errors import InputError
from delaynet_lava.formats.idx import MAX_BYTES, read_idx
from delaynet_lava.training.samples import pools


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        part: (
            rng.integers(0, 256, (count, 28, 28)).astype(np.uint8),
            rng.integers(0, 10, count).astype(np.uint8),
        )
        for part, count in (("train", 36), ("t10k", 12))
    }


def write(folder: Path, images: dict[str, tuple[np.ndarray, np.ndarray]], packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pack, ending = (gzip.compress, ".gz") if packed else (bytes, "")
    for part, (pixels, labels) in images.items():
        (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx(pixels)))
        (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [".", "MNIST/raw", "mnist"])
def test_files_are_found_where_people_have_them(tmp_path, images, packed, below) -> None:
    write(tmp_path / below, images, packed)
    task = delaynet_lava.task(f"smnist:root={tmp_path}")
    assert [task.size(split) for split in ("train", "validation", "test")] == [33, 3, 12]
    assert (task.channels, task.steps, task.classes, task.payload_bits) == (1, 784, 10, 8)
    for split, part, first in (("train", "train", 0), ("validation", "train", 33), ("test", "t10k", 0)):
        inputs, labels = task.batch(split, 1, 2)
        assert inputs.dtype == np.int32
        assert np.array_equal(inputs[:, :, 0], images[part][0][first + 1 : first + 3].reshape(2, 784))
        assert np.array_equal(labels, images[part][1][first + 1 : first + 3])
    assert delaynet_lava.task(task.word).word == task.word


def test_the_environment_names_the_folder(tmp_path, images, monkeypatch) -> None:
    write(tmp_path / "FashionMNIST" / "raw", images)
    monkeypatch.setenv("DELAYNET_DATA", str(tmp_path))
    task = delaynet_lava.task("fashion:coding=direct,length=3,blank=1,bits=4")
    inputs, labels = task.batch("test", 0, 12)
    assert task.word == "fashion:coding=direct,length=3,blank=1,bits=4" and task.payload_bits == 4
    assert not inputs[:, 0].any()
    for step in (1, 2, 3):
        assert np.array_equal(inputs[:, step], images["t10k"][0].reshape(12, 784) >> 4)
    assert [task.describe(k) for k in (0, 9)] == ["T-shirt", "ankle boot"]
    assert np.array_equal(labels, images["t10k"][1])


def test_the_published_order_is_the_default(tmp_path, images) -> None:
    write(tmp_path, images)
    row_by_row = delaynet_lava.task(f"smnist:root={tmp_path}").batch("test", 0, 5)[0]
    permuted = delaynet_lava.task(f"psmnist:root={tmp_path}")
    assert permuted.word == f"psmnist:root={tmp_path}"
    digest = hashlib.sha256(permuted.order.astype("<i8").tobytes()).hexdigest()
    assert digest == "270deb57c4870003ce4534865b0f04e317928a27ad60fbb85f672e2b3b340d86"
    assert np.array_equal(permuted.batch("test", 0, 5)[0], row_by_row[:, permuted.order])
    other = delaynet_lava.task(f"psmnist:root={tmp_path},permutation=1")
    assert not np.array_equal(other.order, permuted.order)
    assert sorted(other.order) == list(range(784))
    coarse = delaynet_lava.task(f"psmnist:root={tmp_path},bits=5")
    assert np.array_equal(coarse.batch("test", 0, 5)[0], permuted.batch("test", 0, 5)[0] >> 3)
    shallow = delaynet_lava.task(f"psmnist:root={tmp_path},bits=5,depth=2")
    assert shallow.word.endswith("bits=5,depth=2") and shallow.payload_bits == 5
    assert np.array_equal(shallow.batch("test", 0, 5)[0], coarse.batch("test", 0, 5)[0] & 0b11000)
    at_once = delaynet_lava.task(f"mnist:root={tmp_path},coding=direct,length=1,bits=5,depth=2")
    assert np.array_equal(
        at_once.batch("test", 0, 5)[0][:, 0, shallow.order], shallow.batch("test", 0, 5)[0][..., 0]
    )


def test_rates_follow_the_pixels_and_samples_their_seed(tmp_path, images) -> None:
    write(tmp_path, images)
    word = f"mnist:root={tmp_path},length=2000,blank=5"
    task = delaynet_lava.task(word, seed=3)
    inputs, _ = task.batch("test", 2, 2)
    assert inputs.dtype == np.uint8 and inputs.shape == (2, 2005, 784) and not inputs[:, :5].any()
    expected = 0.25 * images["t10k"][0][2:4].reshape(2, 784) / 255
    assert np.abs(inputs[:, 5:].mean(1) - expected).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)
    assert np.array_equal(task.batch("test", 3, 1)[0][0], inputs[1])
    assert not np.array_equal(delaynet_lava.task(word, seed=4).batch("test", 2, 2)[0], inputs)


def test_a_training_sees_other_spikes_of_an_image_each_time(tmp_path, images) -> None:
    write(tmp_path, images)
    task = delaynet_lava.task(f"mnist:root={tmp_path},length=50", seed=3)
    pool, _ = pools(task, seed=0, held_out=0.1)
    size = pool.size
    walks = [pool.ordered(0, size * walk, size) for walk in range(3)]
    again = pool.ordered(0, 0, 3 * size)
    assert np.array_equal(again[0], np.concatenate([inputs for inputs, _ in walks]))
    spikes = [np.sort(inputs.reshape(size, -1).sum(1)) for inputs, _ in walks]
    assert not np.array_equal(spikes[0], spikes[1]) and not np.array_equal(spikes[1], spikes[2])
    np.testing.assert_array_equal(*(np.sort(labels) for _, labels in walks[:2]))
    # The first walk, and whoever does not train, see the task as it is.
    assert task.renewed(0) is task
    assert np.array_equal(np.sort(pool.first(0, size)[0].sum((1, 2))), spikes[0])
    for stored in (f"mnist:root={tmp_path},coding=direct", f"smnist:root={tmp_path}"):
        one = delaynet_lava.task(stored)
        assert one.renewed(2) is one


def test_images_that_train_are_moved_anew_each_time(tmp_path, images) -> None:
    write(tmp_path, images)
    words = [f"{name}:root={tmp_path},shift=2" for name in ("smnist", "psmnist")]
    for word in (*words, f"mnist:root={tmp_path},coding=direct,length=1,shift=2"):
        moving = delaynet_lava.task(word, seed=1)
        still = delaynet_lava.task(word.replace(",shift=2", ""))
        assert moving.word == word and moving.seed == 1 and still.seed is None
        for split in ("validation", "test"):
            assert np.array_equal(moving.batch(split, 0, 3)[0], still.batch(split, 0, 3)[0])
    size = moving.size("train")
    frames = [moving.renewed(walk).batch("train", 0, size)[0].reshape(size, 28, 28) for walk in range(3)]
    assert np.array_equal(moving.batch("train", 4, 1)[0].reshape(28, 28), frames[0][4])
    seen = set()
    for k, image in enumerate(images["train"][0][:size]):
        wide = np.pad(image, 2)
        for frame in frames:
            places = [
                (row, column)
                for row in range(5)
                for column in range(5)
                if np.array_equal(wide[row : row + 28, column : column + 28], frame[k])
            ]
            assert len(places) == 1
            seen.update(places)
    assert len(seen) > 20


def mixed(x: int) -> int:
    """SplitMix64, in Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def drawn(pixels: np.ndarray, seeds: tuple[int, ...], number: int, steps: int) -> np.ndarray:
    """Spikes (steps, pixels) of an image, one pixel and one step after the other."""
    step = 0x9E3779B97F4A7C15
    key = mixed(number + step)
    for seed in seeds:
        key = mixed((key + seed + step) % 2**64)
    spikes = np.zeros((steps, len(pixels)), np.uint8)
    for t in range(steps):
        for j, pixel in enumerate(pixels):
            chance = round(0.25 / 255 * 2**24 * int(pixel))
            spikes[t, j] = mixed((key + (t * len(pixels) + j) * step) % 2**64) >> 40 < chance
    return spikes


def test_spikes_are_those_of_the_plain_generator(tmp_path, images) -> None:
    write(tmp_path, images)
    task = delaynet_lava.task(f"mnist:root={tmp_path},length=7", seed=3)
    got, _ = task.renewed(5).batch("test", 2, 3)
    pixels = images["t10k"][0].reshape(12, 784)
    for k in range(3):
        np.testing.assert_array_equal(got[k], drawn(pixels[2 + k], (3, 2, 5), 2 + k, 7))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t10k-images-idx3-ubyte", None, "is not in"),
        ("t10k-images-idx3-ubyte", b"", "0 bytes"),
        ("t10k-images-idx3-ubyte", bytes((0, 0, 8)), "its header alone"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((12, 28, 28), np.uint8))[:-1], "its extents"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((12, 28, 28), np.uint8)) + b"\0", "its extents"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((12, 14, 56), np.uint8)), "expected (28, 28)"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((11, 28, 28), np.uint8)), "12 labels"),
        ("t10k-images-idx3-ubyte", idx(np.zeros(12, np.uint8)) + bytes(16), "begins with 00000801"),
        ("t10k-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "begins with 00000d03"),
        ("t10k-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "its extents"),
        ("t10k-images-idx3-ubyte", gzip.compress(bytes(1000), mtime=0)[:-9], "damaged gzip"),
        ("t10k-images-idx3-ubyte", gzip.compress(bytes(MAX_BYTES + 1), mtime=0), "unpacks to more"),
        ("t10k-labels-idx1-ubyte", idx(np.full(12, 10, np.uint8)), "largest label is 10"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(0, np.uint8)), "0 labels"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_they_should_be_get_one_line(tmp_path, images, name, content, said) -> None:
    write(tmp_path, images)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    task = delaynet_lava.task(f"smnist:root={tmp_path}")
    assert task.size("train") == 33
    with pytest.raises(InputError) as error:
        task.batch("test", 0, 1)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "word",
    ["mnist:shift=28", "psmnist:shift=-1", "psmnist:bits=5,depth=6", "mnist:depth=-1",
     "smnist:bits=0", "smnist:bits=9", "psmnist:permutation=-2", "mnist:coding=phase", "mnist:length=0",
     "mnist:blank=-1", "mnist:gain=0", "mnist:gain=1.5", "smnist:permutation=1", "fashion:bits=x"],
)  # fmt: skip
def test_options_that_nothing_can_have_are_refused(word) -> None:
    with pytest.raises(InputError, match="task"):
        delaynet_lava.task(word)


def test_more_than_there_is_is_refused_with_both_numbers(tmp_path, images) -> None:
    write(tmp_path, images)
    with pytest.raises(InputError, match=r"13 samples .* it has 12"):
        delaynet_lava.task(f"smnist:root={tmp_path}").batch("test", 0, 13)
    with pytest.raises(InputError, match="exam"):
        delaynet_lava.task(f"smnist:root={tmp_path}").size("exam")


def test_an_idx_array_cannot_be_written_to(tmp_path) -> None:
    (tmp_path / "a").write_bytes(idx(np.arange(6, dtype=np.uint8).reshape(2, 3)))
    array = read_idx(tmp_path / "a", 2)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]] and not array.flags.writeable


@pytest.mark.slow
def test_the_real_images_come_from_a_package_and_are_the_published_ones() -> None:
    from mnist_files import mnist_folder

    task = delaynet_lava.task(f"psmnist:root={mnist_folder()}")
    assert [task.size(split) for split in ("train", "validation", "test")] == [55000, 5000, 10000]
    # The first digits of the training set and of the test's, as everybody knows them.
    assert task.batch("train", 0, 5)[1].tolist() == [5, 0, 4, 1, 9]
    inputs, labels = task.batch("test", 0, 4)
    assert labels.tolist() == [7, 2, 1, 0]
    assert 0.1 < float((inputs > 0).mean()) < 0.25
