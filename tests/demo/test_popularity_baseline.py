from typing import Any

import pytest

from srp4ctr.demo.popularity_baseline import POPULARITY, SHARE, ControlGroup
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Click, Event, Impression
from tests.builders import a_behavior


def shown(item: str, clicks: int, of: int) -> list[Event]:
    events: list[Event] = []
    for number in range(of):
        named: dict[str, Any] = {
            "request_id": f"r{number}",
            "user_id": "u1",
            "item_id": item,
        }
        event_id = f"{item}-{number}"
        events.append(
            Impression(event_id=event_id, position=0, occurred_at=number, **named)
        )
        if number < clicks:
            events.append(Click(event_id=f"c{event_id}", occurred_at=number, **named))
    return events


def test_items_are_ranked_by_their_clicks_with_rates_for_scores() -> None:
    control = ControlGroup(shown("often", 40, 400) + shown("seldom", 30, 100))
    ranking = control.rank("u1", ["seldom", "never", "often"])
    assert ranking.positions == (1, 2, 0)
    mean = 70 / 500
    assert ranking.scores == pytest.approx(
        ((30 + 20 * mean) / 120, mean, (40 + 20 * mean) / 420)
    )
    assert (ranking.model_version, ranking.feature_version) == (POPULARITY, "")


def test_a_fifth_of_the_users_are_in_it_and_always_the_same() -> None:
    control = ControlGroup([])
    users = [f"u{number}" for number in range(5000)]
    chosen = [user for user in users if control.has(user)]
    assert len(chosen) / len(users) == pytest.approx(SHARE, abs=0.02)
    assert chosen == [user for user in users if ControlGroup([]).has(user)]


def test_without_a_history_everything_is_alike() -> None:
    ranking = ControlGroup([]).rank("u1", ["b", "a"])
    assert ranking.positions == (1, 0)
    assert ranking.scores == (0.0, 0.0)


@pytest.mark.parametrize(
    ("rule", "top"), [("popularity", "a"), ("touched_last", "c"), ("touched_most", "b")]
)
def test_the_control_group_may_be_any_rule_and_sees_the_replay(rule: str, top: str) -> None:
    control = ControlGroup(shown("a", 9, 10) + shown("b", 1, 10), rule)
    for item, at_ms in (("b", 20), ("b", 30), ("c", 40)):
        control.observe(a_behavior(item, at_ms=at_ms, user_id="u2"))
    items = ["a", "b", "c"]
    ranking = control.rank("u2", items)
    assert items[ranking.positions.index(0)] == top
    assert ranking.model_version == rule
    unknown = control.rank("u9", items)  # ties go by clicks
    assert unknown.positions == (0, 1, 2)


def test_another_rule_is_refused() -> None:
    with pytest.raises(MistakeError, match="one of popularity, touched_last"):
        ControlGroup([], "cheapest")
