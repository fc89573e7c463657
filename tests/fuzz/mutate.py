"""Damage to bytes, and to trees of plain values."""

from __future__ import annotations

import copy
import io
import json
import math
import zipfile
from random import Random
from typing import Any

__all__ = ["STRANGE", "damage", "damaged_npz", "strange", "strange_json", "twist"]

STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    255,
    1 << 15,
    1 << 31,
    1 << 40,
    1 << 63,
    1 << 64,
    -(1 << 62),
    0.5,
    -0.0,
    1e-300,
    1e9,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "0",
    "a",
    "zero",
    "cue",
    "dense",
    "\x1b[2J\x1b]0;x\x07",
    "\u202eabc",
    "x" * 3000,
    "../../../etc/passwd",
    "/dev/zero",
    "os:system",
    "a\nb",
    "\x00",
    "\udcff",
    [],
    {},
    [[]],
    [0],
    [1, 2],
    ["a"],
    [None] * 50,
    {"a": 1},
    {"": {}},
    {"type": "Dense"},
    [[[[[[[[[]]]]]]]]],
]


def strange(rng: Random) -> Any:
    """A value that seldom belongs where it is put."""
    if rng.random() < 0.1:
        return rng.randrange(-(1 << 70), 1 << 70)
    if rng.random() < 0.1:
        return rng.uniform(-1e3, 1e3)
    return copy.deepcopy(rng.choice(STRANGE))


def _places(tree: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            found.append((tree, key))
            _places(tree[key], found)
    return found


def twist(tree: Any, rng: Random, value: Any = strange) -> Any:
    """Change a few places of a tree of dicts and lists, in place; ``value(rng)`` makes what is put there."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        places = _places(tree, [])
        if not places:
            return tree
        holder, key = rng.choice(places)
        action = rng.randrange(8)
        if action == 0:
            del holder[key]
        elif action == 1:
            other, name = rng.choice(places)
            holder[key] = copy.deepcopy(other[name])
        elif action == 2 and isinstance(holder, dict):
            holder[rng.choice(["x", "", "type", "\x1b[31m", "a" * 500, str(key) + " "])] = holder.pop(key)
        elif action == 3 and isinstance(holder, dict):
            holder[f"new-{rng.randrange(9)}"] = value(rng)
        elif action == 4 and type(holder[key]) in (int, float):
            holder[key] = holder[key] + rng.choice([-1, 1, 0.5, 1 << 31, -(1 << 31)])
        elif action == 5 and isinstance(holder, list):
            holder.extend([holder[key]] * rng.choice([1, 2, 100]))
        else:
            holder[key] = value(rng)
    return tree


def strange_json(tree: Any, rng: Random) -> bytes:
    """A twisted tree as JSON, at times damaged again as bytes."""
    text = json.dumps(twist(copy.deepcopy(tree), rng)).encode("utf-8", "surrogatepass")
    return damage(text, rng) if rng.random() < 0.3 else text


_BITS = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255]


def damage(data: bytes, rng: Random, base: bytes = b"") -> bytes:
    """A few bytes changed, moved, left out or put in; ``base`` is another file to take pieces from."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            break
        at = rng.randrange(len(out))
        action = rng.randrange(10)
        size = 1 << rng.randrange(8)
        if action <= 2:
            out[at] ^= 1 << rng.randrange(8)
        elif action == 3:
            out[at] = rng.choice(_BITS)
        elif action == 4:
            width = rng.choice((2, 4, 8))
            number = rng.choice(
                (0, 1, at, len(out), 1 << (8 * width - 1), (1 << 8 * width) - 1, rng.randrange(len(out)))
            )
            out[at : at + width] = (number & (1 << 8 * width) - 1).to_bytes(width, "little")
        elif action == 5:
            del out[at : at + size]
        elif action == 6:
            source = base or bytes(out)
            start = rng.randrange(len(source))
            out[at : at + size] = source[start : start + size]
        elif action == 7:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + size]
        elif action == 8:
            out[at : at + size] = bytes([rng.choice((0, 255, rng.randrange(256)))]) * size
        else:
            del out[at:]
    return bytes(out)


def damaged_npz(content: bytes, rng: Random) -> bytes:
    """Damage to the archive, or to arrays in one that is whole."""
    if rng.random() < 0.4:
        return damage(content, rng)
    victim = rng.randrange(8)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for k, name in enumerate(old.namelist()):
            data = old.read(name)
            # The header of an array is text, read as a Python literal.
            at = rng.choice((0, 128))
            new.writestr(name, data[:at] + damage(data[at:], rng) if k in (victim, victim - 4) else data)
    return buffer.getvalue()
