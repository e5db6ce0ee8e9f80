"""The doctor's checks of a machine: secrets, certificates, metrics pages, Grafana."""

import shutil
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.ops import certificates
from srp4ctr.ops.doctor import host
from srp4ctr.ops.doctor.check_result import own_addresses
from srp4ctr.settings import Settings
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.triton_repo.config import TritonConfig

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def test_a_secret_that_is_a_value_is_open() -> None:
    (fine,) = host.in_the_open(Settings())
    assert fine.state == "ok"
    given = Settings(
        triton=TritonConfig(control_key="s3cret"),
        features=FeatureConfig(registry="postgresql+psycopg://ann:s3cret@h/r"),
    )
    (found,) = host.in_the_open(given)
    assert found.state == "open"
    assert found.found.startswith("triton.control_key, features.registry: ")
    assert "s3cret" not in str(found)


def test_a_secret_that_other_users_may_read_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, folder = tmp_path / "keys" / "control", tmp_path / "keys"
    folder.mkdir()
    file.write_text("s3cret")
    monkeypatch.setattr(host, "_others_enter", lambda _: True)
    settings = Settings(triton=TritonConfig(control_key_file=str(file)))
    file.chmod(0o644)
    (found,) = host.files(settings)
    assert (found.state, found.do) == ("open", f"chmod 600 {file}")
    file.chmod(0o600)
    (found,) = host.files(settings)
    assert found.state == "ok"


def test_files_in_a_private_folder_are_protected_whatever_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "control").write_text("s3cret")
    (folder / "control").chmod(0o444)
    settings = Settings(triton=TritonConfig(control_key_file=str(folder / "control")))
    (found,) = host.files(settings)
    assert found.state == "ok"


def test_a_secret_file_that_is_not_there_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(triton=TritonConfig(control_key_file="nowhere"))
    (found,) = host.files(settings)
    assert found.state == "wrong"
    assert found.found.startswith("triton.control_key_file: there is no ")


@needs_openssl
def test_a_certificate_that_expires_soon_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    certificates.make_authority(tmp_path)
    settings = Settings(
        kafka=KafkaConfig(security_protocol="SSL", ssl_ca_file=str(tmp_path / "ca.pem"))
    )
    away, found = host.expiry(settings)
    assert away.state == "not checked"  # no broker answers
    assert found.state == "ok"
    monkeypatch.setattr(host, "_RENEW_DAYS", 4000)
    _, found = host.expiry(settings)
    assert (found.state, found.found) == ("wrong", "expire within 4000 days: ca.pem (file)")


def test_a_metrics_page_that_others_reach_is_open() -> None:
    addresses = own_addresses()
    if not addresses:
        pytest.skip("this machine is in no network")
    with socket.socket() as page:
        page.bind((addresses[0], 0))
        page.listen()
        port = page.getsockname()[1]
        settings = Settings(monitoring=MonitorConfig(port=port, prometheus_url=""))
        found, closed = host.metrics(settings)
    assert found.state == "open"
    assert found.found == f"the monitor's metrics answer at {addresses[0]}:{port}"
    assert closed.state == "ok"


class _Grafana(BaseHTTPRequestHandler):
    """Answers as Grafana's API does: 200 for known users, else 401."""

    let_in: tuple[str, ...] = ()

    def do_GET(self) -> None:
        name = self.headers.get("Authorization", "")
        self.send_response(200 if name in self.let_in else 401)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def grafana(*let_in: str) -> Iterator[str]:
    coded = tuple(
        f"Basic {b64encode(each.encode()).decode()}" if each else "" for each in let_in
    )
    handler = type("Grafana", (_Grafana,), {"let_in": coded})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("let_in", "state"),
    [((), "ok"), (("admin:admin",), "open"), (("",), "open"), (("ann:x",), "ok")],
)
def test_grafana_s_default_password_and_anonymous_access_are_tried(
    let_in: tuple[str, ...], state: str
) -> None:
    with grafana(*let_in) as url:
        (found,) = host.grafana(url)
    assert found.state == state


def test_a_grafana_that_is_away_or_unknown_is_not_checked() -> None:
    for url in ("", "http://127.0.0.1:1", "garbage"):
        (found,) = host.grafana(url)
        assert found.state == "not checked"
