from collections.abc import Sequence

import pytest

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import TOTAL_KEY, UserEvent, item_key
from srp4ctr.streams.state.counters import total
from srp4ctr.streams.state.reducers import (
    Rows,
    fold_shares,
    fold_users,
)
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression

CONFIG = StreamConfig(sequence_length=5, exposure_length=5)


def logged(*events: UserEvent, start: int = 0) -> list[LoggedEvent]:
    return [
        LoggedEvent(event=event, offset=offset, known_at_ms=NOON_MS)
        for offset, event in enumerate(events, start)
    ]


def fold(rows: Rows, batch: Sequence[LoggedEvent]) -> Rows:
    """Return ``rows`` after ``batch``, a batch without duplicates."""
    after = Rows()
    after.update(rows)
    all_count = [(each, True) for each in batch]
    after.users |= fold_users(rows.users, all_count, CONFIG)
    after.shares |= fold_shares(rows.shares, all_count, 3)
    return after


A_LIFE: list[UserEvent] = [
    an_impression("i1"),
    a_click("i1"),
    an_impression("i2", user_id="u2"),
    a_behavior("i2", at_ms=NOON_MS + 10_000),
    a_profile(age="34"),
    a_forget(at_ms=NOON_MS + 5_000),
    a_profile(age="35", at_ms=NOON_MS + 6_000),
    a_behavior("i2", user_id="u2"),
    an_impression("i3", at_ms=NOON_MS + 20_000),
    a_behavior("i3", at_ms=NOON_MS + 20_000),
]


@pytest.mark.parametrize("at", range(len(A_LIFE) + 1))
def test_any_split_into_batches_gives_the_same_values(at: int) -> None:
    batch = logged(*A_LIFE)
    whole, parts = fold(Rows(), batch), fold(fold(Rows(), batch[:at]), batch[at:])
    assert parts == whole


@pytest.mark.parametrize("stored", range(len(A_LIFE) + 1))
def test_a_redelivered_batch_changes_nothing_whatever_of_it_was_stored(
    stored: int,
) -> None:
    batch = logged(*A_LIFE)
    once = fold(Rows(), batch)
    assert fold(once, batch[stored:]) == once


def test_a_forgotten_users_counters_start_again_and_the_items_continue() -> None:
    rows = fold(Rows(), logged(an_impression(), a_click(), a_forget(at_ms=NOON_MS + 9000)))
    assert rows.users["u1"].impressions == (0.0,) * 4
    assert rows.users["u1"].clicks == (0.0,) * 4
    assert rows.users["u1"].first_seen_ms == 0
    assert rows.users["u1"].last_offset == 2
    assert rows.shares[item_key("i1"), 3].impressions[-1] == pytest.approx(1, abs=0.01)
    later = an_impression("i2", at_ms=NOON_MS + 10_000)
    again = fold(rows, logged(later, start=3)).users["u1"]
    assert again.impressions == (1.0,) * 4
    assert again.version_us > rows.users["u1"].version_us


def test_the_total_counts_every_event_and_an_erasure_takes_nothing_from_it() -> None:
    rows = fold(Rows(), logged(*A_LIFE))
    share = rows.shares[TOTAL_KEY, 3]
    assert share.impressions[-1] == pytest.approx(3, abs=0.01)
    assert share.clicks[-1] == pytest.approx(1, abs=0.01)
    assert share.last_offset == 8
    counted_at_ms = [row.counted_at_ms for row in rows.shares.values()]
    assert share.counted_at_ms == max(counted_at_ms)
    of_items = [row for (key, _), row in rows.shares.items() if key != TOTAL_KEY]
    whole = total(of_items)
    assert share.impressions == pytest.approx(whole.impressions, rel=1e-12)
    assert share.clicks == pytest.approx(whole.clicks, rel=1e-12)


def test_duplicates_and_behaviours_leave_the_total_as_it_is() -> None:
    shown, again, viewed = logged(an_impression(), an_impression(), a_behavior())
    batch = [(shown, True), (again, False), (viewed, True)]
    share = fold_shares({}, batch, 3)[TOTAL_KEY, 3]
    assert share.impressions == (1.0,) * 4
    assert share.last_offset == 0
    assert fold_shares({}, batch[1:], 3) == {}


def test_a_forget_touches_no_other_user() -> None:
    rows = fold(Rows(), logged(a_behavior(user_id="u2"), an_impression(user_id="u2")))
    assert (
        fold(rows, logged(a_forget(at_ms=NOON_MS * 2), start=2)).users["u2"]
        == rows.users["u2"]
    )


def test_an_earlier_forget_that_comes_later_forgets_no_less() -> None:
    forgets = (a_forget(at_ms=NOON_MS + 9), a_forget(at_ms=NOON_MS))
    rows = fold(Rows(), logged(*forgets, a_behavior(at_ms=NOON_MS + 5)))
    assert rows.users["u1"].sequence.elements == ()
    assert rows.users["u1"].forgotten_at_ms == NOON_MS + 9


def test_what_a_user_did_after_the_request_stays_although_it_came_before() -> None:
    done = a_behavior("i2", at_ms=NOON_MS + 1)
    rows = fold(Rows(), logged(a_behavior("i1"), done, a_forget()))
    (kept,) = rows.users["u1"].sequence.elements
    assert kept.item_key == item_key("i2")


def test_a_behaviour_has_no_counters() -> None:
    rows = fold(Rows(), logged(a_behavior()))
    assert rows.users["u1"].first_seen_ms == 0
    assert rows.shares == {}


def test_a_duplicate_is_a_behaviour_at_its_own_time_and_not_counted_again() -> None:
    first, second = logged(a_click(), a_click(at_ms=NOON_MS + 9_000))
    rows = fold_users({}, [(first, True), (second, False)], CONFIG)
    assert len(rows["u1"].sequence) == 2
    assert rows["u1"].clicks == (1.0,) * 4
