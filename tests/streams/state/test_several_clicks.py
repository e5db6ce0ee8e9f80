"""Of several clicks on one impression the earliest decides, in whatever order they come."""

import pytest

from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin
from tests.builders import NOON_MS, a_behavior, a_click, an_impression

WINDOW_MS = 60_000
CORRECTION_MS = 600_000
END_MS = NOON_MS + WINDOW_MS


def a_join() -> LabelJoin:
    return LabelJoin(WINDOW_MS, CORRECTION_MS, max_kept=1000)


def close(join: LabelJoin) -> list[ImpressionLabel]:
    """Return the labels that are decided when all of the window has passed."""
    join.add(a_behavior(at_ms=END_MS + 1000), END_MS + 1000)
    return join.advance()


@pytest.mark.parametrize("order", [1, -1])
def test_of_clicks_before_their_impression_the_earliest_decides(order: int) -> None:
    join = a_join()
    for after_ms in (1000, WINDOW_MS + 1000)[::order]:
        assert join.add(a_click(at_ms=NOON_MS + after_ms), NOON_MS) == []
    (label,) = join.add(an_impression(), NOON_MS)
    assert (label.within_window, label.matured_at) == (True, NOON_MS + 1000)


@pytest.mark.parametrize("order", [1, -1])
def test_the_earliest_of_several_late_clicks_in_an_open_window_decides(order: int) -> None:
    join = a_join()
    join.add(an_impression(), NOON_MS)
    for after_ms in (5, 500)[::order]:  # behind the window, which the records have not left
        assert join.add(a_click(at_ms=END_MS + after_ms), NOON_MS) == []
    _, label = close(join)
    assert (label.within_window, label.matured_at) == (False, END_MS + 5)


def test_a_click_that_arrives_late_waits_as_long_as_a_punctual_one() -> None:
    join = a_join()
    now_ms = NOON_MS + 100 * CORRECTION_MS
    join.add(a_behavior(at_ms=now_ms), now_ms)
    join.add(a_click(), now_ms)
    join.advance()
    assert join.waiting == 1
    (label,) = join.add(an_impression(), now_ms)
    assert label.clicked


def test_the_clock_of_a_quiet_partition_holds_no_event_back() -> None:
    join = a_join()
    join.add(an_impression(), NOON_MS)
    assert join.advance(idle_until_ms=NOON_MS + 1) == []
    assert len(close(join)) == 1


def test_a_label_has_what_the_impression_said() -> None:
    shown = an_impression(position=3, score=0.25, propensity=0.75, model_version="v1")
    join = a_join()
    join.add(shown, NOON_MS)
    (label,) = close(join)
    named = (label.position, label.score, label.propensity, label.model_version)
    assert named == (3, 0.25, 0.75, "v1")
    assert label.impression_at == NOON_MS


def test_of_users_of_whom_nothing_waits_nothing_is_held() -> None:
    join = a_join()
    for number in range(100):
        join.add(an_impression(user_id=f"u{number}"), NOON_MS)
        join.add(a_click("never-shown", user_id=f"v{number}"), NOON_MS)
    for later_ms in (END_MS, END_MS + 2 * CORRECTION_MS):
        join.add(a_behavior(at_ms=later_ms), later_ms)
        join.advance()
    assert (join.waiting, len(join._keys_of)) == (0, 0)
