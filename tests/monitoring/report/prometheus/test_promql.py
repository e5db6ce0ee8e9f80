"""The report's queries over series older than an upgrade, evaluated by promtool."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from srp4ctr.monitoring.report.prometheus import promql

BUCKETS = (("0.1", "0+60x60"), ("+Inf", "0+60x60"))


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: prometheus)",
)
@pytest.mark.parametrize("new_since", [None, 40])
def test_latency_and_price_from_before_an_upgrade_are_found(
    tmp_path: Path, new_since: int | None
) -> None:
    """The old names cover the period; the new ones none of it, or its last third."""
    series = [
        {
            "series": f'srp4ctr_answer_seconds_bucket{{model_version="v1",le="{le}"}}',
            "values": values,
        }
        for le, values in BUCKETS
    ]
    flops = '_flops_total{model_version="v1"}'
    series.append({"series": f"srp4ctr_unfolded{flops}", "values": "0+60x60"})
    if new_since is not None:
        values = f"_x{new_since} 0+60x{60 - new_since}"
        series.append({"series": f"srp4ctr_reencode{flops}", "values": values})
    queries = promql.cost(3600)
    version = '{model_version="v1"}'
    expected = {
        queries["reencoded_flops"]: [{"labels": version, "value": 3600}],
        queries["p50_s"]: [{"labels": version, "value": 0.05}],
    }
    case = {
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": expr, "eval_time": "1h", "exp_samples": samples}
                    for expr, samples in expected.items()
                ],
            }
        ]
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(case))
    command = [str(shutil.which("promtool")), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
