"""A store of another release's layout: refused, emptied, and rebuilt from the past."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import redis

from srp4ctr.errors import ArtifactError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource
from tests.builders import a_click, an_impression
from tests.features.stored import store_events
from tests.features.test_counting import Past
from tests.streams.worker.rebuilds import assert_equal

pytestmark = pytest.mark.redis
EVENTS: list[UserEvent] = [
    an_impression("i1"),
    an_impression("i2", position=1),
    a_click("i1"),
]
SHARES = [(item_key(item), 0) for item in ("i1", "i2")]


def rebuild(sink: FeatureSink) -> None:
    async def read(users: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return sink.read(users, shares)

    async def write(rows: Rows) -> None:
        sink.write(rows)

    log = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(EVENTS)
    ]
    past = cast(ReplaySource, Past(log))
    span = Span(partition=0, since_ms=0, end=len(log))
    asyncio.run(rebuild_rows(past, span, StreamConfig(), read, write))


def test_a_row_of_another_layout_is_refused_until_the_store_is_emptied_and_rebuilt(
    store_config: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    own = replace(store_config, redis=f"{store_config.redis},db=4")
    sink = FeatureStoreSink(own)
    with monkeypatch.context() as older:
        older.setattr(row_codec, "_FORMAT", 1)
        store_events(sink, EVENTS, length=50)
    with pytest.raises(ArtifactError, match=r"format b'\\x01', this release reads 2"):
        sink.read(["u1"], SHARES)
    with pytest.raises(ArtifactError, match="empty the store"):
        rebuild(sink)
    with redis.Redis.from_url(f"redis://{store_config.redis}/4") as client:
        client.flushdb()
    rebuild(sink)
    rebuilt = sink.read(["u1"], SHARES)
    with redis.Redis.from_url(f"redis://{store_config.redis}/4") as client:
        client.flushdb()
    store_events(sink, EVENTS, length=50)
    assert_equal(rebuilt, sink.read(["u1"], SHARES))
