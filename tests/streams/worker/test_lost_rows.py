"""A store that lost its rows is found out, and the worker rebuilds what is its own."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline.profiles import restore_profiles
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, FORGOTTEN_USER
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker import lost_rows
from srp4ctr.streams.worker.lost_rows import (
    LOSSES,
    LOST_AT,
    UNKNOWN,
    LossWatch,
    is_lost,
)
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, an_impression, an_item
from tests.streams.memory_sink import MemorySink
from tests.streams.records import a_state, fold_batch, records, write_rows
from tests.streams.worker.rebuilds import (
    ACTIVE_USERS,
    CONFIG,
    assert_equal,
    backfill,
    ends,
    folded_live,
    right,
    some_lives,
)
from tests.streams.workers import publish, running


def rows_of(*users: str, offset: int = 7) -> Rows:
    return Rows(users={user: UserState(last_offset=offset) for user in users})


def stored(*users: str) -> dict[str, int]:
    return dict.fromkeys(users, 7)


def test_a_store_that_lacks_one_of_many_has_lost_nothing() -> None:
    users = [f"u{n}" for n in range(100)]
    assert not is_lost(stored(*users), rows_of(*users[5:]))
    assert is_lost(stored(*users), rows_of(*users[50:]))
    assert is_lost(stored("u1"), rows_of())
    assert not is_lost({}, rows_of())


def test_a_node_of_ten_is_a_loss() -> None:
    users = [f"u{n}" for n in range(100)]
    assert is_lost(stored(*users), rows_of(*users[10:]))


def test_one_earlier_row_is_a_loss() -> None:
    rows = rows_of(*(f"u{n}" for n in range(100)))
    assert not is_lost(stored(*rows.users), rows)
    rows.users["u50"] = UserState(last_offset=6)
    assert is_lost(stored(*rows.users), rows)
    assert not is_lost({**stored(*rows.users), "u50": UNKNOWN}, rows)


def test_anonymous_events_make_no_row_and_are_no_loss() -> None:
    assert not is_lost(stored(FORGOTTEN_USER), rows_of())


def test_a_loss_is_ordered_counted_and_dated_once() -> None:
    source, ordered, before = TopicPartition("t", 0), [], LOSSES._value.get()

    async def read(users: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return Rows()

    async def order(lost: TopicPartition) -> None:
        ordered.append(lost)

    async def look_twice() -> None:
        watch = LossWatch(read, order)
        await watch.check(source, stored("u1", "u2"))
        await watch.check(source, stored("u1", "u2"))

    begun = time.time()
    asyncio.run(look_twice())
    assert (ordered, LOSSES._value.get()) == ([source], before + 1)
    assert begun <= LOST_AT._value.get() <= time.time()


class Watched:
    """A partition of which a watch looks up users in a store."""

    def __init__(self) -> None:
        self.source = TopicPartition(BEHAVIOR_EVENTS_TOPIC, 3)
        self.ordered: list[TopicPartition] = []
        self.sink, self.state = MemorySink(), a_state()
        self._watch = LossWatch(self._read, self._order)

    async def _read(
        self, users: Collection[str], shares: Collection[ItemPartitionKey]
    ) -> Rows:
        return self.sink.read(users, shares)

    async def _order(self, lost: TopicPartition) -> None:
        self.ordered.append(lost)

    def act(self, users: Sequence[str]) -> None:
        events = [
            an_impression(user_id=user, request_id=f"{self.sink.writes}") for user in users
        ]
        start = self.state.next_offset
        fold_batch(self.state, records(*events, start=start), self.sink)
        write_rows(self.state, self.sink)

    def is_rebuild_ordered(self) -> bool:
        asyncio.run(self._watch.check_all({self.source: self.state}))
        return self.ordered == [self.source]


USERS = [f"u{n}" for n in range(3 * lost_rows.SAMPLE)]


def test_a_loss_is_found_although_most_users_of_the_last_events_have_rows_again() -> None:
    watched = Watched()
    watched.act(USERS)
    assert not watched.is_rebuild_ordered()
    watched.sink.rows = Rows()
    watched.act(USERS[lost_rows.SAMPLE :])
    assert watched.is_rebuild_ordered()


def test_an_older_copy_of_the_store_is_found_by_what_was_written_last() -> None:
    """As after a failover to a replica that had not caught up, or a restored dump."""
    watched = Watched()
    watched.act(USERS)
    rows = watched.sink.rows
    copied = Rows(users=dict(rows.users), shares=dict(rows.shares))
    watched.act(USERS[:3])
    assert not watched.is_rebuild_ordered()
    watched.sink.rows = copied
    assert watched.is_rebuild_ordered()


def test_users_without_a_row_and_changed_ones_are_not_looked_up() -> None:
    state = a_state()
    state.cache_rows(
        ["nobody", "u1"], [], Rows(users={"u1": UserState(version_us=1, last_offset=5)})
    )
    fold_batch(state, records(an_impression(user_id="u2")))
    assert state.stored_offsets(1) == state.stored_offsets(9) == {"u1": 5}


@pytest.mark.kafka
def test_a_worker_that_begins_with_an_empty_store_rebuilds_what_was_there(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    lives = some_lives()
    backfill(kafka, lives)
    folded_live(kafka, MemorySink())  # all is committed, and then the store is lost
    before, emptied = LOSSES._value.get(), MemorySink()
    follow(kafka, emptied, tmp_path)
    assert LOSSES._value.get() > before
    assert emptied.restored > 0  # items' attributes, too
    assert_equal(emptied.rows, right(kafka, tmp_path))


@pytest.mark.kafka
def test_a_damaged_log_of_items_holds_no_rebuild_of_users_back(
    kafka: KafkaConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ItemsOfALog(MemorySink):
        def restore_profiles(self) -> int:
            self.restored += 1
            return restore_profiles(FeatureConfig(log_dir=str(tmp_path / "log")), self)

    backfill(kafka, some_lives())
    folded_live(kafka, MemorySink())
    (path,) = write_log(tmp_path / "log", [(an_item(), NOON_MS)]).rglob("*.parquet")
    path.write_bytes(b"damaged")
    emptied = ItemsOfALog()
    follow(kafka, emptied, tmp_path)
    assert emptied.restored > 0
    assert f"{path} is damaged" in caplog.text
    assert_equal(emptied.rows, right(kafka, tmp_path))


@pytest.mark.kafka
def test_an_idle_worker_that_has_folded_nothing_itself_finds_a_loss_as_well(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_rows, "CHECK_S", 0.1)
    backfill(kafka, some_lives())
    sink = MemorySink()
    folded_live(kafka, sink)
    before, published = LOSSES._value.get(), sum(ends(kafka).values())

    async def run() -> None:
        async with running(SequenceWorker(kafka, CONFIG, sink, tmp_path)):
            await asyncio.sleep(1.0)
            assert LOSSES._value.get() == before
            sink.rows = Rows()
            await until(lambda: sum(ends(kafka).values()) > published)
            await until(lambda: committed() == sum(ends(kafka).values()))

    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert_equal(sink.rows, right(kafka, tmp_path))


@pytest.mark.kafka
def test_a_worker_whose_store_loses_its_rows_meanwhile_rebuilds_them(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_rows, "CHECK_S", 0.1)
    lives = some_lives()
    backfill(kafka, lives[:90])
    sink, before = MemorySink(), LOSSES._value.get()

    async def run() -> None:
        async with running(SequenceWorker(kafka, CONFIG, sink, tmp_path)):
            await until(lambda: committed() == sum(ends(kafka).values()))
            assert LOSSES._value.get() == before  # right so far, and no false alarm
            sink.rows = Rows()
            await until(lambda: LOSSES._value.get() > before)
            await asyncio.to_thread(backfill, kafka, lives[90:])
            await until(lambda: committed() == sum(ends(kafka).values()))

    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert_equal(sink.rows, right(kafka, tmp_path))


@pytest.mark.kafka
def test_a_worker_that_begins_with_an_older_store_reads_again_what_it_lacks(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    """As after a failover to a replica that was behind, while no worker ran."""
    lives = some_lives()
    backfill(kafka, lives[:90])
    sink = MemorySink()
    folded_live(kafka, sink)
    older = sink.copy()
    backfill(kafka, lives[90:])
    folded_live(kafka, sink)
    published, before = sum(ends(kafka).values()), LOSSES._value.get()
    publish(kafka, [a_behavior(user_id=user) for user in ACTIVE_USERS], backfill=True)
    assert folded_live(kafka, older) != sink.rows
    assert LOSSES._value.get() > before
    assert_equal(older.rows, right(kafka, tmp_path))
    assert sum(ends(kafka).values()) == published + len(ACTIVE_USERS)  # no rebuild


@pytest.mark.kafka
def test_a_worker_whose_store_fails_over_to_an_older_one_writes_no_row_of_it(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    """A row that is read of the older store would take later events, and lack earlier."""
    lives, config = some_lives(), replace(CONFIG, cache_mb=0)  # each batch reads its rows
    backfill(kafka, lives[:60])
    sink, before = MemorySink(), LOSSES._value.get()

    async def run() -> None:
        async with running(SequenceWorker(kafka, config, sink, tmp_path)):
            await until(lambda: committed() == sum(ends(kafka).values()))
            older = sink.copy()
            await asyncio.to_thread(backfill, kafka, lives[60:90])
            await until(lambda: committed() == sum(ends(kafka).values()))
            assert LOSSES._value.get() == before
            sink.rows, sink.offsets = older.rows, older.offsets
            await asyncio.to_thread(backfill, kafka, lives[90:])
            await until(lambda: LOSSES._value.get() > before)
            await until(lambda: committed() == sum(ends(kafka).values()))

    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    published = sum(ends(kafka).values())
    assert published == len(lives)  # no rebuild was ordered
    assert_equal(sink.rows, right(kafka, tmp_path))


def follow(kafka: KafkaConfig, sink: MemorySink, log_dir: Path) -> None:
    """Run a worker until a rebuild of each partition that has events is committed."""

    async def run() -> None:
        async with running(SequenceWorker(kafka, CONFIG, sink, log_dir)):
            await until(lambda: sum(ends(kafka).values()) > published)
            await until(lambda: committed() == sum(ends(kafka).values()))

    published = sum(ends(kafka).values())
    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
