"""The rules and the scrape configuration name only what exists."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.catalogue import METRICS
from tests.structure.source_tree import ROOT, product_files

MONITORING = ROOT / "monitoring"
RULES = MONITORING / "rules" / "srp4ctr.yml"
NAME = re.compile(r"(?:[a-z]+:)?srp4ctr[a-z0-9_]*(?::[a-z0-9_]+)*")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: prometheus)",
)


def declared_names() -> set[str]:
    """Return every metric that a string in the product declares, and the recorded ones."""
    constants = {
        node.value
        for file in product_files()
        if not file.path.startswith("monitoring/dashboards/")
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    declared = {value for value in constants if re.fullmatch(r"srp4ctr_[a-z_0-9]+", value)}
    declared |= {name for name, _, _ in METRICS}
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    recorded = {r["record"] for g in groups for r in g["rules"] if "record" in r}
    return {SUFFIX.sub("", name) for name in declared} | recorded


def names_in(expressions: list[str]) -> set[str]:
    return {SUFFIX.sub("", n) for text in expressions for n in NAME.findall(text)}


def test_every_metric_of_the_rules_exists() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    assert names_in(expressions) - declared_names() == set()


def test_every_alert_has_its_heading_in_the_runbook() -> None:
    runbook = (MONITORING / "runbook.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE))
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts = {r["alert"]: r for g in groups for r in g["rules"] if "alert" in r}
    assert headings == alerts.keys()
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"monitoring/runbook.md#{name.lower()}"


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    path = ROOT / "tests" / "monitoring" / "rules_test.yml"
    cases = [
        case
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts = {r["alert"] for g in groups for r in g["rules"] if "alert" in r}
    assert {c["alertname"] for c in cases if c.get("exp_alerts")} == alerts
    assert {c["alertname"] for c in cases if not c.get("exp_alerts")} == alerts


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "monitoring/prometheus.yml"),
        ("test", "rules", "tests/monitoring/rules_test.yml"),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = str(Path(shutil.which("promtool") or ""))
    done = subprocess.run(
        [promtool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
