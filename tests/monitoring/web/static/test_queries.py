"""The script's queries and what becomes of their answers, run in a browser."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route

from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.browser_page import run
from tests.monitoring.web.conftest import serving


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with serving(PageSources(prometheus_url="")) as address:
        opened = browser.new_page()
        opened.goto(address)
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("query", "step", "expected"),
    [
        ("rate(x[1m])", 90, "rate(x[90s])"),
        ("rate(x[1m]) / rate(y[5m])", 90, "rate(x[90s]) / rate(y[5m])"),
        ("rate(x[1m])", 15, "rate(x[1m])"),
        ("rate(x[1m30s])", 360, "rate(x[360s])"),
        ("max_over_time(x[1m:10s] offset 1m)", 90, "max_over_time(x[90s:10s] offset 1m)"),
        ('x{u=~"[1m]|\\"[1m]"}', 90, 'x{u=~"[1m]|\\"[1m]"}'),
    ],
)
def test_a_range_is_as_long_as_a_step(
    page: Page, query: str, step: int, expected: str
) -> None:
    widened = run(page, "/static/queries.js", "m.widened(...given)", [query, step])
    assert widened == expected


def test_figures_and_tables_are_of_now_and_lines_of_whole_steps(page: Page) -> None:
    at_s = 1_700_000_100.5
    window = run(page, "/static/times.js", "m.windowOf('24h', given * 1000)", at_s)
    assert window["end"] == at_s // 360 * 360
    sent: list[tuple[str, str]] = []

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        given = dict(parse_qsl(url.query))
        sent.append((given["query"], given.get("time", given.get("end", ""))))
        route.fulfill(json={"data": {"resultType": "vector", "result": []}})

    page.route("**/api/prometheus/*", answer)
    targets = [{"expr": "rate(y[1m])"}, {"expr": "x", "instant": True, "format": "table"}]
    for kind in ("timeseries", "stat"):
        given = [{"type": kind, "targets": targets}, window]
        run(page, "/static/queries.js", "await m.framesOf(given[0], {}, given[1])", given)
    page.unroute("**/api/prometheus/*")
    line = ("rate(y[360s])", str(int(window["end"])))
    table, figure = ("x", str(at_s)), ("rate(y[1m])", str(at_s))
    assert sorted(sent) == sorted([line, table, line, figure, table])


def test_a_figure_has_the_value_of_now_after_those_of_steps(page: Page) -> None:
    def series(version: str, times: list[int]) -> dict[str, Any]:
        return {"labels": {"v": version}, "times": times, "values": times}

    past = [series("v1", [1, 2]), series("v2", [1, 2])]
    now = [series("v3", [4]), series("v2", [4])]
    found = run(page, "/static/queries.js", "m.continued(...given)", [past, now])
    assert found == [series("v1", [1, 2]), series("v2", [1, 2, 4]), series("v3", [4])]


def test_a_point_without_neighbours_is_isolated(page: Page) -> None:
    values = [1, None, 2, 3, None, 4]
    found = run(page, "/static/panels/timeseries.js", "m.isolated(given)", values)
    assert found == [True, False, False, False, False, True]


DASHED = {"lineStyle": {"fill": "dash"}}


@pytest.mark.parametrize(
    ("lines", "same"),
    [
        # Seven apart is one colour of the palette; bounds and dashes follow their version.
        (["v1", "v8", "v1 low", "v1 high", "v8 low"], [0, 1, 0, 0, 1]),
        (["v1", "v8", "v1 dashed", "v8 dashed"], [0, 1, 0, 1]),
        (["v1", "v2", "v1 dashed"], [0, 1, 0]),
        (["v1", "v1", "v1 low"], [0, 1, 0]),
        (["other", "another"], [0, 1]),
    ],
)
def test_lines_of_two_versions_differ_in_their_colour(
    page: Page, lines: list[str], same: list[int]
) -> None:
    def field(line: str) -> dict[str, Any]:
        version, _, what = line.partition(" ")
        bound = {"bound": what} if what in ("low", "high") else {}
        custom = DASHED if what == "dashed" else {}
        labels = {"model_version": version} | bound
        return {"labels": labels, "config": {"custom": custom}}

    script = "m.distinctColours(given)"
    fields = [field(line) for line in lines]
    found = run(page, "/static/panels/timeseries.js", script, fields)
    assert found == [found[place] for place in same]
    assert found[0] != found[1]
