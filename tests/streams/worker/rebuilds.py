"""What some users do, and the rows of it: folded as it comes, and rebuilt from the past."""

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from kafka import KafkaConsumer
from msgspec.structs import replace

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, UserEvent
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import publish, run_until_committed

LENGTH = 4
CONFIG = StreamConfig(
    sequence_length=LENGTH,
    label_window_s=60.0,
    flush_interval_ms=50,
    log_flush_interval_s=0.2,
    max_poll_records=7,
)
ACTIVE_USERS = [f"u{number}" for number in range(8)]
FORGOTTEN = ACTIVE_USERS[3]
VIEWER = "viewer"  # who only sees what is shown
USERS = [*ACTIVE_USERS, VIEWER]
FORGOTTEN_AT_MS = NOON_MS + 60_000
KINDS: list[Callable[..., UserEvent]] = [
    an_impression,
    an_impression,
    a_click,
    a_behavior,
]
SOURCES = [TopicPartition(BEHAVIOR_EVENTS_TOPIC, number) for number in range(2)]


def some_lives() -> list[UserEvent]:
    """Return what users do: some of it twice, some late, and one erasure request."""
    rng, events = random.Random(5), list[UserEvent]()
    for index in range(120):
        at_ms = NOON_MS + 1000 * index - rng.choice([0, 0, 9000])
        user, item = rng.choice(ACTIVE_USERS), f"i{rng.randrange(5)}"
        kind = rng.choice(KINDS)
        fields = {} if kind is a_behavior else {"request_id": f"r{index // 10}"}
        event = kind(item, at_ms=at_ms, user_id=user, event_id=f"e{index}", **fields)
        events += [event] if index % 7 else [event, event]
        if index % 9 == 0:
            events.append(a_profile(user_id=user, at_ms=at_ms, age=str(index)))
        if index == 60:
            events.append(a_forget(user_id=FORGOTTEN, at_ms=FORGOTTEN_AT_MS))
    return [*events, *events[30:50], an_impression(user_id=VIEWER)]


def backfill(kafka: KafkaConfig, events: Iterable[UserEvent]) -> None:
    """Publish ``events`` as known since they happened."""
    publish(kafka, events, backfill=True)


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
            async with ReplaySource.opened(kafka, log_dir, source) as past:
                users += await rebuild_rows(past, span, CONFIG, read, write)
        return users

    found = ends(kafka)
    return asyncio.run(run())


def wrong(rows: Rows) -> MemorySink:
    """Return a sink whose rows are all wrong, and newer than ``rows``."""
    strange = SequenceElement(occurred_at=NOON_MS * 2, item_key=13, action=5)
    sink, newer = MemorySink(), NOON_MS * 2000
    user = UserState(
        impressions=(9.0,) * 4,
        last_offset=999,
        version_us=newer,
        sequence=sequence_of([strange]),
        exposures=sequence_of([replace(strange, action=SHOWN)]),
        attributes='{"age":"999"}',
        profile_at_ms=NOON_MS * 2,
    )
    sink.write(
        Rows(
            users=dict.fromkeys(rows.users, user),
            shares={
                key: Activity(clicks=(9.0,) * 4, last_offset=999, version_us=newer)
                for key in rows.shares
            },
        )
    )
    return sink


def unversioned(rows: Rows) -> Rows:
    """Return ``rows`` without versions."""
    return Rows(
        users={user_id: replace(u, version_us=0) for user_id, u in rows.users.items()},
        shares={key: replace(a, version_us=0) for key, a in rows.shares.items()},
    )


def assert_equal(found: Rows, expected: Rows) -> None:
    """Assert that all is equal but the versions; counters to a rounding error."""
    found, expected = unversioned(found), unversioned(expected)
    assert found.users == expected.users  # a user is folded in one pass
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


def right(kafka: KafkaConfig, log_dir: Path) -> Rows:
    """Return the rows of all that is published, folded from nothing."""
    sink = MemorySink()
    rebuild(kafka, sink, log_dir)
    return sink.rows
