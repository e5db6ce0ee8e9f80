"""Writes a raw log as a worker does, and reads which records are in it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.fault_injection.topic_reading import progress_of, until
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import encode, event_key
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.log_files import files_of
from srp4ctr.streams.raw_log.log_tables import OffsetRange, row_of, write_range
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from tests.builders import NOON_MS, a_behavior
from tests.streams.records import ARecord
from tests.streams.workers import running

TOPIC, PARTITION = BEHAVIOR_EVENTS_TOPIC, 3
MIDNIGHT_AT = 20  # the offset with which a new day begins
MIDNIGHT_MS = NOON_MS - NOON_MS % 86_400_000 + 86_400_000


def log(
    kafka: KafkaConfig,
    config: StreamConfig,
    log_dir: Path,
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


def logged(log_dir: Path) -> list[tuple[int, int]]:
    """Return partition and offset of every logged event."""
    files = (log_dir / BEHAVIOR_EVENTS_TOPIC).glob("date=*/*.parquet")
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    return sorted((row["partition"], row["offset"]) for row in rows)


def write(
    log_dir: Path, start: int, end: int, rejected: frozenset[int] = frozenset()
) -> None:
    """Write what a writer would that has taken the records ``start`` to ``end``."""
    event = a_behavior()
    records = [
        ARecord(
            value=encode(event),
            key=event_key(event),
            offset=offset,
            timestamp=MIDNIGHT_MS + (offset - MIDNIGHT_AT) * 1000,
            partition=PARTITION,
        )
        for offset in range(start, end + 1)
        if offset not in rejected
    ]
    covered = OffsetRange(topic=TOPIC, partition=PARTITION, start=start, end=end)
    rows = [row for row in map(row_of, records) if row is not None]
    write_range(log_dir, covered, rows)


def logged_offsets(log_dir: Path) -> list[int]:
    """Return every offset in the log, as often as it is there."""
    tables = [
        pq.ParquetFile(path).read(["offset"])
        for path in files_of(log_dir, TOPIC, PARTITION)
    ]
    return sorted(offset for table in tables for offset in table["offset"].to_pylist())
