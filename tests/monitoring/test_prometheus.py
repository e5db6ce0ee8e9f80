"""What Prometheus and other servers answer, and what an error advises."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.embedded import ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.prometheus import Answer, Prometheus, get, read_metrics


@contextmanager
def a_server(status: int, headers: dict[str, str]) -> Iterator[str]:
    """Answer everything with ``status``, as another server may do."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_address_is_http() -> None:
    with pytest.raises(MistakeError, match=r"is 'file:.*http://host:port"):
        Prometheus("file:///etc/passwd")


def test_without_prometheus_there_is_a_sentence() -> None:
    assert "No Prometheus runs" in Prometheus("").problem()
    with pytest.raises(OutageError):
        Prometheus("").fetch("query", {"query": "up"})
    with pytest.raises(MistakeError, match="there is no Prometheus to read from"):
        Prometheus("").at("up", 0.0)
    away = Prometheus("http://127.0.0.1:9")
    assert "No Prometheus answers at http://127.0.0.1:9" in away.problem()


def test_a_report_without_a_prometheus_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ports.reserved_ports(1) as (port,):
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", url)
        error = CliRunner().invoke(app, ["monitor", "report"]).exception
    assert isinstance(error, OutageError)
    assert str(error).startswith(f"no Prometheus answers at {url} (")
    assert "monitoring.prometheus_url" in str(error)
    assert "srp4ctr stack up" in str(error)


def test_a_redirection_is_not_followed() -> None:
    with a_server(302, {"location": "http://169.254.169.254/"}) as url:
        answer = Prometheus(url).fetch("query", {"query": "up"})
    assert answer == Answer(status=302, body=b"<html>")


def test_another_server_is_no_prometheus() -> None:
    with a_server(200, {}) as url:
        assert "No Prometheus answers" in Prometheus(url).problem()
        with pytest.raises(MistakeError, match="is no Prometheus"):
            Prometheus(url).at("up", 0.0)


def test_a_gateway_without_a_prometheus_behind_it_may_come_back() -> None:
    with a_server(502, {}) as url, pytest.raises(OutageError, match="is no Prometheus"):
        Prometheus(url).at("up", 0.0)


def test_an_answer_has_a_maximal_size() -> None:
    with a_server(200, {}) as url, pytest.raises(MistakeError, match="too large"):
        get(url, 2.0, max_bytes=5)


def test_a_page_of_something_else_is_an_error_not_a_crash() -> None:
    with a_server(200, {}) as url, pytest.raises(ValueError, match="html"):
        read_metrics(url)
    with a_server(404, {}) as url, pytest.raises(OutageError, match="status 404"):
        read_metrics(url)


def test_a_server_that_is_down_is_an_outage() -> None:
    with pytest.raises(OutageError, match="refused"):
        read_metrics("http://127.0.0.1:9/metrics")
