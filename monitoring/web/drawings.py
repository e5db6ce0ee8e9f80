"""A dashboard's panel and Prometheus's answers → what the panel shows, as HTML."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from srp4ctr.monitoring.web.answers import Answers, Line, Row
from srp4ctr.monitoring.web.fields import Field, field_of
from srp4ctr.monitoring.web.markup import Markup, element, joined
from srp4ctr.monitoring.web.plot import (
    SIZE,
    Axis,
    Reading,
    clock,
    every,
    level,
    path,
    plot,
    time_axis,
    value_axis,
    without_outliers,
)

Panel = Mapping[str, Any]
MAX_LINES = 40  # more lines are hard to distinguish
MAX_ROWS = 200
MAX_COLUMNS = 60  # of a heatmap
# The nearest threshold is shown if that stretches the axis by no more.
MAX_STRETCH = 2.5
# Lines without a colour of their own. Versions have one: these are read from the end there.
PALETTE = tuple(f"var(--line-{place})" for place in range(1, 9))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What panels are drawn from, and how their values are written."""

    answers: Answers
    currency: str
    zone: tzinfo | None
    """Of times; None is this machine's."""

    def field(self, panel: Panel, name: str) -> Field:
        """Return how ``panel`` shows the values of ``name``."""
        return field_of(panel, name, self.currency)

    @property
    def time_axis(self) -> Axis:
        """The axis of the period."""
        return time_axis(self.answers.period, self.zone)

    def clock(self, at_s: float) -> str:
        """Return a moment of the period."""
        return clock(at_s, self.zone, self.answers.period.length_s)


def draw(panel: Panel, view: View) -> Markup | None:
    """Return what ``panel`` shows; None if it has no data."""
    return DRAWINGS[panel["type"]](panel, view)


def figures(panel: Panel, view: View) -> Markup | None:
    """Return one figure or a few, each with a faint line of its past values."""
    lines = [line for line in view.answers.lines(panel) if line.known]
    if not lines:
        return None
    return element("div", (_figure(panel, line, view) for line in lines), class_="stats")


def _figure(panel: Panel, line: Line, view: View) -> Markup:
    field, options = view.field(panel, line.name), panel.get("options", {})
    mode, colour = options.get("textMode", "value"), field.colour(line.known[-1])
    text = line.name if mode == "name" else field.text(line.known[-1])
    is_filled = options.get("colorMode") == "background"
    return element(
        "div",
        element("span", line.name, class_="stat-name") if "and_name" in mode else None,
        element("span", text, class_="stat-value long" if len(text) > 12 else "stat-value"),
        _spark(line),
        class_="stat filled" if is_filled else "stat",
        style=f"--colour:{colour}" if colour else None,
    )


def _spark(line: Line) -> Markup | None:
    if len(line.values) < 3:
        return None
    low, high = min(line.known), max(line.known)
    x = Axis(low=0, high=len(line.values) - 1, ticks=(), texts=())
    y = Axis(low=low, high=high if high > low else low + 1, ticks=(), texts=())
    return element(
        "svg",
        path(x, y, enumerate(line.values)),
        class_="spark",
        viewBox="0 -40 1000 1080",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A line, how its values are written, and its colour."""

    line: Line
    field: Field
    colour: str

    @property
    def last(self) -> str:
        """Its last value."""
        return self.field.text(self.line.known[-1])


def lines_over_time(panel: Panel, view: View) -> Markup | None:
    """Return lines with their bounds and thresholds, and a legend with the last values."""
    lines = [line for line in view.answers.lines(panel) if line.known]
    if not lines:
        return None
    fields = [view.field(panel, line.name) for line in lines[:MAX_LINES]]
    drawn = [
        _Drawn(line=line, field=field, colour=colour)
        for line, field, colour in zip(lines, fields, line_colours(fields), strict=False)
    ]
    limits = fields[0] if "custom.thresholdsStyle" in fields[0].config else None
    x, y = view.time_axis, value_axis(_axis_values(drawn, limits), fields[0])
    shapes = joined(
        (level(y, step["value"]) for step in limits.steps[1:]) if limits else None,
        (_path(x, y, each) for each in drawn),
    )
    named = [each for each in drawn if not each.line.bound]
    values = [f"{each.line.name} {each.last}" for each in named[:6]]
    legend = [_legend_entry(each, _bounds(each, drawn)) for each in named]
    if len(lines) > MAX_LINES:
        legend.append(element("li", f"and {len(lines) - MAX_LINES} more"))
    about = f"{panel['title']}: {'; '.join(values)}"
    return joined(
        plot(x, y, shapes, _readings(named, view), about),
        element("ul", legend, class_="legend", aria_label="Legend"),
    )


def _path(x: Axis, y: Axis, drawn: _Drawn) -> Markup:
    line, kind = drawn.line, "line"
    if line.bound:
        kind = "line bound"
    elif drawn.field.is_dashed:
        kind = "line dashed"
    points = zip(line.times_s, line.values, strict=True)
    return path(x, y, points, class_=kind, style=f"stroke:{drawn.colour}")


def line_colours(fields: Sequence[Field]) -> list[str]:
    """Return each line's colour: its own, else the next of the palette."""
    fixed = [field.fixed_colour for field in fields]
    palette = PALETTE[::-1] if any(fixed) else PALETTE
    free = [place for place, colour in enumerate(fixed) if colour is None]
    return [
        colour or palette[free.index(place) % len(palette)]
        for place, colour in enumerate(fixed)
    ]


def _axis_values(drawn: Sequence[_Drawn], limits: Field | None) -> list[float]:
    lines = [each.line for each in drawn]
    values = [value for line in lines if not line.bound for value in line.known]
    bounds = [value for line in lines if line.bound for value in line.known]
    values += without_outliers(bounds)
    return [*values, *_nearest_thresholds(values, limits)] if limits else values


def _nearest_thresholds(values: Sequence[float], field: Field) -> list[float]:
    """Return the nearest threshold on either side, unless it would flatten the lines."""
    low, high = min(values), max(values)
    steps = [step["value"] for step in field.steps[1:]]
    above = [value for value in steps if high <= value <= MAX_STRETCH * high]
    below = [value for value in steps if low / MAX_STRETCH <= value <= low]
    return [*above[:1], *below[-1:]]


def _bounds(drawn: _Drawn, others: Iterable[_Drawn]) -> dict[str, _Drawn]:
    """Return the bounds of ``drawn``: they have its labels, and one more."""

    def key(of: _Drawn) -> frozenset[tuple[str, str]]:
        skipped = ("bound", "__name__")
        return frozenset((k, v) for k, v in of.line.labels.items() if k not in skipped)

    bounds = (each for each in others if each.line.bound and key(each) == key(drawn))
    return {bound.line.bound: bound for bound in bounds}


def _legend_entry(drawn: _Drawn, bounds: Mapping[str, _Drawn]) -> Markup:
    line, field = drawn.line, drawn.field
    is_judged = "custom.thresholdsStyle" in field.config
    judged = field.threshold_colour(line.known[-1]) if is_judged else None
    swatch = "swatch dashed" if field.is_dashed else "swatch"
    interval = None
    if bounds.keys() == {"low", "high"}:
        interval = element("span", f"({bounds['low'].last} to {bounds['high'].last})")
    return element(
        "li",
        element("span", class_=swatch, style=f"--colour:{drawn.colour}"),
        element("span", line.name),
        element("b", drawn.last, style=f"color:{judged}" if judged else None),
        interval,
    )


def _readings(drawn: Sequence[_Drawn], view: View) -> list[Reading]:
    """Return the values at some moments."""
    times_s = drawn[0].line.times_s if drawn else ()  # all lines have the same
    found = []
    for place in every(len(times_s)):
        texts = [view.clock(times_s[place])]
        for each in drawn:
            if (value := each.line.values[place]) is not None:
                texts.append(f"{each.line.name} {each.field.text(value)}".strip())
        if len(texts) > 1:
            found.append(Reading(x=times_s[place], text="\n".join(texts)))
    return found


def heatmap(panel: Panel, view: View) -> Markup | None:
    """Return a histogram's buckets over time: the darker, the more observations."""
    buckets = sorted(view.answers.lines(panel), key=lambda line: float(line.labels["le"]))
    field = Field(config={"unit": panel["options"]["yAxis"]["unit"]})
    rows = _bucket_counts(buckets)
    filled = [place for place, counts in enumerate(rows) if any(counts)]
    if not filled:
        return None
    shown = slice(filled[0], filled[-1] + 1)
    texts = [_bucket_text(buckets, place, field) for place in range(len(buckets))][shown]
    labelled = range(0, len(texts), max(1, len(texts) // 6))
    y = Axis(
        low=0,
        high=len(texts),
        ticks=[place + 0.5 for place in labelled],
        texts=[texts[place] for place in labelled],
    )
    cells = element("g", _cells(rows[shown]), class_="cells")
    about = f"{panel['title']}: counts by bucket over time"
    return plot(view.time_axis, y, cells, [], about)


def _cells(rows: Sequence[Sequence[float]]) -> Iterator[Markup]:
    """Yield a rectangle for each bucket with observations, of some moments each."""
    columns = every(len(rows[0]), MAX_COLUMNS)
    width, height = SIZE / len(columns), SIZE / len(rows)
    sums = [
        [sum(row[max(0, c - columns.step + 1) : c + 1]) for c in columns] for row in rows
    ]
    most = max(map(max, sums))
    for row, counts in enumerate(sums):
        for column, count in enumerate(counts):
            if count:
                yield element(
                    "rect",
                    x=f"{column * width:.4g}",
                    y=f"{SIZE - (row + 1) * height:.4g}",
                    width=f"{width + 0.5:.4g}",
                    height=f"{height:.4g}",
                    style=f"opacity:{0.15 + 0.85 * count / most:.2f}",
                )


def _bucket_counts(buckets: Sequence[Line]) -> list[list[float]]:
    """Return each bucket's counts over time, from the cumulative ones."""
    below = [0.0] * (len(buckets[0].values) if buckets else 0)
    found = []
    for bucket in buckets:
        counts = [value or 0.0 for value in bucket.values]
        pairs = zip(counts, below, strict=True)
        found.append([max(0.0, count - less) for count, less in pairs])
        below = counts
    return found


def _bucket_text(buckets: Sequence[Line], place: int, field: Field) -> str:
    bound = float(buckets[place].labels["le"])
    if bound == float("inf"):
        return f"> {field.text(float(buckets[place - 1].labels['le']))}"
    return f"≤ {field.text(bound)}"


def curves(panel: Panel, view: View) -> Markup | None:
    """Return columns of a table, drawn against another column."""
    _, rows = view.answers.rows(panel)
    drawn = []
    for series in panel["options"]["series"]:
        x_name, y_name = (series[axis]["matcher"]["options"] for axis in "xy")
        pairs = ((row.get(x_name), row.get(y_name)) for row in rows)
        points = sorted(
            (x, y) for x, y in pairs if isinstance(x, float) and isinstance(y, float)
        )
        if points:
            drawn.append((x_name, series["name"]["fixed"], points))
    if not drawn:
        return None
    fields = [view.field(panel, name) for _, name, _ in drawn]
    colours = line_colours(fields)
    x = value_axis((x for *_, points in drawn for x, _ in points), fields[0])
    y = value_axis((y for *_, points in drawn for _, y in points), fields[0])
    shapes = joined(
        path(x, y, points, class_="line", style=f"stroke:{colour}")
        for (*_, points), colour in zip(drawn, colours, strict=True)
    )
    readings = [
        Reading(x=across, text=_row_text(row, fields[0]))
        for row in rows
        if isinstance(across := row.get(drawn[0][0]), float)
    ]
    names = [name for _, name, _ in drawn]
    legend = [
        element("li", element("span", class_="swatch", style=f"--colour:{colour}"), name)
        for name, colour in zip(names, colours, strict=True)
    ]
    about = f"{panel['title']}: {', '.join(names)} by {drawn[0][0]}"
    return joined(
        plot(x, y, shapes, readings, about),
        element("ul", legend, class_="legend", aria_label="Legend"),
    )


def _row_text(row: Row, field: Field) -> str:
    values = {name: value for name, value in row.items() if isinstance(value, float)}
    return "\n".join(f"{name} {field.text(value)}" for name, value in values.items())


def bars(panel: Panel, view: View) -> Markup | None:
    """Return figures as horizontal bars, scaled to the largest or to the maximum."""
    lines = [line for line in view.answers.lines(panel) if line.known]
    if not lines:
        return None
    fields = [view.field(panel, line.name) for line in lines]
    values = [line.known[-1] for line in lines]
    full = fields[0].high or max(*values, 0.0) or 1.0
    rows = [
        element(
            "li",
            element("span", line.name, class_="bar-name"),
            element(
                "span",
                element(
                    "span",
                    class_="bar-fill",
                    style=f"--share:{100 * min(1, max(0, value / full)):.4g}%;"
                    f"--colour:{field.colour(value) or PALETTE[0]}",
                ),
                class_="bar-track",
            ),
            element("span", field.text(value), class_="bar-value"),
        )
        for line, field, value in zip(lines, fields, values, strict=True)
    ]
    return element("ul", rows, class_="bars", data_kept="bars")


def timeline(panel: Panel, view: View) -> Markup | None:
    """Return the states of each series: a row per series, a stretch per state."""
    lines = [line for line in view.answers.lines(panel) if line.known]
    if not lines:
        return None
    x = view.time_axis
    rows = [
        element(
            "li",
            element("span", line.name, class_="bar-name"),
            _states(line, view.field(panel, line.name), view),
        )
        for line in lines
    ]
    ticks = [
        element("span", view.clock(at_s)) for at_s in (x.low, (x.low + x.high) / 2, x.high)
    ]
    axis = element("li", ticks, class_="time-axis", aria_hidden="true")
    return element("ul", rows, axis, class_="timeline", data_kept="timeline")


def _states(line: Line, field: Field, view: View) -> Markup:
    newest = line.values[-1]
    stretches = []
    for begin_s, end_s, value in states(line, view.answers.period.step_s):
        text, x = field.text(value), view.time_axis
        left = max(0.0, x.place(begin_s) / 10)
        about = f"{text}: {view.clock(begin_s)} to {view.clock(end_s)}"
        width = x.place(end_s) / 10 - left
        colour = field.colour(value) or "var(--muted)"
        style = f"--from:{left:.4g}%;--long:{width:.4g}%;--colour:{colour}"
        shown = element("span", text)
        stretches.append(element("span", shown, class_="state", title=about, style=style))
    now = "nothing now" if newest is None else f"now {field.text(newest)}"
    return element("span", stretches, class_="states", role="img", aria_label=now)


def states(line: Line, step_s: float) -> list[tuple[float, float, float]]:
    """Return begin, end and value of each stretch of equal values.

    A point is about the step before it. An unknown value ends a stretch.
    """
    found: list[tuple[float, float, float]] = []
    for at_s, value in zip(line.times_s, line.values, strict=True):
        if value is None:
            continue
        begin_s = at_s - step_s
        if found and found[-1][1:] == (begin_s, value):
            found[-1] = (found[-1][0], at_s, value)
        else:
            found.append((begin_s, at_s, value))
    return found


def table(panel: Panel, view: View) -> Markup | None:
    """Return rows and columns; on a phone each row is a card."""
    columns, rows = view.answers.rows(panel)
    if not rows:
        return None
    order = panel["options"]["sortBy"][0]
    rows.sort(key=lambda row: natural(row.get(order["displayName"])), reverse=order["desc"])
    head = element("tr", (element("th", name, scope="col") for name in columns))
    body = (
        element("tr", (_cell(panel, name, row.get(name), view) for name in columns))
        for row in rows[:MAX_ROWS]
    )
    content = element("table", element("thead", head), element("tbody", body))
    return element("div", content, class_="table-wrap", data_kept="table")


def _cell(panel: Panel, name: str, value: float | str | None, view: View) -> Markup:
    field = view.field(panel, name)
    is_coloured = "custom.cellOptions" in field.config
    colour = field.colour(value) if is_coloured and isinstance(value, float) else None
    return element(
        "td",
        element("span", field.text(value), class_="mark" if colour else None),
        data_label=name,
        style=f"--colour:{colour}" if colour else None,
    )


def natural(value: float | str | None) -> list[tuple[int, float, str]]:
    """Return a sort key: numbers in texts are compared as numbers, v9 before v10."""
    parts = re.findall(r"\d+|\D+", "" if value is None else str(value))
    return [(0, float(p), "") if p.isdigit() else (1, 0.0, p) for p in parts]


def note(panel: Panel, view: View) -> Markup | None:
    """Return a text with its **bold** and *emphasized* words."""
    paragraphs = panel["options"]["content"].split("\n\n")
    return element("div", (element("p", _marked(p)) for p in paragraphs), class_="prose")


def _marked(text: str) -> Markup:
    parts = re.split(r"\*\*(.+?)\*\*|\*(.+?)\*", text)
    found: list[str | None] = []
    for plain, bold, emphasized in zip(
        parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True
    ):
        found += [
            plain,
            element("strong", bold) if bold else None,
            element("em", emphasized) if emphasized else None,
        ]
    return joined(*found)


DRAWINGS: Mapping[str, Callable[[Panel, View], Markup | None]] = {
    "stat": figures,
    "timeseries": lines_over_time,
    "heatmap": heatmap,
    "xychart": curves,
    "bargauge": bars,
    "state-timeline": timeline,
    "table": table,
    "text": note,
}
