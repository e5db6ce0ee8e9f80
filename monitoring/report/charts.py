"""The contents of a report → its charts as SVG: over time, and the calibration curve.

matplotlib draws them, in the page's colours. The same contents give the same bytes.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from math import isfinite

import numpy as np
from matplotlib import dates, style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srp4ctr.monitoring.report.number_format import MINUS, duration
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.report_contents import Contents, Course, Points
from srp4ctr.monitoring.report.verdict import HONEST

DAY_S = 86_400  # matplotlib counts days
GAP = 2.5  # steps between two points: a longer time is not bridged
# A colour #00000N of the SVG is the page's N-th, of which it has a light and a dark one.
COLOURS = ("", "c0", "c1", "c2", "c3", "c4", "c5", "soft", "faint", "band")


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, and what is said of it."""

    title: str
    subtitle: str
    scale: float = 1.0
    shown: tuple[float, ...] = (0.0,)  # on the axis, whatever the lines
    rule: float | None = None
    settles: bool = False  # it begins with little data: the axis is for its second half
    courses: tuple[Course, ...] = ()
    over: Period | None = None  # None: a curve, which is compared with the diagonal


def charts(contents: Contents) -> Iterator[Chart]:
    """Yield every chart that has anything to show."""
    grounds, heard = contents.grounds, contents.grounds.heard
    cost = f"{grounds.currency} for a million candidates"
    price = grounds.price_per_core_hour / 3600
    if not isfinite(price):
        cost, price = "CPU seconds for a million", 1.0
    rates = f"% of impressions of the last {duration(grounds.window_s)}, with 95 % bounds"
    points = "percentage points, newer less older version, with its interval"
    ratio = "scores over clicks; from 0.9 to 1.1 is good"
    curve = "% clicked by % predicted, in ten bins of scores; the diagonal is calibrated"
    table = {
        "difference": Chart("Difference of CTR at position 1", points, 100, (0,), 0, True),
        "top_click_rate": Chart("CTR at position 1", rates, 100, ()),
        "calibration": Chart("Calibration", ratio, 1, HONEST, 1),
        "cpu_s_per_million": Chart("Cost", cost, price),
        "p99_s": Chart("Latency, 99th percentile", "ms, in the server", 1000),
        "requests": Chart("Traffic", "requests per second"),
        "curve": Chart("Calibration curve", curve, 100),
    }
    found = tuple(
        Course(versions=(each.version,), points=each.quality.curve)
        for each in contents.versions
    )
    for name, chart in table.items():
        courses = {**contents.courses, "curve": found}.get(name, ())
        if drawn := tuple(each for each in courses if each.points):
            yield replace(chart, courses=drawn, over=heard if name != "curve" else None)


def draw(chart: Chart, name: str, styles: Mapping[str, str]) -> str:
    """Return the SVG, to stand in a page; ``name`` is its own there."""
    with style.context(["default", f"{__package__}.charts", {"svg.hashsalt": name}]):
        figure, file = Figure(), io.StringIO()
        said = escape(f"{chart.subtitle}. {_draw(figure.subplots(), chart, styles)}")
        dateless = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=dateless)
    drawn = file.getvalue().partition("<svg")[2].partition(">")[2]
    drawn = re.sub('<g id="[^"]*"', "<g", drawn)  # other ids have the name in their hash
    drawn = re.sub(r"(?<=: )#00000(\d)", lambda n: f"var(--{COLOURS[int(n[1])]})", drawn)
    head = f'<svg viewBox="0 0 360 216" role="img" aria-labelledby="{name}-t {name}-d">'
    title = f'<title id="{name}-t">{escape(chart.title)}</title>'
    return f'{head}{title}<desc id="{name}-d">{said}</desc>{drawn}'


def _draw(axes: Axes, chart: Chart, styles: Mapping[str, str]) -> str:
    """Return where each line begins and ends, for a screen reader."""
    held, ends, said = [*chart.shown], [], []
    scales = np.array([[1 / DAY_S if chart.over else chart.scale], *[[chart.scale]] * 2])
    for course in chart.courses:
        name = f" {MINUS} ".join(course.versions)
        colour = f"#00000{int(styles.get(course.versions[0], 's0')[1]) + 1}"
        x, low, high = _table(GAP, course.low, course.high) * scales
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        half = len(x) // 2  # a band is wide while there is little data
        held += [*low[half:], *high[half:]]
        x, y = _table(GAP if chart.over else np.inf, course.points) * scales[:2]
        gaps = np.pad(np.isnan(y), 1, constant_values=True)
        alone = np.flatnonzero(gaps[:-2] & gaps[2:]).tolist() if chart.over else None
        axes.plot(x, y, "o-", color=colour, markevery=alone)
        held += [*y[len(y) // 2 * chart.settles :], *([] if chart.over else x)]
        ends.append((y[-1], name if len(name) <= 16 else f"{name[:15]}…", colour))
        said.append(f"{name}: from {y[0]:.4g} to {y[-1]:.4g}")
    low, high = _set_axes(axes, chart, np.nanmin(held), np.nanmax(held))
    place, step, at = low, (high - low) / 12, axes.get_yaxis_transform()
    for above, (y, name, colour) in reversed([*enumerate(sorted(ends, reverse=True))]):
        place = max(place, min(y, high - above * step))
        axes.text(1.02, place, name, color=colour, weight="bold", va="center", transform=at)
        place += step
    return "; ".join(said)


def _set_axes(axes: Axes, chart: Chart, low: float, high: float) -> tuple[float, float]:
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a level line: in the middle
        low, high = low - abs(low) / 10, high + (abs(high) / 10 or 1.0)
    ticks = ticker.MaxNLocator(4, steps=(1, 2, 5, 10)).tick_values(low, high)
    axes.set(yticks=ticks, ylim=(ticks[0], ticks[-1]))
    if chart.shown == HONEST:
        axes.axhspan(*HONEST, color="#000009", alpha=0.1, linewidth=0)
    if chart.rule is not None:
        axes.axhline(chart.rule, color="#000007", linestyle="--", linewidth=1)
    if chart.over:
        start_s, length_s = chart.over.start_s, max(chart.over.length_s, 300)
        axes.set_xlim(start_s / DAY_S, (start_s + length_s) / DAY_S)
        locator = dates.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(_clock)
    else:
        axes.set(xticks=ticks, xlim=(ticks[0], ticks[-1]))
        axes.axline((0, 0), slope=1, color="#000007", linestyle="--", linewidth=1)
    return ticks[0], ticks[-1]


def _clock(day: float, _: object) -> str:
    at = datetime.fromtimestamp(round(day * DAY_S), UTC)
    return f"{at:%H:%M}" if day % 1 else f"{at.day} {at:%b}"


def _table(gap: float, *lines: Points) -> np.ndarray:
    """Return the places of all ``lines`` and the values there, NaN where a gap begins."""
    at = sorted(set.intersection(*({x for x, _ in line} for line in lines)))
    steps = np.diff(at)
    gaps = [n for n, step in enumerate(steps, 1) if step > gap * np.median(steps)]
    values = ([dict(line)[x] for x in at] for line in lines)
    return np.insert([at, *values], gaps, np.nan, axis=1)
