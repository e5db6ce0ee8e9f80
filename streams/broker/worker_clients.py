"""A worker's Kafka: batches of records in, labels and dead letters out, and the commit.

A worker polls in one loop. What it holds of each partition is kept by its group's member,
because it ends when the partition may go to another one: everything is stored before that.
What is published is awaited before a commit.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Generic, TypeVar

import prometheus_client as metrics
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener
from mode import Service

from srp4ctr.errors import OutageError
from srp4ctr.retries import retry_async
from srp4ctr.streams.broker.clients import RefusedError, client_arguments
from srp4ctr.streams.broker.topics import committed_offsets
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import Record, RejectedRecord, place_of
from srp4ctr.streams.events.schema import LABELS_TOPIC, REJECTED_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label

FETCH_BYTES = 4 * 1024 * 1024
MAX_REQUEST_BYTES = 4 * 1024 * 1024
REJECTED = metrics.Counter("srp4ctr_events_rejected_total", "Rejected messages", ["reason"])
LABELS = metrics.Counter("srp4ctr_labels_total", "Labels published", ["clicked"])
_POLL_MS = 100  # a rebalance or a stop waits for a poll
_AT_ONCE = 100  # dead letters that are sent together
_KEPT_BYTES = 64 * 1024  # of a message that even its dead-letter topic refuses

Batches = Mapping[TopicPartition, Sequence[Record]]
_State = TypeVar("_State")
_Result = TypeVar("_Result")
Begin = Callable[[TopicPartition], Awaitable[None]]
Take = Callable[[TopicPartition, _State, Sequence[Record]], Awaitable[None]]
_log = logging.getLogger(__name__)


class BatchConsumer(ConsumerRebalanceListener, Generic[_State]):  # type: ignore[misc]
    """Consumes ``topics`` in a group; ``store`` makes durable and commits all polled."""

    def __init__(
        self,
        kafka: KafkaConfig,
        group_id: str,
        topics: Sequence[str],
        max_records: int,
        store: Callable[[], Awaitable[None]],
    ) -> None:
        self.partitions: dict[TopicPartition, _State] = {}
        """What the worker holds of each partition that it has begun with."""
        self.lock = asyncio.Lock()
        """Held by one batch, rebalance or stop at a time."""
        self.consumer: Any = None  # made in the event loop, when it starts
        self._kafka = kafka
        self._group_id = group_id
        self._topics = topics
        self._max_records = max_records
        self._store = store
        self._assigned: set[TopicPartition] = set()
        self._generation = 0  # a new one begins whenever partitions may go to others
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Join the group."""
        self.consumer = AIOKafkaConsumer(
            **client_arguments(self._kafka),
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self.consumer.subscribe(list(self._topics), listener=self)
        await self.consumer.start()

    async def stop(self) -> None:
        """Store everything, commit and leave the group."""
        self._stopping.set()
        if self.consumer is None:
            return
        try:
            await self.flush_and_release()
        finally:
            await self.consumer.stop()

    @asynccontextmanager
    async def poll(self, begin: Begin, take: Take[_State]) -> AsyncIterator[None]:
        """Poll once; until the block ends, partitions neither come nor go.

        ``begin`` prepares what is newly assigned, then ``take`` gets the records of each
        partition that was begun with before. If one of them or the block raises, nothing
        is committed: half a batch may be processed.
        """
        # Without the lock: in a rebalance a poll waits until partitions are released.
        polled: Batches = {}
        with suppress(errors.ConsumerStoppedError):
            polled = await self.consumer.getmany(
                timeout_ms=_POLL_MS, max_records=self._max_records
            )
        generation = self._generation  # nothing was awaited since the records came
        async with self.lock:
            known = set(self.partitions) if generation == self._generation else set()
            try:
                while new := self._assigned - self.partitions.keys():
                    await begin(new.pop())
                for source, records in polled.items():
                    if source in known and (state := self.partitions.get(source)):
                        await take(source, state, records)
                yield
            except BaseException:
                self._release()
                raise
        await asyncio.sleep(0)  # let a rebalance have the lock

    async def seek_committed(self, source: TopicPartition) -> tuple[int, bool]:
        """Go to the next offset to read of ``source``, however far it was read before.

        Returns it, and whether the group has ever committed it.
        """
        start, is_committed = await self.retry("offsets", lambda: self._next(source))
        self.consumer.seek(source, start)
        return start, is_committed

    async def _next(self, source: TopicPartition) -> tuple[int, bool]:
        committed: int | None = await self.consumer.committed(source)
        if committed is None:
            # aiokafka overlooks the error of a coordinator that is still loading, after
            # the broker's restart, and returns None as if nothing was ever committed.
            place = (self._kafka, self._group_id, source.topic)
            known = await asyncio.to_thread(committed_offsets, *place)
            committed = known.get(source.partition)
        if committed is not None:
            return committed, True
        return (await self.consumer.beginning_offsets([source]))[source], False

    def highwater(self, source: TopicPartition) -> int | None:
        """Return the end of ``source``; None where it is unknown or not assigned."""
        if source not in self._assigned:
            return None
        end: int | None = self.consumer.highwater(source)
        return end

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Commit that all before ``offsets`` is stored; False if partitions were lost."""
        try:
            await self.consumer.commit(dict(offsets))
        except errors.CommitFailedError as error:
            # The group has given these partitions away; their new owner reads again
            # from the last commit, and what is stored recognises what it has seen. The
            # next assignment says what is ours.
            for source, at in offsets.items():
                _log.warning(
                    "lost before its commit: %s", error, extra=place_of(source, at)
                )
            self._release()
            return False
        return True

    async def retry(
        self, operation: str, call: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        """Return ``await call()`` as ``retry`` does, until the member is to stop.

        Meanwhile nothing is consumed.
        """
        return await retry(operation, call, self._stopping)

    async def in_thread(
        self, operation: str, call: Callable[..., _Result], *args: Any
    ) -> _Result:
        """Return ``call(*args)``, made in a thread and repeated as ``retry`` does."""
        return await self.retry(operation, lambda: asyncio.to_thread(call, *args))

    async def flush_and_release(self) -> None:
        """Store everything, so that others may continue, and drop all partitions."""
        async with self.lock:
            try:
                await self._store()
            finally:
                self._release()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Let others continue; what stays here comes again."""
        await self.flush_and_release()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Consume ``assigned`` from now on, until they are released."""
        self._assigned = set(assigned)

    def _release(self) -> None:
        self._generation += 1
        self._assigned.clear()
        self.partitions.clear()


async def retry(
    operation: str,
    call: Callable[[], Awaitable[_Result]],
    stopping: asyncio.Event | None = None,
) -> _Result:
    """Return ``await call()``, repeated for as long as its error may pass.

    Any other error is raised at once, and the last one when ``stopping`` is set.
    """
    stopping = stopping or asyncio.Event()

    async def attempt() -> _Result:
        try:
            return await call()
        except (errors.KafkaTimeoutError, RefusedError) as error:
            # This process was let in: a broker that refuses it now is starting.
            raise OutageError(f"{operation}: {error}") from error
        except OSError as error:
            # A file system's; a damaged Parquet file is an error without a number.
            if error.errno is None or isinstance(error, PermissionError):
                raise
            raise OutageError(f"{operation}: {error}") from error

    async def pause(seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)

    return await retry_async(operation, attempt, should_stop=stopping.is_set, sleep=pause)


class OutputProducer(Service):  # type: ignore[misc]  # mode has no types
    """The worker's producer."""

    def __init__(self, kafka: KafkaConfig) -> None:
        super().__init__()
        self._kafka = kafka
        self._producer: Any = None

    async def on_start(self) -> None:
        """Connect; in the event loop, which aiokafka needs."""
        self._producer = AIOKafkaProducer(
            **client_arguments(self._kafka),
            acks="all",
            linger_ms=5,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        await self._producer.start()

    async def on_stop(self) -> None:
        """Send what is left and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish_labels(self, labels: Mapping[int, Sequence[ImpressionLabel]]) -> None:
        """Return when the broker has acknowledged ``labels``, by the events' partition.

        They go to the partition of the same number. Sent one by one, a label took eight
        times the CPU: a future, and murmur2 in Python.
        """
        sent = []
        for partition, some in labels.items():
            remaining = deque(some)
            while remaining:
                sent.append(await self._send_labels(partition, remaining))
        await asyncio.gather(*sent)
        clicked = Counter(each.clicked for some in labels.values() for each in some)
        for value, number in clicked.items():
            LABELS.labels(str(value).lower()).inc(number)

    async def _send_labels(
        self, partition: int, remaining: deque[ImpressionLabel]
    ) -> Awaitable[Any]:
        """Send as many of ``remaining``, which it removes, as a batch takes."""
        batch, now_ms = self._producer.create_batch(), round(time.time() * 1000)
        while remaining:
            label = remaining[0]
            key, value = label.user_id.encode(), encode_label(label)
            if batch.append(timestamp=now_ms, key=key, value=value) is None:
                break
            remaining.popleft()
        partitions = await self._producer.partitions_for(LABELS_TOPIC)
        at = partition % len(partitions)
        future: Awaitable[Any] = await self._producer.send_batch(
            batch, LABELS_TOPIC, partition=at
        )
        return future

    async def publish_rejected(self, records: Sequence[RejectedRecord]) -> None:
        """Return when the broker has acknowledged the raw bytes and the reasons."""
        remaining = iter(records)
        while several := list(islice(remaining, _AT_ONCE)):
            await asyncio.gather(*map(self._publish_letter, several))
        for reason, number in Counter(each.rejected.reason for each in records).items():
            REJECTED.labels(reason).inc(number)

    async def _publish_letter(self, rejected: RejectedRecord) -> None:
        value = rejected.record.value or b""
        try:
            await self._send_rejected(rejected, value, [])
        except errors.MessageSizeTooLargeError:
            # Its headers made it larger than the topic takes; its beginning is enough.
            note = [("truncated_from", str(len(value)).encode())]
            await self._send_rejected(rejected, value[:_KEPT_BYTES], note)

    async def _send_rejected(
        self, rejected: RejectedRecord, value: bytes, notes: list[tuple[str, bytes]]
    ) -> None:
        record = rejected.record
        headers = [
            ("reason", str(rejected.rejected.reason).encode()),
            ("detail", rejected.rejected.detail.encode(errors="replace")),
            ("source_topic", record.topic.encode()),
            ("source_partition", str(record.partition).encode()),
            ("source_offset", str(record.offset).encode()),
            ("source_timestamp", str(record.timestamp).encode()),
        ]
        await self._producer.send_and_wait(
            REJECTED_TOPIC, value=value, key=record.key, headers=headers + notes
        )
