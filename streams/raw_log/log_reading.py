"""The raw log → its rows, in the order of offsets or as Arrow's datasets.

Whoever reads has the snapshot that was the newest when it began.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from srp4ctr.errors import ArtifactError, OutageError, Srp4ctrError
from srp4ctr.streams.raw_log.delta_tables import (
    LOGGED_TOPICS,
    Log,
    file_list,
    first_key,
    next_offset,
    opened,
    outages,
)
from srp4ctr.streams.raw_log.log_tables import (
    DATE,
    MS_PER_DAY,
    date_of,
    schema_of,
    table_of,
)

_ROWS_AT_ONCE = 8192  # as Python objects some 10 MB
_SORT_MEMORY = "512MB"  # beyond it a partition's rows are sorted on disk
_NOT_ANSWERED = "Error performing"  # a request to a bucket
_NEAR = 10_000  # offsets: where the row before one is looked for first


def covered_offsets(log: Log, topic: str, partition: int) -> tuple[int, int]:
    """Return the first and the last offset that are logged; (0, -1) without any."""
    table = opened(log, topic)
    end = next_offset(table, partition) if table else None
    if table is None or end is None:
        return 0, -1
    return table.transaction_version(first_key(partition)) or 0, end - 1


def partitions_of(log: Log, topic: str) -> list[int]:
    """Return the partitions of which there are rows."""
    table = opened(log, topic)
    return sorted({each["partition"] for each in file_list(table)}) if table else []


def dataset(log: Log, topic: str) -> ds.Dataset:
    """Return all rows of a topic as they are now; a table of an older release may lack
    columns, one of a newer release has more."""
    table = opened(log, topic)
    return table.to_pyarrow_dataset() if table else ds.dataset(table_of(topic, []))


def read_rows(
    log: Log, topic: str, partition: int, since_ms: int = 0, start: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a partition in the order of offsets, some at a time.

    Dates before that of ``since_ms``, and offsets before ``start``, are left out.
    """
    rows = dataset(log, topic)
    names = ", ".join(f'"{n}"' for n in schema_of(topic).names if n in rows.schema.names)
    query = f"""SELECT {names} FROM logged
        WHERE "partition" = {partition} AND "offset" >= {start}
        AND "{DATE}" >= '{date_of(since_ms // MS_PER_DAY)}' ORDER BY "offset" """
    with (
        reading(log),
        tempfile.TemporaryDirectory(prefix="srp4ctr-") as spilled,
        duckdb.connect(
            config={"memory_limit": _SORT_MEMORY, "temp_directory": spilled}
        ) as database,
    ):
        database.register("logged", rows)
        for batch in database.sql(query).to_arrow_reader(_ROWS_AT_ONCE):
            yield batch.to_pylist()


def known_ms(log: Log, topic: str, partition: int, offset: int) -> int | None:
    """Return when the last event at or before ``offset`` became known, if it is logged."""
    is_before = (pc.field("partition") == partition) & (pc.field("offset") <= offset)
    rows, columns = dataset(log, topic), ["offset", "created_at"]
    with reading(log):
        for start in (offset - _NEAR, 0):
            is_near = is_before & (pc.field("offset") >= start)
            found = rows.to_table(columns, filter=is_near).sort_by("offset")
            if len(found):
                return int(found["created_at"][-1].as_py())
    return None


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
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's, of another file
        check_files(log)
        if "not found" in str(error) or "No files found" in str(error):
            raise OutageError(
                f"{log} has changed while it was read (an erasure, or hours have passed): "
                f"try again. {error}"
            ) from error
        if _NOT_ANSWERED not in str(error):
            raise
        with outages(log):
            raise OSError(str(error)) from error


def check_files(log: Log) -> None:
    """Read the whole log; raises ``ArtifactError`` at the first damaged file."""
    for topic in LOGGED_TOPICS:
        for fragment in dataset(log, topic).get_fragments():
            try:
                for _ in fragment.to_batches(batch_size=_ROWS_AT_ONCE):
                    pass
            except (OSError, pa.ArrowInvalid) as error:
                if _NOT_ANSWERED in str(error):
                    with outages(log):
                        raise
                raise ArtifactError(
                    f"{log}/{topic}/{fragment.path} is damaged: {error}. Put a backup of "
                    "it there, or remove it and have the table forget it (docs/backup.md): "
                    "then its events miss in training and rebuilds"
                ) from error
