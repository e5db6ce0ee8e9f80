"""Labelled impressions → sums from which every live figure is computed.

In: impressions, added or subtracted one at a time. Out: ``ModelQuality``. Because sums are
additive, a window can slide and a correction can replace a label without another pass over
the window. AUC and the calibration curve come from histograms of the score's logit.
"""

from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray

from srp4ctr.monitoring.quality.confidence_intervals import (
    Interval,
    calibration,
    entropy,
    hanley_mcneil,
    ratio,
    wilson,
)

# Logits in [-12, 12] in steps of 0.0117: scores in one bin differ by at most 0.3 % of
# p(1 - p) and count as tied, which moves an AUC by less than 1e-3 (tested).
NUM_BINS = 2048
MAX_LOGIT = 12.0
EPSILON = 1e-7  # a score of 0 or 1 has no finite log loss
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledImpression:
    """An impression whose label window has closed."""

    model_version: str
    position: int  # 0 is the top
    shown_at: int  # UTC ms
    score: float | None  # the click probability that ranked it; None if no model did
    is_click: bool  # clicked within the label window
    is_late_click: bool  # clicked after it


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """A tenth of the scored impressions: mean score and click rate."""

    score: float
    click_rate: float
    impressions: int


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
    """Σ scores / clicks: above 1 the model over-predicts."""
    calibration_interval: Interval
    log_loss_nats: float
    normalized_entropy: float
    """Log loss / the click rate's entropy (He et al. 2014): 1 is the mean."""
    auc: float
    auc_interval: Interval
    mean_reciprocal_rank: float
    """Mean over clicks of 1 / (position + 1): 1 if all were at the top."""
    calibration_bins: tuple[CalibrationBin, ...]
    """By score, the lowest first; equal scores share a bin."""
    expected_calibration_error: float
    """Mean |score - click rate| over the bins, weighted by impressions."""


def _no_scores() -> NDArray[np.int64]:
    return np.zeros(NUM_BINS, np.int64)


def _no_sums() -> NDArray[np.float64]:
    return np.zeros(NUM_BINS, np.float64)


@dataclass(slots=True, kw_only=True)
class QualitySums:
    """Sums over the settled impressions of one model version."""

    impressions: int = 0
    clicks: int = 0
    late_clicks: int = 0
    top_impressions: int = 0
    top_clicks: int = 0
    predicted: float = 0.0  # Σ p over scored impressions
    variance: float = 0.0  # Σ p(1 - p)
    loss_nats: float = 0.0  # Σ -ln of the predicted probability of the outcome
    reciprocal_ranks: float = 0.0  # Σ over clicks
    clicked_scores: NDArray[np.int64] = field(default_factory=_no_scores)  # (NUM_BINS,)
    passed_scores: NDArray[np.int64] = field(default_factory=_no_scores)  # (NUM_BINS,)
    score_sums: NDArray[np.float64] = field(default_factory=_no_sums)  # (NUM_BINS,)

    def update(self, impression: SettledImpression, sign: int) -> None:
        """Add ``impression`` (``sign`` 1), or subtract it again (-1)."""
        self.impressions += sign
        self.clicks += sign * impression.is_click
        self.late_clicks += sign * impression.is_late_click
        is_top = impression.position == 0
        self.top_impressions += sign * is_top
        self.top_clicks += sign * (is_top and impression.is_click)
        self.reciprocal_ranks += sign * impression.is_click / (impression.position + 1)
        if impression.score is not None:
            self._update_scores(impression.score, impression.is_click, sign)

    def _update_scores(self, score: float, is_click: bool, sign: int) -> None:
        p = min(max(score, EPSILON), 1.0 - EPSILON)
        self.predicted += sign * score
        self.variance += sign * p * (1.0 - p)
        self.loss_nats -= sign * log(p if is_click else 1.0 - p)
        scores = self.clicked_scores if is_click else self.passed_scores
        place = _bin(log(p / (1.0 - p)))
        scores[place] += sign
        self.score_sums[place] += sign * score

    def quality(self, model_version: str) -> ModelQuality:
        """Return the figures of the impressions in the sums."""
        positives = int(self.clicked_scores.sum())
        negatives = int(self.passed_scores.sum())
        auc = _auc(self.clicked_scores, self.passed_scores)
        log_loss = ratio(self.loss_nats, positives + negatives)
        bins = self._calibration_bins()
        mean_loss = entropy(ratio(positives, positives + negatives))
        return ModelQuality(
            model_version=model_version,
            impressions=self.impressions,
            clicks=self.clicks,
            late_clicks=self.late_clicks,
            click_rate=ratio(self.clicks, self.impressions),
            click_rate_interval=wilson(self.clicks, self.impressions),
            top_impressions=self.top_impressions,
            top_click_rate=ratio(self.top_clicks, self.top_impressions),
            top_click_rate_interval=wilson(self.top_clicks, self.top_impressions),
            calibration_ratio=ratio(self.predicted, positives),
            calibration_interval=calibration(self.predicted, positives, self.variance),
            log_loss_nats=log_loss,
            normalized_entropy=ratio(log_loss, mean_loss),
            auc=auc,
            auc_interval=hanley_mcneil(auc, positives, negatives),
            mean_reciprocal_rank=ratio(self.reciprocal_ranks, self.clicks),
            calibration_bins=bins,
            expected_calibration_error=ratio(
                sum(b.impressions * abs(b.score - b.click_rate) for b in bins),
                positives + negatives,
            ),
        )

    def _calibration_bins(self) -> tuple[CalibrationBin, ...]:
        """Return the scored impressions in tenths by score; ties may leave some empty."""
        counts = self.clicked_scores + self.passed_scores
        before = np.cumsum(counts) - counts
        whole = max(int(counts.sum()), 1)
        # A histogram bin belongs to the tenth in which its middle impression is.
        tenth = (before + counts / 2) * CALIBRATION_BINS / whole
        groups = np.minimum(tenth.astype(np.int64), CALIBRATION_BINS - 1)
        sums = (
            np.bincount(groups, weights=each, minlength=CALIBRATION_BINS)
            for each in (counts, self.score_sums, self.clicked_scores)
        )
        return tuple(
            CalibrationBin(
                score=float(score / count),
                click_rate=float(clicks / count),
                impressions=int(count),
            )
            for count, score, clicks in zip(*sums, strict=True)
            if count
        )


def _bin(logit: float) -> int:
    position = (logit + MAX_LOGIT) / (2 * MAX_LOGIT) * NUM_BINS
    return min(max(int(position), 0), NUM_BINS - 1)


def _auc(clicked: NDArray[np.int64], passed: NDArray[np.int64]) -> float:
    """Return P(a clicked impression scored above one passed over); ties count half."""
    pairs = int(clicked.sum()) * int(passed.sum())
    below = np.cumsum(passed) - passed  # passed over with a lower score, per bin
    return ratio(float(np.sum(clicked * (below + passed / 2))), pairs)
