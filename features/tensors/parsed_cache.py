"""Parsed attributes of a bundle's items, cached in memory that processes share.

Attributes of items are JSON, which only the Python step parses, by the bundle's vocabulary.
Where a native step runs alongside it, the results are in a file of shared memory, as
``item_cache.py`` keeps them. Contexts and attributes of users are too many to cache: the
native step parses them itself, by what ``text_rules`` writes of the vocabulary.
``native/parsed_cache.h`` declares this layout, whose numbers have eight bytes each.
"""

import fcntl
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.columns import NUM_CONTEXT_NUMBERS, REQUEST
from srp4ctr.features.tensors import compiled, item_fields
from srp4ctr.features.tensors.arrays import ATTRIBUTES, TableArrays
from srp4ctr.features.tensors.item_fields import AttributeField
from srp4ctr.features.tensors.schema import (
    BEHAVIOR_FIELDS,
    CONTEXT_SLOTS,
)
from srp4ctr.features.tensors.vocabulary import Vocabulary

Int64s = NDArray[np.int64]
FORMAT = 6
_HEAD = 96  # numbers, two of them for each text
_OF_VALUES, _OF_NUMBERS, _OF_VECTORS = range(3)  # as in native/text_rules.c
_KINDS = {"numeric": _OF_NUMBERS, "vector": _OF_VECTORS}


class Items(Protocol):
    """A generation of the table of items: ``item_map.ItemMap``."""

    capacity: int

    @property
    def table(self) -> TableArrays:
        """Its arrays."""
        ...

    @property
    def address(self) -> int:
        """Where its file begins in this process."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCachePlan:
    """Where a bundle's cache is, and what the native step needs besides."""

    folder: Path
    """Of the store's table of items."""
    version: str
    """The bundle's, with a number that changes with its vocabulary."""
    lengths: tuple[int, int]
    """L and W."""
    ttl_ms: int
    """Behaviours older than that are not read."""
    texts: tuple[bytes, ...]
    """onnxruntime's library, the store's host, port, database, user, password and authority
    of TLS, how a user's key begins and ends, and the fields that are read."""

    def open(
        self, mapped: tuple[int, Path], items: Items, known: Vocabulary
    ) -> "ParsedCache":
        """Return what is known of ``items``, the generation and file ``mapped``.

        Its file is made if no process has it yet.
        """
        generation, _ = mapped
        settings = zlib.crc32(repr(self).encode())
        path = self.folder / f"known-{FORMAT}-{self.version}-{settings:08x}-{generation}"
        with (self.folder / "known").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                _remove_unused(self.folder)
                _make(path, self, mapped, items, known)
            return ParsedCache(path)


class ParsedCache:
    """One file; all processes that have it open write the same into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._file = os.open(path, os.O_RDWR)
        fcntl.flock(self._file, fcntl.LOCK_SH)  # in use
        self._memory = mmap.mmap(self._file, 0)
        head = self._array(np.int64, 0, _HEAD).tolist()
        capacity, width = head[2:4]
        texts, known = head[7:9]
        self.texts: Int64s = self._array(np.int64, texts, capacity)
        self.rows: NDArray[np.int32] = self._array(np.int32, known, capacity * width)
        self.rows = self.rows.reshape(-1, width)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other threads and processes from writing meanwhile."""
        with self._threads:
            if self._file < 0:  # closed: of a former generation, whose readers are gone
                yield
                return
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Remove the file unless another process uses it; what is mapped stays."""
        with self._threads:
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _array(self, kind: Any, at: int, count: int) -> NDArray[Any]:
        return np.frombuffer(self._memory, dtype=kind, count=count, offset=at)


def _make(
    path: Path,
    plan: ParsedCachePlan,
    mapped: tuple[int, Path],
    items: Items,
    known: Vocabulary,
) -> None:
    """Write an empty file; the texts and rows of all items are 0, as of one not parsed."""
    width, rules = ATTRIBUTES + known.num_attribute_slots, text_rules(known)
    texts = (os.fsencode(plan.folder / "head"), os.fsencode(mapped[1]), *plan.texts)
    of_items = (8 * len(known.item_keys), 8 * items.capacity, 4 * items.capacity * width)
    sizes = (8 * _HEAD, compiled.FIXED_BYTES, *of_items, len(rules), *map(len, texts))
    *places, end = _places(sizes)
    _, fixed, keys, of_texts, rows, of_rules, *of_strings = places
    numbers = (
        FORMAT,
        mapped[0],
        items.capacity,
        width,
        fixed,
        keys,
        len(known.item_keys),
        of_texts,
        rows,
        of_rules,
        len(rules),
        *_plan_numbers(plan, known),
        len(texts),
        *chain(*zip(of_strings, map(len, texts), strict=True)),
    )
    arrays = {"item_keys": keys, "texts": of_texts, "known": rows} | _table_places(items)
    content = [
        (0, struct.pack(f"<{len(numbers)}q", *numbers)),
        (fixed, compiled.fixed(known, items.table, width, arrays)),
        (keys, np.ascontiguousarray(known.item_keys, dtype=np.int64).tobytes()),
        (of_rules, rules),
        *zip(of_strings, texts, strict=True),
    ]
    _write(path, end, content)


def _table_places(items: Items) -> dict[str, int]:
    return {
        name: compiled.address(getattr(items.table, name)) - items.address
        for name in compiled.OF_TABLE
    }


def _plan_numbers(plan: ParsedCachePlan, known: Vocabulary) -> tuple[int, ...]:
    return (
        *plan.lengths,
        known.num_attribute_slots,
        known.num_user_slots,
        plan.ttl_ms,
        REQUEST.width,
        known.candidate_columns.layout.width,
        CONTEXT_SLOTS,
        NUM_CONTEXT_NUMBERS,
        len(BEHAVIOR_FIELDS),
    )


def text_rules(known: Vocabulary) -> bytes:
    """Return what ``native/text_rules.c`` reads contexts and users' attributes by.

    The default of the user's clock, the names of the context's numbers and the user fields;
    then what each field knows, its values in the order of their bytes; then all texts.
    """
    pool = bytearray()

    def place_of(text: bytes) -> tuple[int, int]:
        pool.extend(text)
        return len(pool) - len(text), len(text)

    names = [place_of(name.encode()) for name in known.context_numbers]
    fields: list[tuple[int, ...]] = []
    entries: list[int] = []
    places = item_fields.places(known.user_field_shapes)
    for field, place in zip(known.user_fields, places, strict=True):
        kind, name = _KINDS.get(field.kind, _OF_VALUES), place_of(field.name.encode())
        first = place.first_slot, place.first_row
        of_kind = (field.values, field.edges, field.centroids)[kind]
        numbers = field.books.shape[2] if kind == _OF_VECTORS else 0
        fields.append(
            (*name, kind, field.slots, *first, len(of_kind), len(entries), numbers)
        )
        entries += _entries(field, place_of)
    words = (
        known.utc_offset_minutes * 60_000,
        len(names),
        len(fields),
        len(entries),
        *chain(*names, *fields, entries),
    )
    return struct.pack(f"<{len(words)}q", *words) + pool


def _entries(
    field: AttributeField, place_of: Callable[[bytes], tuple[int, int]]
) -> list[int]:
    """Return a numeric field's edges, a vector field's codebooks, or place, length and
    index of each value.
    """
    if field.kind in _KINDS:
        given = field.edges if field.kind == "numeric" else field.books
        numbers: list[int] = np.array(given, np.float64).view(np.int64).ravel().tolist()
        return numbers
    ordered = sorted((value.encode(), index) for index, value in enumerate(field.values))
    return [word for value, index in ordered for word in (*place_of(value), index)]


def _write(path: Path, size: int, content: Sequence[tuple[int, bytes]]) -> None:
    """Write a file of ``size`` bytes with ``content`` at its places, or nothing."""
    unfinished = path.with_name(f"unfinished-{os.getpid()}")
    file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(file, 0, size)  # a hole without room would kill its reader
        for place, part in content:
            os.pwrite(file, part, place)
        unfinished.rename(path)
    finally:
        os.close(file)


def _places(sizes: Sequence[int]) -> list[int]:
    """Return where parts of those ``sizes`` begin, by cache lines, and the end."""
    return list(accumulate(((size + 63) // 64 * 64 for size in sizes), initial=0))


def _remove_unused(folder: Path) -> None:
    """Remove the files of processes that were killed, and of former generations."""
    for path in folder.glob("known-*"):
        with suppress(FileNotFoundError, BlockingIOError):
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
