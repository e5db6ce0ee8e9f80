"""Queries of panels, and what becomes of their answers."""

from math import nan

import pytest

from srp4ctr.monitoring.web.answers import widened
from srp4ctr.monitoring.web.period import Period
from tests.monitoring.web.stub_prometheus import Stub, organized, panel, target, view


@pytest.mark.parametrize(
    ("query", "step_s", "expected"),
    [
        ("rate(x[1m])", 90, "rate(x[90s])"),
        ("rate(x[1m]) / rate(y[5m])", 90, "rate(x[90s]) / rate(y[5m])"),
        ("rate(x[1m])", 15, "rate(x[1m])"),
        ("rate(x[1m30s])", 360, "rate(x[360s])"),
        ("max_over_time(x[1m:10s] offset 1m)", 90, "max_over_time(x[90s:10s] offset 1m)"),
        ('x{u=~"[1m]|\\"[1m]"}', 90, 'x{u=~"[1m]|\\"[1m]"}'),
    ],
)
def test_a_range_is_as_long_as_a_step(query: str, step_s: int, expected: str) -> None:
    assert widened(query, step_s) == expected


def test_the_versions_and_the_length_of_the_period_go_into_queries() -> None:
    panel_query = target('increase(x{v=~"$model_version"}[$__range])')
    answers = view(Stub({}), Period(start_s=0, end_s=3600), versions="v1|v2").answers
    assert answers.filled(panel_query) == 'increase(x{v=~"v1|v2"}[3600s])'


def test_a_line_has_a_gap_where_there_is_no_point_and_the_name_of_its_legend() -> None:
    stub = Stub({"x": [({"v": "v1", "bound": "low"}, [1.0, nan, 3.0])]})
    shown = panel("timeseries", target("x", "{{v}} of {{none}}{{bound}}"))
    (line,) = view(stub).answers.lines(shown)
    assert (line.name, line.bound) == ("v1 of low", "low")
    assert line.times_s[:3] == (0, 2, 4)
    assert list(line.values[:3]) == [1.0, None, 3.0]
    assert line.known == [1.0, 3.0]


def test_figures_of_a_long_period_are_of_now_and_lines_of_whole_steps() -> None:
    day = Period(start_s=0, end_s=86_400.5)
    stub = Stub({"x": [({"v": "v1"}, [1.0, 2.0])]})
    (figure,) = view(stub, day).answers.lines(panel("stat", target("x")))
    assert stub.queries == ["at x", "over x"]
    assert (figure.times_s[-1], figure.values[-1]) == (86_400.5, 2.0)
    view(stub, day).answers.lines(panel("timeseries", target("x")))
    assert stub.queries[2:] == ["over x"]
    (now,) = view(stub, day).answers.lines(panel("bargauge", target("x", instant=True)))
    assert list(now.values) == [2.0]


def test_rows_are_joined_by_their_key_labels() -> None:
    stub = Stub(
        {
            "x": [({"v": "v1", "job": "a"}, [1.0]), ({"v": "v2"}, [2.0])],
            "y": [({"v": "v2"}, [9.0])],
        }
    )
    shown = panel(
        "table",
        target("x", refId="A"),
        target("y", refId="B"),
        transformations=organized(v="Version", Value_A="Clicks", Value_B="Cost"),
    )
    columns, rows = view(stub).answers.rows(shown)
    assert columns == ["Version", "Clicks", "Cost"]
    assert rows == [
        {"Version": "v1", "Clicks": 1.0},
        {"Version": "v2", "Clicks": 2.0, "Cost": 9.0},
    ]
