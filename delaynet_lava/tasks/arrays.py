"""Samples from a file: ``.npz`` with dense arrays or events, HDF5 with events as SHD and SSC have them.

docs/tasks.md says what each file holds. What is read is decided by its keys:

- ``inputs``, ``labels``, and where samples differ in length ``lengths``: dense;
- ``times``, ``units``, ``sample``, ``labels``: events, in a ``.npz`` one after the other;
- ``spikes/times``, ``spikes/units``, ``labels``: events of an HDF5 file, a row a sample.

A ``.nir`` goes to :mod:`delaynet_lava.tasks.recordings`.

In a ``.npz`` all keys may begin with ``train_``, ``validation_`` or ``test_``: the file divides itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats.npz import Npz
from delaynet_lava.formats.untrusted_hdf5 import open_untrusted
from delaynet_lava.tasks.base import SPLITS
from delaynet_lava.tasks.binning import COUNT_BITS, EVENT_OPTIONS, EventSource, scale_of, step_of
from delaynet_lava.tasks.recordings import nir_task
from delaynet_lava.tasks.series import PAYLOAD_BITS, DenseSource, payload_of
from delaynet_lava.tasks.stored import MAX_CLASSES, Source, Stored, labels_of, parted
from delaynet_lava.tasks.words import join_word, read_options, text_of

__all__ = ["ENDINGS", "file_task"]

_DENSE = {"dt_ms": 1.0, "payload_bits": 0, "payload_signed": False}
_COMMON = {"classes": 0, "test": "", "validation": "", "split": (0.0,)}
_LOOK = 1 << 20  # events looked at together

# How to get the arrays of one set of samples, by the name of each.
_Get = Callable[[str], Any]
# Arrays, where they come from, and their names, by split; "" for what is to be divided.
_Sets = dict[str, tuple[_Get, str, frozenset[str]]]


def _prefixed(file: Npz, prefix: str, name: str) -> np.ndarray:
    return file.array(prefix + name)


def _npz(path: str) -> _Sets:
    file = Npz(path)
    found: _Sets = {}
    for split in ("", *SPLITS):
        prefix = f"{split}_" if split else ""
        names = frozenset(key[len(prefix) :] for key in file.keys if key.startswith(prefix))
        if "labels" in names or "inputs" in names or "times" in names:
            found[split] = partial(_prefixed, file, prefix), f"{path}: {prefix}", names
    if "" in found and len(found) > 1:
        raise InputError(path, "holds samples both with and without a split before their keys", "choose one")
    if not found:
        raise InputError(
            path,
            f"holds no samples; its keys: {', '.join(sorted(file.keys)[:12]) or 'none'}",
            "give inputs and labels, or times, units, sample and labels",
        )
    return found


def _hdf5(path: str) -> _Sets:
    root = open_untrusted(path)
    if "spikes" not in root.keys or not root.is_group("spikes"):
        what = "is a network, not samples" if "layer" in root.keys else "has no group spikes"
        raise InputError(path, what, "give spikes/times, spikes/units and labels, as SHD has them")
    spikes = root.group("spikes")

    def get(name: str) -> Any:
        return root.array("labels") if name == "labels" else spikes.rows(name)

    return {"": (get, f"{path}: ", spikes.keys | root.keys)}


# A new kind of file that holds sets of arrays is a line here.
_READERS: dict[str, Callable[[str], _Sets]] = {".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5}
ENDINGS = (*_READERS, ".nir")
"""Endings of the files that are read."""


def file_task(word: str, path: str, texts: Mapping[str, str]) -> Stored:
    """The task of a file.

    Args:
        word: whole, for errors. path: its head. texts: its options.

    Raises:
        InputError: naming file, key and sample at fault.
    """
    if path.lower().endswith(".nir"):
        return nir_task(word, path, texts)
    sets = _open(path)
    dense = all("inputs" in names for _, _, names in sets.values())
    usual = _DENSE if dense else {**EVENT_OPTIONS, "unit": "ms" if path.endswith(".npz") else "s"}
    options = read_options(word, texts, {**usual, **_COMMON})
    if not 0 <= options["classes"] <= MAX_CLASSES:
        raise InputError(f"task {word}", f"classes: {options['classes']} is outside 1 to {MAX_CLASSES}")
    for split in ("test", "validation"):
        if options[split]:
            more = _open(options[split])
            if split in sets or list(more) != [""]:
                raise InputError(f"task {word}", f"{split}: both files divide themselves", "name one")
            sets[split] = more[""]
    if "" in sets and len(sets) > 1:
        sets["train"] = sets.pop("")
    labels = {split: _labels(one, options["classes"]) for split, one in sets.items()}
    classes = options["classes"] or 1 + max(int(some.max()) for some in labels.values())
    payload = (0, False)
    if dense:
        payload = _payload(sets, options, texts, word)
    elif options["several"] == "count":
        payload = (COUNT_BITS, False)
    sources: dict[str, Source] = {}
    for split, (get, where, names) in sets.items():
        where = where.removesuffix(": ").removesuffix("_")
        if dense:
            lengths = np.asarray(get("lengths")) if "lengths" in names else None
            sources[split] = DenseSource(get("inputs"), labels[split], lengths, payload, where)
        else:
            sources[split] = _events(get, labels[split], options, where, ragged="sample" not in names)
    asked = options["split"] if "split" in texts else ()
    parts, shares = parted(sources, asked, f"task {word}")
    kept = {name: texts[name] for name in texts if name != "split"}
    kept |= {"split": text_of(shares)} if shares else {}
    return Stored(
        os.path.basename(path), join_word(path, kept), parts, classes,
        dt_ms=options["dt_ms"], payload_bits=payload[0], payload_signed=payload[1],
    )  # fmt: skip


def _open(path: str) -> _Sets:
    ending = os.path.splitext(path)[1].lower()
    if ending not in _READERS:
        raise InputError(path, f"ends in {ending!r}", f"give one of: {', '.join(_READERS)}")
    return _READERS[ending](path)


def _labels(one: tuple[_Get, str, frozenset[str]], classes: int) -> np.ndarray:
    get, where, names = one
    if "labels" not in names:
        raise InputError(f"{where}labels", "is missing", f"it has: {', '.join(sorted(names)[:12])}")
    labels = labels_of(get("labels"), f"{where}labels", classes)
    if not len(labels):
        raise InputError(where.removesuffix(": "), "holds no samples")
    return labels


def _payload(sets: _Sets, options: dict, texts: Mapping[str, str], word: str) -> tuple[int, bool]:
    if "payload_bits" in texts:
        if not 0 <= options["payload_bits"] <= PAYLOAD_BITS:
            raise InputError(
                f"task {word}", f"payload_bits: {options['payload_bits']} is outside 0 to {PAYLOAD_BITS}"
            )
        return options["payload_bits"], options["payload_signed"]
    found = [payload_of(get("inputs"), where.removesuffix(": ")) for get, where, _ in sets.values()]
    signed = any(sign for _, sign in found)
    # A sign that another part needs is a bit more for one that has none.
    bits = max(bits + (signed and not sign and bits > 0) for bits, sign in found)
    return (max(bits, 2) if signed else bits), signed


def _events(get: _Get, labels: np.ndarray, options: dict, where: str, ragged: bool) -> EventSource:
    scale = scale_of(options, where)
    times, units = get("times"), get("units")
    if ragged:
        if len(times) != len(labels) or len(units) != len(labels):
            raise InputError(
                where, f"holds {len(times)} rows of times, {len(units)} of units, {len(labels)} labels"
            )
        rows = ((times[k], units[k]) for k in range(len(labels)))
        extent = _extent(rows, scale, where)
        return EventSource(lambda k: (times[k], units[k]), labels, extent, options, where)
    sample = get("sample")
    if not (times.ndim == units.ndim == sample.ndim == 1 and len(times) == len(units) == len(sample)):
        shapes = f"{times.shape}, {units.shape} and {sample.shape}"
        raise InputError(where, f"times, units and sample have shapes {shapes}", "give one of each an event")
    order, starts = _by_sample(sample, len(labels), where)
    parts = range(0, len(times), _LOOK)
    extent = _extent(((times[k : k + _LOOK], units[k : k + _LOOK]) for k in parts), scale, where)

    def events(index: int) -> tuple[np.ndarray, np.ndarray]:
        mine = slice(starts[index], starts[index + 1])
        chosen: Any = mine if order is None else order[mine]
        return times[chosen], units[chosen]

    return EventSource(events, labels, extent, options, where)


def _by_sample(sample: np.ndarray, count: int, where: str) -> tuple[np.ndarray | None, np.ndarray]:
    """An order in which the events of a sample follow each other (None: theirs), and where each begins."""
    if sample.dtype.kind not in "iu":
        raise InputError(f"{where}: sample", f"has type {sample.dtype}, expected whole numbers")
    ordered, last = True, 0
    for k in range(0, len(sample), _LOOK):
        part = np.asarray(sample[k : k + _LOOK])
        if part.min() < 0 or part.max() >= count:
            bad = part[(part < 0) | (part >= count)][0]
            raise InputError(
                f"{where}: sample", f"{bad} is outside 0 to {count - 1}", f"there are {count} labels"
            )
        ordered = ordered and int(part[0]) >= last and bool(np.all(part[1:] >= part[:-1]))
        last = int(part[-1])
    order = None if ordered else np.argsort(sample, kind="stable")
    in_order = sample if order is None else sample[order]
    return order, np.searchsorted(in_order, np.arange(count + 1))


def _extent(parts: Any, scale: float, where: str) -> tuple[int, int]:
    """Steps and channels that all events need."""
    steps = channels = 0
    for times, units in parts:
        if len(times) != len(units):
            raise InputError(where, f"has a sample with {len(times)} times and {len(units)} units")
        if len(times):
            for name, values in (("times", times), ("units", units)):
                if np.asarray(values).dtype.kind not in "iuf" or not np.isfinite(values).all():
                    raise InputError(f"{where}: {name}", "hold something that is not a number")
            steps = max(steps, int(step_of(times, scale).max()) + 1)
            channels = max(channels, int(np.max(units)) + 1)
    return steps, channels
