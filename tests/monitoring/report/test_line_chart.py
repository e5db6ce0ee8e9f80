"""What is drawn is where the axes say, in the order in which it was measured."""

import re
from itertools import pairwise

from srp4ctr.monitoring.report.axes import value_axis
from srp4ctr.monitoring.report.line_chart import HEIGHT, Chart, Line, draw
from tests.monitoring.report.reading import read

LEVEL = ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))


def a_chart(*lines: Line, **changes: object) -> str:
    axis = value_axis((0.0, 4.0))
    fields = {"title": "T", "subtitle": "s", "x": axis, "y": axis, "lines": lines}
    return draw(Chart(**(fields | changes)), "c")  # type: ignore[arg-type]


def paths(svg: str, style: str) -> list[list[tuple[float, float]]]:
    """Return the places of each path of ``style``, in pixels."""
    return [
        [
            (float(x), float(y))
            for x, y in re.findall(r"([\d.]+) ([\d.]+)", found["d"] or "")
        ]
        for tag, found in read(svg).tags
        if tag == "path" and found.get("class", "").split(" ")[0] == style  # type: ignore[union-attr]
    ]


def test_a_point_is_where_the_axes_say() -> None:
    svg = a_chart(Line(name="v1", style="s0", points=((0.0, 0.0), (4.0, 4.0))))
    ((first, last),) = paths(svg, "line")
    (bottom, *_, top) = paths(svg, "grid")  # the ticks, the lowest first
    assert first[1] == bottom[0][1]
    assert last[1] == top[0][1]
    assert first[0] == bottom[0][0]


def test_a_gap_is_not_bridged() -> None:
    points = (*LEVEL, (10.0, 1.0), (11.0, 1.0))
    svg = a_chart(Line(name="v1", style="s0", points=points), x=value_axis((0.0, 12.0)))
    assert [len(path) for path in paths(svg, "line")] == [3, 2]


def test_a_curve_has_no_gaps() -> None:
    points = (*LEVEL, (10.0, 1.0))
    line = Line(name="v1", style="s0", points=points)
    svg = a_chart(line, x=value_axis((0.0, 12.0)), is_curve=True)
    assert [len(path) for path in paths(svg, "line")] == [4]
    assert svg.count("<circle") == 4


def test_a_lone_point_is_seen() -> None:
    assert "<circle" in a_chart(Line(name="v1", style="s0", points=((1.0, 1.0),)))


def test_a_band_is_drawn_where_both_bounds_are_known() -> None:
    low, high = ((1.0, 0.5), (2.0, 0.5)), ((0.0, 2.0), (1.0, 2.0), (2.0, 2.0))
    svg = a_chart(Line(name="v1", style="s0", points=LEVEL, low=low, high=high))
    (band,) = paths(svg, "band")
    assert len(band) == 4


def test_names_at_the_ends_of_lines_do_not_cover_each_other() -> None:
    lines = [
        Line(name=f"v{n}", style="s0", points=((0.0, 4.0 - n / 99),)) for n in range(6)
    ]
    found = re.findall(r'class="name s0" x="[\d.]+" y="([\d.]+)"', a_chart(*lines))
    heights = sorted(map(float, found))
    gaps = [b - a for a, b in pairwise(heights)]
    assert min(gaps) > 12
    assert heights[-1] < HEIGHT


def test_a_long_name_leaves_room_for_the_lines() -> None:
    svg = a_chart(Line(name="v" * 200, style="s0", points=LEVEL))
    ((first, *_, last),) = paths(svg, "line")
    assert last[0] - first[0] > 90  # half of the axis
    assert "v" * 20 not in svg.split("</desc>")[1]
