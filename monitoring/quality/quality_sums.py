"""Labelled impressions → sums from which every live figure is computed.

In: impressions, added or subtracted one at a time. Out: ``ModelQuality``. Because sums are
additive, a window can slide and a correction can replace a label without another pass over
the window. AUC and the calibration curve come from histograms of the score's logit, the
intervals from sums by group of users.
"""

from array import array
from dataclasses import dataclass, field
from math import log

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.monitoring.quality.confidence_intervals import (
    Interval,
    calibration,
    click_rate,
    entropy,
    ratio,
)
from srp4ctr.monitoring.quality.position_auc import (
    NUM_BINS,
    Doubles,
    PositionAuc,
    PositionScores,
)
from srp4ctr.monitoring.quality.request_auc import (
    RequestAuc,
    RequestKey,
    RequestPairs,
    TopItem,
)
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS

# Logits in [-12, 12] in steps of 0.0117, four of which are a bin of an AUC.
CURVE_BINS = 4 * NUM_BINS
MAX_LOGIT = 12.0
EPSILON = 1e-7  # a score of 0 or 1 has no finite log loss
CALIBRATION_BINS = 10
# The fields of ``QualitySums`` by their form; the rest adds itself.
_NUMBERS = ("impressions", "late_clicks", "variance", "loss_nats", "reciprocal_ranks")
_BY_GROUP = (
    "shown",
    "clicks",
    "top_shown",
    "top_clicks",
    "predicted",
    "scored_clicks",
)
_BY_SCORE = ("bin_shown", "bin_clicks", "bin_scores")


class SettledImpression(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True
):
    """An impression whose label window has closed."""

    model_version: str
    experiment: str | None = None
    arm: str | None = None  # the version that the user was assigned to in ``experiment``
    request: RequestKey
    user_group: int  # ``user_groups.user_group`` of its user
    position: int  # 0 is the top
    shown_at: int  # UTC ms
    score: float | None  # the click probability that ranked it; None if no model did
    propensity: float | None = None  # that the server showed it there; None if unknown
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
    auc: PositionAuc
    request_auc: RequestAuc
    mean_reciprocal_rank: float
    """Mean over clicks of 1 / (position + 1): 1 if all were at the top."""
    calibration_bins: tuple[CalibrationBin, ...]
    """By score, the lowest first; equal scores share a bin."""
    expected_calibration_error: float
    """Mean |score - click rate| over the bins, weighted by impressions."""


def _no_counts() -> list[int]:
    return [0] * NUM_GROUPS


def _no_sums() -> list[float]:
    return [0.0] * NUM_GROUPS


def _no_scores() -> Doubles:
    return array("d", bytes(8 * CURVE_BINS))


@dataclass(slots=True, kw_only=True)
class QualitySums:
    """Sums over the settled impressions of one model version; lists are by user group."""

    impressions: int = 0
    late_clicks: int = 0
    variance: float = 0.0  # Σ p(1 - p)
    loss_nats: float = 0.0  # Σ -ln of the predicted probability of the outcome
    reciprocal_ranks: float = 0.0  # Σ over clicks
    shown: list[int] = field(default_factory=_no_counts)
    clicks: list[int] = field(default_factory=_no_counts)
    top_shown: list[int] = field(default_factory=_no_counts)
    top_clicks: list[int] = field(default_factory=_no_counts)
    predicted: list[float] = field(default_factory=_no_sums)  # Σ p over scored impressions
    scored_clicks: list[int] = field(default_factory=_no_counts)
    # By bin of the score's logit (CURVE_BINS,): impressions, clicks and Σ p.
    bin_shown: Doubles = field(default_factory=_no_scores)
    bin_clicks: Doubles = field(default_factory=_no_scores)
    bin_scores: Doubles = field(default_factory=_no_scores)
    by_position: PositionScores = field(default_factory=PositionScores)
    by_request: RequestPairs = field(default_factory=RequestPairs)

    def update(self, impression: SettledImpression, sign: int) -> None:
        """Add ``impression`` (``sign`` 1), or subtract it again (-1)."""
        group, position = impression.user_group, impression.position
        self.impressions += sign
        self.shown[group] += sign
        if position == 0:
            self.top_shown[group] += sign
        if impression.is_click:
            self.clicks[group] += sign
            self.reciprocal_ranks += sign / (position + 1)
            if position == 0:
                self.top_clicks[group] += sign
        elif impression.is_late_click:
            self.late_clicks += sign
        if impression.score is not None:
            self._update_scores(impression, impression.score, sign)

    def add(self, other: "QualitySums") -> None:
        """Add the impressions of ``other``, which has other requests: no more updates."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _BY_GROUP:
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(self, name, [ours + theirs for ours, theirs in pairs])
        for name in _BY_SCORE:
            ours = np.frombuffer(getattr(self, name))
            ours += np.frombuffer(getattr(other, name))
        self.by_position.add(other.by_position)
        self.by_request.add(other.by_request)

    def _update_scores(
        self, impression: SettledImpression, score: float, sign: int
    ) -> None:
        group, is_click = impression.user_group, impression.is_click
        p = min(max(score, EPSILON), 1.0 - EPSILON)
        self.predicted[group] += sign * score
        self.variance += sign * p * (1.0 - p)
        self.loss_nats -= sign * log(p if is_click else 1.0 - p)
        place = score_bin(p)
        self.bin_shown[place] += sign
        self.bin_scores[place] += sign * score
        if is_click:
            self.scored_clicks[group] += sign
            self.bin_clicks[place] += sign
        position, propensity = impression.position, impression.propensity
        self.by_position.update(position, group, place // 4, is_click, sign)
        if propensity is not None and propensity < 1.0 and position < 2:
            item = TopItem(score, propensity, is_click)
            self.by_request.update(impression.request, group, position, item, sign)

    def quality(self, model_version: str) -> ModelQuality:
        """Return the figures of the impressions in the sums."""
        clicks, top = sum(self.clicks), sum(self.top_shown)
        scored, scored_clicks = round(sum(self.bin_shown)), sum(self.scored_clicks)
        log_loss = ratio(self.loss_nats, scored)
        bins = self._calibration_bins()
        return ModelQuality(
            model_version=model_version,
            impressions=self.impressions,
            clicks=clicks,
            late_clicks=self.late_clicks,
            click_rate=ratio(clicks, self.impressions),
            click_rate_interval=click_rate(self.clicks, self.shown),
            top_impressions=top,
            top_click_rate=ratio(sum(self.top_clicks), top),
            top_click_rate_interval=click_rate(self.top_clicks, self.top_shown),
            calibration_ratio=ratio(sum(self.predicted), scored_clicks),
            calibration_interval=calibration(
                self.predicted, self.scored_clicks, self.variance
            ),
            log_loss_nats=log_loss,
            normalized_entropy=ratio(log_loss, entropy(ratio(scored_clicks, scored))),
            auc=self.by_position.auc(self._mean_scores()),
            request_auc=self.by_request.auc(),
            mean_reciprocal_rank=ratio(self.reciprocal_ranks, clicks),
            calibration_bins=bins,
            expected_calibration_error=ratio(
                sum(b.impressions * abs(b.score - b.click_rate) for b in bins), scored
            ),
        )

    def _mean_scores(self) -> NDArray[np.float64]:
        """Return the mean score in each bin of an AUC (NUM_BINS,); 0 in empty ones."""
        shown, scores = (
            np.asarray(each).reshape(NUM_BINS, -1).sum(1)
            for each in (self.bin_shown, self.bin_scores)
        )
        means = np.zeros(NUM_BINS)
        np.divide(scores, shown, out=means, where=shown > 0)
        return means

    def _calibration_bins(self) -> tuple[CalibrationBin, ...]:
        """Return the scored impressions in tenths by score; ties may leave some empty."""
        counts = np.asarray(self.bin_shown)
        before = np.cumsum(counts) - counts
        whole = max(int(counts.sum()), 1)
        # A histogram bin belongs to the tenth in which its middle impression is.
        tenth = (before + counts / 2) * CALIBRATION_BINS / whole
        groups = np.minimum(tenth.astype(np.int64), CALIBRATION_BINS - 1)
        sums = (
            np.bincount(groups, weights=each, minlength=CALIBRATION_BINS)
            for each in (counts, self.bin_scores, self.bin_clicks)
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


def score_bin(score: float) -> int:
    """Return the curve's bin of a score's logit; ``score`` is above 0 and below 1."""
    place = (log(score / (1.0 - score)) + MAX_LOGIT) / (2 * MAX_LOGIT) * CURVE_BINS
    return min(max(int(place), 0), CURVE_BINS - 1)
