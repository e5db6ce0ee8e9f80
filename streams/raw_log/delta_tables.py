"""The raw log, in a folder or a bucket: a Delta Lake table per topic, written and read.

``<log>/<topic>``, partitioned by the ``date`` of the record's timestamp, in UTC, and by
Kafka's ``partition``. A commit adds rows and, as application transactions, the next offset
of each partition that they are of. A writer commits only where it finds the offset that it
left: so every offset is in the log once, whatever is killed, and a writer that has lost its
partition cannot add to it.

A reader keeps the snapshot that was the newest at its start. What compaction and the
retention replace is removed hours later, what an erasure replaces at once.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from errno import ENOENT
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, SchemaMismatchError, TableNotFoundError

from srp4ctr.buckets import failure, secret_options
from srp4ctr.errors import ArtifactError, MistakeError, OutageError, Srp4ctrError
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.log_tables import DATE, table_of

LOGGED_TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC)
# Parquet files of a log that is no table, in the same folder; ``vacuum`` would remove them.
_FILES_WITHOUT_TABLE = "date=*/*.parquet"

_TABLE = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 hours",
    "delta.deletedFileRetentionDuration": "interval 2 hours",
    "delta.enableExpiredLogCleanup": "false",  # ``vacuum`` does: two remove one file twice
    # None of ids: a table's log would keep those of users who are erased.
    "delta.dataSkippingStatsColumns": "offset,created_at",
}
_ROWS_AT_ONCE = 8192  # as Python objects some 10 MB
_SORT_MEMORY = "512MB"  # beyond it a partition's rows are sorted on disk
_NOT_ANSWERED = "Error performing"  # a request to a bucket
# A file of the snapshot was removed: a bucket's, DuckDB's and Arrow's words for it.
_GONE = ("not found", "No files found", "Failed to open local file")
STORE = {"retry_timeout": "20s"}
"""Of a bucket that hangs: by default three minutes pass before a caller knows."""
Log = Path | str
"""The log's folder, or its address."""


def store_options() -> dict[str, str]:
    """Return the options of every call that opens a table."""
    return STORE | secret_options()


def opened(log: Log, topic: str) -> DeltaTable | None:
    """Return the table as it is now; None where nothing was ever logged.

    Raises ``MistakeError`` where there are Parquet files of no table.
    """
    if next(Path(log, topic).glob(_FILES_WITHOUT_TABLE), None):
        raise MistakeError(
            f"{log}/{topic} has Parquet files of no Delta Lake table: move them "
            "out of the raw log (docs/upgrade.md)"
        )
    try:
        with outages(log):
            return DeltaTable(f"{log}/{topic}", storage_options=store_options())
    except TableNotFoundError:
        return None


def created(log: Log, topic: str) -> DeltaTable:
    """Return the table as it is now, made if there is none."""
    place, schema = f"{log}/{topic}", table_of(topic, []).schema
    options: dict[str, Any] = {"configuration": _TABLE, "storage_options": store_options()}
    with outages(log):
        return DeltaTable.create(place, schema, "ignore", [DATE, "partition"], **options)


def next_offset(table: DeltaTable, partition: int) -> int | None:
    """Return how far a partition is logged; None where none of it ever was."""
    return table.transaction_version(str(partition))


def first_offset(table: DeltaTable, partition: int) -> int:
    """Return an offset from which on a partition is logged, and nothing was removed."""
    return table.transaction_version(_first(partition)) or 0


def append(table: DeltaTable, rows: pa.Table, taken: Mapping[int, range]) -> bool:
    """Add ``rows``, which are of the offsets ``taken`` of each partition, wholly or not.

    Returns True as well where an earlier call did, and ended with an error after it; False
    where a partition is logged to elsewhere than ``taken`` begins: another writer has it.
    """
    with outages(table.table_uri):
        table.update_incremental()
        logged = {partition: next_offset(table, partition) for partition in taken}
        if all(logged[partition] == each.stop for partition, each in taken.items()):
            return True
        if any(logged[p] not in (None, each.start) for p, each in taken.items()):
            return False
        ends = {str(partition): each.stop for partition, each in taken.items()}
        begun = {_first(p): e.start for p, e in taken.items() if logged[p] is None}
        # "merge": the table may lack columns of ``rows``, or have others.
        write_deltalake(
            table,
            rows,
            mode="append",
            schema_mode="merge",
            commit_properties=_commit(ends | begun),
        )
        return True


def skip(log: Log, topic: str, partition: int, hole: range) -> None:
    """Record that the offsets of ``hole``, where the log ends, will never be in it.

    The log starts again behind them: earlier rows stay, and are not the whole past.
    """
    table = created(log, topic)
    if next_offset(table, partition) != hole.start:  # another writer has
        return
    skipped = _skipped_offsets(table, partition) + len(hole)
    offsets = {str(partition): hole.stop, _first(partition): hole.stop}
    with outages(log):
        write_deltalake(
            table,
            table_of(topic, []),
            mode="append",
            schema_mode="merge",
            commit_properties=_commit(offsets | {_skipped(partition): skipped}),
        )


def skipped_offsets(log: Log, topic: str) -> dict[int, int]:
    """Return how many offsets Kafka dropped before they were logged, by partition.

    Only of partitions that have rows and lack some.
    """
    if (table := opened(log, topic)) is None:
        return {}
    numbers = {int(partition["partition"]) for partition in table.partitions()}
    found = {number: _skipped_offsets(table, number) for number in sorted(numbers)}
    return {number: offsets for number, offsets in found.items() if offsets}


def _skipped_offsets(table: DeltaTable, partition: int) -> int:
    return table.transaction_version(_skipped(partition)) or 0


def _skipped(partition: int) -> str:
    return f"{partition} skipped"


def _first(partition: int) -> str:
    return f"{partition} first"


def _commit(offsets: Mapping[str, int]) -> CommitProperties:
    transactions = [Transaction(name, offset) for name, offset in offsets.items()]
    return CommitProperties(app_transactions=transactions)


def remove_before(log: Log, topic: str, day: date) -> list[str]:
    """Remove the dates before ``day`` from the log and return them."""
    table = opened(log, topic)
    there = table.partitions() if table else []
    old = [each for each in there if each[DATE] < day.isoformat()]
    if table is None or not old:
        return []
    cut = {int(each["partition"]) for each in old}
    begun = {_first(each): next_offset(table, each) or 0 for each in cut}
    with outages(log):
        table.delete(f"{DATE} < '{day.isoformat()}'", commit_properties=_commit(begun))
    return sorted({each[DATE] for each in old})


def vacuum(log: Log, topic: str, *, at_once: bool = False) -> None:
    """Remove files from the disk that no snapshot of the last hours has.

    So are files that a crash left, and old entries of the table's own log. ``at_once``:
    files that only an older snapshot than the newest has, too; a reader of that one fails
    with ``OutageError``.
    """
    if (table := opened(log, topic)) is None:
        return
    with outages(log):
        table.vacuum(dry_run=False, full=True)
        if at_once:  # never ``full``: it would remove what is about to be committed
            table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        table.cleanup_metadata()


def covered_offsets(log: Log, topic: str, partition: int) -> tuple[int, int]:
    """Return ``first_offset`` and the last that is logged; (0, -1) without any."""
    table = opened(log, topic)
    if table is None or (end := next_offset(table, partition)) is None:
        return 0, -1
    return first_offset(table, partition), end - 1


def partitions_of(log: Log, topic: str) -> list[int]:
    """Return the partitions of which there are rows."""
    table = opened(log, topic)
    return sorted(
        {int(partition["partition"]) for partition in table.partitions()} if table else ()
    )


def dataset(log: Log, topic: str) -> ds.Dataset:
    """Return all rows of a topic as they are now; the table may lack columns of
    ``log_tables.schema_of``, which were added later, or have more."""
    table = opened(log, topic)
    return stored_rows(table) if table else ds.dataset(table_of(topic, []))


def stored_rows(table: DeltaTable) -> ds.Dataset:
    """Return the rows of ``table``'s snapshot, read through Arrow's own file system.

    A bucket is read through deltalake's, which is Python: Arrow's threads call it even
    while the interpreter ends, which may abort the process (deltalake 1.6).
    """
    address = urlsplit(table.table_uri)
    if address.scheme != "file":
        return table.to_pyarrow_dataset()
    files = fs.SubTreeFileSystem(unquote(address.path), fs.LocalFileSystem())
    return table.to_pyarrow_dataset(filesystem=files)


def read_rows(
    log: Log, topic: str, partition: int, since_ms: int = 0, start: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a partition in the order of offsets, some at a time.

    Dates before that of ``since_ms``, and offsets before ``start``, are left out.
    """
    query = f"""SELECT * FROM logged WHERE "partition" = {partition}
        AND "offset" >= {start} AND "date" >= strftime(epoch_ms({since_ms}), '%Y-%m-%d')
        ORDER BY "offset" """
    with reading(log), database_of(log, topic) as database:
        for batch in database.sql(query).to_arrow_reader(_ROWS_AT_ONCE):
            yield batch.to_pylist()


@contextmanager
def database_of(log: Log, topic: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database that has the topic's rows as ``logged``; its memory is bounded."""
    rows = dataset(log, topic)
    with tempfile.TemporaryDirectory(prefix="srp4ctr-") as spilled:
        limits = {"memory_limit": _SORT_MEMORY, "temp_directory": spilled}
        with duckdb.connect(config=limits) as database:
            database.register("logged", rows)
            yield database


@contextmanager
def outages(log: Log) -> Iterator[None]:
    """Say of the block's error, a disk's or a conflict, that the same call may succeed.

    Raises ``MistakeError`` where a bucket refuses us.
    """
    try:
        yield
    except (TableNotFoundError, SchemaMismatchError, PermissionError):
        raise
    except (DeltaError, OSError) as error:
        raise failure(f"the raw log {log}", error) from error


@contextmanager
def reading(log: Log) -> Iterator[None]:
    """Say which file is damaged where the block finds one; it reads a snapshot of ``log``.

    Raises ``ArtifactError`` for it, and ``OutageError`` where files of the snapshot are
    gone, or its bucket was: another try reads a newer one.
    """
    try:
        yield
    except Srp4ctrError:
        raise
    except (OSError, pa.ArrowInvalid, duckdb.Error) as error:
        if isinstance(error, OSError) and error.errno not in (None, ENOENT):
            raise  # the file system's, of another file
        check_files(log)
        if any(sign in str(error) for sign in _GONE):
            raise OutageError(
                f"{log} has changed while it was read (an erasure, or hours have passed): "
                f"try again. {error}"
            ) from error
        if _NOT_ANSWERED in str(error):
            raise failure(f"the raw log {log}", error) from error
        raise


def check_files(log: Log) -> None:
    """Read the whole log; raises ``ArtifactError`` at the first damaged file."""
    for topic in LOGGED_TOPICS:
        for fragment in dataset(log, topic).get_fragments():
            try:
                for _ in fragment.to_batches(batch_size=_ROWS_AT_ONCE):
                    pass
            except (OSError, pa.ArrowInvalid) as error:
                if _NOT_ANSWERED in str(error):
                    raise failure(f"the raw log {log}", error) from error
                raise ArtifactError(
                    f"{log}/{topic}/{fragment.path} is damaged: {error}. Put a backup of "
                    "it there, or remove it and have the table forget it (docs/backup.md): "
                    "then its events miss in training and rebuilds"
                ) from error
