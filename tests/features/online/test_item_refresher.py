"""Items from a real store into the table, on one store and on a Redis Cluster."""

import itertools
import time
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import numpy as np
import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import ItemMemory
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.arrays import ItemRows
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import total
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from tests.features.readers import an_activity

AT_MS = 1_700_000_000_123
WORDS = vocabulary.build({1: 1}, [{"genre": "War"}, {"genre": "Noir"}] * 5)
WAR, NOIR = (WORDS.attribute_rows({"genre": each}).tolist() for each in ("War", "Noir"))


class Stored:
    """A store of items, and a table that is read from it in this process."""

    def __init__(self, config: FeatureConfig) -> None:
        from srp4ctr.features.online.item_refresher import Refresher
        from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews

        self.config = config
        self.views = OnlineViews(config)
        self.sink = FeatureStoreSink(config)
        self.memory = ItemMemory()
        self.refresher = Refresher(self.views, self.memory)
        self.table = ItemTable(self.memory, WORDS)

    def of(self, *keys: int) -> ItemRows:
        """Return the table's rows."""
        return self.table.lookup(np.array(keys))

    def first_impressions(self, *keys: int) -> list[float]:
        return [*self.of(*keys).activity.impressions[:, 3].round()]

    def client(self, work: Callable[[Any], Any]) -> Any:
        return self.views.call(work)


@pytest.fixture(params=["store_config", "cluster_config"])
def config(request: pytest.FixtureRequest) -> FeatureConfig:
    found: FeatureConfig = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def stored(config: FeatureConfig) -> Stored:
    return Stored(config)


def a_profile(item_id: str, genre: str, at_ms: int = AT_MS) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(item_id),
        item_id=item_id,
        attributes={"genre": genre},
        updated_at_ms=at_ms,
    )


@pytest.mark.redis
def test_what_is_stored_is_in_the_table_and_so_is_what_changes(stored: Stored) -> None:
    shares = {(101, 0): an_activity(3), (101, 3): an_activity(4, AT_MS + 9_000_000)}
    stored.sink.write(Rows(shares=shares))
    stored.sink.write_profiles([a_profile("a", "War")])
    stored.refresher.fill()
    found, wanted = stored.of(101, item_key("a"), 0), total([*shares.values()])
    np.testing.assert_allclose(found.activity.impressions[0], wanted.impressions)
    assert found.activity.counted_at_ms.tolist() == [wanted.counted_at_ms, 0, 0]
    assert found.activity.first_seen_ms[0] == wanted.first_seen_ms
    assert found.attribute_rows[:2].tolist() == [[0] * len(WAR), WAR]

    stored.sink.write(Rows(shares={(101, 1): an_activity(5), (102, 1): an_activity(2)}))
    stored.sink.write_profiles([a_profile("a", "Noir", AT_MS + 1), a_profile("b", "War")])
    stored.refresher.turn(0.0)
    found = stored.of(101, item_key("a"), item_key("b"))
    wanted = total([*shares.values(), an_activity(5)])
    np.testing.assert_allclose(found.activity.impressions[0], wanted.impressions)
    assert found.attribute_rows[1:].tolist() == [NOIR, WAR]
    assert stored.first_impressions(102) == [2.0]


@pytest.mark.redis
def test_the_version_is_a_time_at_which_all_that_was_stored_is_in_the_table(
    stored: Stored,
) -> None:
    assert stored.of(1).version == 0
    stored.refresher.fill()
    stored.sink.write(Rows(shares={(110, 0): an_activity(1)}))
    stored_ms = time.time_ns() // 1_000_000
    assert stored.of(1).version <= stored_ms
    stored.refresher.turn(0.0)
    assert stored.of(1).version >= stored_ms
    assert stored.first_impressions(110) == [1.0]


@pytest.mark.redis
def test_an_older_row_never_replaces_a_newer_one(stored: Stored) -> None:
    stored.refresher.fill()
    newer, older = an_activity(6), an_activity(2)
    entries = [
        item_feed.entry_of(view.fields, [view.stored((120, 0), row)])
        for view in [row_codec.ITEM_ACTIVITY]
        for row in (newer, older)
    ]
    for entry in entries:
        add = methodcaller("xadd", item_feed.STREAM, entry)
        stored.client(add)
    stored.refresher.turn(0.0)
    assert stored.first_impressions(120) == [6.0]


@pytest.mark.redis
def test_a_gap_in_the_stream_has_all_rows_read(stored: Stored) -> None:
    stored.sink.write(Rows(shares={(130, 0): an_activity(1)}))
    stored.refresher.fill()
    before = stored.of(130).version
    stored.sink.write(Rows(shares={(130, 0): an_activity(2), (131, 0): an_activity(3)}))
    stored.client(lambda client: client.delete(item_feed.STREAM))
    stored.sink.write(Rows(shares={(132, 0): an_activity(4)}))
    stored.refresher.turn(0.0)
    stored.refresher.turn(60.0)
    assert stored.first_impressions(130, 131, 132) == [2.0, 3.0, 4.0]
    assert stored.of(130).version > before


@pytest.mark.redis
def test_what_others_write_or_delete_is_found_by_the_next_sweep(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srp4ctr.features.online import item_refresher

    view = row_codec.ITEM_ACTIVITY
    stored.sink.write(Rows(shares={(140, 0): an_activity(1), (142, 0): an_activity(9)}))
    stored.sink.write_profiles([a_profile("deleted", "War")])
    stored.refresher.fill()
    row = view.stored((141, 2), an_activity(5))
    fields = (row_codec.time_of(row.version_us), *row.values)
    mapping = dict(zip(view.fields, fields, strict=True))
    stored.client(lambda client: client.hset(row.key, mapping=mapping))
    for key in (view.key((140, 0)), row_codec.PROFILES.key(item_key("deleted"))):
        stored.client(methodcaller("delete", key))
    # As if all of it had been read long ago: a row just announced may not be stored yet.
    monkeypatch.setattr(item_refresher, "_GRACE_MS", 0)
    later_ms = itertools.count(time.time_ns() // 1_000_000 + 1)
    monkeypatch.setattr(item_refresher, "_now_ms", later_ms.__next__)
    stored.refresher.fill()
    assert stored.first_impressions(140, 141, 142) == [0.0, 5.0, 9.0]
    assert not stored.of(item_key("deleted")).attribute_rows.any()


@pytest.mark.redis
@pytest.mark.parametrize(
    "time_of", [row_codec.time_of(AT_MS), b"\x08"], ids=["row", "time"]
)
def test_a_damaged_row_costs_only_itself(stored: Stored, time_of: bytes) -> None:
    key, fields = row_codec.ITEM_ACTIVITY.key((150, 0)), row_codec.ITEM_ACTIVITY.fields
    mapping = dict(zip(fields, (time_of, b"\x0a\x03abc"), strict=True))
    stored.client(lambda client: client.hset(key, mapping=mapping))
    stored.sink.write(Rows(shares={(151, 0): an_activity(2)}))
    stored.refresher.fill()
    assert stored.first_impressions(150, 151) == [0.0, 2.0]
    stored.client(lambda client: client.delete(key))


@pytest.mark.redis
def test_the_rows_of_users_leave_no_entry(stored: Stored) -> None:
    def length() -> int:
        found: int = stored.client(lambda client: client.xlen(item_feed.STREAM))
        return found

    before = length()
    stored.sink.write(Rows(users={"u": UserState(version_us=1 + before)}))
    assert length() == before
    stored.sink.write(Rows(shares={(160, p): an_activity(1 + before) for p in range(4)}))
    assert length() == before + 1
