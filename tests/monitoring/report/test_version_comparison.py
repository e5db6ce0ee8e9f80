from math import inf, sqrt

import pytest

from srp4ctr.monitoring.quality.ab_test import anytime_half_width
from srp4ctr.monitoring.quality.version_order import version_order
from srp4ctr.monitoring.report.report_contents import ChartLine
from srp4ctr.monitoring.report.version_comparison import (
    comparisons,
    newer_over_older,
    sample_size_factor,
)
from tests.monitoring.report.sample_contents import a_comparison


def gauges(difference: float, low: float, high: float, n: float) -> dict[str, float]:
    return {
        "click_rate_difference": difference,
        "click_rate_difference_bound/low": low,
        "click_rate_difference_bound/high": high,
        "compared_impressions": n,
    }


def test_versions_are_sorted_by_number_and_strange_names_come_first() -> None:
    assert sorted(["v10", "v9", "nightly"], key=version_order) == ["nightly", "v9", "v10"]


def test_a_canary_is_compared_with_what_serves() -> None:
    (found,) = comparisons({("v2", "v1"): gauges(0.02, 0.01, 0.03, 900)})
    assert (found.version, found.reference, found.direction) == ("v2", "v1", 1)
    assert (found.impressions, found.counted) == (900, "v2")


def test_after_a_promotion_it_is_still_the_newer_less_the_older() -> None:
    (found,) = comparisons({("v1", "v2"): gauges(-0.02, -0.03, -0.01, 900)})
    assert (found.version, found.reference, found.direction) == ("v2", "v1", 1)
    assert found.difference.value == 0.02
    assert (found.difference.interval.low, found.difference.interval.high) == (0.01, 0.03)
    assert (found.impressions, found.counted) == (900, "v1")


def test_the_newest_version_comes_first() -> None:
    each = gauges(0.0, -0.1, 0.1, 100)
    found = comparisons({("v8", "v9"): each, ("v10", "v9"): each, ("v7", "v9"): each})
    named = [(c.version, c.reference) for c in found]
    assert named == [("v10", "v9"), ("v9", "v8"), ("v9", "v7")]


def test_an_incomplete_comparison_is_left_out() -> None:
    assert comparisons({("v2", "v1"): {"click_rate_difference": 0.02}}) == ()


def test_a_promotion_does_not_flip_the_line() -> None:
    before = ChartLine(
        versions=("v2", "v1"), points=((0, 0.1),), low=((0, -1.0),), high=((0, 0.2),)
    )
    after = ChartLine(
        versions=("v1", "v2"), points=((1, -0.1),), low=((1, -0.2),), high=((1, 0.3),)
    )
    (line,) = newer_over_older([after, before])
    assert line.versions == ("v2", "v1")
    assert line.points == ((0, 0.1), (1, 0.1))
    assert line.low == ((1, -0.3),)  # -1 is no bound: nothing was known
    assert line.high == ((0, 0.2), (1, 0.2))


@pytest.mark.parametrize("expected", [0.005, 0.02, 0.1])
def test_the_factor_makes_the_difference_significant(expected: float) -> None:
    variance, difference = 1e-4, 0.015
    half = anytime_half_width(variance, expected)
    comparison = a_comparison(difference, difference - half, difference + half)
    times = sample_size_factor(comparison, expected)
    assert times > 1
    assert anytime_half_width(variance / times, expected) == pytest.approx(difference)


def test_a_significant_difference_needs_no_more() -> None:
    assert sample_size_factor(a_comparison(0.02, 0.01, 0.03), 0.02) == 1.0


def test_a_tiny_difference_needs_an_infinite_factor() -> None:
    half = anytime_half_width(1e-4, 0.02)
    for difference in (0.0, 1e-5 * sqrt(1e-4)):
        found = a_comparison(difference, difference - half, difference + half)
        assert sample_size_factor(found, 0.02) == inf


def test_without_an_interval_the_factor_is_infinite() -> None:
    assert sample_size_factor(a_comparison(0.1, -1.0, 1.0), 0.02) == inf
