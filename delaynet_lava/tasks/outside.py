"""Tasks that others made: data sets of the field through tonic, and a user's own class."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError, reason
from delaynet_lava.named_code import load_named
from delaynet_lava.tasks.base import SPLITS, Task, require_samples
from delaynet_lava.tasks.binning import COUNT_BITS, EVENT_OPTIONS, EventSource, scale_of, step_of
from delaynet_lava.tasks.series import PAYLOAD_BITS, bounds
from delaynet_lava.tasks.stored import Source, Stored, labels_of, parted
from delaynet_lava.tasks.words import join_word, read_options, text_of

__all__ = ["DATA_SETS", "Own", "own_task", "tonic_task"]

# ------------------------------------------------------------------ tonic

# Classes, and below ROOT/NAME what must be there for each split, with the arguments that ask for it.
_TWO = {"train": {"train": True}, "test": {"train": False}}
DATA_SETS: dict[str, tuple[int, dict[str, str], dict[str, dict[str, Any]]]] = {
    "NMNIST": (10, {"train": "Train", "test": "Test"}, _TWO),
    "SHD": (20, {"train": "shd_train.h5", "test": "shd_test.h5"}, _TWO),
    "SSC": (
        35,
        {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"},
        {"train": {"split": "train"}, "validation": {"split": "valid"}, "test": {"split": "test"}},
    ),
    "DVSGesture": (11, {"train": "ibmGestureTrain", "test": "ibmGestureTest"}, _TWO),
}
_OPTIONS = {"root": ".", **{k: v for k, v in EVENT_OPTIONS.items() if k not in ("unit", "channels")}}


def tonic_task(word: str, name: str, texts: Mapping[str, str]) -> Stored:
    """A data set that tonic reads, from files that are there; nothing is fetched.

    A channel is one of a sensor's pixels and polarities: ``x + width * (y + height * p)``.

    Raises:
        InputError: another data set, files that are missing or damaged, or tonic is not installed.
    """
    if name not in DATA_SETS:
        raise InputError(f"task {word}", f"{name!r} is not one of {', '.join(DATA_SETS)}")
    options = read_options(word, texts, {**_OPTIONS, "split": (0.0,)})
    classes, places, arguments = DATA_SETS[name]
    folder = Path(options["root"]).expanduser() / name
    there = {split: folder / place for split, place in places.items() if os.path.exists(folder / place)}
    if not there:
        raise InputError(
            f"task {word}",
            f"none of {', '.join(places.values())} is in {folder}",
            "name the folder that holds it with root=, as tonic left it",
        )
    events = {**options, "unit": "us", "channels": 0}
    sources: dict[str, Source] = {}
    names: Sequence[str] = ()
    for split in there:
        reader = _reader(name, options["root"], arguments[split], word)
        sources[split] = _source(reader, there[split], classes, events)
        names = [text.decode() if isinstance(text, bytes) else str(text) for text in reader.classes]
    asked = options["split"] if "split" in texts else ()
    parts, shares = parted(sources, asked, f"task {word}")
    kept = {key: texts[key] for key in texts if key != "split"} | (
        {"split": text_of(shares)} if shares else {}
    )
    return Stored(
        name, join_word(f"tonic:{name}", kept), parts, classes, names=names, dt_ms=options["dt_ms"],
        payload_bits=COUNT_BITS if options["several"] == "count" else 0,
    )  # fmt: skip


def _reader(name: str, root: str, arguments: dict[str, Any], word: str) -> Any:
    """tonic's data set, which does not ask for the archive it came in, nor fetches one."""
    try:
        import tonic.datasets
    except ImportError as error:
        raise InputError(
            f"task {word}",
            f"needs tonic, which cannot be imported ({error})",
            "pip install 'delaynet_lava[tonic]'",
        ) from error
    there = {"_check_exists": lambda self: True, "__module__": __name__}
    made = type(name, (getattr(tonic.datasets, name),), there)
    try:
        return made(str(Path(root).expanduser()), **arguments)
    except Exception as error:  # of any kind, from any of its readers
        raise InputError(f"task {word}", f"tonic cannot open it ({reason(error)})") from error


def _source(reader: Any, place: Path, classes: int, options: dict[str, Any]) -> EventSource:
    if place.is_dir():
        # Folders are listed in an order of their own; a sample's number must be the same everywhere.
        order = sorted(range(len(reader.data)), key=reader.data.__getitem__)
        raw = np.array(reader.targets, np.int64)[order]
    else:
        import h5py

        with h5py.File(place) as file:
            raw = file["labels"][()]
        order = list(range(len(raw)))
    where = str(place)
    if not order:
        raise InputError(where, "holds no samples")
    width, height = reader.sensor_size[:2]

    def events(index: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            found, _ = reader[order[index]]
            units = found["x"].astype(np.int64)
            if "y" in found.dtype.names:
                units = units + width * (found["y"].astype(np.int64) + height * found["p"].astype(np.int64))
            return found["t"], units
        except Exception as error:
            raise InputError(f"{where}: sample {index}", f"tonic cannot read it ({reason(error)})") from error

    scale = scale_of(options, where)
    steps = options["steps"]
    if not steps:
        for index in range(len(order)):
            times, _ = events(index)
            steps = max(steps, int(step_of(times, scale).max()) + 1 if len(times) else 0)
    extent = (steps, int(np.prod(reader.sensor_size)) if height > 1 else width)
    return EventSource(events, labels_of(raw, f"{where}: labels", classes), extent, options, where)


# ------------------------------------------------------------------ a user's own


def own_task(word: str, head: str, texts: Mapping[str, str], seed: int) -> Own:
    """A task of the user's own class or function, ``file.py:Name`` or ``package.module:Name``, which runs.

    Options are its arguments, with the types of their default values or annotations; one that is called
    ``seed`` is given the seed.

    Raises:
        InputError: the code is not there or fails, or what it makes is no task.
    """
    made = load_named(head, "task")
    if not callable(made):
        raise InputError(f"task {word}", f"is a {type(made).__name__}", "name a class or a function")
    usual, required = _arguments(made)
    values = read_options(word, texts, {k: v for k, v in usual.items() if k != "seed"})
    missing = [name for name in required if name not in texts and name != "seed"]
    if missing:
        raise InputError(f"task {word}", f"needs {', '.join(missing)}", f"write {head}:{missing[0]}=VALUE")
    given = {name: values[name] for name in texts} | ({"seed": seed} if "seed" in usual else {})
    try:
        inner = made(**given)
    except InputError:
        raise
    except Exception as error:  # a stranger to us: its code may raise anything
        raise InputError(f"task {word}", f"fails when it is made ({reason(error)})") from error
    return Own(inner, head.rpartition(":")[2], join_word(head, texts), seed if "seed" in usual else None)


def _arguments(made: Any) -> tuple[dict[str, Any], list[str]]:
    """Usual values of the arguments, and the names of those that have none."""
    zeros = {"int": 0, "float": 0.0, "bool": False, "str": ""}
    usual: dict[str, Any] = {}
    required = []
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return {}, []
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        annotation = getattr(one.annotation, "__name__", str(one.annotation))
        if one.default is one.empty:
            required.append(one.name)
        known = one.default is not one.empty and isinstance(one.default, (bool, int, float, str, tuple))
        usual[one.name] = one.default if known and one.default != () else zeros.get(annotation, "")
    return usual, required


class Own(Task):
    """Somebody's task, checked: as a whole at the beginning, and whatever it gives.

    Args:
        inner: the object. seed: that it was made with; None: it takes none.

    Raises:
        InputError: naming everything that keeps it from being a task.
    """

    def __init__(self, inner: Any, name: str, word: str, seed: int | None) -> None:
        self._inner, self.name, self.word, self.seed = inner, name, word, seed
        faults = self._attributes()
        for method in ("size", "batch"):
            if not callable(getattr(inner, method, None)):
                faults.append(f"has no method {method}")
        if faults:
            raise InputError(f"task {word}", "; ".join(faults), "docs/tasks.md says what a task has")
        sizes = {split: self.size(split) for split in SPLITS}
        full = [split for split, size in sizes.items() if size != 0]
        if not full:
            raise InputError(f"task {word}", "has no samples in any split")
        self.batch(full[0], 0, 1)

    def _attributes(self) -> list[str]:
        """Takes over the attributes; gives what is wrong with them."""
        faults = []
        wanted: dict[str, tuple[Any, Any, str]] = {
            "channels": (None, lambda v: _whole(v) and v >= 1, "a whole number from 1 on"),
            "steps": (None, lambda v: _whole(v) and v >= 1, "a whole number from 1 on"),
            "classes": (None, lambda v: v is None or (_whole(v) and v >= 1), "a whole number, or None"),
            "dt_ms": (1.0, lambda v: isinstance(v, (int, float)) and v > 0, "a length in ms"),
            "payload_bits": (0, lambda v: _whole(v) and 0 <= v <= PAYLOAD_BITS, f"0 to {PAYLOAD_BITS}"),
            "payload_signed": (False, lambda v: isinstance(v, bool), "True or False"),
        }
        for attribute, (usual, good, expected) in wanted.items():
            if not hasattr(self._inner, attribute):
                if attribute in ("channels", "steps", "classes"):
                    faults.append(f"has no attribute {attribute}")
                    continue
                value = usual
            else:
                value = getattr(self._inner, attribute)
                if not good(value):
                    faults.append(f"{attribute} is {value!r:.60}, expected {expected}")
                    continue
            setattr(self, attribute, value)
        return faults

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._inner, method)(*arguments)
        except InputError:
            raise
        except Exception as error:
            listed = ", ".join(map(repr, arguments))
            raise InputError(f"task {self.word}", f"{method}({listed}) fails ({reason(error)})") from error

    def size(self, split: str) -> int | None:
        """What it says."""
        super().size(split)
        size = self._call("size", split)
        if size is not None and not (_whole(size) and size >= 0):
            raise InputError(
                f"task {self.word}", f"size({split!r}) is {size!r:.60}, expected a number or None"
            )
        return size

    def batch(self, split: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What it gives, of the types of a task."""
        require_samples(self, split, first, count)
        where = f"task {self.word}: batch({split!r}, {first}, {count})"
        pair = self._call("batch", split, first, count)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(where, f"gives a {type(pair).__name__}, expected inputs and labels")
        x, y = (np.asarray(part) for part in pair)
        faults = []
        shape = (count, self.steps, self.channels)
        if x.shape != shape:
            faults.append(f"inputs have shape {x.shape}, expected {shape}")
        if x.dtype.kind not in "biu":
            faults.append(f"inputs have type {x.dtype}, expected whole numbers")
        elif x.size:
            low, high = bounds(self.payload_bits, self.payload_signed)
            if x.min() < low or x.max() > high:
                faults.append(f"inputs reach from {x.min()} to {x.max()}, expected {low} to {high}")
        if y.shape != (count,) or y.dtype.kind not in "iu":
            faults.append(f"labels are {y.dtype} {y.shape}, expected whole numbers ({count},)")
        elif self.classes is not None and count and not 0 <= y.min() <= y.max() < self.classes:
            faults.append(f"labels reach from {y.min()} to {y.max()}, expected 0 to {self.classes - 1}")
        if faults:
            raise InputError(where, "; ".join(faults))
        return x.astype(np.int32 if self.payload_bits else np.uint8), y.astype(np.int64)

    def _or(self, method: str, usual: Any, *arguments: Any) -> Any:
        return self._call(method, *arguments) if hasattr(self._inner, method) else usual

    def _wrapped(self, inner: Any) -> Own:
        return Own(inner, self.name, getattr(inner, "word", self.word), self.seed)

    def lengths(self, split: str, first: int, count: int) -> np.ndarray:
        """What it says, or all steps."""
        found = self._or("lengths", super().lengths(split, first, count), split, first, count)
        return np.asarray(found, np.int64)

    def curriculum(self) -> Sequence[Task]:
        """Its stages, or itself."""
        return [self._wrapped(one) for one in self._or("curriculum", [self._inner])]

    def easier(self) -> Task:
        """What it says, or itself."""
        return self._wrapped(self._or("easier", self._inner))

    def variations(self) -> Sequence[Task]:
        """What it says, or none."""
        return [self._wrapped(one) for one in self._or("variations", [])]

    def references(self) -> Mapping[str, float]:
        """What it says, or none."""
        return dict(self._or("references", {}))

    def describe(self, label: int) -> str:
        """What it says, or the number."""
        return str(self._or("describe", label, label))


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
