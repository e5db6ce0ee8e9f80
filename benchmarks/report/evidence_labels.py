"""Points of a plot → a label beside each, where it covers nothing.

In: a panel whose limits and place are final. Each label in turn takes the spot that costs
least: covers little, is near, misleads nobody; a thin line leads to what is far.
Lengths are in points, of which the plots have 72 an inch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

SIZE = 8.0
DISTANCES = (8.0, 10.0, 13.0, 17.0, 21.0, 31.0, 43.0, 57.0)
STEPS = 24  # directions to try
FAR = 12.0  # from here on a line leads to the label
# In points of distance: to stand nearer to another's point, to lead a line across one.
MISTAKEN, CROSSED = 30.0, 60.0
ROUNDS = 3  # the first label does not know yet where the last will be
GREY = "#777777"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is to be said, and of which place in the panel's own numbers."""

    text: str
    x: float
    y: float
    colour: str
    is_line: bool = False
    """Of a whole horizontal line: it may stand anywhere along it."""


@dataclass(slots=True)
class Panel:
    """A panel and what of it is taken."""

    axes: Axes
    taken: list[Bbox] = field(default_factory=list)
    marks: list[tuple[float, float]] = field(default_factory=list)
    """Where all points are: a label should be nearest to its own."""

    def mark(self, x: float, y: float, error: float) -> None:
        """Tell of a point and its error bar, before any label is put."""
        self.keep_free((x, x), (y - error, y + error), 4.0)
        self.marks.append(self._place(x, y))

    def keep_free(self, xs: Sequence[float], ys: Sequence[float], margin: float) -> None:
        """Let no label cover the box around these points of the panel's own numbers."""
        corners = [self._place(x, y) for x, y in zip(xs, ys, strict=True)]
        columns, rows = [x for x, _ in corners], [y for _, y in corners]
        box = Bbox.from_extents(min(columns), min(rows), max(columns), max(rows))
        self.taken.append(box.padded(margin))

    def name(self, labels: Sequence[Label]) -> None:
        """Write ``labels`` where each, given the others, covers and confuses least."""
        spots = [list(self._spots(label, *self._size(label))) for label in labels]
        chosen: dict[int, Bbox] = {}
        for _ in range(ROUNDS):
            for number, label in enumerate(labels):
                others = [box for key, box in chosen.items() if key != number]
                costs = [self._cost(spot, label, others) for spot in spots[number]]
                chosen[number] = spots[number][costs.index(min(costs))]  # the first
        for number, label in enumerate(labels):
            self._write(label, chosen[number])

    def _spots(self, label: Label, width: float, height: float) -> Iterator[Bbox]:
        x, y = self._place(label.x, label.y)
        if label.is_line:
            whole = self.axes.bbox
            for step in range(9):
                left = whole.x0 + 4.0 + step / 8.0 * (whole.width - width - 8.0)
                yield Bbox.from_bounds(left, y + 2.0, width, height)
                yield Bbox.from_bounds(left, y - 2.0 - height, width, height)
            return
        for distance in DISTANCES:
            for step in range(STEPS):
                angle = 2.0 * math.pi * step / STEPS
                across, up = math.cos(angle), math.sin(angle)
                # The label's nearest edge is at the distance, whatever the direction.
                left = x + across * distance + (across - 1.0) / 2.0 * width
                bottom = y + up * distance + (up - 1.0) / 2.0 * height
                yield Bbox.from_bounds(left, bottom, width, height)

    def _cost(self, spot: Bbox, label: Label, others: Sequence[Bbox]) -> float:
        inside = Bbox.intersection(spot, self.axes.bbox.padded(-2.0))
        outside = spot.width * spot.height - (_area(inside) if inside else 0.0)
        apart = [box.padded(6.0, 1.5) for box in others]
        covered = [Bbox.intersection(spot, box) for box in (*self.taken, *apart)]
        total = 10.0 * outside + 2.0 * sum(_area(box) for box in covered if box)
        if not label.is_line:
            own = self._place(label.x, label.y)
            away, others = _distance(own, spot), [m for m in self.marks if m != own]
            total += 1.5 * away + 0.3 * abs((spot.y0 + spot.y1) / 2.0 - own[1])
            total += MISTAKEN * sum(_distance(m, spot) < away for m in others)
            lead = [_between(own, _nearest(own, spot), part / 8.0) for part in range(9)]
            met = [m for m in others if min(math.dist(m, each) for each in lead) < 5.0]
            total += CROSSED * len(met) * (away > FAR)
        return round(total, 1)  # a rounding error is no reason to go elsewhere

    def _size(self, label: Label) -> tuple[float, float]:
        text = self.axes.text(0.0, 0.0, label.text, fontsize=SIZE)
        box = text.get_window_extent()
        text.remove()
        return box.width, box.height

    def _write(self, label: Label, spot: Bbox) -> None:
        x, y = self._place(label.x, label.y)
        nearest = _nearest((x, y), spot)
        back = self.axes.transData.inverted()
        if not label.is_line and math.dist((x, y), nearest) > FAR:
            ends = [back.transform(point) for point in ((x, y), nearest)]
            columns, rows = zip(*ends, strict=True)
            self.axes.plot(columns, rows, color=GREY, linewidth=0.6, zorder=1.5)
        left, middle = back.transform((spot.x0, (spot.y0 + spot.y1) / 2.0))
        self.axes.text(
            float(left),
            float(middle),
            label.text,
            fontsize=SIZE,
            color=label.colour,
            verticalalignment="center_baseline",
            zorder=5,
        )

    def _place(self, x: float, y: float) -> tuple[float, float]:
        column, row = self.axes.transData.transform((x, y))
        return float(column), float(row)


def _nearest(point: tuple[float, float], box: Bbox) -> tuple[float, float]:
    """Return the place in ``box`` that is nearest to ``point``."""
    x, y = point
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def _between(
    one: tuple[float, float], other: tuple[float, float], share: float
) -> tuple[float, float]:
    return one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])


def _distance(point: tuple[float, float], box: Bbox) -> float:
    return math.dist(point, _nearest(point, box))


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
