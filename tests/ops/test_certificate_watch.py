"""The ends of certificates: of real TLS servers, of Postgres' handshake, and of files."""

import shutil
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from srp4ctr.embedded.ports import HOST
from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.ops import certificates, stack_secrets
from srp4ctr.ops.certificate_watch import CertificateWatch, Place, places_of
from srp4ctr.ops.doctor import host
from srp4ctr.settings import Settings
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.triton_repo.config import ReplicaConfig, TlsConfig, TritonConfig
from tests.ops.tls_servers import SHORT, TlsServer, sign_expired, tls_server

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
EXPIRY, READ = "srp4ctr_certificate_expiry_seconds", "srp4ctr_certificate_read"


def days_left(registry: CollectorRegistry, service: str, location: str) -> float:
    labels = {"service": service, "location": location}
    end = registry.get_sample_value(EXPIRY, labels)
    assert end is not None, (service, location)
    return (end - time.time()) / 86_400


def test_every_server_of_the_settings_and_every_file_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://objects:7070")
    assert [place.service for place in places_of(Settings())] == ["objects"]
    found = [
        (place.service, place.location, place.is_postgres) for place in places_of(closed())
    ]
    own = str(Path("c.pem").absolute())
    assert found == [
        ("kafka", "k1:9093", False),
        ("kafka", "k2:9093", False),
        ("store", "r:6379", False),
        ("registry", "pg:5433", True),
        ("triton", "t1:8001", False),
        ("triton", "t2:8001", False),
        ("objects", "objects:7070", False),
        ("grafana", "g:3000", False),
        *(("file", path, False) for path in sorted(["/a/ca.pem", "/a/other.pem", own])),
    ]


def closed() -> Settings:
    """Return settings in which every server has TLS."""
    return Settings(
        kafka=KafkaConfig(
            bootstrap="k1:9093,k2:9093", security_protocol="SSL", ssl_ca_file="/a/ca.pem"
        ),
        features=FeatureConfig(
            redis="r:6379,db=1",
            redis_tls=True,
            redis_ca_file="/a/ca.pem",
            registry="postgresql+psycopg://u@pg:5433/r?sslmode=verify-full",
        ),
        triton=TritonConfig(
            grpc="t1:8001",
            replicas=(ReplicaConfig(grpc="t2:8001", repository="/m/2"),),
            tls=TlsConfig(
                enabled=True,
                ca_file="/a/ca.pem",
                certificate_file="c.pem",
                key_file="c.key",
            ),
        ),
        monitoring=MonitorConfig(
            tls_endpoints={"grafana": "g:3000"}, certificate_files=("/a/other.pem",)
        ),
    )


def test_the_metric_is_what_a_server_presents_and_not_what_its_file_has(
    tmp_path: Path,
) -> None:
    stack_secrets.make(tmp_path, lifetime=SHORT)
    registry, file = CollectorRegistry(), str(tmp_path / "redis.pem")
    with tls_server(tmp_path, "redis") as server:
        address = f"{HOST}:{server.port}"
        watch = CertificateWatch(
            [
                Place(service="store", location=address),
                Place(service="file", location=file),
                Place(service="file", location=str(tmp_path / "ca.pem")),
            ]
        )
        registry.register(watch)
        watch.poll()
        assert 0.9 < days_left(registry, "store", address) <= 1
        stack_secrets.make(tmp_path)  # and the server is not restarted
        watch.poll()
        assert 0.9 < days_left(registry, "store", address) <= 1
        assert 824 < days_left(registry, "file", file) <= 825
        assert 3649 < days_left(registry, "file", str(tmp_path / "ca.pem")) <= 3650
        server.load()
        watch.poll()
        assert 824 < days_left(registry, "store", address) <= 825


def test_an_expired_certificate_has_an_end_in_the_past(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    sign_expired(tmp_path, "redis")
    with tls_server(tmp_path, "redis") as server:
        place = Place(service="store", location=f"{HOST}:{server.port}")
        assert -1.1 < (place.expires_at() - time.time()) / 86_400 < -0.9


def test_a_server_that_goes_away_keeps_its_end_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stack_secrets.make(tmp_path)
    registry = CollectorRegistry()
    with tls_server(tmp_path, "redis") as server:
        address = f"{HOST}:{server.port}"
        watch = CertificateWatch([Place(service="store", location=address)])
        registry.register(watch)
        watch.poll()
    labels = {"service": "store", "location": address}
    assert registry.get_sample_value(READ, labels) == 1
    watch.poll()
    watch.poll()
    assert registry.get_sample_value(READ, labels) == 0
    assert days_left(registry, "store", address) > 800
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"the certificate of store at {address} cannot be read: ")


class PostgresLike(TlsServer):
    """Begins TLS after Postgres' request for it, as Postgres does."""

    def _echo(self, plain: socket.socket) -> None:
        with suppress(OSError):
            if plain.recv(8) == bytes.fromhex("0000000804d2162f"):
                plain.sendall(b"S")
                super()._echo(plain)
            plain.close()


def test_postgres_begins_tls_after_its_own_request(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    server = PostgresLike(tmp_path, "postgres")
    place = Place(service="registry", location=f"{HOST}:{server.port}", is_postgres=True)
    assert place.expires_at() - time.time() > 800 * 86_400
    server.close()


def test_a_file_without_a_certificate_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(MistakeError, match="openssl x509 failed"):
        Place(service="file", location=str(tmp_path / "bad.pem")).expires_at()


def test_the_doctor_finds_what_a_server_presents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / stack_secrets.FOLDER
    stack_secrets.make(folder, lifetime=SHORT)
    with tls_server(folder, "kafka") as server:
        stack_secrets.make(folder)
        address = f"{HOST}:{server.port}"
        settings = Settings(kafka=KafkaConfig(bootstrap=address, security_protocol="SSL"))
        (found,) = host.expiry(settings)
        assert found.state == "wrong"
        assert found.found == f"expire within 30 days: {address} (kafka)"
        server.load()
        (found,) = host.expiry(settings)
        assert (found.state, found.found) == ("ok", "14, valid for 30 days and more")
    missing, found = host.expiry(settings)
    assert missing.state == "not checked"
    assert "kafka" in missing.found
    assert found.state == "ok"


def test_watching_ends_with_its_block(tmp_path: Path) -> None:
    watch, stop = CertificateWatch([]), threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert certificates.RENEW_DAYS > host._RENEW_DAYS  # it is renewed before it is late
