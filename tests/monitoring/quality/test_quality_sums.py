from math import isnan

import msgspec
import numpy as np
import pytest

from srp4ctr.monitoring.quality.confidence_intervals import calibration, click_rate
from srp4ctr.monitoring.quality.quality_sums import QualitySums, SettledImpression
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS
from srp4ctr.training.evaluation import quality as held_out


def a_settled_impression(
    score: float | None = 0.5, *, click: bool = False, top: bool = False, user: int = 0
) -> SettledImpression:
    return SettledImpression(
        model_version="v7",
        request=(f"u{user}", "r1"),
        user_group=user % NUM_GROUPS,
        position=0 if top else 3,
        shown_at=0,
        score=score,
        is_click=click,
        is_late_click=False,
    )


def sums_of(scores: list[float], clicks: list[bool]) -> QualitySums:
    sums = QualitySums()
    for user, (score, click) in enumerate(zip(scores, clicks, strict=True)):
        sums.update(a_settled_impression(score, click=click, user=user), 1)
    return sums


@pytest.mark.parametrize("mean", [0.02, 0.5])
def test_the_sums_give_what_the_formulas_of_training_give(mean: float) -> None:
    generator = np.random.default_rng(2)
    scores = generator.beta(2.0, 2.0 / mean - 2.0, 4000)
    clicks = generator.uniform(size=4000) < scores
    quality = sums_of(scores.tolist(), clicks.tolist()).quality("v7")
    assert quality.log_loss_nats == pytest.approx(held_out.log_loss(clicks, scores))
    assert quality.calibration_ratio == pytest.approx(held_out.calibration(clicks, scores))
    entropy = held_out.normalised_entropy(clicks, scores)
    assert quality.normalized_entropy == pytest.approx(entropy)
    assert quality.click_rate == pytest.approx(clicks.mean())


def test_equal_scores_have_auc_one_half() -> None:
    assert sums_of([0.3] * 400, [True, False] * 200).quality("v7").auc.value == 0.5


def test_a_perfect_order_has_auc_1_and_its_reverse_0() -> None:
    clicks = [True, False] * 100
    assert sums_of([0.9, 0.1] * 100, clicks).quality("v7").auc.value == 1.0
    assert sums_of([0.1, 0.9] * 100, clicks).quality("v7").auc.value == 0.0


def test_a_subtracted_impression_leaves_the_sums_unchanged() -> None:
    once = sums_of([0.2, 0.8], [False, True]).quality("v7")
    sums = sums_of([0.2, 0.8, 0.6], [False, True, True])
    sums.update(a_settled_impression(0.6, click=True, user=2), -1)
    again = sums.quality("v7")
    assert again.log_loss_nats == pytest.approx(once.log_loss_nats)
    assert (again.impressions, again.clicks) == (once.impressions, once.clicks)


def test_an_unranked_impression_counts_for_the_click_rate_only() -> None:
    sums = QualitySums()
    sums.update(a_settled_impression(None, click=True), 1)
    quality = sums.quality("unranked")
    assert quality.click_rate == 1.0
    assert isnan(quality.auc.value)
    assert isnan(quality.log_loss_nats)
    assert isnan(quality.calibration_ratio)


def test_only_position_0_counts_at_the_top() -> None:
    sums = QualitySums()
    sums.update(a_settled_impression(click=True, top=True), 1)
    sums.update(a_settled_impression(click=False, top=False), 1)
    quality = sums.quality("v7")
    assert (quality.click_rate, quality.top_click_rate) == (0.5, 1.0)


def test_certain_scores_have_a_finite_loss() -> None:
    quality = sums_of([0.0, 1.0], [True, False]).quality("v7")
    assert quality.log_loss_nats < 20


def test_the_calibration_curve_is_that_of_tenths_by_score() -> None:
    generator = np.random.default_rng(4)
    scores = generator.beta(2.0, 18.0, 5000)
    clicks = generator.uniform(size=5000) < scores / 2  # scores are twice too high
    quality = sums_of(scores.tolist(), clicks.tolist()).quality("v7")
    tenths = np.array_split(np.argsort(scores), 10)
    assert len(quality.calibration_bins) == 10
    for found, rows in zip(quality.calibration_bins, tenths, strict=True):
        assert found.impressions == pytest.approx(len(rows), abs=25)  # bins are not parted
        assert found.score == pytest.approx(scores[rows].mean(), rel=0.03)
        assert found.click_rate == pytest.approx(clicks[rows].mean(), abs=0.01)
    expected = sum(
        len(rows) / 5000 * abs(scores[rows].mean() - clicks[rows].mean()) for rows in tenths
    )
    assert quality.expected_calibration_error == pytest.approx(expected, rel=0.02)


def test_equal_scores_are_one_bin_of_the_curve() -> None:
    (only,) = sums_of([0.25] * 8, [True, True] + [False] * 6).quality("v7").calibration_bins
    assert (only.score, only.click_rate, only.impressions) == (0.25, 0.25, 8)


def test_predicting_the_mean_has_normalized_entropy_1() -> None:
    quality = sums_of([0.25] * 4, [True, False, False, False]).quality("v7")
    assert quality.normalized_entropy == pytest.approx(1.0)
    assert isnan(sums_of([0.25], [False]).quality("v7").normalized_entropy)


def test_clicks_further_down_have_a_lower_mean_reciprocal_rank() -> None:
    sums = QualitySums()
    for is_top in (True, False):
        sums.update(a_settled_impression(click=True, top=is_top), 1)
    sums.update(a_settled_impression(click=False, top=False), 1)
    assert sums.quality("v7").mean_reciprocal_rank == pytest.approx((1 + 1 / 4) / 2)


def test_each_interval_is_of_its_own_counts() -> None:
    sums = sums_of([0.2, 0.4, 0.9, 0.5, 0.1], [False, True, True, False, False])
    for user, click in enumerate((True, False, False), 4):
        sums.update(a_settled_impression(None, click=click, top=True, user=user), 1)
    quality = sums.quality("v7")
    clicks, shown = [0, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 2, 1, 1]  # by user
    assert quality.click_rate_interval == click_rate(clicks, shown)
    assert quality.top_click_rate_interval == click_rate([1, 0, 0], [1, 1, 1])
    variance = 0.2 * 0.8 + 0.4 * 0.6 + 0.9 * 0.1 + 0.5 * 0.5 + 0.1 * 0.9
    predicted, scored_clicks = [0.2, 0.4, 0.9, 0.5, 0.1], [0, 1, 1, 0, 0]
    expected = calibration(predicted, scored_clicks, variance)  # of what was scored
    found = quality.calibration_interval
    assert found.low == pytest.approx(expected.low)
    assert isnan(found.high)
    assert isnan(expected.high)


def test_a_late_click_is_subtracted_as_it_was_added() -> None:
    sums = QualitySums()
    late = msgspec.structs.replace(a_settled_impression(), is_late_click=True)
    for sign in (1, 1, -1):
        sums.update(late, sign)
    assert sums.quality("v7").late_clicks == 1


@pytest.mark.parametrize("score", [1e-7, 1.0 - 1e-7])
def test_a_score_beyond_the_histogram_is_at_its_end(score: float) -> None:
    quality = sums_of([score, 0.5] * 100, [score > 0.5, score < 0.5] * 100).quality("v7")
    assert quality.auc.value == 1.0
