"""Ratios of sums by group of users, and the variance that returning users give them."""

from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.quality.user_groups import (
    NUM_GROUPS,
    ratio_of_sums,
    user_group,
)


def test_the_variance_is_that_of_users_however_often_each_comes() -> None:
    generator = np.random.default_rng(0)
    own = generator.beta(2.0, 8.0, NUM_GROUPS)  # a user in each group
    once = ratio_of_sums(own, np.ones(NUM_GROUPS))
    often = ratio_of_sums(100 * own, np.full(NUM_GROUPS, 100.0))
    assert often.variance == pytest.approx(float(once.variance))
    assert once.variance == pytest.approx(own.var(ddof=1) / (NUM_GROUPS - 1), rel=1e-6)


def test_the_variance_is_right_for_users_of_unequal_activity() -> None:
    generator = np.random.default_rng(1)
    found, variances = [], []
    for _ in range(2000):
        shown = np.round(generator.lognormal(2.0, 1.0, 200)) + 1
        clicks = generator.binomial(shown.astype(int), generator.beta(0.8, 7.2, 200))
        groups = np.eye(NUM_GROUPS)[generator.integers(0, NUM_GROUPS, 200)]
        one = ratio_of_sums(clicks @ groups, shown @ groups)
        found.append(float(one.value))
        variances.append(float(one.variance))
    assert np.mean(variances) == pytest.approx(np.var(found), rel=0.1)


def test_effective_users_are_those_of_equal_activity() -> None:
    generator = np.random.default_rng(2)
    shown = np.where(np.arange(120) < 20, 10.0, 1.0)  # 20 users with two thirds of it
    expected = shown.sum() ** 2 / (shown**2).sum()
    found = []
    for _ in range(200):
        groups = np.eye(NUM_GROUPS)[generator.integers(0, NUM_GROUPS, 120)]
        counts = shown @ groups
        found.append(float(ratio_of_sums(counts, counts).effective_users))
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


def test_one_group_has_no_variance() -> None:
    found = ratio_of_sums([0, 3], [0, 10])
    assert found.value == 0.3
    assert isnan(float(found.variance))
    assert isnan(float(ratio_of_sums([0, 0], [0, 0]).value))


def test_estimates_of_many_windows_are_those_of_each() -> None:
    generator = np.random.default_rng(3)
    shown = generator.integers(1, 9, (4, NUM_GROUPS))
    clicks = generator.binomial(shown, 0.2)
    together = ratio_of_sums(clicks, shown)
    for row in range(4):
        alone = ratio_of_sums(clicks[row], shown[row])
        assert together.variance[row] == pytest.approx(float(alone.variance))


def test_users_are_spread_over_all_groups() -> None:
    counts = np.bincount([user_group(f"u{n}") for n in range(25_600)])
    assert len(counts) == NUM_GROUPS
    assert 50 < counts.min() < counts.max() < 150
