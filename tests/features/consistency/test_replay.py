"""Rows that are rebuilt from the log equal the rows of the stream's partition."""

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from srp4ctr.features.consistency.replay import (
    counted,
    events_of,
    item_share_at,
    places,
    total_share_at,
    user_at,
)
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import TOTAL_KEY, UserEvent, item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression

LENGTH, WIDTH = 4, 3
CONFIG = StreamConfig(sequence_length=LENGTH, exposure_length=WIDTH)


def a_life(rng: random.Random, length: int = 80) -> list[UserEvent]:
    """Return what two users do with four items: late, twice, and forgotten now and then."""
    events: list[UserEvent] = []
    for number in range(length):
        at_ms = NOON_MS + 1000 * number - rng.choice([0, 0, 0, 20_000])
        user, item = f"u{rng.randrange(2)}", f"i{rng.randrange(4)}"
        names = {"event_id": f"e{number}", "user_id": user}
        slate = f"r{number // 8}"  # so short that some are shown or clicked twice
        kind = rng.random()
        if kind < 0.4:
            events.append(an_impression(item, at_ms=at_ms, request_id=slate, **names))
        elif kind < 0.7:
            events.append(a_click(item, at_ms=at_ms, request_id=slate, **names))
        elif kind < 0.95:
            value = rng.choice([None, 1.0, 2.0])
            events.append(a_behavior(item, at_ms=at_ms, value=value, **names))
        else:
            events.append(a_forget(at_ms=at_ms, **names))
    return events


def stored_after(events: list[UserEvent], partition: int) -> Rows:
    """Return the rows that a worker's partition has made of ``events``."""
    state = PartitionState(partition, 0, CONFIG)
    logged = [
        LoggedEvent(event=event, offset=offset, known_at_ms=NOON_MS)
        for offset, event in enumerate(events)
    ]
    for start in range(0, len(logged), 7):
        batch = logged[start : start + 7]
        users, shares = state.missing_rows(batch)
        state.cache_rows(users, shares, Rows())
        state.fold(batch, now_ms=NOON_MS)
    return state.dirty


def test_every_row_is_recomputed_as_of_any_offset(tmp_path: Path) -> None:
    for seed in range(10):
        life, log = a_life(random.Random(seed)), tmp_path / str(seed)
        write_log(log, [(event, NOON_MS) for event in life], partition=3)
        done = events_of(log, "user_id", places(log, "user_id", 1000))
        shown = events_of(log, "item_id", places(log, "item_id", 1000))
        for end in (1, 20, 79):
            rows = stored_after(life[: end + 1], partition=3)
            for (user_id, partition), events in done.items():
                assert partition == 3
                stored = rows.users.get(user_id, UserState())
                found = user_at(events, end, CONFIG)
                assert replace(found, partition=stored.partition) == stored
            for (item_id, _), events in shown.items():
                if share := rows.shares.get((item_key(item_id), 3)):
                    assert item_share_at(events, end, 3) == share
            assert total_share_at(log, end, 3) == rows.shares.get(
                (TOTAL_KEY, 3), Activity()
            )


def test_one_user_in_two_partitions_is_two_places(tmp_path: Path) -> None:
    for partition in (0, 2):
        write_log(tmp_path, [(a_behavior(), NOON_MS)], partition=partition)
    assert places(tmp_path, "user_id", 9) == {("u1", 0): 1, ("u1", 2): 1}
    assert list(events_of(tmp_path, "user_id", [("u1", 2)])) == [("u1", 2)]


def test_an_absent_log_has_no_users(tmp_path: Path) -> None:
    assert places(tmp_path / "nowhere", "item_id", 9) == {}
    assert events_of(tmp_path / "nowhere", "user_id", []) == {}


def test_duplicates_and_what_was_forgotten_do_not_count(tmp_path: Path) -> None:
    life: list[UserEvent] = [
        an_impression("i1", at_ms=NOON_MS),
        an_impression("i1", at_ms=NOON_MS + 9, event_id="again"),
        a_forget(at_ms=NOON_MS + 10),
        a_forget(at_ms=NOON_MS + 5),  # older than the last, and arrived later
        a_click("i1", at_ms=NOON_MS + 8),
        a_click("i1", at_ms=NOON_MS + 20),
        a_click("i1", at_ms=NOON_MS + 21, event_id="the same click"),
    ]
    write_log(tmp_path, [(event, NOON_MS) for event in life])
    (events,) = events_of(tmp_path, "user_id", [("u1", 0)]).values()
    assert [each.offset for each in counted(events, offset=99)] == [0, 2, 5]
    assert user_at(events, 99, CONFIG).clicks == (1.0,) * 4
    (events,) = events_of(tmp_path, "item_id", [("i1", 0)]).values()
    share = item_share_at(events, 99, partition=0)
    # An item's counters keep the events of erased users.
    assert share.impressions[-1] == pytest.approx(1, abs=1e-5)
    assert share.clicks[-1] == pytest.approx(1, abs=1e-5)
