"""AUC at a position: no position bias, users as the unit, and what scores predict."""

from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.quality.position_auc import (
    MAX_POSITIONS,
    PositionAuc,
)
from srp4ctr.monitoring.quality.quality_sums import QualitySums, SettledImpression
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS
from srp4ctr.training.evaluation import quality

SLATES = 6000


def an_impression(
    score: float, *, click: bool, position: int = 0, user: int = 0
) -> SettledImpression:
    return SettledImpression(
        model_version="v7",
        request=(f"u{user}", "r1"),
        user_group=user % NUM_GROUPS,
        position=position,
        shown_at=0,
        score=score,
        is_click=click,
        is_late_click=False,
    )


def sums_of_slates(eta: float, *, is_random: bool, placed: bool = True) -> QualitySums:
    """Return the sums of slates of four, sorted by score, examined by 1 / rank^eta."""
    generator = np.random.default_rng(11)
    sums = QualitySums()
    scores, truth = np.minimum(generator.lognormal(-2.0, 0.6, (2, SLATES, 4)), 0.9)
    for user, (row, other) in enumerate(zip(scores, truth, strict=True)):
        order = np.argsort(-row)
        for position, place in enumerate(order):
            rate = (other if is_random else row)[place] / (1 + position) ** eta
            one = an_impression(
                float(row[place]),
                click=bool(generator.random() < rate),
                position=position if placed else 0,
                user=user,
            )
            sums.update(one, 1)
    return sums


def auc_of_slates(eta: float, *, is_random: bool, placed: bool = True) -> PositionAuc:
    sums = sums_of_slates(eta, is_random=is_random, placed=placed)
    return sums.quality("v7").auc


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_random_scores_are_random_at_a_position_however_users_look(eta: float) -> None:
    auc = auc_of_slates(eta, is_random=True)
    assert auc.value == pytest.approx(0.5, abs=0.02)
    assert auc.interval.high < 0.5 + 0.25 * (auc.expected - 0.5)  # the alert's rule


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_perfect_scores_have_the_auc_that_they_predict(eta: float) -> None:
    auc = auc_of_slates(eta, is_random=False)
    assert auc.value == pytest.approx(auc.expected, abs=0.02)
    assert auc.interval.low > 0.5 + 0.25 * (auc.expected - 0.5)


def test_without_positions_random_scores_look_good_and_are_said_to_be_uncorrected() -> None:
    unknown = auc_of_slates(1.0, is_random=True, placed=False)
    assert unknown.value > 0.6
    assert not unknown.is_corrected
    assert auc_of_slates(1.0, is_random=True).is_corrected


def test_the_value_is_the_exact_auc_of_the_pairs_at_each_position() -> None:
    generator = np.random.default_rng(3)
    sums, won, pairs = QualitySums(), 0.0, 0.0
    for position, mean in enumerate((0.3, 0.2)):
        scores = generator.beta(4.0, 4.0 / mean - 4.0, 3000)
        clicks = generator.random(3000) < scores
        weight = clicks.sum() * (~clicks).sum()
        won += weight * quality.auc(clicks, scores)
        pairs += weight
        for user, (score, click) in enumerate(zip(scores, clicks, strict=True)):
            one = an_impression(
                float(score), click=bool(click), position=position, user=user
            )
            sums.update(one, 1)
    assert sums.quality("v7").auc.value == pytest.approx(won / pairs, abs=1e-3)


def test_users_who_return_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(5)
    once, often = QualitySums(), QualitySums()
    for user in range(600):
        click = user % 3 == 0
        score = float(generator.beta(3.0 if click else 2.0, 6.0))
        once.update(an_impression(score, click=click, user=user), 1)
        for _ in range(5):
            often.update(an_impression(score, click=click, user=user), 1)
    narrow, wide = once.quality("v7").auc, often.quality("v7").auc
    assert wide.value == pytest.approx(narrow.value)
    assert wide.interval.high == pytest.approx(narrow.interval.high, rel=1e-6)


def test_the_interval_covers_the_true_auc_about_95_times_in_100() -> None:
    """Of 300 users, each with its own mean score, ten times each."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(150):
        sums = QualitySums()
        taste = generator.normal(0.0, 1.0, 300)
        for user in range(300):
            for _ in range(3):
                click = bool(generator.random() < 0.3)
                logit = 0.8 * click + taste[user] + generator.normal(0.0, 0.5)
                score = float(1 / (1 + np.exp(-logit)))
                sums.update(an_impression(score, click=click, user=user), 1)
        found.append(sums.quality("v7").auc)
    truth = np.mean([each.value for each in found])
    covered = np.mean([each.interval.low <= truth <= each.interval.high for each in found])
    assert 0.9 < covered < 0.99


def test_a_position_needs_a_hundred_clicks() -> None:
    sums = QualitySums()
    for user in range(199):
        sums.update(an_impression(0.2, click=user % 2 == 1, user=user), 1)
    assert isnan(sums.quality("v7").auc.value)
    sums.update(an_impression(0.2, click=True, user=1), 1)
    assert sums.quality("v7").auc.value == 0.5


def test_a_subtracted_impression_leaves_the_auc_unchanged() -> None:
    sums = sums_of_slates(0.3, is_random=False)
    before = sums.quality("v7").auc
    for sign in (1, -1):
        sums.update(an_impression(0.5, click=True, position=1), sign)
    assert sums.quality("v7").auc == before


def test_positions_far_down_have_no_histogram() -> None:
    sums = QualitySums()
    sums.update(an_impression(0.5, click=True, position=MAX_POSITIONS), 1)
    assert sums.by_position.counts == {}
    assert sums.quality("v7").clicks == 1
