"""Starts a Prometheus that scrapes the stack, where it is installed.

The scrape targets of the embedded stack may differ with each start, so its configuration
is generated; ``monitoring/prometheus.yml`` is the one of the compose stack.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import get

_SCRAPE_INTERVAL = "2s"  # the demo lasts minutes; production's is in prometheus.yml


def find_prometheus() -> str | None:
    """Return the path of the installed Prometheus, or None."""
    return shutil.which("prometheus")


def scrape_config(targets: Mapping[str, int]) -> str:
    """Return a configuration (JSON, which is YAML) that scrapes each job's port."""
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"{ports.HOST}:{port}"]}]}
        for job, port in targets.items()
    ]
    often = dict.fromkeys(("scrape_interval", "evaluation_interval"), _SCRAPE_INTERVAL)
    # The recording rules and alerts are those of compose.
    rules = str(Path(processes.__file__).parent / "monitoring" / "rules" / "*.yml")
    config = {"global": often, "rule_files": [rules], "scrape_configs": jobs}
    return json.dumps(config, indent=2)


def start(
    binary: str, targets: Mapping[str, int], port: int, folder: Path, *, tied: bool
) -> processes.Running:
    """Start Prometheus on ``port`` with its series in ``folder/prometheus``."""
    config = folder / "prometheus" / "prometheus.yml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(scrape_config(targets))
    program = processes.Program(
        name="prometheus",
        command=(
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={config.parent / 'series'}",
            f"--web.listen-address={ports.HOST}:{port}",
            "--log.level=warn",
        ),
    )
    return processes.launch(program, folder, lambda: _is_ready(port), tied=tied)


def _is_ready(port: int) -> bool:
    try:
        return get(f"http://{ports.HOST}:{port}/-/ready", timeout_s=1.0).status == 200
    except OutageError:
        return False
