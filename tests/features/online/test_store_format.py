"""A store of another layout is refused, emptied and rebuilt."""

from dataclasses import replace

import pytest
import redis

from srp4ctr.errors import ArtifactError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import packing, row_codec
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.user_state import UserState
from tests.builders import a_click, an_impression
from tests.features.stored import rebuild, store_events
from tests.streams.worker.rebuilds import assert_equal

pytestmark = pytest.mark.redis
EVENTS: list[UserEvent] = [
    an_impression("i1"),
    an_impression("i2", position=1),
    a_click("i1"),
]
SHARES = [(item_key(item), 0) for item in ("i1", "i2")]


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_a_row_of_another_layout_is_refused_until_the_store_is_emptied_and_rebuilt(
    store_config: FeatureConfig, monkeypatch: pytest.MonkeyPatch, layout: int
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(replace(store_config, redis=f"{store_config.redis},db=4"))
    client = redis.Redis.from_url(f"redis://{store_config.redis}/4")
    log = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(EVENTS)
    ]
    client.flushdb()
    with monkeypatch.context() as older:
        older.setattr(packing, "_USER_FORMAT", layout)
        store_events(sink, EVENTS, length=50)
    refusal = rf"format b'\\x0{layout}', this release reads 4: empty .*upgrade\.md"
    with pytest.raises(ArtifactError, match=refusal):
        sink.read(["u1"], SHARES)
    with pytest.raises(ArtifactError, match=refusal):
        rebuild(log, sink, StreamConfig())
    client.flushdb()
    rebuild(log, sink, StreamConfig())
    rebuilt = sink.read(["u1"], SHARES)
    client.flushdb()
    store_events(sink, EVENTS, length=50)
    assert_equal(rebuilt, sink.read(["u1"], SHARES))
    client.close()


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
