from math import isnan

import numpy as np
import pytest

from monitoring.tally import Outcome, Tally
from training import metrics


def an_outcome(
    score: float | None = 0.5, *, click: bool = False, top: bool = False
) -> Outcome:
    return Outcome(
        model_version="v7", is_top=top, score=score, is_click=click, is_late_click=False
    )


def a_tally(scores: list[float], clicks: list[bool]) -> Tally:
    tally = Tally()
    for score, click in zip(scores, clicks, strict=True):
        tally.move(an_outcome(score, click=click), 1)
    return tally


@pytest.mark.parametrize("mean", [0.02, 0.5])
def test_the_sums_give_what_the_formulas_of_training_give(mean: float) -> None:
    generator = np.random.default_rng(2)
    scores = generator.beta(2.0, 2.0 / mean - 2.0, 4000)
    clicks = generator.uniform(size=4000) < scores
    quality = a_tally(scores.tolist(), clicks.tolist()).quality("v7")
    assert quality.log_loss_nats == pytest.approx(metrics.log_loss(clicks, scores))
    assert quality.calibration_ratio == pytest.approx(metrics.calibration(clicks, scores))
    assert quality.auc == pytest.approx(metrics.auc(clicks, scores), abs=1e-3)
    assert quality.click_rate == pytest.approx(clicks.mean())


def test_equal_scores_rank_no_better_than_chance() -> None:
    assert a_tally([0.3] * 4, [True, False, False, True]).quality("v7").auc == 0.5


def test_a_perfect_order_has_auc_1_and_its_reverse_0() -> None:
    assert a_tally([0.9, 0.1], [True, False]).quality("v7").auc == 1.0
    assert a_tally([0.1, 0.9], [True, False]).quality("v7").auc == 0.0


def test_what_is_taken_away_again_leaves_no_trace() -> None:
    once = a_tally([0.2, 0.8], [False, True]).quality("v7")
    tally = a_tally([0.2, 0.8, 0.6], [False, True, True])
    tally.move(an_outcome(0.6, click=True), -1)
    again = tally.quality("v7")
    assert again.log_loss_nats == pytest.approx(once.log_loss_nats)
    assert (again.impressions, again.auc) == (once.impressions, once.auc)


def test_an_unranked_impression_counts_for_the_click_rate_alone() -> None:
    tally = Tally()
    tally.move(an_outcome(None, click=True), 1)
    quality = tally.quality("unranked")
    assert quality.click_rate == 1.0
    assert isnan(quality.auc)
    assert isnan(quality.log_loss_nats)
    assert isnan(quality.calibration_ratio)


def test_only_position_0_counts_at_the_top() -> None:
    tally = Tally()
    tally.move(an_outcome(click=True, top=True), 1)
    tally.move(an_outcome(click=False, top=False), 1)
    quality = tally.quality("v7")
    assert (quality.click_rate, quality.top_click_rate) == (0.5, 1.0)


def test_certain_scores_have_a_finite_loss() -> None:
    quality = a_tally([0.0, 1.0], [True, False]).quality("v7")
    assert quality.log_loss_nats < 20
