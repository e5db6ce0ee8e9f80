"""Dead letters go back once what was wrong is fixed, as if they had never been any."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from typer.testing import CliRunner

from srp4ctr.cli import events as event_commands
from srp4ctr.embedded import broker
from srp4ctr.streams.broker.dead_letters import ReplayReport, read_letter, replay_rejected
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    REJECTED_TOPIC,
    UserEvent,
    now_ms,
)
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import NOON_MS, a_behavior, an_item
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import a_visit, labels_on, run_until_committed

GROUP = "workers-replay"


@dataclass
class ARecord:
    """A record of the dead-letter topic."""

    value: bytes
    headers: list[tuple[str, bytes]]
    key: bytes | None = None
    timestamp: int = NOON_MS + 3_600_000


def replay(kafka: KafkaConfig, *, dry_run: bool = False) -> ReplayReport:
    return replay_rejected(kafka, GROUP, dry_run=dry_run, progress=lambda *_: None)


def publish_wrongly(kafka: KafkaConfig, visit: list[UserEvent], at_ms: int) -> None:
    """Send ``visit`` under wrong keys, an item to the users' topic, and a broken line."""
    with EventPublisher(kafka) as publisher:
        for number, event in enumerate(visit):
            key = f"k{number}".encode()
            publisher.send(BEHAVIOR_EVENTS_TOPIC, encode(event), key, event.occurred_at)
        item = an_item("i1", at_ms=at_ms)
        publisher.send(BEHAVIOR_EVENTS_TOPIC, encode(item), b"i1", at_ms)
        publisher.send(BEHAVIOR_EVENTS_TOPIC, b"{broken", b"u1", at_ms)


def assert_equals(sink: MemorySink, kafka: KafkaConfig, user: str, other: str) -> None:
    """Both users did the same, so that all but their ids must be equal."""
    rows = sink.rows
    assert rows.users[user].sequence == rows.users[other].sequence
    for name in ("impressions", "clicks"):
        counts = [getattr(rows.users[each], name) for each in (user, other)]
        assert counts[0] == pytest.approx(counts[1])
    by_user = {
        each: {
            (label.item_id, label.position, label.clicked)
            for label in labels_on(kafka)
            if label.user_id == each
        }
        for each in (user, other)
    }
    assert by_user[user] == by_user[other]


def attempts(record: Any) -> bytes | None:
    return dict(record.headers).get("attempts")


@pytest.mark.kafka
def test_after_a_replay_all_is_as_if_it_had_been_published_right(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    sink, at_ms = MemorySink(), now_ms() - 5000
    wrong, right = a_visit("u1", at_ms), a_visit("u2", at_ms)
    publish_wrongly(kafka, wrong, at_ms)
    with EventPublisher(kafka) as publisher:
        for event in right:
            publisher.publish(event, backfill=True)
    run_until_committed(kafka, config, sink, 10)
    assert len(read_topic(kafka, REJECTED_TOPIC)) == 6
    assert "u1" not in sink.rows.users

    went_back = {"wrong_key": 4, "wrong_topic": 1}
    expected = ReplayReport(Counter(went_back), Counter({"broken_json": 1}))
    assert replay(kafka, dry_run=True) == expected
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 10
    assert replay(kafka) == expected

    run_until_committed(kafka, config, sink, 14)
    assert_equals(sink, kafka, "u1", "u2")
    replayed = [r for r in read_topic(kafka, BEHAVIOR_EVENTS_TOPIC) if r.key == b"u1"]
    assert {r.timestamp for r in replayed} == {event.occurred_at for event in wrong} | {
        at_ms
    }
    (item,) = read_topic(kafka, ITEMS_TOPIC)
    assert (item.key, item.timestamp) == (b"i1", at_ms)


@pytest.mark.kafka
def test_what_is_still_wrong_waits_for_the_next_replay(kafka: KafkaConfig) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    headers = [("reason", b"broken_json"), ("source_offset", b"7")]
    producer.send(REJECTED_TOPIC, b"{", b"u1", headers=headers)
    producer.close()
    for number in (2, 3):
        assert replay(kafka) == ReplayReport(kept=Counter({"broken_json": 1}))
        latest = max(read_topic(kafka, REJECTED_TOPIC), key=lambda r: attempts(r) or b"")
        assert (latest.key, latest.value) == (b"u1", b"{")
        assert attempts(latest) == str(number).encode()
        assert dict(latest.headers)["source_offset"] == b"7"


@pytest.mark.kafka
def test_letters_that_kafka_deleted_are_counted(kafka: KafkaConfig) -> None:
    def reject(number: int) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        for _ in range(number):
            producer.send(REJECTED_TOPIC, b"{", b"u1", headers=[("reason", b"broken_json")])
        producer.close()

    reject(1)
    assert replay(kafka).dropped == 0
    reject(3)  # the first replay has put its own letter at the end
    broker.delete_records(kafka.bootstrap, [REJECTED_TOPIC])
    reject(1)
    found = replay(kafka, dry_run=True)
    assert (found.dropped, found.kept.total()) == (4, 1)


@pytest.mark.kafka
def test_what_an_older_release_did_not_know_goes_back(kafka: KafkaConfig) -> None:
    event = a_behavior(at_ms=now_ms() - 60_000)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    headers = [("reason", b"unknown_type")]  # from before source_timestamp
    producer.send(REJECTED_TOPIC, encode(event), b"u1", headers=headers)
    producer.close()
    assert replay(kafka) == ReplayReport(Counter({"unknown_type": 1}))
    (record,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    (letter,) = read_topic(kafka, REJECTED_TOPIC)
    assert (record.key, record.timestamp) == (b"u1", letter.timestamp)
    assert replay(kafka) == ReplayReport()


@pytest.mark.kafka
def test_a_replay_after_a_crash_before_its_commit_changes_nothing(
    kafka: KafkaConfig, config: StreamConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("killed")

    sink, at_ms = MemorySink(), now_ms() - 5000
    publish_wrongly(kafka, a_visit("u1", at_ms), at_ms)
    with EventPublisher(kafka) as publisher:
        for event in a_visit("u2", at_ms):
            publisher.publish(event, backfill=True)
    run_until_committed(kafka, config, sink, 10)
    with monkeypatch.context() as patch:
        patch.setattr(KafkaConsumer, "commit", die)
        with pytest.raises(RuntimeError, match="killed"):
            replay(kafka)
    assert replay(kafka).replayed.total() == 5
    run_until_committed(kafka, config, sink, 18)
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 18
    assert_equals(sink, kafka, "u1", "u2")


@pytest.mark.kafka
def test_the_command_shows_a_table_by_reason(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    event = encode(a_behavior(at_ms=now_ms() - 1000))
    for value, reason in ((event, b"wrong_key"), (b"{", b"broken_json")):
        producer.send(REJECTED_TOPIC, value, b"k", headers=[("reason", reason)])
    producer.close()
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", kafka.bootstrap)
    for arguments, title in ((["--dry-run"], "to replay"), ([], "replayed")):
        shown = CliRunner().invoke(event_commands.app, ["replay-rejected", *arguments])
        assert shown.exit_code == 0, shown.output
        assert title in shown.output
        rows = [line.strip("│ ").split() for line in shown.output.splitlines()]
        assert ["wrong_key", "│", "1", "│", "0"] in rows, shown.output
        assert ["broken_json", "│", "0", "│", "1"] in rows, shown.output


def test_a_truncated_letter_never_goes_back() -> None:
    letter = ARecord(encode(a_behavior()), [("truncated_from", b"5000000")])
    assert read_letter(letter).event is None


def test_a_letter_is_judged_as_of_when_it_came_first() -> None:
    early = a_behavior(at_ms=NOON_MS + 600_000)  # ten minutes ahead of its record
    headers = [("source_timestamp", str(NOON_MS).encode())]
    assert read_letter(ARecord(encode(early), headers)).event is None
    letter = read_letter(ARecord(encode(a_behavior()), headers))
    assert (letter.event, letter.known_at_ms) == (a_behavior(), NOON_MS)


def test_a_letter_with_strange_headers_is_still_read() -> None:
    headers = [("source_timestamp", b"noon"), ("reason", b"\xff")]
    letter = read_letter(ARecord(encode(a_behavior()), headers))
    assert letter.known_at_ms == NOON_MS + 3_600_000


@pytest.mark.parametrize("size", [5, 9])
def test_a_key_that_compresses_below_the_limit_becomes_a_letter_that_can_go_back(
    kafka: KafkaConfig, config: StreamConfig, size: int
) -> None:
    at_ms, long = now_ms() - 1000, b"k" * (size * 1024 * 1024)
    (viewed,) = a_visit("u1", at_ms)[-1:]
    with closing(
        KafkaProducer(
            bootstrap_servers=kafka.bootstrap,
            compression_type="gzip",
            max_request_size=2 * len(long),
        )
    ) as producer:
        value = encode(viewed)
        sent = producer.send(BEHAVIOR_EVENTS_TOPIC, value, long, timestamp_ms=at_ms)
        sent.get(timeout=30)
    sink = MemorySink()
    run_until_committed(kafka, config, sink, 1)
    (letter,) = read_topic(kafka, REJECTED_TOPIC)
    headers = dict(letter.headers)
    assert (letter.value, len(letter.key)) == (value, 64 * 1024)
    assert headers["reason"] == b"wrong_key"
    assert headers["key_truncated_from"] == str(len(long)).encode()
    assert replay(kafka).replayed == Counter(wrong_key=1)
    run_until_committed(kafka, config, sink, 2)
    assert len(sink.rows.users["u1"].sequence) == 1
