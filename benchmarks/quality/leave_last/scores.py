"""Scores of a user's hundred candidates → the answer's rank, and the metrics of ranks.

HR@10, NDCG@10, MRR and AUC as S3-Rec computes them: one answer among 99 others, so that
HR@10 is recall, and AUC is the mean over users of the share of others below the answer.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
TOP = 10
METRICS = ("hr10", "ndcg10", "mrr", "auc")
SHORT = 5  # behaviours before the answer: up to here a history is short
HEAD_SHARE = 0.2  # of items by training frequency; the others are the long tail


def ranks(scores: NDArray[Any], seed: int) -> Ranks:
    """Return how many others rank above the answer, column 0 of ``scores`` (U, 100).

    A coin breaks ties: among equals the answer is not first because it is in column 0.
    """
    coins = np.random.default_rng(seed).random(scores.shape)
    answer, coin = scores[:, :1], coins[:, :1]
    above = (scores > answer) | ((scores == answer) & (coins > coin))
    found: Ranks = above.sum(axis=1)
    return found


def values(of: Ranks, others: int = 99) -> dict[str, float]:
    """Return the metrics of ``of``; NaN where there is no user."""
    if len(of) == 0:
        return dict.fromkeys(METRICS, math.nan)
    hit = of < TOP
    return {
        "hr10": float(hit.mean()),
        "ndcg10": float((hit / np.log2(of + 2.0)).mean()),
        "mrr": float((1.0 / (of + 1.0)).mean()),
        "auc": float(1.0 - (of / others).mean()),
    }


def buckets(
    history_lengths: NDArray[np.int64],
    seen: NDArray[np.int64],
    item_counts: NDArray[np.int64],
) -> dict[str, NDArray[np.bool_]]:
    """Return who (U,) has a short history, and whose answer is of the long tail.

    ``seen`` (U,) is how often training has the answer, ``item_counts`` the same of every
    item that training has.
    """
    ordered = np.sort(item_counts)[::-1]
    edge = ordered[min(int(len(ordered) * HEAD_SHARE), len(ordered) - 1)]
    return {
        "short_history": history_lengths <= SHORT,
        "long_history": history_lengths > SHORT,
        "long_tail": seen <= edge,
        "head": seen > edge,
    }
