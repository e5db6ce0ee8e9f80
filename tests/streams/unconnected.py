"""A worker on aiokafka's own subscription state, without a broker."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import SubscriptionState

from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from tests.streams.memory_sink import MemorySink
from tests.streams.records import ARecord

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

    async def end_offsets(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(sources, 99)

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.state.seek(source, offset)
        self.sought.append((source, offset))

    def resume(self, source: TopicPartition) -> None:
        assert self.state.is_assigned(source), "Partition is not assigned"

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
