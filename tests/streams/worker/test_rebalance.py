"""Two members of one group on Apache Kafka share the partitions while events come in."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.streams.broker import worker_clients
from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.broker.worker_clients import BatchConsumer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, now_ms
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from tests.builders import an_impression
from tests.streams.logs import logged
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import impressions_of

MISSING = apache_kafka.missing_tools()
Member = SequenceWorker | EventLogWriter
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaConfig]:
    """Yield the address of an Apache Kafka with our topics and nothing in them."""
    folder = tmp_path_factory.mktemp("apache")
    with reserved_ports(2) as (port, controller_port):
        broker = apache_kafka.start(folder, port, controller_port, tied=True)
    config = KafkaConfig(bootstrap=f"{HOST}:{port}", partitions=4)
    try:
        ensure_topics(config)
        yield config
    finally:
        processes.stop(broker, folder)
        gc.collect()


@contextmanager
def traffic(kafka: KafkaConfig) -> Iterator[Callable[[], int]]:
    """Publish some 100 impressions a second; yield a function that says how many."""
    ended, published = threading.Event(), 0

    def publish() -> None:
        nonlocal published
        with EventPublisher(kafka) as publisher:
            while not ended.wait(0.01):
                user = f"u{published % 50}"
                request = f"r{published}"
                publisher.publish(
                    an_impression(at_ms=now_ms(), user_id=user, request_id=request)
                )
                published += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield lambda: published
    finally:
        ended.set()
        thread.join()


async def share_and_part(first: Member, second: Member, behind: Callable[[], int]) -> None:
    """Let ``second`` join ``first`` and leave again, each time until they caught up."""

    async def settle(*members: Member) -> None:
        def have_all() -> bool:
            for member in members:
                if member.crash_reason:
                    raise member.crash_reason
            owned = [
                {each for each in consumer.assignment() if is_event(each.topic)}
                for consumer in (member.group.consumer for member in members)
            ]
            return all(owned) and sum(map(len, owned)) == 4 and behind() < 100

        await until(have_all)
        await asyncio.sleep(0.5)  # some turns more

    await first.start()
    try:
        await settle(first)
        await second.start()
        try:
            await settle(first, second)
        finally:
            await second.stop()
        await settle(first)
    finally:
        await asyncio.wait_for(first.stop(), 10)


def is_event(topic: str) -> bool:
    return topic == BEHAVIOR_EVENTS_TOPIC


def test_workers_share_and_part_under_traffic(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    sink = MemorySink()
    first, second = (SequenceWorker(kafka, config, sink, tmp_path) for _ in range(2))
    with progress_of(kafka, config.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        with traffic(kafka) as published:
            asyncio.run(share_and_part(first, second, lambda: published() - committed()))
        assert committed() > 200
        counted = impressions_of(sink, "i1")
        assert counted == pytest.approx(committed(), rel=0.01)


def test_log_writers_share_and_part_under_traffic(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    first, second = (EventLogWriter(kafka, config, tmp_path) for _ in range(2))
    group = config.log_group_id
    with progress_of(kafka, group, BEHAVIOR_EVENTS_TOPIC) as committed:
        with traffic(kafka):
            asyncio.run(share_and_part(first, second, lambda: 0))
        assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == committed() > 200


SESSION_MS = 6000  # the shortest that the broker takes
BEGINNING_S = 1.2 * SESSION_MS / 1000


class SlowMember:
    """Begins with each partition for longer than a session."""

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self.begun = 0
        self.group = BatchConsumer[bool](kafka, topic, [topic], 100, self._store)

    async def run(self) -> None:
        await self.group.start()
        while True:
            async with self.group.poll(self._begin, self._take):
                pass

    async def _begin(self, source: TopicPartition) -> None:
        self.begun += 1
        await asyncio.sleep(BEGINNING_S)
        self.group.partitions[source] = True

    async def _take(self, *_: object) -> None: ...

    async def _store(self) -> None: ...


def test_a_member_that_begins_for_longer_than_a_session_is_waited_for(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(KafkaAdminClient, kafka) as admin:
        admin.create_topics([NewTopic("slow", 2, 1)])
    short = partial(AIOKafkaConsumer, session_timeout_ms=SESSION_MS)
    monkeypatch.setattr(worker_clients, "AIOKafkaConsumer", short)

    async def share() -> list[int]:
        first, second = members = [SlowMember(kafka, "slow") for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(first.run())]
            await until(lambda: first.begun > 0)
            running.append(tasks.create_task(second.run()))
            await until(lambda: all(len(each.group.partitions) == 1 for each in members))
            for task in running:
                task.cancel()
        for member in members:
            await member.group.stop()
        return [member.begun for member in members]

    # The first one began with one of both, or with both if the second was slow to join.
    assert asyncio.run(share()) in ([2, 1], [3, 1])
