import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.training.evaluation import quality


def test_auc_of_a_perfect_and_of_a_reversed_ranking() -> None:
    clicked = np.array([1, 1, 0, 0])
    assert quality.auc(clicked, np.array([4.0, 3.0, 2.0, 1.0])) == 1.0
    assert quality.auc(clicked, np.array([1.0, 2.0, 3.0, 4.0])) == 0.0


def test_ties_count_one_half() -> None:
    assert quality.auc(np.array([1, 0, 0]), np.array([1.0, 1.0, 0.0])) == 0.75


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(c for c, _ in rows) < len(rows)
    )
)
def test_auc_is_the_share_of_rightly_ordered_pairs(rows: list[tuple[bool, int]]) -> None:
    clicks = [s for c, s in rows if c]
    others = [s for c, s in rows if not c]
    pairs = [(a > b) + 0.5 * (a == b) for a in clicks for b in others]
    clicked, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert quality.auc(clicked, scores) == pytest.approx(sum(pairs) / len(pairs))


def test_gauc_weighs_each_group_by_its_impressions_and_skips_groups_without_both() -> None:
    clicked = np.array([1, 0, 1, 0, 0, 1, 1])
    scores = np.array([2.0, 1.0, 1.0, 2.0, 3.0, 9.0, 0.0])
    groups = np.array(["a", "a", "b", "b", "b", "c", "c"])
    assert quality.gauc(clicked, scores, groups) == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)


def test_the_aucs_of_groups_are_each_groups_auc_in_whatever_order_they_lie() -> None:
    drawn = np.random.default_rng(1)
    groups = drawn.integers(0, 30, size=300)
    clicked, scores = drawn.random(300) < 0.2, drawn.integers(0, 4, size=300) / 4.0
    expected = [
        quality.auc(clicked[groups == group], scores[groups == group])
        for group in np.unique(groups)
    ]
    np.testing.assert_allclose(quality.group_aucs(clicked, scores, groups), expected)


def test_log_loss_of_a_coin_is_ln_2() -> None:
    half = np.array([0.5, 0.5])
    assert quality.log_loss(np.array([1, 0]), half) == pytest.approx(math.log(2))


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert math.isfinite(quality.log_loss(np.array([1]), np.array([0.0])))


def test_the_log_loss_of_a_rare_click_is_its_own() -> None:
    rare = np.array([1e-5])
    assert quality.log_loss(np.array([1]), rare) == pytest.approx(5 * math.log(10))
    assert quality.log_loss(np.array([0]), rare) == pytest.approx(1e-5, rel=1e-4)


def test_calibration_is_predicted_over_actual_clicks() -> None:
    clicked, predicted = np.array([1, 0, 1, 0]), np.array([0.6, 0.6, 0.6, 0.6])
    assert quality.calibration(clicked, predicted) == pytest.approx(1.2)


def test_normalised_entropy_of_the_mean_rate_is_one() -> None:
    clicked = np.array([1, 0, 0, 0])
    rate = np.full(4, 0.25)
    assert quality.normalised_entropy(clicked, rate) == pytest.approx(1.0)


def test_an_undefined_metric_is_nan() -> None:
    none, some = np.zeros(3), np.full(3, 0.5)
    empty = np.zeros(0)
    values = (
        quality.auc(none, some),
        quality.gauc(none, some, np.arange(3)),
        quality.log_loss(empty, empty),
        quality.calibration(none, some),
        quality.normalised_entropy(none, some),
    )
    assert all(math.isnan(value) for value in values)


def test_the_standard_error_of_calibration_is_its_margin() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.05, 0.6, 400)
    drawn = [p.sum() / (rng.uniform(size=400) < p).sum() for _ in range(4000)]
    clicked = rng.uniform(size=400) < p
    expected = quality.calibration_standard_error(clicked, p)
    assert np.std(drawn) == pytest.approx(expected, rel=0.1)
    assert quality.calibration_standard_error(clicked, p / 100) < expected / 5
    assert np.isnan(quality.calibration_standard_error(np.zeros(3), np.full(3, 0.5)))


def test_ctr_at_1_is_of_requests_with_a_click() -> None:
    clicked = np.array([1, 0, 0, 1, 0, 0])
    scores = np.array([2.0, 1.0, 3.0, 1.0, 5.0, 4.0])
    requests = np.array([4, 4, 7, 7, 9, 9])
    # The first request's top was clicked, the second's not, and the third has no click.
    assert quality.ctr_at_1(clicked, scores, requests) == pytest.approx(0.5)
    assert np.isnan(quality.ctr_at_1(np.zeros(6), scores, requests))
    assert np.isnan(quality.ctr_at_1(np.zeros(0), np.zeros(0), np.zeros(0)))


def test_items_that_share_the_top_are_on_it_equally_often() -> None:
    clicked = np.array([1, 0, 0, 0, 1, 1])
    scores = np.array([3.0, 3.0, 3.0, 1.0, 2.0, 2.0])
    requests = np.array([0, 0, 0, 0, 1, 1])
    found = quality.top_clicks(clicked, scores, requests)
    np.testing.assert_allclose(found, [1 / 3, 1.0])
