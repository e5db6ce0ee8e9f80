"""The propensities are the frequencies, and off-policy estimates are unbiased."""

import math
from collections import Counter

import numpy as np
import pytest

from srp4ctr.training.evaluation.off_policy import snips
from srp4ctr.triton_repo.serving.exploration import (
    Policy,
    apply_policy,
    best_first,
    policy_of,
)

SCORES = np.array([0.1, 0.4, np.nan, 0.3, 0.2])
DRAWS = 20_000
KINDS = ("epsilon_greedy", "plackett_luce")


def a_policy(kind: str, depth: int = 3, seed: int = 0) -> Policy:
    policy = policy_of(kind, epsilon=0.3, temperature=0.7, depth=depth, seed=seed)
    assert policy is not None
    return policy


def test_without_exploration_the_best_is_first_and_padding_last() -> None:
    order, propensities = best_first(SCORES)
    assert order.tolist() == [1, 3, 4, 0, 2]
    assert propensities.tolist() == [1.0] * 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_a_beginning_of_the_slate_is_as_frequent_as_its_propensities(
    kind: str, depth: int
) -> None:
    policy = a_policy(kind, depth)
    seen: Counter[tuple[int, ...]] = Counter()
    expected: dict[tuple[int, ...], float] = {}
    for _ in range(DRAWS):
        order, propensities = policy(SCORES)
        for length in range(1, 5):
            beginning = tuple(order[:length].tolist())
            seen[beginning] += 1
            likely = float(np.prod(propensities[:length]))
            assert expected.setdefault(beginning, likely) == pytest.approx(likely)
    assert len({beginning[0] for beginning in seen}) == 4  # every item was at the top
    for beginning, likely in expected.items():
        error = math.sqrt(likely * (1.0 - likely) / DRAWS)
        assert seen[beginning] / DRAWS == pytest.approx(likely, abs=4.5 * error + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_has_one_place_padding_last_and_below_the_depth_best_first(
    kind: str,
) -> None:
    policy = a_policy(kind, depth=2)
    for _ in range(200):
        order, propensities = policy(SCORES)
        assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
        assert order[-1] == 2
        below = SCORES[order[2:4]]
        assert below[0] > below[1]
        assert propensities[2:].tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scores", [[0.5], [np.nan], [np.nan, np.nan], [0.0, 1.0], []])
def test_odd_slates_are_ordered_too(kind: str, scores: list[float]) -> None:
    order, propensities = a_policy(kind)(np.array(scores, dtype=np.float32))
    assert sorted(order.tolist()) == list(range(len(scores)))
    assert np.all((propensities > 0.0) & (propensities <= 1.0))


def test_each_request_of_a_batch_has_its_own_draw_and_its_items_their_places() -> None:
    batch = np.tile(SCORES.astype(np.float32), (200, 1))
    positions, propensities = apply_policy(batch, a_policy("plackett_luce"))
    assert len(np.unique(positions, axis=0)) > 1
    assert (positions[:, 2] == 4).all()
    assert np.sort(positions, axis=1).tolist() == [list(range(5))] * 200
    top = positions == 0
    assert len(np.unique(np.round(propensities[top], 6))) == 4  # one for each item


@pytest.mark.parametrize("kind", KINDS)
def test_an_off_policy_estimate_is_the_truth_within_its_error(kind: str) -> None:
    chance = np.random.default_rng(1)
    clicks = np.array([0.3, 0.1, np.nan, 0.2, 0.6])  # unlike the scores
    logging = a_policy(kind)
    shown = [logging(SCORES) for _ in range(DRAWS)]
    tops = np.array([order[0] for order, _ in shown])
    rewards = chance.random(DRAWS) < clicks[tops]
    propensities = [by_place[0] for _, by_place in shown]
    for target in range(5):
        if target == 2:
            continue
        found = snips(rewards, propensities, tops == target)
        assert found.standard_error < 0.03
        assert found.value == pytest.approx(clicks[target], abs=4.0 * found.standard_error)
        assert 0 < found.effective_samples <= DRAWS


def test_the_estimate_of_a_whole_slate_is_the_truth_within_its_error() -> None:
    """Clicks at the second place depend on what is at the first."""
    chance, logging = np.random.default_rng(2), a_policy("plackett_luce", depth=2)

    def rate(first: int, second: int) -> float:
        return 0.1 + 0.2 * ((first + second) % 3)

    shown = [logging(SCORES) for _ in range(DRAWS)]
    slates = np.array([order[:2] for order, _ in shown])
    rewards = chance.random(DRAWS) < [rate(*slate) for slate in slates]
    found = snips(
        rewards,
        [by_place[:2].prod() for _, by_place in shown],
        (slates == [3, 0]).all(axis=1),
    )
    assert found.value == pytest.approx(rate(3, 0), abs=4.0 * found.standard_error)


def test_an_estimate_s_error_and_size_are_those_of_what_both_policies_show() -> None:
    rewards = np.array([1.0, 0.0, 1.0, 1.0] * 25)
    targets = np.array([1.0, 1.0, 0.0, 0.0] * 25)  # half of what was shown at random
    found = snips(rewards, np.full(100, 0.5), targets)
    assert found.value == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(math.sqrt(0.25 / 50))
    assert found.effective_samples == pytest.approx(50)


def test_a_policy_that_shares_nothing_has_no_estimate() -> None:
    assert math.isnan(snips([1.0], [0.5], [0.0]).value)


@pytest.mark.parametrize("propensity", [0.0, 1.5, math.nan])
def test_an_invalid_propensity_is_refused(propensity: float) -> None:
    with pytest.raises(ValueError, match="propensity is outside"):
        snips([1.0], [propensity], [1.0])
