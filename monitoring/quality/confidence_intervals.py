"""Counts → ratios, entropy, and 95 % intervals of click rate, AUC and calibration."""

from dataclasses import dataclass
from math import isnan, log, nan, sqrt

Z = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval; NaN without data."""

    low: float
    high: float


UNKNOWN = Interval(low=nan, high=nan)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; NaN if ``whole`` is 0 or unknown."""
    return part / whole if whole and not isnan(whole) else nan


def entropy(rate: float) -> float:
    """Return the log loss of always predicting ``rate``, in nats; NaN for 0 and 1."""
    return -rate * log(rate) - (1 - rate) * log(1 - rate) if 0 < rate < 1 else nan


def wilson(successes: int, trials: int) -> Interval:
    """Return Wilson's score interval of ``successes / trials``: also for small counts.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    """
    if trials == 0:
        return UNKNOWN
    rate, scale = successes / trials, 1 + Z * Z / trials
    middle = rate + Z * Z / (2 * trials)
    spread = Z * sqrt(rate * (1 - rate) / trials + Z * Z / (4 * trials * trials))
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return Interval(low=max(0.0, low), high=min(1.0, high))


def hanley_mcneil(auc: float, positives: int, negatives: int) -> Interval:
    """Return the interval of an AUC from its value and counts (Hanley, McNeil 1982)."""
    if positives == 0 or negatives == 0:
        return UNKNOWN
    both_above, both_below = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (positives - 1) * (both_above - auc * auc)
        + (negatives - 1) * (both_below - auc * auc)
    ) / (positives * negatives)
    spread = Z * sqrt(max(0.0, variance))
    return Interval(low=max(0.0, auc - spread), high=min(1.0, auc + spread))


def calibration(predicted: float, clicks: int, variance: float) -> Interval:
    """Return the interval of ``predicted / clicks``.

    ``variance`` is Σ p(1 − p): that of the number of clicks, if the predictions are right.
    """
    spread = Z * sqrt(max(0.0, variance))
    if clicks <= spread:  # too few: no click at all would be in the margin of error
        return UNKNOWN
    return Interval(low=predicted / (clicks + spread), high=predicted / (clicks - spread))
