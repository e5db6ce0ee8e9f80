"""The pure parts of the page's script, run where they run: in a browser."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from srp4ctr.monitoring.dashboards import PANEL_TYPES, TRANSFORMATIONS, UNITS
from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.browser_page import READY, run
from tests.monitoring.web.conftest import serving


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with serving(PageSources(prometheus_url="", currency="EUR")) as address:
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_selector(READY)  # by then it knows the currency
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.6142, "percentunit", None, "61.4%"),
        (0.6142, "percentunit", 0, "61%"),
        (-0.0, "percentunit", None, "0%"),
        (-0.031, "percentunit", 1, "−3.1%"),
        (0.00432, "s", None, "4.32 ms"),
        (59.9999, "s", None, "1 min"),
        (5400, "s", None, "1.5 h"),
        (0, "s", None, "0 s"),
        (250, "ms", None, "250 ms"),
        (1234, "none", None, "1,234"),
        (0.7631, "none", 2, "0.76"),
        (17_532, "short", None, "17.5k"),
        (88.25, "reqps", None, "88.3 req/s"),
        (7.4e10, "flops", None, "74 GFLOP/s"),
        (512, "flops", None, "512 FLOP/s"),
        (0.00111, "currency:", None, "0.00111 EUR"),
        (1234.5, "currency:", None, "1,234.50 EUR"),
        (-0.5, "currency:", None, "−0.5 EUR"),
        (3.2e20, "short", None, "3.2e+20"),
        (7, "parsecs", None, "7 parsecs"),
        (None, "s", None, "–"),
        ("v1", "none", None, "v1"),
    ],
)
def test_a_number_is_written_in_its_unit(
    page: Page, value: Any, unit: str, decimals: int | None, text: str
) -> None:
    given = [value, unit, decimals]
    assert run(page, "/static/units.js", "m.format(...given)", given) == text


@pytest.mark.parametrize("unit", sorted(UNITS - {"none"}))
def test_every_unit_of_the_dashboards_has_its_own_way_of_writing(
    page: Page, unit: str
) -> None:
    plain, written = (
        run(page, "/static/units.js", "m.format(...given)", [1234, each])
        for each in ("none", unit)
    )
    assert plain == "1,234"
    assert written not in (plain, f"{plain} {unit}")


def test_the_script_knows_what_the_dashboards_are_made_of_and_no_more(page: Page) -> None:
    known = run(page, "/static/transformations.js", "Object.keys(m.KNOWN)")
    assert set(known) == TRANSFORMATIONS
    assert set(run(page, "/static/panel.js", "Object.keys(m.DRAWINGS)")) == PANEL_TYPES


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 1, "none", [0, 0.5, 1]),
        (0, 5400, "s", [0, 1800, 3600, 5400]),
        (-3, 3, "none", [-2, 0, 2]),
    ],
)
def test_ticks_are_round_in_their_unit(
    page: Page, low: float, high: float, unit: str, expected: list[float]
) -> None:
    given = [low, high, 4, unit]
    assert run(page, "/static/units.js", "m.ticks(...given)", given) == expected


@pytest.mark.parametrize(
    ("values", "limits", "expected"),
    [
        ([2, 10], {}, [0, 10.8]),  # 0 is near: it belongs to the picture
        ([0.75, 0.77], {}, [0.7484, 0.7716]),
        ([0.1, 0.1], {"min": 0}, [0, 0.108]),
        ([5, 5], {}, [4.5, 5.5]),
        ([1, 1 + 1e-15], {}, [0.9, 1.1]),  # level but for the last bits
        ([19.698, 19.7], {}, [17.728, 21.67]),  # as level
        ([0, 0], {}, [0, 0.5]),
        ([], {}, [0, 1.08]),
        ([3, 9], {"min": 1, "max": 5}, [1, 5.08]),  # a line at the limit is to be seen
    ],
)
def test_an_axis_shows_all_values(
    page: Page, values: list[float], limits: dict[str, float], expected: list[float]
) -> None:
    low, high = run(page, "/static/plots.js", "m.rangeOf(...given)", [values, limits])
    assert [low, high] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([0.9, 1.1] * 30 + [0.0, 800.0], [0.9, 1.1]),  # an interval of two clicks
        ([0.9, 1.1, 0.8, 1.3] * 10, [0.8, 1.3]),
        ([0.0, 800.0], [0.0, 800.0]),
        ([], []),
    ],
)
def test_a_few_wide_intervals_flatten_no_line(
    page: Page, bounds: list[float], expected: list[float]
) -> None:
    most = run(page, "/static/panels/timeseries.js", "m.mostOf(...given)", [bounds])
    ends = [min(most), max(most)] if most else []
    assert ends == expected


def test_an_axis_has_ticks_however_narrow_it_is(page: Page) -> None:
    script = "m.ticks(...given).length"
    for low, high in ((1, 1 + 1e-15), (1, 1), (1e18, 1e18 + 1), (-1e-12, 1e-12)):
        assert 1 <= run(page, "/static/units.js", script, [low, high, 4, "s"]) <= 10


def test_variables_fill_queries(page: Page) -> None:
    query = 'x{v=~"$v", w=~"$w", u=~"$u"} unless $other'
    values = {"v": ["v1", "a.b"], "w": ["v1"], "u": "(v[0-9]|[^u]).*"}
    script = "m.interpolate(given[0], given[1])"
    filled = run(page, "/static/queries.js", script, [query, values])
    assert filled == ('x{v=~"(v1|a\\\\.b)", w=~"v1", u=~"(v[0-9]|[^u]).*"} unless $other')


def test_a_legend_has_the_labels_that_differ(page: Page) -> None:
    series = [
        {"labels": {"__name__": "x", "job": "a", "v": "v1"}},
        {"labels": {"__name__": "x", "job": "a", "v": "v2"}},
    ]
    script = "m.legendOf(given[0], given[1][0], given[1], 'x')"
    expected = {"": "v1", "__auto": "v1", "{{v}} of {{job}}{{none}}": "v1 of a"}
    for legend, shown in expected.items():
        assert run(page, "/static/queries.js", script, [legend, series]) == shown


def a_field(name: str, values: list[Any], **more: Any) -> dict[str, Any]:
    kind = "string" if isinstance(values[0], str) else "number"
    return {"name": name, "type": kind, "labels": {}, "values": values} | more


def transformed(page: Page, frames: list[Any], *steps: dict[str, Any]) -> list[Any]:
    """Return each frame after ``steps``, as columns by their names."""
    script = (
        "m.transformed(given[0], given[1]).map(({fields}) => "
        "Object.fromEntries(fields.map((f) => [m.nameOf(f), f.values])))"
    )
    found = run(page, "/static/transformations.js", script, [frames, list(steps)])
    return list(found)


def test_tables_are_merged_and_organized(page: Page) -> None:
    frames = [
        {"refId": "A", "fields": [a_field("v", ["v1", "v2"]), a_field("Value #A", [1, 2])]},
        {"refId": "B", "fields": [a_field("v", ["v2"]), a_field("Value #B", [9])]},
    ]
    organize = {
        "id": "organize",
        "options": {
            "renameByName": {"v": "Version", "Value #B": "Clicks"},
            "excludeByName": {"Value #A": True},
            "indexByName": {"Value #B": 0, "v": 1},
        },
    }
    (merged,) = transformed(page, frames, {"id": "merge"})
    assert merged == {"v": ["v1", "v2"], "Value #A": [1, 2], "Value #B": [None, 9]}
    (organized,) = transformed(page, frames, {"id": "merge"}, organize)
    assert list(organized.items()) == [("Clicks", [None, 9]), ("Version", ["v1", "v2"])]


def test_an_unknown_transformation_changes_nothing(page: Page) -> None:
    frames = [{"refId": "A", "fields": [a_field("Value", [1])]}]
    assert transformed(page, frames, {"id": "heatmapOfTomorrow"}) == [{"Value": [1]}]


def test_an_override_changes_the_fields_that_it_names(page: Page) -> None:
    frames = [{"refId": "A", "fields": [a_field("Value", [2], legend="v1 low")]}]
    steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
    mapped = {"type": "value", "options": {"2": {"text": "two", "color": "blue"}}}
    config = {
        "defaults": {"unit": "s", "thresholds": {"mode": "absolute", "steps": steps}},
        "overrides": [
            {
                "matcher": {"id": "byRegexp", "options": "/ low$/"},
                "properties": [
                    {"id": "unit", "value": "none"},
                    {"id": "custom.lineWidth", "value": 1},
                    {"id": "mappings", "value": [mapped]},
                ],
            }
        ],
    }
    script = (
        "(() => { const {config} = m.configured(given[0], given[1])[0].fields[0]; return "
        "[config.unit, config.custom.lineWidth, ...[2, 3].map((v) => m.textOf(v, config))];"
        "})()"
    )
    shown = run(page, "/static/fields.js", script, [frames, config])
    assert shown == ["none", 1, "two", "3"]


def test_cumulative_buckets_become_counts(page: Page) -> None:
    buckets = [
        {"bound": 1, "times": [0], "values": [3]},
        {"bound": 2, "times": [0], "values": [5]},
    ]
    script = "m.apart(given).map(({counts}) => counts[0])"
    assert run(page, "/static/panels/heatmap.js", script, buckets) == [3, 2]


def test_equal_states_are_one_stretch_and_a_gap_ends_it(page: Page) -> None:
    field = {"values": [1, 1, None, 1, 0], "times": [10e3, 20e3, 30e3, 40e3, 50e3]}
    script = (
        "m.stretches({...given, config: {}}, {step: 10}).map((s) => [s.text, s.from, s.to])"
    )
    found = run(page, "/static/panels/timeline.js", script, field)
    assert found == [["1", 0, 20], ["1", 30, 40], ["0", 40, 50]]


def test_rows_are_sections_whether_they_are_collapsed_or_not(page: Page) -> None:
    board = {
        "panels": [
            {"type": "row", "title": "Open", "gridPos": {"y": 4}},
            {"type": "stat", "title": "top", "gridPos": {"y": 0, "x": 0}},
            {"type": "stat", "title": "b", "gridPos": {"y": 5, "x": 6}},
            {"type": "stat", "title": "a", "gridPos": {"y": 5, "x": 0}},
            {
                "type": "row",
                "title": "Collapsed",
                "collapsed": True,
                "gridPos": {"y": 9},
                "panels": [{"type": "stat", "title": "c", "gridPos": {"y": 10}}],
            },
        ]
    }
    script = (
        "m.sectionsOf(given).map(({title, isOpen, panels}) => "
        "[title, isOpen, panels.map((p) => p.title), panels[0].gridPos.y])"
    )
    assert run(page, "/static/dashboard.js", script, board) == [
        ["", True, ["top"], 0],
        ["Open", True, ["a", "b"], 0],
        ["Collapsed", False, ["c"], 0],
    ]


def test_markdown_is_elements_and_never_html(page: Page) -> None:
    text = "# Title\n\n**bold** <img src=x onerror=alert(1)> [no](javascript:alert(1))"
    text += "\n\n- a\n- b"
    script = (
        "(() => { const d = document.createElement('div'); d.append(...m.rendered(given)); "
        "return d.innerHTML; })()"
    )
    shown = run(page, "/static/markdown.js", script, text)
    assert shown == (
        "<h4>Title</h4><p><strong>bold</strong> &lt;img src=x onerror=alert(1)&gt; no)</p>"
        "<ul><li>a</li><li>b</li></ul>"
    )
