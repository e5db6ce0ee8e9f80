"""The demo's comparisons: the same slates, three ways to choose the first item."""

from collections import Counter

import pytest

from srp4ctr.demo.demo_tables import (
    first_click_rate,
    percentile_ms,
    popularity_click_rate,
    random_click_rate,
)
from srp4ctr.demo.replay import Answer


def an_answer(ranked: str, clicked: str, latency_s: float = 0.001) -> Answer:
    """Return an answer whose items are the letters of ``ranked``, best first."""
    return Answer(
        user_id="u1",
        item_ids=tuple(ranked),
        scores=tuple(1.0 / (n + 1) for n in range(len(ranked))),
        clicked=frozenset(clicked),
        model_version="v1",
        latency_s=latency_s,
    )


def test_the_model_is_judged_by_the_item_that_it_put_first() -> None:
    assert first_click_rate([an_answer("ab", "a"), an_answer("ba", "a")]) == 0.5


def test_popularity_puts_the_most_clicked_item_first() -> None:
    answers = [an_answer("ab", "b"), an_answer("ac", "a")]
    assert popularity_click_rate(answers, Counter({"b": 5, "c": 3})) == 0.5


def test_popularitys_ties_do_not_borrow_the_models_order() -> None:
    assert popularity_click_rate([an_answer("ba", "b")], Counter()) == 0.0


def test_random_is_the_mean_share_of_clicked_items() -> None:
    answers = [an_answer("abcd", "a"), an_answer("ab", "ab")]
    assert random_click_rate(answers) == pytest.approx(0.625)


def test_percentiles_are_in_milliseconds() -> None:
    answers = [an_answer("a", "", latency_s=s / 1000) for s in range(1, 101)]
    assert percentile_ms(answers, 50) == pytest.approx(50.5)
