"""Simulated users who come back → sums by group of users, as the monitor keeps them.

A user's own click rate is drawn once from a beta distribution; the standard deviation of
these rates is what makes the impressions of one user dependent.
"""

from array import array
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.monitoring.quality.position_auc import AUC_GROUPS, NUM_BINS
from srp4ctr.monitoring.quality.quality_sums import CURVE_BINS, QualitySums, score_bin
from srp4ctr.monitoring.quality.request_auc import RequestPairs
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS
from srp4ctr.triton_repo.serving.exploration import apply_policy, plackett_luce

Floats = NDArray[Any]
Ints = NDArray[np.int64]
Chance = np.random.Generator

LOOKS = 14 * 24  # hourly, for two weeks
CLICK_RATE = 0.10  # the mean over users
EQUAL, HEAVY = "equal", "heavy"  # activity: heavy-tailed is lognormal, sigma 1
RETURNING, ARRIVING, ONCE = "returning", "arriving", "once"
# The mean of 1 / (1 + exp(-x)) for x with mean -2.4 and standard deviation 0.7.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
MEAN_OF_LOGITS = float(_WEIGHTS @ (1 / (1 + np.exp(2.4 - 0.7 * _NODES))) / _WEIGHTS.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The users of one version."""

    users: int
    requests: int
    """Mean per user."""
    deviation: float
    """Of the users' click rates."""
    activity: str = EQUAL
    arrival: str = RETURNING
    """All from the start, over time until the end, or over time and for an hour only."""

    def click_rates(self, chance: Chance, mean: float = CLICK_RATE) -> Floats:
        """Return each user's own click rate (users,)."""
        if not self.deviation:
            return np.full(self.users, mean)
        size = CLICK_RATE * (1 - CLICK_RATE) / self.deviation**2 - 1
        rates = chance.beta(CLICK_RATE * size, (1 - CLICK_RATE) * size, self.users)
        rates *= mean / CLICK_RATE
        return rates

    def tastes(self, chance: Chance) -> Floats:
        """Return 400 quantiles of click rate / mean click rate."""
        many = replace(self, users=400_000).click_rates(chance)
        quantiles: Floats = np.sort(many).reshape(400, -1).mean(1) / CLICK_RATE
        return quantiles

    def owners(self, chance: Chance) -> Ints:
        """Return the user of each request (requests,)."""
        weights = np.ones(self.users)
        if self.activity == HEAVY:
            weights = chance.lognormal(0.0, 1.0, self.users)
        total = self.users * self.requests
        counts = chance.multinomial(total, weights / weights.sum())
        return np.repeat(np.arange(self.users), counts)

    def times(self, owners: Ints, chance: Chance) -> Floats:
        """Return when each request came, from 0 to 1."""
        if self.arrival == RETURNING:
            return chance.random(len(owners))
        arrived = chance.random(self.users)[owners]
        if self.arrival == ONCE:
            return arrived
        later: Floats = arrived + (1 - arrived) * chance.random(len(owners))
        return later


def groups_of(users: int, chance: Chance) -> Ints:
    """Return the group of each user, as by a hash."""
    return chance.integers(0, NUM_GROUPS, users)


def counts_at_top(
    population: Population, chance: Chance, mean: float = CLICK_RATE
) -> tuple[Floats, Floats]:
    """Return clicks and impressions at position 1, (looks, groups), so far."""
    owners = population.owners(chance)
    clicked = chance.random(len(owners)) < population.click_rates(chance, mean)[owners]
    look = (population.times(owners, chance) * LOOKS).astype(np.int64)
    places = look * NUM_GROUPS + groups_of(population.users, chance)[owners]
    found = (
        np.bincount(each, minlength=LOOKS * NUM_GROUPS).reshape(LOOKS, NUM_GROUPS)
        for each in (places[clicked], places)
    )
    clicks, shown = (np.cumsum(each, axis=0) for each in found)
    return clicks, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Slates:
    """A pool of slates, sorted by score, from which requests draw; (slates, positions)."""

    scores: Floats
    """The highest first."""
    click_rates: Floats
    """The true click probability of the mean user, examination included."""
    bins: Ints
    """Of the scores, in the curve's histograms."""

    def seen_by(self, population: Population, chance: Chance) -> "Slates":
        """Return these slates with the mean click rates of all users of ``population``.

        No user clicks more often than always, which lowers the mean.
        """
        tastes = population.tastes(chance)
        capped = [np.minimum(self.click_rates * taste, 1.0) for taste in tastes]
        return replace(self, click_rates=np.mean(capped, axis=0))

    @property
    def auc(self) -> float:
        """The true AUC over the pairs at one position."""
        won: Any = 0.0
        pairs: Any = 0.0
        for bins, rates in zip(self.bins.T, self.click_rates.T, strict=True):
            clicked, passed = (
                np.bincount(bins // 4, each, minlength=NUM_BINS)
                for each in (rates, 1 - rates)
            )
            won += clicked @ (np.cumsum(passed) - passed / 2)
            pairs += clicked.sum() * passed.sum()
        return float(won / pairs)


def slates_of(scores: Floats, relevances: Floats, eta: float) -> Slates:
    """Return slates sorted by ``scores``, examined with 1 / (1 + position)^``eta``."""
    order = np.argsort(-scores, axis=1)
    scores, relevances = (
        np.take_along_axis(each, order, axis=1) for each in (scores, relevances)
    )
    bins = [score_bin(float(each)) for each in scores.ravel()]
    return Slates(
        scores=scores,
        click_rates=relevances * (1.0 + np.arange(scores.shape[1])) ** -eta,
        bins=np.reshape(bins, scores.shape),
    )


def drawn_sums(population: Population, slates: Slates, chance: Chance) -> QualitySums:
    """Return the monitor's sums of the slates that the users of ``population`` saw."""
    owners = population.owners(chance)
    tastes = (population.click_rates(chance) / CLICK_RATE).astype(np.float32)[owners]
    rows = chance.integers(0, len(slates.scores), len(owners))
    rates = slates.click_rates.astype(np.float32)[rows]
    rates *= tastes[:, None]
    clicked = chance.random(rates.shape, dtype=np.float32) < rates
    return sums_of(slates, rows, groups_of(population.users, chance)[owners], clicked)


def sums_of(
    slates: Slates, rows: Ints, groups: Ints, clicked: NDArray[np.bool_]
) -> QualitySums:
    """Return the sums of the slates ``rows``: (requests,) with their users' groups.

    ``clicked`` is of shape (requests, positions).
    """
    positions = clicked.shape[1]

    def by_group(weights: Floats | NDArray[np.bool_] | None = None) -> list[Any]:
        sums: list[Any] = np.bincount(groups, weights, minlength=NUM_GROUPS).tolist()
        return sums

    def by_bin(weights: Floats) -> "array[float]":
        found = np.bincount(slates.bins.ravel(), weights.ravel(), minlength=CURVE_BINS)
        return array("d", found.tobytes())

    drawn = np.bincount(rows, minlength=len(slates.scores))[:, None]
    shown = drawn * np.ones(positions)
    clicks = by_group(clicked.sum(1))
    bin_clicks = np.bincount(slates.bins[rows][clicked], minlength=CURVE_BINS).astype(float)
    sums = QualitySums(
        impressions=clicked.size,
        variance=float((drawn * slates.scores * (1 - slates.scores)).sum()),
        shown=[each * positions for each in by_group()],
        clicks=clicks,
        top_shown=by_group(),
        top_clicks=by_group(clicked[:, 0]),
        predicted=by_group(slates.scores.sum(1)[rows]),
        scored_clicks=list(clicks),
        bin_shown=by_bin(shown),
        bin_clicks=array("d", bin_clicks.tobytes()),
        bin_scores=by_bin(shown * slates.scores),
    )
    for position, is_click in enumerate(clicked.T):
        places = slates.bins[rows, position] // 4
        sums.by_position.counts[position] = _histogram(groups, places, is_click)
    return sums


def _histogram(groups: Ints, places: Ints, is_click: NDArray[np.bool_]) -> "array[int]":
    """Return the counts of a position, as ``PositionScores`` keeps them."""
    at = ((groups % AUC_GROUPS) * 2 + is_click) * NUM_BINS + places
    counts = np.bincount(at, minlength=AUC_GROUPS * 2 * NUM_BINS)
    return array("i", counts.astype(np.int32).tobytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploredTops:
    """The two top places of explored requests; all (requests, 2)."""

    scores: Floats
    click_rates: Floats
    weights: Floats
    """1 / the product of both propensities (requests,)."""

    @property
    def wins(self) -> Floats:
        """Whether the first item has the higher score (requests,)."""
        return (self.scores[:, 0] > self.scores[:, 1]).astype(float)

    def auc(self, tastes: Floats) -> float:
        """Return the true AUC of users who click ``tastes`` times as often as the mean."""
        won = total = 0.0
        for taste in tastes:
            first, second = np.minimum(self.click_rates * taste, 1.0).T
            only_first = self.weights * first * (1 - second)
            only_second = self.weights * second * (1 - first)
            won += float((only_first * self.wins + only_second * (1 - self.wins)).sum())
            total += float((only_first + only_second).sum())
        return won / total


def exploring_slates(scores: Floats, chance: Chance) -> ExploredTops:
    """Return slates (slates, items) drawn by the server's Plackett-Luce policy."""
    policy = partial(plackett_luce, temperature=1.0, depth=2, chance=chance)
    positions, propensities = apply_policy(np.log(scores), policy)
    order = np.argsort(positions, axis=1)[:, :2]
    tops, chances = (
        np.take_along_axis(each, order, axis=1) for each in (scores, propensities)
    )
    return ExploredTops(
        scores=tops,
        click_rates=tops * np.array([1.0, 0.6]),
        weights=1.0 / chances.astype(float).prod(1),
    )


def explored_pairs(
    population: Population, tops: ExploredTops, chance: Chance
) -> RequestPairs:
    """Return the monitor's pairs of the requests of ``population``."""
    owners = population.owners(chance)
    rows = chance.integers(0, len(tops.scores), len(owners))
    tastes = population.click_rates(chance)[owners] / CLICK_RATE
    clicked = chance.random((len(rows), 2)) < tops.click_rates[rows] * tastes[:, None]
    is_pair = clicked[:, 0] != clicked[:, 1]
    rows, first = rows[is_pair], clicked[is_pair, 0]
    groups = groups_of(population.users, chance)[owners[is_pair]]
    weights = tops.weights[rows]
    wins = np.where(first, tops.wins[rows], 1 - tops.wins[rows])
    return RequestPairs(
        num_pairs=len(rows),
        won=np.bincount(groups, weights * wins, minlength=NUM_GROUPS).tolist(),
        weights=np.bincount(groups, weights, minlength=NUM_GROUPS).tolist(),
    )


def users_at_top(
    population: Population, looks: int, chance: Chance, mean: float
) -> tuple[Floats, Floats]:
    """Return clicks and impressions (looks, groups) of users of whom each comes once."""
    rates = population.click_rates(chance, mean)
    clicks = chance.binomial(population.requests, np.minimum(rates, 1.0))
    look = np.arange(population.users) * looks // population.users
    places = look * NUM_GROUPS + groups_of(population.users, chance)
    size = looks * NUM_GROUPS
    found = (
        np.bincount(places, each, minlength=size).reshape(looks, -1)
        for each in (clicks, np.full(population.users, population.requests))
    )
    summed = [np.cumsum(each, axis=0) for each in found]
    return summed[0], summed[1]


def calibration_days(
    users: int, requests: int, chance: Chance
) -> tuple[Floats, Floats, Floats]:
    """Return clicks, predictions (windows, groups) and Σ p(1 - p) of a day's windows.

    Every hour ``users`` come, for an hour each; windows are an hour long, and begin every
    ten minutes. Slates have ten items. Users' click rates differ by 0.7 in the logit, and
    the scores are their mean.
    """
    hours, steps, per_window, slate = 24, 24 * 6, 6, 10
    logits = -2.4 + 0.7 * chance.standard_normal(hours * users)
    rates = np.repeat(1 / (1 + np.exp(-logits)), requests)
    arrived = chance.random(hours * users) * (steps + per_window)
    owners = np.repeat(np.arange(hours * users), requests)
    look = (arrived[owners] + chance.random(len(owners)) * per_window).astype(np.int64)
    places = look * NUM_GROUPS + groups_of(hours * users, chance)[owners]
    rows = steps + 2 * per_window
    clicks = chance.binomial(slate, rates)
    score = MEAN_OF_LOGITS
    found = (
        np.cumsum(
            np.bincount(places, each, minlength=rows * NUM_GROUPS).reshape(rows, -1), axis=0
        )
        for each in (clicks, np.full(len(owners), slate * score))
    )
    by_window = [each[per_window:] - each[:-per_window] for each in found]
    by_window = [each[per_window:steps] for each in by_window]  # when traffic is steady
    return by_window[0], by_window[1], by_window[1].sum(1) * (1 - score)
