"""The hot topic: behaviour events → sequences, counters and labels, in batches.

In: ``behavior-events``. Out: rows in the sink, labels and dead letters on their topics,
then the commit: at-least-once delivery, and rows that a repetition does not change.
A Faust service around aiokafka's own consumer group, because an agent's per-event path
takes 19,000 events/s at best where batches take 264,000 (small events, no store).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from mode import Service
from prometheus_client import Counter, Gauge, Histogram

from streams.config import KafkaConfig, StreamConfig
from streams.events import BEHAVIOR_EVENTS_TOPIC
from streams.folding import LoggedEvent
from streams.label_replay import rebuild_labels
from streams.outlets import Outlets
from streams.partition import PartitionState, Record
from streams.sink import FeatureSink

EVENTS = Counter("srp4ctr_events_total", "Events folded, by type", ["type"])
REJECTED = Counter("srp4ctr_events_rejected_total", "Rejected messages", ["reason"])
LABELS = Counter("srp4ctr_labels_total", "Labels published", ["clicked"])
LAG = Gauge("srp4ctr_stream_lag_records", "Records on the topic not yet folded")
FRESHNESS = Histogram(
    "srp4ctr_event_to_sequence_seconds",
    "From an event's publication until the store had acknowledged its effect",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
)
STORE_WRITES = Histogram(
    "srp4ctr_store_write_seconds", "Time of one coalesced write to the store"
)

FETCH_BYTES = 4 * 1024 * 1024
_POLL_MS = 100  # a rebalance or a stop waits for a poll
_IDLE_S = 2.0  # a partition so long without records lives by the wall clock
_MAX_PAUSE_S = 2.0
_FRESH_MS = 3_600_000  # an older record is a backfill: its age says nothing of us
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class SequenceWorker(Service):  # type: ignore[misc]  # mode has no types
    """Follows ``behavior-events`` in a consumer group; any number may share the topic."""

    def __init__(
        self, kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, **mode: Any
    ) -> None:
        super().__init__(**mode)
        self._kafka = kafka
        self._config = config
        self._sink = sink
        self._partitions: dict[TopicPartition, PartitionState] = {}
        self._quiet_since: dict[TopicPartition, float] = {}
        self._lock = asyncio.Lock()  # one of poll-and-store, rebalance and stop at a time
        self._stored_at = time.monotonic()
        self._last_write_s = 0.0

    async def on_start(self) -> None:
        """Join the group."""
        self._outlets = Outlets(self._kafka)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            group_id=self._config.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self._consumer.subscribe([BEHAVIOR_EVENTS_TOPIC], listener=_Handover(self))
        await self._outlets.start()
        await self._consumer.start()

    async def on_stop(self) -> None:
        """Store what is folded, commit and leave the group."""
        try:
            await self.hand_over()
        finally:
            await self._outlets.stop()
            await self._consumer.stop()

    async def hand_over(self) -> None:
        """Store everything before others may continue, and forget it."""
        async with self._lock:
            await self._store()
            self._partitions.clear()

    @Service.task  # type: ignore[untyped-decorator]
    async def _follow(self) -> None:
        while not self.should_stop:
            async with self._lock:
                if not self.should_stop:
                    await self._turn()
            await asyncio.sleep(0)  # let a rebalance have the lock

    async def _turn(self) -> None:
        for source in self._consumer.assignment() - self._partitions.keys():
            await self._prepare(source, await self._consumer.position(source))
        batches = await self._consumer.getmany(
            timeout_ms=_POLL_MS, max_records=self._config.max_poll_records
        )
        for source, records in batches.items():
            if source not in self._partitions:
                await self._prepare(source, records[0].offset)
            self._quiet_since[source] = time.monotonic()
            await self._fold(self._partitions[source], records)
        self._mature_quiet_partitions()
        LAG.set(sum(map(self._lag, self._partitions)))
        if time.monotonic() - self._stored_at >= self._pause_s():
            await self._store()

    async def _prepare(self, source: TopicPartition, next_offset: int) -> None:
        """Begin with a partition: its rows come when they are touched, its labels now."""
        state = PartitionState(source.partition, next_offset, self._config)
        await rebuild_labels(self._kafka, self._config, source, state)
        self._quiet_since[source] = time.monotonic()
        self._partitions[source] = state

    async def _fold(self, state: PartitionState, records: Sequence[Record]) -> None:
        events = state.decode(records, _now_ms())
        await self._load(state, events)
        state.fold(events)

    async def _load(self, state: PartitionState, events: list[LoggedEvent]) -> None:
        """Read the rows that ``events`` touch for the first time."""
        users, items = state.unknown_users(events), state.unknown_items(events)
        if not users and not items:
            return
        user_rows = await self._insist(lambda: self._sink.read_users(users))
        shares = await self._insist(
            lambda: self._sink.read_item_shares(state.partition, items)
        )
        state.remember(user_rows, shares)

    def _mature_quiet_partitions(self) -> None:
        """Let the wall clock close the windows of partitions in which nothing happens."""
        for source, state in self._partitions.items():
            quiet_s = time.monotonic() - self._quiet_since[source]
            if quiet_s >= _IDLE_S and self._lag(source) == 0:
                idle_until_ms = _now_ms() - round(_IDLE_S * 1000)
                state.decided += state.labels.advance(idle_until_ms)

    def _lag(self, source: TopicPartition) -> int:
        """Return how many records are not folded; 1 where the broker has not said yet."""
        end = self._consumer.highwater(source)
        return 1 if end is None else max(0, end - self._partitions[source].next_offset)

    def _pause_s(self) -> float:
        """Return how long to coalesce: while behind, writes get a third of the time."""
        interval_s = self._config.flush_interval_ms / 1000
        return max(interval_s, min(2 * self._last_write_s, _MAX_PAUSE_S))

    async def _store(self) -> None:
        """Write the dirty rows, publish labels and dead letters, then commit."""
        states = [state for state in self._partitions.values() if state.is_dirty]
        self._stored_at = time.monotonic()
        if not states:
            return
        users = [row for state in states for row in state.dirty_users()]
        shares = [row for state in states for row in state.dirty_shares()]
        started = time.monotonic()
        if users or shares:
            await self._insist(lambda: self._sink.write(users, shares))
        self._last_write_s = time.monotonic() - started
        STORE_WRITES.observe(self._last_write_s)
        for state in states:
            await self._outlets.publish_labels(state.decided)
            await self._outlets.publish_rejected(state.rejected)
        await self._commit()
        _count_stored(states)
        for state in states:
            state.stored()
        self._stored_at = time.monotonic()

    async def _commit(self) -> None:
        offsets = {source: state.next_offset for source, state in self._partitions.items()}
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # The group has given these partitions away; whoever has them reads again
            # from the last commit, and the rows recognise what they have seen.
            _log.warning("lost partitions before their commit: %s", error)
            self._partitions.clear()

    async def _insist(self, call: Callable[[], _Result]) -> _Result:
        """Return ``call()``, made in a thread and repeated until the store answers.

        Meanwhile nothing is consumed. Raises the store's error once we are to stop.
        """
        attempt = 0
        while True:
            try:
                return await asyncio.to_thread(call)
            except Exception as error:
                if self.should_stop:
                    raise
                wait_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                _log.warning("the store failed, again in %s s: %r", wait_s, error)
                attempt += 1
                await self.sleep(wait_s)


class _Handover(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Tells the worker before its partitions go to others."""

    def __init__(self, worker: SequenceWorker) -> None:
        self._worker = worker

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._worker.hand_over()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing yet: the worker prepares a partition when it polls."""


def _count_stored(states: Sequence[PartitionState]) -> None:
    now_ms = _now_ms()
    for state in states:
        for rejected in state.rejected:
            REJECTED.labels(rejected.rejected.reason).inc()
        for label in state.decided:
            LABELS.labels(str(label.clicked).lower()).inc()
        for logged in state.folded:
            EVENTS.labels(type(logged.event).__name__.lower()).inc()
            if now_ms - logged.known_at_ms < _FRESH_MS:
                FRESHNESS.observe((now_ms - logged.known_at_ms) / 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
