"""Reads what is on a topic, and waits for commits."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig


async def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Return when ``condition`` holds; raises ``TimeoutError``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        await asyncio.sleep(0.05)


def read_topic(kafka: KafkaConfig, topic: str) -> list[Any]:
    """Return every record that ``topic`` holds."""
    consumer = KafkaConsumer(**client_arguments(kafka))
    try:
        first = dict(consumer.beginning_offsets(_sources(kafka, topic)))
    finally:
        consumer.close()
    return read_from(kafka, topic, first)


def end_offsets(kafka: KafkaConfig, topic: str) -> dict[TopicPartition, int]:
    """Return where the next record of each partition of ``topic`` will be."""
    consumer = KafkaConsumer(**client_arguments(kafka))
    try:
        return dict(consumer.end_offsets(_sources(kafka, topic)))
    finally:
        consumer.close()


def read_from(
    kafka: KafkaConfig, topic: str, offsets: Mapping[TopicPartition, int]
) -> list[Any]:
    """Return the records of ``topic`` from ``offsets`` to its present end."""
    ends = end_offsets(kafka, topic)
    consumer = KafkaConsumer(**client_arguments(kafka), fetch_max_wait_ms=50)
    try:
        consumer.assign(list(offsets))
        for source, offset in offsets.items():
            consumer.seek(source, offset)
        records: list[Any] = []
        while any(consumer.position(source) < ends[source] for source in offsets):
            for batch in consumer.poll(timeout_ms=200).values():
                records += batch
        return records
    finally:
        consumer.close()


@contextmanager
def progress_of(
    kafka: KafkaConfig, group_id: str, topic: str
) -> Iterator[Callable[[], int]]:
    """Yield a function that counts the records of ``topic`` that the group committed."""
    consumer = KafkaConsumer(
        **client_arguments(kafka), group_id=group_id, enable_auto_commit=False
    )
    sources = _sources(kafka, topic)
    try:
        yield lambda: sum(consumer.committed(source) or 0 for source in sources)
    finally:
        consumer.close()


def _sources(kafka: KafkaConfig, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(kafka.partitions)]
