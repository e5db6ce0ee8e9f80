"""Score → metric: the formulas, and the paired difference of two models with its error.

In: clicks (0 or 1) and predicted probabilities of matured impressions, in numpy only, for
training and live monitoring. Out: one number each; NaN where a metric is undefined (no
clicks, or nothing but clicks), never an error.

A difference also takes each impression's user: a user's impressions are dependent, so the
sampling unit is the user. Each metric is a mean whose influence function is summed over a
user's impressions (the infinitesimal jackknife; for the AUC these are DeLong's placements,
DeLong et al., Biometrics 1988, by clusters as Obuchowski, Biometrics 1997).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
_CONFIDENCE = 0.95
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


def ctr_at_1(clicked: Array, scores: Array, requests: Array) -> float:
    """Return the share of requests with a click whose top item was clicked.

    Of several items that share the top score each is on top equally often. NaN without a
    click.
    """
    tops = top_clicks(clicked, scores, requests)
    found = tops[np.isfinite(tops)]
    return float(found.mean()) if len(found) else float("nan")


def top_clicks(clicked: Array, scores: Array, requests: Array) -> Floats:
    """Return for each distinct request, ascending, how often its top item was clicked.

    Averaged over the items that share the top score; NaN for a request without a click.
    """
    if len(requests) == 0:
        return np.zeros(0)
    _, request = np.unique(requests, return_inverse=True)
    scored = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(clicked, dtype=np.float64) > 0.5
    best = np.full(request.max() + 1, -np.inf)
    np.maximum.at(best, request, scored)
    is_top = scored == best[request]
    tops = np.bincount(request, weights=is_top)
    clicks = np.bincount(request, weights=positive)
    with np.errstate(invalid="ignore"):
        shares: Floats = np.bincount(request, weights=is_top & positive) / tops
    return np.where(clicks > 0, shares, np.nan)


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
    users: int = 0
    """How many users it is of."""

    @property
    def margin(self) -> float:
        """The margin of error: a true difference of 0 exceeds it once in twenty.

        Infinite where it is unknown.
        """
        return ONE_SIDED * self.standard_error

    def spread(self, comparisons: int = 1) -> float:
        """Return half the width of the two-sided 95 % interval, by Student's t.

        Infinite where it is unknown. Of several ``comparisons`` all intervals hold together
        with 95 %, by Bonferroni's correction.
        """
        if self.users < 2:
            return float("inf")
        tail = (1.0 - _CONFIDENCE) / (2 * comparisons)
        return student_quantile(1.0 - tail, self.users - 1) * self.standard_error


def student_quantile(probability: float, freedom: int) -> float:
    """Return the point below which Student's t is with ``probability``, above one half.

    Exact for one and two degrees of freedom; for more, Hill's expansion (Algorithm 396,
    CACM 1970), which is right to three digits and more.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        tail = 4 * probability * (1 - probability)
        return (2 * probability - 1) * math.sqrt(2 / tail)
    z = NormalDist().inv_cdf(probability)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (2 * (1 - probability) * d) ** (2 / freedom)
    if y > 0.05 + a:
        y = z * z
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (z + 0.6)
        c += (((0.05 * d * z - 5) * z - 7) * z - 2) * z + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * z
        y = math.expm1(a * y * y)
    else:
        tail = (freedom + 6) / (freedom * y) - 0.089 * d - 0.822
        y = ((1 / (tail * (freedom + 2) * 3) + 0.5 / (freedom + 4)) * y - 1) * (
            (freedom + 1) / (freedom + 2)
        ) + 1 / y
    return math.sqrt(freedom * y)


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


def ctr_at_1_difference(
    clicked: Array, one: Array, other: Array, requests: Array, users: Array
) -> Difference:
    """Return the difference of ``ctr_at_1``: above 0, ``one`` is better."""
    tops = top_clicks(clicked, one, requests)
    has_click = np.isfinite(tops)
    apart = (tops - top_clicks(clicked, other, requests))[has_click]
    if not len(apart):
        return Difference(value=float("nan"), standard_error=float("nan"))
    _, first = np.unique(requests, return_index=True)
    value = float(apart.mean())
    owners = np.asarray(users)[first[has_click]]
    return _difference(value, (apart - value) / len(apart), owners)


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
        return Difference(value=value, standard_error=float("inf"), users=number)
    variance = float(np.square(sums).sum()) * number / (number - 1)
    return Difference(value=value, standard_error=variance**0.5, users=number)
