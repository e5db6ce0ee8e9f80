"""Rows rebuilt from Kafka and the raw log, against rows folded as events came."""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from msgspec.structs import replace

from srp4ctr.embedded import broker
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.worker import rebuild as rebuilding
from srp4ctr.streams.worker.replay import ReplaySource
from tests.builders import NOON_MS, a_behavior, a_forget
from tests.streams.logs import log
from tests.streams.memory_sink import MemorySink
from tests.streams.worker.rebuilds import (
    CONFIG,
    FORGOTTEN,
    FORGOTTEN_AT_MS,
    SOURCES,
    USERS,
    VIEWER,
    assert_equal,
    backfill,
    ends,
    folded_live,
    rebuild,
    some_lives,
    wrong,
)
from tests.streams.workers import run_until_committed

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("events_in_memory", [50_000, 20, 1])
def test_rebuilt_rows_equal_rows_folded_live(
    kafka: KafkaConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events_in_memory: int,
) -> None:
    passes: list[ReplaySource] = []
    read = ReplaySource.events

    def counted(past: ReplaySource, *span: int) -> AsyncIterator[list[LoggedEvent]]:
        passes.append(past)
        return read(past, *span)

    monkeypatch.setattr(rebuilding, "EVENTS_IN_MEMORY", events_in_memory)
    backfill(kafka, some_lives())
    live = folded_live(kafka, MemorySink())
    sink = wrong(live)
    monkeypatch.setattr(ReplaySource, "events", counted)
    assert rebuild(kafka, sink, tmp_path) == len(USERS)
    assert len(passes) == len(SOURCES)  # each partition once, whatever memory holds
    assert_equal(sink.rows, live)
    forgotten = sink.rows.users[FORGOTTEN]
    assert forgotten.forgotten_at_ms == FORGOTTEN_AT_MS
    assert forgotten.sequence.elements[0].occurred_at > FORGOTTEN_AT_MS
    assert sink.rows.users[VIEWER].sequence.elements == ()
    assert len(sink.rows.users[VIEWER].exposures) == 1


def test_a_rebuild_of_what_is_right_changes_nothing(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    """That the store knows whom to forget does not take what items counted before."""
    backfill(kafka, some_lives())
    sink = MemorySink()
    before = deepcopy(folded_live(kafka, sink))
    rebuild(kafka, sink, tmp_path)
    assert_equal(sink.rows, before)


def test_an_erasure_request_older_than_the_span_still_holds(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    sink = MemorySink()
    backfill(kafka, [a_behavior("i1"), a_forget(at_ms=NOON_MS + 1)])
    folded_live(kafka, sink)
    late = a_behavior("i2", at_ms=NOON_MS)  # known from now on: no backfill
    with EventPublisher(kafka) as publisher:
        publisher.publish(late)
        publisher.publish(a_behavior("i3", at_ms=NOON_MS + 2))
    rebuild(kafka, sink, tmp_path, since_ms=NOON_MS + 1_000_000)
    (kept,) = sink.rows.users["u1"].sequence.elements
    assert kept.occurred_at == NOON_MS + 2


def test_a_span_leaves_others_as_they_are(kafka: KafkaConfig, tmp_path: Path) -> None:
    day_ms = 86_400_000
    backfill(kafka, [a_behavior("i1", user_id=user) for user in USERS])
    backfill(kafka, [a_behavior("i2", at_ms=NOON_MS + day_ms, user_id="u1")])
    sink = MemorySink()
    folded_live(kafka, sink)
    assert rebuild(kafka, sink, tmp_path, since_ms=NOON_MS + day_ms) == 1
    lengths = {user: len(row.sequence) for user, row in sink.rows.users.items()}
    assert lengths == dict.fromkeys(USERS, 1)
    assert sink.rows.users["u1"].sequence.elements[0].occurred_at == NOON_MS + day_ms


@pytest.mark.parametrize("logged", [50, 100, None])
def test_what_only_the_raw_log_holds_is_folded_too(
    kafka: KafkaConfig, tmp_path: Path, logged: int | None
) -> None:
    """Live, too: a worker that restarts finds there which clicks it has seen before."""
    events, live = some_lives(), MemorySink()
    first, rest = events[:logged], events[len(events) if logged is None else logged :]
    backfill(kafka, first)
    folded_live(kafka, live)
    log(kafka, CONFIG, tmp_path, len(first))
    assert broker.delete_records(kafka.bootstrap, [BEHAVIOR_EVENTS_TOPIC]) == len(first)
    backfill(kafka, rest)
    run_until_committed(kafka, CONFIG, live, len(events), tmp_path)
    sink = wrong(live.rows)
    rebuild(kafka, sink, tmp_path)
    assert_equal(sink.rows, live.rows)


def test_a_past_is_in_the_order_of_offsets_and_each_event_once(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    events = some_lives()
    backfill(kafka, events[:60])
    log(kafka, CONFIG, tmp_path, 60)
    broker.delete_records(kafka.bootstrap, [BEHAVIOR_EVENTS_TOPIC])
    backfill(kafka, events[60:])
    log(kafka, CONFIG, tmp_path, len(events))  # these are in Kafka and in the log
    last = ends(kafka)
    found = [offsets_of(kafka, tmp_path, source, 0, last[source]) for source in SOURCES]
    assert found == [list(range(last[source])) for source in SOURCES]
    part = offsets_of(kafka, tmp_path, SOURCES[0], 5, last[SOURCES[0]] - 5)
    assert part == list(range(5, last[SOURCES[0]] - 5))


def offsets_of(
    kafka: KafkaConfig, log_dir: Path, source: TopicPartition, start: int, end: int
) -> list[int]:
    async def run() -> list[int]:
        async with ReplaySource.opened(kafka, log_dir, source) as past:
            return [e.offset async for event in past.events(0, end, start) for e in event]

    return asyncio.run(run())


def test_the_past_of_a_broker_that_lost_its_end_ends_there(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    backfill(kafka, some_lives())
    (source, end), *_ = ends(kafka).items()
    assert len(offsets_of(kafka, tmp_path, source, 0, end + 50)) == end


def test_a_rebuild_skips_events_of_users_whose_rows_are_of_another_partition(
    kafka: KafkaConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a worker has rejected them; the row stays as it is."""
    backfill(kafka, some_lives())
    sink = MemorySink()
    folded_live(kafka, sink)
    moved = replace(sink.rows.users["u1"], partition=7, version_us=NOON_MS * 2000)
    sink.rows.users["u1"] = moved
    assert rebuild(kafka, sink, tmp_path) == len(USERS) - 1
    assert sink.rows.users["u1"] is moved
    assert "of 1 users whose rows are of other partitions" in caplog.text
