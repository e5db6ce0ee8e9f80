"""Scores → figures: AUC, gAUC, log loss, calibration, and the same by kind of item, user.

In: the judged slates and a calibrated probability each. Out: named numbers; NaN where one
is undefined. gAUC here is the mean over requests, each counting alike, as EB-NeRD's
figures are published; ``gauc_by_impressions`` weighs them as ``training.metrics`` does.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.click_examples import Examples, Part
from training import metrics

HEAD_SHARE = 0.2  # of the items, the most shown in training; the rest is the long tail
SHORT_HISTORY = 5
Floats = NDArray[np.float64]
Where = NDArray[np.bool_]


def figures(examples: Examples, part: Part, probabilities: Floats) -> dict[str, float]:
    """Return the figures of ``probabilities`` (M,), a shown candidate of ``part`` each."""
    shown = part.slates.shown
    clicked = part.slates.clicked[shown] > 0.5
    requests = np.broadcast_to(part.requests[:, None], shown.shape)[shown]
    whole = _of(clicked, probabilities, requests)
    found = whole | {"clicks": float(clicked.sum())}
    for name, rows in _buckets(examples, part).items():
        inside = _of(clicked[rows], probabilities[rows], requests[rows])
        found |= {f"{name}_{metric}": value for metric, value in inside.items()}
    return found


def slate_aucs(clicked: Where, scores: Floats, groups: NDArray[np.int64]) -> Floats:
    """Return the AUC of each group of ``groups`` (ascending); NaN where it has none.

    As ``metrics.auc``, ties counting one half, for all groups at once.
    """
    if len(groups) == 0:
        return np.zeros(0)
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    by_rank, positive = group[order], clicked[order]
    starts = np.searchsorted(by_rank, np.arange(group[-1] + 1))
    place = np.arange(len(order)) - starts[by_rank] + 1.0
    ranked = scores[order]
    is_new = np.diff(ranked, prepend=np.nan) != 0
    is_new |= np.diff(by_rank, prepend=-1) != 0
    tie = np.cumsum(is_new) - 1
    rank = (np.bincount(tie, weights=place) / np.bincount(tie))[tie]
    clicks = np.bincount(by_rank, weights=positive)
    others = np.bincount(by_rank) - clicks
    surplus = np.bincount(by_rank, weights=rank * positive) - clicks * (clicks + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs: Floats = np.where(clicks * others > 0, surplus / (clicks * others), np.nan)
    return aucs


def mean_auc(clicked: Where, scores: Floats, groups: NDArray[np.int64]) -> float:
    """Return the mean AUC of the groups (ascending) that have one, each counting alike."""
    aucs = slate_aucs(clicked, scores, groups)
    ranked = np.isfinite(aucs)
    return float(aucs[ranked].mean()) if ranked.any() else float("nan")


def _of(
    clicked: Where, probabilities: Floats, requests: NDArray[np.int64]
) -> dict[str, float]:
    by_request = slate_aucs(clicked, probabilities, requests)
    _, sizes = np.unique(requests, return_counts=True)
    ranked = np.isfinite(by_request)
    return {
        "auc": metrics.auc(clicked, probabilities),
        "gauc": mean_auc(clicked, probabilities, requests),
        # Of other requests like these; the seeds' error says nothing of it.
        "gauc_sampling_error": _error(by_request[ranked]),
        "gauc_by_impressions": _weighted(by_request[ranked], sizes[ranked]),
        "log_loss": metrics.log_loss(clicked, probabilities),
        "normalised_entropy": metrics.normalised_entropy(clicked, probabilities),
        "calibration": metrics.calibration(clicked, probabilities),
        "impressions": float(len(clicked)),
    }


def _error(values: Floats) -> float:
    return float(values.std() / np.sqrt(len(values))) if len(values) else float("nan")


def _weighted(values: Floats, weights: NDArray[np.int64]) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")


def _buckets(examples: Examples, part: Part) -> dict[str, Where]:
    """Return where each kind of item and of user is, of the shown candidates (M,)."""
    shown = part.slates.shown
    items = part.items[shown]
    counts = examples.item_impressions
    is_head = np.zeros(len(counts), dtype=np.bool_)
    is_head[np.argsort(-counts, kind="stable")[: int(len(counts) * HEAD_SHARE)]] = True
    behaviors = (part.slates.tensors["history_item_rows"] != 0).sum(axis=1)
    behaviors = np.broadcast_to(behaviors[:, None], shown.shape)[shown]
    return {
        "tail": ~is_head[items],
        "head": is_head[items],
        "new_items": examples.item_is_new[items],
        "no_history": behaviors == 0,
        "short_history": (behaviors > 0) & (behaviors < SHORT_HISTORY),
        "long_history": behaviors >= SHORT_HISTORY,
    }
