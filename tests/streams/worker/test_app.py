import re
import signal
import time
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded.broker import start_broker
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.errors import OutageError
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import event_topic
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, Event
from srp4ctr.streams.worker.app import group_ids
from srp4ctr.testing.fault_injection.topic_reading import progress_of
from tests.builders import a_behavior, an_item
from tests.streams.worker_process import BrokenSink, start, wait_until_counted

pytestmark = pytest.mark.kafka


def test_a_worker_counts_what_it_stores_and_stops_at_once(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    with EventPublisher(kafka) as publisher:
        publisher.publish(a_behavior(at_ms=now_ms))
        publisher.publish(an_item(at_ms=now_ms))
        publisher.publish_raw(b"{")
    with reserved_ports(1) as (port,):
        pass
    worker = start(kafka, port, tmp_path)
    try:
        wait_until_counted(port)
        stopped_at = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        assert time.monotonic() - stopped_at < 15  # 1–5 s measured; the machine may be busy
    finally:
        worker.kill()
        worker.wait()
    sequences, log, items = group_ids(StreamConfig())
    for group, topic, records in (
        (sequences, BEHAVIOR_EVENTS_TOPIC, 2),
        (log, BEHAVIOR_EVENTS_TOPIC, 2),
        (items, ITEMS_TOPIC, 1),
    ):
        with progress_of(kafka, group, topic) as committed:
            assert committed() == records, group


def test_a_worker_whose_broker_is_gone_stops_and_has_not_flooded_its_log(
    tmp_path: Path,
) -> None:
    now_ms = time.time_ns() // 1_000_000
    with reserved_ports(2) as (at, port):
        kafka = KafkaConfig(bootstrap=f"{HOST}:{at}", partitions=4, replication=1)
        broker = start_broker(tmp_path, at, tied=True)
        ensure_topics(kafka)
        with EventPublisher(kafka) as publisher:
            publisher.publish(a_behavior(at_ms=now_ms))
            publisher.publish(an_item(at_ms=now_ms))
            publisher.publish_raw(b"{")
        worker = start(kafka, port, tmp_path)
        try:
            wait_until_counted(port)
            processes.stop(broker, tmp_path, grace_s=0.0)
            time.sleep(10.0)  # it tries to connect hundreds of times
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=120) == OutageError.exit_status
        finally:
            worker.kill()
            worker.wait()
    output = (tmp_path / "output").read_text()
    assert "ends now. What was not committed comes again" in output
    assert re.search(r"Unable connect to node .* times before", output)
    assert len(output.splitlines()) < 500


@pytest.mark.parametrize("event", [an_item(), a_behavior()])
def test_a_record_that_meets_a_bug_ends_the_process_and_is_named(
    kafka: KafkaConfig, tmp_path: Path, event: Event
) -> None:
    with EventPublisher(kafka) as publisher:
        publisher.publish(event)
    with reserved_ports(1) as (port,):
        pass
    worker = start(kafka, port, tmp_path, BrokenSink)
    try:
        assert worker.wait(timeout=120) == 1
    finally:
        worker.kill()
        worker.wait()
    output, topic = (tmp_path / "output").read_text(), event_topic(event)
    sequences, _, items = group_ids(StreamConfig())
    group = items if topic == ITEMS_TOPIC else sequences
    assert re.search(rf"TypeError: a bug\nat {topic}, partition \d, offset 0\n", output)
    with progress_of(kafka, group, topic) as committed:
        assert committed() == 0
