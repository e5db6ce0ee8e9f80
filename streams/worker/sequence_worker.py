"""The hot topic: behaviour events → sequences, counters and labels, in batches.

In: ``behavior-events``. Out: rows in the sink, labels and dead letters on their topics,
then the commit: at-least-once delivery, and rows that a repetition does not change.
A Faust service around aiokafka's own consumer group, because an agent's per-event path
takes 19,000 events/s at best where batches take 264,000 (small events, no store).
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from aiokafka import TopicPartition
from mode import Service

from srp4ctr.errors import ArtifactError
from srp4ctr.streams.broker.commands import request_rebuild
from srp4ctr.streams.broker.output_topics import OutputProducer
from srp4ctr.streams.broker.topics import end_offsets
from srp4ctr.streams.broker.worker_clients import BatchConsumer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import Record, located, noted, place_of
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    Rebuild,
    now_ms,
)
from srp4ctr.streams.raw_log.delta_tables import Log, covered_offsets
from srp4ctr.streams.state.partition_state import PartitionState, PendingWrites
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import FeatureSink, LostWritesError
from srp4ctr.streams.worker import measurements
from srp4ctr.streams.worker.lost_rows import SAMPLE, UNKNOWN, LossWatch, note_loss
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource, replay_memory

_Pending = Mapping[TopicPartition, PendingWrites]
_log = logging.getLogger(__name__)
_IDLE_S = 2.0  # a partition without records for that long lives by the wall clock
_MAX_PAUSE_S = 2.0
_POLLS_AHEAD = 5  # that many polls' events may be folded while others are being stored
_PROFILES_S = 60.0  # partitions that are lost together are found out within it


class SequenceWorker(Service):  # type: ignore[misc]  # mode has no types
    """Consumes ``behavior-events`` in a group; an error that escapes ends the process."""

    def __init__(
        self, kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, log: Log
    ) -> None:
        super().__init__()
        topics = [BEHAVIOR_EVENTS_TOPIC]
        self.group = BatchConsumer[PartitionState](
            kafka, config.group_id, topics, config.max_poll_records, self._store_all
        )
        self._kafka = kafka
        self._config = config
        self._sink = sink
        self._raw_log = log
        self._outputs = OutputProducer(kafka)
        self._quiet_since: dict[TopicPartition, float] = {}
        self._stored_at = time.monotonic()
        self._last_write_s = 0.0
        self._behind = 0
        self._storing: asyncio.Future[_Pending] | None = None
        self._profiles_until = 0.0
        self._losses = LossWatch(self._read, self._order_rebuild)

    async def on_start(self) -> None:
        """Connect the producer, then join the group."""
        await self._outputs.start()
        await self.group.start()

    async def on_stop(self) -> None:
        """Store what is folded, commit and leave the group."""
        try:
            await self.group.stop()
        finally:
            await self._outputs.stop()

    @Service.task  # type: ignore[untyped-decorator]
    async def _run(self) -> None:
        """Begin with new partitions, fold what has come, store when it is time."""
        while not self.should_stop:
            async with self.group.poll(self._begin, self._fold):
                self._mature_and_measure()
                await self._keep_storing()

    async def _begin(self, source: TopicPartition) -> None:
        """Replay what the partition remembers; rows are loaded as events need them."""
        committed, has_committed = await self.group.next_offset(source)
        at = await self.group.in_thread("store_read", self._sink.begin, source.partition)
        self._losses.rebuilt(source)  # or another member has: what was ordered is over
        start = committed
        if has_committed:
            start = await self._whole_until(source, committed, at)
        start = await self.group.seek(source, start)
        self.group.consumer.resume(source)  # a rebuild may have paused it
        replay = partial(self._replayed, source, start)
        state, stored = await self.group.retry("replay", replay)
        self.group.partitions[source] = state
        self._quiet_since[source] = time.monotonic()
        if stored and has_committed:
            await self._losses.check(source, stored)

    async def _whole_until(
        self, source: TopicPartition, committed: int, at: int | None
    ) -> int:
        """Return where to begin, if the store has the rows up to ``at``.

        It is before ``committed`` where the store has lost rows. Orders a rebuild where
        Kafka has not got the records from there on, or the store knows no offset.
        """
        if not committed or (at is not None and at >= committed):
            return committed
        if at is None or at < await self.group.first_offset(source):
            await self._losses.order(source)
            return committed
        note_loss()
        self._begin_restoring_profiles()
        _log.error(
            "the store has lost the last rows that it had acknowledged: reads %d records "
            "again",
            committed - at,
            extra=place_of(source, at),
        )
        return at

    async def _replayed(
        self, source: TopicPartition, start: int
    ) -> tuple[PartitionState, dict[str, int]]:
        """Return the state at ``start``, and the users of the last events before it.

        Which event their rows end with is unknown: it may not have changed them.
        """
        state = PartitionState(source.partition, start, self._config)
        if not start:
            return state, {}
        async with ReplaySource.opened(self._kafka, self._raw_log, source) as past:
            await replay_memory(past, self._config, state)
            last = past.events(0, start, max(0, start - SAMPLE))
            users = {each.event.user_id async for some in last for each in some}
            return state, dict.fromkeys(users, UNKNOWN)

    async def _fold(
        self, source: TopicPartition, state: PartitionState, records: Sequence[Record]
    ) -> None:
        """Decode ``records``, load the rows that are not in memory, and fold.

        A command waits until all before it is stored; what comes after it waits in Kafka.
        """
        self._quiet_since[source] = time.monotonic()
        began_ns = time.time_ns()
        with located(records, self._fold_alone):
            events, command = state.decode(records)
            users, shares = state.missing_rows(events)
            if users or shares:
                rows = await self._read(users, shares)
                if elsewhere := state.cache_rows(users, shares, rows):
                    events = state.reject_moved(elsewhere, events, records)
            state.fold(events, now_ms())
        measurements.trace("fold", events, began_ns)
        if command is not None:
            self.group.consumer.pause(source)
            await self._store_all()
            if self.group.partitions.get(source) is state:
                self.add_future(self._rebuild(source, state, command))

    def _fold_alone(self, record: Record) -> None:
        """Fold ``record`` into nothing, to find out which one of a batch fails."""
        state = PartitionState(record.partition, record.offset, self._config)
        events, _ = state.decode([record])
        state.cache_rows(*state.missing_rows(events), Rows())
        state.fold(events, now_ms())

    def _mature_and_measure(self) -> None:
        """Let the wall clock close the windows of partitions in which nothing happens."""
        self._behind = 0
        for source, state in self.group.partitions.items():
            end = self.group.highwater(source)
            lag = 1 if end is None else max(0, end - state.next_offset)
            self._behind += lag
            quiet_s = time.monotonic() - self._quiet_since[source]
            if quiet_s >= _IDLE_S and not lag:
                idle_until_ms = now_ms() - round(_IDLE_S * 1000)
                state.decided += state.labels.advance(idle_until_ms)
        joins = [state.labels for state in self.group.partitions.values()]
        measurements.observe(self._behind, joins)

    async def _keep_storing(self) -> None:
        """Commit what was stored meanwhile, and begin with what has come since.

        One batch is being stored while the next is folded. Nothing more is consumed when
        that one is full as well: a store that hangs must not cost memory.
        """
        partitions = self.group.partitions
        ahead = sum(
            len(partition.folded) + len(partition.rejected)
            for partition in partitions.values()
        )
        is_full = ahead >= _POLLS_AHEAD * self._config.max_poll_records
        if self._storing and (self._storing.done() or is_full):
            await self._finish_storing()
        if not self._storing:
            now = time.monotonic()
            if now >= self._losses.due:
                await self._losses.check_all(partitions)
            pause_s = self._config.flush_interval_ms / 1000
            if self._behind > self._config.max_poll_records:  # longer, for the rate's sake
                pause_s = max(pause_s, min(3 * self._last_write_s, _MAX_PAUSE_S))
            if now - self._stored_at >= pause_s:
                self._begin_storing()

    async def _store_all(self) -> None:
        """Make everything durable that was folded, and commit it."""
        await self._finish_storing()
        self._begin_storing()
        await self._finish_storing()

    def _begin_storing(self) -> None:
        """Take what is new of each partition, and begin to store it."""
        self._stored_at = time.monotonic()
        pending = {
            source: state.take_pending()
            for source, state in self.group.partitions.items()
            if state.is_dirty
        }
        if pending:
            self._storing = asyncio.ensure_future(self._store(pending))

    async def _store(self, pending: _Pending) -> _Pending:
        """Write the rows, publish labels and dead letters; return what is durable now.

        aiokafka gives up after 40 s without a broker. What it had sent until then is
        published twice, as after a crash: readers recognise both by their identity.
        """
        ends = {each.partition: new.next_offset for each, new in pending.items()}
        with noted(f"{BEHAVIOR_EVENTS_TOPIC}, next offsets by partition {ends}"):
            rows = Rows()
            for each in pending.values():
                rows.update(each.rows)
            started, began_ns = time.monotonic(), time.time_ns()
            await self.group.in_thread("store_write", self._sink.write, rows, ends)
            self._last_write_s = time.monotonic() - started
            for each in pending.values():
                measurements.trace("write to the store", each.folded, began_ns)
            measurements.STORE_WRITES.observe(self._last_write_s)
            labels = {at.partition: each.decided for at, each in pending.items()}
            await self.group.retry("labels", partial(self._outputs.publish_labels, labels))
            bad = [record for each in pending.values() for record in each.rejected]
            publish = self._outputs.publish_rejected
            await self.group.retry("dead_letters", partial(publish, bad))
        return pending

    async def _finish_storing(self) -> None:
        """Wait for what is being stored, if anything, and commit it.

        Where the store has lost earlier rows it is not stored: the worker begins again.
        """
        storing, self._storing = self._storing, None
        if storing is None:
            return
        try:
            pending = await storing
        except LostWritesError as error:
            _log.warning("begins again with all partitions: %s", error)
            self.group.begin_again()
            return
        await self.group.commit({each: new.next_offset for each, new in pending.items()})
        partitions = self.group.partitions
        for source, each in pending.items():
            measurements.count(each.folded)
            if state := partitions.get(source):
                state.evict(self._config.cache_mb * 1_000_000 // len(partitions))

    async def _order_rebuild(self, source: TopicPartition) -> None:
        """Send the rebuild command to one partition; items get their attributes back."""
        order = (self._kafka, 0, [source.partition])
        await self.group.in_thread("command", request_rebuild, *order)
        self._begin_restoring_profiles()

    def _begin_restoring_profiles(self) -> None:
        """Restore items' attributes, once for partitions whose loss is found together."""
        if time.monotonic() > self._profiles_until:
            self._profiles_until = time.monotonic() + _PROFILES_S
            self.add_future(self._restore_profiles())

    async def _restore_profiles(self) -> None:
        """Store items' newest attributes again, once the raw log has what Kafka has now."""
        until = time.monotonic() + _PROFILES_S
        ends = await self.group.in_thread("offsets", end_offsets, self._kafka, ITEMS_TOPIC)
        try:
            while not await asyncio.to_thread(self._has_items, ends):
                if time.monotonic() > until:
                    _log.warning("the raw log lacks the last updates of items")
                    break
                await asyncio.sleep(1.0)
            await self.group.in_thread("store_write", self._sink.restore_profiles)
        except ArtifactError as error:  # users' rows need not wait for it
            _log.error("items have no attributes: %s; srp4ctr stream rebuild", error)

    def _has_items(self, ends: Mapping[int, int]) -> bool:
        """Return whether the raw log has the updates of items before ``ends``."""
        covered = (covered_offsets(self._raw_log, ITEMS_TOPIC, number) for number in ends)
        return all(
            end <= last + 1 for end, (_, last) in zip(ends.values(), covered, strict=True)
        )

    async def _rebuild(
        self, source: TopicPartition, state: PartitionState, command: Rebuild
    ) -> None:
        """Rebuild the rows of ``source`` from its past, and resume after the command.

        Until then the command is not committed: the partition's next owner begins again.
        A rebuild that has lost its partition writes nothing more.
        """

        async def write(rows: Rows) -> None:
            async with self.group.lock:
                if self.group.partitions.get(source) is not state:
                    raise asyncio.CancelledError
                call = ("store_write", self._sink.write, rows, {source.partition: at})
                try:
                    await self.group.in_thread(*call)
                except LostWritesError as error:
                    _log.warning("begins the rebuild again: %s", error)
                    self.group.begin_again()
                    raise asyncio.CancelledError from error

        async def rebuild() -> tuple[int, int]:
            async with ReplaySource.opened(self._kafka, self._raw_log, source) as past:
                done = await rebuild_rows(past, span, self._config, self._read, write)
                return done, past.end

        at = state.next_offset
        span = Span(partition=source.partition, since_ms=command.since_ms, end=at)
        users, end = await self.group.retry("rebuild", rebuild)
        async with self.group.lock:
            if self.group.partitions.get(source) is state:
                state.rebuilt(command, end)
                self.group.consumer.seek(source, state.next_offset)
                self.group.consumer.resume(source)
                self._losses.rebuilt(source)
        measurements.REBUILT.inc(users)
        _log.info("rebuilt %d users", users, extra=place_of(source, at))

    async def _read(
        self, users: Collection[str], shares: Collection[ItemPartitionKey]
    ) -> Rows:
        return await self.group.in_thread("store_read", self._sink.read, users, shares)
