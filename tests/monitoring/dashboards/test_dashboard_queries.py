"""The dashboards' queries name existing metrics, are PromQL, and return series."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.boards import expressions
from tests.monitoring.sample_series import input_series

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: prometheus)",
)


def rules(folder: Path) -> Path:
    """Write every expression of a dashboard as a recording rule."""
    found = [{"record": name, "expr": expr} for name, expr in expressions().items()]
    path = folder / "boards.yml"
    path.write_text(json.dumps({"groups": [{"name": "boards", "rules": found}]}))
    return path


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("promtool")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    done = promtool("check", "rules", str(rules(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_no_panel_is_empty_when_every_metric_has_a_series(tmp_path: Path) -> None:
    """Evaluate every query: this finds wrong labels and many-to-many joins."""
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
