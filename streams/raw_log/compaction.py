"""Small files of the raw log → fewer and larger ones, with the same rows.

Not by delta-rs's ``optimize``: of two that join the same files at the same moment, by a
worker that has just lost the partition and by its new owner, both succeed (deltalake 1.6),
and all rows are there twice. Rows that are overwritten are a conflict for either of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from srp4ctr.streams.raw_log.delta_tables import Log, opened, outages, stored_rows
from srp4ctr.streams.raw_log.log_tables import DATE

FILE_BYTES = 32 * 1024 * 1024  # smaller files are joined up to this size; larger ones stay
_SPANS_IN_COMMIT = 20  # of a history of months; more take longer in all
_DATE = f"partition.{DATE}"  # of a file


class RowSpan(NamedTuple):
    """The rows of one date of a partition from one offset to another."""

    date: str
    partition: int
    first: int
    last: int

    @property
    def filter(self) -> pc.Expression:
        """Which rows these are, for pyarrow."""
        is_there = (pc.field(DATE) == self.date) & (pc.field("partition") == self.partition)
        return (
            is_there
            & (pc.field("offset") >= self.first)
            & (pc.field("offset") <= self.last)
        )

    @property
    def predicate(self) -> str:
        """The same for Delta Lake."""
        return (
            f"{DATE} = '{self.date}' AND partition = {self.partition} "
            f"AND offset >= {self.first} AND offset <= {self.last}"
        )


def compact(log: Log, topic: str, partition: int) -> int:
    """Join a partition's small files, each date separately; return how many they were.

    Of the newest date some stay, each more than twice as large as all that came after it.
    """
    if (table := opened(log, topic)) is None:
        return 0
    found, joined = list(_joinable(table, partition)), 0
    for start in range(0, len(found), _SPANS_IN_COMMIT):
        spans, numbers = zip(*found[start : start + _SPANS_IN_COMMIT], strict=True)
        rows = stored_rows(table)
        is_there = reduce(or_, (span.filter for span in spans))
        overwrite(table, spans, rows.schema, rows.to_batches(filter=is_there))
        joined += sum(numbers)
    return joined


def overwrite(
    table: DeltaTable,
    spans: Sequence[RowSpan],
    schema: pa.Schema,
    rows: Iterable[pa.RecordBatch],
) -> None:
    """Replace the rows of ``spans`` by ``rows``, in one commit.

    Raises ``OutageError`` where another call has changed them since ``table`` was read:
    what workers add behind them meanwhile is no conflict.
    """
    with outages(table.table_uri):
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, rows),
            mode="overwrite",
            target_file_size=FILE_BYTES,
            predicate=" OR ".join(f"({span.predicate})" for span in spans),
        )


def _joinable(table: DeltaTable, partition: int) -> Iterator[tuple[RowSpan, int]]:
    """Yield what to join, neighbours of one date each, and how many files they are."""
    files = pa.table(table.get_add_actions(flatten=True))
    files = files.filter(pc.equal(files["partition.partition"], partition))
    files = files.filter(pc.is_valid(files["min.offset"]))
    some: list[dict[str, Any]] = []
    size = 0
    for each in files.sort_by(
        [(_DATE, "ascending"), ("min.offset", "ascending")]
    ).to_pylist():
        size += each["size_bytes"]
        if some and (size > FILE_BYTES or each[_DATE] != some[0][_DATE]):
            yield from _span(some)
            some, size = [], each["size_bytes"]
        some.append(each)
    yield from _span(_worth_joining(some))  # the newest rows: more will come


def _worth_joining(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``files`` without those, from the first on, that are too large to rewrite yet.

    A file is more than twice as large as all behind it then. It waits until more has come,
    so that a row is rewritten a few times while its file grows, and not at each call.
    """
    behind = sum(file["size_bytes"] for file in files)
    for place, each in enumerate(files):
        behind -= each["size_bytes"]
        if each["size_bytes"] <= 2 * behind:
            return files[place:]
    return []


def _span(files: list[dict[str, Any]]) -> Iterator[tuple[RowSpan, int]]:
    """Yield what ``files`` hold, if there are two to join."""
    if len(files) > 1:
        first, last = files[0], max(file["max.offset"] for file in files)
        partition = first["partition.partition"]
        yield RowSpan(first[_DATE], partition, first["min.offset"], last), len(files)
