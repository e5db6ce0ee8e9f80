"""The raw log: every event, item update and label → date-partitioned Parquet.

In: the three topics, in a consumer group of its own. Out: the files from which training
reads; a file is on disk before its offsets are committed, and what a crash left
uncommitted is removed and written again. Committed files are merged when there are many.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import pyarrow as pa
from aiokafka import TopicPartition
from prometheus_client import Counter

from srp4ctr.streams.broker.batch_consumer import BatchConsumer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import Record
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.compaction import merge_some
from srp4ctr.streams.raw_log.duplicate_rows import remove_duplicates
from srp4ctr.streams.raw_log.log_files import (
    OffsetRange,
    files_of,
    remove_before,
    remove_uncommitted,
    remove_unfinished,
    write_range,
)
from srp4ctr.streams.raw_log.row_schema import Row, row_of

LOGGED = Counter("srp4ctr_log_rows_total", "Rows written to the raw log", ["topic"])
MERGED = Counter(
    "srp4ctr_log_files_merged_total",
    "Files of the raw log that were merged into bigger ones",
    ["topic"],
)

_EXPIRE_EVERY_S = 3600.0
_MERGE_AT = 128  # files of a partition: at one each 2 s, what comes in 4 minutes
_AGAIN_S = 10.0  # until tidying that a reader or an error prevented is retried
_Arguments = ParamSpec("_Arguments")
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
class _Written:
    """What is on disk of a partition."""

    committed: int
    """The next offset: files before it are committed."""
    files: int
    """Their number since the last merge."""


class EventLogWriter(BatchConsumer):
    """Writes the raw log: closes a file when it is full or old enough; merges files."""

    def __init__(self, kafka: KafkaConfig, config: StreamConfig, log_dir: Path) -> None:
        super().__init__(kafka, config.log_group_id, LOGGED_TOPICS, config.max_poll_records)
        self._config = config
        self._log_dir = log_dir
        self._unwritten: dict[TopicPartition, _Unwritten] = {}
        self._written: dict[TopicPartition, _Written] = {}
        self._written_at = time.monotonic()
        self._expires_at = self._merges_at = self._written_at

    async def prepare(
        self, source: TopicPartition, next_offset: int, committed: int | None
    ) -> None:
        """Bring the partition's files in line with what the group has committed.

        Raises ``ValueError`` where there are files of a broker that is not this one.
        """
        place = (self._log_dir, source.topic, source.partition)
        if committed is not None:
            # Refused if the partition is not ours any more: a writer that was suspended
            # must not remove what others have written and committed.
            await self.commit({source: committed})
            if self.owns(source):
                remove_uncommitted(*place, committed)
                await self.retry_in_thread(remove_duplicates, *place)
                await self._try(remove_unfinished, *place)
                found = files_of(*place)
                self._written[source] = _Written(committed=committed, files=len(found))
            return
        if files := files_of(*place):
            raise ValueError(
                f"{files[0]} was written from another broker's {source.topic}: this one's "
                f"group {self._config.log_group_id} has never read it. Name another "
                "features.log_dir, or move that folder away"
            )
        # Before the first file: after a crash its offset says which files to remove.
        await self.commit({source: next_offset})
        if self.owns(source):
            self._written[source] = _Written(committed=next_offset, files=0)

    async def process_batch(
        self, source: TopicPartition, records: Sequence[Record]
    ) -> None:
        """Keep the rows of ``records``; rejected messages are not in the log."""
        first = records[0].offset
        unwritten = self._unwritten.setdefault(source, _Unwritten(first, first))
        unwritten.end = records[-1].offset
        rows = (row_of(record) for record in records)
        unwritten.rows += [row for row in rows if row is not None]

    async def after_poll(self) -> None:
        """Write when enough has come or enough time has passed."""
        waiting = sum(len(each.rows) for each in self._unwritten.values())
        is_full = waiting >= self._config.log_flush_records
        waited_s = time.monotonic() - self._written_at
        if is_full or waited_s >= self._config.log_flush_interval_s:
            await self.store()
            await self._merge()
        await self._expire()

    async def _merge(self) -> None:
        """Merge files of one partition that has many of them."""
        many = (source for source in self._written if self._is_due(source))
        source = next(many, None)
        if source is None or time.monotonic() < self._merges_at:
            return
        written = self._written[source] = self._written.pop(source)  # the next is another
        place = (self._log_dir, source.topic, source.partition)
        began = time.monotonic()
        merged = await self._try(merge_some, *place, written.committed)
        # At least half of the time is for new records: to list 300,000 files takes 2.5 s.
        wait_s = max(time.monotonic() - began, _AGAIN_S if merged is None else 0)
        self._merges_at = time.monotonic() + wait_s
        if merged is None:
            return
        if not merged:
            written.files = 0
        else:
            MERGED.labels(source.topic).inc(len(merged))
            _log.debug("merged %d files of %s", len(merged), source)

    def _is_due(self, source: TopicPartition) -> bool:
        return self.owns(source) and self._written[source].files >= _MERGE_AT

    async def _expire(self) -> None:
        """Once an hour, remove the dates that are older than the retention."""
        days = self._config.log_retention_days
        if not days or time.monotonic() < self._expires_at:
            return
        oldest = datetime.now(UTC).date() - timedelta(days=days)
        removed = await self._try(remove_before, self._log_dir, oldest)
        wait_s = _AGAIN_S if removed is None else _EXPIRE_EVERY_S
        self._expires_at = time.monotonic() + wait_s
        for folder in removed or ():
            _log.info("removed %s: older than %g days", folder, days)

    async def _try(
        self,
        call: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result | None:
        """Return ``call(…)``, made in a thread; None if a file caused an error.

        Writing goes on, for the call only tidies what is written.
        """
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except (OSError, pa.ArrowException) as error:
            _log.warning(
                "tidying the raw log failed, retrying in %g s: %r", _AGAIN_S, error
            )
            return None

    async def store(self) -> None:
        """Write a file per partition and date, then commit."""
        self._written_at = time.monotonic()
        unwritten = dict(self._unwritten)
        if not unwritten:
            return
        await self.retry_in_thread(_write, self._log_dir, unwritten)
        await self.commit({source: each.end + 1 for source, each in unwritten.items()})
        for source, each in unwritten.items():
            LOGGED.labels(source.topic).inc(len(each.rows))
            if self.owns(source):  # the commit was accepted
                written = self._written[source]
                written.committed, written.files = each.end + 1, written.files + 1
        self._unwritten.clear()

    def drop_state(self) -> None:
        """Drop what is not written: it will be read again."""
        self._unwritten.clear()
        self._written.clear()


def _write(log_dir: Path, unwritten: dict[TopicPartition, _Unwritten]) -> None:
    for source, each in unwritten.items():
        covered = OffsetRange(
            topic=source.topic, partition=source.partition, start=each.start, end=each.end
        )
        write_range(log_dir, covered, each.rows)
