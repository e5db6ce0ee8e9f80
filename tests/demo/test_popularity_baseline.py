from typing import Any

import pytest

from srp4ctr.demo.popularity_baseline import POPULARITY, SHARE, ControlGroup
from srp4ctr.streams.events.schema import Click, Event, Impression


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
    ranking = control.rank(["seldom", "never", "often"])
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
    ranking = ControlGroup([]).rank(["b", "a"])
    assert ranking.positions == (1, 0)
    assert ranking.scores == (0.0, 0.0)
