"""What a worker publishes waits for a broker that is away."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from aiokafka.errors import NodeNotReadyError

from srp4ctr.streams.broker.output_topics import OutputProducer
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, now_ms
from srp4ctr.streams.state.label_join import ImpressionLabel
from srp4ctr.streams.worker import sequence_worker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import a_visit, labels_on, publish, running

pytestmark = pytest.mark.kafka


class AwayAtFirst(OutputProducer):
    """Fails twice as the producer does after 40 s without a broker, and then sends."""

    failures = 0

    async def publish_labels(self, labels: Mapping[int, Sequence[ImpressionLabel]]) -> None:
        if self.failures < 2:
            self.failures += 1
            raise NodeNotReadyError("no broker")
        await super().publish_labels(labels)


def test_a_worker_outlives_a_broker_that_takes_no_labels(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_worker, "OutputProducer", AwayAtFirst)
    config = StreamConfig(label_window_s=1)
    visit = a_visit("u1", now_ms() - 60_000)
    publish(kafka, visit)

    async def run() -> None:
        worker = sequence_worker.SequenceWorker(kafka, config, MemorySink(), tmp_path)
        async with running(worker):
            await until(lambda: committed() == len(visit))
            assert not worker.crashed

    with progress_of(kafka, config.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    clicked = {label.item_id: label.clicked for label in labels_on(kafka)}
    assert clicked["i1"]
