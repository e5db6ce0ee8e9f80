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
