from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.quality.confidence_intervals import (
    calibration,
    hanley_mcneil,
    wilson,
)


def test_wilson_of_half_of_ten_is_the_textbook_interval() -> None:
    interval = wilson(5, 10)
    assert (interval.low, interval.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_click_of_ten_still_has_an_upper_bound() -> None:
    interval = wilson(0, 10)
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.2775, abs=1e-4)


def test_without_impressions_the_interval_is_unknown() -> None:
    assert isnan(wilson(0, 0).low)
    assert isnan(hanley_mcneil(0.7, 0, 10).low)
    assert isnan(calibration(3.0, 0, 1.0).high)


def test_the_auc_interval_covers_the_true_auc_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    true_auc = 0.7602  # of two unit normals one apart: Phi(1 / sqrt 2)
    covered = 0
    for _ in range(300):
        clicked, passed = generator.normal(1.0, 1.0, 60), generator.normal(0.0, 1.0, 90)
        auc = float(np.mean(clicked[:, None] > passed[None, :]))
        interval = hanley_mcneil(auc, 60, 90)
        covered += interval.low <= true_auc <= interval.high
    assert 0.91 < covered / 300 < 0.99


def test_calibrated_scores_have_1_in_their_interval() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        p = generator.uniform(0.05, 0.6, 200)
        clicks = int((generator.uniform(size=200) < p).sum())
        interval = calibration(float(p.sum()), clicks, float((p * (1 - p)).sum()))
        covered += interval.low <= 1.0 <= interval.high
    assert 0.91 < covered / 300 < 0.99


def test_the_auc_interval_is_hanley_s_and_mcneil_s() -> None:
    """Of few clicks, as its variance is that of whichever class is rare."""
    auc, clicks, others = 0.8, 10, 1000
    above, below = 0.8 / 1.2, 2 * 0.64 / 1.8
    variance = auc * 0.2 + (clicks - 1) * (above - 0.64) + (others - 1) * (below - 0.64)
    half = 1.96 * (variance / clicks / others) ** 0.5
    interval = hanley_mcneil(auc, clicks, others)
    assert (interval.low, interval.high) == pytest.approx(
        (auc - half, auc + half), rel=1e-4
    )


def test_an_auc_is_at_most_1_and_so_is_its_interval() -> None:
    assert hanley_mcneil(0.99, 3, 3).high == 1.0
    assert hanley_mcneil(0.01, 3, 3).low == 0.0


def test_clicks_within_the_margin_of_error_say_nothing_of_calibration() -> None:
    assert isnan(calibration(4.0, 3, 4.0).high)  # 1.96 times 2 clicks, and 3 came
    assert calibration(4.0, 4, 4.0).high == pytest.approx(4 / (4 - 3.92), rel=0.01)
