"""Lines are at the values of the axes, break at gaps, and have the page's colours."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from srp4ctr.monitoring.report.charts import Chart, charts, draw
from srp4ctr.monitoring.report.page import render_page
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.report_contents import ChartLine, Points
from tests.monitoring.report.sample_contents import START_S, some_contents

LEVEL = ((0.0, 1.0), (60.0, 1.0), (120.0, 1.0))
HEIGHT = 216
HOUR = Period(start_s=0.0, end_s=3600.0)


def a_line(
    points: Points, name: str = "v1", low: Points = (), high: Points = ()
) -> ChartLine:
    return ChartLine(versions=(name,), points=points, low=low, high=high)


def drawn(
    *lines: ChartLine,
    over: Period | None = HOUR,
    shown: tuple[float, ...] = (0.0,),
    settles: bool = False,
) -> str:
    chart = Chart("T", "s", 1.0, shown, settles=settles, lines=lines, over=over)
    return draw(chart, "c0", {"v1": "s0"})


def parts(svg: str, tag: str, *said: str) -> list[dict[str, str]]:
    """Return the attributes of each ``tag`` whose style has all that is ``said``."""
    root = ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
    found = [each.attrib | {"text": each.text or ""} for each in root.iter(tag)]
    return [each for each in found if all(s in each.get("style", "") for s in said)]


def places(path: str) -> list[tuple[float, float]]:
    """Return the points of a path, in pixels."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)]


def stretches(svg: str) -> list[list[tuple[float, float]]]:
    """Return the parts of the one line of v1."""
    (line,) = parts(svg, "path", "fill: none", "stroke: var(--c0)")
    return [places(f"M{part}") for part in line["d"].split("M")[1:]]


def dots(svg: str) -> list[dict[str, str]]:
    return [
        each
        for each in parts(svg, "use", "fill: var(--c0)")
        if "opacity" not in each["style"]
    ]


def y_ticks(svg: str) -> dict[str, float]:
    """Return where the grid lines are, by their labels."""
    texts = [each["text"] for each in parts(svg, "text", "text-anchor: end")]
    lines = [places(each["d"])[0][1] for each in parts(svg, "path", "stroke: var(--faint)")]
    return dict(zip(texts, lines[-len(texts) :], strict=True))


def test_a_point_is_at_its_value_on_the_axes() -> None:
    svg = drawn(a_line(((0.0, 0.0), (3600.0, 4.0))))
    ((first, last),) = stretches(svg)
    ticks = y_ticks(svg)
    assert list(ticks) == ["0", "1", "2", "3", "4"]
    assert (first[1], last[1]) == pytest.approx((ticks["0"], ticks["4"]))
    grid = places(parts(svg, "path", "stroke: var(--faint)", "fill: none")[0]["d"])
    assert (first[0], last[0]) == pytest.approx((grid[0][0], grid[1][0]))


@pytest.mark.parametrize("value", [0.0, 1.0, 20.0, 1e-6, -3.0])
def test_a_level_line_is_inside_its_axis(value: float) -> None:
    svg = drawn(a_line(tuple((x, value) for x, _ in LEVEL)), shown=())
    ((place, *_),) = stretches(svg)
    ticks = y_ticks(svg).values()  # the highest is the smallest: y goes down
    assert 2 <= len(ticks) <= 6
    assert min(ticks) < place[1] <= max(ticks)


def test_a_day_is_marked_at_clock_times_and_its_date() -> None:
    midnight = 1_762_992_000.0  # 2025-11-13 00:00 UTC
    over = Period(start_s=midnight - 10 * 3600, end_s=midnight + 14 * 3600)
    svg = drawn(a_line(((midnight, 1.0), (midnight + 60, 2.0))), over=over)
    found = [each["text"] for each in parts(svg, "text", "text-anchor: middle")]
    assert found == ["18:00", "13 Nov", "06:00", "12:00"]


@pytest.mark.parametrize("length_s", [1, 30, 180, 3600, 86_400, 7 * 86_400, 300 * 86_400])
def test_no_time_is_marked_too_often_nor_twice(length_s: float) -> None:
    svg = drawn(a_line(LEVEL), over=Period(start_s=0.0, end_s=float(length_s)))
    found = [each["text"] for each in parts(svg, "text", "text-anchor: middle")]
    assert 2 <= len(found) <= 7
    assert len(set(found)) == len(found)


def test_a_gap_is_not_bridged() -> None:
    svg = drawn(a_line((*LEVEL, (600.0, 1.0), (660.0, 2.0))))
    assert [len(each) for each in stretches(svg)] == [3, 2]


def test_a_curve_has_no_gaps_and_a_dot_for_each_point() -> None:
    svg = drawn(a_line(((0.0, 0.0), (1.0, 1.0), (2.0, 2.5), (10.0, 9.0))), over=None)
    assert [len(each) for each in stretches(svg)] == [4]
    assert len(dots(svg)) == 4


def test_an_isolated_point_is_drawn() -> None:
    assert len(dots(drawn(a_line(((60.0, 1.0),))))) == 1
    assert len(dots(drawn(a_line((*LEVEL, (600.0, 1.0)))))) == 1
    assert dots(drawn(a_line(LEVEL))) == []


def test_a_band_is_drawn_where_both_bounds_are_known() -> None:
    low, high = ((60.0, 0.5), (120.0, 0.5)), ((0.0, 2.0), (60.0, 2.0), (120.0, 2.0))
    svg = drawn(a_line(LEVEL, low=low, high=high))
    (band,) = parts(svg, "use", "fill-opacity: 0.15")
    (shape,) = (e for e in parts(svg, "path") if f"#{e.get('id')}" == band["{x}href"])
    ((_, middle, last),) = stretches(svg)
    assert {x for x, _ in places(shape["d"])} == {middle[0], last[0]}


def test_a_noisy_start_does_not_set_the_axis() -> None:
    points = tuple((60.0 * n, 100.0 if n == 0 else 1 + n / 10) for n in range(10))
    assert max(map(float, y_ticks(drawn(a_line(points))))) == 100
    assert max(map(float, y_ticks(drawn(a_line(points), settles=True)))) == 2


@pytest.mark.parametrize("end", [0.0, 2.0, 4.0])
def test_names_at_the_ends_of_lines_do_not_cover_each_other(end: float) -> None:
    axis = a_line(((0.0, 0.0), (60.0, 4.0)), name="axis")
    lines = [a_line(((0.0, 1.0), (60.0, end - n / 99)), name=f"v{n}") for n in range(6)]
    found = parts(drawn(axis, *lines), "text", "font-weight: 700")
    heights = sorted(float(each["y"]) for each in found)
    assert len(heights) == 7
    assert min(b - a for a, b in pairwise(heights)) > 12
    assert 0 < heights[0] < heights[-1] < HEIGHT


def test_a_long_name_leaves_room_for_the_lines() -> None:
    svg = drawn(a_line(((0.0, 1.0), (3600.0, 2.0)), name="v" * 200))
    ((first, last),) = stretches(svg)
    assert last[0] - first[0] > 160
    assert "v" * 20 not in svg.split("</desc>")[1]


def test_a_name_is_text_and_no_formula() -> None:
    svg = drawn(a_line(LEVEL, name="$x_1$ <b>"))
    (name,) = parts(svg, "text", "font-weight: 700")
    assert name["text"] == "$x_1$ <b>"


def test_the_same_contents_give_the_same_bytes() -> None:
    assert render_page(some_contents(), START_S) == render_page(some_contents(), START_S)


def test_every_colour_is_the_pages_so_that_dark_is_dark() -> None:
    (over_time, curve) = charts(some_contents())
    for chart in (over_time, curve):
        svg = draw(chart, "c0", {"v1": "s0", "v2": "s1"})
        colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)
        assert {each for each in colours if not each.startswith("var(--")} == {"none"}
        assert [e for e in parts(svg, "text") if "fill: var" not in e["style"]] == []


def test_the_description_has_the_first_and_last_value() -> None:
    svg = drawn(a_line(((0.0, 0.25), (60.0, 4.0))))
    assert '<svg viewBox="0 0 360 216" role="img" aria-labelledby="c0-t c0-d">' in svg
    assert '<title id="c0-t">T</title><desc id="c0-d">s. v1: from 0.25 to 4</desc>' in svg
