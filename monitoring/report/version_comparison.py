"""Differences against the serving version → the newer version against the older one.

In: the monitor's gauges, whose baseline is whichever serves: after a promotion that is the
new version, and the question is still whether it was a good one. Out: ``Contrast``; and how
much more must be seen to tell two versions apart.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from math import inf

from srp4ctr.monitoring.quality.ab_test import always_valid
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.report.report_contents import Contrast, Course, Estimate, Points

MOST_TIMES = 1000.0  # what needs more than so many times as much is as good as equal
_PARTS = (
    "click_rate_difference",
    "click_rate_difference_bound/low",
    "click_rate_difference_bound/high",
    "compared_impressions",
)
Pair = tuple[str, str]
"""A version and its baseline."""


def by_age(version: str) -> tuple[int, str]:
    """Return what versions are sorted by, the oldest first: ``v9`` is before ``v10``."""
    number = re.fullmatch(r"v(\d+)", version)
    return (int(number[1]) if number else -1, version)


def is_bundle(version: str) -> bool:
    """Tell whether ``version`` is one of ours, and not a control group's name."""
    return by_age(version)[0] >= 0


def contrasts(found: Mapping[Pair, Mapping[str, float]]) -> tuple[Contrast, ...]:
    """Return what was ``found`` of each pair, the newest version's first.

    By the names of the monitor's gauges, less their prefix.
    """
    made = [_contrast(pair, each) for pair, each in found.items() if {*_PARTS} <= {*each}]
    return tuple(sorted(made, key=_newness, reverse=True))


def _newness(contrast: Contrast) -> tuple[tuple[int, str], ...]:
    return by_age(contrast.version), by_age(contrast.reference)


def _contrast(pair: Pair, found: Mapping[str, float]) -> Contrast:
    difference, low, high, impressions = (found[each] for each in _PARTS)
    version, reference = pair
    if by_age(version) < by_age(reference):
        version, reference = reference, version
        difference, low, high = -difference, -high, -low
    return Contrast(
        version=version,
        reference=reference,
        difference=Estimate(value=difference, interval=Interval(low=low, high=high)),
        impressions=round(impressions),
        counted=pair[0],
    )


def newer_over_older(courses: Iterable[Course]) -> tuple[Course, ...]:
    """Return the lines of differences, one a pair, each of the newer less the older.

    Bounds of ±1 are left out: nothing is known there.
    """
    merged: dict[tuple[str, ...], Course] = {}
    for each in map(_oriented, courses):
        other = merged.get(each.versions)
        merged[each.versions] = _joined(other, each) if other else each
    return tuple(sorted(merged.values(), key=lambda e: [*map(by_age, e.versions)]))


def _oriented(course: Course) -> Course:
    version, baseline = course.versions
    points, low, high = course.points, course.low, course.high
    if by_age(version) < by_age(baseline):
        version, baseline = baseline, version
        points, low, high = _negated(points), _negated(high), _negated(low)
    return Course(
        versions=(version, baseline),
        points=points,
        low=tuple(each for each in low if each[1] > -1.0),
        high=tuple(each for each in high if each[1] < 1.0),
    )


def _negated(points: Points) -> Points:
    return tuple((at, -value) for at, value in points)


def _joined(one: Course, other: Course) -> Course:
    """Return both lines as one: before a promotion, and after it."""
    return Course(
        versions=one.versions,
        points=tuple(sorted((*one.points, *other.points))),
        low=tuple(sorted((*one.low, *other.low))),
        high=tuple(sorted((*one.high, *other.high))),
    )


def sample_size_factor(contrast: Contrast, expected: float) -> float:
    """Return how many times as many impressions would tell the two apart.

    If the difference stays as it is, and both get more in the same proportion. ``inf`` for
    over ``MOST_TIMES``, or where there is no interval yet. ``expected`` is the monitor's
    setting ``expected_difference``.
    """
    interval = contrast.difference.interval
    if not contrast.has_interval:
        return inf
    half = (interval.high - interval.low) / 2
    variance = _largest(lambda v: always_valid(v, expected) <= half, 1e-18, 1.0)
    distance = abs(contrast.difference.value)
    enough = _largest(lambda v: always_valid(v, expected) <= distance, 1e-18, 1.0)
    times = variance / enough
    return max(1.0, times) if times <= MOST_TIMES else inf


def _largest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest number between that ``holds``, which it does below as well."""
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
