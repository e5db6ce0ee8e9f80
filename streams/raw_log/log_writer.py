"""The raw log: every event, item update and label → date-partitioned Parquet.

In: the three topics, in a consumer group of its own. Out: the files from which training
reads; a file is on disk before its offsets are committed, and what a crash left
uncommitted is removed and written again. Committed files are merged when there are many.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from aiokafka import TopicPartition
from mode import Service
from prometheus_client import Counter

from srp4ctr.errors import MistakeError
from srp4ctr.streams.broker.worker_clients import BatchConsumer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import Record, located, noted, place_of
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.compaction import merge_some, remove_duplicates
from srp4ctr.streams.raw_log.log_files import (
    files_of,
    remove_before,
    remove_uncommitted,
    remove_unfinished,
)
from srp4ctr.streams.raw_log.log_tables import OffsetRange, Row, row_of, write_range

LOGGED = Counter("srp4ctr_log_rows_total", "Rows written to the raw log", ["topic"])
MERGED = Counter(
    "srp4ctr_log_files_merged_total",
    "Files of the raw log that were merged into bigger ones",
    ["topic"],
)

_EXPIRE_EVERY_S = 3600.0
_MERGE_AT = 128  # files of a partition: at one each 2 s, what comes in 4 minutes
_AGAIN_S = 10.0  # until tidying that a reader or an error prevented is retried
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

LOGGED_TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC)


@dataclass(slots=True)
class _Unwritten:
    """The rows of a partition since its last file."""

    start: int
    end: int
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class _Partition:
    """What is on disk of a partition, and what is not."""

    committed: int
    """The next offset: files before it are committed."""
    files: int
    """Their number since the last merge."""
    unwritten: _Unwritten | None = None


class EventLogWriter(Service):  # type: ignore[misc]  # mode has no types
    """Writes the raw log: closes a file when it is full or old enough; merges files."""

    def __init__(self, kafka: KafkaConfig, config: StreamConfig, log_dir: Path) -> None:
        super().__init__()
        group_id, max_records = config.log_group_id, config.max_poll_records
        self.group = BatchConsumer[_Partition](
            kafka, group_id, LOGGED_TOPICS, max_records, self._store
        )
        self._config = config
        self._log_dir = log_dir
        self._written_at = time.monotonic()
        self._expires_at = self._merges_at = self._written_at

    async def on_start(self) -> None:
        """Join the group."""
        await self.group.start()

    async def on_stop(self) -> None:
        """Write what has come, commit and leave the group."""
        await self.group.stop()

    @Service.task  # type: ignore[untyped-decorator]
    async def _run(self) -> None:
        """Begin with new partitions, take rows, and write when it is time."""
        while not self.should_stop:
            async with self.group.poll(self._begin, self._take):
                if self._is_time():
                    await self._store()
                    await self._merge()
                await self._expire()

    async def _begin(self, source: TopicPartition) -> None:
        """Bring the partition's files in line with what the group has committed.

        Raises ``MistakeError`` where there are files of a broker that is not this one.
        """
        start, has_committed = await self.group.seek_committed(source)
        place = (self._log_dir, source.topic, source.partition)
        files = files_of(*place)
        if files and not has_committed:
            raise MistakeError(
                f"{files[0]} was written from another broker's {source.topic}: this one's "
                f"group {self._config.log_group_id} has never read it. Name another "
                "features.log_dir, or move that folder away"
            )
        # Before the first file: after a crash its offset says which files to remove. And
        # refused if the partition is not ours any more: a writer that was suspended must
        # not remove what others have written and committed.
        if not await self.group.commit({source: start}):
            return
        if has_committed:
            await self.group.in_thread("log_files", remove_uncommitted, *place, start)
            await self.group.in_thread("log_files", remove_duplicates, *place)
            await self._try(lambda: remove_unfinished(*place))
        found = len(files_of(*place))
        self.group.partitions[source] = _Partition(committed=start, files=found)

    async def _take(
        self, _: TopicPartition, partition: _Partition, records: Sequence[Record]
    ) -> None:
        """Keep the rows of ``records``; rejected messages are not in the log."""
        first = records[0].offset
        with located(records, row_of):
            rows = [row for row in map(row_of, records) if row is not None]
        unwritten = partition.unwritten = partition.unwritten or _Unwritten(first, first)
        unwritten.end = records[-1].offset
        unwritten.rows += rows

    def _is_time(self) -> bool:
        """Return whether enough has come or enough time has passed to write a file."""
        partitions = self.group.partitions.values()
        waiting = sum(len(each.unwritten.rows) for each in partitions if each.unwritten)
        waited_s = time.monotonic() - self._written_at
        is_full = waiting >= self._config.log_flush_records
        return is_full or waited_s >= self._config.log_flush_interval_s

    async def _store(self) -> None:
        """Write a file per partition and date, then commit."""
        self._written_at = time.monotonic()
        partitions = self.group.partitions.items()
        new = {source: each.unwritten for source, each in partitions if each.unwritten}
        if not new:
            return
        await self.group.in_thread("log_files", _write, self._log_dir, new)
        await self.group.commit({source: each.end + 1 for source, each in new.items()})
        for source, each in new.items():
            LOGGED.labels(source.topic).inc(len(each.rows))
            if partition := self.group.partitions.get(source):  # the commit was accepted
                partition.committed, partition.unwritten = each.end + 1, None
                partition.files += 1

    async def _merge(self) -> None:
        """Merge files of one partition that has many of them."""
        partitions = self.group.partitions
        many = (each for each in partitions if partitions[each].files >= _MERGE_AT)
        source = next(many, None)
        if source is None or time.monotonic() < self._merges_at:
            return
        partition = partitions[source] = partitions.pop(source)  # the next is another
        place = (self._log_dir, source.topic, source.partition)
        began = time.monotonic()
        merged = await self._try(lambda: merge_some(*place, partition.committed))
        # At least half of the time is for new records: to list 300,000 files takes 2.5 s.
        wait_s = max(time.monotonic() - began, _AGAIN_S if merged is None else 0)
        self._merges_at = time.monotonic() + wait_s
        if merged is None:
            return
        if not merged:
            partition.files = 0
        else:
            MERGED.labels(source.topic).inc(len(merged))
            where = place_of(source, partition.committed)
            _log.debug("merged %d files", len(merged), extra=where)

    async def _expire(self) -> None:
        """Once an hour, remove the dates that are older than the retention."""
        days = self._config.log_retention_days
        if not days or time.monotonic() < self._expires_at:
            return
        oldest = datetime.now(UTC).date() - timedelta(days=days)
        removed = await self._try(lambda: remove_before(self._log_dir, oldest))
        wait_s = _AGAIN_S if removed is None else _EXPIRE_EVERY_S
        self._expires_at = time.monotonic() + wait_s
        for folder in removed or ():
            _log.info("removed %s: older than %g days", folder, days)

    async def _try(self, call: Callable[[], _Result]) -> _Result | None:
        """Return ``call()``, made in a thread; None if a file caused an error.

        Writing goes on, for the call only tidies what is written.
        """
        try:
            return await asyncio.to_thread(call)
        except (OSError, pa.ArrowException) as error:
            _log.warning(
                "tidying the raw log failed, retrying in %g s: %r", _AGAIN_S, error
            )
            return None


def _write(log_dir: Path, unwritten: Mapping[TopicPartition, _Unwritten]) -> None:
    for source, each in unwritten.items():
        covered = OffsetRange(
            topic=source.topic, partition=source.partition, start=each.start, end=each.end
        )
        where = f"{source.topic}, partition {source.partition}, offset {each.start}"
        with noted(f"{where} to {each.end}"):
            write_range(log_dir, covered, each.rows)
