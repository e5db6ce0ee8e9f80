"""A consumer group member that takes batches, stores them, and only then commits.

In: topics. Out: calls of the subclass's ``prepare``, ``process_batch``, ``after_poll`` and
``store``, one at a time; everything is stored before partitions go to another member.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError
from mode import Service

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.topics import committed_offsets
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import Record
from srp4ctr.streams.state.state_store import FatalStoreError

FETCH_BYTES = 4 * 1024 * 1024
_POLL_MS = 100  # a rebalance or a stop waits for a poll
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_Batches = Mapping[TopicPartition, Sequence[Record]]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class BatchConsumer(Service):  # type: ignore[misc]  # mode has no types
    """Consumes ``topics`` in a group; an error that escapes ends the process."""

    def __init__(
        self, kafka: KafkaConfig, group_id: str, topics: Sequence[str], max_records: int
    ) -> None:
        super().__init__()
        self.kafka = kafka
        self._group_id = group_id
        self._topics = topics
        self._max_records = max_records
        self.consumer: Any = None  # made in the event loop, when the service starts
        self._assigned: set[TopicPartition] = set()
        self._prepared: set[TopicPartition] = set()
        self._generation = 0  # a new one begins whenever partitions may go to others
        self.lock = asyncio.Lock()  # one batch, rebalance or stop at a time

    @abstractmethod
    async def prepare(
        self, source: TopicPartition, next_offset: int, committed: int | None
    ) -> None:
        """Begin with a partition that will be read from ``next_offset``."""

    @abstractmethod
    async def process_batch(
        self, source: TopicPartition, records: Sequence[Record]
    ) -> None:
        """Fold ``records``, in offset order."""

    @abstractmethod
    async def after_poll(self) -> None:
        """Do what is due, at least every 100 ms; ``store`` when it is time."""

    @abstractmethod
    async def store(self) -> None:
        """Make everything processed durable, then ``commit``."""

    @abstractmethod
    def drop_state(self) -> None:
        """Drop the state of every partition: it may change elsewhere now."""

    async def on_start(self) -> None:
        """Join the group."""
        self.consumer = AIOKafkaConsumer(
            **client_arguments(self.kafka),
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self.consumer.subscribe(list(self._topics), listener=_RebalanceListener(self))
        await self.consumer.start()

    async def on_stop(self) -> None:
        """Store everything, commit and leave the group."""
        if self.consumer is None:
            return
        try:
            await self.flush_and_release()
        finally:
            await self.consumer.stop()

    async def flush_and_release(self) -> None:
        """Store everything, so that others may continue, and drop all partitions."""
        async with self.lock:
            try:
                await self.store()
            finally:
                self._release()

    def assign(self, assigned: set[TopicPartition]) -> None:
        """Consume ``assigned`` from now on, until they are released."""
        self._assigned = set(assigned)

    def owns(self, source: TopicPartition) -> bool:
        """Return whether ``source`` is this member's, as far as it knows."""
        return source in self._prepared

    def highwater(self, source: TopicPartition) -> int | None:
        """Return the end of ``source``; None where it is unknown or not assigned."""
        if source not in self._assigned:
            return None
        end: int | None = self.consumer.highwater(source)
        return end

    @Service.task  # type: ignore[untyped-decorator]
    async def _consume(self) -> None:
        while not self.should_stop:
            # Without the lock: in a rebalance a poll waits until partitions are released.
            batches = await self._poll()
            generation = self._generation  # nothing was awaited since the records came
            async with self.lock:
                if generation == self._generation and not self.should_stop:
                    try:
                        await self._process(batches)
                    except BaseException:
                        self._release()  # half a batch must not be committed at the end
                        raise
            await asyncio.sleep(0)  # let a rebalance have the lock

    async def _poll(self) -> _Batches:
        try:
            batches: _Batches = await self.consumer.getmany(
                timeout_ms=_POLL_MS, max_records=self._max_records
            )
        except ConsumerStoppedError:
            if not self.should_stop:
                raise
            return {}
        return batches

    async def _process(self, batches: _Batches) -> None:
        # What came before its partition was prepared comes again: preparing seeks.
        usable = {each: batches[each] for each in batches if each in self._prepared}
        while unprepared := self._assigned - self._prepared:
            await self._prepare(unprepared.pop())
        for source, records in usable.items():
            if source in self._prepared:
                await self.process_batch(source, records)
        await self.after_poll()

    async def _prepare(self, source: TopicPartition) -> None:
        """Begin at the committed offset, however far ``source`` was read before."""
        committed = await self._committed(source)
        start = committed
        if start is None:
            start = (await self.consumer.beginning_offsets([source]))[source]
        self.consumer.seek(source, start)
        self._prepared.add(source)  # first: ``prepare`` may find out that it is lost
        await self.prepare(source, start, committed)

    async def _committed(self, source: TopicPartition) -> int | None:
        """Return what the group has committed of ``source``; None if it never has."""
        offset: int | None = await self.consumer.committed(source)
        if offset is not None:
            return offset
        # aiokafka overlooks the error of a coordinator that is still loading, after the
        # broker's restart, and returns None as if nothing was ever committed: check.
        known = await self.retry_in_thread(
            committed_offsets, self.kafka, self._group_id, source.topic
        )
        return known.get(source.partition)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit that everything before ``offsets`` is stored."""
        try:
            await self.consumer.commit(dict(offsets))
        except CommitFailedError as error:
            # The group has given these partitions away; their new owner reads again
            # from the last commit, and what is stored recognises what it has seen. The
            # next assignment says what is ours.
            _log.warning("lost partitions before their commit: %s", error)
            self._release()

    async def retry_in_thread(
        self,
        call: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Return ``call(…)``, made in a thread and repeated until it succeeds."""
        return await self.retry(lambda: asyncio.to_thread(call, *args, **kwargs))

    async def retry(
        self,
        call: Callable[_Arguments, Awaitable[_Result]],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Return ``await call(…)``, repeated until it succeeds.

        Meanwhile nothing is consumed. Raises its error once the service is to stop, and
        ``FatalStoreError`` at once.
        """
        attempt = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except FatalStoreError:
                raise
            except Exception as error:
                if self.should_stop:
                    raise
                wait_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                _log.warning("failed, retrying in %s s: %r", wait_s, error)
                attempt += 1
                await self.sleep(wait_s)

    def _release(self) -> None:
        self._generation += 1
        self._assigned.clear()
        self._prepared.clear()
        self.drop_state()


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # no types
    """Lets the member store everything before its partitions go to others."""

    def __init__(self, member: BatchConsumer) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._member.flush_and_release()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._member.assign(assigned)


def now_ms() -> int:
    """Return the wall clock, in UTC milliseconds."""
    return time.time_ns() // 1_000_000
