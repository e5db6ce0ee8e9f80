"""A worker's Kafka: batches of records in, and the commit of what they came to.

A worker polls in one loop. What it holds of each partition is kept by its group's member,
because it ends when the partition may go to another one: everything is stored before that.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener

from srp4ctr import metrics
from srp4ctr.errors import OutageError
from srp4ctr.retries import retry_async
from srp4ctr.streams.broker.clients import RefusedError, client_arguments
from srp4ctr.streams.broker.topics import committed_offsets
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import Record, place_of

SKIPPED = metrics.counter("srp4ctr_skipped_offsets_total")
FETCH_BYTES = 4 * 1024 * 1024
# A member that begins with a partition replays half a million records of it, which takes up
# to a minute: until then the others wait for it. A crashed one is out after its session,
# ten seconds; aiokafka's default, that same time, puts out who is alive and still replays.
REBALANCE_MS = 300_000
_POLL_MS = 100  # a rebalance or a stop waits for a poll

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
            auto_offset_reset="none",  # a gap is to be noticed: ``seek`` counts it
            max_partition_fetch_bytes=FETCH_BYTES,
            rebalance_timeout_ms=REBALANCE_MS,
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

        ``begin`` prepares one partition that is newly assigned, then ``take`` gets the
        records of each that was begun with before. So a rebalance waits for one partition's
        beginning at most. If one of them or the block raises, nothing is committed: half a
        batch may be processed.
        """
        # Without the lock: in a rebalance a poll waits until partitions are released.
        polled: Batches = {}
        pause_ms = 0 if self._assigned - self.partitions.keys() else _POLL_MS
        # Without a position until ``begin`` has sought one.
        with suppress(errors.ConsumerStoppedError, errors.NoOffsetForPartitionError):
            try:
                polled = await self.consumer.getmany(
                    timeout_ms=pause_ms, max_records=self._max_records
                )
            except errors.OffsetOutOfRangeError as error:
                await self._begin_again(error.args[0])
        generation = self._generation  # nothing was awaited since the records came
        async with self.lock:
            known = set(self.partitions) if generation == self._generation else set()
            try:
                if new := self._assigned - self.partitions.keys():
                    await begin(new.pop())
                for source, records in polled.items():
                    if source in known and (state := self.partitions.get(source)):
                        await take(source, state, records)
                yield
            except BaseException:
                self._release()
                raise
        await asyncio.sleep(0)  # let a rebalance have the lock

    async def _begin_again(self, positions: Mapping[TopicPartition, int]) -> None:
        """Store everything, and begin with those that are still at ``positions`` again."""
        async with self.lock:
            gone = [
                source
                for source, at in positions.items()
                if source in self.partitions and await self.consumer.position(source) == at
            ]
            if gone:
                await self._store()
                for source in gone:
                    self.partitions.pop(source, None)

    async def next_offset(self, source: TopicPartition) -> tuple[int, bool]:
        """Return the next offset to read of ``source``, however far it was read before.

        And whether the group has ever committed it.
        """
        return await self.retry("offsets", lambda: self._next(source))

    async def first_offset(self, source: TopicPartition) -> int:
        """Return the offset of the first record of ``source`` that Kafka holds."""
        first, _ = await self.retry("offsets", lambda: self._span(source))
        return first

    def begin_again(self) -> None:
        """Drop all that the worker holds; it begins with each partition again.

        Only with ``lock``; nothing that was taken since the last commit may be committed.
        """
        self._generation += 1
        self.partitions.clear()

    async def seek(self, source: TopicPartition, start: int) -> int:
        """Go to ``start``, or to the first record if Kafka has none there; return where.

        Counts and logs what Kafka dropped before it was read.
        """
        first, end = await self.retry("offsets", lambda: self._span(source))
        if start < first:
            SKIPPED.labels(self._group_id).inc(first - start)
            _log.error(
                "skips %d offsets, which were dropped by Kafka before group %s had read "
                "them: lengthen the topic's retention. srp4ctr stream rebuild folds those "
                "that the raw log has",
                first - start,
                self._group_id,
                extra=place_of(source, start),
            )
        elif start > end:
            _log.warning("Kafka lost records: reads again", extra=place_of(source, end))
        at = start if first <= start <= end else first
        self.consumer.seek(source, at)
        return at

    async def _span(self, source: TopicPartition) -> tuple[int, int]:
        first = (await self.consumer.beginning_offsets([source]))[source]
        return first, (await self.consumer.end_offsets([source]))[source]

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
            # This process had access: a broker that refuses it now is starting.
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
