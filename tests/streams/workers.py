"""Runs a worker on a real broker, publishes for it, and reads what it published."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    LABELS_TOPIC,
    UserEvent,
    item_key,
)
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.streams.state.counters import total
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, read_topic, until
from tests.builders import a_behavior, a_click, an_impression
from tests.streams.memory_sink import MemorySink

NO_LOG = Path("no-log")
_Member = TypeVar("_Member", SequenceWorker, EventLogWriter)


@asynccontextmanager
async def running(member: _Member) -> AsyncIterator[_Member]:
    """Start ``member`` of a group, and stop it at the end."""
    await member.start()
    try:
        yield member
    finally:
        await member.stop()


def a_visit(user_id: str, at_ms: int) -> list[UserEvent]:
    """Return two items shown, the first clicked, and a view of it."""
    request = {"user_id": user_id, "request_id": f"r-{user_id}-{at_ms}"}
    return [
        an_impression("i1", at_ms=at_ms, position=0, **request),
        an_impression("i2", at_ms=at_ms, position=1, **request),
        a_click("i1", at_ms=at_ms + 1, **request),
        a_behavior("i1", at_ms=at_ms + 2, user_id=user_id),
    ]


def publish(
    kafka: KafkaConfig, events: Iterable[UserEvent], *, backfill: bool = False
) -> None:
    """Publish ``events``, known now or, with ``backfill``, since they happened."""
    with EventPublisher(kafka) as publisher:
        for event in events:
            publisher.publish(event, backfill=backfill)


def run_until_committed(
    kafka: KafkaConfig,
    config: StreamConfig,
    sink: MemorySink,
    records: int,
    log_dir: Path = NO_LOG,
) -> None:
    """Run a worker until its group has committed ``records``."""

    async def run() -> None:
        async with running(SequenceWorker(kafka, config, sink, log_dir)):
            await until(lambda: committed() >= records)

    with progress_of(kafka, config.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())


def labels_on(kafka: KafkaConfig) -> list[ImpressionLabel]:
    return [decode_label(record.value) for record in read_topic(kafka, LABELS_TOPIC)]


def impressions_of(sink: MemorySink, item_id: str) -> float:
    """Return an item's impressions, summed over partitions, hardly decayed."""
    key = item_key(item_id)
    shares = [each for (item, _), each in sink.rows.shares.items() if item == key]
    return total(shares).impressions[-1]
