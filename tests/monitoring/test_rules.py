"""Recording rules and alerts: they use existing metrics, and fire only when they should."""

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp4ctr.monitoring.collector.metric_definitions import HISTOGRAMS
from srp4ctr.streams.worker.measurements import FRESHNESS
from tests.monitoring.metric_names import (
    RULES,
    known_names,
    names_in,
    rules,
)
from tests.structure.source_tree import ROOT

RECORDED, ALERTS = rules("record"), rules("alert")
CASE_FILES = sorted(Path(__file__).parent.glob("rules_*_test.yml"))
MAX_CASE_LINES = 300
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
# Burn rates and their two windows: Site Reliability Workbook, chapter 5.
PAGES = (("14.4 * ", "1h", "5m"), ("6 * ", "6h", "30m"))
TICKETS = (("3 * ", "1d", "2h"), ("", "3d", "6h"))
OBJECTIVES = {
    "Srp4ctrAvailability": ("srp4ctr:failed_requests", "0.001", "10"),
    "Srp4ctrLatency": ("model_version:srp4ctr_slow_requests", "0.01", "100"),
    "Srp4ctrFreshness": ("srp4ctr:late_sequences", "0.01", "100"),
}
FAST, SLOW = "ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"
SECONDS = {"1h": "3600", "6h": "21600", "1d": "86400", "3d": "259200"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: prometheus)",
)


def cases() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every case of an alert, with its test."""
    return [
        (test, case)
        for path in CASE_FILES
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
    ]


def test_every_metric_of_the_rules_exists() -> None:
    expressions = [rule["expr"] for rule in (*RECORDED.values(), *ALERTS.values())]
    assert names_in(expressions) - known_names() == set()


def test_every_bucket_that_a_rule_reads_exists() -> None:
    read = {
        (metric, le)
        for rule in (*RECORDED.values(), *ALERTS.values())
        for metric, le in re.findall(r'(srp4ctr_\w+)_bucket\{le="([^"]+)"\}', rule["expr"])
    }
    (freshness,) = FRESHNESS.collect()
    there = {
        (freshness.name, sample.labels["le"])
        for sample in freshness.samples
        if "le" in sample.labels
    }
    there |= {(name, f"{le:g}") for name, bounds in HISTOGRAMS.items() for le in bounds}
    assert len(read) == 2
    assert read - there == set()


def test_a_recorded_name_has_level_metric_and_operation() -> None:
    level = "srp4ctr|step|model_version|model_version_baseline"
    for name, rule in RECORDED.items():
        assert re.fullmatch(rf"(?:{level}):\w+(?::\w+)?", name), name
        for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            kept = set(labels.split(", ")) - {"le", "currency", "baseline"}
            assert kept <= {name.partition(":")[0].removesuffix("_baseline")}, name


def test_every_window_of_an_objective_has_the_same_expression() -> None:
    for metric, *_ in OBJECTIVES.values():
        for operation in ("rate", "ratio_rate"):
            names = {window: f"{metric}:{operation}{window}" for window in WINDOWS}
            expressions = [
                re.sub(
                    rf"(?<=rate){window}\b|(?<=\[){window}(?=\])",
                    "W",
                    RECORDED[name]["expr"],
                )
                for window, name in names.items()
            ]
            assert set(expressions) == {expressions[0]}
            assert "W" in expressions[0]


@pytest.mark.parametrize(("objective", "suffix"), product(OBJECTIVES, (FAST, SLOW)))
def test_a_budget_burns_by_the_workbooks_rates_and_windows(
    objective: str, suffix: str
) -> None:
    metric, budget, minimum = OBJECTIVES[objective]
    expression = ALERTS[objective + suffix]["expr"]
    burns = PAGES if suffix == FAST else TICKETS
    assert re.findall(
        rf"{metric}:ratio_rate(\w+) > ([\d.]+ \* )?([\d.]+) ", expression
    ) == [(window, rate, budget) for rate, *windows in burns for window in windows]
    assert re.findall(rf"{metric}:rate(\w+) \* (\d+) >= (\d+)\)", expression) == [
        (long, SECONDS[long], minimum) for _, long, _ in burns
    ]


def test_every_alert_has_a_severity_a_summary_and_a_runbook_link() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["labels"].keys() <= {"severity", "slo", "source"}, name
        summary, link = rule["annotations"]["summary"], rule["annotations"]["runbook"]
        assert summary.endswith("."), name
        assert ". " not in summary, name
        assert link == f"monitoring/runbook.md#{name.lower()}"


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    fired = {case["alertname"] for _, case in cases() if case.get("exp_alerts")}
    silent = {case["alertname"] for _, case in cases() if not case.get("exp_alerts")}
    assert fired == ALERTS.keys()
    assert silent == ALERTS.keys()


def test_an_alert_of_a_version_is_tested_with_a_healthy_version() -> None:
    by_version, separated = set(), set()
    for test, case in cases():
        blamed = {a["exp_labels"].get("model_version") for a in case.get("exp_alerts", ())}
        if not blamed - {None}:
            continue
        by_version.add(case["alertname"])
        series = " ".join(each["series"] for each in test["input_series"])
        if set(re.findall(r'model_version="(v\d+)"', series)) - blamed:
            separated.add(case["alertname"])
    assert len(by_version) > 10
    assert by_version == separated


def test_a_file_of_cases_is_short_enough_to_read() -> None:
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in CASE_FILES}
    assert len(lengths) > 5
    assert {name: n for name, n in lengths.items() if n > MAX_CASE_LINES} == {}


def outages(kind: str) -> dict[str, set[str]]:
    """Return the rules of ``kind`` that are tested with failed scrapes and with a restart.

    A failed scrape: ``up`` is 0, and a metric that the rule looks back to is stale.
    """
    found: dict[str, set[str]] = {"failed scrape": set(), "restart": set()}
    for path in CASE_FILES:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            series = {each["series"]: each["values"] for each in test["input_series"]}
            names = {case["alertname"] for case in test.get("alert_rule_test", ())}
            if kind == "record":
                asked = " ".join(c["expr"] for c in test.get("promql_expr_test", ()))
                names = {name for name in RECORDED if name in asked}
            is_down = any(s.startswith("up{") and re.search(r"\b0\b|\b0x", v) for s, v in series.items())
            stale = {s.partition("{")[0] for s, v in series.items() if "stale" in v}
            rules_ = RECORDED if kind == "record" else ALERTS
            for name in names:
                if is_down and stale & looked_back(rules_[name]["expr"]):
                    found["failed scrape"].add(name)
                    if "process_start_time_seconds" in stale:
                        found["restart"].add(name)
    return found


def looked_back(expression: str) -> set[str]:
    """Return the metrics that ``expression`` reads with an offset."""
    return set(re.findall(r"(\w+)(?:\{[^}]*\})?(?:\[\w+\])? offset", expression)) - {"up"}


@pytest.mark.parametrize("kind", ["record", "alert"])
def test_a_rule_that_looks_back_is_tested_with_failed_scrapes_and_restarts(
    kind: str,
) -> None:
    looking = {
        name
        for name, rule in (RECORDED if kind == "record" else ALERTS).items()
        if re.search(r"\boffset\b", rule["expr"])
    }
    tested = outages(kind)
    assert looking
    assert looking - tested["failed scrape"] == set()
    assert looking - tested["restart"] == set()


def test_an_alert_has_a_for_or_a_comment_that_says_why_not() -> None:
    unexplained = []
    for file in sorted(RULES.glob("*.yml")):
        for text in re.split(r"(?=^ +- alert: )", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
            if not re.search(r"^ +for: |# [Ww]ithout `for`: \w+", text, re.M):
                unexplained.append(text.split(maxsplit=3)[2])
    assert unexplained == []


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "monitoring/prometheus.yml"),
        ("check", "rules", *(str(path) for path in sorted(RULES.glob("*.yml")))),
        *(("test", "rules", str(path)) for path in CASE_FILES),
    ],
    ids=lambda arguments: Path(arguments[-1]).stem,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = str(Path(shutil.which("promtool") or ""))
    done = subprocess.run(
        [promtool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
