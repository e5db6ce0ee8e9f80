"""A rebalance as aiokafka's subscription state has it, without a broker."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from kafka.errors import CoordinatorLoadInProgressError

from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker.lost_rows import LossWatch
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from tests.builders import an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.records import records
from tests.streams.unconnected import LEAVES, STAYS, AWorker, run


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


def test_a_rebalance_waits_for_the_beginning_of_one_partition_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun_at = []

    async def begin(worker: AWorker, source: TopicPartition) -> None:
        begun_at.append(worker.consumer.polls)
        await SequenceWorker._begin(worker, source)

    async def story(worker: AWorker, sink: MemorySink) -> None:
        await worker.assign_sources(STAYS, LEAVES)
        await worker.polls()
        assert worker.group.partitions.keys() == {STAYS, LEAVES}
        assert begun_at[0] < begun_at[1]

    monkeypatch.setattr(AWorker, "_begin", begin)
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
        sink.offsets = {STAYS.partition: 7}
        await worker.assign_sources(STAYS)
        while not worker.consumer.sought:
            await worker.polls(1)
        assert worker.consumer.sought == [(STAYS, 7)]

    monkeypatch.setattr("srp4ctr.streams.broker.worker_clients.committed_offsets", answer)
    # The labels would be rebuilt from a broker that this test does not have.
    monkeypatch.setattr(AWorker, "_replayed", no_rebuild)
    run(story)


async def no_rebuild(
    worker: AWorker, source: TopicPartition, start: int
) -> tuple[PartitionState, set[str]]:
    return PartitionState(source.partition, start, StreamConfig()), set()


def test_the_memory_for_rows_is_that_of_all_partitions_together() -> None:
    async def story(worker: AWorker, sink: MemorySink) -> None:
        worker._config = replace(worker._config, cache_mb=1)
        await worker.assign_sources(STAYS, LEAVES)
        await worker.polls()
        worker.consumer.batches = [
            {
                source: records(
                    *(an_impression(user_id=f"{source.partition}-{n}") for n in range(200))
                )
                for source in (STAYS, LEAVES)
            }
        ]
        while not worker.consumer.commits:
            await worker.polls(1)
        held = [partition.cached_bytes for partition in worker.group.partitions.values()]
        assert len(sink.rows.users) == 400
        assert 500_000 < sum(held) <= 1_000_000
        assert max(held) <= 500_000

    run(story)


@pytest.mark.parametrize(
    ("stored", "first", "begins", "rebuilds"),
    [(5, 0, 5, 0), (7, 0, 5, 0), (3, 0, 3, 0), (3, 5, 5, 1), (None, 0, 5, 1)],
)
def test_a_worker_begins_at_the_store_s_offset_or_orders_a_rebuild(
    monkeypatch: pytest.MonkeyPatch,
    stored: int | None,
    first: int,
    begins: int,
    rebuilds: int,
) -> None:
    """Kafka has committed 5; it may have dropped what an older store lacks."""

    async def story(worker: AWorker, sink: MemorySink) -> None:
        ordered: list[TopicPartition] = []

        async def order(source: TopicPartition) -> None:
            ordered.append(source)

        async def past(source: TopicPartition, start: int) -> tuple[PartitionState, Any]:
            return PartitionState(source.partition, start, StreamConfig()), {"u1": 1}

        async def beginning(_: object) -> dict[TopicPartition, int]:
            return {STAYS: first}

        worker._losses = LossWatch(worker._read, order)
        monkeypatch.setattr(worker, "_begin_restoring_profiles", lambda: None)
        monkeypatch.setattr(worker, "_replayed", past)
        monkeypatch.setattr(worker.consumer, "beginning_offsets", beginning)
        worker.consumer.known = 5
        sink.offsets = {} if stored is None else {STAYS.partition: stored}
        sink.rows.users["u1"] = UserState(version_us=1, last_offset=1)
        await worker.assign_sources(STAYS)
        await worker.polls()
        assert worker.consumer.sought == [(STAYS, begins)]
        assert ordered == [STAYS] * rebuilds

    run(story)
