"""Scores → AUC, gAUC, log loss, calibration, and the same by kind of item and user.

In: the judged slates, a calibrated probability each, and what orders a slate. Out: named
numbers; NaN where one is undefined. gAUC is of that order, the rest of the probability.
gAUC here is the mean over requests, each counting alike, as EB-NeRD's figures are
published.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import Examples, Part
from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.calibration import Calibration, fit_platt
from srp4ctr.training.model.heads.scores import Scores

HEAD_SHARE = 0.2  # of the items, the most shown in training; the rest is the long tail
SHORT_HISTORY = 5
Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)
Where = NDArray[np.bool_]


def one_score(scores: NDArray[T]) -> Scores[NDArray[T]]:
    """Return the scores of a model that has one for both."""
    return Scores(click=scores, ranking=scores)


def figures(examples: Examples, part: Part, scores: Scores[Floats]) -> dict[str, float]:
    """Return the figures of ``scores`` (M,), a shown candidate of ``part`` each."""
    shown = part.slates.shown
    clicked = part.clicked > 0.5
    requests = np.broadcast_to(part.requests[:, None], shown.shape)[shown]
    whole = _of(clicked, scores, requests)
    found = whole | {"clicks": float(clicked.sum())}
    for name, rows in _buckets(examples, part).items():
        some = Scores(click=scores.click[rows], ranking=scores.ranking[rows])
        inside = _of(clicked[rows], some, requests[rows])
        found |= {f"{name}_{metric}": value for metric, value in inside.items()}
    return found


def calibration_of(part: Part, logits: NDArray[Any]) -> Calibration:
    """Return Platt's scaling of ``logits`` (M,) by the clicks of ``part``."""
    return fit_platt(part.clicked, logits)


def calibrated_figures(
    examples: Examples, part: Part, logits: Scores[NDArray[Any]], platt: Calibration
) -> dict[str, float | None]:
    """Return the figures of calibrated ``logits`` (M,); None where one is undefined."""
    probabilities = platt.probabilities(logits.click)
    found = figures(examples, part, Scores(click=probabilities, ranking=logits.ranking))
    return {name: v if np.isfinite(v) else None for name, v in found.items()}


def mean_auc(clicked: Where, scores: Floats, groups: NDArray[np.int64]) -> float:
    """Return the mean AUC of the groups that have one, each counting alike."""
    aucs = quality.group_aucs(clicked, scores, groups)
    ranked = np.isfinite(aucs)
    return float(aucs[ranked].mean()) if ranked.any() else float("nan")


def _of(
    clicked: Where, scores: Scores[Floats], requests: NDArray[np.int64]
) -> dict[str, float]:
    probabilities, ranking = scores
    aucs = quality.group_aucs(clicked, ranking, requests)
    ranked = aucs[np.isfinite(aucs)]
    return {
        "auc": quality.auc(clicked, probabilities),
        "gauc": mean_auc(clicked, ranking, requests),
        "gauc_of_probability": mean_auc(clicked, probabilities, requests),
        # Of other requests like these; the seeds' error says nothing of it.
        "gauc_sampling_error": float(ranked.std() / len(ranked) ** 0.5)
        if len(ranked)
        else np.nan,
        "log_loss": quality.log_loss(clicked, probabilities),
        "normalised_entropy": quality.normalised_entropy(clicked, probabilities),
        "calibration": quality.calibration(clicked, probabilities),
        "impressions": float(len(clicked)),
    }


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
