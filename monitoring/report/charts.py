"""The contents of a report → its charts as SVG: over time, and the calibration curve.

Drawn with matplotlib in the page's colours; the same contents give the same bytes.
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

from srp4ctr.monitoring.report.headline import CALIBRATED
from srp4ctr.monitoring.report.number_format import MINUS, duration
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.report_contents import ChartLine, Contents, Points

DAY_S = 86_400  # matplotlib's dates are in days
GAP = 2.5  # median steps; a line breaks at a longer gap
# A colour #00000N of the SVG is the page's N-th, of which it has a light and a dark one.
COLOURS = ("", "c0", "c1", "c2", "c3", "c4", "c5", "soft", "faint", "band")


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines with their title, subtitle and axes."""

    title: str
    subtitle: str
    scale: float = 1.0
    shown: tuple[float, ...] = (0.0,)  # values that the axis includes in any case
    rule: float | None = None
    settles: bool = False  # noisy at first: the second half sets the axis
    lines: tuple[ChartLine, ...] = ()
    over: Period | None = None  # None: a curve, which is compared with the diagonal


def charts(contents: Contents) -> Iterator[Chart]:
    """Yield each chart that has data."""
    scope, covered = contents.scope, contents.scope.covered
    cost = f"{scope.currency} per million candidates"
    price = scope.price_per_core_hour / 3600
    if not isfinite(price):
        cost, price = "CPU seconds per million candidates", 1.0
    rates = f"% of impressions of the last {duration(scope.window_s)}, with 95 % bounds"
    points = "percentage points, newer minus older version, with 95 % confidence sequence"
    ratio = "sum of scores / clicks; 1 = calibrated, shaded from 0.9 to 1.1"
    curve = "% clicked by % predicted in ten score bins; diagonal: perfectly calibrated"
    table = {
        "difference": Chart("Difference of CTR at position 1", points, 100, (0,), 0, True),
        "top_click_rate": Chart("CTR at position 1", rates, 100, ()),
        "calibration": Chart("Calibration", ratio, 1, CALIBRATED, 1),
        "cpu_s_per_million": Chart("Cost", cost, price),
        "p99_s": Chart("Latency, 99th percentile", "ms, in the server", 1000),
        "requests": Chart("Traffic", "requests per second"),
        "curve": Chart("Calibration curve", curve, 100),
    }
    curves = tuple(
        ChartLine(versions=(each.version,), points=each.quality.curve)
        for each in contents.versions
    )
    for name, chart in table.items():
        lines = {**contents.lines, "curve": curves}.get(name, ())
        if drawn := tuple(each for each in lines if each.points):
            yield replace(chart, lines=drawn, over=covered if name != "curve" else None)


def draw(chart: Chart, name: str, styles: Mapping[str, str]) -> str:
    """Return the SVG to embed in a page; ``name`` makes its ids unique there."""
    with style.context(["default", f"{__package__}.charts", {"svg.hashsalt": name}]):
        figure, file = Figure(), io.StringIO()
        described = escape(f"{chart.subtitle}. {_draw(figure.subplots(), chart, styles)}")
        dateless = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=dateless)
    drawn = file.getvalue().partition("<svg")[2].partition(">")[2]
    drawn = re.sub('<g id="[^"]*"', "<g", drawn)  # other ids have the name in their hash
    drawn = re.sub(r"(?<=: )#00000(\d)", lambda n: f"var(--{COLOURS[int(n[1])]})", drawn)
    head = f'<svg viewBox="0 0 360 216" role="img" aria-labelledby="{name}-t {name}-d">'
    title = f'<title id="{name}-t">{escape(chart.title)}</title>'
    return f'{head}{title}<desc id="{name}-d">{described}</desc>{drawn}'


def _draw(axes: Axes, chart: Chart, styles: Mapping[str, str]) -> str:
    """Draw the chart; return the first and last value of each line, for screen readers."""
    axis_values, ends, described = [*chart.shown], [], []
    scales = np.array([[1 / DAY_S if chart.over else chart.scale], *[[chart.scale]] * 2])
    for line in chart.lines:
        name = f" {MINUS} ".join(line.versions)
        colour = f"#00000{int(styles.get(line.versions[0], 's0')[1]) + 1}"
        x, low, high = _common(GAP, line.low, line.high) * scales
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        half = len(x) // 2  # the first half of a band is wide: little data
        axis_values += [*low[half:], *high[half:]]
        x, y = _common(GAP if chart.over else np.inf, line.points) * scales[:2]
        gaps = np.pad(np.isnan(y), 1, constant_values=True)
        isolated = np.flatnonzero(gaps[:-2] & gaps[2:]).tolist() if chart.over else None
        axes.plot(x, y, "o-", color=colour, markevery=isolated)
        axis_values += [*y[len(y) // 2 * chart.settles :], *([] if chart.over else x)]
        ends.append((y[-1], name if len(name) <= 16 else f"{name[:15]}…", colour))
        described.append(f"{name}: from {y[0]:.4g} to {y[-1]:.4g}")
    low, high = _set_axes(axes, chart, np.nanmin(axis_values), np.nanmax(axis_values))
    place, step, at = low, (high - low) / 12, axes.get_yaxis_transform()
    for above, (y, name, colour) in reversed([*enumerate(sorted(ends, reverse=True))]):
        place = max(place, min(y, high - above * step))
        axes.text(1.02, place, name, color=colour, weight="bold", va="center", transform=at)
        place += step
    return "; ".join(described)


def _set_axes(axes: Axes, chart: Chart, low: float, high: float) -> tuple[float, float]:
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a level line: in the middle
        low, high = low - abs(low) / 10, high + (abs(high) / 10 or 1.0)
    ticks = ticker.MaxNLocator(4, steps=(1, 2, 5, 10)).tick_values(low, high)
    axes.set(yticks=ticks, ylim=(ticks[0], ticks[-1]))
    if chart.shown == CALIBRATED:
        axes.axhspan(*CALIBRATED, color="#000009", alpha=0.1, linewidth=0)
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


def _common(gap: float, *series: Points) -> np.ndarray:
    """Return the x that all ``series`` share and their values, NaN where a gap begins."""
    at = sorted(set.intersection(*({x for x, _ in each} for each in series)))
    steps = np.diff(at)
    gaps = [n for n, step in enumerate(steps, 1) if step > gap * np.median(steps)]
    values = ([dict(each)[x] for x in at] for each in series)
    return np.insert([at, *values], gaps, np.nan, axis=1)
