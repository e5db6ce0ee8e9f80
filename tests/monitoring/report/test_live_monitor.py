"""A running monitor, scraped by a real Prometheus: the report has both versions."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import start_http_server
from typer.testing import CliRunner

from srp4ctr import processes
from srp4ctr.cli.main import app
from srp4ctr.embedded import ports
from srp4ctr.embedded import prometheus as local_prometheus
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.topic_readers import LabelBatch, ReceivedLabel
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import Prometheus
from tests.monitoring.conftest import LABEL_WINDOW_MS, START_MS, a_label
from tests.monitoring.report.report_reader import read


def labels_of(version: str, clicks: int, shown: int, shown_ms: int) -> list[ReceivedLabel]:
    made = (
        a_label(
            user_id=f"{version}-{number}",
            after_ms=shown_ms - START_MS,
            position=0,
            model_version=version,
            clicked=number < clicks,
        )
        for number in range(shown)
    )
    return [
        ReceivedLabel(label=each, partition=0, published_ms=each.matured_at)
        for each in made
    ]


@pytest.fixture
def prometheus(sources: MonitorSources, tmp_path: Path) -> Iterator[str]:
    binary = local_prometheus.find_prometheus()
    if binary is None:
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    monitor = Monitor(sources, MonitorConfig())
    shown_ms = round(time.time() * 1000) - LABEL_WINDOW_MS - 60_000
    labels = [
        *labels_of("v7", 30, 300, shown_ms),
        *labels_of("v8", 90, 300, shown_ms),
    ]
    monitor.add_labels(LabelBatch(labels=tuple(labels), undecodable=0))
    monitor.poll_triton()
    monitor.update()
    with ExitStack() as opened:
        port, own_port = opened.enter_context(ports.reserved_ports(2))
        server, thread = start_http_server(own_port, "127.0.0.1", monitor.registry)
        opened.callback(thread.join)
        opened.callback(server.server_close)
        opened.callback(server.shutdown)
        running = local_prometheus.start(
            binary, {"monitor": own_port}, port, tmp_path / "data", tied=True
        )
        opened.callback(processes.stop, running, tmp_path / "data")
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while not Prometheus(url).at("srp4ctr_verdict", time.time()):
            assert time.monotonic() < deadline, "nothing was scraped"
            time.sleep(0.2)
        yield url


def test_a_running_monitor_is_reported_on(
    prometheus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", prometheus)
    path = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["monitor", "report", "--since", "5m", "-o", str(path)])
    assert done.exception is None
    assert "v8 earns more clicks than v7" in done.output
    seen = read(path.read_text(encoding="utf-8"))
    assert "is 20.00 percentage points above that of v7" in seen.text
    assert seen.figures_of("v7")[""] == "v7 serving"
    assert seen.figures_of("v7")["CTR at position 1, %"].startswith("10.0 (")
    assert seen.figures_of("v8")["CTR at position 1, %"].startswith("30.0 (")
    assert seen.figures_of("v8")["Impressions"] == "300"
    assert "alerts fired" in seen.text  # the project's own rules are loaded
