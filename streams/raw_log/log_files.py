"""Parquet files of the raw log → their rows, under its lock; and files removed.

Readers share the lock; removing files needs it exclusively: merging and the retention
remove what a reader may have listed and not yet read. They never wait for the lock, and
hold it no longer than names are removed (10 ms for 256). The kernel releases the lock of a
process that ends.
"""

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from srp4ctr.errors import ArtifactError
from srp4ctr.streams.raw_log.log_tables import MS_PER_DAY, date_of

LOCK_FILE = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_REMOVED = ".removed-"  # prefix of a date's folder that is no longer in the log
_ROWS_AT_ONCE = 8192  # as Python objects some 10 MB
_log = logging.getLogger(__name__)


def remove_uncommitted(log_dir: Path, topic: str, partition: int, committed: int) -> None:
    """Remove the files that begin at or after ``committed``: they will be written again."""
    for path in files_of(log_dir, topic, partition):
        if _start(path) >= committed:
            path.unlink()


def remove_unfinished(log_dir: Path, topic: str, partition: int) -> None:
    """Remove what a kill left of a partition's files; nothing while the log is read.

    A reader may be an erasure with an unfinished file. A writer that has lost the
    partition, and loses one here, writes it again.
    """
    left = list(unfinished_files(log_dir, topic, str(partition)))
    with removing(log_dir) as is_exclusive:
        for path in left if is_exclusive else ():
            path.unlink(missing_ok=True)


def unfinished_files(log_dir: Path, topic: str, partition: str = "*") -> Iterator[Path]:
    """Yield what is being written, or was when its writer crashed."""
    yield from (log_dir / topic).glob(f"date=*/{partition}-*.tmp")


def files_of(log_dir: Path, topic: str, partition: int) -> list[Path]:
    """Return the files of a partition, in the order of their offsets."""
    found: Iterable[Path] = (log_dir / topic).glob(f"date=*/{partition}-*.parquet")
    return sorted(found, key=lambda path: (_start(path), path))


def read_files(
    log_dir: Path, topic: str, partition: int, since_ms: int = 0, start: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a partition in the order of offsets, some at a time, each once.

    Dates before that of ``since_ms``, and files before the offset ``start``, are left out.
    """
    first = f"date={date_of(since_ms // MS_PER_DAY)}"
    with reading(log_dir):
        files = [
            path
            for path in files_of(log_dir, topic, partition)
            if path.parent.name >= first and offset_after(path) > start
        ]
        for paths in overlapping(files):
            yield from _rows_once(paths)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file of the log; raises ``ArtifactError`` where the block finds it damaged."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's
        raise ArtifactError(
            f"{path} is damaged: {error}. Put a backup of it there, or move it out of the "
            "raw log: then its events miss in training and rebuilds"
        ) from error


def check_files(log_dir: Path) -> None:
    """Read the whole log; raises ``ArtifactError`` at the first damaged file."""
    for path in sorted(log_dir.glob("*/date=*/*.parquet")):
        with opened(path) as file:
            for _ in file.iter_batches(_ROWS_AT_ONCE):
                pass


def _rows_once(paths: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    if len(paths) == 1:  # in order as it was written, and maybe large
        with opened(paths[0]) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield batch.to_pylist()
        return
    rows: dict[int, dict[str, Any]] = {}
    for path in paths:
        with opened(path) as file:
            rows.update((row["offset"], row) for row in file.read().to_pylist())
    yield [rows[offset] for offset in sorted(rows)]


def overlapping(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the files, in order, together with those whose offsets theirs may repeat."""
    group: list[Path] = []
    for path in files:
        if group and _start(path) >= max(map(offset_after, group)):
            yield group
            group = []
        group.append(path)
    if group:
        yield group


def known_ms(log_dir: Path, topic: str, partition: int, offset: int) -> int | None:
    """Return when the last event at or before ``offset`` became known, if it is logged."""
    with reading(log_dir):
        for path in reversed(files_of(log_dir, topic, partition)):
            if _start(path) > offset:
                continue
            with opened(path) as file:
                rows = file.read(["offset", "created_at"]).to_pylist()
            known = [row for row in rows if row["offset"] <= offset]
            if known:
                return int(max(known, key=itemgetter("offset"))["created_at"])
    return None


def remove_before(log_dir: Path, day: date) -> list[Path] | None:
    """Remove the folders of the dates before ``day`` and return them.

    None, and nothing is removed, while the log is read. What a kill left is removed too.
    """
    folders: Iterable[Path] = log_dir.glob("*/date=*")
    old = sorted(path for path in folders if path.name < f"date={day.isoformat()}")
    try:
        return old if not old or _set_aside(log_dir, old) else None
    finally:
        for path in log_dir.glob(f"*/{_REMOVED}*"):
            shutil.rmtree(path, ignore_errors=True)  # another worker may be faster


def _set_aside(log_dir: Path, folders: Sequence[Path]) -> bool:
    """Take ``folders`` out of the log, or return False while it is read.

    Renamed only: to remove their files takes seconds, for which readers would wait.
    """
    with removing(log_dir, without_locks=True) as is_exclusive:
        for path in folders if is_exclusive else ():
            with suppress(FileNotFoundError):  # another worker was faster
                path.rename(path.with_name(f"{_REMOVED}{uuid4().hex}"))
    return is_exclusive


def covered_offsets(log_dir: Path, topic: str, partition: int) -> tuple[int, int]:
    """Return the first and the last offset of a partition's files; (0, -1) without any."""
    with reading(log_dir):  # a listing may miss what is renamed meanwhile
        found = files_of(log_dir, topic, partition)
    return (_start(found[0]) if found else 0), max(map(offset_after, found), default=0) - 1


def _start(path: Path) -> int:
    return int(path.name.split("-")[1])


def offset_after(path: Path) -> int:
    """Return the offset behind those that the file covers, as its name says."""
    return int(path.stem.split("-")[2]) + 1


@contextmanager
def reading(log_dir: Path) -> Iterator[None]:
    """Hold the lock with other readers while the block lists files and reads them.

    Goes on without it where there is none: an absent log, a folder that we may not write
    to before its writer made the file, a file system without locks.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = _opened(log_dir)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        _close(descriptor)


@contextmanager
def removing(log_dir: Path, *, without_locks: bool = False) -> Iterator[bool]:
    """Yield whether the block may remove files: nobody reads until it ends.

    Never waits. On a file system without locks it yields ``without_locks``. Raises
    ``OSError`` where the lock cannot be opened.
    """
    descriptor = _opened(log_dir)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_exclusive = True
        except BlockingIOError:
            is_exclusive = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn_no_locks(log_dir)
            is_exclusive = without_locks
        yield is_exclusive
    finally:
        _close(descriptor)


@cache  # once
def _warn_no_locks(log_dir: Path) -> None:
    _log.warning(
        "the file system of %s knows no locks: its small files are not merged, and the "
        "retention removes old dates while they are read",
        log_dir,
    )


def _opened(log_dir: Path) -> int:
    """Return a new descriptor of the lock file: a shared one would share the lock."""
    try:
        return os.open(log_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another user's, or mounted read-only
        return os.open(log_dir / LOCK_FILE, os.O_RDONLY)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process has it open too
        os.close(descriptor)
