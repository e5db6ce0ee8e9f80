"""Lines → one SVG, to stand in a page: axes, bands, a label at each line's end.

Colours come from the page's style sheet by class: ``s0`` is the first version's. Drawn for
360 pixels, so that its letters are as large on a phone as on a screen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from srp4ctr.monitoring.report.axes import Axis
from srp4ctr.monitoring.report.contents import Points

WIDTH, HEIGHT = 360, 216
LEFT, TOP, BOTTOM = 50, 10, 24
LETTER = 6.4  # pixels of one, on average
LINE_HEIGHT = 13.0
MOST_LETTERS = 16
GAP = 2.5  # steps between two points: a wider one is nothing known


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its name, its style's class, and a band where its bounds are known."""

    name: str
    style: str
    points: Points
    low: Points = ()
    high: Points = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn, and what is said of it."""

    title: str
    subtitle: str
    """What it shows, with the unit."""
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    good: tuple[float, float] | None = None
    """Between these values it is as it should be."""
    rule: float | None = None
    """A line to compare with."""
    is_curve: bool = False
    """Not over time: every point is a dot, and the diagonal is what to compare with."""


def draw(chart: Chart, name: str) -> str:
    """Return the SVG; ``name`` is its own on the page."""
    frame = _Frame(chart)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(chart.title)}</title>',
        f'<desc id="{name}-d">{escape(_described(chart))}</desc>',
        f'<clipPath id="{name}-c"><rect x="{LEFT}" y="{TOP - 2}" '
        f'width="{frame.width:.1f}" height="{frame.height + 4:.1f}"/></clipPath>',
        *frame.axes(),
        f'<g clip-path="url(#{name}-c)">',
        *frame.marks(),
        *(part for line in chart.lines for part in frame.drawn(line)),
        "</g>",
        *frame.labels(),
        "</svg>",
    ]
    return "\n".join(parts)


def _described(chart: Chart) -> str:
    """Return what a screen reader says of the lines: where each begins and ends."""
    ends = [
        f"{line.name}: from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
        for line in chart.lines
        if line.points
    ]
    return f"{chart.subtitle}. {'; '.join(ends)}"


class _Frame:
    """A chart's axes in pixels."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        longest = max((len(_short(line.name)) for line in chart.lines), default=0)
        self.width = WIDTH - LEFT - 10 - longest * LETTER
        self.height = float(HEIGHT - TOP - BOTTOM)

    def x(self, value: float) -> float:
        return LEFT + self.width * self._chart.x.share(value)

    def y(self, value: float) -> float:
        return TOP + self.height * (1 - self._chart.y.share(value))

    def axes(self) -> Iterable[str]:
        """Yield grid lines and what is written beside them."""
        right = LEFT + self.width
        for value, text in self._chart.y.ticks:
            y = self.y(value)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right:.1f}"/>'
            yield f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(text)}</text>'
        for value, text in self._chart.x.ticks:
            x = self.x(value)
            yield f'<path class="tick" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>'
            yield f'<text class="x" x="{x:.1f}" y="{HEIGHT - 6}">{escape(text)}</text>'

    def marks(self) -> Iterable[str]:
        """Yield what the lines are compared with."""
        right = LEFT + self.width
        if self._chart.good:
            low, high = map(self.y, self._chart.good)
            yield (
                f'<rect class="good" x="{LEFT}" y="{high:.1f}" '
                f'width="{self.width:.1f}" height="{low - high:.1f}"/>'
            )
        if self._chart.rule is not None:
            y = self.y(self._chart.rule)
            yield f'<path class="rule" d="M{LEFT} {y:.1f}H{right:.1f}"/>'
        if self._chart.is_curve:
            ends = (self._chart.x.low, self._chart.x.high)
            yield f'<path class="rule" d="{self._path([(v, v) for v in ends])}"/>'

    def drawn(self, line: Line) -> Iterable[str]:
        """Yield a line, and its band below it."""
        for low, high in _stretches(line.low, line.high):
            outline = self._path([*low, *reversed(high)])
            yield f'<path class="band {line.style}" d="{outline}Z"/>'
        is_curve = self._chart.is_curve
        stretches = [line.points] if is_curve else (p for (p,) in _stretches(line.points))
        for points in stretches:
            yield f'<path class="line {line.style}" d="{self._path(points)}"/>'
            for x, y in points if is_curve or len(points) == 1 else ():
                place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}"'
                yield f'<circle class="{line.style}" {place} r="3"/>'

    def labels(self) -> Iterable[str]:
        """Yield each line's name at its end, none over another."""
        shown = [line for line in self._chart.lines if line.points]
        wanted = [min(max(self.y(e.points[-1][1]), TOP), TOP + self.height) for e in shown]
        for line, y in zip(shown, _apart(wanted), strict=True):
            name = escape(_short(line.name))
            place = f'x="{LEFT + self.width + 5:.1f}" y="{y + 4:.1f}"'
            yield f'<text class="name {line.style}" {place}>{name}</text>'

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def _stretches(*lines: Points) -> Iterable[tuple[list[tuple[float, float]], ...]]:
    """Yield the parts of ``lines`` between gaps, all at the same places."""
    by_x = [dict(line) for line in lines]
    places = sorted(set.intersection(*(set(each) for each in by_x))) if by_x else []
    steps = [b - a for a, b in pairwise(places)]
    widest = GAP * sorted(steps)[len(steps) // 2] if steps else 0.0
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] - places[end - 1] > widest:
            part = places[start:end]
            yield tuple([(x, line[x]) for x in part] for line in by_x)
            start = end


def _apart(wanted: Sequence[float]) -> list[float]:
    """Return places near those ``wanted``, none nearer to another than a line of text."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    found = list(wanted)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + LINE_HEIGHT)
    over = max((found[i] for i in order), default=0.0) - (HEIGHT - BOTTOM)
    return [each - max(0.0, over) for each in found]


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"
