"""Differences from the serving version → differences of the newer and the older version.

The monitor's baseline is the serving version: after a promotion that is the new one, and
the report still compares the new version with the old one.
"""

from collections.abc import Iterable, Mapping
from math import inf

from srp4ctr.monitoring.quality.ab_test import anytime_half_width
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.version_order import version_order
from srp4ctr.monitoring.report.report_contents import (
    ChartLine,
    Estimate,
    Points,
    VersionComparison,
)

MAX_FACTOR = 1000.0  # versions that need a greater sample size factor count as equal
_PARTS = (
    "click_rate_difference",
    "click_rate_difference_bound/low",
    "click_rate_difference_bound/high",
    "compared_impressions",
)
Pair = tuple[str, str]
"""A version and its baseline."""


def comparisons(found: Mapping[Pair, Mapping[str, float]]) -> tuple[VersionComparison, ...]:
    """Return the comparison of each pair, the newest version's first.

    ``found`` has each pair's values by the monitor's gauge, without its prefix.
    """
    made = [_comparison(pair, each) for pair, each in found.items() if {*_PARTS} <= {*each}]
    return tuple(sorted(made, key=_newness, reverse=True))


def _newness(comparison: VersionComparison) -> tuple[tuple[int, str], ...]:
    return version_order(comparison.version), version_order(comparison.reference)


def _comparison(pair: Pair, found: Mapping[str, float]) -> VersionComparison:
    difference, low, high, impressions = (found[each] for each in _PARTS)
    version, reference = pair
    if version_order(version) < version_order(reference):
        version, reference = reference, version
        difference, low, high = -difference, -high, -low
    return VersionComparison(
        version=version,
        reference=reference,
        difference=Estimate(value=difference, interval=Interval(low=low, high=high)),
        impressions=round(impressions),
        counted=pair[0],
    )


def newer_over_older(lines: Iterable[ChartLine]) -> tuple[ChartLine, ...]:
    """Return one line of differences per pair, newer minus older version.

    Bounds of ±1 are left out: they mean that nothing is known yet.
    """
    merged: dict[tuple[str, ...], ChartLine] = {}
    for each in map(_newer_less_older, lines):
        other = merged.get(each.versions)
        merged[each.versions] = _joined(other, each) if other else each
    return tuple(sorted(merged.values(), key=lambda e: [*map(version_order, e.versions)]))


def _newer_less_older(line: ChartLine) -> ChartLine:
    version, baseline = line.versions
    points, low, high = line.points, line.low, line.high
    if version_order(version) < version_order(baseline):
        version, baseline = baseline, version
        points, low, high = _negated(points), _negated(high), _negated(low)
    return ChartLine(
        versions=(version, baseline),
        points=points,
        low=tuple(each for each in low if each[1] > -1.0),
        high=tuple(each for each in high if each[1] < 1.0),
    )


def _negated(points: Points) -> Points:
    return tuple((at, -value) for at, value in points)


def _joined(one: ChartLine, other: ChartLine) -> ChartLine:
    """Return the lines before and after a promotion as one."""
    return ChartLine(
        versions=one.versions,
        points=tuple(sorted((*one.points, *other.points))),
        low=tuple(sorted((*one.low, *other.low))),
        high=tuple(sorted((*one.high, *other.high))),
    )


def sample_size_factor(comparison: VersionComparison, expected: float) -> float:
    """Return the factor on the impressions at which the difference becomes significant.

    Assumes that the difference stays the same and that both versions get impressions in
    the same proportion. ``inf`` beyond ``MAX_FACTOR``, or without an interval. ``expected``
    is the monitor's setting ``expected_difference``.
    """
    interval = comparison.difference.interval
    if not comparison.has_interval:
        return inf
    half = (interval.high - interval.low) / 2
    variance = _largest_variance(half, expected)
    distance = abs(comparison.difference.value)
    times = variance / _largest_variance(distance, expected)
    return max(1.0, times) if times <= MAX_FACTOR else inf


def _largest_variance(half: float, expected: float) -> float:
    """Return the variance whose interval has half a width of ``half``, by bisection."""
    low, high = 1e-18, 1.0
    for _ in range(100):
        middle = (low * high) ** 0.5
        is_narrow = anytime_half_width(middle, expected) <= half
        low, high = (middle, high) if is_narrow else (low, middle)
    return low
