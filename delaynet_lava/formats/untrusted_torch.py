"""Torch files from strangers: tensors and plain values, read without torch's reader.

``torch.load(weights_only=True)`` is not enough: releases of torch up to 2.5 hand an archive that holds
``constants.pkl`` to ``torch.jit.load``, which runs the program in it. Here nothing is ever called: the
archive and its pickle are read as data, and whatever is not known by name is refused.

A file of ``torch.save`` is a zip archive, stored without compression:

    NAME/data.pkl       a pickle of protocol 2; a tensor in it names its storage
    NAME/data/KEY       the bytes of storage KEY
    NAME/byteorder      "little" (absent before torch 2.1)
    NAME/version, NAME/.*   of no meaning to the content

Every checksum is verified; sizes, strides and nesting are checked before a tensor is made, and no
more memory is taken than about three times the size of the file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["MAX_BYTES", "TorchFormatError", "read_torch"]

MAX_BYTES = 1 << 31
"""Bytes of a file."""
MAX_TENSORS = 1 << 32
"""Bytes of all tensors together, were each kept by itself."""
MAX_MEMBERS = 1 << 14
"""Members of an archive: the storages of its tensors."""
MAX_PICKLE = 1 << 24
MAX_STEPS = 1 << 19
"""Instructions of the pickle, and values that it makes, one that is used twice counted twice."""
MAX_DEPTH = 64
"""Containers inside each other."""
MAX_TEXT = 1 << 26
"""Characters of all strings together, one that is used twice counted twice."""
MAX_RANK = 8
_INT_BYTES = 16

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What zipfile raises on archives that are none, or only in part.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError)
_SAVE = "save it with delaynet_lava.save_model(net, path) where you trained it"
_AGAIN = "open it where it was made and save it again with torch.save of torch 1.6 or later"


class TorchFormatError(Exception):
    """What is wrong with a file, in words that follow its name, and what its owner can do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)


def _damaged(what: object) -> TorchFormatError:
    return TorchFormatError(f"is not a torch file, or a damaged one ({what})", "fetch or make it again")


def _foreign(what: str) -> TorchFormatError:
    return TorchFormatError(f"holds more than tensors and plain values and was not opened ({what})", _SAVE)


class _Archive:
    """The members of a zip archive that ``torch.save`` could have written, by their short names."""

    def __init__(self, content: bytes) -> None:
        if content[:4] != b"PK\x03\x04":
            if content[257:262] == b"ustar" or content[:1] == b"\x80":
                raise TorchFormatError("is in a format that torch wrote before 1.6, or a bare pickle", _AGAIN)
            raise _damaged("it is not a zip archive")
        # zipfile makes an object of every entry before it says how many there are.
        if content.count(b"PK\x01\x02") > MAX_MEMBERS:
            raise TorchFormatError(f"has more than {MAX_MEMBERS} members")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except _ZIP_ERRORS as error:
            raise _damaged(error) from error
        self.members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in self._zip.infolist():
            name = info.filename.partition("/")[2]
            if name == "constants.pkl" or name.startswith("code/"):
                raise _foreign("it is a TorchScript archive, which is a program")
            plain = name in ("data.pkl", "byteorder", "version") or name.startswith((".", "data/"))
            if not plain or name in self.members:
                raise _foreign(f"unexpected member {info.filename[:60]!a}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise TorchFormatError(f"has a compressed member {info.filename[:60]!a}", _SAVE)
            total += info.file_size
            self.members[name] = info
        if total > len(content):
            raise _damaged(f"members of {total} bytes in a file of {len(content)}")
        if "data.pkl" not in self.members:
            raise _damaged("data.pkl is missing")

    def size(self, name: str) -> int:
        if name not in self.members:
            raise _damaged(f"{name[:60]!a} is missing")
        return self.members[name].file_size

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(self.members[name])
        except (*_ZIP_ERRORS, RuntimeError, EOFError) as error:
            raise _damaged(error) from error


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names; it is never looked up."""

    text: str


@dataclass(frozen=True)
class _Storage:
    data: torch.Tensor  # of one dimension


@dataclass
class _Storages:
    """Storages by key, each read once, and how many bytes of tensors may still be made."""

    archive: _Archive
    found: dict[str, _Storage] = field(default_factory=dict)
    budget: int = field(default_factory=lambda: MAX_TENSORS)

    def load(self, identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) != 5:
            raise _damaged("a storage without a name")
        word, kind, key, _, count = identity
        if (
            word != "storage"
            or not isinstance(kind, _Name)
            or not isinstance(key, str)
            or type(count) is not int
        ):
            raise _damaged("a storage of an unknown form")
        dtype = _DTYPES.get(kind.text.removeprefix("torch."))
        if dtype is None:
            raise _foreign(kind.text[:60])
        if key not in self.found:
            name = f"data/{key}"
            if self.archive.size(name) != count * dtype.itemsize:
                raise _damaged(f"{name[:60]!a} has {self.archive.size(name)} bytes, not {count} values")
            content = bytearray(self.archive.read(name))
            as_stored = torch.uint8 if dtype == torch.bool else dtype
            data = torch.frombuffer(content, dtype=as_stored) if content else torch.empty(0, dtype=as_stored)
            # A byte that is neither 0 nor 1 is no bool to the compiler.
            self.found[key] = _Storage(data != 0 if dtype == torch.bool else data)
        storage = self.found[key]
        if storage.data.dtype != dtype or len(storage.data) != count:
            raise _damaged(f"storage {key[:60]!a} has two types or sizes")
        return storage

    def tensor(self, args: tuple) -> torch.Tensor:
        """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)``."""
        if len(args) not in (6, 7) or not isinstance(args[0], _Storage):
            raise _damaged("a tensor of an unknown form")
        data, (offset, size, stride) = args[0].data, args[1:4]
        numbers = [offset, *size, *stride] if isinstance(size, tuple) and isinstance(stride, tuple) else [-1]
        if (
            not all(type(n) is int and 0 <= n < 1 << 40 for n in numbers)
            or len(size) != len(stride)
            or args[5]
        ):
            raise _damaged("a tensor of an unknown form")
        count = math.prod(size)
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else 0
        if len(size) > MAX_RANK or reach > len(data):
            raise _damaged(f"a tensor of shape {size[:MAX_RANK]} in {len(data)} values")
        if count > len(data) or any(n > 1 and step == 0 for n, step in zip(size, stride, strict=True)):
            raise TorchFormatError(f"has an expanded tensor, {count} values kept as {len(data)}", _SAVE)
        self.budget -= count * data.dtype.itemsize
        if self.budget < 0:
            raise TorchFormatError(f"has tensors of more than {MAX_TENSORS} bytes in all")
        return data.as_strided(size, stride, offset) if count else torch.empty(size, dtype=data.dtype)


class _Machine:
    """Runs the instructions of a pickle that ``torch.save`` writes for plain values, and no others."""

    def __init__(self, code: bytes, storages: _Storages) -> None:
        self.code, self.at, self.storages = code, 0, storages
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def take(self, size: int) -> bytes:
        part = self.code[self.at : self.at + size]
        if len(part) < size:
            raise _damaged("its pickle is cut short")
        self.at += size
        return part

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            instruction = self.take(1)
            if instruction == b".":
                if len(self.stack) != 1 or self.marks or self.at != len(self.code):
                    raise _damaged("its pickle does not end with one value")
                return self.stack[0]
            step = _INSTRUCTIONS.get(instruction)
            if step is None:
                raise _foreign(f"instruction {instruction!r} of its pickle")
            step(self)
        raise TorchFormatError(f"has a pickle of more than {MAX_STEPS} instructions")

    def proto(self) -> None:
        if self.number(1) != 2:
            raise _damaged("its pickle is not of protocol 2")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.marks.pop()
        return found

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError("too few values")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(found)

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise _foreign("something like a list")
        self.stack[-1].extend(values)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict) or len(items) % 2:
            raise _foreign("something like a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bool | None):
                raise _foreign(f"a {type(key).__name__} as a key")
            target[key] = value

    def build(self) -> None:
        # A module's state_dict carries the versions of its parts; nothing here needs them.
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not OrderedDict or not isinstance(state, dict):
            raise _foreign("an object with a state")

    def name(self) -> None:
        end = self.code.find(b"\n", self.at)
        end = self.code.find(b"\n", end + 1)
        if end < 0:
            raise _damaged("its pickle is cut short")
        module, _, name = (
            self.take(end + 1 - self.at)[:-1].decode("utf-8", "backslashreplace").partition("\n")
        )
        text = f"{module}.{name}"
        if text not in _CALLS and text.removeprefix("torch.") not in _DTYPES:
            raise _foreign(text[:100])
        self.push(_Name(text))

    def call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or name.text not in _CALLS or type(args) is not tuple:
            raise _foreign("a call")
        self.push(_CALLS[name.text](self.storages, args))

    def text(self) -> None:
        self.push(self.take(self.number(4)).decode("utf-8", "surrogatepass"))

    def long(self) -> None:
        size = self.number(1)
        if size > _INT_BYTES:
            raise _foreign(f"a number of {8 * size} bits")
        self.push(self.number(size, signed=True))


def _ordered_dict(_: _Storages, args: tuple) -> OrderedDict:
    if args:
        raise _foreign("something like a dict")
    return OrderedDict()


def _parameter(_: _Storages, args: tuple) -> torch.Tensor:
    if len(args) != 3 or not isinstance(args[0], torch.Tensor):
        raise _damaged("a parameter of an unknown form")
    return args[0]


def _size(_: _Storages, args: tuple) -> tuple:
    if len(args) != 1 or not isinstance(args[0], tuple):
        raise _damaged("a size of an unknown form")
    return args[0]


# Not the functions of these names: what stands here is all that a file can have done.
_CALLS: dict[str, Callable[[_Storages, tuple], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _Storages.tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.proto,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"\x8a": _Machine.long,
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": _Machine.text,
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"(": _Machine.mark,
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.since_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"h": lambda m: m.push(m.memo[m.number(1)]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    b"c": _Machine.name,
    b"R": _Machine.call,
    b"b": _Machine.build,
    b"Q": lambda m: m.push(m.storages.load(m.stack.pop())),
}


def _check_plain(value: Any) -> None:
    """Refuse what is nested too deeply, holds itself, or is small only because it repeats itself."""
    todo, steps, characters = [(value, 0)], 0, 0
    while todo:
        value, depth = todo.pop()
        steps += 1
        inside: list[Any] = []
        if isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            inside = list(value)
        elif isinstance(value, str):
            characters += len(value)
        elif not isinstance(value, torch.Tensor | int | float | bool | None):
            raise _foreign(type(value).__name__.strip("_").lower())
        if steps + len(todo) + len(inside) > MAX_STEPS or characters > MAX_TEXT or depth > MAX_DEPTH:
            raise TorchFormatError(
                f"holds more than {MAX_STEPS} values, {MAX_TEXT} characters or {MAX_DEPTH} levels", _SAVE
            )
        todo.extend((one, depth + 1) for one in inside)


def read_torch(content: bytes) -> Any:
    """The value that ``torch.save`` wrote: dicts, lists, tuples, strings, numbers, None and tensors.

    Tensors are on the CPU and ask for no gradient. Parameters come as tensors.

    Args:
        content: the whole file.

    Raises:
        TorchFormatError: not torch's zip format, damaged, too large, or with anything else in it.
    """
    archive = _Archive(content)
    if "byteorder" in archive.members and (
        archive.size("byteorder") > 16 or archive.read("byteorder") != b"little"
    ):
        raise TorchFormatError("has numbers in an order of bytes other than little-endian", _AGAIN)
    if archive.size("data.pkl") > MAX_PICKLE:
        raise TorchFormatError(
            f"has a pickle of {archive.size('data.pkl')} bytes, more than {MAX_PICKLE}", _SAVE
        )
    storages = _Storages(archive)
    try:
        value = _Machine(archive.read("data.pkl"), storages).run()
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise _damaged(f"its pickle, {type(error).__name__}: {error}") from error
    _check_plain(value)
    unused = {name for name in archive.members if name.startswith("data/")} - {
        f"data/{k}" for k in storages.found
    }
    if unused:
        raise _damaged(f"nothing refers to {min(unused)[:60]!a}")
    return value
