"""Items' counters and attributes in mapped memory: one process writes, all others read.

A *generation* is a file of a fixed capacity, which every process maps: a hash from item
keys to rows, and the rows. Readers take no lock and wait for nothing. A row has two halves,
and the lowest bit of its version names the current one: the writer fills the other half,
then counts the version up. A reader reads the version, the half and the version again; if
it changed, it reads once more. A writer that is killed at any instant leaves every row
readable. (x86 keeps the order of loads and of stores; elsewhere the thousands of
instructions between two calls of numpy do.)
"""

import hashlib
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors.arrays import COLUMNS, TableArrays

Int64s = NDArray[np.int64]

# Changes with the layout: releases with different ones keep files of their own.
FORMAT = 2
SMALLEST = 16
_SHARED_MEMORY = Path("/dev/shm")
_BUCKET = 8  # places: a cache line of keys
_HEADER_BYTES = 4096
_STEP_BYTES = 1 << 20
_LENGTH_BITS = 24  # of a text's number; the others are its place
# Two buckets for a key, of which it takes the emptier one: at half load none was seen with
# more than six of its eight places taken (500,000 keys).
_MULTIPLIERS = np.array([[0x9E3779B97F4A7C15], [0xC2B2AE3D27D4EB4F]], dtype=np.uint64)
# The head's numbers: the generation to map, when the table was up to date, and whether the
# store does not answer.
GENERATION, UP_TO_DATE_MS, IS_DOWN = 0, 1, 2


def length_of(number: Any) -> Any:
    """Return the length in bytes of the text with ``number`` (or of an array of them)."""
    return number & ((1 << _LENGTH_BITS) - 1)


def folder_of(config: FeatureConfig) -> Path:
    """Return the folder, ours only, of this store's table on this host.

    Shared memory where there is some: a file elsewhere would be written to a disk.
    """
    of_store = f"{FORMAT} {config.redis} {config.redis_cluster}"
    name = (
        f"srp4ctr-items-{os.getuid()}-{hashlib.sha256(of_store.encode()).hexdigest()[:12]}"
    )
    is_there = os.access(_SHARED_MEMORY, os.W_OK)
    folder = (_SHARED_MEMORY if is_there else Path(tempfile.gettempdir())) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise MistakeError(f"{folder} belongs to another user: remove it")
    return folder


class FullError(Exception):
    """A generation has no room for an item or a text: a greater one is needed."""


class ItemMap:
    """One generation; row 0 is that of an item which is not in it."""

    def __init__(self, memory: mmap.mmap, file: int | None = None) -> None:
        """Map what ``create`` or ``open_map`` made; ``file`` is the writer's."""
        self._memory, self._file = memory, file
        # The head: how many rows and bytes of texts there is room for, and a number that is
        # odd while rows are written, and has changed if some were.
        self.capacity, self._text_bytes, _ = self._array(np.int64, 3, 0).tolist()
        self._writes = self._array(np.int64, 1, 16)
        self._fixed_bytes, places = _HEADER_BYTES, 2 * self.capacity

        def array(kind: Any, count: int) -> NDArray[Any]:
            found = self._array(kind, count, self._fixed_bytes)
            self._fixed_bytes += found.nbytes
            return found

        self._keys = array(np.int64, places).reshape(-1, _BUCKET)
        self._rows = array(np.int32, places).reshape(-1, _BUCKET)
        self._versions = array(np.int64, self.capacity)
        self._halves = array(np.int64, 2 * self.capacity * COLUMNS).reshape(-1, COLUMNS)
        self._texts_at = self._fixed_bytes
        self._halves_at = self._texts_at - self._halves.nbytes
        # A key's first bucket is in one half of them, its second in the other.
        half = len(self._keys) // 2
        self._shift = np.uint64(64 - (half.bit_length() - 1))
        self._starts = np.array([[0], [half]])
        self.count = 1
        self._end = 1  # of the texts; place 0 is that of no text
        self._reserved = {self._halves_at: 0, self._texts_at: 0}

    @property
    def table(self) -> TableArrays:
        """What ``compiled.Assembler`` reads, as ``find`` and ``read`` do."""
        return TableArrays(
            buckets=self._keys,
            bucket_rows=self._rows,
            versions=self._versions,
            halves=self._halves,
            shift=int(self._shift),
        )

    @property
    def address(self) -> int:
        """Where the file begins in this process."""
        return int(self._array(np.int64, 1, 0).ctypes.data)

    def find(self, keys: Int64s) -> Int64s:
        """Return the row of each of ``keys`` (n,), 0 of one that is not there."""
        buckets = self._buckets(keys)
        is_here = self._keys.take(buckets, axis=0) == keys[:, None]  # (2, n, _BUCKET)
        rows = self._rows.take(buckets, axis=0)
        # A key is in one place, and key 0 only in empty ones, whose row is 0.
        found: NDArray[np.int32] = np.einsum("anp,anp->n", rows, is_here.astype(np.int32))
        return found.astype(np.int64)

    def keys(self) -> Int64s:
        """Return the keys of all items, in the order in which they came."""
        places = np.flatnonzero(self._keys)
        rows = self._rows.ravel()[places]
        found: Int64s = self._keys.ravel()[places[np.argsort(rows)]]
        return found

    def added(self, first: int) -> tuple[Int64s, Int64s]:
        """Return the rows from ``first`` on, ascending, and the keys of their items."""
        places = np.flatnonzero(self._rows.ravel() >= first)
        rows, keys = self._rows.ravel()[places], self._keys.ravel()[places]
        order = np.argsort(rows)
        order = order[keys[order] != 0]  # one that is being inserted
        return rows[order].astype(np.int64), keys[order]

    def changed(self, since: Int64s) -> Int64s:
        """Return the rows whose versions differ from ``since``, and note them there."""
        rows = np.flatnonzero(self._versions != since)
        since[rows] = self._versions[rows]
        return rows

    def read(self, rows: Int64s) -> Int64s:
        """Return the columns (n, COLUMNS) of ``rows`` (n,), each row from one write."""
        found, has_changed = self._copy(rows)
        while has_changed.any():
            again = np.flatnonzero(has_changed)
            found[again], has_changed[again] = self._copy(rows[again])
        return found

    def _copy(self, rows: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """Return the rows, and which of them changed meanwhile."""
        versions = self._versions.take(rows)
        found = self._halves.take(2 * rows + (versions & 1), axis=0)
        return found, self._versions.take(rows) != versions

    def text(self, number: int) -> str:
        """Return the text that ``add_text`` gave this ``number``."""
        start = self._texts_at + (number >> _LENGTH_BITS)
        return self._memory[start : start + length_of(number)].decode()

    def insert(self, keys: Int64s) -> Int64s:
        """Give each of ``keys``, distinct and new, the next row; return the rows."""
        if (end := self.count + len(keys)) > self.capacity:
            raise FullError
        self._reserve(self._halves_at, 2 * end * COLUMNS * 8)
        self._writes += 1
        rows = np.arange(self.count, end)
        left = np.arange(len(keys))
        while len(left):
            buckets = self._buckets(keys[left])
            loads = np.count_nonzero(self._keys.take(buckets, axis=0), axis=-1)
            is_first = loads[0] <= loads[1]
            bucket, place = np.where(is_first, buckets[0], buckets[1]), loads.min(axis=0)
            if (place == _BUCKET).any():
                raise FullError
            _, alone = np.unique(bucket, return_index=True)  # one key a bucket at a time
            into = bucket[alone], place[alone]
            self._rows[into] = rows[left[alone]]
            self._keys[into] = keys[left[alone]]  # last: readers look for it
            left = np.delete(left, alone)
        self.count = end
        self._writes += 1
        return rows

    def put(self, rows: Int64s, columns: Int64s) -> None:
        """Write ``columns`` (n, COLUMNS) into ``rows`` (n,), which are distinct."""
        versions = self._versions[rows] + 1
        self._writes += 1
        self._halves[2 * rows + (versions & 1)] = columns
        self._versions[rows] = versions
        self._writes += 1

    def add_text(self, text: str) -> int:
        """Keep ``text`` permanently and return its number; that of "" is 0."""
        content = text.encode()
        start, end = self._end, self._end + len(content)
        if end > self._text_bytes:
            raise FullError
        self._reserve(self._texts_at, end)
        self._memory[self._texts_at + start : self._texts_at + end] = content
        self._end = end
        return (start << _LENGTH_BITS) | len(content) if content else 0

    def close_file(self) -> None:
        """Give the writer's file back; the memory stays mapped while it is in use."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _buckets(self, keys: Int64s) -> Int64s:
        """Return the two buckets (2, n) of each key."""
        mixed = (keys.view(np.uint64) * _MULTIPLIERS) >> self._shift
        buckets: Int64s = mixed.view(np.int64)
        buckets += self._starts
        return buckets

    def _array(self, kind: Any, count: int, at: int) -> NDArray[Any]:
        return np.frombuffer(self._memory, dtype=kind, count=count, offset=at)

    def _reserve(self, start: int, length: int) -> None:
        """Make sure of memory, or raise ``OSError``: without it a *reader* would crash."""
        if self._file is not None and length > (had := self._reserved[start]):
            more = min(max(length - had, _STEP_BYTES), self._memory.size() - start - had)
            os.posix_fallocate(self._file, start + had, more)
            self._reserved[start] = had + more

    def reserve_fixed(self) -> None:
        """Make sure of the memory of the hash and the versions, which readers read."""
        if self._file is not None:
            os.posix_fallocate(self._file, 0, self._halves_at)
        self._reserve(self._halves_at, 2 * COLUMNS * 8)


class ItemMemory:
    """The generations of one store's items: in files of ``folder``, or in this process."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder: Final = folder
        self._maps: tuple[int, ItemMap] | None = None
        self.head: Int64s = np.zeros(8, dtype=np.int64)
        if folder is not None:
            file = os.open(folder / "head", os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(file, mmap.PAGESIZE)
            self.head = np.frombuffer(mmap.mmap(file, mmap.PAGESIZE), np.int64, 8)
            os.close(file)

    def current(self) -> ItemMap | None:
        """Return the published generation; None before the first."""
        known = self._maps
        while (number := int(self.head[GENERATION])) > 0 and self._folder is not None:
            if known is not None and known[0] == number:
                break
            with suppress(FileNotFoundError):  # the next one was published just now
                self._maps = known = (number, _opened(self._path(number)))
                break
        return known[1] if known is not None else None

    def file_of(self, items: ItemMap) -> tuple[int, Path]:
        """Return the number and the file of a generation; ``OSError`` for a former one."""
        if self._maps is None or self._maps[1] is not items:
            raise OSError("a newer generation of the table of items was published")
        return self._maps[0], self._path(self._maps[0])

    def create(self, capacity: int, text_bytes: int) -> ItemMap:
        """Return a new, empty generation with at least that room; publish it later."""
        capacity = max(SMALLEST, 1 << (capacity - 1).bit_length())
        places, halves = 2 * capacity * (8 + 4), capacity * (8 + 2 * COLUMNS * 8)
        size = _HEADER_BYTES + places + halves + text_bytes
        file = None
        if self._folder is not None:
            path = self._path(abs(int(self.head[GENERATION])) + 1)
            path.unlink(missing_ok=True)  # of a writer that was killed
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.ftruncate(file, size)
        memory = mmap.mmap(-1 if file is None else file, size)
        np.frombuffer(memory, np.int64, 2)[:] = capacity, text_bytes
        made = ItemMap(memory, file)
        made.reserve_fixed()
        return made

    def publish(self, made: ItemMap) -> None:
        """Let readers read ``made``, which ``create`` returned last, from now on."""
        number, before = abs(int(self.head[GENERATION])) + 1, self._maps
        self._maps = (number, made)
        self.head[GENERATION] = number
        if self._folder is not None:
            self._path(number - 1).unlink(missing_ok=True)
        if before is not None:
            before[1].close_file()

    def clear(self) -> None:
        """Remove the files of all generations: no reader is left."""
        if self._folder is not None:
            self.head[[UP_TO_DATE_MS, IS_DOWN]] = 0
            # Negative, there is none; no number comes twice, for files are named by it.
            self.head[GENERATION] = -abs(int(self.head[GENERATION]))
            for path in self._folder.glob("items-*"):
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"items-{number}"


def _opened(path: Path) -> ItemMap:
    file = os.open(path, os.O_RDONLY)
    try:
        return ItemMap(mmap.mmap(file, 0, prot=mmap.PROT_READ))
    finally:
        os.close(file)
