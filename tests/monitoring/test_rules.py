"""Recording rules and alerts: they use existing metrics, and fire only when they should."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp4ctr.metrics import FIGURES, METRICS
from srp4ctr.monitoring import objective_rules
from tests.monitoring.metric_names import RULES, rules
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
WATCHDOG = "Srp4ctrWatchdog"  # always fires
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


def test_every_bucket_that_a_rule_reads_exists() -> None:
    """A bound that Prometheus does not have selects nothing; it writes 1 as 1.0."""
    read = {
        (metric, le)
        for rule in (*RECORDED.values(), *ALERTS.values())
        for metric, le in re.findall(r'(srp4ctr_\w+)_bucket\{le="([^"]+)"\}', rule["expr"])
    }
    there = {
        (spec.name, f"{le:g}" if spec in FIGURES else repr(float(le)))
        for spec in METRICS.values()
        for le in spec.bounds
    }
    assert len(read) == 2
    assert read - there == set()


def test_a_recorded_name_has_level_metric_and_operation() -> None:
    level = "srp4ctr|server|step|model_version|model_version_baseline"
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
        severities = ("none",) if name == WATCHDOG else ("page", "ticket")
        assert rule["labels"]["severity"] in severities, name
        assert rule["labels"].keys() <= {"severity", "slo", "source"}, name
        summary, link = rule["annotations"]["summary"], rule["annotations"]["runbook"]
        assert summary.endswith("."), name
        assert ". " not in summary, name
        assert link == f"monitoring/runbook.md#{name.lower()}"


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    fired = {case["alertname"] for _, case in cases() if case.get("exp_alerts")}
    silent = {case["alertname"] for _, case in cases() if not case.get("exp_alerts")}
    assert fired == ALERTS.keys()
    assert silent == ALERTS.keys() - {WATCHDOG}


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


def looked_back(expression: str) -> set[str]:
    """Return the metrics that ``expression`` reads with an offset."""
    metrics = re.findall(r"(\w+)(?:\{[^}]*\})?(?:\[\w+\])? offset", expression)
    return set(metrics) - {"up"}


def names_tested(test: Mapping[str, Any]) -> set[str]:
    """Return the rules of which ``test`` has cases."""
    alerts = {case["alertname"] for case in test.get("alert_rule_test", ())}
    queries = " ".join(case["expr"] for case in test.get("promql_expr_test", ()))
    return alerts | {name for name in RECORDED if name in queries}


def outages() -> tuple[set[str], set[str]]:
    """Return the rules that are tested with failed scrapes, and those with restarts too.

    In a failed scrape ``up`` is 0, and a metric that the rule looks back to is stale.
    """
    scrapes, restarts = set(), set()
    for path in CASE_FILES:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            series = [(each["series"], each["values"]) for each in test["input_series"]]
            stale = {name.partition("{")[0] for name, values in series if "stale" in values}
            fails = any(
                name.startswith("up{") and " 0" in values for name, values in series
            )
            for name in names_tested(test):
                if fails and stale & looked_back({**RECORDED, **ALERTS}[name]["expr"]):
                    scrapes.add(name)
                    restarts |= {name} if "process_start_time_seconds" in stale else set()
    return scrapes, restarts


def test_a_rule_that_looks_back_is_tested_with_failed_scrapes_and_restarts() -> None:
    all_rules = {**RECORDED, **ALERTS}
    looking = {name for name, rule in all_rules.items() if looked_back(rule["expr"])}
    scrapes, restarts = outages()
    assert len(looking) > 2
    assert looking - scrapes == set()
    assert looking - restarts == set()


def test_an_alert_has_a_for_or_a_comment_that_says_why_not() -> None:
    texts = [
        text
        for file in sorted(RULES.glob("*.yml"))
        for text in re.split(r"^ +- alert: ", file.read_text(encoding="utf-8"), flags=re.M)[
            1:
        ]
    ]
    why = re.compile(r"^ +for: |# (?:.*\. )?[Ww]ithout `for`: \w+", re.MULTILINE)
    assert len(texts) == len(ALERTS)
    assert [text.split()[0] for text in texts if not why.search(text)] == []


def test_the_rules_of_the_objectives_are_those_that_the_generator_writes() -> None:
    assert objective_rules.FILE.read_text(encoding="utf-8") == objective_rules.text()


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
    result = subprocess.run(
        [promtool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
