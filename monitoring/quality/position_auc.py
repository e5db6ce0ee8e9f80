"""Scores of clicked and other impressions by position → an AUC without position bias.

A slate is sorted by score, and users look at its top: over all positions together even
random scores rank clicks well. Pairs of impressions at one position do not have this bias.
Sorting also narrows the range of scores at a position, so the AUC of a good model is low
there. It is compared with the AUC that the scores predict for themselves.
"""

from array import array
from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.monitoring.quality.confidence_intervals import UNKNOWN, Interval, symmetric
from srp4ctr.monitoring.quality.user_groups import ratio_of_sums

Floats = NDArray[np.floating[Any]]
if TYPE_CHECKING:
    Doubles = array[float]
    Integers = array[int]
else:  # before Python 3.12 an array has no type arguments, and snapshots decode by type
    Doubles = Integers = array

# Logits in [-12, 12] in steps of 0.047: scores in one bin differ by at most 1.2 % of
# p(1 - p) and count as tied, which moves an AUC by less than 1e-3 (tested).
NUM_BINS = 512
MAX_POSITIONS = 20  # lower ones have few clicks, and each takes 260 KB per version
AUC_GROUPS = 64  # of users: fewer than for rates, since each has its own histograms
MIN_CLICKS = 100  # at a position: below, its AUC is no normal variable
_SHAPE = (AUC_GROUPS, 2, NUM_BINS)  # by group; not clicked, clicked; by score


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionAuc:
    """AUC over the pairs at one position; NaN while no position has enough clicks."""

    value: float = nan
    interval: Interval = UNKNOWN
    expected: float = nan
    """The AUC if clicks were proportional to the scores, at each position."""
    is_corrected: bool = False
    """False if all positions are 0: then they are unknown, or there is one only."""


@dataclass(slots=True)
class PositionScores:
    """Histograms of the scores at each position, by group of users."""

    counts: dict[int, Integers] = field(default_factory=dict)

    def update(
        self, position: int, group: int, place: int, is_click: bool, sign: int
    ) -> None:
        """Add an impression whose score is in bin ``place``, or subtract it again."""
        if position >= MAX_POSITIONS:
            return
        if (counts := self.counts.get(position)) is None:
            counts = array("i", bytes(4 * AUC_GROUPS * 2 * NUM_BINS))
            self.counts[position] = counts
        counts[((group % AUC_GROUPS) * 2 + is_click) * NUM_BINS + place] += sign

    def add(self, other: "PositionScores") -> None:
        """Add the impressions of ``other``."""
        for position, counts in other.counts.items():
            if position not in self.counts:
                self.counts[position] = array("i", counts)
            else:
                ours = np.frombuffer(self.counts[position], np.int32)
                ours += np.frombuffer(counts, np.int32)

    def auc(self, mean_scores: Floats) -> PositionAuc:
        """Return the AUC; ``mean_scores`` is of shape (NUM_BINS,).

        Positions are weighted by their pairs. The variance is that of the statistic's
        linear part: how a group's impressions rank against all others (DeLong et al. 1988,
        by users).
        """
        views = {
            position: np.frombuffer(counts, np.int32).reshape(_SHAPE)
            for position, counts in self.counts.items()
        }
        is_corrected = any(position and view.any() for position, view in views.items())
        used = [view for view in views.values() if _has_enough(view)]
        if not used:
            return PositionAuc(is_corrected=is_corrected)
        won, pairs = np.sum([_pairs(each) for each in used], axis=0)
        found = ratio_of_sums(won, pairs)
        value, groups = float(found.value), float(found.effective_groups)
        weights = [float(np.prod(each.sum((0, 2), dtype=float))) for each in used]
        predicted = [_expected(each.sum((0, 1)), each, mean_scores) for each in used]
        return PositionAuc(
            value=value,
            # Each pair is in the sums of two groups: their total is twice the pairs.
            interval=symmetric(value, 4 * float(found.variance), groups),
            expected=float(np.average(predicted, weights=weights)),
            is_corrected=is_corrected,
        )


def _has_enough(counts: NDArray[np.int32]) -> bool:
    passed, clicked = counts.sum((0, 2))
    return bool(clicked >= MIN_CLICKS and passed > 0)


def _pairs(counts: NDArray[np.int32]) -> tuple[Floats, Floats]:
    """Return, by group, the pairs that its impressions win, and all their pairs."""
    passed, clicked = counts.sum(0, dtype=float)
    below = np.cumsum(passed) - passed / 2  # ties count half
    above = clicked.sum() - np.cumsum(clicked) + clicked / 2
    won = counts[:, 1] @ below + counts[:, 0] @ above
    sizes = counts.sum(2)
    return won, sizes[:, 1] * passed.sum() + sizes[:, 0] * clicked.sum()


def _expected(
    shown: NDArray[np.int64], counts: NDArray[np.int32], mean_scores: Floats
) -> float:
    """Return the AUC at a position whose clicks are proportional to the scores."""
    clicks = float(counts[:, 1].sum())
    predicted = shown * mean_scores
    clicked = predicted * (clicks / predicted.sum())
    passed = np.maximum(shown - clicked, 0.0)
    below = np.cumsum(passed) - passed / 2
    return float(clicked @ below / (clicked.sum() * passed.sum()))
