"""What the dashboards ask for exists, is PromQL, and has an answer."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.boards import expressions
from tests.monitoring.sample_series import input_series
from tests.structure.source_tree import ROOT, product_files

NAME = re.compile(r"(?:[a-z_]+:)?srp4ctr_[a-z0-9_]+(?::[a-z0-9_]+)?")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")
# Promised by the monitor, and not shown by it yet: to be emptied, and then deleted.
CONTRACT = frozenset(
    {
        "model_version:srp4ctr_answer_seconds:p50_5m",
        "model_version:srp4ctr_answer_seconds:p99_5m",
        "model_version:srp4ctr_clicks_gained_per_extra_price",
        "model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m",
        "model_version:srp4ctr_encoder_reuse_share:rate5m",
        "model_version:srp4ctr_encoder_runs_per_request:rate5m",
        "model_version:srp4ctr_flops_per_1000_candidates:rate5m",
        "model_version:srp4ctr_flops_per_request:rate5m",
        "model_version:srp4ctr_price_per_million_candidates:rate5m",
        "model_version:srp4ctr_unfolded_over_folded_flops:rate5m",
        "model_version:srp4ctr_unfolded_price_per_million_candidates:rate5m",
        "srp4ctr_answer_seconds",
        "srp4ctr_bundle_created_seconds",
        "srp4ctr_bundle_metric",
        "srp4ctr_bundle_window_end_seconds",
        "srp4ctr_bundle_window_start_seconds",
        "srp4ctr_calibration_bin_click_rate",
        "srp4ctr_calibration_bin_score",
        "srp4ctr_candidates_by_status",
        "srp4ctr_click_mean_reciprocal_rank",
        "srp4ctr_click_rate_difference",
        "srp4ctr_click_rate_difference_bound",
        "srp4ctr_cold_user_share",
        "srp4ctr_compared_impressions",
        "srp4ctr_consumer_lag_records",
        "srp4ctr_expected_calibration_error",
        "srp4ctr_feature_age_seconds",
        "srp4ctr_feature_psi",
        "srp4ctr_item_table_age_seconds",
        "srp4ctr_label_coverage",
        "srp4ctr_live_normalized_entropy",
        "srp4ctr_price_per_core_hour",
        "srp4ctr_probe_age_seconds",
        "srp4ctr_probe_failures",
        "srp4ctr_probe_seconds",
        "srp4ctr_provisional_click_rate",
        "srp4ctr_provisional_impressions",
        "srp4ctr_refused_requests",
        "srp4ctr_requests_by_status",
        "srp4ctr_score_psi",
        "srp4ctr_scored_candidates",
        "srp4ctr_scored_requests",
        "srp4ctr_served_feature_difference",
        "srp4ctr_serving_model_age_seconds",
        "srp4ctr_unseen_item_share",
        "srp4ctr_verdict",
    }
)

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
    return {SUFFIX.sub("", name) for name in declared} | recorded_names()


def recorded_names() -> set[str]:
    return {
        rule["record"]
        for path in (ROOT / "monitoring" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def names_in(expression: str) -> set[str]:
    return {SUFFIX.sub("", name) for name in NAME.findall(expression)}


def rules(folder: Path) -> Path:
    """Write every expression of a dashboard as a recording rule."""
    found = [{"record": name, "expr": expr} for name, expr in expressions().items()]
    path = folder / "boards.yml"
    path.write_text(json.dumps({"groups": [{"name": "boards", "rules": found}]}))
    return path


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("promtool")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_metric_exists() -> None:
    asked = {name for expr in expressions().values() for name in names_in(expr)}
    assert len(asked) > 60
    assert asked - declared_names() - CONTRACT == set()


def test_every_promise_is_waited_for() -> None:
    asked = {name for expr in expressions().values() for name in names_in(expr)}
    assert CONTRACT - asked == set()


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    done = promtool("check", "rules", str(rules(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_no_panel_is_empty_when_every_exporter_shows_what_it_promises(
    tmp_path: Path,
) -> None:
    """Evaluates them all: a wrong label, or a join of many with many, is found here."""
    something = [{"labels": "{}", "value": 1}]
    answered = [
        {"expr": f"group({name})", "eval_time": "10m", "exp_samples": something}
        for name in expressions()
    ]
    case: dict[str, Any] = {
        "rule_files": [str(rules(tmp_path))],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": input_series(),
                "promql_expr_test": answered,
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(case), encoding="utf-8")
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
