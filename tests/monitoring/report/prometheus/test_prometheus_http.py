"""Without a Prometheus the error says what to do."""

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.embedded import ports
from srp4ctr.monitoring.report.prometheus.prometheus_http import Prometheus


def test_a_prometheus_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ports.reserved_ports(1) as (port,):
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", url)
        message = str(CliRunner().invoke(app, ["monitor", "report"]).exception)
    assert message.startswith(f"no Prometheus answers at {url} (")
    assert "monitoring.prometheus_url" in message
    assert "srp4ctr stack up" in message


def test_no_address_is_no_prometheus() -> None:
    with pytest.raises(ValueError, match="there is no Prometheus to read from"):
        Prometheus("")


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Prometheus("file:///etc/passwd")


def test_another_server_is_no_prometheus(triton_url: str) -> None:
    with pytest.raises(ValueError, match="is no Prometheus"):
        Prometheus(triton_url.removesuffix("/metrics")).at("up", 0.0)
