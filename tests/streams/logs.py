"""Writes a raw log as a worker does, and reads which records are in it."""

import asyncio
from collections.abc import Callable
from typing import Any

from deltalake.fs import DeltaStorageHandler
from pyarrow import fs

from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import Log, dataset, read_rows
from srp4ctr.streams.raw_log.log_tables import Row, row_of
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from srp4ctr.testing.raw_logs import write_rows
from tests.builders import NOON_MS, a_behavior
from tests.streams.records import ARecord
from tests.streams.workers import running

TOPIC, PARTITION = BEHAVIOR_EVENTS_TOPIC, 3
MIDNIGHT_AT = 20  # the offset with which a new day begins
MIDNIGHT_MS = NOON_MS - NOON_MS % 86_400_000 + 86_400_000


def log(
    kafka: KafkaConfig,
    config: StreamConfig,
    log_dir: Log,
    records: int,
    is_done: Callable[[], bool] = lambda: True,
) -> None:
    """Write the log until ``records`` behaviour events are committed and ``is_done()``."""

    async def run() -> None:
        writer = EventLogWriter(kafka, config, log_dir)
        async with running(writer):
            await until(lambda: writer.crashed or (committed() >= records and is_done()))
        if writer.crash_reason:
            raise writer.crash_reason

    with progress_of(kafka, config.log_group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())


def logged(log_dir: Log) -> list[tuple[int, int]]:
    """Return partition and offset of every logged event."""
    table = dataset(log_dir, BEHAVIOR_EVENTS_TOPIC).to_table(["partition", "offset"])
    return sorted((row["partition"], row["offset"]) for row in table.to_pylist())


def rows_between(start: int, end: int, user_id: str = "u1") -> list[Row]:
    """Return the rows of the records ``start`` to ``end`` - 1."""
    event = a_behavior(user_id=user_id)
    records = [
        ARecord(
            value=encode(event),
            key=user_id.encode(),
            offset=offset,
            timestamp=MIDNIGHT_MS + (offset - MIDNIGHT_AT) * 1000,
            partition=PARTITION,
        )
        for offset in range(start, end)
    ]
    return [row for row in map(row_of, records) if row is not None]


def write(log_dir: Log, start: int, end: int) -> None:
    """Write what a writer would that has taken the records ``start`` to ``end`` - 1."""
    taken = range(start, end)
    write_rows(log_dir, TOPIC, rows_between(start, end), PARTITION, taken)


def rows(log_dir: Log) -> list[dict[str, Any]]:
    """Return the rows of the log, as they are read."""
    return [row for some in read_rows(log_dir, TOPIC, PARTITION) for row in some]


def offsets(log_dir: Log) -> list[int]:
    """Return every offset in the log, as it is read."""
    return [row["offset"] for row in rows(log_dir)]


def files(log: Log) -> list[str]:
    """Return the paths of the table's files, whether it has them or not any more."""
    store = fs.PyFileSystem(DeltaStorageHandler(f"{log}/{TOPIC}"))
    file_info = store.get_file_info(fs.FileSelector("", recursive=True))
    return sorted(
        each.path for each in file_info if each.path.startswith("date=") and each.is_file
    )
