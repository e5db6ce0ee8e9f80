"""The doctor's check of the HTTP intake."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.ops.doctor import check_result, intake
from srp4ctr.settings import Settings
from srp4ctr.streams.config import IntakeConfig, KafkaConfig
from tests.streams.intake.service import running


def settings_at(port: int) -> Settings:
    return Settings(intake=IntakeConfig(host="0.0.0.0", port=port))


@contextmanager
def a_server(status: int) -> Iterator[int]:
    """Yield the port of a server that answers everything with ``status``."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer((HOST, 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_one_that_does_not_answer_is_not_checked() -> None:
    with reserved_ports(1) as (port,):
        (found,) = intake.anonymous(settings_at(port))
    assert found.state == "not checked"
    assert found.found == f"nothing answers at 127.0.0.1:{port}"


def test_our_intake_refuses_clients_without_a_token() -> None:
    with reserved_ports(1) as (port,):
        away = KafkaConfig(bootstrap=f"{HOST}:{port}")
        with running(away) as service:
            port = int(service.url.rpartition(":")[2])
            (found,) = intake.anonymous(settings_at(port))
    assert (found.state, found.found) == ("ok", f"127.0.0.1:{port} requires a token")


@pytest.mark.parametrize("status", [200, 400])
def test_an_intake_that_takes_events_from_every_client_is_open(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_result, "own_addresses", lambda: [HOST])
    with a_server(status) as port:
        anybody, plain = intake.anonymous(settings_at(port))
    assert (anybody.state, plain.state) == ("open", "open")
    assert "without a good token" in anybody.found
    assert plain.found == "tokens and events are not encrypted"
