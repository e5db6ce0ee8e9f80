"""Labelled impressions → sums from which every live figure follows.

In: impressions, one at a time, added or taken away again. Out: ``ModelQuality``. Sums
are additive, so a window can slide and a correction can replace a label without reading
the window again. AUC comes from two histograms of the score's logit.
"""

from dataclasses import dataclass, field
from math import log, nan

import numpy as np
from numpy.typing import NDArray

from monitoring.intervals import Interval, calibration, hanley_mcneil, wilson

# Logits in [-12, 12] in steps of 0.0117: scores in one bin differ by at most 0.3 % of
# p(1 - p) and count as tied, which moves an AUC by less than 1e-3 (tested).
NUM_BINS = 2048
MAX_LOGIT = 12.0
EPSILON = 1e-7  # a score of 0 or 1 has no finite log loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One settled impression as the figures need it."""

    model_version: str
    is_top: bool  # position 0
    score: float | None  # the click probability that ranked it; None if no model did
    is_click: bool  # clicked within the label window
    is_late_click: bool  # clicked after it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuality:
    """Live figures of one model version; NaN where there is nothing to divide by."""

    model_version: str
    impressions: int
    clicks: int
    late_clicks: int
    click_rate: float
    click_rate_interval: Interval
    top_impressions: int
    top_click_rate: float
    top_click_rate_interval: Interval
    calibration_ratio: float
    """Σ scores / clicks: above 1 the model promises too much."""
    calibration_interval: Interval
    log_loss_nats: float
    auc: float
    auc_interval: Interval


def _no_scores() -> NDArray[np.int64]:
    return np.zeros(NUM_BINS, np.int64)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums over the settled impressions of one model version."""

    impressions: int = 0
    clicks: int = 0
    late_clicks: int = 0
    top_impressions: int = 0
    top_clicks: int = 0
    predicted: float = 0.0  # Σ p over scored impressions
    variance: float = 0.0  # Σ p(1 - p)
    loss_nats: float = 0.0  # Σ -ln of the probability given to what happened
    clicked_scores: NDArray[np.int64] = field(default_factory=_no_scores)  # (NUM_BINS,)
    passed_scores: NDArray[np.int64] = field(default_factory=_no_scores)  # (NUM_BINS,)

    def move(self, outcome: Outcome, sign: int) -> None:
        """Add ``outcome`` (``sign`` 1), or take it away again (-1)."""
        self.impressions += sign
        self.clicks += sign * outcome.is_click
        self.late_clicks += sign * outcome.is_late_click
        self.top_impressions += sign * outcome.is_top
        self.top_clicks += sign * (outcome.is_top and outcome.is_click)
        if outcome.score is not None:
            self._move_score(outcome.score, outcome.is_click, sign)

    def _move_score(self, score: float, is_click: bool, sign: int) -> None:
        p = min(max(score, EPSILON), 1.0 - EPSILON)
        self.predicted += sign * score
        self.variance += sign * p * (1.0 - p)
        self.loss_nats -= sign * log(p if is_click else 1.0 - p)
        scores = self.clicked_scores if is_click else self.passed_scores
        scores[_bin(log(p / (1.0 - p)))] += sign

    def quality(self, model_version: str) -> ModelQuality:
        """Return the figures of the impressions that are in the sums now."""
        positives = int(self.clicked_scores.sum())
        negatives = int(self.passed_scores.sum())
        auc = _auc(self.clicked_scores, self.passed_scores)
        return ModelQuality(
            model_version=model_version,
            impressions=self.impressions,
            clicks=self.clicks,
            late_clicks=self.late_clicks,
            click_rate=_ratio(self.clicks, self.impressions),
            click_rate_interval=wilson(self.clicks, self.impressions),
            top_impressions=self.top_impressions,
            top_click_rate=_ratio(self.top_clicks, self.top_impressions),
            top_click_rate_interval=wilson(self.top_clicks, self.top_impressions),
            calibration_ratio=_ratio(self.predicted, positives),
            calibration_interval=calibration(self.predicted, positives, self.variance),
            log_loss_nats=_ratio(self.loss_nats, positives + negatives),
            auc=auc,
            auc_interval=hanley_mcneil(auc, positives, negatives),
        )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else nan


def _bin(logit: float) -> int:
    position = (logit + MAX_LOGIT) / (2 * MAX_LOGIT) * NUM_BINS
    return min(max(int(position), 0), NUM_BINS - 1)


def _auc(clicked: NDArray[np.int64], passed: NDArray[np.int64]) -> float:
    """Return P(a clicked impression scored above one passed over); ties count half."""
    pairs = int(clicked.sum()) * int(passed.sum())
    below = np.cumsum(passed) - passed  # passed over with a lower score, per bin
    return _ratio(float(np.sum(clicked * (below + passed / 2))), pairs)
