"""The generated scrape configuration, checked by promtool where installed."""

import json
import shutil
import subprocess
from glob import glob
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import prometheus

TARGETS = {"triton": 8002, "monitor": 9102}


def test_each_endpoint_is_a_job_of_its_own() -> None:
    jobs = json.loads(prometheus.scrape_config(TARGETS))["scrape_configs"]
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == {
        "triton": ["127.0.0.1:8002"],
        "monitor": ["127.0.0.1:9102"],
    }


def test_the_rules_are_the_package_s_own() -> None:
    (pattern,) = json.loads(prometheus.scrape_config(TARGETS))["rule_files"]
    assert Path(pattern).is_relative_to(Path(processes.__file__).parent)
    assert glob(pattern)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_accepts_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    path.write_text(prometheus.scrape_config(TARGETS))
    result = subprocess.run(["promtool", "check", "config", path], capture_output=True)
    assert result.returncode == 0, result.stdout
