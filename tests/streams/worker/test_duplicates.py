"""What is published twice counts once, within as many records as are remembered."""

from dataclasses import replace

import pytest

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.streams.state import duplicates
from srp4ctr.streams.state.duplicates import Deduplication, Fate
from srp4ctr.streams.state.partition_state import PartitionState
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.records import (
    a_state,
    fold_batch,
    records,
    restarted,
    write_rows,
)


def counts(state: PartitionState, item_id: str = "i1") -> list[float]:
    """Return impressions and clicks of user u1 and of an item, hardly decayed."""
    activities = (
        state.dirty.users["u1"],
        state.dirty.shares[item_key(item_id), 3],
    )
    return [n for a in activities for n in (round(a.impressions[-1]), round(a.clicks[-1]))]


ONCE = [1, 1, 1, 1]
SHOWN, CLICKED = an_impression(event_id="shown"), a_click(event_id="clicked")
SHOWN_AGAIN = an_impression(event_id="again", at_ms=NOON_MS + 10)
CLICKED_AGAIN = a_click(event_id="again", at_ms=NOON_MS + 6_000)
PUBLISHED_TWICE: list[list[UserEvent]] = [
    [SHOWN, SHOWN, CLICKED],
    [SHOWN, CLICKED, CLICKED],
    [SHOWN, CLICKED, SHOWN_AGAIN, CLICKED_AGAIN],
    [CLICKED, SHOWN, CLICKED_AGAIN],  # the click came early
    [CLICKED, CLICKED_AGAIN, SHOWN, SHOWN_AGAIN],
]


@pytest.mark.parametrize("events", PUBLISHED_TWICE)
@pytest.mark.parametrize("batch_size", [1, 9])
def test_what_is_published_twice_counts_once(
    events: list[UserEvent], batch_size: int
) -> None:
    state, batch = a_state(), records(*events)
    for start in range(0, len(batch), batch_size):
        fold_batch(state, batch[start : start + batch_size])
    assert counts(state) == ONCE


@pytest.mark.parametrize("events", PUBLISHED_TWICE)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_is_published_twice_counts_once_after_a_restart_too(
    events: list[UserEvent], at: int
) -> None:
    batch, sink, before = records(*events), MemorySink(), a_state()
    fold_batch(before, batch[:at], sink)
    write_rows(before, sink)
    after = restarted(batch[:at])
    fold_batch(after, batch[at:], sink)
    before.dirty.update(sink.rows)
    before.dirty.update(after.dirty)
    assert counts(before) == ONCE


def test_two_clicks_at_two_times_are_two_behaviours() -> None:
    state = a_state()
    fold_batch(state, records(SHOWN, CLICKED, CLICKED_AGAIN))
    assert len(state.dirty.users["u1"].sequence) == 2


def test_of_several_the_first_by_offset_counts() -> None:
    state = a_state()
    fold_batch(state, records(SHOWN_AGAIN, SHOWN))
    assert state.dirty.users["u1"].first_seen_ms == SHOWN_AGAIN.occurred_at


@pytest.mark.parametrize("field", ["user_id", "request_id", "item_id"])
def test_an_impression_of_another_user_request_or_item_is_no_duplicate(field: str) -> None:
    state = a_state()
    fields = {"item_id": "i1"} | {field: "another"}
    fold_batch(state, records(SHOWN, an_impression(**fields)))  # type: ignore[arg-type]
    rows = state.dirty
    seen = [*rows.users.values(), *rows.shares.values()]
    assert sum(each.impressions[-1] for each in seen) == pytest.approx(6)


def fold_at(state: PartitionState, offset: int, *events: UserEvent) -> None:
    fold_batch(state, records(*events, start=offset))


@pytest.mark.parametrize(("distance", "times"), [(10, 1), (11, 2)])
def test_a_duplicate_counts_again_beyond_the_limit_of_records(
    monkeypatch: pytest.MonkeyPatch, distance: int, times: int
) -> None:
    monkeypatch.setattr(duplicates, "DUPLICATE_RECORDS", 10)
    state = a_state()
    fold_at(state, 5, SHOWN)
    fold_at(state, 5 + distance, SHOWN_AGAIN)
    assert counts(state)[0] == times


def test_each_copy_is_remembered_as_the_first_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "DUPLICATE_RECORDS", 10)
    state = a_state()
    for offset in range(0, 100, 10):
        fold_at(state, offset, SHOWN)
    assert counts(state)[0] == 1
    assert len(state._deduplication._newer) + len(state._deduplication._older) <= 2


def test_what_comes_again_after_an_erasure_counts_again_for_the_user() -> None:
    state = a_state()
    fold_batch(state, records(SHOWN, a_forget(at_ms=NOON_MS - 1), SHOWN_AGAIN))
    assert state.dirty.users["u1"].impressions == (1.0,) * 4


@pytest.mark.parametrize(("offset", "fate"), [(3, Fate.COUNTED), (6, Fate.ERASED)])
def test_a_stored_erasure_is_of_what_comes_after_it(offset: int, fate: Fate) -> None:
    kept = Deduplication()
    kept.add_erasure("u1", NOON_MS + 9_000, 5)
    again = LoggedEvent(event=CLICKED, offset=offset, known_at_ms=NOON_MS)
    assert kept.take(again) is fate


def test_no_time_that_passes_makes_a_duplicate_news() -> None:
    """Neither the clock of a quiet partition nor event time, both windows later."""
    state, days_ms = a_state(), 86_400_000 * 4
    fold_at(state, 0, SHOWN, CLICKED)
    state.labels.advance(NOON_MS + days_ms)
    (later,) = records(a_behavior(at_ms=NOON_MS + days_ms), start=2)
    fold_batch(state, [replace(later, timestamp=NOON_MS + days_ms)])
    fold_at(state, 3, SHOWN_AGAIN, CLICKED_AGAIN)
    assert counts(state) == ONCE
