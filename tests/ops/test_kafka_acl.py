"""Permissions on the real stack's Kafka: an Apache Kafka with its configuration."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.monitoring.collector.partition_share import ConsumerGroup
from srp4ctr.ops import kafka_acl
from srp4ctr.streams.broker import clients
from srp4ctr.streams.broker.clients import client_arguments, connect
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import PUBLISHED_TOPICS, committed_offsets, ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
)
from tests.builders import a_behavior, an_impression, an_item
from tests.docs.pages import blocks
from tests.ops.conftest import MISSING_TOOLS, ClosedKafka
from tests.streams.worker_process import COUNTED, start, wait_until_counted

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(MISSING_TOOLS), reason=f"needs {MISSING_TOOLS}"),
]

GROUP = "srp4ctr-monitors"


def write(kafka: KafkaConfig, topic: str) -> None:
    """Write one record to ``topic``, or raise the broker's error."""
    producer = KafkaProducer(**client_arguments(kafka), max_block_ms=3000)
    try:
        producer.send(topic, b"{}", key=b"u").get(timeout=10)
    finally:
        producer.close()


def read(kafka: KafkaConfig, topic: str) -> None:
    """Fetch a record of ``topic``, or raise the broker's error."""
    consumer = KafkaConsumer(**client_arguments(kafka), auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.poll(timeout_ms=2000)
    finally:
        consumer.close()


def test_a_producer_elsewhere_publishes_events_and_items(closed_kafka: ClosedKafka) -> None:
    with EventPublisher(closed_kafka.known_as("producer", elsewhere=True)) as events:
        events.publish(a_behavior())
        events.publish(an_item())


def test_the_page_s_producer_has_access(
    closed_kafka: ClosedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [
        each.text
        for each in blocks("python")
        if each.page == "docs/security.md" and "KafkaProducer" in each.text
    ]
    monkeypatch.chdir(closed_kafka.secrets)
    here: dict[str, Any] = {}
    exec(block.replace("kafka.example.com:9092", closed_kafka.outside), here)
    producer = here["producer"]
    try:
        producer.send(BEHAVIOR_EVENTS_TOPIC, b"{}", key=b"u").get(timeout=10)
    finally:
        producer.close()


@pytest.mark.parametrize("topic", [LABELS_TOPIC, REJECTED_TOPIC, "another"])
def test_a_producer_writes_to_no_other_topic(closed_kafka: ClosedKafka, topic: str) -> None:
    with pytest.raises(KafkaError, match=r"(?i)authoriz|update metadata|no metadata"):
        write(closed_kafka.known_as("producer"), topic)


@pytest.mark.parametrize("topic", [BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC])
def test_a_producer_reads_nothing(closed_kafka: ClosedKafka, topic: str) -> None:
    with pytest.raises(KafkaError, match=r"(?i)authoriz"):
        read(closed_kafka.known_as("producer"), topic)


def test_a_producer_sees_and_makes_no_other_topics_and_no_users(
    closed_kafka: ClosedKafka,
) -> None:
    producer = closed_kafka.known_as("producer")
    admin = connect(KafkaAdminClient, producer)
    try:
        assert set(admin.list_topics()) == {BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC}
        with pytest.raises(KafkaError, match=r"(?i)authoriz"):
            admin.create_topics([NewTopic("another", 1, 1)])
    finally:
        admin.close()
    assert ensure_topics(producer, PUBLISHED_TOPICS) == []
    with pytest.raises(ValueError, match=r"not ours to see, and producer may create none"):
        ensure_topics(producer)
    with pytest.raises((KafkaError, ValueError), match=r"(?i)authoriz|refused"):
        kafka_acl.grant(producer, {"producer": "mine"})


def test_a_worker_has_all_the_rights_that_it_needs(
    closed_kafka: ClosedKafka, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    with EventPublisher(closed_kafka.known_as("producer")) as events:
        events.publish(an_impression(at_ms=now_ms - 3_600_000), backfill=True)
        events.publish(a_behavior(at_ms=now_ms))
        events.publish(an_item(at_ms=now_ms))
        events.publish_raw(b"{", key=b"u1")
    with reserved_ports(1) as (port,):
        pass
    worker = start(closed_kafka.known_as("stream"), port, tmp_path)
    try:
        labelled = 'srp4ctr_labels_total{clicked="false"} 1.0'
        wait_until_counted(port, (COUNTED[1], labelled))
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()
    promoter = closed_kafka.known_as("promoter")
    group = StreamConfig().group_id
    assert set(committed_offsets(promoter, group, BEHAVIOR_EVENTS_TOPIC)) == {0}


def test_the_monitor_reads_labels_and_writes_nothing(closed_kafka: ClosedKafka) -> None:
    monitor = closed_kafka.known_as("monitor")
    assert ensure_topics(monitor) == []  # it sees that all are there
    read(monitor, LABELS_TOPIC)
    with pytest.raises(KafkaError, match=r"(?i)authoriz"):
        write(monitor, BEHAVIOR_EVENTS_TOPIC)


def test_a_monitor_joins_the_group_of_monitors_and_no_other_one(
    closed_kafka: ClosedKafka,
) -> None:
    monitor = closed_kafka.known_as("monitor")
    before = joined(ConsumerGroup(monitor, GROUP))
    admin = closed_kafka.known_as("admin")
    kafka_acl.grant(admin, {}, monitor_group=GROUP)
    deadline = time.monotonic() + 30  # the broker applies a rule a moment later
    while isinstance(found := joined(ConsumerGroup(monitor, GROUP)), Exception):
        assert time.monotonic() < deadline, found
    assert found == set(range(admin.partitions))
    other = joined(ConsumerGroup(monitor, StreamConfig().group_id))
    for refusal in (before, other):
        assert "uthoriz" in str(refusal)


def joined(share: ConsumerGroup) -> frozenset[int] | Exception:
    """Return the partitions that ``share`` gets, or the broker's refusal."""
    deadline = time.monotonic() + 60
    share.start()
    try:
        while time.monotonic() < deadline:
            if owned := share.owned():
                return owned
            time.sleep(0.1)
    except (KafkaError, ValueError) as error:
        return error
    finally:
        share.close()
    raise AssertionError("neither partitions nor a refusal in a minute")


def test_who_promotes_reads_no_events(closed_kafka: ClosedKafka) -> None:
    with pytest.raises(KafkaError, match=r"(?i)authoriz"):
        read(closed_kafka.known_as("promoter"), BEHAVIOR_EVENTS_TOPIC)


def test_a_wrong_password_and_an_admin_from_elsewhere_are_refused(
    closed_kafka: ClosedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_BOOTSTRAP_MS", 2000)
    wrong = replace(
        closed_kafka.known_as("producer"), sasl_password_file="", sasl_password="guessed"
    )
    for refused in (wrong, closed_kafka.known_as("admin", elsewhere=True)):
        with pytest.raises(ValueError, match="did not let us in"):
            ensure_topics(refused)
    assert ensure_topics(closed_kafka.known_as("admin")) == []
