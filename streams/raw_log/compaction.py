"""Many small files of the raw log → few big ones with the same rows, compacted online.

A file a partition every two seconds keeps the log fresh, and each costs every reader half a
millisecond. The writer merges what it has committed: nobody else adds to a partition. What
it read may be erased or removed meanwhile: then nothing is merged, and it is tried again.

Files overlap where a writer that was suspended past its session, and has lost its
partitions without knowing, finishes its files all the same, and where one crashes while it
merges. The partition's next writer removes the duplicates.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srp4ctr.atomic_files import sync_folder, write_unfinished
from srp4ctr.streams.raw_log.log_files import (
    files_of,
    offset_after,
    opened,
    overlapping,
    reading,
    removing,
)
from srp4ctr.streams.raw_log.log_tables import schema_of

MAX_ROWS = 131_072  # of a file: what pyarrow reads at once
MAX_FILES = 256  # at once: the writer consumes nothing meanwhile (1 s on a slow disk)

_log = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]  # inode, bytes, when changed: another content has another
_Range = tuple[int, int]  # first and last offset, as the files' names have them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """A file, and how many rows are in it."""

    path: Path
    rows: int


def merge_some(
    log_dir: Path, topic: str, partition: int, committed: int
) -> list[Path] | None:
    """Replace some files by one and return them; [] where there are none to merge.

    None where it cannot be done now: the log is being read, or a file has changed. Only
    what is before ``committed`` is merged, each date by itself, and no file that overlaps
    another. A crash leaves old files next to the new one at worst.
    """
    with removing(log_dir) as is_exclusive:
        if not is_exclusive:
            return None  # before the work: it would be wasted
    paths = _next(files_of(log_dir, topic, partition), committed, schema_of(topic))
    if not paths:
        return []
    # Until they are closed: the disk frees what is removed after the lock is, not before.
    with ExitStack() as kept_open:
        for path in paths:
            kept_open.enter_context(path.open("rb"))
        return paths if _merge(log_dir, topic, paths) else None


def _merge(log_dir: Path, topic: str, paths: Sequence[Path]) -> bool:
    """Replace ``paths`` by one file, or return False and leave them."""
    stamps = [_stamp(path) for path in paths]  # before their rows
    merged = pa.concat_tables(_whole(path, schema_of(topic)) for path in paths)
    target = paths[0].with_name(_name(paths))
    unfinished = write_unfinished(target, lambda file: pq.write_table(merged, file))
    try:
        with removing(log_dir) as is_exclusive:
            if not is_exclusive or [_stamp(path) for path in paths] != stamps:
                return False
            unfinished.replace(target)
            sync_folder(target.parent)
            for path in paths:
                path.unlink()
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def _next(files: Sequence[Path], committed: int, schema: Any) -> list[Path]:
    """Return the first files that are worth merging."""
    for run in _runs(files, committed):
        for chunk in _chunks(run, schema):
            # A file that is bigger than all that would be added waits for more: so each row
            # is rewritten only a few times, however slowly they come.
            while len(chunk) > 1 and chunk[0].rows > sum(each.rows for each in chunk[1:]):
                chunk = chunk[1:]
            if len(chunk) > 1:
                return [each.path for each in chunk]
    return []


def _runs(files: Sequence[Path], committed: int) -> Iterator[list[Path]]:
    """Yield neighbours of one date that are committed and overlap no other file."""

    def folder(paths: list[Path]) -> Path | None:
        is_apart = len(paths) == 1 and offset_after(paths[0]) <= committed
        return paths[0].parent if is_apart else None

    for found, neighbours in groupby(overlapping(files), folder):
        if found:
            yield [path for (path,) in neighbours]


def _chunks(run: Sequence[Path], schema: Any) -> Iterator[list[_Counted]]:
    """Yield the files of ``run``, in order, as many together as may be one."""
    chunk: list[_Counted] = []
    for path in run:
        each = _counted(path, schema)
        rows = sum(other.rows for other in (*chunk, each) if other)
        if each is None or rows > MAX_ROWS or len(chunk) == MAX_FILES:
            yield chunk
            chunk = []
        if each is not None:
            chunk.append(each)
    yield chunk


def _counted(path: Path, schema: Any) -> _Counted | None:
    """Return ``path`` with its rows; None if it has to stay as it is."""
    try:
        found = pq.read_metadata(path)
    except FileNotFoundError:
        raise  # its date was removed: list the others again
    except (OSError, pa.ArrowException) as error:
        _warn_unreadable(path, repr(error))
        return None
    # What a newer release wrote is not lost to an older one.
    is_known = {*found.schema.to_arrow_schema().names} <= {*schema.names}
    return _Counted(path=path, rows=found.num_rows) if is_known else None


@cache  # once
def _warn_unreadable(path: Path, why: str) -> None:
    partition, start, _ = path.stem.split("-")
    place = {"topic": path.parts[-3], "partition": int(partition), "offset": int(start)}
    _log.warning("%s cannot be read and is not merged: %s", path, why, extra=place)


def _whole(path: Path, schema: Any) -> Any:
    """Return the table in ``path``; a file of an older release may lack columns."""
    table = pq.ParquetFile(path).read()
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _name(paths: Sequence[Path]) -> str:
    """Return the name of what spans all of ``paths``."""
    return f"{paths[0].stem.rpartition('-')[0]}-{offset_after(paths[-1]) - 1}.parquet"


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def remove_duplicates(log_dir: Path, topic: str, partition: int) -> list[Path]:
    """Remove files of which others hold every row, and return them; no row is lost."""
    removed: list[Path] = []
    with reading(log_dir):  # a writer that lost the partition may be merging what we keep
        for files in overlapping(files_of(log_dir, topic, partition)):
            ranges: dict[_Range, list[Path]] = {}
            for path in files:
                _, start, end = path.stem.split("-")
                ranges.setdefault((int(start), int(end)), []).append(path)
            if len(ranges) > 1:
                kept = _exact_cover({each: _offsets(ranges[each]) for each in ranges})
                for each in ranges:
                    removed += [] if kept is None or each in kept else ranges[each]
        for path in removed:
            path.unlink(missing_ok=True)
    return removed


def _exact_cover(offsets_of: Mapping[_Range, list[int]]) -> set[_Range] | None:
    """Return ranges that hold every offset once; None where there is no such choice."""
    everything = sorted({each for offsets in offsets_of.values() for each in offsets})
    begin_at: dict[int, list[_Range]] = {}
    for each, offsets in offsets_of.items():
        if offsets:  # all of a file may have been erased
            begin_at.setdefault(offsets[0], []).append(each)
    reached: dict[int, set[_Range]] = {0: set()}  # how many offsets, by which ranges
    for number, offset in enumerate(everything):
        for each in begin_at.get(offset, ()) if number in reached else ():
            offsets = offsets_of[each]
            if everything[number : number + len(offsets)] == offsets:
                reached.setdefault(number + len(offsets), reached[number] | {each})
    return reached.get(len(everything))


def _offsets(paths: Iterable[Path]) -> list[int]:
    """Return the offsets in the files of one range, one for each date."""
    found: list[int] = []
    for path in paths:
        with opened(path) as file:
            found += file.read(["offset"])["offset"].to_pylist()
    return sorted(found)
