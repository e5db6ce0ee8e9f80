"""Routes and inhibitions of alerts, evaluated as Alertmanager does."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.monitoring.metric_names import rules
from tests.structure.source_tree import ROOT

FILE = ROOT / "monitoring" / "alertmanager.yml"
CONFIG: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
ALERTS = rules("alert")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
Labels = Mapping[str, str]
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None,
    reason="amtool is not installed (Debian: prometheus-alertmanager)",
)


def firing(alert: str, **labels: str) -> Labels:
    """Return the labels of an alert of the rules that fires with ``labels``."""
    return {"alertname": alert, **ALERTS[alert]["labels"], **labels}


def matches(matchers: Sequence[str], labels: Labels) -> bool:
    """Return whether all ``matchers`` hold; a label that is missing is empty."""
    for matcher in matchers:
        match = MATCHER.fullmatch(matcher)
        assert match, matcher
        name, operator, wanted = match.groups()
        value = labels.get(name, "")
        held = {
            "=": value == wanted,
            "!=": value != wanted,
            "=~": re.fullmatch(wanted, value) is not None,
        }
        if not held[operator]:
            return False
    return True


def inhibits(source: Labels, target: Labels) -> bool:
    """Return whether ``source``, which fires, inhibits ``target``."""
    return any(
        matches(rule["source_matchers"], source)
        and matches(rule["target_matchers"], target)
        and all(source.get(n, "") == target.get(n, "") for n in rule.get("equal", ()))
        for rule in CONFIG["inhibit_rules"]
    )


def receiver_of(labels: Labels) -> str:
    """Return the receiver of the first route that matches, or the root's."""
    route = CONFIG["route"]
    matching = (r for r in route["routes"] if matches(r["matchers"], labels))
    return str(next(matching, route)["receiver"])


def test_each_severity_has_its_receiver() -> None:
    assert {r["name"] for r in CONFIG["receivers"]} == {"page", "ticket", "watchdog"}
    for name, rule in ALERTS.items():
        severity = rule["labels"]["severity"]
        assert receiver_of(firing(name)) == {"none": "watchdog"}.get(severity, severity)


def test_alerts_are_grouped_by_version() -> None:
    assert CONFIG["route"]["group_by"] == ["alertname", "model_version"]
    assert not any("group_by" in route for route in CONFIG["route"]["routes"])


def test_a_budgets_page_inhibits_only_the_ticket_of_the_same_version() -> None:
    page = firing("Srp4ctrLatencyErrorBudgetBurnFast", model_version="v8")
    assert inhibits(page, firing("Srp4ctrLatencyErrorBudgetBurnSlow", model_version="v8"))
    assert not inhibits(
        page, firing("Srp4ctrLatencyErrorBudgetBurnSlow", model_version="v7")
    )
    assert not inhibits(
        page, firing("Srp4ctrFreshnessErrorBudgetBurnSlow", model_version="v8")
    )
    assert not inhibits(page, firing("Srp4ctrCalibrationDrift", model_version="v8"))
    assert not inhibits(page, page)
    availability = firing("Srp4ctrAvailabilityErrorBudgetBurnFast")
    assert inhibits(availability, firing("Srp4ctrAvailabilityErrorBudgetBurnSlow"))
    assert not inhibits(firing("Srp4ctrAvailabilityErrorBudgetBurnSlow"), availability)


def test_alerts_of_a_source_that_is_down_are_inhibited() -> None:
    blind = firing("Srp4ctrMonitorSourceDown", source="labels")
    assert inhibits(blind, firing("Srp4ctrCalibrationDrift", model_version="v7"))
    assert inhibits(blind, firing("Srp4ctrQualityRegression", model_version="v8"))
    assert not inhibits(blind, firing("Srp4ctrAvailabilityErrorBudgetBurnFast"))
    assert not inhibits(blind, firing("Srp4ctrRefreshOverdue"))
    assert not inhibits(blind, blind)


def test_without_the_monitor_alerts_of_its_sources_are_inhibited() -> None:
    blind = firing("Srp4ctrMonitorSourceDown", source="monitor")
    for name, rule in ALERTS.items():
        if name != "Srp4ctrMonitorSourceDown":
            assert inhibits(blind, firing(name)) == ("source" in rule["labels"]), name
    assert not inhibits(blind, firing("Srp4ctrMonitorSourceDown", source="triton"))


def test_figures_out_of_date_inhibit_the_alerts_that_read_them() -> None:
    old, by_labels = (
        firing("Srp4ctrFiguresOutOfDate"),
        ALERTS.keys()
        - {
            "Srp4ctrFiguresOutOfDate",
            "Srp4ctrConsumerLagHigh",  # which the broker itself reports
        },
    )
    for name in by_labels:
        wanted = ALERTS[name]["labels"].get("source") == "labels"
        assert inhibits(old, firing(name, model_version="v8")) == wanted, name
    assert not inhibits(old, firing("Srp4ctrConsumerLagHigh"))
    assert inhibits(firing("Srp4ctrMonitorSourceDown", source="labels"), old)


def test_missing_features_inhibit_score_drift() -> None:
    away = firing("Srp4ctrFeaturesMissingAtServing", model_version="v7")
    assert inhibits(away, firing("Srp4ctrScoreDrift", model_version="v7"))
    assert not inhibits(away, firing("Srp4ctrScoreDrift", model_version="v8"))


def test_every_alert_that_it_names_exists() -> None:
    named = set(re.findall(r"Srp4ctr\w+", FILE.read_text(encoding="utf-8")))
    assert named
    assert named - ALERTS.keys() == set()


def test_every_inhibition_matches_some_alert() -> None:
    names = {*("severity", "slo", "source", "alertname", "model_version"), "baseline"}
    for rule in CONFIG["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            match = MATCHER.fullmatch(matcher)
            assert match, matcher
            assert match[1] in names
        assert set(rule.get("equal", ())) <= names
        for side in ("source_matchers", "target_matchers"):
            sources = [
                firing("Srp4ctrMonitorSourceDown", source=s) for s in ("labels", "monitor")
            ]
            known = [*sources, *(firing(name) for name in ALERTS)]
            assert any(matches(rule[side], labels) for labels in known), rule


def test_no_alert_inhibits_the_watchdog() -> None:
    watchdog = firing("Srp4ctrWatchdog")
    for name in ALERTS:
        for source in ("labels", "triton", "monitor"):
            assert not inhibits(firing(name, source=source), watchdog), name
        assert not inhibits(watchdog, firing(name)), name


@needs_amtool
def test_amtool_routes_each_alert_by_its_severity() -> None:
    for name in ("Srp4ctrWatchdog", "Srp4ctrMonitorSourceDown", "Srp4ctrRefreshOverdue"):
        labels = [f"{key}={value}" for key, value in firing(name).items()]
        command = ("amtool", "config", "routes", "test", f"--config.file={FILE}", *labels)
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == receiver_of(firing(name))


@needs_amtool
def test_amtool_accepts_the_file() -> None:
    result = subprocess.run(
        [str(shutil.which("amtool")), "check-config", str(FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
