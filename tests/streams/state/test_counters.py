import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.state.counters import (
    HALF_LIVES_H,
    Activity,
    count,
    count_all,
    decayed,
    total,
)
from tests.builders import NOON_MS

HOUR_MS = 3_600_000
events = st.lists(
    st.tuples(st.integers(NOON_MS, NOON_MS + 50 * HOUR_MS), st.booleans()),
    min_size=1,
    max_size=20,
)
Events = list[tuple[int, bool]]


def counted(seen: Events, activity: Activity | None = None) -> Activity:
    activity = activity or Activity()
    for offset, (at_ms, is_click) in enumerate(seen):
        activity = count(activity, at_ms=at_ms, is_click=is_click, offset=offset)
    return activity


def brute_force(seen: Events, *, clicks: bool) -> list[float]:
    """Return the definition, summed event by event at the latest event's time."""
    now = max(at_ms for at_ms, _ in seen)
    hours = [(now - at_ms) / HOUR_MS for at_ms, is_click in seen if is_click == clicks]
    return [sum(2.0 ** (-h / half_life) for h in hours) for half_life in HALF_LIVES_H]


def test_a_count_halves_in_its_half_life() -> None:
    assert decayed((1.0,) * 4, 24 * HOUR_MS)[2] == pytest.approx(0.5)


@given(events, st.integers(0, 20), st.integers(0, 20))
def test_counting_all_at_once_is_counting_one_by_one_to_the_last_bit(
    seen: Events, start: int, stored: int
) -> None:
    one_by_one = counted(seen)
    batch = [(at_ms, is_click, offset) for offset, (at_ms, is_click) in enumerate(seen)]
    assert count_all(count_all(Activity(), batch[:start]), batch[start:]) == one_by_one
    assert count_all(one_by_one, batch[stored:]) is one_by_one  # again


@given(events)
def test_counts_are_the_definitions_sum_in_any_order(seen: Events) -> None:
    activity = counted(seen)
    assert activity.impressions == pytest.approx(brute_force(seen, clicks=False))
    assert activity.clicks == pytest.approx(brute_force(seen, clicks=True))
    assert activity.first_seen_ms == min(at_ms for at_ms, _ in seen)


@given(events)
def test_a_redelivered_event_changes_nothing(seen: Events) -> None:
    once = counted(seen)
    assert counted(seen, once) == once


@given(events)
def test_each_count_has_a_greater_version(seen: Events) -> None:
    before = counted(seen)
    after = count(before, at_ms=NOON_MS, is_click=False, offset=len(seen))
    assert after.version_us > before.version_us


@given(events, events)
def test_the_shares_of_two_partitions_sum_to_the_whole(left: Events, right: Events) -> None:
    whole, parts = counted(left + right), total([counted(left), counted(right)])
    assert parts.impressions == pytest.approx(whole.impressions)
    assert parts.clicks == pytest.approx(whole.clicks)
    assert parts.counted_at_ms == whole.counted_at_ms
    assert parts.first_seen_ms == whole.first_seen_ms


def test_no_shares_sum_to_nothing() -> None:
    assert total([]) == Activity()


def test_a_share_that_has_counted_nothing_changes_no_sum() -> None:
    share = counted([(NOON_MS, True), (NOON_MS + HOUR_MS, False)])
    for shares in ([Activity(), share], [share, Activity()]):
        whole = total(shares)
        assert whole.first_seen_ms == NOON_MS
        assert whole.counted_at_ms == NOON_MS + HOUR_MS
        assert whole.version_us == share.version_us
