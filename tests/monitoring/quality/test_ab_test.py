"""The difference of two versions, and the coverage of its interval at all times."""

from itertools import product

import numpy as np
import pytest

from srp4ctr.monitoring.quality.ab_test import (
    EXPECTED_DIFFERENCE,
    HORIZON_SLICES,
    MIN_IMPRESSIONS,
    SLICE_MS,
    AbTest,
    Difference,
    anytime_half_widths,
    mixture_half_widths,
)
from srp4ctr.monitoring.quality.quality_sums import SettledImpression
from srp4ctr.monitoring.quality.sample_ratio import MAX_EXPERIMENTS
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS, ratio_of_sums
from srp4ctr.monitoring.quality.version_order import MAX_OTHERS, OTHER


def a_settled_impression(
    version: str,
    *,
    click: bool,
    at: int = 0,
    position: int = 0,
    score: float | None = 0.1,
    user: int = 0,
    arm: tuple[str, str] | None = None,
) -> SettledImpression:
    return SettledImpression(
        model_version=version,
        experiment=arm and arm[0],
        arm=arm and arm[1],
        request=(f"u{user}", "r1"),
        user_group=user % NUM_GROUPS,
        position=position,
        shown_at=at * SLICE_MS,
        score=score,
        is_click=click,
        is_late_click=False,
    )


def shown(ab_test: AbTest, version: str, clicks: int, of: int, at: int = 0) -> None:
    """Show ``version`` to ``of`` users, of whom ``clicks`` click."""
    for user in range(of):
        one = a_settled_impression(version, click=user < clicks, at=at, user=user)
        ab_test.update(one, 1)


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
    assert difference_of(ab_test).click_rate == pytest.approx(0.0, abs=1e-7)


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
    corrected.update(a_settled_impression("v2", click=False, user=10), -1)
    corrected.update(a_settled_impression("v2", click=True, user=10), 1)
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


def test_invented_versions_take_no_bundle_s_place_nor_memory() -> None:
    ab_test = AbTest(bundles={"v1", "v2"})
    for number in range(100):
        shown(ab_test, f"x{number}", 1, 2)
    shown(ab_test, "v1", 50, 300)
    shown(ab_test, "v2", 50, 300)
    found = {
        difference.model_version: difference for difference in ab_test.differences("v1")
    }
    assert found["v2"].impressions == 300
    assert found[OTHER].impressions == 2 * (100 - MAX_OTHERS)
    assert len(found) == MAX_OTHERS + 2


def test_users_of_an_arm_are_counted_for_it_whichever_version_answered() -> None:
    """As where the canary fails for the users whom it suits least."""
    by_arm, by_version = AbTest(), AbTest()
    for user in range(400):
        arm, click = ("v2", "v1")[user % 2], user % 10 == 0
        answered = "v1" if user % 10 in (2, 4) else arm
        one = a_settled_impression(answered, click=click, user=user, arm=("e1", arm))
        by_arm.update(one, 1)
        by_version.update(a_settled_impression(answered, click=click, user=user), 1)
    found = difference_of(by_arm)
    assert (found.experiment, found.model_version, found.impressions) == ("e1", "v2", 200)
    assert found.click_rate == pytest.approx(0.2)  # 40 of 200, and none
    assert difference_of(by_version).click_rate > 0.3  # of 120


def test_arms_of_two_experiments_are_not_mixed_and_the_newest_is_shown() -> None:
    ab_test = AbTest()
    for at, experiment, clicks in ((1, "half", 90), (2, "tenth", 30), (3, "none", 50)):
        for version in ("v1", "v2") if experiment != "none" else ("v2",):
            for user in range(300):
                click = version == "v2" and user < clicks
                arm = (experiment, version)
                one = a_settled_impression(version, click=click, at=at, user=user, arm=arm)
                ab_test.update(one, 1)
    shown(ab_test, "v1", 0, 300, at=4)  # of no experiment
    shown(ab_test, "v2", 300, 300, at=4)
    found = difference_of(ab_test)
    assert (found.experiment, found.impressions) == ("tenth", 300)
    assert found.click_rate == pytest.approx(0.1)


def test_invented_experiments_take_bounded_memory() -> None:
    ab_test = AbTest()
    for number in range(100):
        for version in ("v1", "v2"):
            arm = (f"x{number}", version)
            one = a_settled_impression(version, click=False, at=number, arm=arm)
            ab_test.update(one, 1)
    assert difference_of(ab_test).experiment == "x99"
    assert len(ab_test._versions) == MAX_EXPERIMENTS


def test_several_verdicts_share_the_error() -> None:
    alone, among = AbTest(), AbTest()
    for ab_test, versions in ((alone, ("v2",)), (among, ("v2", "v3", "v4", "few"))):
        shown(ab_test, "v1", 50, 300)
        for version in versions:
            shown(ab_test, version, 60, 9 if version == "few" else 300)
    own = difference_of(alone)
    shared = {
        difference.model_version: difference for difference in among.differences("v1")
    }["v2"]
    half, wider = own.interval.high - own.click_rate, shared.interval.high - own.click_rate
    rates = [ratio_of_sums(*grouped(clicks)) for clicks in (60, 50)]
    widths = [
        anytime_half_widths(rates[0], rates[1], EXPECTED_DIFFERENCE, error)
        for error in (0.05, 0.05 / 3)  # "few" has too few for a verdict
    ]
    assert (half, wider) == pytest.approx(tuple(map(float, widths)), rel=1e-5)


def grouped(clicks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the clicks and impressions of 300 users, by group."""
    groups = np.arange(300) % NUM_GROUPS
    clicked = np.bincount(groups, np.arange(300) < clicks, NUM_GROUPS)
    return clicked, np.bincount(groups, minlength=NUM_GROUPS)


def test_one_of_five_equal_versions_is_rarely_called_another() -> None:
    """Five versions and the serving one, 1,000 runs of 300 looks, all users independent."""
    generator = np.random.default_rng(7)
    steps = generator.normal(size=(1000, 6, 300)).cumsum(-1)
    looks = np.arange(1, 301)
    variance = 0.09 / (1000.0 * looks)  # of a rate of 0.1 after 1,000 users a look
    rates = steps / looks * np.sqrt(0.09 / 1000.0)
    differences = np.abs(rates[:, :5] - rates[:, 5:])
    wrong = {
        error: (differences > mixture_half_widths(2 * variance, EXPECTED_DIFFERENCE, error))
        .any((1, 2))
        .mean()
        for error in (0.05, 0.05 / 5)
    }
    assert wrong[0.05 / 5] <= 0.05 < wrong[0.05]


def test_users_who_return_are_one_unit_however_often() -> None:
    once, often = AbTest(), AbTest()
    for user in range(200):
        for version, clickers in (("v1", 20), ("v2", 50)):
            one = a_settled_impression(version, click=user < clickers, user=user)
            once.update(one, 1)
            for at in range(50):  # they click always, or never
                again = a_settled_impression(
                    version, click=user < clickers, user=user, at=at
                )
                often.update(again, 1)
    assert difference_of(often).impressions == 50 * 200
    assert difference_of(often).click_rate == pytest.approx(0.15)
    narrow, wide = difference_of(often).interval, difference_of(once).interval
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low)


def test_few_effective_users_have_no_verdict() -> None:
    ab_test = AbTest()

    def show(users: range) -> None:
        for user, number, version in product(users, range(20), ("v1", "v2")):
            own = user % 4 + (10 if version == "v2" else 0)  # clicks of 20
            one = a_settled_impression(version, click=number < own, user=user)
            ab_test.update(one, 1)

    show(range(30))
    assert difference_of(ab_test).impressions == 600
    assert difference_of(ab_test).verdict == 0
    show(range(30, 60))
    assert difference_of(ab_test).verdict == 1


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
    """Return whether the interval, and one by impressions, ever excluded the difference.

    500 users of each version come all the time, 100 times each, with click rates of their
    own; both intervals are evaluated 100 times.
    """
    generator = np.random.default_rng(seed)
    estimates, independent = [], []
    for mean in (rate, other):
        own = generator.beta(0.8, 7.2, 500) * mean / 0.1
        clicks = np.cumsum(generator.random((100, 500)) < own, axis=0)
        shown = np.arange(1, 101)[:, None] * np.ones(500)
        groups = np.eye(NUM_GROUPS)[generator.integers(0, NUM_GROUPS, 500)]
        estimates.append(ratio_of_sums(clicks @ groups, shown @ groups))
        p = clicks.sum(1) / shown.sum(1)
        independent.append(p * (1 - p) / shown.sum(1))
    wrong = np.abs(estimates[0].value - estimates[1].value - (rate - other))
    halves = anytime_half_widths(estimates[0], estimates[1], EXPECTED_DIFFERENCE)
    variances = independent[0] + independent[1]
    by_impressions = mixture_half_widths(variances, EXPECTED_DIFFERENCE)
    return bool((wrong > halves).any()), bool((wrong > by_impressions).any())


@pytest.mark.parametrize(("rate", "other"), [(0.1, 0.1), (0.12, 0.1)])
def test_the_interval_is_valid_at_all_times_for_users_who_return(
    rate: float, other: float
) -> None:
    missed, missed_by_impressions = np.mean(
        [exclusions(rate, other, seed) for seed in range(300)], axis=0
    )
    assert missed <= 0.05
    assert missed_by_impressions > 0.2


def test_a_difference_is_found_before_long() -> None:
    generator = np.random.default_rng(1)
    ab_test = AbTest()
    for number in range(20_000):
        for version, rate in (("v1", 0.10), ("v2", 0.12)):
            click = bool(generator.uniform() < rate)
            one = a_settled_impression(version, click=click, at=number // 500, user=number)
            ab_test.update(one, 1)
        if number % 500 == 499 and difference_of(ab_test).verdict:
            break
    assert difference_of(ab_test).verdict == 1
    assert number < 15_000
