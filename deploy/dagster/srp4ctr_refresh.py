"""The periodic refresh as a Dagster asset: ``dagster dev -f srp4ctr_refresh.py``.

``srp4ctr model refresh`` ends with status 0 if its model was promoted or there was nothing
new, 5 if a gate refused it, 2 for a mistyped command, and 1, 3 or 4 if it failed. A failed
refresh may be repeated: it resumes from its checkpoint. Its outcome is in ``refresh.json``
in the bundles' folder (setting ``training.bundles_dir``).

The command must be installed where Dagster runs the asset: on Kubernetes in an image built
from the trainer's. Set the chart's ``trainer.suspend: true``, because two schedules would
refresh twice.

Tested with Dagster 1.13.29.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

COMMAND = ("srp4ctr", "model", "refresh")
GATES = "gates"
_MISTAKE, _REFUSED = 2, 5  # exit statuses


def bundles_dir() -> Path:
    """Return the bundles' folder, as the command itself finds it."""
    return Path(os.environ.get("SRP4CTR_TRAINING__BUNDLES_DIR", ".data/bundles"))


def refresh(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Refresh the model once; a refused one is a failed check, and no failed run."""
    result = subprocess.run(COMMAND, check=False)
    if result.returncode not in (0, _REFUSED):
        raise dg.Failure(
            f"{' '.join(COMMAND)} ended with status {result.returncode}: see its log",
            allow_retries=result.returncode != _MISTAKE,
        )
    status = json.loads((bundles_dir() / "refresh.json").read_text(encoding="utf-8"))
    if status["error"]:  # stopped by SIGTERM: that ends with status 0, too
        raise dg.Failure(f"the refresh was {status['error']}", allow_retries=True)
    context.log.info("%s: %s", status["version"] or "no bundle", status["outcome"])
    return result_of(status)


def result_of(status: Mapping[str, Any]) -> dg.MaterializeResult:
    """Return what Dagster shows of a refresh that ended in order."""
    failed = [name for name, passed in status["gates"].items() if not passed]
    check = dg.AssetCheckResult(
        check_name=GATES,
        passed=status["outcome"] != "refused",
        severity=dg.AssetCheckSeverity.WARN,  # the serving bundle stays
        metadata={"failed": ", ".join(failed) or "none"},
    )
    figures = {name: status[name] for name in ("version", "outcome", "seconds")}
    return dg.MaterializeResult(metadata=figures, check_results=[check])


click_model = dg.asset(
    name="click_model",
    description="The model that predicts clicks, refreshed on the newest labels.",
    check_specs=[dg.AssetCheckSpec(name=GATES, asset="click_model")],
    retry_policy=dg.RetryPolicy(max_retries=2, delay=300),
)(refresh)
job = dg.define_asset_job("refresh", selection=[click_model])
hourly = dg.ScheduleDefinition(
    job=job,
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
definitions = dg.Definitions(assets=[click_model], jobs=[job], schedules=[hourly])
