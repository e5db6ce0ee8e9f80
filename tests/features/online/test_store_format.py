"""A store of another release's layout: read, or refused, emptied and rebuilt."""

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from srp4ctr.errors import ArtifactError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import packing, row_codec
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import EMPTY
from srp4ctr.streams.state.user_state import NO_PARTITION, UserState
from tests.builders import a_behavior, a_click, an_impression
from tests.features.stored import rebuild, store_events
from tests.streams.memory_sink import MemorySink
from tests.streams.worker.rebuilds import assert_equal

pytestmark = pytest.mark.redis
EVENTS: list[UserEvent] = [
    an_impression("i1"),
    an_impression("i2", position=1),
    a_click("i1"),
]
SHARES = [(item_key(item), 0) for item in ("i1", "i2")]


def test_a_row_of_another_layout_is_refused_until_the_store_is_emptied_and_rebuilt(
    store_config: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    own = replace(store_config, redis=f"{store_config.redis},db=4")
    sink = FeatureStoreSink(own)
    log = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(EVENTS)
    ]
    with monkeypatch.context() as older:
        older.setattr(packing, "_USER_FORMAT", 1)
        store_events(sink, EVENTS, length=50)
    with pytest.raises(ArtifactError, match=r"format b'\\x01', this release reads 4"):
        sink.read(["u1"], SHARES)
    with pytest.raises(ArtifactError, match="empty the store"):
        rebuild(log, sink, StreamConfig())
    with redis.Redis.from_url(f"redis://{store_config.redis}/4") as client:
        client.flushdb()
    rebuild(log, sink, StreamConfig())
    rebuilt = sink.read(["u1"], SHARES)
    with redis.Redis.from_url(f"redis://{store_config.redis}/4") as client:
        client.flushdb()
    store_events(sink, EVENTS, length=50)
    assert_equal(rebuilt, sink.read(["u1"], SHARES))


def store_as_before(client: redis.Redis, user_id: str, user: UserState) -> None:
    """Store ``user`` as 0.2 did: three rows with offsets and versions of their own."""
    done = b"".join(
        struct.pack("<qqdB", e.occurred_at, e.item_key, e.value or math.nan, e.action)
        for e in user.sequence.elements
    )
    shown = b"".join(
        struct.pack("<qq", e.occurred_at, e.item_key) for e in user.exposures.elements
    )
    offset, until = user.last_offset, user.forgotten_at_ms
    counts = *user.impressions, *user.clicks, user.counted_at_ms, user.first_seen_ms
    packed = {
        "user_behavior_sequence": struct.pack("<B3q", 2, offset - 1, until, -1) + done,
        "user_activity": struct.pack("<B8d3q", 2, *counts, offset),
        "user_exposures": struct.pack("<B2q", 2, offset, until) + shown,
    }
    fields = {}
    for age, (view, value) in enumerate(packed.items()):
        time, feature = row_codec._fields(view, ("packed",))
        fields[time] = row_codec.time_of(user.version_us - age)
        fields[feature] = row_codec._value(value)
    stored: Any = client  # its types know keys of text only
    stored.hset(row_codec.USERS.key(user_id), mapping=fields)


def test_rows_of_the_former_release_are_read_and_become_one(
    store_config: FeatureConfig,
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    own = replace(store_config, redis=f"{store_config.redis},db=5")
    sink, events = FeatureStoreSink(own), [*EVENTS, a_behavior("i3", value=2.5)]
    store_events(sink, events, length=50)
    user, key = sink.read(["u1"], []).users["u1"], row_codec.USERS.key("u1")
    user = msgspec.structs.replace(user, partition=NO_PARTITION)
    with redis.Redis.from_url(f"redis://{store_config.redis}/5") as client:
        client.flushdb()
        store_as_before(client, "u1", user)
        assert client.hlen(key) == 6
        assert sink.read(["u1"], []).users == {"u1": user}
        store_events(sink, [a_click("i2")], length=50, start=len(events))
        assert client.hlen(key) == 2
        # A worker of 0.2 looks for its own number here, and ends.
        assert client.hget(key, row_codec.USERS.fields[1])[2:4].endswith(b"\x04")
    expected = MemorySink()
    store_events(expected, [*events, a_click("i2")], length=50)
    assert sink.read(["u1"], []).users == expected.rows.users


def test_an_event_that_a_crashed_worker_had_counted_only_joins_the_sequence(
    store_config: FeatureConfig,
) -> None:
    """0.2 stored a user's counters before the sequence; the event comes again."""
    from srp4ctr.features.online.store import FeatureStoreSink

    own = replace(store_config, redis=f"{store_config.redis},db=6")
    sink = FeatureStoreSink(own)
    store_events(sink, EVENTS, length=50)
    user = sink.read(["u1"], []).users["u1"]
    with redis.Redis.from_url(f"redis://{store_config.redis}/6") as client:
        client.flushdb()
        store_as_before(client, "u1", msgspec.structs.replace(user, sequence=EMPTY))
    store_events(sink, EVENTS, length=50)
    found = sink.read(["u1"], []).users["u1"]
    assert (found.sequence, found.clicks) == (user.sequence, user.clicks)


@pytest.mark.parametrize("time", [b"\x08\xff", b"\x80", b"\x08\x01\x10\x80"])
def test_a_row_whose_time_is_cut_off_is_older_than_any(
    store_config: FeatureConfig, time: bytes
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    own = replace(store_config, redis=f"{store_config.redis},db=7")
    sink, row, key = FeatureStoreSink(own), UserState(version_us=1), row_codec.USERS.key
    with redis.Redis.from_url(f"redis://{store_config.redis}/7") as client:
        client.hset(key("u2"), row_codec.USERS.fields[0].decode(), time)
    three = Rows(users=dict.fromkeys(["u1", "u2", "u3"], row))
    sink.write(three)
    assert sink.read(list(three.users), []) == three
