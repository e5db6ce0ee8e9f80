"""Estimates → ratios, entropy, and 95 % intervals of click rate, calibration and AUC.

Intervals are by users (``user_groups.py``), with Student's t for few or unequal users.
"""

from dataclasses import dataclass
from math import isnan, log, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.monitoring.quality.user_groups import ratio_of_sums

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


def student(effective_groups: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return the 97.5 % point of Student's t with ``effective_groups`` - 1 degrees.

    Cornish and Fisher's expansion: exact to 0.001 from five degrees on (tested).
    """
    degrees: NDArray[np.float64] = np.maximum(np.asarray(effective_groups, float) - 1, 1.0)
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    result: NDArray[np.float64] = np.full_like(degrees, Z)
    for power, term in enumerate(terms, 1):
        result += term / degrees**power
    return result


def wilson(rate: float, trials: float, quantile: float = Z) -> Interval:
    """Return Wilson's score interval of ``rate`` in ``trials``: also for few clicks.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    """
    if not trials or isnan(rate):
        return UNKNOWN
    square = quantile * quantile
    scale = 1 + square / trials
    middle = rate + square / (2 * trials)
    spread = quantile * sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return Interval(low=max(0.0, low), high=min(1.0, high))


def click_rate(clicks: ArrayLike, shown: ArrayLike) -> Interval:
    """Return the interval of Σ clicks / Σ shown; both are by group of users.

    Wilson's, for the number of independent impressions that have this variance.
    """
    found = ratio_of_sums(clicks, shown)
    rate, variance = float(found.value), float(found.variance)
    if isnan(variance):
        return UNKNOWN
    trials = float(np.sum(shown))
    if variance > 0:
        trials = min(trials, rate * (1 - rate) / variance)
    return wilson(rate, trials, float(student(found.effective_groups)))


def calibration(predicted: ArrayLike, clicks: ArrayLike, variance: float) -> Interval:
    """Return the interval of Σ predicted / Σ clicks; both are by group of users.

    ``variance`` is Σ p(1 - p). Corrected for the calibration, it is the least variance
    that the number of clicks has, also where no click has been seen. ``high`` is NaN with
    too few clicks: none would be in the margin of error.
    """
    found = ratio_of_sums(clicks, predicted)  # of clicks per prediction
    if isnan(float(found.variance)):
        return UNKNOWN
    expected, observed = float(np.sum(predicted)), float(np.sum(clicks))
    least = variance * (observed + Z * Z) / expected  # as Wilson's for few clicks
    spread = float(student(found.effective_groups)) * sqrt(
        max(0.0, least, float(found.variance) * expected**2)
    )
    return calibration_between(expected, observed, spread)


def calibration_between(predicted: float, clicks: float, spread: float) -> Interval:
    """Return the interval of ``predicted / clicks`` for a margin ``spread`` of clicks."""
    high = predicted / (clicks - spread) if clicks > spread else nan
    return Interval(low=ratio(predicted, clicks + spread), high=high)


def symmetric(value: float, variance: float, effective_groups: float) -> Interval:
    """Return ``value`` ± t · standard error, within 0 and 1."""
    if isnan(variance):
        return UNKNOWN
    spread = float(student(effective_groups)) * sqrt(variance)
    return Interval(low=max(0.0, value - spread), high=min(1.0, value + spread))
