"""Score → metric: the formulas, in numpy only, for training and live monitoring.

In: clicks (0 or 1) and predicted probabilities of matured impressions. Out: one number
each; NaN where a metric is undefined (no clicks, or nothing but clicks), never an error.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SMALLEST = 1e-7  # a probability of exactly 0 or 1 could have an infinite loss


def auc(clicked: NDArray[np.generic], scores: NDArray[np.generic]) -> float:
    """Return P(score of a click > score of a non-click), ties counting one half.

    AUC = (R - P (P + 1) / 2) / (P Q), R the sum of the clicks' mean ranks, P clicks,
    Q non-clicks. NaN unless both are present.
    """
    positive = np.asarray(clicked) > 0.5
    clicks = int(positive.sum())
    others = len(positive) - clicks
    if clicks == 0 or others == 0:
        return float("nan")
    ranks = _mean_ranks(np.asarray(scores, dtype=np.float64))
    surplus = float(ranks[positive].sum()) - clicks * (clicks + 1) / 2.0
    return surplus / (clicks * others)


def gauc(
    clicked: NDArray[np.generic],
    scores: NDArray[np.generic],
    groups: NDArray[np.generic],
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
    clicked: NDArray[np.generic],
    scores: NDArray[np.generic],
    groups: NDArray[np.generic],
) -> Floats:
    """Return the AUC of each distinct group, ascending; NaN where it has none.

    As ``auc``, ties counting one half, for all groups in one sort.
    """
    if len(groups) == 0:
        return np.zeros(0)
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    grouped, ranked = group[order], np.asarray(scores)[order]
    positive = np.asarray(clicked)[order] > 0.5
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


def log_loss(clicked: NDArray[np.generic], probabilities: NDArray[np.generic]) -> float:
    """Return -mean(y ln p + (1 - y) ln(1 - p)), in nats per impression."""
    if len(clicked) == 0:
        return float("nan")
    return float(log_losses(clicked, probabilities).mean())


def log_losses(clicked: NDArray[np.generic], probabilities: NDArray[np.generic]) -> Floats:
    """Return the log loss of each impression, in nats."""
    y = np.asarray(clicked, dtype=np.float64)
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, 1.0 - _SMALLEST)
    losses: Floats = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
    return losses


def calibration(clicked: NDArray[np.generic], probabilities: NDArray[np.generic]) -> float:
    """Return sum(p) / sum(y): 1 = calibrated, 1.2 over-predicts clicks by 20 %."""
    clicks = float(np.sum(clicked, dtype=np.float64))
    if clicks == 0.0:
        return float("nan")
    return float(np.sum(probabilities, dtype=np.float64)) / clicks


def calibration_standard_error(probabilities: NDArray[np.generic]) -> float:
    """Return the standard error of ``calibration`` where the probabilities are right.

    sqrt(sum p (1 - p)) / sum(p), for independent clicks; those of one slate are not quite.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    expected = float(p.sum())
    return float(np.sqrt((p * (1.0 - p)).sum())) / expected if expected else float("nan")


def normalised_entropy(
    clicked: NDArray[np.generic], probabilities: NDArray[np.generic]
) -> float:
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


def _mean_ranks(scores: Floats) -> Floats:
    """Return 1-based ranks, equal scores sharing the mean of their ranks."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = last - (counts - 1) / 2.0
    return mean[inverse]
