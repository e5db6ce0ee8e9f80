"""The paired difference to popularity: by visit, with an interval over users."""

import json
from collections import Counter

import numpy as np
import pytest

from srp4ctr.demo.popularity_baseline import paired_ctr
from srp4ctr.demo.replay import ReplayedSlate

CLICKS = Counter({"b": 2, "a": 1})  # popularity puts b first


def a_slate(user_id: str, ranked: str, clicked: str) -> ReplayedSlate:
    """Return a slate whose items are the letters of ``ranked``, best first."""
    return ReplayedSlate(
        user_id=user_id,
        item_ids=tuple(ranked),
        scores=tuple(1.0 / (n + 1) for n in range(len(ranked))),
        clicked=frozenset(clicked),
        model_version="v1",
        latency_s=0.001,
    )


def random_slates(users: int, visits: int, gain: float) -> list[ReplayedSlate]:
    """Return slates of which the model's first item is clicked more often by ``gain``."""
    rng = np.random.default_rng(5)
    slates = []
    for user in range(users):
        for _ in range(visits):
            clicked = ("a" if rng.random() < 0.4 + gain else "") + (
                "b" if rng.random() < 0.4 else ""
            )
            slates.append(a_slate(f"u{user}", "ab", clicked))
    return slates


def test_the_difference_is_of_the_clicks_on_both_first_items() -> None:
    slates = [a_slate("u1", "ab", "a"), a_slate("u1", "ab", "ab"), a_slate("u2", "ba", "a")]
    found = paired_ctr(slates, CLICKS)
    assert found.difference == pytest.approx(1 / 3)
    assert (found.users, found.visits) == (2, 3)


def test_an_order_like_popularitys_differs_by_nothing_for_sure() -> None:
    found = paired_ctr([a_slate(f"u{n}", "ba", "a") for n in range(9)], CLICKS)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_users_drawn_again_and_again() -> None:
    slates = random_slates(users=150, visits=4, gain=0.15)
    found = paired_ctr(slates, CLICKS)
    by_user = np.array(
        [("a" in slate.clicked) - float("b" in slate.clicked) for slate in slates]
    ).reshape(150, 4)
    rng = np.random.default_rng(0)
    means = [by_user[rng.integers(150, size=150)].mean() for _ in range(4000)]
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.006)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.006)


def test_a_users_visits_that_are_all_alike_count_as_one() -> None:
    once = random_slates(users=40, visits=1, gain=0.2)
    one, many = paired_ctr(once, CLICKS), paired_ctr(once * 10, CLICKS)
    assert one.low == pytest.approx(many.low)
    assert (many.users, many.visits) == (40, 400)


def test_of_one_user_there_is_no_interval() -> None:
    found = paired_ctr([a_slate("u1", "ab", "a")], CLICKS)
    assert (found.low, found.high) == (None, None)
    assert "no interval" in found.sentence()
    assert json.dumps([found.low], allow_nan=False) == "[null]"


def test_one_line_says_difference_interval_users_and_visits() -> None:
    found = paired_ctr(random_slates(users=30, visits=2, gain=0.3), CLICKS)
    line = found.sentence()
    assert f"{found.difference:+.3f} (95 % interval {found.low:+.3f} to" in line
    assert line.endswith("30 users, 60 visits")
