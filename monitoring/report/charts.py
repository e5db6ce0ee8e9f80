"""The contents of a report → its charts: over time, and the calibration curve."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite

from srp4ctr.monitoring.report import amounts
from srp4ctr.monitoring.report.axes import Axis, time_axis, value_axis
from srp4ctr.monitoring.report.contents import Contents, Course, Points
from srp4ctr.monitoring.report.contrast import by_age
from srp4ctr.monitoring.report.line_chart import Chart, Line
from srp4ctr.monitoring.report.verdict import HONEST

NUM_STYLES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How a course is drawn."""

    title: str
    subtitle: str
    scale: float = 1.0
    suffix: str = ""
    from_zero: bool = False
    settles: bool = False
    """It begins with little to go by: the axis is for its second half."""
    good: tuple[float, float] | None = None
    rule: float | None = None


def styles(contents: Contents) -> dict[str, str]:
    """Return the class of each version's colour: its last digit's, if that is free.

    So v3 looks alike in a report of yesterday, of today, and on the dashboards.
    """
    found: dict[str, str] = {}
    free = list(range(NUM_STYLES))
    for each in contents.versions:
        number = by_age(each.version)[0]
        wanted = (number - 1) % 5 if number > 0 else 0
        place = wanted if wanted in free else free[0]
        free.remove(place)
        found[each.version] = f"s{place}"
    return found


def charts(contents: Contents) -> Iterator[Chart]:
    """Yield every chart that has anything to show."""
    style, heard = styles(contents), contents.grounds.heard
    over = time_axis(heard.start_s, heard.end_s)
    for name, kind in _kinds(contents).items():
        if courses := contents.courses.get(name):
            yield _over_time(kind, courses, over, style)
    if any(each.quality.curve for each in contents.versions):
        yield _curve(contents, style)


def _kinds(contents: Contents) -> dict[str, _Kind]:
    grounds = contents.grounds
    last = f"each point the last {amounts.duration(grounds.window_s)}"
    price = grounds.price_per_core_hour
    money = f"{grounds.currency} for a million candidates"
    cost = (money, price / 3600) if isfinite(price) else ("CPU seconds for a million", 1.0)
    return {
        "difference": _Kind(
            title="Difference of CTR at position 1",
            subtitle="percentage points, newer less older version, with its interval",
            scale=100.0,
            settles=True,
            rule=0.0,
        ),
        "top_click_rate": _Kind(
            title="CTR at position 1",
            subtitle=f"% of impressions, {last}, with 95 % bounds",
            scale=100.0,
        ),
        "calibration": _Kind(
            title="Calibration",
            subtitle="scores over clicks; from 0.9 to 1.1 is good",
            good=HONEST,
            rule=1.0,
        ),
        "cpu_s_per_million": _Kind(
            title="Cost", subtitle=cost[0], scale=cost[1], from_zero=True
        ),
        "p99_s": _Kind(
            title="Answer time, 99th percentile",
            subtitle="ms, in the server",
            scale=1000.0,
            from_zero=True,
        ),
        "requests": _Kind(title="Traffic", subtitle="requests a second", from_zero=True),
    }


def _over_time(
    kind: _Kind, courses: tuple[Course, ...], over: Axis, style: Mapping[str, str]
) -> Chart:
    lines = tuple(
        Line(
            name=f" {amounts.MINUS} ".join(each.versions),
            style=style.get(each.versions[0], "s0"),
            points=_scaled(each.points, kind.scale),
            low=_scaled(each.low, kind.scale),
            high=_scaled(each.high, kind.scale),
        )
        for each in sorted(courses, key=lambda each: by_age(each.versions[0]))
    )
    return Chart(
        title=kind.title,
        subtitle=kind.subtitle,
        x=over,
        y=value_axis(_range(kind, lines), suffix=kind.suffix),
        lines=lines,
        good=kind.good,
        rule=kind.rule,
    )


def _scaled(points: Points, scale: float) -> Points:
    return tuple((at, scale * value) for at, value in points)


def _range(kind: _Kind, lines: tuple[Line, ...]) -> Iterator[float]:
    """Yield the values that the axis must hold."""
    for line in lines:
        yield from _values(line.points, second_half=kind.settles)
        for bounds in (line.low, line.high):  # wide while there is little to go by
            yield from _values(bounds, second_half=True)
    yield from kind.good or ()
    yield from (each for each in (kind.rule,) if each is not None)
    if kind.from_zero:
        yield 0.0


def _values(points: Points, *, second_half: bool) -> Iterator[float]:
    first = len(points) // 2 if second_half else 0
    return (value for _, value in points[first:])


def _curve(contents: Contents, style: Mapping[str, str]) -> Chart:
    lines = tuple(
        Line(
            name=each.version,
            style=style[each.version],
            points=_both_scaled(each.quality.curve),
        )
        for each in contents.versions
        if each.quality.curve
    )
    both = value_axis(chain((0.0,), *(chain(*line.points) for line in lines)))
    return Chart(
        title="Calibration curve",
        subtitle="% clicked by % promised, in ten bins of scores; honest is on the line",
        x=both,
        y=both,
        lines=lines,
        is_curve=True,
    )


def _both_scaled(curve: Points) -> Points:
    return tuple((100 * score, 100 * rate) for score, rate in curve)
