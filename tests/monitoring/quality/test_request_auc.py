"""AUC within a request: only of explored requests, and without position bias."""

from math import isnan

import numpy as np
import pytest

from srp4ctr.monitoring.quality.quality_sums import QualitySums, SettledImpression
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS


def an_impression(
    request: int, position: int, score: float, propensity: float | None, *, click: bool
) -> SettledImpression:
    return SettledImpression(
        model_version="v7",
        request=(f"u{request}", "r1"),
        user_group=request % NUM_GROUPS,
        position=position,
        shown_at=0,
        score=score,
        propensity=propensity,
        is_click=click,
        is_late_click=False,
    )


def explored(count: int, second_look: float, *, is_random: bool) -> QualitySums:
    """Return the sums of pairs of items: the better one is on top four times in five.

    Users look at the second one with probability ``second_look``.
    """
    generator = np.random.default_rng(4)
    sums = QualitySums()
    for request in range(count):
        scores = np.sort(generator.beta(2.0, 6.0, 2))[::-1]
        truth = generator.beta(2.0, 6.0, 2) if is_random else scores
        swapped = generator.random() < 0.2
        chances = (0.2, 0.99) if swapped else (0.8, 0.99)
        for position, place in enumerate((1, 0) if swapped else (0, 1)):
            look = second_look if position else 1.0
            one = an_impression(
                request,
                position,
                float(scores[place]),
                chances[position],
                click=bool(generator.random() < truth[place] * look),
            )
            sums.update(one, 1)
    return sums


def test_random_scores_are_random_within_explored_requests() -> None:
    auc = explored(8000, 0.3, is_random=True).quality("v7").request_auc
    assert auc.interval.low < 0.5 < auc.interval.high
    assert auc.interval.high - auc.interval.low < 0.15


def test_good_scores_are_better_than_random_within_a_request() -> None:
    auc = explored(8000, 0.3, is_random=False).quality("v7").request_auc
    assert auc.interval.low > 0.6


@pytest.mark.parametrize("propensity", [None, 1.0])
def test_without_exploration_there_is_no_auc_within_a_request(
    propensity: float | None,
) -> None:
    sums = QualitySums()
    for request in range(500):
        for position in (0, 1):
            one = an_impression(request, position, 0.3, propensity, click=position == 0)
            sums.update(one, 1)
    assert isnan(sums.quality("v7").request_auc.value)
    assert isnan(sums.quality("v7").request_auc.interval.low)


def test_a_correction_replaces_what_was_counted() -> None:
    sums = explored(500, 0.5, is_random=False)
    before = sums.quality("v7").request_auc
    first, second = (
        an_impression(900, position, 0.2 + position / 10, 0.5, click=position == 0)
        for position in (0, 1)
    )
    for each, sign in ((first, 1), (second, 1), (first, -1), (first, 1)):
        sums.update(each, sign)
    assert sums.quality("v7").request_auc.value < before.value  # the lower score won
    for each in (second, first):
        sums.update(each, -1)
    after = sums.quality("v7").request_auc
    assert after.value == pytest.approx(before.value)
    assert after.interval.low == pytest.approx(before.interval.low)
