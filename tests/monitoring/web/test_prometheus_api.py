"""The queries that the page may send to Prometheus, and the answers."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from srp4ctr.monitoring.web.prometheus_api import (
    MAX_POINTS,
    MAX_QUERY_LENGTH,
    MAX_RANGE_S,
    ApiAnswer,
    PrometheusApi,
    instant_query,
    range_query,
)

RANGE = {"query": "up", "start": "1000", "end": "1600", "step": "5"}


def test_a_query_keeps_its_parameters() -> None:
    sent = range_query(RANGE).parameters()
    assert sent.items() >= {"query": "up", "end": "1600.000", "step": "5"}.items()
    assert instant_query({"query": "up", "time": "7"}).parameters()["time"] == "7.000"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query": ""}, "a query has 1 to"),
        ({"query": "x" * (MAX_QUERY_LENGTH + 1)}, "a query has 1 to"),
        ({"end": "900"}, "a range is 0 to"),
        ({"end": str(1000 + MAX_RANGE_S + 1), "step": "100000"}, "a range is 0 to"),
        ({"step": "0.5"}, "a step is 1 s at least"),
        ({"step": "-1"}, "a step is 1 s at least"),
        ({"end": str(1000 + 2 * MAX_POINTS), "step": "1"}, "more than"),
        ({"start": "yesterday"}, "start is 'yesterday'"),
        ({"end": "nan"}, "end is 'nan'"),
        ({"step": "inf"}, "step is 'inf'"),
    ],
)
def test_an_expensive_or_invalid_query_is_refused(
    changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        range_query(RANGE | changes)


def test_the_address_is_http() -> None:
    with pytest.raises(ValueError, match=r"monitoring.prometheus_url is 'file:"):
        PrometheusApi("file:///etc/passwd")


def test_without_prometheus_there_is_a_sentence() -> None:
    assert "No Prometheus runs" in PrometheusApi("").problem()
    with pytest.raises(ConnectionError):
        PrometheusApi("").send(instant_query({"query": "up", "time": "1"}))
    assert "No Prometheus answers at http://127.0.0.1:9" in (
        PrometheusApi("http://127.0.0.1:9").problem()
    )


@contextmanager
def a_server(status: int, headers: dict[str, str]) -> Iterator[str]:
    """Answer everything with ``status``, as another server may do."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_redirection_is_not_followed() -> None:
    with a_server(302, {"location": "http://169.254.169.254/"}) as url:
        answer = PrometheusApi(url).send(instant_query({"query": "up", "time": "1"}))
    assert answer == ApiAnswer(status=302, body=b"<html>")


def test_another_server_is_no_prometheus() -> None:
    with a_server(200, {}) as url:
        assert "No Prometheus answers" in PrometheusApi(url).problem()


def test_a_real_prometheus_answers_and_explains_a_wrong_query(prometheus: str) -> None:
    api = PrometheusApi(prometheus)
    assert api.problem() == ""
    now = {"time": str(time.time())}
    good = api.send(instant_query({"query": "vector(7)", **now}))
    assert json.loads(good.body)["data"]["result"][0]["value"][1] == "7"
    bad = api.send(instant_query({"query": "sum(", **now}))
    assert bad.status == 400
    assert "parse error" in json.loads(bad.body)["error"]
