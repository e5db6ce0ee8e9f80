"""Aggregated windows have the figures of one window over all of them."""

import random
from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.collector.collector import MachinePrices, View, figures
from srp4ctr.monitoring.cost.cost_figures import Figure
from srp4ctr.monitoring.cost.triton_counters import ServingTotals
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.quality_sums import (
    ModelQuality,
    QualitySums,
    SettledImpression,
)
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS
from srp4ctr.monitoring.report.prometheus.aggregation import aggregate

HOURS = 6


def outcomes(hour: int) -> list[SettledImpression]:
    draw = random.Random(hour)
    rate = 0.05 + 0.03 * hour  # hours differ, and so does what is worth scoring high
    found = []
    for number in range(16_000 + 2000 * hour):
        score = min(0.9, rate * draw.uniform(0.2, 1.8))
        found.append(
            SettledImpression(
                model_version="v1",
                request=(f"u{hour}-{number}", "r1"),
                user_group=draw.randrange(NUM_GROUPS),
                position=number % 5,
                shown_at=0,
                score=score,
                is_click=draw.random() < 0.8 * score,
                is_late_click=False,
            )
        )
    return found


def quality(of: list[SettledImpression]) -> ModelQuality:
    sums = QualitySums()
    for each in of:
        sums.update(each, 1)
    return sums.quality("v1")


def view_of(found: ModelQuality) -> View:
    return View(
        window_s=3600.0,
        label_window_s=1800.0,
        qualities=(found,),
        provisional={},
        differences=(),
        totals=ServingTotals(),
        flops={},
        prices=MachinePrices(currency="USD", core=0.0, gpu=0.0),
        feature_drifts=(),
        serving_version=None,
        bundles=(),
        source_up={},
        consumer_lag={},
    )


def window(of: list[SettledImpression]) -> dict[str, float]:
    """Return what the report reads of a window: the exporter's own figures."""
    return {
        "/".join((each.metric.removeprefix("srp4ctr_"), *each.labels[1:])): each.value
        for each in figures(view_of(quality(of)))
        if isinstance(each, Figure) and each.labels[:1] == ("v1",) and not isnan(each.value)
    }


@pytest.fixture(scope="module")
def whole() -> ModelQuality:
    return quality([each for hour in range(HOURS) for each in outcomes(hour)])


@pytest.fixture(scope="module")
def windows() -> list[dict[str, float]]:
    return [window(outcomes(hour)) for hour in range(HOURS)]


def test_counts_and_rates_are_those_of_the_whole(
    windows: list[dict[str, float]], whole: ModelQuality
) -> None:
    found = aggregate(windows)
    assert (found.impressions, found.clicks) == (whole.impressions, whole.clicks)
    assert found.top_impressions == whole.top_impressions
    assert found.click_rate == pytest.approx(whole.click_rate)
    assert found.top_click_rate.value == pytest.approx(whole.top_click_rate)
    interval, exact = found.top_click_rate.interval, whole.top_click_rate_interval
    width = exact.high - exact.low
    assert interval.low == pytest.approx(exact.low, abs=0.1 * width)
    assert interval.high == pytest.approx(exact.high, abs=0.1 * width)
    assert found.num_windows == HOURS


def test_calibration_and_entropy_are_those_of_the_whole(
    windows: list[dict[str, float]], whole: ModelQuality
) -> None:
    found = aggregate(windows)
    expected = whole.calibration_interval
    assert found.calibration.value == pytest.approx(whole.calibration_ratio)
    width = expected.high - expected.low
    assert found.calibration.interval.low == pytest.approx(expected.low, abs=0.1 * width)
    assert found.calibration.interval.high == pytest.approx(expected.high, abs=0.1 * width)
    assert found.normalized_entropy == pytest.approx(whole.normalized_entropy)


def test_the_auc_compares_impressions_of_one_hour(
    windows: list[dict[str, float]], whole: ModelQuality
) -> None:
    hours = [quality(outcomes(hour)).auc.value for hour in range(HOURS)]
    found, auc = aggregate(windows).auc, whole.auc
    assert min(hours) < found.value < max(hours)
    assert found.value < auc.value  # an hour's click rate is no merit of the ranking
    width = auc.interval.high - auc.interval.low
    assert found.interval.high - found.interval.low == pytest.approx(width, rel=0.15)


def test_one_window_keeps_its_figures() -> None:
    found, exact = aggregate([window(outcomes(2))]), quality(outcomes(2))
    assert found.auc.value == exact.auc.value
    assert found.auc.interval.low == pytest.approx(exact.auc.interval.low)
    assert found.auc.interval.high == pytest.approx(exact.auc.interval.high)
    assert found.calibration_error == pytest.approx(
        exact.expected_calibration_error, abs=2e-3
    )
    curve = [(each.score, each.click_rate) for each in exact.calibration_bins]
    assert np.allclose(found.curve, curve)


def test_an_hour_without_a_click_counts_its_predicted_clicks() -> None:
    silent = {
        "matured_impressions": 100.0,
        "matured_clicks": 0.0,
        **{f"calibration_bin_score/{n}": 0.05 for n in range(10)},
        **{f"calibration_bin_click_rate/{n}": 0.0 for n in range(10)},
    }
    loud = {
        "matured_impressions": 100.0,
        "matured_clicks": 10.0,
        "calibration_ratio": 0.5,
        "calibration_ratio_bound/low": 0.4,
    }
    assert aggregate([silent, loud]).calibration.value == pytest.approx((5 + 5) / 10)


def test_label_coverage_is_the_share_of_all_that_should_have_a_label() -> None:
    half = {"matured_impressions": 100.0, "label_coverage": 0.5}
    whole = {"matured_impressions": 100.0, "label_coverage": 1.0}
    assert aggregate([half, whole]).label_coverage == pytest.approx(200 / 300)
    none = {"matured_impressions": 0.0, "label_coverage": 0.0}
    assert aggregate([half, none]).label_coverage == pytest.approx(0.5)
    assert isnan(aggregate([none]).label_coverage)


def test_without_windows_the_figures_are_unknown() -> None:
    found = aggregate([])
    assert found.impressions == 0
    for value in (found.auc.value, found.calibration.value, found.click_rate):
        assert isnan(value)
    assert isnan(found.top_click_rate.interval.low)
    assert isnan(found.normalized_entropy)
    assert found.auc.interval != Interval(low=0.0, high=1.0)
