"""Rows folded anew from Kafka and the raw log, against rows folded as events came."""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from kafka import KafkaConsumer
from msgspec.structs import replace

from srp4ctr.embedded import broker
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, UserEvent
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures, show
from srp4ctr.streams.state.sequences import BehaviorSequence, SequenceElement, merge
from srp4ctr.streams.state.state_store import ItemPartitionKey, Rows
from srp4ctr.streams.worker import rebuild as rebuilding
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.raw_log.test_log_writer import log
from tests.streams.worker.test_sequence_worker import run_until_committed

pytestmark = pytest.mark.kafka
LENGTH = 4
CONFIG = StreamConfig(
    sequence_length=LENGTH,
    label_window_s=60.0,
    flush_interval_ms=50,
    log_flush_interval_s=0.2,
    max_poll_records=7,
)
DOERS = [f"u{number}" for number in range(8)]
FORGOTTEN, LOOKER = DOERS[3], "looker"  # who only sees what is shown
USERS = [*DOERS, LOOKER]
FORGOTTEN_AT_MS = NOON_MS + 60_000
KINDS: list[Callable[..., UserEvent]] = [
    an_impression,
    an_impression,
    a_click,
    a_behavior,
]
SOURCES = [TopicPartition(BEHAVIOR_EVENTS_TOPIC, number) for number in range(2)]


def some_lives() -> list[UserEvent]:
    """Return what users do: some of it twice, some late, and one wish to be forgotten."""
    rng, events = random.Random(5), list[UserEvent]()
    for index in range(120):
        at_ms = NOON_MS + 1000 * index - rng.choice([0, 0, 9000])
        user, item = rng.choice(DOERS), f"i{rng.randrange(5)}"
        kind = rng.choice(KINDS)
        fields = {} if kind is a_behavior else {"request_id": f"r{index // 10}"}
        event = kind(item, at_ms=at_ms, user_id=user, event_id=f"e{index}", **fields)
        events += [event] if index % 7 else [event, event]
        if index == 60:
            events.append(a_forget(user_id=FORGOTTEN, at_ms=FORGOTTEN_AT_MS))
    return [*events, *events[30:50], an_impression(user_id=LOOKER)]


def publish(kafka: KafkaConfig, events: Sequence[UserEvent]) -> None:
    """Publish ``events`` as known since they happened."""
    with EventPublisher(kafka) as publisher:
        for event in events:
            publisher.publish(event, backfill=True)


def ends(kafka: KafkaConfig) -> dict[TopicPartition, int]:
    consumer = KafkaConsumer(**client_arguments(kafka))
    try:
        found = consumer.end_offsets(SOURCES)
        return {TopicPartition(*source): end for source, end in found.items()}
    finally:
        consumer.close()


def rebuild(
    kafka: KafkaConfig,
    sink: MemorySink,
    log_dir: Path,
    since_ms: int = 0,
) -> int:
    """Rebuild all partitions into ``sink`` and return how many users that touched."""

    async def read(users: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return sink.read(users, shares)

    async def write(rows: Rows) -> None:
        sink.write(rows)

    async def run() -> int:
        users = 0
        for source, last in found.items():
            span = Span(partition=source.partition, since_ms=since_ms, end=last)
            async with ReplaySource(kafka, log_dir, source) as past:
                users += await rebuild_rows(past, span, CONFIG, read, write)
        return users

    found = ends(kafka)
    return asyncio.run(run())


def wrong(rows: Rows) -> MemorySink:
    """Return a sink whose rows are all wrong, and newer than ``rows``."""
    strange = SequenceElement(occurred_at=NOON_MS * 2, item_key=13, action=5)
    sink, newer = MemorySink(), NOON_MS * 2000
    users = rows.sequences.keys() | rows.activities.keys()
    sink.write(
        Rows(
            sequences={
                user: merge(BehaviorSequence(version_us=newer), [strange], LENGTH, 999)
                for user in users
            },
            activities={
                user: Activity(impressions=(9.0,) * 4, last_offset=999, version_us=newer)
                for user in users
            },
            exposures={
                user: show(Exposures(version_us=newer), NOON_MS * 2, 13, LENGTH, 999)
                for user in users
            },
            shares={
                key: Activity(clicks=(9.0,) * 4, last_offset=999, version_us=newer)
                for key in rows.shares
            },
        )
    )
    return sink


def unversioned(rows: Rows) -> Rows:
    """Return ``rows`` without versions, and without sequences that say nothing."""
    sequences = {u: replace(row, version_us=0) for u, row in rows.sequences.items()}
    return Rows(
        sequences={u: row for u, row in sequences.items() if row != BehaviorSequence()},
        activities={u: replace(a, version_us=0) for u, a in rows.activities.items()},
        exposures={
            u: replace(row, version_us=0)
            for u, row in rows.exposures.items()
            if row.packed or row.forgotten_at_ms
        },
        shares={key: replace(a, version_us=0) for key, a in rows.shares.items()},
    )


def assert_equal(found: Rows, expected: Rows) -> None:
    """Assert that all is equal but the versions; counters to a rounding error."""
    found, expected = unversioned(found), unversioned(expected)
    assert found.sequences == expected.sequences
    assert found.activities == expected.activities  # a user is folded in one pass
    assert found.exposures == expected.exposures
    assert found.shares.keys() == expected.shares.keys()
    for key, share in expected.shares.items():
        other = found.shares[key]
        assert other.impressions == pytest.approx(share.impressions, rel=1e-12)
        assert other.clicks == pytest.approx(share.clicks, rel=1e-12)
        same = replace(share, impressions=other.impressions, clicks=other.clicks)
        assert other == same


def folded_live(kafka: KafkaConfig, sink: MemorySink) -> Rows:
    """Return the rows after a worker has folded into ``sink`` all that is published."""
    run_until_committed(kafka, CONFIG, sink, sum(ends(kafka).values()))
    return sink.rows


@pytest.mark.parametrize("users_a_pass", [20_000, 3, 1])
def test_rebuilt_rows_equal_rows_folded_live(
    kafka: KafkaConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    users_a_pass: int,
) -> None:
    monkeypatch.setattr(rebuilding, "USERS_A_PASS", users_a_pass)
    publish(kafka, some_lives())
    live = folded_live(kafka, MemorySink())
    sink = wrong(live)
    assert rebuild(kafka, sink, tmp_path) == len(USERS)
    assert_equal(sink.rows, live)
    forgotten = sink.rows.sequences[FORGOTTEN]
    assert forgotten.forgotten_at_ms == FORGOTTEN_AT_MS
    assert forgotten.elements[0].occurred_at > FORGOTTEN_AT_MS
    assert sink.rows.sequences[LOOKER].elements == ()
    assert len(sink.rows.exposures[LOOKER].elements) == 1


def test_a_rebuild_of_what_is_right_changes_nothing(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    """That the store knows whom to forget does not take what items counted before."""
    publish(kafka, some_lives())
    sink = MemorySink()
    before = deepcopy(folded_live(kafka, sink))
    rebuild(kafka, sink, tmp_path)
    assert_equal(sink.rows, before)


def test_a_wish_older_than_the_span_still_holds(kafka: KafkaConfig, tmp_path: Path) -> None:
    sink = MemorySink()
    publish(kafka, [a_behavior("i1"), a_forget(at_ms=NOON_MS + 1)])
    folded_live(kafka, sink)
    late = a_behavior("i2", at_ms=NOON_MS)  # known from now on: no backfill
    with EventPublisher(kafka) as publisher:
        publisher.publish(late)
        publisher.publish(a_behavior("i3", at_ms=NOON_MS + 2))
    rebuild(kafka, sink, tmp_path, since_ms=NOON_MS + 1_000_000)
    (kept,) = sink.rows.sequences["u1"].elements
    assert kept.occurred_at == NOON_MS + 2


def test_a_span_leaves_others_as_they_are(kafka: KafkaConfig, tmp_path: Path) -> None:
    day_ms = 86_400_000
    publish(kafka, [a_behavior("i1", user_id=user) for user in USERS])
    publish(kafka, [a_behavior("i2", at_ms=NOON_MS + day_ms, user_id="u1")])
    sink = MemorySink()
    folded_live(kafka, sink)
    assert rebuild(kafka, sink, tmp_path, since_ms=NOON_MS + day_ms) == 1
    lengths = {user: len(row.elements) for user, row in sink.rows.sequences.items()}
    assert lengths == dict.fromkeys(USERS, 1)
    assert sink.rows.sequences["u1"].elements[0].occurred_at == NOON_MS + day_ms


@pytest.mark.parametrize("logged", [50, 100, None])
def test_what_only_the_raw_log_holds_is_folded_too(
    kafka: KafkaConfig, tmp_path: Path, logged: int | None
) -> None:
    """Live, too: a worker that restarts finds there which clicks it has seen before."""
    events, live = some_lives(), MemorySink()
    first, rest = events[:logged], events[len(events) if logged is None else logged :]
    publish(kafka, first)
    folded_live(kafka, live)
    log(kafka, CONFIG, tmp_path, len(first))
    assert broker.delete_records(kafka.bootstrap, [BEHAVIOR_EVENTS_TOPIC]) == len(first)
    publish(kafka, rest)
    run_until_committed(kafka, CONFIG, live, len(events), tmp_path)
    sink = wrong(live.rows)
    rebuild(kafka, sink, tmp_path)
    assert_equal(sink.rows, live.rows)


def test_a_past_is_in_the_order_of_offsets_and_each_event_once(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    events = some_lives()
    publish(kafka, events[:60])
    log(kafka, CONFIG, tmp_path, 60)
    broker.delete_records(kafka.bootstrap, [BEHAVIOR_EVENTS_TOPIC])
    publish(kafka, events[60:])
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
        async with ReplaySource(kafka, log_dir, source) as past:
            return [e.offset async for each in past.events(0, end, start) for e in each]

    return asyncio.run(run())


def test_the_past_of_a_broker_that_lost_its_end_ends_there(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    publish(kafka, some_lives())
    (source, end), *_ = ends(kafka).items()
    assert len(offsets_of(kafka, tmp_path, source, 0, end + 50)) == end
