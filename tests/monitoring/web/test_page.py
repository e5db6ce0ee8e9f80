"""The documents of the page, and the file that is sent."""

import re
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.current_values import CurrentMetric, CurrentValue, ExporterPage
from srp4ctr.monitoring.web.dashboard import sections, version_pattern
from srp4ctr.monitoring.web.empty_panel import metric_names, why_empty
from srp4ctr.monitoring.web.page import FILE_POLICY, Choice, Site
from tests.monitoring.web.stub_prometheus import panel, target

LIVE = CurrentMetric(
    name="srp4ctr_a",
    kind="gauge",
    help="A.",
    values=[CurrentValue(labels={}, what="", value=1)],
)
SILENT = CurrentMetric(name="srp4ctr_b_total", kind="counter", help="Bs.", values=())
MONITOR = ExporterPage(job="monitor", url="http://m", problem="", metrics=(LIVE, SILENT))
AWAY = ExporterPage(job="stream", url="http://s", problem="does not answer", metrics=())


@pytest.fixture
def site() -> Site:
    return Site(
        prometheus=Prometheus(""), exporters={}, currency="EUR", has_playground=False
    )


def test_a_choice_is_in_the_address_and_all_versions_are_none() -> None:
    assert Choice(range_name="1h").address() == "?range=1h"
    assert Choice(versions=("v1", "a&b")).address() == "?range=15m&version=v1%2Ca%26b"
    assert Choice(range_name="1h").period(3600.0).start_s == 0


def test_chosen_versions_are_an_expression_that_matches_only_them() -> None:
    comparison = load_boards()["model_comparison"]
    assert version_pattern(comparison, ["v1", 'a."b']) == 'v1|a\\\\.\\"b'
    assert version_pattern(comparison, []) == "(v[0-9]|[^u]).*"
    assert version_pattern(load_boards()["overview"], ["v1"]) == ""


def test_every_panel_of_a_dashboard_is_in_a_section() -> None:
    for board in load_boards().values():
        shown = [panel for section in sections(board) for panel in section.panels]
        assert shown == [panel for panel in board["panels"] if panel["type"] != "row"]
        assert all(section.title for section in sections(board))


@pytest.mark.parametrize(
    ("query", "pages", "reason"),
    [
        ("srp4ctr_b_total", [MONITOR], "`srp4ctr_b_total` has no value so far. Bs."),
        ("srp4ctr_c", [MONITOR], "no exporter has `srp4ctr_c`."),
        ("srp4ctr_c", [MONITOR, AWAY], "the stream does not answer (start it: `srp4ctr"),
        ("x:srp4ctr_c:rate5m", [MONITOR], "the rule `x:srp4ctr_c:rate5m` had no input"),
        ("srp4ctr_a", [MONITOR], "No data in this period."),
        ("srp4ctr_c", [], "No data in this period."),
    ],
)
def test_an_empty_panel_says_why(
    query: str, pages: list[ExporterPage], reason: str
) -> None:
    assert reason in why_empty(panel("stat", target(query)), pages)


def test_a_dashboards_own_reason_comes_first() -> None:
    shown = panel("stat", target("srp4ctr_c"), defaults={"noValue": "one version served"})
    assert why_empty(shown, [MONITOR]) == "one version served"
    histogram = panel("stat", target("rate(srp4ctr_b_total[5m]) / nv_x_bucket"))
    assert metric_names(histogram) == ["srp4ctr_b_total", "nv_x_bucket"]


def test_without_prometheus_there_is_how_to_get_it(site: Site) -> None:
    document = site.dashboard("overview", Choice(), 0.0)
    assert "No Prometheus runs with this stack." in document
    assert "sudo apt install prometheus" in document


def test_the_bar_keeps_the_range_and_has_no_playground_where_there_is_none(
    site: Site,
) -> None:
    document = site.dashboard("overview", Choice(range_name="6h"), 0.0)
    assert 'href="/d/training?range=6h"' in document
    assert 'href="/values"' in document
    assert "/playground" not in document


@pytest.fixture
def report(prometheus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", prometheus)
    monkeypatch.setenv("SRP4CTR_MONITORING__CURRENCY", "EUR")
    return tmp_path / "report.html"


def test_a_file_has_every_panel_and_needs_nothing_else(report: Path) -> None:
    words = ["monitor", "report", "--since", "5m", "-o", str(report)]
    done = CliRunner().invoke(app, words)
    assert done.exception is None
    assert re.search(r"report\.html: \d+ kB, 20\d\d-.* UTC", " ".join(done.output.split()))
    text = report.read_text(encoding="utf-8")
    for board in load_boards().values():
        assert f"<h1>{board['title'].replace('&', '&amp;')}</h1>" in text
    panels = [p for b in load_boards().values() for p in b["panels"] if p["type"] != "row"]
    assert text.count("<article") == len(panels)
    assert not re.search(r'<article[^>]*data-state="error"', text)
    assert escape(FILE_POLICY) in text
    assert not re.search(r"<script|<link|src=|url\(|https?://", text)
    versions = text[text.index('data-title="Versions at a glance"') :]
    assert "v2" in versions[: versions.index("</article>")]
    assert "EUR" in text
    assert "No Prometheus" not in text


def test_a_period_without_figures_says_what_to_do(report: Path) -> None:
    words = ["monitor", "report", "--since", "1h", "--until", "2025-01-01T12:00"]
    error = CliRunner().invoke(app, [*words, "-o", str(report)]).exception
    assert isinstance(error, OutageError)
    assert "has nothing of the monitor from 2025-01-01 11:00" in str(error)
    assert not report.exists()
