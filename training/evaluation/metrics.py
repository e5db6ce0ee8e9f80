"""Score → metric: the formulas, and the paired difference of two models with its error.

In: clicks (0 or 1) and predicted probabilities of matured impressions, in numpy only, for
training and live monitoring. Out: one number each; NaN where a metric is undefined (no
clicks, or nothing but clicks), never an error.

A difference also takes each impression's user: a user's impressions are dependent, so the
sampling unit is the user. Each metric is a mean whose influence function is summed over a
user's impressions (the infinitesimal jackknife; for the AUC these are DeLong's placements,
DeLong et al., Biometrics 1988, by clusters as Obuchowski, Biometrics 1997).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
ONE_SIDED = 1.645  # standard errors that chance exceeds once in twenty
_SMALLEST = 1e-7  # a probability of exactly 0 or 1 could have an infinite loss


def auc(clicked: Array, scores: Array) -> float:
    """Return P(score of a click > score of a non-click), ties counting one half.

    AUC = (R - P (P + 1) / 2) / (P Q), R the sum of the clicks' mean ranks, P clicks,
    Q non-clicks. NaN unless both are present.
    """
    if len(clicked) == 0:
        return float("nan")
    return float(group_aucs(clicked, scores, np.zeros(len(clicked), dtype=np.int8))[0])


def gauc(
    clicked: Array,
    scores: Array,
    groups: Array,
) -> float:
    """Return the mean AUC of the groups (users or slates), weighted by their impressions.

    Groups without both a click and a non-click have no AUC and no weight.
    """
    aucs = group_aucs(clicked, scores, groups)
    _, sizes = np.unique(groups, return_counts=True)
    ranked = np.isfinite(aucs)
    if not ranked.any():
        return float("nan")
    return float(np.average(aucs[ranked], weights=sizes[ranked]))


def group_aucs(
    clicked: Array,
    scores: Array,
    groups: Array,
) -> Floats:
    """Return the AUC of each distinct group, ascending; NaN where it has none.

    As ``auc``, ties counting one half, for all groups in one sort.
    """
    if len(groups) == 0:
        return np.zeros(0)
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    grouped, ranked = group[order], np.asarray(scores)[order]
    positive = np.asarray(clicked, dtype=np.float64)[order] > 0.5
    first = np.searchsorted(grouped, np.arange(grouped[-1] + 1))
    place = np.arange(len(order)) - first[grouped] + 1.0
    is_new = (np.diff(ranked, prepend=np.nan) != 0) | (np.diff(grouped, prepend=-1) != 0)
    tie = np.cumsum(is_new) - 1
    rank = (np.bincount(tie, weights=place) / np.bincount(tie))[tie]
    clicks = np.bincount(grouped, weights=positive)
    others = np.bincount(grouped) - clicks
    surplus = np.bincount(grouped, weights=rank * positive) - clicks * (clicks + 1) / 2
    with np.errstate(invalid="ignore"):
        aucs: Floats = surplus / (clicks * others)  # 0 / 0 where a group lacks either
    return aucs


def log_loss(clicked: Array, probabilities: Array) -> float:
    """Return -mean(y ln p + (1 - y) ln(1 - p)), in nats per impression."""
    if len(clicked) == 0:
        return float("nan")
    return float(log_losses(clicked, probabilities).mean())


def log_losses(clicked: Array, probabilities: Array) -> Floats:
    """Return the log loss of each impression, in nats."""
    y = np.asarray(clicked, dtype=np.float64)
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, 1.0 - _SMALLEST)
    losses: Floats = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
    return losses


def calibration(clicked: Array, probabilities: Array) -> float:
    """Return sum(p) / sum(y): 1 = calibrated, 1.2 over-predicts clicks by 20 %."""
    clicks = float(np.sum(clicked, dtype=np.float64))
    if clicks == 0.0:
        return float("nan")
    return float(np.sum(probabilities, dtype=np.float64)) / clicks


def calibration_standard_error(clicked: Array, probabilities: Array) -> float:
    """Return the standard error of ``calibration`` where the probabilities are right.

    sqrt(sum p (1 - p)) / sum(y), for independent clicks; those of one slate are not quite.
    By sum(p) it would be the greater, the less a model predicts.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    clicks = float(np.sum(clicked, dtype=np.float64))
    return float(np.sqrt((p * (1.0 - p)).sum())) / clicks if clicks else float("nan")


def normalised_entropy(clicked: Array, probabilities: Array) -> float:
    """Return log loss over the entropy of the mean click rate; below 1 beats the mean.

    NE = log_loss / -(r ln r + (1 - r) ln(1 - r)), r = mean(y): TorchRec's definition.
    """
    if len(clicked) == 0:
        return float("nan")
    rate = float(np.sum(clicked, dtype=np.float64)) / len(clicked)
    if rate in (0.0, 1.0):
        return float("nan")
    entropy = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
    return log_loss(clicked, probabilities) / float(entropy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of the one model less that of the other."""

    value: float
    """NaN where the metric is undefined."""
    standard_error: float

    @property
    def margin(self) -> float:
        """The margin of error: a true difference of 0 exceeds it once in twenty.

        Infinite where it is unknown.
        """
        return ONE_SIDED * self.standard_error


def mean_difference(one: Array, other: Array, users: Array) -> Difference:
    """Return the mean of ``one`` less the mean of ``other``, which are of the same rows."""
    apart = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    if len(apart) == 0:
        return Difference(value=float("nan"), standard_error=float("nan"))
    value = float(apart.mean())
    return _difference(value, (apart - value) / len(apart), users)


def log_loss_difference(
    clicked: Array, one: Array, other: Array, users: Array
) -> Difference:
    """Return the difference of the mean log losses, in nats: below 0, ``one`` is better."""
    losses = [log_losses(clicked, each) for each in (one, other)]
    return mean_difference(losses[0], losses[1], users)


def auc_difference(clicked: Array, one: Array, other: Array, users: Array) -> Difference:
    """Return the difference of the AUCs: above 0, ``one`` is better."""
    apart = _placements(clicked, one) - _placements(clicked, other)
    positive = np.asarray(clicked, dtype=np.float64) > 0.5
    counts = np.where(positive, positive.sum(), (~positive).sum())
    value = float(apart[positive].mean()) if positive.any() else float("nan")
    return _difference(value, (apart - value) / np.maximum(counts, 1), users)


def gauc_difference(
    clicked: Array, one: Array, other: Array, requests: Array, users: Array
) -> Difference:
    """Return the difference of the mean AUCs of ``requests``: above 0, ``one`` is better.

    Requests without both a click and a non-click have no weight, as in ``gauc``.
    """
    first_aucs = group_aucs(clicked, one, requests)
    apart = first_aucs - group_aucs(clicked, other, requests)
    _, first, sizes = np.unique(requests, return_index=True, return_counts=True)
    ranked = np.isfinite(first_aucs)
    if not ranked.any():
        return Difference(value=float("nan"), standard_error=float("nan"))
    share = sizes[ranked] / sizes[ranked].sum()
    apart = apart[ranked]
    value = float(share @ apart)
    owners = np.asarray(users)[first[ranked]]
    return _difference(value, share * (apart - value), owners)


def _placements(clicked: Array, scores: Array) -> Floats:
    """Return for a click the share of non-clicks below it, for others of clicks above.

    Ties count one half; the mean over the clicks, or over the others, is the AUC.
    """
    positive = np.asarray(clicked, dtype=np.float64) > 0.5
    scored = np.asarray(scores, dtype=np.float64)
    placed = np.full(len(scored), np.nan)
    clicks, others = np.sort(scored[positive]), np.sort(scored[~positive])
    if len(clicks) and len(others):
        placed[positive] = _share_below(others, scored[positive])
        placed[~positive] = 1.0 - _share_below(clicks, scored[~positive])
    return placed


def _share_below(ascending: Floats, wanted: Floats) -> Floats:
    below = np.searchsorted(ascending, wanted, "left")
    share: Floats = (below + np.searchsorted(ascending, wanted, "right")) / 2
    return share / len(ascending)


def _difference(value: float, influence: Floats, users: Array) -> Difference:
    """Return ``value`` with the standard error of users drawn independently."""
    _, owner = np.unique(users, return_inverse=True)
    sums = np.bincount(owner.reshape(-1), weights=influence)
    number = len(sums)
    if number < 2:  # the spread of one user is unknown: no difference is significant
        return Difference(value=value, standard_error=float("inf"))
    variance = float(np.square(sums).sum()) * number / (number - 1)
    return Difference(value=value, standard_error=variance**0.5)
