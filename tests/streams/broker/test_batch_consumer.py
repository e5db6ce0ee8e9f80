"""A rebalance as aiokafka's subscription state has it, without a broker."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import SubscriptionState
from kafka.errors import CoordinatorLoadInProgressError

from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import FatalStoreError
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from tests.builders import a_behavior, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.records import ARecord, records

STAYS, LEAVES = (TopicPartition(BEHAVIOR_EVENTS_TOPIC, number) for number in range(2))


class AConsumer:
    """Has the assignments that aiokafka's consumer would; polls return ``batches``."""

    def __init__(self) -> None:
        self.state: Any = SubscriptionState()
        self.state.subscribe({BEHAVIOR_EVENTS_TOPIC})
        self.batches: list[dict[TopicPartition, list[ARecord]]] = []
        self.polls = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.sought: list[tuple[TopicPartition, int]] = []
        self.known: int | None = 0  # what it returns as committed
        self.commits: list[dict[TopicPartition, int]] = []

    def assignment(self) -> set[TopicPartition]:
        return set(self.state.assigned_partitions())

    async def getmany(self, **_: int) -> dict[TopicPartition, list[ARecord]]:
        await asyncio.sleep(0.001)
        await self.answers.wait()
        self.polls += 1
        return self.batches.pop(0) if self.batches else {}

    async def committed(self, source: TopicPartition) -> int | None:
        return self.known

    async def beginning_offsets(
        self, sources: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(sources, 0)

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.state.seek(source, offset)
        self.sought.append((source, offset))

    def highwater(self, source: TopicPartition) -> int:
        assert self.state.is_assigned(source), "Partition is not assigned"
        return 1

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        assert offsets.keys() <= self.assignment()
        self.commits.append(offsets)


class AWorker(SequenceWorker):
    """A worker whose consumer is ``AConsumer``."""

    async def on_start(self) -> None:
        self.consumer = self.group.consumer = AConsumer()

    async def on_stop(self) -> None:
        pass

    async def assign_sources(self, *sources: TopicPartition) -> None:
        self.consumer.state.assign_from_subscribed(set(sources))
        await self.group.on_partitions_assigned(set(sources))

    async def polls(self, number: int = 3) -> None:
        """Return after ``number`` polls more; raise what ended the worker."""
        wanted = self.consumer.polls + number
        while self.consumer.polls < wanted:
            if self.crash_reason:
                raise self.crash_reason
            await asyncio.sleep(0.001)


def run(story: Callable[[AWorker, MemorySink], Awaitable[None]]) -> None:
    async def whole() -> None:
        sink = MemorySink()
        config = StreamConfig(flush_interval_ms=1, label_window_s=60)
        worker = AWorker(KafkaConfig(), config, sink, Path("no-log"))
        await worker.start()
        try:
            await story(worker, sink)
        finally:
            await worker.stop()

    asyncio.run(asyncio.wait_for(whole(), 10))


def test_a_partition_that_leaves_is_not_prepared_again_before_the_join_is_over() -> None:
    async def story(worker: AWorker, sink: MemorySink) -> None:
        await worker.assign_sources(STAYS, LEAVES)
        await worker.polls()
        worker.consumer.state.begin_reassignment()
        await worker.group.flush_and_release()
        assert worker.consumer.assignment() == {STAYS, LEAVES}  # until the join is over
        worker.consumer.sought.clear()
        await worker.polls()
        assert worker.consumer.sought == []
        worker.consumer.state.assign_from_subscribed({STAYS})
        await worker.polls()  # between the new assignment and its listener
        await worker.group.on_partitions_assigned({STAYS})
        await worker.polls()
        assert worker.consumer.sought == [(STAYS, 0)]

    run(story)


def test_records_polled_before_a_release_are_not_processed_after_it() -> None:
    async def story(worker: AWorker, sink: MemorySink) -> None:
        await worker.assign_sources(STAYS, LEAVES)
        await worker.polls()
        worker.consumer.answers.clear()
        await asyncio.sleep(0.05)  # now it waits for the answer
        worker.consumer.batches = [{LEAVES: records(an_impression())}]
        async with worker.group.lock:
            releasing = asyncio.create_task(worker.group.flush_and_release())
            await asyncio.sleep(0)  # it is the first to wait for the lock
            worker.consumer.answers.set()
            await worker.polls(1)
        await releasing
        await worker.assign_sources(STAYS, LEAVES)
        await worker.polls()
        assert len(sink.rows) == 0

    run(story)


def test_records_polled_before_their_partition_was_prepared_are_read_again() -> None:
    async def story(worker: AWorker, sink: MemorySink) -> None:
        batch = records(an_impression())
        worker.consumer.batches = [{STAYS: batch}]
        await worker.assign_sources(STAYS)
        await worker.polls()
        assert (len(sink.rows), worker.consumer.sought) == (0, [(STAYS, 0)])
        worker.consumer.batches = [{STAYS: batch}]
        while not sink.rows:
            await worker.polls(1)

    run(story)


def test_where_aiokafka_returns_no_commit_the_broker_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Exception | int] = [CoordinatorLoadInProgressError(), 7]

    def answer(kafka: KafkaConfig, *place: object) -> dict[int, int]:
        assert place == (StreamConfig().group_id, STAYS.topic)
        next_answer = answers.pop(0)
        if isinstance(next_answer, Exception):  # its coordinator is still loading
            raise next_answer
        return {STAYS.partition: next_answer, LEAVES.partition: 9}

    async def story(worker: AWorker, sink: MemorySink) -> None:
        worker.consumer.known = None
        await worker.assign_sources(STAYS)
        while not worker.consumer.sought:
            await worker.polls(1)
        assert worker.consumer.sought == [(STAYS, 7)]

    monkeypatch.setattr("srp4ctr.streams.broker.worker_clients.committed_offsets", answer)
    # The labels would be rebuilt from a broker that this test does not have.
    monkeypatch.setattr(AWorker, "_replayed", no_rebuild)
    run(story)


class RefusingSink(MemorySink):
    """A store that ends the worker: at its first read, or at its first write."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused
        self.may_answer = threading.Event()

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        if self.refused == "read":
            raise FatalStoreError("a row of another release")
        return super().read(user_ids, shares)

    def write(self, rows: Rows) -> None:
        self.may_answer.wait(10)
        if self.refused == "write":
            self.refused = "nothing more"
            raise FatalStoreError("a partition too many")
        super().write(rows)


@pytest.mark.parametrize("refused", ["read", "write"])
def test_what_the_store_refused_is_not_committed_at_the_end(refused: str) -> None:
    sink = RefusingSink(refused)

    async def story(worker: AWorker, _: MemorySink) -> None:
        worker._sink = sink
        await worker.assign_sources(STAYS)
        await worker.polls()
        for number in range(2):  # the second is folded while the first is on its way
            event = a_behavior(user_id=f"u{number}")
            worker.consumer.batches = [{STAYS: records(event, start=number)}]
            await asyncio.sleep(0.05)
        sink.may_answer.set()
        while not worker.crash_reason:
            await asyncio.sleep(0.001)
        await worker.group.flush_and_release()  # as when it stops
        assert worker.consumer.commits == []

    run(story)


async def no_rebuild(
    worker: AWorker, source: TopicPartition, start: int
) -> tuple[PartitionState, set[str]]:
    return PartitionState(source.partition, start, StreamConfig()), set()
