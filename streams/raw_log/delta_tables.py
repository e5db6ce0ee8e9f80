"""The raw log, in a folder or a bucket: a Delta Lake table per topic, to append to.

``<log>/<topic>``, partitioned by the ``date`` of the record's timestamp, in UTC, and by
Kafka's ``partition``. A commit adds rows and, as application transactions, the next offset
of each partition that they are of. A writer commits only where it finds the offset that it
left: so every offset is in the log once, whatever is killed, and a writer that has lost its
partition cannot add to it.

Whoever reads has the snapshot that was the newest when it began. What compaction and the
retention replace is removed hours later, what an erasure replaces at once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, SchemaMismatchError, TableNotFoundError

from srp4ctr.buckets import failure, secret_options
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.log_tables import DATE, table_of

LOGGED_TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC)
OLD_FILES = "date=*/*.parquet"  # of releases before 0.3.0, in the same folder
FILE_BYTES = 32 * 1024 * 1024  # compaction joins smaller files; larger ones stay

_TABLE = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 hours",
    "delta.deletedFileRetentionDuration": "interval 2 hours",
    "delta.enableExpiredLogCleanup": "false",  # ``expire`` does: two remove one file twice
    # None of ids: a table's log would keep those of users who are erased.
    "delta.dataSkippingStatsColumns": "offset,created_at",
}
STORE = {"retry_timeout": "20s"}
"""Of a bucket that hangs: by default three minutes pass before a caller knows."""
Log = Path | str
"""The log's folder, or its address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """How far a partition is logged before a commit and after it: next offsets."""

    start: int
    end: int


def store_options() -> dict[str, str]:
    """Return the options of every call that opens a table."""
    return STORE | secret_options()


def opened(log: Log, topic: str) -> DeltaTable | None:
    """Return the table as it is now; None where nothing was ever logged.

    Raises ``MistakeError`` where there are files of an older release.
    """
    if next(Path(log, topic).glob(OLD_FILES), None):
        raise MistakeError(
            f"{log} is a raw log of a release before 0.3.0: stop the workers and run "
            "`srp4ctr features upgrade-log` (docs/upgrade.md)"
        )
    try:
        with outages(log):
            return DeltaTable(f"{log}/{topic}", storage_options=store_options())
    except TableNotFoundError:
        return None


def created(log: Log, topic: str) -> DeltaTable:
    """Return the table as it is now, made if there is none."""
    schema = table_of(topic, []).schema
    with outages(log):
        return DeltaTable.create(
            f"{log}/{topic}",
            schema,
            "ignore",
            [DATE, "partition"],
            configuration=_TABLE,
            storage_options=store_options(),
        )


def next_offset(table: DeltaTable, partition: int) -> int | None:
    """Return how far a partition is logged; None where none of it ever was."""
    return table.transaction_version(str(partition))


def append(table: DeltaTable, rows: pa.Table, taken: Mapping[int, OffsetRange]) -> bool:
    """Add ``rows`` and how far the partitions are logged with them; both or neither.

    Returns True as well where an earlier call did, and ended with an error after it; False
    where a partition is logged to elsewhere than ``taken`` begins: another writer has it.
    """
    with outages(table.table_uri):
        table.update_incremental()
        logged = {partition: next_offset(table, partition) for partition in taken}
        if all(logged[partition] == each.end for partition, each in taken.items()):
            return True
        if any(logged[p] not in (None, each.start) for p, each in taken.items()):
            return False
        begun = {p: each.start for p, each in taken.items() if logged[p] is None}
        ends = [Transaction(str(p), each.end) for p, each in taken.items()]
        commit = CommitProperties(app_transactions=[*ends, *_firsts(begun)])
        # "merge": an older release's table may lack columns, a newer one's have others.
        write_deltalake(
            table, rows, mode="append", schema_mode="merge", commit_properties=commit
        )
        return True


def _firsts(offsets: Mapping[int, int]) -> list[Transaction]:
    return [Transaction(first_key(each), offset) for each, offset in offsets.items()]


def first_key(partition: int) -> str:
    """Return the name of the transaction that says where a partition's log begins."""
    return f"{partition} first"


def compact(log: Log, topic: str, partition: int) -> int:
    """Join a partition's small files, each date by itself; return how many they were."""
    if (table := opened(log, topic)) is None:
        return 0
    with outages(log):
        done = table.optimize.compact(
            partition_filters=[("partition", "=", str(partition))],
            target_size=FILE_BYTES,
            max_concurrent_tasks=1,
        )
    return int(done["numFilesRemoved"])


def remove_before(log: Log, topic: str, day: date) -> list[str]:
    """Remove the dates before ``day`` from the log and return them."""
    table = opened(log, topic)
    files = file_list(table) if table else []
    old = [each for each in files if each[DATE] < day.isoformat()]
    if table is None or not old:
        return []
    firsts = {each["partition"]: next_offset(table, each["partition"]) or 0 for each in old}
    for each in files:
        if each not in old and each["partition"] in firsts:
            first = min(firsts[each["partition"]], each["first"])
            firsts[each["partition"]] = first
    commit = CommitProperties(app_transactions=_firsts(firsts))
    with outages(log):
        table.delete(f"{DATE} < '{day.isoformat()}'", commit_properties=commit)
    return sorted({each[DATE] for each in old})


def vacuum(log: Log, topic: str, *, at_once: bool = False) -> None:
    """Remove files from the disk that no snapshot of the last hours has.

    So are files that a crash left, and old entries of the table's own log. ``at_once``:
    files that only an older snapshot than the newest has, too; whoever reads that one ends
    with ``OutageError``.
    """
    if (table := opened(log, topic)) is None:
        return
    with outages(log):
        table.vacuum(dry_run=False, full=True)
        if at_once:  # never ``full``: it would remove what is about to be committed
            table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        table.cleanup_metadata()


def file_list(table: DeltaTable) -> list[dict[str, Any]]:
    """Return date, partition and first offset of each file."""
    found = pa.table(table.get_add_actions(flatten=True))
    if not found.num_rows:
        return []
    names = {
        f"partition.{DATE}": DATE,
        "partition.partition": "partition",
        "min.offset": "first",
    }
    rows: list[dict[str, Any]] = found.select(list(names)).to_pylist()
    return [{names[name]: value for name, value in row.items()} for row in rows]


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
