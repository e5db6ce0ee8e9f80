"""The difference of two versions, and whether its interval holds when one looks often."""

from math import sqrt

import numpy as np
import pytest

from srp4ctr.monitoring.quality.ab_test import (
    HORIZON_SLICES,
    MIN_IMPRESSIONS,
    SLICE_MS,
    Comparison,
    Difference,
    always_valid,
)
from srp4ctr.monitoring.quality.quality_sums import Outcome


def an_outcome(
    version: str, *, click: bool, at: int = 0, position: int = 0, score: float | None = 0.1
) -> Outcome:
    return Outcome(
        model_version=version,
        position=position,
        shown_at=at * SLICE_MS,
        score=score,
        is_click=click,
        is_late_click=False,
    )


def shown(comparison: Comparison, version: str, clicks: int, of: int, at: int = 0) -> None:
    for number in range(of):
        comparison.move(an_outcome(version, click=number < clicks, at=at), 1)


def difference_of(comparison: Comparison) -> Difference:
    (difference,) = comparison.differences("v1")
    return difference


def test_the_difference_is_of_the_slices_in_which_both_served() -> None:
    comparison = Comparison()
    shown(comparison, "v1", 90, 100, at=1)  # before v2: a better evening
    shown(comparison, "v1", 20, 100, at=2)
    shown(comparison, "v2", 30, 100, at=2)
    shown(comparison, "v2", 0, 100, at=3)
    found = difference_of(comparison)
    assert (found.model_version, found.impressions) == ("v2", 100)
    assert found.click_rate == pytest.approx(0.1)


def test_a_greater_share_of_a_better_hour_is_no_merit() -> None:
    comparison = Comparison()
    for at, rate, ours, theirs in ((1, 0.5, 200, 20), (2, 0.1, 20, 200)):
        shown(comparison, "v2", round(rate * ours), ours, at)
        shown(comparison, "v1", round(rate * theirs), theirs, at)
    assert difference_of(comparison).click_rate == pytest.approx(0.0)


def test_only_what_a_model_put_at_the_top_is_compared() -> None:
    comparison = Comparison()
    comparison.move(an_outcome("v2", click=True, position=1), 1)
    comparison.move(an_outcome("v2", click=True, score=None), 1)
    shown(comparison, "v1", 1, 10)
    assert comparison.differences("v1") == ()


def test_a_correction_replaces_what_was_counted() -> None:
    corrected, straight = Comparison(), Comparison()
    for comparison, clicks in ((corrected, 10), (straight, 11)):
        shown(comparison, "v1", 10, 200)
        shown(comparison, "v2", clicks, 200)
    corrected.move(an_outcome("v2", click=False), -1)
    corrected.move(an_outcome("v2", click=True), 1)
    assert difference_of(corrected) == difference_of(straight)
    assert difference_of(corrected).click_rate == pytest.approx(1 / 200)


def test_few_impressions_have_no_verdict() -> None:
    comparison = Comparison()
    shown(comparison, "v1", 0, MIN_IMPRESSIONS)
    shown(comparison, "v2", MIN_IMPRESSIONS - 1, MIN_IMPRESSIONS - 1)
    found = difference_of(comparison)
    assert (found.interval.low, found.interval.high, found.verdict) == (-1.0, 1.0, 0)


@pytest.mark.parametrize(("clicks", "verdict"), [(900, 1), (300, -1), (610, 0)])
def test_the_verdict_is_what_the_interval_leaves(clicks: int, verdict: int) -> None:
    comparison = Comparison()
    shown(comparison, "v1", 600, 3000)
    shown(comparison, "v2", clicks, 3000)
    assert difference_of(comparison).verdict == verdict


def test_slices_of_more_than_two_weeks_ago_are_forgotten() -> None:
    comparison = Comparison()
    shown(comparison, "v1", 1, 10, at=1)
    shown(comparison, "v2", 1, 10, at=1)
    comparison.move(an_outcome("v3", click=False, at=1 + HORIZON_SLICES), 1)
    assert comparison.differences("v1") == ()
    comparison.move(an_outcome("v2", click=False, at=1), 1)  # far too late
    assert comparison.differences("v1") == ()


def looks(rate: float, other: float, seed: int) -> tuple[bool, bool]:
    """Look 100 times while 10,000 impressions a side come: did an interval miss the truth,
    of ours, and of a fixed-size test's?"""
    generator = np.random.default_rng(seed)
    ours, theirs = (np.cumsum(generator.uniform(size=10_000) < p) for p in (rate, other))
    missed, missed_fixed = False, False
    for count in range(100, 10_001, 100):
        p, q = ours[count - 1] / count, theirs[count - 1] / count
        variance = (p * (1 - p) + q * (1 - q)) / count
        wrong = abs(p - q - (rate - other))
        missed |= wrong > always_valid(variance, 0.02)
        missed_fixed |= wrong > 1.96 * sqrt(variance)
    return missed, missed_fixed


@pytest.mark.parametrize(("rate", "other"), [(0.1, 0.1), (0.12, 0.1)])
def test_the_interval_holds_however_often_one_looks(rate: float, other: float) -> None:
    missed, missed_fixed = np.mean(
        [looks(rate, other, seed) for seed in range(400)], axis=0
    )
    assert missed <= 0.05
    assert missed_fixed > 0.3  # what looking does to a test that is made for one look


def test_a_difference_is_found_before_long() -> None:
    generator = np.random.default_rng(1)
    comparison = Comparison()
    for number in range(20_000):
        for version, rate in (("v1", 0.10), ("v2", 0.12)):
            click = bool(generator.uniform() < rate)
            comparison.move(an_outcome(version, click=click, at=number // 500), 1)
        if number % 500 == 499 and difference_of(comparison).verdict:
            break
    assert difference_of(comparison).verdict == 1
    assert number < 15_000
