"""A store of another release's layout: refused, emptied, and rebuilt from the past."""

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from srp4ctr.errors import ArtifactError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent, item_key
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
        older.setattr(row_codec, "_FORMAT", 1)
        store_events(sink, EVENTS, length=50)
    with pytest.raises(ArtifactError, match=r"format b'\\x01', this release reads 2"):
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
