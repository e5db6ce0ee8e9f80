"""Two models' scores of the same impressions → the paired difference and its error.

In: clicks, two models' probabilities and each impression's user. Out: the difference of a
metric and its standard error. A user's impressions are dependent, so the sampling unit is
the user: each metric is a mean whose influence function is summed over a user's impressions
(the infinitesimal jackknife; for the AUC these are DeLong's placements, DeLong et al.,
Biometrics 1988, by clusters as Obuchowski, Biometrics 1997).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srp4ctr.training.evaluation import metrics

ONE_SIDED = 1.645  # standard errors that chance exceeds once in twenty
Array = NDArray[np.generic]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of the one model less that of the other."""

    value: float
    """NaN where the metric is undefined."""
    standard_error: float

    @property
    def margin(self) -> float:
        """The margin of error: a true difference of 0 exceeds it once in twenty."""
        return ONE_SIDED * self.standard_error


def mean(one: Array, other: Array, users: Array) -> Difference:
    """Return the mean of ``one`` less the mean of ``other``, which are of the same rows."""
    apart = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    if len(apart) == 0:
        return Difference(value=float("nan"), standard_error=float("nan"))
    value = float(apart.mean())
    return _difference(value, (apart - value) / len(apart), users)


def log_loss(clicked: Array, one: Array, other: Array, users: Array) -> Difference:
    """Return the difference of the mean log losses, in nats: below 0, ``one`` is better."""
    losses = [metrics.log_losses(clicked, each) for each in (one, other)]
    return mean(losses[0], losses[1], users)


def auc(clicked: Array, one: Array, other: Array, users: Array) -> Difference:
    """Return the difference of the AUCs: above 0, ``one`` is better."""
    apart = _placements(clicked, one) - _placements(clicked, other)
    positive = np.asarray(clicked, dtype=np.float64) > 0.5
    counts = np.where(positive, positive.sum(), (~positive).sum())
    value = float(apart[positive].mean()) if positive.any() else float("nan")
    return _difference(value, (apart - value) / np.maximum(counts, 1), users)


def gauc(
    clicked: Array, one: Array, other: Array, requests: Array, users: Array
) -> Difference:
    """Return the difference of the mean AUCs of ``requests``: above 0, ``one`` is better.

    Requests without both a click and a non-click have no weight, as in ``metrics.gauc``.
    """
    first_aucs = metrics.group_aucs(clicked, one, requests)
    apart = first_aucs - metrics.group_aucs(clicked, other, requests)
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
