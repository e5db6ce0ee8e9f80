"""A store that hangs holds the stream back: nothing is read ahead, nothing is lost."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, now_ms
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import NO_OFFSETS
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from tests.builders import an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import impressions_of, running

pytestmark = pytest.mark.kafka
EVENTS = 20_000
POLLED = 200  # records a poll, so that the topic holds many polls more
POLLS_S = 1.0  # ten polls of a worker that is not held back
COALESCING_MS = 1  # a worker that coalesces for long reads far ahead


class HangingSink(MemorySink):
    """Takes no row until ``opened`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.is_called = False

    def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        self.is_called = True
        self.opened.wait()
        super().write(rows, offsets)


def publish(kafka: KafkaConfig, start: int) -> None:
    """Publish ``EVENTS`` impressions of one item."""
    with EventPublisher(kafka) as publisher:
        for number in range(start, start + EVENTS):
            user, request = f"u{number % 20}", f"r{number}"
            publisher.publish(
                an_impression(at_ms=now_ms(), user_id=user, request_id=request)
            )


async def positions(worker: SequenceWorker) -> int:
    """Return how many records the worker has been handed."""
    assigned = worker.group.consumer.assignment()
    return sum([await worker.group.consumer.position(source) for source in assigned])


async def settled_position(worker: SequenceWorker) -> int:
    """Return the position once the worker, which reads a few polls ahead, has stopped."""
    before, found = -1, await positions(worker)
    while found != before:
        await asyncio.sleep(POLLS_S)
        before, found = found, await positions(worker)
    return found


def test_a_hanging_store_holds_the_stream_back(kafka: KafkaConfig, tmp_path: Path) -> None:
    sink = HangingSink()
    config = StreamConfig(flush_interval_ms=COALESCING_MS, max_poll_records=POLLED)

    async def run() -> None:
        async with running(SequenceWorker(kafka, config, sink, tmp_path)) as worker:
            try:
                await until(lambda: sink.is_called)
                held = await settled_position(worker)
                assert 0 < held < EVENTS
                await asyncio.to_thread(publish, kafka, EVENTS)
                await asyncio.sleep(POLLS_S)
                assert await positions(worker) <= held + POLLED  # one poll was under way
                assert committed() == 0
                assert len(sink.rows) == 0
                sink.opened.set()
                await until(lambda: committed() == 2 * EVENTS)
            finally:
                sink.opened.set()

    publish(kafka, 0)
    with progress_of(kafka, config.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert impressions_of(sink, "i1") == pytest.approx(2 * EVENTS, rel=0.01)
