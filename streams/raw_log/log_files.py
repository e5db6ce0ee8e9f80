"""Rows of the raw log → Parquet files, written so that a crash leaves whole files only.

``<log_dir>/<topic>/date=YYYY-MM-DD/<partition>-<start>-<end>.parquet``: the date is the
record's timestamp in UTC, start and end the first and last offset that were taken.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from srp4ctr.streams.raw_log.log_lock import reading, removing
from srp4ctr.streams.raw_log.row_schema import COLUMNS, Kind, Row

_ARROW_TYPES: Mapping[Kind, Any] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "real": pa.float64(),
    "flag": pa.bool_(),
}
_MS_PER_DAY = 86_400_000
_REMOVED = ".removed-"  # prefix of a date's folder that is no longer in the log
_ROWS_AT_ONCE = 8192  # as Python objects some 10 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Which offsets of which partition a file covers, both ends included."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def file_name(self) -> str:
        """The name of every file of this range, whatever its date."""
        return f"{self.partition}-{self.start}-{self.end}.parquet"


def schema_of(topic: str) -> Any:
    """Return the Arrow schema of ``topic``'s table."""
    return pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in COLUMNS[topic].items()])


def write_range(log_dir: Path, covered: OffsetRange, rows: Sequence[Row]) -> list[Path]:
    """Write ``rows`` into a file per date and return when they are on disk.

    The same range written again replaces its files by equal ones.
    """
    by_day: dict[int, list[Row]] = {}
    created_at = list(COLUMNS[covered.topic]).index("created_at")
    for row in rows:
        by_day.setdefault(row[created_at] // _MS_PER_DAY, []).append(row)
    paths = []
    for day, of_day in by_day.items():
        folder = log_dir / covered.topic / f"date={_date(day)}"
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / covered.file_name)
        _write_file(paths[-1], covered.topic, of_day)
    for folder in {path.parent for path in paths}:
        sync_folder(folder)
    return paths


def remove_uncommitted(
    log_dir: Path, topic: str, partition: int, committed: int
) -> list[Path]:
    """Remove the files that begin at or after ``committed``: they will be written again."""
    removed = []
    for path in files_of(log_dir, topic, partition):
        if _start(path) >= committed:
            path.unlink()
            removed.append(path)
    return removed


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
    log_dir: Path, topic: str, partition: int, since_ms: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a partition in the order of offsets, some at a time, each once.

    Dates before that of ``since_ms`` are left out.
    """
    first = f"date={_date(since_ms // _MS_PER_DAY)}"
    with reading(log_dir):
        files = files_of(log_dir, topic, partition)
        for paths in overlapping([path for path in files if path.parent.name >= first]):
            yield from _rows_once(paths)


def _rows_once(paths: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    if len(paths) == 1:  # in order as it was written, and maybe large
        for batch in pq.ParquetFile(paths[0]).iter_batches(_ROWS_AT_ONCE):
            yield batch.to_pylist()
        return
    tables = [pq.ParquetFile(path).read() for path in paths]
    rows = {row["offset"]: row for table in tables for row in table.to_pylist()}
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


def replace_table(path: Path, table: Any) -> None:
    """Make ``table`` the content of a log's file and return when it is on disk."""
    _write_table(path, table)
    sync_folder(path.parent)


def known_ms(log_dir: Path, topic: str, partition: int, offset: int) -> int | None:
    """Return when the last event at or before ``offset`` became known, if it is logged."""
    with reading(log_dir):
        for path in reversed(files_of(log_dir, topic, partition)):
            if _start(path) > offset:
                continue
            table = pq.ParquetFile(path).read(["offset", "created_at"])
            known = [row for row in table.to_pylist() if row["offset"] <= offset]
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


def _write_file(path: Path, topic: str, rows: Sequence[Row]) -> None:
    schema = schema_of(topic)
    arrays = [
        pa.array(column, type=kind.type)
        for column, kind in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    _write_table(path, pa.Table.from_arrays(arrays, schema=schema))


def _write_table(path: Path, table: Any) -> None:
    write_unfinished(path, table).replace(path)


def write_unfinished(path: Path, table: Any) -> Path:
    """Write ``table`` to disk and return where; the caller renames it to ``path``."""
    # A name of its own: a writer that has lost the partition may be at the same range.
    unfinished = path.with_suffix(f".{uuid4().hex}.tmp")
    try:
        with unfinished.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        unfinished.unlink(missing_ok=True)  # a full disk must not fill with attempts
        raise
    return unfinished


def sync_folder(folder: Path) -> None:
    """Make the renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
