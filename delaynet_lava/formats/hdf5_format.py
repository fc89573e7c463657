"""The HDF5 file format, as far as NetX's files use it, read in plain Python.

The HDF5 library trusts what it reads: on a damaged heap of strings it can loop forever, on a tree
that contains itself it overflows the stack. Neither can be caught in a process, so a file that
somebody else made does not reach it. Here every access is checked against the end of the file, every
structure that is visited is paid for from a budget that grows with the file, and nothing leads out of it.

Read are: superblocks 0 to 3; groups as symbol tables or compact links; integers, IEEE floats,
enumerations, strings of fixed and variable length, lists of rows of numbers; compact, contiguous
and chunked storage, deflate and shuffle; attributes of numbers or one string. That is what h5py
writes unless told otherwise, and more than NetX's files need. Numbers in comments are those of the
HDF5 file format specification, version 3.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Dataset", "FormatError", "Reader"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1
MAX_BLOCKS, MAX_MESSAGES, MAX_NODES, MAX_RANK = 256, 4096, 1 << 16, 8
MAX_LEVELS, MAX_FILTERS = 16, 4
FREE_VISITS, BYTES_A_VISIT = 1 << 18, 32
"""Structures that may be visited in any file (headers, messages, entries, nodes, chunks), and bytes of the
file that allow for one more. A network of 4096 layers takes a quarter."""

# Types of header messages.
SPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B
ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0x0C, 0x10, 0x11
DEFLATE, SHUFFLE = 1, 2
# Size: bit offset, precision, place and size of the exponent, of the mantissa, bias of the exponent.
_IEEE = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
REFERENCE = np.dtype([("count", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_CLASSES = {2: "a time", 4: "a bit field", 5: "an opaque", 6: "a compound", 7: "a reference", 10: "an array"}
_DEFAULTS = "h5py's default format can be read"


class FormatError(Exception):
    """What is wrong with a file, or with a part of it, in words that follow its name."""


@dataclass(frozen=True)
class _Message:
    kind: int
    at: int
    size: int


@dataclass(frozen=True)
class Dataset:
    """What a dataset says it is; nothing of its content has been read.

    Attributes:
        shape: dimensions.
        dtype: NumPy's type of an element; None for strings and rows of variable length.
        row: type of the numbers in a row, where each element is a row of variable length.
        cost: bytes that reading it takes, chunks unpacked.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    cost: int
    layout: _Message
    chunk: tuple[int, ...]
    filters: tuple[int, ...]
    row: np.dtype | None = None


class Reader:
    """An HDF5 file, given as all of its bytes.

    Raises:
        FormatError: not HDF5, truncated, or of a kind that is not read.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._base = content, 0
        self._limit = self._visits = FREE_VISITS + len(content) // BYTES_A_VISIT
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        while not content.startswith(SIGNATURE, self._base):
            self._base = self._base * 2 or 512  # a user block may come first
            if self._base >= len(content):
                raise FormatError("is not an HDF5 file")
        version = self._number(8, 1)
        if version > 3:
            raise FormatError(f"has version {version} of the HDF5 superblock; {_DEFAULTS}")
        sizes, end, root = ((13, 40, 64), (13, 44, 68), (9, 28, 36), (9, 28, 36))[version]
        if self._take(sizes, 2) != b"\x08\x08":
            raise FormatError(f"does not have addresses of 8 bytes; {_DEFAULTS}")
        if self._number(end, 8) > len(content):
            raise FormatError(f"is truncated: it has {len(content)} of {self._number(end, 8)} bytes")
        self.root = self._number(root, 8)

    def _visit(self, count: int = 1) -> None:
        """Pay for the next structures, before they are looked at."""
        self._visits -= count
        if self._visits < 0:
            raise FormatError(
                f"takes more than {self._limit} steps to read, the most for {len(self._content)} bytes; it "
                "refers to the same data again and again"
            )

    def _take(self, at: int, size: int) -> bytes:
        start = self._base + at
        if start + size > len(self._content):
            raise FormatError("is damaged: it points beyond the end of the file")
        return self._content[start : start + size]

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._take(at, size), "little")

    def _numbers(self, at: int, size: int, count: int) -> tuple[int, ...]:
        return tuple(self._number(at + k * size, size) for k in range(count))

    def _expect(self, at: int, signature: bytes) -> None:
        if self._take(at, len(signature)) != signature:
            raise FormatError(f"is damaged: {signature[:4]!r} is not where it should be")

    def _messages(self, address: int) -> dict[int, list[_Message]]:
        """The messages of an object header (IV.A.1), by type."""
        new = self._take(address, 4) == b"OHDR"
        if new:
            flags = self._number(address + 5, 1)
            at = address + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
            width = 1 << (flags & 3)
            blocks = [(at + width, self._number(at, width))]
            head, ends = 4 + 2 * (flags >> 2 & 1), (4, 8)  # a block: signature, messages, checksum
        else:
            self._expect(address, b"\x01")
            blocks = [(address + 16, self._number(address + 8, 4))]
            head, ends = 8, (0, 0)
        found: dict[int, list[_Message]] = {}
        count = 0
        for _ in range(MAX_BLOCKS):
            if not blocks:
                return found
            at, size = blocks.pop()
            end = at + size
            self._visit()
            while at + head <= end:
                self._visit()
                kind = self._number(at, 2 - new)
                size, flags = self._number(at + 2 - new, 2), self._number(at + 4 - new, 1)
                message = _Message(kind, at + head, size)
                at, count = at + head + size, count + 1
                if at > end or count > MAX_MESSAGES:
                    raise FormatError("is damaged: a message of its header does not end")
                if flags & 2 and kind in (SPACE, DATATYPE, FILTERS):
                    raise FormatError("shares its type with other data; store it with a type of its own")
                if kind == CONTINUATION:
                    target, length = self._numbers(message.at, 8, 2)
                    if new:
                        self._expect(target, b"OCHK")
                    blocks.append((target + ends[0], length - ends[1]))
                found.setdefault(kind, []).append(message)
        raise FormatError("is damaged: its header does not end")

    # Groups.

    def is_group(self, address: int) -> bool:
        """True where an object can hold others; FormatError where it is damaged."""
        return not {SYMBOL_TABLE, LINK_INFO, LINK}.isdisjoint(self._messages(address))

    def links(self, address: int, limit: int) -> dict[str, int | None]:
        """Addresses of a group's entries by name, None for a link that leads elsewhere.

        Names are cut at 1000 bytes; what is not UTF-8 in them is escaped.

        Raises:
            FormatError: damaged, more than ``limit`` entries, or kept in a form that is not read.
        """
        found: dict[str, int | None] = {}
        for name, target in self._entries(address):
            if name in found:
                raise FormatError(f"is damaged: it has two entries {name[:40]!a}")
            found[name] = target
            if len(found) > limit:
                raise FormatError(f"has more than {limit} entries")
        return found

    def _entries(self, address: int) -> Iterator[tuple[str, int | None]]:
        messages = self._messages(address)
        for message in messages.get(LINK_INFO, []):
            counted = self._number(message.at + 1, 1) & 1
            if self._number(message.at + 2 + 8 * counted, 8) != UNDEFINED:
                raise FormatError(f"keeps its entries in the dense form of newer HDF5; {_DEFAULTS}")
        for message in messages.get(SYMBOL_TABLE, []):
            yield from self._symbols(*self._numbers(message.at, 8, 2))
        for message in messages.get(LINK, []):
            yield self._link(message.at)

    def _symbols(self, tree: int, heap: int) -> Iterator[tuple[str, int | None]]:
        """Entries of a symbol table (III.A to III.D)."""
        self._expect(heap, b"HEAP\0")
        size, names = self._number(heap + 8, 8), self._number(heap + 24, 8)
        for _, node in self._leaves(tree, 0, 8):
            self._expect(node, b"SNOD\x01")
            for entry in range(node + 8, node + 8 + 40 * self._number(node + 6, 2), 40):
                self._visit()
                offset, address = self._numbers(entry, 8, 2)
                name = self._take(names + offset, max(0, min(1000, size - offset))).split(b"\0", 1)[0]
                soft = self._number(entry + 16, 4) == 2
                yield name.decode("utf-8", "backslashreplace"), None if soft else address

    def _leaves(self, root: int, kind: int, key: int) -> Iterator[tuple[int, int]]:
        """(address of the key, child) of every leaf of a version 1 B-tree (III.A.1)."""
        stack, seen = [(root, -1)], set[int]()
        while stack:
            node, level = stack.pop()
            self._expect(node, b"TREE" + bytes([kind]))
            own, count = self._number(node + 5, 1), self._number(node + 6, 2)
            if node in seen or level not in (-1, own) or own > MAX_LEVELS:
                raise FormatError("is damaged: a tree in it does not end")
            seen.add(node)
            self._visit(1 + count)
            for k in range(count):
                at = node + 24 + k * (key + 8)
                child = self._number(at + key, 8)
                if own:
                    stack.append((child, own - 1))
                elif child in seen:
                    raise FormatError("is damaged: a tree in it holds something twice")
                else:
                    seen.add(child)
                    yield at, child

    def _link(self, at: int) -> tuple[str, int | None]:
        """A link message (IV.A.2.g)."""
        flags = self._number(at + 1, 1)
        at += 2
        kind = 0
        if flags & 8:
            kind, at = self._number(at, 1), at + 1
        at += 8 * (flags >> 2 & 1) + (flags >> 4 & 1)
        width = 1 << (flags & 3)
        length, at = self._number(at, width), at + width
        name = self._take(at, min(length, 1000)).decode("utf-8", "backslashreplace")
        return name, None if kind else self._number(at + length, 8)

    def attribute(self, address: int, name: str) -> bytes | np.ndarray | None:
        """An attribute of an object: a string without its padding, or numbers; None: there is none.

        Raises:
            FormatError: damaged, shared with other data, or of a type that is not read.
        """
        for message in self._messages(address).get(ATTRIBUTE, []):
            self._visit()
            version, flags = self._numbers(message.at, 1, 2)
            if version not in (1, 2, 3):
                raise FormatError(f"has attributes of version {version}; {_DEFAULTS}")
            sizes = self._numbers(message.at + 2, 2, 3)
            # Name, type and dataspace follow each other; in version 1 each is padded to 8 bytes.
            padded = [(n + 7) // 8 * 8 if version == 1 else n for n in sizes]
            starts = list(itertools.accumulate([message.at + 8 + (version == 3), *padded]))
            if starts[-1] > message.at + message.size:
                raise FormatError("is damaged: an attribute does not end")
            if self._take(starts[0], sizes[0]).split(b"\0")[0] != name.encode():
                continue
            if version > 1 and flags & 3:
                raise FormatError(f"has an attribute {name} whose type it shares with other data")
            return self._attribute(starts, message.at + message.size, name)
        return None

    def _attribute(self, starts: list[int], end: int, name: str) -> bytes | np.ndarray:
        shape, dtype = self._shape(starts[2]), self._dtype(starts[1])
        size = math.prod(shape) * (16 if dtype is None else dtype.itemsize)
        if starts[3] + size > end:
            raise FormatError(f"is damaged: its attribute {name} does not end")
        if dtype is not None and dtype.kind != "S":
            return np.frombuffer(self._take(starts[3], size), dtype).reshape(shape)
        if math.prod(shape) != 1:
            raise FormatError(f"has an attribute {name} of shape {shape}, expected one string")
        content = self._take(starts[3], size)
        return self._heap_text(content) if dtype is None else content.split(b"\0")[0]

    # Data.

    def dataset(self, address: int) -> Dataset:
        """Shape, type and storage.

        Raises:
            FormatError: not a dataset, damaged, outside the file, or of a kind that is not read.
        """
        messages = self._messages(address)
        if not {SPACE, DATATYPE, LAYOUT} <= messages.keys():
            raise FormatError("is not a dataset")
        if EXTERNAL in messages:
            raise FormatError("keeps its data in another file, which is not opened")
        shape = self._shape(messages[SPACE][0].at)
        dtype, row = self._type(messages[DATATYPE][0].at)
        filters = tuple(k for message in messages.get(FILTERS, [])[:1] for k in self._filters(message.at))
        layout = messages[LAYOUT][0]
        version, kind = self._numbers(layout.at, 1, 2)
        if kind == 3:
            raise FormatError("keeps its data in another dataset, which is not opened")
        if version not in (3, 4) or (version == 4 and kind == 2) or kind > 3:
            raise FormatError(f"is stored in another form than HDF5 1.8 knows; {_DEFAULTS}")
        itemsize = 16 if dtype is None else dtype.itemsize
        chunk: tuple[int, ...] = ()
        cost = math.prod(shape) * itemsize
        if kind == 2:
            chunk = self._numbers(layout.at + 11, 4, self._number(layout.at + 2, 1))[:-1]
            if not shape or len(chunk) != len(shape) or 0 in chunk:
                raise FormatError(f"is damaged: it has shape {shape} and chunks of shape {chunk}")
            chunks = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
            if chunks > MAX_NODES:
                raise FormatError(f"is stored in {chunks} chunks, more than {MAX_NODES}; use fewer or none")
            cost = max(cost, chunks * math.prod(chunk) * itemsize)
        elif filters:
            raise FormatError("is damaged: it is packed, but not in chunks")
        return Dataset(shape, dtype, cost, layout, chunk, filters, row)

    def is_null(self, address: int) -> bool:
        """True for a dataset that has a type but no value (a null dataspace)."""
        return any(
            self._number(m.at, 1) == 2 and self._number(m.at + 3, 1) == 2
            for m in self._messages(address).get(SPACE, [])
        )

    def _shape(self, at: int) -> tuple[int, ...]:
        """A dataspace message (IV.A.2.b)."""
        version, rank, _, kind = self._numbers(at, 1, 4)
        if version not in (1, 2) or rank > MAX_RANK:
            raise FormatError(f"is damaged: it has {rank} dimensions")
        if version == 2 and kind == 2:
            raise FormatError("is empty")
        return self._numbers(at + (8 if version == 1 else 4), 8, rank)

    def _type(self, at: int) -> tuple[np.dtype | None, np.dtype | None]:
        """Types of an element, and of what is in it where it is a row of variable length."""
        if self._number(at, 1) & 15 == 9 and self._number(at + 1, 3) & 15 == 0:
            row = self._dtype(at + 8)
            if row is None or row.kind == "S":
                raise FormatError("holds rows of text, expected rows of numbers")
            return None, row
        return self._dtype(at), None

    def _dtype(self, at: int) -> np.dtype | None:
        """A datatype message (IV.A.2.d); None: a string of variable length."""
        kind, bits, size = self._number(at, 1) & 15, self._number(at + 1, 3), self._number(at + 4, 4)
        order = ">" if bits & 1 else "<"
        if kind == 0 and size in (1, 2, 4, 8) and self._numbers(at + 8, 2, 2) == (0, 8 * size):
            return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
        if kind == 1 and size in _IEEE and bits >> 8 == 8 * size - 1 and bits & 0x70 == 0x20:
            fields = *self._numbers(at + 8, 2, 2), *self._numbers(at + 12, 1, 4), self._number(at + 16, 4)
            if fields == _IEEE[size]:
                return np.dtype(f"{order}f{size}")
        if kind == 3 and 0 < size < 1 << 31:
            return np.dtype(f"S{size}")
        if kind == 8 and self._number(at + 8, 1) & 15 == 0:
            return self._dtype(at + 8)
        if kind == 9 and bits & 15 == 1:
            return None
        raise FormatError(f"has {_CLASSES.get(kind, 'an unusual')} type, expected numbers or a string")

    def _filters(self, at: int) -> Iterator[int]:
        """A filter pipeline message (IV.A.2.l)."""
        version, count = self._numbers(at, 1, 2)
        at += 8 if version == 1 else 2
        if count > MAX_FILTERS:
            raise FormatError(f"is packed {count} times over, at most {MAX_FILTERS} are read")
        for _ in range(count):
            kind = self._number(at, 2)
            if kind not in (DEFLATE, SHUFFLE):
                raise FormatError(f"is packed with filter {kind}; use gzip or no compression")
            if version == 1:  # with a name, both padded to 8 bytes
                name, _, values = self._numbers(at + 2, 2, 3)
                at += 8 + (name + 7) // 8 * 8 + (values + 1) // 2 * 8
            else:
                at += 6 + 4 * self._number(at + 4, 2)
            yield kind

    def read(self, dataset: Dataset) -> np.ndarray:
        """The content, of the dataset's type and shape; it may be read-only.

        Raises:
            FormatError: damaged, or never written.
        """
        if dataset.dtype is None:
            raise FormatError(f"holds {'rows' if dataset.row else 'strings'}, expected numbers")
        if dataset.chunk:
            return self._read_chunks(dataset, dataset.dtype)
        data = self._read_whole(dataset, math.prod(dataset.shape) * dataset.dtype.itemsize)
        return np.frombuffer(data, dataset.dtype).reshape(dataset.shape)

    def _read_whole(self, dataset: Dataset, size: int) -> bytes:
        at = dataset.layout.at + 2
        if size == 0:
            return b""
        if self._number(at - 1, 1) == 0:  # compact: in the header itself
            address, stored = at + 2, self._number(at, 2)
        else:
            address, stored = self._numbers(at, 8, 2)
        if address == UNDEFINED:
            raise FormatError("was never written")
        if stored < size:
            raise FormatError(f"is damaged: it has {stored} of {size} bytes")
        return self._take(address, size)

    def _read_chunks(self, dataset: Dataset, dtype: np.dtype) -> np.ndarray:
        shape, chunk = dataset.shape, dataset.chunk
        self._visit(math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True)))
        result = np.zeros(shape, dtype)
        missing = set(itertools.product(*(range(0, n, c) for n, c in zip(shape, chunk, strict=True))))
        size = math.prod(chunk) * dtype.itemsize
        tree = self._number(dataset.layout.at + 3, 8)
        leaves = self._leaves(tree, 1, 8 + 8 * (len(shape) + 1)) if tree != UNDEFINED else ()
        for key, address in leaves:
            stored, skipped = self._numbers(key, 4, 2)
            corner = self._numbers(key + 8, 8, len(shape))
            if corner not in missing or skipped:
                raise FormatError(f"is damaged: it has an unexpected chunk at {corner}")
            missing.remove(corner)
            if stored > 2 * size + 1024:
                raise FormatError(f"is damaged: a chunk takes {stored} bytes to hold {size}")
            block = _unpack(self._take(address, stored), dataset.filters, size, dtype)
            inside = tuple(slice(a, a + c) for a, c in zip(corner, chunk, strict=True))
            part = tuple(slice(0, n - a) for a, n in zip(corner, shape, strict=True))
            result[inside] = block.reshape(chunk)[part]
        if missing:
            raise FormatError(f"has {len(missing)} chunks that were never written")
        return result

    def references(self, dataset: Dataset) -> np.ndarray:
        """Where the rows of a list are: uint32 length, uint64 address of the heap, uint32 number in it.

        Raises:
            FormatError: not a list of rows, damaged, or never written.
        """
        if dataset.row is None or len(dataset.shape) != 1:
            raise FormatError(f"has shape {dataset.shape}, expected a list of rows of numbers")
        if dataset.chunk:
            return self._read_chunks(dataset, REFERENCE)
        data = self._read_whole(dataset, math.prod(dataset.shape) * REFERENCE.itemsize)
        return np.frombuffer(data, REFERENCE)

    def row(self, reference: np.void, dtype: np.dtype) -> np.ndarray:
        """One row of a list.

        Raises:
            FormatError: damaged.
        """
        count, heap, number = (int(part) for part in reference.item())
        if count == 0:
            return np.zeros(0, dtype)
        if heap not in self._heaps:  # kept, so that each is paid for once
            self._heaps[heap] = dict(self._objects(heap))
        at, size = self._heaps[heap].get(number, (0, 0))
        if not number or size < count * dtype.itemsize:
            raise FormatError("is damaged: a row is not where it should be")
        return np.frombuffer(self._take(at, count * dtype.itemsize), dtype)

    def _objects(self, heap: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Number, place and size of what is in a collection of the global heap (III.E)."""
        self._expect(heap, b"GCOL\x01")
        at, end = heap + 16, heap + self._number(heap + 8, 8)
        for _ in range(MAX_NODES):
            if at + 16 > end:
                break
            self._visit()
            number, size = self._number(at, 2), self._number(at + 8, 8)
            if number == 0:
                break
            yield number, (at + 16, size)
            at += 16 + (size + 7) // 8 * 8

    def text(self, dataset: Dataset) -> bytes:
        """The content of one string, without its padding.

        Raises:
            FormatError: not one string, damaged, or never written.
        """
        if math.prod(dataset.shape) != 1:
            raise FormatError(f"has shape {dataset.shape}, expected one string")
        if dataset.row is not None:
            raise FormatError("holds rows of numbers, expected a string")
        if dataset.dtype is not None:
            if dataset.dtype.kind != "S":
                raise FormatError(f"has type {dataset.dtype}, expected a string")
            return self.read(dataset).tobytes().split(b"\0")[0]
        if dataset.chunk:
            raise FormatError("is a string of variable length in chunks; store it contiguously")
        return self._heap_text(self._read_whole(dataset, 16))

    def texts(self, dataset: Dataset, limit: int) -> list[bytes]:
        """The content of an array of strings, in order, without their padding.

        Args:
            limit: bytes that all of them together may have.

        Raises:
            FormatError: not strings, too long together, damaged, or never written.
        """
        if dataset.dtype is not None:
            if dataset.dtype.kind != "S":
                raise FormatError(f"has type {dataset.dtype}, expected strings")
            return [bytes(one) for one in self.read(dataset).reshape(-1)]
        if dataset.chunk:
            raise FormatError("holds strings of variable length in chunks; store them contiguously")
        count = math.prod(dataset.shape)
        content = self._read_whole(dataset, 16 * count)
        known: dict[bytes, bytes] = {}  # names come again and again
        heaps: dict[int, dict[int, tuple[int, int]]] = {}
        for at in range(0, 16 * count, 16):
            reference = content[at : at + 16]
            if reference not in known:
                heap = int.from_bytes(reference[4:12], "little")
                if heap not in heaps and reference[:4] != bytes(4):
                    heaps[heap] = self._heap_objects(heap)
                known[reference] = self._text_in(heaps.get(heap, {}), reference)
                limit -= len(known[reference])
                if limit < 0:
                    raise FormatError("holds more text than is read")
        return [known[content[at : at + 16]] for at in range(0, 16 * count, 16)]

    def _heap_objects(self, heap: int) -> dict[int, tuple[int, int]]:
        """Place and size of every object of a global heap (III.E), by number."""
        self._expect(heap, b"GCOL\x01")
        at, end = heap + 16, heap + self._number(heap + 8, 8)
        found: dict[int, tuple[int, int]] = {}
        while at + 16 <= end and len(found) < 1 << 16:
            self._visit()
            number, size = self._number(at, 2), self._number(at + 8, 8)
            if number == 0:  # the rest is free
                break
            found.setdefault(number, (at + 16, size))
            at += 16 + (size + 7) // 8 * 8
        return found

    def _text_in(self, objects: dict[int, tuple[int, int]], reference: bytes) -> bytes:
        length, number = int.from_bytes(reference[:4], "little"), int.from_bytes(reference[12:16], "little")
        if length == 0:
            return b""
        at, size = objects.get(number, (0, -1))
        if length > size:
            raise FormatError("is damaged: its text is not where it should be")
        return self._take(at, length).split(b"\0")[0]

    def _heap_text(self, reference: bytes) -> bytes:
        """A string in the global heap (III.E), from its length, address and number."""
        length, heap, number = (
            int.from_bytes(reference[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 16))
        )
        if length == 0:
            return b""
        self._expect(heap, b"GCOL\x01")
        at, end = heap + 16, heap + self._number(heap + 8, 8)
        for _ in range(1 << 16):
            if at + 16 > end:
                break
            self._visit()
            found, size = self._number(at, 2), self._number(at + 8, 8)
            if found == number and number and length <= size:
                return self._take(at + 16, length).split(b"\0")[0]
            at += 16 + (size + 7) // 8 * 8
        raise FormatError("is damaged: its text is not where it should be")


def _unpack(data: bytes, filters: tuple[int, ...], size: int, dtype: np.dtype) -> np.ndarray:
    for kind in reversed(filters):
        if kind == DEFLATE:
            try:
                # One byte more than a chunk may hold is enough to know that it holds too much.
                data = zlib.decompressobj().decompress(data, size + 1)
            except zlib.error as error:
                raise FormatError(f"is damaged: a chunk cannot be unpacked ({error})") from error
        elif kind == SHUFFLE and len(data) == size:
            data = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    if len(data) != size:
        raise FormatError(f"is damaged: a chunk does not hold {size} bytes")
    return np.frombuffer(data, dtype)
