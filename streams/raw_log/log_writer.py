"""The raw log: every event, item update and label → Delta Lake tables.

In: the three topics, in a consumer group of its own. Out: the tables from which training
reads; rows are in them before their offsets are committed to Kafka, and a restart resumes
at the table's offsets. Small files are joined, and old dates removed, while rows come.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from aiokafka import TopicPartition
from deltalake import DeltaTable
from mode import Service

from srp4ctr import metrics
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.streams.broker.worker_clients import BatchConsumer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import Record, located, noted, place_of
from srp4ctr.streams.raw_log import compaction, delta_tables
from srp4ctr.streams.raw_log.delta_tables import LOGGED_TOPICS, Log
from srp4ctr.streams.raw_log.log_tables import Row, row_of, table_of

LOGGED = metrics.counter("srp4ctr_log_rows_total")
MERGED = metrics.counter("srp4ctr_log_files_merged_total")

_TIDY_EVERY_S = 300.0
_EXPIRE_EVERY_S = 3600.0
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Partition:
    """What is in the table of a partition, and what is not."""

    logged: int
    """The next offset that is not."""
    taken: int
    """The next offset that has not come."""
    rows: list[Row] = field(default_factory=list)


class EventLogWriter(Service):  # type: ignore[misc]  # mode has no types
    """Writes the raw log: commits when enough has come, or after some time."""

    def __init__(self, kafka: KafkaConfig, config: StreamConfig, log: Log) -> None:
        super().__init__()
        group_id, max_records = config.log_group_id, config.max_poll_records
        self.group = BatchConsumer[_Partition](
            kafka, group_id, LOGGED_TOPICS, max_records, self._store
        )
        self._config = config
        self._raw_log = log
        self._tables: dict[str, DeltaTable] = {}
        self._written_at = time.monotonic()
        self._expires_at = self._written_at

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

    async def _begin(self, source: TopicPartition) -> None:
        """Go to where the table ends; what was committed before it was logged comes again.

        Raises ``MistakeError`` where the table is of a broker that is not this one.
        """
        start, has_committed = await self.group.next_offset(source)
        logged = await self.group.in_thread("log_files", self._logged, source)
        if logged is not None and not has_committed:
            raise MistakeError(
                f"{self._raw_log} was written from another broker's {source.topic}: this "
                f"one's group {self._config.log_group_id} has never read it. Name another "
                "features.log_dir, or move that folder away"
            )
        consumer = self.group.consumer
        ends = await self.group.retry("offsets", lambda: consumer.end_offsets([source]))
        start = start if logged is None else min(logged, ends[source])
        start = await self.group.seek(source, start)
        # Before the first row: a table of a group that has committed nothing is refused.
        if not await self.group.commit({source: start}):
            return
        partition = _Partition(logged=start, taken=start)
        if logged is not None and start > logged:
            hole = range(logged, start)
            place = (self._raw_log, source.topic, source.partition)
            await self.group.in_thread("log_files", delta_tables.skip, *place, hole)
        if logged is not None and start < logged:
            where = place_of(source, start)
            _log.warning("Kafka lost records, which stay in the raw log", extra=where)
            lost = {source: replace(partition, logged=logged)}
            await self.group.in_thread("log_files", self._append, source.topic, lost)
        self.group.partitions[source] = partition

    def _logged(self, source: TopicPartition) -> int | None:
        table = delta_tables.opened(self._raw_log, source.topic)
        return delta_tables.next_offset(table, source.partition) if table else None

    async def _take(
        self, _: TopicPartition, partition: _Partition, records: Sequence[Record]
    ) -> None:
        """Keep the rows of ``records``; rejected messages are not in the log."""
        with located(records, row_of):
            partition.rows += [row for row in map(row_of, records) if row is not None]
        partition.taken = records[-1].offset + 1

    def _is_time(self) -> bool:
        """Return whether enough has come or enough time has passed to write."""
        waiting = sum(len(partition.rows) for partition in self.group.partitions.values())
        waited_s = time.monotonic() - self._written_at
        is_full = waiting >= self._config.log_flush_records
        return is_full or waited_s >= self._config.log_flush_interval_s

    async def _store(self) -> None:
        """Add to each topic's table what has come of it, then commit to Kafka."""
        self._written_at = time.monotonic()
        for topic in LOGGED_TOPICS:
            new = {
                source: each
                for source, each in self.group.partitions.items()
                if source.topic == topic and each.taken > each.logged
            }
            if new:
                await self._store_topic(topic, new)

    async def _store_topic(
        self, topic: str, new: Mapping[TopicPartition, _Partition]
    ) -> None:
        ends = {source: each.taken for source, each in new.items()}
        if not await self.group.in_thread("log_files", self._append, topic, new):
            _log.warning("another writer has added to %s: begins where it ended", topic)
            for source in new:  # if they are ours, from where the table ends now
                self.group.partitions.pop(source, None)
            return
        for source, each in new.items():
            LOGGED.labels(source.topic).inc(len(each.rows))
            each.logged, each.rows = ends[source], []
        await self.group.commit(ends)

    def _append(self, topic: str, new: Mapping[TopicPartition, _Partition]) -> bool:
        table = self._tables.pop(topic, None) or delta_tables.created(self._raw_log, topic)
        taken = {
            source.partition: range(each.logged, each.taken) for source, each in new.items()
        }
        rows = [row for each in new.values() for row in each.rows]
        places = [f"{p}, offset {e.start} to {e.stop - 1}" for p, e in taken.items()]
        with noted(f"{topic}, partition {'; '.join(places)}"):
            is_ours = delta_tables.append(table, table_of(topic, rows), taken)
        self._tables[topic] = table  # after an error it is opened again
        return is_ours

    @Service.task  # type: ignore[untyped-decorator]
    async def _tidy(self) -> None:
        """Now and then join the small files of our partitions; hourly, remove the old."""
        while not self.should_stop:
            await self.sleep(_TIDY_EVERY_S)
            for topic, partition in sorted(self.group.partitions):
                merged = await self._try(compaction.compact, topic, partition)
                MERGED.labels(topic).inc(merged or 0)
            if time.monotonic() >= self._expires_at:
                self._expires_at = time.monotonic() + _EXPIRE_EVERY_S
                for topic, partition in sorted(self.group.partitions):
                    if partition == 0:  # one writer for each table
                        await self._try(self._expire, topic)

    def _expire(self, log: Log, topic: str) -> None:
        if days := self._config.log_retention_days:
            oldest = datetime.now(UTC).date() - timedelta(days=days)
            for date in delta_tables.remove_before(log, topic, oldest):
                _log.info("removed %s of %s: older than %g days", date, topic, days)
        delta_tables.vacuum(log, topic)

    async def _try(self, call: Callable[..., _Result], *place: Any) -> _Result | None:
        """Return ``call(log, *place)``, made in a thread; None if a disk or a conflict is
        against it, until the next time."""
        try:
            return await asyncio.to_thread(call, self._raw_log, *place)
        except OutageError as error:
            _log.warning("tidying the raw log failed, retrying later: %s", error)
            return None
