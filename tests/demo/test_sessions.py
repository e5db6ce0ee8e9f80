"""Visits for a replay: order kept, no slate sees its own clicks, history ends now."""

from itertools import pairwise

import msgspec

from srp4ctr.demo.sessions import VISIT_MS, history_events, timelines
from srp4ctr.streams.events.schema import Behavior, Click, Forget, Impression, UserUpdate
from tests.builders import NOON_MS, a_behavior, a_click, an_impression

DAY_MS = 86_400_000


def five_slates() -> list[Impression | Click | Behavior]:
    """Slates a day apart; each is clicked once and rated after."""
    events: list[Impression | Click | Behavior] = []
    for day in range(5):
        at_ms, request = NOON_MS + day * DAY_MS, f"r{day}"
        events += [
            an_impression(f"i{day}", at_ms=at_ms, request_id=request),
            an_impression(f"j{day}", at_ms=at_ms, request_id=request, position=1),
            a_click(f"j{day}", at_ms=at_ms + 60_000, request_id=request),
            a_behavior(f"j{day}", at_ms=at_ms + 90_000, action="rate", value=5.0),
        ]
    return events


def test_the_last_share_of_the_slates_is_live() -> None:
    (timeline,) = timelines(five_slates(), 0.2)
    assert timeline.num_history == 4
    assert [visit.impressions[0].item_id for visit in timeline.live] == ["i4"]


def test_the_order_in_which_events_arrive_does_not_matter() -> None:
    assert timelines(five_slates()[::-1], 0.4) == timelines(five_slates(), 0.4)


def test_the_history_ends_now_and_keeps_its_gaps() -> None:
    (timeline,) = timelines(five_slates(), 0.2)
    events = history_events(timeline, now_ms=NOON_MS)
    shown = [e.occurred_at for e in events if isinstance(e, Impression)]
    assert max(e.occurred_at for e in events) < NOON_MS
    assert max(shown) >= NOON_MS - 2 * VISIT_MS
    assert sorted({b - a for a, b in pairwise(shown)}) == [0, DAY_MS]


def test_a_click_and_its_behaviours_come_after_their_slate_and_before_the_next() -> None:
    (timeline,) = timelines(five_slates(), 0.2)
    events = history_events(timeline, now_ms=NOON_MS)
    in_time = sorted(events, key=lambda event: event.occurred_at)
    kinds = [type(event).__name__ for event in in_time]
    assert kinds == ["Impression", "Impression", "Click", "Behavior"] * 4
    of_no_item = Forget | UserUpdate
    first = [e.item_id for e in in_time[:4] if not isinstance(e, of_no_item)]
    assert len({item_id[1:] for item_id in first}) == 1


def test_what_came_before_the_first_slate_keeps_its_distance() -> None:
    earlier = a_behavior("old", at_ms=NOON_MS - DAY_MS)
    (timeline,) = timelines([*five_slates(), earlier], 0.2)
    events = history_events(timeline, now_ms=NOON_MS)
    first_shown = min(e.occurred_at for e in events if isinstance(e, Impression))
    assert isinstance(events[0], Behavior)
    assert events[0].item_id == "old"
    assert first_shown - events[0].occurred_at == DAY_MS


def test_a_user_of_one_slate_has_only_history() -> None:
    lonely = an_impression("x", user_id="u2", request_id="r9")
    result = {t.user_id: t for t in timelines([*five_slates(), lonely], 0.2)}
    assert result["u2"].live == ()


def test_a_long_log_replays_the_visits_of_some_users() -> None:
    events = [
        msgspec.structs.replace(event, user_id=f"u{user}")
        for user in range(9)
        for event in five_slates()
    ]
    some = timelines(events, 0.4, max_live=5)
    assert sorted(len(each.live) for each in some) == [0] * 6 + [2] * 3
    assert all(len(each.visits) == 5 for each in some)
    assert {each.user_id for each in some} == {f"u{user}" for user in range(9)}
