"""A version's figures of windows that do not overlap → its figures over all of them.

Counts are added up, and rates are ratios of the sums. The AUC is the mean over the windows,
weighted by their pairs: impressions of different hours are not compared.

Intervals come from the bounds of the windows, which are by users. Windows are taken as
independent: users who come back in another hour make the intervals slightly too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan, sqrt

from srp4ctr.monitoring.quality.confidence_intervals import (
    Interval,
    Z,
    calibration_between,
    entropy,
    ratio,
    wilson,
)
from srp4ctr.monitoring.report.report_contents import Estimate, Quality

WindowFigures = Mapping[str, float]
"""By metric without the prefix srp4ctr_, then a slash and the bound or the bin."""
BINS = 10


def aggregate(windows: Sequence[WindowFigures]) -> Quality:
    """Return the figures over all ``windows``."""
    shown, clicked = round(sum(map(_shown, windows))), round(sum(map(_clicks, windows)))
    at_top = round(sum(each.get("matured_top_impressions", 0.0) for each in windows))
    top_clicks = sum(map(_top_clicks, windows))
    loss = _mean(windows, "live_log_loss_nats", _shown)
    curve = _curve(windows)
    return Quality(
        num_windows=len(windows),
        impressions=shown,
        clicks=clicked,
        top_impressions=at_top,
        click_rate=ratio(clicked, shown),
        top_click_rate=Estimate(
            value=ratio(top_clicks, at_top),
            interval=_top_interval(windows, ratio(top_clicks, at_top), at_top),
        ),
        normalized_entropy=ratio(loss, entropy(ratio(clicked, shown))),
        auc=_auc(windows),
        calibration=_calibration(windows, clicked),
        calibration_error=_mean_error(curve),
        label_coverage=ratio(shown, sum(map(_expected_labels, windows))),
        curve=tuple((score, rate) for score, rate, _ in curve),
    )


def _shown(window: WindowFigures) -> float:
    return window.get("matured_impressions", 0.0)


def _clicks(window: WindowFigures) -> float:
    return window.get("matured_clicks", 0.0)


def _top_clicks(window: WindowFigures) -> int:
    rate = window.get("online_click_rate_at_top", 0.0)
    return round(rate * window.get("matured_top_impressions", 0.0))


def _pairs(window: WindowFigures) -> float:
    return _clicks(window) * (_shown(window) - _clicks(window))


def _expected_labels(window: WindowFigures) -> float:
    """Return how many impressions should have a label by now.

    Unknown where none of them has one, as in an outage of the stream: such a window counts
    for nothing.
    """
    coverage = window.get("label_coverage", 1.0)
    return _shown(window) / coverage if coverage else 0.0


def _mean(
    windows: Sequence[WindowFigures],
    metric: str,
    weight: Callable[[WindowFigures], float],
) -> float:
    known = [each for each in windows if metric in each]
    total = sum(weight(each) * each[metric] for each in known)
    return ratio(total, sum(map(weight, known)))


def _error(window: WindowFigures, metric: str) -> float:
    """Return the standard error that the bounds of ``metric`` imply; NaN without bounds."""
    low, high = (window.get(f"{metric}_bound/{bound}", nan) for bound in ("low", "high"))
    return (high - low) / (2 * Z)


def _top_interval(windows: Sequence[WindowFigures], rate: float, shown: int) -> Interval:
    """Return Wilson's interval for as many independent impressions as the bounds imply."""
    metric = "online_click_rate_at_top"
    sizes = [each.get("matured_top_impressions", 0.0) for each in windows]
    errors = [n * _error(each, metric) for n, each in zip(sizes, windows, strict=True) if n]
    variance = sum(error**2 for error in errors)
    if not variance > 0:
        return wilson(rate, shown)
    return wilson(rate, min(shown, rate * (1 - rate) * shown**2 / variance))


def _auc(windows: Sequence[WindowFigures]) -> Estimate:
    value = _mean(windows, "live_auc", _pairs)
    if isnan(value):
        return Estimate()
    known = [each for each in windows if "live_auc" in each]
    error = sqrt(sum((_pairs(each) * _error(each, "live_auc")) ** 2 for each in known))
    spread = Z * error / sum(map(_pairs, known))
    return Estimate(
        value=value,
        interval=Interval(low=max(0.0, value - spread), high=min(1.0, value + spread)),
    )


def _calibration(windows: Sequence[WindowFigures], clicked: int) -> Estimate:
    predicted = sum(map(_predicted, windows))
    spread = sqrt(sum(_margin_of_error(each) ** 2 for each in windows))
    interval = calibration_between(predicted, clicked, spread)
    return Estimate(value=ratio(predicted, clicked), interval=interval)


def _predicted(window: WindowFigures) -> float:
    """Return Σ scores; without clicks there is no ratio, and it comes from the bins."""
    if "calibration_ratio" in window:
        return window["calibration_ratio"] * _clicks(window)
    scores = [score for score, _ in _bins(window)]
    return ratio(sum(scores) * _shown(window), len(scores)) if scores else 0.0


def _margin_of_error(window: WindowFigures) -> float:
    """Return the margin of error of the clicks, from the bound of the calibration.

    low = Σ scores / (clicks + margin). Without a bound it is that of rare clicks, which is
    slightly too large.
    """
    low = window.get("calibration_ratio_bound/low")
    if not low:
        return Z * sqrt(_predicted(window))
    return _predicted(window) / low - _clicks(window)


def _bins(window: WindowFigures) -> list[tuple[float, float]]:
    """Return mean score and click rate of each bin; all bins have the same size."""
    scores = (window.get(f"calibration_bin_score/{each}") for each in range(BINS))
    rates = (window.get(f"calibration_bin_click_rate/{each}") for each in range(BINS))
    pairs = zip(scores, rates, strict=True)
    return [(s, r) for s, r in pairs if s is not None and r is not None]


def _curve(windows: Sequence[WindowFigures]) -> list[tuple[float, float, float]]:
    """Return mean score, click rate and impressions of each bin over all windows."""
    sums = [[0.0, 0.0, 0.0] for _ in range(BINS)]
    for window in windows:
        bins = _bins(window)
        for total, (score, rate) in zip(sums, bins, strict=False):
            share = _shown(window) / len(bins)
            for place, value in enumerate((score * share, rate * share, share)):
                total[place] += value
    return [(s / n, r / n, n) for s, r, n in sums if n]


def _mean_error(curve: Sequence[tuple[float, float, float]]) -> float:
    total = sum(n * abs(score - rate) for score, rate, n in curve)
    return ratio(total, sum(n for _, _, n in curve))
