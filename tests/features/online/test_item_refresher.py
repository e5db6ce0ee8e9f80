"""Items from a real store into the table, on one store and on a Redis Cluster."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_cache, item_feed, row_codec
from srp4ctr.features.online.item_cache import ItemRows, ItemTable, open_table
from srp4ctr.features.online.item_map import IS_DOWN, ItemMemory
from srp4ctr.features.online.item_writer import ItemWriter
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity, count, total
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import ItemProfile
from tests.features.readers import MemoryReader, table_of

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


@pytest.fixture(scope="module")
def cluster_config(
    store_config: FeatureConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureConfig]:
    folder = tmp_path_factory.mktemp("cluster")
    with ports.reserved_ports(2 * broker.NODES) as free:
        nodes = broker.start_cluster(folder, free, tied=True)
    some = f"{ports.HOST}:{free[1]},{ports.HOST}:{free[2]}"
    yield dataclasses.replace(store_config, redis=some, redis_cluster=True)
    for node in nodes:
        processes.stop(node, folder)


@pytest.fixture(params=["store_config", "cluster_config"])
def config(request: pytest.FixtureRequest) -> FeatureConfig:
    found: FeatureConfig = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def stored(config: FeatureConfig) -> Stored:
    return Stored(config)


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[tuple[FeatureConfig, processes.Running]]:
    """Yield a store that a test may stop, empty or hide from."""
    with ports.reserved_ports(1) as (port,):
        running = broker.start_store(tmp_path, port, tied=True)
    config = FeatureConfig(redis=f"{ports.HOST}:{port}", item_refresh_s=0.1)
    yield config, running
    processes.stop(running, tmp_path)


def an_activity(impressions: int, at_ms: int = AT_MS) -> Activity:
    found = Activity()
    for offset in range(impressions):
        found = count(found, at_ms=at_ms + offset, is_click=False, offset=offset)
    return found


def a_profile(item_id: str, genre: str, at_ms: int = AT_MS) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(item_id),
        item_id=item_id,
        attributes={"genre": genre},
        updated_at_ms=at_ms,
    )


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
        row_codec.entry_of(view.fields, [view.stored((120, 0), row)])
        for view in [row_codec.ITEM_ACTIVITY]
        for row in (newer, older)
    ]
    for entry in entries:
        add = methodcaller("xadd", row_codec.STREAM, entry)
        stored.client(add)
    stored.refresher.turn(0.0)
    assert stored.first_impressions(120) == [6.0]


@pytest.mark.redis
def test_a_gap_in_the_stream_has_all_rows_read(stored: Stored) -> None:
    stored.sink.write(Rows(shares={(130, 0): an_activity(1)}))
    stored.refresher.fill()
    before = stored.of(130).version
    stored.sink.write(Rows(shares={(130, 0): an_activity(2), (131, 0): an_activity(3)}))
    stored.client(lambda client: client.delete(row_codec.STREAM))
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
    monkeypatch.setattr(item_refresher, "_GRACE_MS", -1)
    stored.refresher.fill()
    assert stored.first_impressions(140, 141, 142) == [0.0, 5.0, 9.0]
    assert not stored.of(item_key("deleted")).attribute_rows.any()


@pytest.mark.redis
def test_a_damaged_row_costs_only_itself(stored: Stored) -> None:
    key, fields = row_codec.ITEM_ACTIVITY.key((150, 0)), row_codec.ITEM_ACTIVITY.fields
    mapping = dict(zip(fields, (row_codec.time_of(AT_MS), b"\x0a\x03abc"), strict=True))
    stored.client(lambda client: client.hset(key, mapping=mapping))
    stored.sink.write(Rows(shares={(151, 0): an_activity(2)}))
    stored.refresher.fill()
    assert stored.first_impressions(150, 151) == [0.0, 2.0]
    stored.client(lambda client: client.delete(key))


@pytest.mark.redis
def test_the_rows_of_users_leave_no_entry(stored: Stored) -> None:
    def length() -> int:
        found: int = stored.client(lambda client: client.xlen(row_codec.STREAM))
        return found

    before = length()
    stored.sink.write(Rows(activities={"u": an_activity(1, AT_MS + before)}))
    assert length() == before
    stored.sink.write(Rows(shares={(160, p): an_activity(1 + before) for p in range(4)}))
    assert length() == before + 1


@pytest.mark.redis
def test_a_store_that_is_down_leaves_what_was_read(
    own_store: tuple[FeatureConfig, processes.Running], tmp_path: Path
) -> None:
    config, running = own_store
    stored = Stored(config)
    stored.sink.write(Rows(shares={(5, 0): an_activity(2)}))
    stored.refresher.fill()
    version = stored.of(5).version
    processes.stop(running, tmp_path)
    with pytest.raises(OutageError):
        stored.refresher.turn(0.0)
    assert stored.first_impressions(5) == [2.0]
    assert stored.of(5).version == version


@pytest.mark.redis
def test_bundles_share_one_refresher_and_a_killed_one_is_replaced(
    own_store: tuple[FeatureConfig, processes.Running],
) -> None:
    config, _ = own_store
    stored = Stored(config)
    stored.sink.write(Rows(shares={(5, 0): an_activity(2)}))
    stored.sink.write_profiles([a_profile("a", "War")])
    folder = item_cache.folder_of(config)
    first = open_table(config, WORDS)
    others = [open_table(config, vocabulary.build({}, [])) for _ in range(2)]
    try:
        (pid,) = refreshers(folder)
        for table in (first, *others):
            assert table.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
        assert first.lookup(np.array([item_key("a")])).attribute_rows[0].tolist() == WAR
        first.stop()  # the refresher lives on: others need it
        time.sleep(1.0)
        assert refreshers(folder) == [pid]
        os.kill(pid, signal.SIGKILL)
        until(lambda: bool(set(refreshers(folder)) - {pid}))
        stored.sink.write(Rows(shares={(6, 0): an_activity(3)}))
        seen = others[0]
        until(lambda: seen.lookup(np.array([6])).activity.first_seen_ms[0] > 0)
        assert seen.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
        assert len(refreshers(folder)) == 1
    finally:
        for table in (first, *others):
            table.stop()
    until(lambda: not refreshers(folder))
    assert not list(folder.glob("items-*"))


@pytest.mark.redis
def test_a_step_opens_while_the_store_is_down_and_is_filled_later(
    own_store: tuple[FeatureConfig, processes.Running], tmp_path: Path
) -> None:
    config, running = own_store
    Stored(config).sink.write(Rows(shares={(5, 0): an_activity(2)}))
    port = int(config.redis.rpartition(":")[2])
    processes.stop(running, tmp_path)
    table = open_table(config, WORDS)
    try:
        assert ItemMemory(item_cache.folder_of(config)).head[IS_DOWN] == 1
        assert table.lookup(np.array([5])).version == 0
        again = broker.start_store(tmp_path, port, tied=True)
        until(lambda: table.lookup(np.array([5])).version > 0)
        assert table.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
    finally:
        table.stop()
        processes.stop(again, tmp_path)


def refreshers(folder: Path) -> list[int]:
    """Return the processes that refresh the table in ``folder``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
            is_dead = processes.stat_fields(int(file.parent.name))[0] in processes.DEAD
        except OSError:
            continue
        if str(folder).encode() in words and not is_dead:
            found.append(int(file.parent.name))
    return found


SHARES = st.lists(
    st.tuples(
        st.integers(1, 4),  # item
        st.integers(0, 5),  # partition
        st.lists(st.tuples(st.integers(0, 40 * 86_400_000), st.booleans()), max_size=8),
    ),
    max_size=20,
)


@given(SHARES, st.randoms())
def test_the_table_has_the_counters_that_total_adds_up(given: Any, chance: Any) -> None:
    shares: dict[tuple[int, int], Activity] = {}
    written = []
    for item, partition, events in given:
        row = shares.get((item, partition), Activity())
        for at_ms, is_click in events:
            offset = row.last_offset + 1
            row = count(row, at_ms=AT_MS + at_ms, is_click=is_click, offset=offset)
        shares[item, partition] = row
        written.append(row_codec.ITEM_ACTIVITY.stored((item, partition), row))
    chance.shuffle(written)
    memory = ItemMemory()
    writer = ItemWriter(memory, 16)
    writer.publish()
    for start in range(0, len(written), 3):
        writer.put(item_feed.stored_changes(written[start : start + 3]), now=start)
    keys = [1, 2, 3, 4]
    found = ItemTable(memory, WORDS).lookup(np.array(keys)).activity
    for place, key in enumerate(keys):
        wanted = total([row for (item, _), row in sorted(shares.items()) if item == key])
        assert found.impressions[place] == pytest.approx(wanted.impressions, abs=1e-9)
        assert found.clicks[place] == pytest.approx(wanted.clicks, abs=1e-9)
        assert found.counted_at_ms[place] == wanted.counted_at_ms
        assert found.first_seen_ms[place] == wanted.first_seen_ms


def test_new_items_and_texts_need_greater_tables_and_leave_the_others() -> None:
    memory = ItemMemory()
    writer, view = ItemWriter(memory, 16), row_codec.ITEM_ACTIVITY
    writer.publish()
    table = ItemTable(memory, WORDS)
    for first in range(1, 1000, 100):
        keys = range(first, first + 100)
        rows = [view.stored((key, 0), an_activity(key % 7 + 1)) for key in keys]
        texts = [f'{{"genre": "War", "title": "{"x" * key}"}}' for key in keys]
        profiles = [
            row_codec.StoredProfile(item_key=key, version_us=1, text=text)
            for key, text in zip(keys, texts, strict=True)
        ]
        writer.put(item_feed.stored_changes(rows), now=1)
        writer.put(item_feed.Changes(profiles=profiles), now=1)
        found = table.lookup(np.arange(1, first + 100))
        wanted = [key % 7 + 1 for key in range(1, first + 100)]
        assert found.activity.impressions[:, 3].round().tolist() == wanted
        assert (found.attribute_rows == WAR).all()


def test_items_keep_their_shape_and_padding_is_empty() -> None:
    reader = MemoryReader(attributes={5: {"genre": "War"}}, impressions={-30: 4.0})
    rows = table_of(reader, WORDS).lookup(np.array([[5, -30], [0, 77]]))
    assert rows.attribute_rows.tolist() == [[WAR, [0] * len(WAR)], [[0] * len(WAR)] * 2]
    assert rows.activity.impressions[..., 0].tolist() == [[0.0, 4.0], [0.0, 0.0]]
    assert rows.take(np.s_[:, :1]).activity.first_seen_ms.tolist() == [[0], [0]]


def test_a_table_that_was_never_filled_is_empty() -> None:
    rows = ItemTable(ItemMemory(), WORDS).lookup(np.array([[1, 2]]))
    assert not rows.attribute_rows.any()
    assert rows.activity.impressions.shape == (1, 2, 4)
    assert rows.version == 0
    empty = table_of(MemoryReader(), vocabulary.build({}, []))
    assert empty.lookup(np.array([4])).attribute_rows.shape == (1, 1)
