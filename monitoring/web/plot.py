"""Axes, shapes and readings → a plot: an SVG that stretches, and its texts as HTML.

The SVG has 1,000 units in both directions and is as large as its panel; its lines keep
their widths. Texts are HTML, because the SVG would stretch them as well. A pointer on the
plot shows the values of its moment; this needs no script, so a saved file has it too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise

from srp4ctr.monitoring.web import units
from srp4ctr.monitoring.web.fields import Field
from srp4ctr.monitoring.web.markup import Markup, element, joined
from srp4ctr.monitoring.web.period import Period

SIZE = 1000
MAX_READINGS = 48
DAY_S = 86_400
# A line that varies by less is level: 19.698 and 19.700 ms are the same.
_LEVEL = 1e-3
_WIDE = 4  # times what most bounds span


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Values from ``low`` to ``high``, and the texts of some of them."""

    low: float
    high: float
    ticks: Sequence[float]
    texts: Sequence[str]

    def place(self, value: float) -> float:
        """Return where ``value`` is, in the SVG's units from ``low``."""
        return SIZE * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a pointer at ``x`` shows: a line per value."""

    x: float
    text: str


def plot(
    x: Axis, y: Axis, shapes: Markup, readings: Sequence[Reading], about: str
) -> Markup:
    """Return the plot; ``about`` says in words what it shows."""
    grid = "".join(f"M0 {_up(y, value)}H{SIZE}" for value in y.ticks)
    drawing = element(
        "svg",
        element("path", d=grid, class_="grid-lines"),
        shapes,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return element(
        "div",
        element(
            "div",
            element("span", max(y.texts, key=len), class_="widest"),
            (
                _label(t, "bottom", y.place(v))
                for v, t in zip(y.ticks, y.texts, strict=True)
            ),
            class_="y-axis",
        ),
        element("div", drawing, _readings(x, readings), class_="area"),
        element(
            "div",
            (_label(t, "left", x.place(v)) for v, t in zip(x.ticks, x.texts, strict=True)),
            class_="x-axis",
        ),
        class_="plot",
        role="img",
        aria_label=about,
    )


def path(
    x: Axis, y: Axis, points: Iterable[tuple[float, float | None]], **attributes: object
) -> Markup:
    """Return a line through ``points``; it breaks at None, a lone point is a dot."""
    runs: list[list[str]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{x.place(at):.4g} {_up(y, value)}")
    lines = "".join(f"M{'L'.join(run)}" for run in runs if len(run) > 1)
    dots = "".join(f"M{run[0]}h0" for run in runs if len(run) == 1)
    return joined(
        element("path", d=lines, **attributes) if lines else None,
        element("path", d=dots, **{**attributes, "class_": "dots"}) if dots else None,
    )


def level(y: Axis, value: float) -> Markup | None:
    """Return a dashed line at ``value``, if it is on the axis."""
    if not y.low <= value <= y.high:
        return None
    return element("path", d=f"M0 {_up(y, value)}H{SIZE}", class_="threshold")


def clock(at_s: float, zone: tzinfo | None, length_s: float = 3600) -> str:
    """Return the time of day; with the day or the seconds, as a period's length needs."""
    at = datetime.fromtimestamp(at_s, UTC).astimezone(zone)
    if length_s > DAY_S:
        return f"{at.day} {at:%b %H:%M}"
    return f"{at:%H:%M:%S}" if length_s <= 300 else f"{at:%H:%M}"


def time_axis(period: Period, zone: tzinfo | None, count: int = 4) -> Axis:
    """Return the axis of ``period``, with ticks at round times of ``zone`` (None: here)."""
    step_s = units.clock_step_s(period.length_s / count)
    start = datetime.fromtimestamp(period.start_s, UTC).astimezone(zone)
    offset = start.utcoffset()
    shift_s = offset.total_seconds() if offset else 0.0
    first = math.ceil((period.start_s + shift_s) / step_s)
    last = math.floor((period.end_s + shift_s) / step_s)
    ticks = [place * step_s - shift_s for place in range(first, last + 1)]
    return Axis(
        low=period.start_s,
        high=period.end_s,
        ticks=ticks,
        texts=[_tick(at_s, zone, step_s) for at_s in ticks],
    )


def value_axis(values: Iterable[float], field: Field, count: int = 4) -> Axis:
    """Return an axis with a margin around ``values``, and with 0 if that is near."""
    shown = list(values)
    low, high = _limits(shown, field)
    ticks = units.ticks(low, high, count, field.unit)
    return Axis(low=low, high=high, ticks=ticks, texts=field.tick_texts(ticks))


def without_outliers(bounds: Sequence[float]) -> Sequence[float]:
    """Return ``bounds`` without the few that would flatten the lines.

    The interval of two clicks is such a one.
    """
    ordered = sorted(bounds)
    few = math.ceil(len(ordered) / 20)
    most = ordered[few : len(ordered) - few]
    is_wide = most and ordered[-1] - ordered[0] > _WIDE * (most[-1] - most[0])
    return most if is_wide else ordered


def every(count: int, most: int = MAX_READINGS) -> range:
    """Return the places of at most ``most`` of ``count`` points, the last one included."""
    step = max(1, math.ceil(count / most))
    return range((count - 1) % step, count, step)


def _limits(shown: Sequence[float], field: Field) -> tuple[float, float]:
    low = field.low if field.low is not None else min(shown)
    high = field.high if field.high is not None else max(shown)
    if field.low is None and (units.is_rate(field.unit) or 0 < low < 0.6 * high):
        low = min(low, 0.0)
    span = high - low if high - low > _LEVEL * abs(high) else 0.0
    margin = 0.08 * span or 0.1 * abs(high) or 0.5
    if field.low is None and low != 0:
        low -= margin
    # A line at the limit is to be seen.
    return low, high + (margin if field.high is None else margin / 4)


def _readings(x: Axis, readings: Sequence[Reading]) -> Markup:
    """Return a column for each reading, which reaches halfway to its neighbours."""
    places = [x.place(reading.x) * 100 / SIZE for reading in readings]
    halfway = [(before + after) / 2 for before, after in pairwise(places)]
    borders = [0.0, *halfway, 100.0] if places else []
    columns = []
    for reading, place, (left, right) in zip(
        readings, places, pairwise(borders), strict=True
    ):
        at = 100 * (place - left) / (right - left)
        columns.append(
            element(
                "span",
                element("b", reading.text),
                class_="late" if place > 50 else None,
                style=f"left:{left:.4g}%;width:{right - left:.4g}%;--at:{at:.4g}%",
            )
        )
    return element("div", *columns, class_="readings", aria_hidden="true")


def _label(text: str, side: str, place: float) -> Markup:
    return element("span", text, style=f"{side}:{place * 100 / SIZE:.4g}%")


def _tick(at_s: float, zone: tzinfo | None, step_s: float) -> str:
    at = datetime.fromtimestamp(at_s, UTC).astimezone(zone)
    if step_s >= DAY_S or (step_s >= DAY_S / 4 and at.hour == 0):
        return f"{at.day} {at:%b}"
    return f"{at:%H:%M:%S}" if step_s < 60 else f"{at:%H:%M}"


def _up(y: Axis, value: float) -> str:
    """Return the SVG's y of ``value``: its y points down."""
    return f"{SIZE - y.place(value):.4g}"
