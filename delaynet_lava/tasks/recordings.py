"""Samples from NIRData: what a node of a graph sent, gridded or as events, with labels beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.formats import nir_data
from delaynet_lava.formats.nir_data import Events, Gridded, NirData
from delaynet_lava.formats.npz import Npz
from delaynet_lava.tasks.binning import COUNT_BITS, EVENT_OPTIONS, UNITS_MS, EventSource, step_of
from delaynet_lava.tasks.series import DenseSource, payload_of
from delaynet_lava.tasks.stored import MAX_CLASSES, Source, Stored, labels_of, parted
from delaynet_lava.tasks.words import join_word, read_options, text_of

__all__ = ["nir_task"]

_USUAL: dict[str, Any] = {
    "node": "",
    "observable": "",
    "labels": "",
    "unit": "s",
    "classes": 0,
    "split": (0.0,),
}
_OF_EVENTS = {"dt_ms": 1.0, "several": "one", "cut": False}


def nir_task(word: str, path: str, texts: Mapping[str, str]) -> Stored:
    """The task of a NIRData file; without labels it has no classes, and can be run but not judged.

    Args:
        word: whole, for errors. path: its head. texts: its options.

    Raises:
        InputError: naming file, node and what is wrong.
    """
    data = nir_data.read(path)
    options = read_options(word, texts, {**_USUAL, **_OF_EVENTS})
    if options["unit"] not in UNITS_MS:
        raise InputError(f"task {word}", f"unit: {options['unit']!r} is not one of {', '.join(UNITS_MS)}")
    node, observable = _chosen(data, options)
    where = f"{path}: node {node[:60]!r}: {observable[:60]!r}"
    found = data.get(node, observable)
    if isinstance(found, Gridded):
        given = sorted(set(texts) & set(_OF_EVENTS))
        if given:
            raise InputError(
                f"task {word}", f"{given[0]}: {where} is gridded, it has steps of its own", "leave it out"
            )
        count, dt_ms = len(found.data), found.dt * UNITS_MS[options["unit"]]
        payload = payload_of(found.data, where)
    else:
        count, dt_ms, payload = len(found.idx), options["dt_ms"], (0, False)
    labels = _labels(data, options, count)
    source: Source
    if isinstance(found, Gridded):
        source = DenseSource(found.data, labels[0], None, payload, where)
    else:
        source = _events(found, labels[0], options, where)
        payload = (COUNT_BITS, False) if options["several"] == "count" else payload
    parts, shares = parted({"": source}, options["split"] if "split" in texts else (), f"task {word}")
    kept = {name: texts[name] for name in texts if name != "split"} | {"split": text_of(shares)}
    return Stored(
        os.path.basename(path), join_word(path, kept), parts, labels[1],
        dt_ms=dt_ms, payload_bits=payload[0], payload_signed=payload[1],
    )  # fmt: skip


def _chosen(data: NirData, options: Mapping[str, Any]) -> tuple[str, str]:
    """The node and observable that are meant: as named, else the only ones, else the spikes of the input."""
    node, observable = options["node"], options["observable"]
    if not node:
        if len(data.names) != 1 and "input" not in data.names:
            known = ", ".join(list(data.names)[:12])
            raise InputError(data.where, f"holds data of {len(data.names)} nodes, none of them called input",
                             f"say node=, one of: {known}")  # fmt: skip
        node = "input" if "input" in data.names else next(iter(data.names))
    if not observable:
        names = data.names.get(node, ())
        if len(names) > 1 and "spikes" not in names:
            raise InputError(
                data.where,
                f"holds {len(names)} observables of {node[:60]!r}, none of them called spikes",
                f"say observable=, one of: {', '.join(names[:12])}",
            )
        observable = names[0] if len(names) == 1 else "spikes"
    return node, observable


def _labels(data: NirData, options: Mapping[str, Any], count: int) -> tuple[np.ndarray, int | None]:
    """Labels and the number of classes; without labels zeros and None."""
    raw, where = data.labels, f"{data.where}: labels"
    if options["labels"]:
        where, file = f"{options['labels']}: labels", Npz(options["labels"])
        if "labels" not in file.keys:
            raise InputError(where, "is missing", f"it has: {', '.join(sorted(file.keys)[:12])}")
        raw = file.array("labels")
    if not 0 <= options["classes"] <= MAX_CLASSES:
        raise InputError(data.where, f"classes: {options['classes']} is outside 1 to {MAX_CLASSES}")
    if raw is None:
        return np.zeros(count, np.int64), None
    labels = labels_of(raw, where, options["classes"])
    if len(labels) != count:
        raise InputError(where, f"are {len(labels)}, but there are {count} samples", "give one a sample")
    return labels, options["classes"] or 1 + int(labels.max())


def _events(found: Events, labels: np.ndarray, options: Mapping[str, Any], where: str) -> EventSource:
    """Rows of events up to their padding; the extent is that of the recording."""
    if not 0 < options["dt_ms"] < 1e6:
        raise InputError(where, f"dt_ms: {options['dt_ms']} is not the length of a step")
    scale = UNITS_MS[options["unit"]] / options["dt_ms"]
    # A recording that lasts a whole number of steps has so many; what is left of one counts as one.
    steps = int(-step_of(np.array(-found.t_max), scale))
    used = found.idx != -1

    def events(index: int) -> tuple[np.ndarray, np.ndarray]:
        return found.time[index][used[index]], found.idx[index][used[index]]

    usual = {**EVENT_OPTIONS, **{name: options[name] for name in (*_OF_EVENTS, "unit")}}
    return EventSource(events, labels, (steps, found.neurons), usual, where)
