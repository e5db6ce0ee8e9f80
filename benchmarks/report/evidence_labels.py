"""Writes a label near each point of a plot, where it covers little.

Each label in turn takes the spot that costs least: it is near, covers little, and is nearer
to its own point than to another; a thin line leads to what is far. Lengths are in points,
of which the plots have 72 per inch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

SIZE, FAR, STEPS = 8.0, 12.0, 24
DISTANCES = (8.0, 10.0, 13.0, 17.0, 21.0, 31.0, 43.0, 57.0)
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A text, and its place in the panel's own numbers."""

    text: str
    x: float
    y: float
    colour: str
    error: float = 0.0
    """Of ``y``: the bar is not covered."""
    is_line: bool = False
    """Of a whole horizontal line: it may be anywhere along it."""


def write_labels(axes: Axes, labels: Sequence[Label], taken: Sequence[Bbox]) -> None:
    """Write ``labels`` into a panel whose limits and place are final."""
    own = [_place(axes, label.x, label.y) for label in labels]
    boxes = [box.transformed(axes.transData).padded(4.0) for box in taken]
    for label in labels:
        width = axes.get_xlim() if label.is_line else (label.x, label.x)
        bar = Bbox.from_extents(
            width[0], label.y - label.error, width[1], label.y + label.error
        )
        boxes.append(bar.transformed(axes.transData).padded(1.5 if label.is_line else 4.0))
    for label, point in zip(labels, own, strict=True):
        text = axes.text(0.0, 0.0, label.text, fontsize=SIZE, color=label.colour, zorder=5)
        size = text.get_window_extent()
        others = [other for other in own if other != point and not label.is_line]
        spots = list(_spots(axes, label, size.width, size.height))
        costs = [_cost(spot, point, boxes, others) for spot in spots]
        spot = spots[costs.index(min(costs))]
        boxes.append(spot.padded(6.0, 1.5))
        back = axes.transData.inverted()
        text.set_verticalalignment("center_baseline")
        left, middle = back.transform((spot.x0, (spot.y0 + spot.y1) / 2.0))
        text.set_position((float(left), float(middle)))
        nearest = _nearest(point, spot)
        if not label.is_line and math.dist(point, nearest) > FAR:
            ends = zip(*(back.transform(end) for end in (point, nearest)), strict=True)
            axes.plot(*ends, color="#777777", linewidth=0.6, zorder=1.5)


def _spots(axes: Axes, label: Label, width: float, height: float) -> Iterator[Bbox]:
    """Yield where the label may be, in the panel."""
    x, y = _place(axes, label.x, label.y)
    found = []
    if label.is_line:
        for step in range(9):
            left = axes.bbox.x0 + 4.0 + step / 8.0 * (axes.bbox.width - width - 8.0)
            found += [(left, y + 2.0), (left, y - 2.0 - height)]
    else:
        for distance in DISTANCES:
            for step in range(STEPS):
                angle = 2.0 * math.pi * step / STEPS
                across, up = math.cos(angle), math.sin(angle)
                # The label's nearest edge is at the distance, whatever the direction.
                left = x + across * distance + (across - 1.0) / 2.0 * width
                found.append((left, y + up * distance + (up - 1.0) / 2.0 * height))
    inside = axes.bbox.padded(-2.0)
    for left, bottom in found:
        spot = Bbox.from_bounds(left, bottom, width, height)
        if inside.x0 <= spot.x0 and spot.x1 <= inside.x1 and inside.y0 <= spot.y0:
            yield spot


def _cost(
    spot: Bbox, point: Point, boxes: Sequence[Bbox], others: Sequence[Point]
) -> float:
    covered = [Bbox.intersection(spot, box) for box in boxes]
    away = math.dist(point, _nearest(point, spot))
    total = 1.5 * away + 0.3 * abs((spot.y0 + spot.y1) / 2.0 - point[1])
    total += 2.0 * sum(box.width * box.height for box in covered if box)
    total += 30.0 * sum(math.dist(each, _nearest(each, spot)) < away for each in others)
    return round(float(total), 1)  # a rounding error is no reason to go elsewhere


def _place(axes: Axes, x: float, y: float) -> Point:
    column, row = axes.transData.transform((x, y))
    return float(column), float(row)


def _nearest(point: Point, box: Bbox) -> Point:
    """Return the place in ``box`` that is nearest to ``point``."""
    x, y = point
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
