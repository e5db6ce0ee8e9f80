from collections.abc import Callable
from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.quality.confidence_intervals import (
    Interval,
    calibration,
    click_rate,
    student,
    symmetric,
    wilson,
)
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS, Floats


def test_wilson_of_half_of_ten_is_the_textbook_interval() -> None:
    interval = wilson(0.5, 10)
    assert (interval.low, interval.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_click_of_ten_still_has_an_upper_bound() -> None:
    for interval in (wilson(0.0, 10), click_rate([0] * 10, [1] * 10)):
        assert interval.low == pytest.approx(0.0, abs=1e-12)
        assert interval.high > 0.27
    assert wilson(0.0, 10).high == pytest.approx(0.2775, abs=1e-4)


def test_without_data_or_of_one_user_the_interval_is_unknown() -> None:
    assert isnan(wilson(0.0, 0).low)
    assert isnan(click_rate([0, 0], [0, 0]).low)
    assert isnan(click_rate([3, 0], [10, 0]).low)
    assert isnan(calibration([3.0, 0.0], [2, 0], 1.0).high)
    assert isnan(symmetric(0.7, float("nan"), 1.0).low)


@pytest.mark.parametrize(
    ("degrees", "point"), [(5, 2.5706), (10, 2.2281), (63, 1.9983), (255, 1.9693)]
)
def test_student_s_points_are_those_of_the_table(degrees: int, point: float) -> None:
    assert float(student(degrees + 1)) == pytest.approx(point, abs=1e-3)


def of_users(generator: np.random.Generator, deviation: float) -> tuple[Floats, Floats]:
    """Return clicks and predicted clicks by group: 200 users, 100 impressions each.

    The logits of their click rates differ by ``deviation``, the predictions do not.
    """
    own = 1 / (1 + np.exp(2.4 - deviation * generator.standard_normal((201, 200))))
    clicks = generator.binomial(100, own[0])
    groups = np.eye(NUM_GROUPS)[generator.integers(0, NUM_GROUPS, 200)]
    return clicks @ groups, np.full(200, 100 * own[1:].mean()) @ groups


def of_rate(clicks: Floats, predicted: Floats) -> tuple[Interval, float]:
    shown = predicted / predicted[predicted > 0].min() * 100
    return click_rate(clicks, shown), float(predicted.sum() / shown.sum())


def of_calibration(clicks: Floats, predicted: Floats) -> tuple[Interval, float]:
    return calibration(predicted, clicks, 0.9 * float(predicted.sum())), 1.0


@pytest.mark.parametrize("deviation", [0.0, 0.7])
@pytest.mark.parametrize("interval_of", [of_rate, of_calibration])
def test_intervals_cover_the_truth_about_95_times_in_100(
    deviation: float, interval_of: Callable[[Floats, Floats], tuple[Interval, float]]
) -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        interval, truth = interval_of(*of_users(generator, deviation))
        covered += interval.low <= truth <= interval.high
    assert 0.92 < covered / 400 < 0.985


def test_users_who_return_do_not_narrow_the_interval() -> None:
    clicks, shown = np.arange(40) % 4 == 0, np.ones(40)
    once, often = click_rate(clicks, shown), click_rate(50 * clicks, 50 * shown)
    assert often.high - often.low > 0.9 * (once.high - once.low)


def test_clicks_within_the_margin_of_error_have_no_upper_bound() -> None:
    few = calibration([1.0] * 100, [1] * 2 + [0] * 98, 90.0)
    assert isnan(few.high)
    assert 10 < few.low < 50  # of 50 times too high
    assert calibration([1.0] * 100, [1] * 50 + [0] * 50, 90.0).high < 3.0


def test_no_click_is_in_the_margin_of_a_few() -> None:
    assert calibration([0.1] * 100, [0] * 100, 9.0).low == pytest.approx(10 / 3.8, rel=0.1)


def test_an_interval_of_an_auc_stays_between_0_and_1() -> None:
    assert symmetric(0.99, 0.01, 50.0).high == 1.0
    assert symmetric(0.01, 0.01, 50.0).low == 0.0
