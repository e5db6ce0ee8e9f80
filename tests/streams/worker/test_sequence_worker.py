import asyncio
from copy import deepcopy

import pytest

from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
    now_ms,
)
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, read_topic, until
from tests.builders import an_item
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import (
    NO_LOG,
    a_visit,
    impressions_of,
    labels_on,
    publish,
    run_until_committed,
    running,
)

pytestmark = pytest.mark.kafka


def test_events_become_rows_and_labels(kafka: KafkaConfig, config: StreamConfig) -> None:
    sink, users = MemorySink(), [f"u{number}" for number in range(5)]
    at_ms = now_ms() - 1000
    publish(kafka, [event for user in users for event in a_visit(user, at_ms)])
    run_until_committed(kafka, config, sink, 20)
    assert set(sink.rows.users) == set(users)
    for user in sink.rows.users.values():
        assert len(user.sequence) == 2  # the click and the view
        assert user.clicks[-1] == pytest.approx(1, abs=0.01)
    assert impressions_of(sink, "i1") == pytest.approx(5, abs=0.01)
    labels = labels_on(kafka)
    assert {(label.user_id, label.clicked) for label in labels} == {
        (user, True) for user in users
    }


def test_quiet_traffic_matures(kafka: KafkaConfig, config: StreamConfig) -> None:
    publish(kafka, a_visit("u1", now_ms() - 100_000))

    async def run() -> None:
        async with running(SequenceWorker(kafka, config, MemorySink(), NO_LOG)):
            await until(lambda: len(read_topic(kafka, LABELS_TOPIC)) == 2)

    asyncio.run(run())
    assert {label.item_id: label.clicked for label in labels_on(kafka)} == {
        "i1": True,
        "i2": False,
    }


def test_a_restart_changes_no_row_and_matches_a_click_across_it(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    sink, at_ms = MemorySink(), now_ms() - 1000
    shown, other, clicked, viewed = a_visit("u1", at_ms)
    publish(kafka, [shown, other])
    run_until_committed(kafka, config, sink, 2)
    publish(kafka, [clicked, viewed])
    run_until_committed(kafka, config, sink, 4)
    assert impressions_of(sink, "i1") == pytest.approx(1, abs=0.01)
    assert [label.clicked for label in labels_on(kafka)] == [True]


def test_a_repeated_read_changes_no_row(kafka: KafkaConfig, config: StreamConfig) -> None:
    sink = MemorySink()
    publish(kafka, a_visit("u1", now_ms() - 1000))
    run_until_committed(kafka, config, sink, 4)
    before = deepcopy(sink.rows)
    again = StreamConfig(group_id="another-group", label_window_s=60.0)
    run_until_committed(kafka, again, sink, 4)
    assert sink.rows == before


def test_nothing_is_committed_before_the_store_has_it(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    sink = MemorySink()
    many = sink.failures = 1_000_000
    publish(kafka, a_visit("u1", now_ms() - 1000))

    async def run() -> None:
        async with running(SequenceWorker(kafka, config, sink, NO_LOG)):
            await until(lambda: sink.failures < many - 2)
            assert committed() == 0
            sink.failures = 0
            await until(lambda: "u1" in sink.rows.users)

    with progress_of(kafka, config.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
        assert committed() == 4


def test_bad_messages_are_dead_lettered_and_stop_nothing(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    sink = MemorySink()
    bad = {
        b"{not json": b"broken_json",
        b'{"type":"purchase"}': b"unknown_type",
        b'{"type":"click","event_id":"e"}': b"missing_field",
        b'"' + b"x" * 1_000_000 + b'"': b"too_large",
    }
    with EventPublisher(kafka) as publisher:
        for payload in bad:
            publisher.publish_raw(payload, key=b"u1")
    publish(kafka, a_visit("u1", now_ms() - 1000))
    run_until_committed(kafka, config, sink, 8)
    assert "u1" in sink.rows.users
    rejected = read_topic(kafka, REJECTED_TOPIC)
    headers = [dict(record.headers) for record in rejected]
    assert {r.value: h["reason"] for r, h in zip(rejected, headers, strict=True)} == bad
    assert {h["source_topic"] for h in headers} == {BEHAVIOR_EVENTS_TOPIC.encode()}
    assert sorted(int(h["source_offset"]) for h in headers) == [0, 1, 2, 3]


def test_an_item_update_is_published_to_its_own_topic(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    with EventPublisher(kafka) as publisher:
        publisher.publish(an_item())
    assert len(read_topic(kafka, "items")) == 1
    assert read_topic(kafka, BEHAVIOR_EVENTS_TOPIC) == []
