"""The difference of two versions, and the coverage of its interval at all times."""

from math import sqrt

import numpy as np
import pytest

from srp4ctr.monitoring.quality.ab_test import (
    HORIZON_SLICES,
    MIN_IMPRESSIONS,
    SLICE_MS,
    AbTest,
    Difference,
    anytime_half_width,
)
from srp4ctr.monitoring.quality.quality_sums import SettledImpression


def a_settled_impression(
    version: str, *, click: bool, at: int = 0, position: int = 0, score: float | None = 0.1
) -> SettledImpression:
    return SettledImpression(
        model_version=version,
        position=position,
        shown_at=at * SLICE_MS,
        score=score,
        is_click=click,
        is_late_click=False,
    )


def shown(ab_test: AbTest, version: str, clicks: int, of: int, at: int = 0) -> None:
    for number in range(of):
        ab_test.update(a_settled_impression(version, click=number < clicks, at=at), 1)


def difference_of(ab_test: AbTest) -> Difference:
    (difference,) = ab_test.differences("v1")
    return difference


def test_the_difference_is_of_the_slices_in_which_both_served() -> None:
    ab_test = AbTest()
    shown(ab_test, "v1", 90, 100, at=1)  # before v2: a better evening
    shown(ab_test, "v1", 20, 100, at=2)
    shown(ab_test, "v2", 30, 100, at=2)
    shown(ab_test, "v2", 0, 100, at=3)
    found = difference_of(ab_test)
    assert (found.model_version, found.impressions) == ("v2", 100)
    assert found.click_rate == pytest.approx(0.1)


def test_more_traffic_in_a_better_hour_makes_no_difference() -> None:
    ab_test = AbTest()
    for at, rate, ours, theirs in ((1, 0.5, 200, 20), (2, 0.1, 20, 200)):
        shown(ab_test, "v2", round(rate * ours), ours, at)
        shown(ab_test, "v1", round(rate * theirs), theirs, at)
    assert difference_of(ab_test).click_rate == pytest.approx(0.0)


def test_only_what_a_model_put_at_the_top_is_compared() -> None:
    ab_test = AbTest()
    ab_test.update(a_settled_impression("v2", click=True, position=1), 1)
    ab_test.update(a_settled_impression("v2", click=True, score=None), 1)
    shown(ab_test, "v1", 1, 10)
    assert ab_test.differences("v1") == ()


def test_a_correction_replaces_what_was_counted() -> None:
    corrected, straight = AbTest(), AbTest()
    for ab_test, clicks in ((corrected, 10), (straight, 11)):
        shown(ab_test, "v1", 10, 200)
        shown(ab_test, "v2", clicks, 200)
    corrected.update(a_settled_impression("v2", click=False), -1)
    corrected.update(a_settled_impression("v2", click=True), 1)
    assert difference_of(corrected) == difference_of(straight)
    assert difference_of(corrected).click_rate == pytest.approx(1 / 200)


def test_few_impressions_have_no_verdict() -> None:
    ab_test = AbTest()
    shown(ab_test, "v1", 1, 9 * MIN_IMPRESSIONS)
    shown(ab_test, "v2", MIN_IMPRESSIONS - 2, MIN_IMPRESSIONS - 1)
    found = difference_of(ab_test)
    assert (found.interval.low, found.interval.high, found.verdict) == (-1.0, 1.0, 0)
    shown(ab_test, "v2", 1, 1)
    assert difference_of(ab_test).verdict == 1


def test_each_version_s_clicks_vary_over_its_own_impressions() -> None:
    ab_test = AbTest(expected_difference=0.1)
    shown(ab_test, "v1", 100, 1000)  # a canary has less traffic, and here more clicks
    shown(ab_test, "v2", 100, 200)
    found = difference_of(ab_test)
    half = anytime_half_width(0.5 * 0.5 / 200 + 0.1 * 0.9 / 1000, 0.1)
    assert found.impressions == 200
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (0.4 - half, 0.4 + half)
    )


def test_a_slice_from_which_all_was_subtracted_is_as_if_it_had_not_been() -> None:
    ab_test = AbTest()
    shown(ab_test, "v1", 1, 10)
    for sign in (1, -1):
        ab_test.update(a_settled_impression("v2", click=True), sign)
    assert ab_test.differences("v1") == ()


@pytest.mark.parametrize(("clicks", "verdict"), [(900, 1), (300, -1), (610, 0)])
def test_the_verdict_is_what_the_interval_leaves(clicks: int, verdict: int) -> None:
    ab_test = AbTest()
    shown(ab_test, "v1", 600, 3000)
    shown(ab_test, "v2", clicks, 3000)
    assert difference_of(ab_test).verdict == verdict


@pytest.mark.parametrize(
    ("other", "clicks", "newer_and_older", "is_regression"),
    [
        ("v10", 300, ("v10", "v9"), True),  # a bad canary
        ("v10", 900, ("v10", "v9"), False),
        ("v8", 900, ("v9", "v8"), True),  # a bad promotion
        ("v8", 300, ("v9", "v8"), False),
        ("popularity", 900, ("v9", "popularity"), True),
        ("popularity", 610, ("v9", "popularity"), False),
    ],
)
def test_only_the_newer_one_can_be_a_regression(
    other: str, clicks: int, newer_and_older: tuple[str, str], is_regression: bool
) -> None:
    ab_test = AbTest()
    shown(ab_test, "v9", 600, 3000)
    shown(ab_test, other, clicks, 3000)
    (found,) = ab_test.differences("v9")
    assert (found.newer_and_older, found.is_regression) == (newer_and_older, is_regression)


def test_slices_older_than_two_weeks_are_evicted() -> None:
    ab_test = AbTest()
    shown(ab_test, "v1", 1, 10, at=1)
    shown(ab_test, "v2", 1, 10, at=1)
    ab_test.update(a_settled_impression("v3", click=False, at=1 + HORIZON_SLICES), 1)
    assert ab_test.differences("v1") == ()
    for version in ("v1", "v2"):
        ab_test.update(a_settled_impression(version, click=False, at=1), 1)  # too late
    assert ab_test.differences("v1") == ()


def exclusions(rate: float, other: float, seed: int) -> tuple[bool, bool]:
    """Return whether the interval, and a fixed-size test's, ever excluded the difference.

    Both are evaluated 100 times over 10,000 impressions per version.
    """
    generator = np.random.default_rng(seed)
    ours, theirs = (np.cumsum(generator.uniform(size=10_000) < p) for p in (rate, other))
    missed, missed_fixed = False, False
    for count in range(100, 10_001, 100):
        p, q = ours[count - 1] / count, theirs[count - 1] / count
        variance = (p * (1 - p) + q * (1 - q)) / count
        wrong = abs(p - q - (rate - other))
        missed |= wrong > anytime_half_width(variance, 0.02)
        missed_fixed |= wrong > 1.96 * sqrt(variance)
    return missed, missed_fixed


@pytest.mark.parametrize(("rate", "other"), [(0.1, 0.1), (0.12, 0.1)])
def test_the_interval_is_valid_at_all_times(rate: float, other: float) -> None:
    missed, missed_fixed = np.mean(
        [exclusions(rate, other, seed) for seed in range(400)], axis=0
    )
    assert missed <= 0.05
    assert missed_fixed > 0.3  # such a test is valid only once


def test_a_difference_is_found_before_long() -> None:
    generator = np.random.default_rng(1)
    ab_test = AbTest()
    for number in range(20_000):
        for version, rate in (("v1", 0.10), ("v2", 0.12)):
            click = bool(generator.uniform() < rate)
            ab_test.update(a_settled_impression(version, click=click, at=number // 500), 1)
        if number % 500 == 499 and difference_of(ab_test).verdict:
            break
    assert difference_of(ab_test).verdict == 1
    assert number < 15_000
