"""The demo's comparisons: the same slates, three ways to choose the first item."""

from collections import Counter

import pytest

from srp4ctr.demo.demo_tables import (
    first_click_rate,
    percentile_ms,
    popularity_click_rate,
    random_click_rate,
)
from srp4ctr.demo.replay import ReplayedSlate


def a_slate(ranked: str, clicked: str, latency_s: float = 0.001) -> ReplayedSlate:
    """Return a slate whose items are the letters of ``ranked``, best first."""
    return ReplayedSlate(
        user_id="u1",
        item_ids=tuple(ranked),
        scores=tuple(1.0 / (n + 1) for n in range(len(ranked))),
        clicked=frozenset(clicked),
        model_version="v1",
        latency_s=latency_s,
    )


def test_the_model_is_judged_by_the_item_that_it_put_first() -> None:
    assert first_click_rate([a_slate("ab", "a"), a_slate("ba", "a")]) == 0.5


def test_popularity_puts_the_most_clicked_item_first() -> None:
    slates = [a_slate("ab", "b"), a_slate("ac", "a")]
    assert popularity_click_rate(slates, Counter({"b": 5, "c": 3})) == 0.5


def test_popularitys_ties_do_not_borrow_the_models_order() -> None:
    assert popularity_click_rate([a_slate("ba", "b")], Counter()) == 0.0


def test_random_is_the_mean_share_of_clicked_items() -> None:
    slates = [a_slate("abcd", "a"), a_slate("ab", "ab")]
    assert random_click_rate(slates) == pytest.approx(0.625)


def test_percentiles_are_in_milliseconds() -> None:
    slates = [a_slate("a", "", latency_s=s / 1000) for s in range(1, 101)]
    assert percentile_ms(slates, 50) == pytest.approx(50.5)
