"""The axes of a plot, and what it draws on them."""

import re
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from srp4ctr.monitoring.web.fields import Field
from srp4ctr.monitoring.web.markup import Markup
from srp4ctr.monitoring.web.period import Period
from srp4ctr.monitoring.web.plot import (
    Axis,
    Reading,
    every,
    level,
    path,
    plot,
    time_axis,
    value_axis,
    without_outliers,
)

HUNDRED = Axis(low=0, high=100, ticks=(0, 50), texts=("0", "50"))


@pytest.mark.parametrize(
    ("values", "config", "expected"),
    [
        ([2, 10], {}, [0, 10.8]),  # 0 is near: it belongs to the picture
        ([0.75, 0.77], {}, [0.7484, 0.7716]),
        ([0.1, 0.1], {"min": 0}, [0, 0.108]),
        ([5, 5], {}, [4.5, 5.5]),
        ([7, 9], {"unit": "reqps"}, [0, 9.72]),  # a rate's noise looks like noise
        ([19.698, 19.7], {}, [17.728, 21.67]),  # as level
        ([0, 0], {}, [0, 0.5]),
        ([3, 9], {"min": 1, "max": 5}, [1, 5.08]),  # a line at the limit is to be seen
    ],
)
def test_an_axis_shows_all_values(
    values: list[float], config: dict[str, Any], expected: list[float]
) -> None:
    axis = value_axis(values, Field(config=config))
    assert [axis.low, axis.high] == pytest.approx(expected)
    assert axis.ticks


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([0.9, 1.1] * 30 + [0.0, 800.0], [0.9, 1.1]),  # an interval of two clicks
        ([0.9, 1.1, 0.8, 1.3] * 10, [0.8, 1.3]),
        ([0.0, 800.0], [0.0, 800.0]),
    ],
)
def test_a_few_wide_intervals_flatten_no_line(
    bounds: list[float], expected: list[float]
) -> None:
    most = without_outliers(bounds)
    assert [min(most), max(most)] == expected
    assert without_outliers([]) == []


def test_times_are_round_in_their_zone() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    day = Period(start_s=0, end_s=86_400)
    assert time_axis(day, india).texts == ["06:00", "12:00", "18:00", "2 Jan"][:4]
    assert time_axis(day, UTC).texts[1] == "06:00"
    week = Period(start_s=0, end_s=7 * 86_400)
    assert time_axis(week, UTC).texts[:2] == ["1 Jan", "3 Jan"]
    assert time_axis(Period(start_s=0, end_s=60), UTC).texts[1] == "00:00:15"


def test_a_line_breaks_at_a_gap_and_a_lone_point_is_a_dot() -> None:
    points = [(0, 0.0), (10, 50.0), (20, None), (30, 100.0)]
    drawn = path(HUNDRED, HUNDRED, points, class_="line")
    assert 'd="M0 1000L100 500" class="line"' in drawn
    assert 'd="M300 0h0" class="dots"' in drawn


def test_a_threshold_off_the_axis_is_not_drawn() -> None:
    assert level(HUNDRED, 101) is None
    assert level(HUNDRED, 50)


def test_a_pointer_on_the_right_half_has_its_values_on_its_left() -> None:
    readings = [Reading(x=10, text="a <b>"), Reading(x=90, text="c")]
    drawn = plot(HUNDRED, HUNDRED, Markup(), readings, "About")
    assert "<b>a &lt;b&gt;</b>" in drawn
    assert drawn.count('class="late"') == 1


@pytest.mark.parametrize("count", [0, 1, 48, 49, 241])
def test_readings_are_few_and_include_the_newest(count: int) -> None:
    places = every(count)
    assert len(places) <= 48
    assert not count or places[-1] == count - 1


@pytest.mark.parametrize("places", [[], [100], [0, 100], [60, 70, 100]])
def test_readings_fill_a_plot_and_end_at_its_edges(places: list[int]) -> None:
    readings = [Reading(x=place, text=str(place)) for place in places]
    drawn = plot(HUNDRED, HUNDRED, Markup(""), readings, "a plot")
    columns = re.findall(r"left:([\d.]+)%;width:([\d.]+)%;--at:([\d.]+)%", drawn)
    end = 0.0
    for place, (left, width, at) in zip(places, columns, strict=True):
        assert float(left) == pytest.approx(end, abs=0.1)
        assert float(left) + float(width) * float(at) / 100 == pytest.approx(place, abs=0.1)
        end = float(left) + float(width)
    assert end == pytest.approx(100 if places else 0, abs=0.1)
