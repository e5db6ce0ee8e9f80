"""Settings → the end of each certificate: those that servers present, and those in files.

The worker watches the servers that it uses (Kafka, the store, the registry, the buckets),
the monitor its own (Kafka, Triton, the buckets) and those of ``monitoring.tls_endpoints``.
"""

import contextlib
import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import Metric
from prometheus_client.registry import Collector

from srp4ctr import metrics
from srp4ctr.errors import OutageError, Srp4ctrError
from srp4ctr.ops import certificates
from srp4ctr.settings import Settings, each_value

LOG = logging.getLogger(__name__)
FILE = "file"  # a service's name for a certificate in a file
INTERVAL_S = 300.0
_TIMEOUT_S = 5.0
_POSTGRES_PORT = 5432
# PostgreSQL, "Message Formats", SSLRequest: its length and a fixed code; "S" is yes.
_SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a certificate is: at a server's address, or in a file."""

    service: str
    """``kafka``, ``store``, …, or ``file``."""
    location: str
    """``host:port``, or the path of a PEM file."""
    is_postgres: bool = False
    """Whether TLS begins after Postgres' own request for it."""

    def expires_at(self) -> float:
        """Return the end (Unix time) of the certificate that is there now.

        The certificate is not verified: an expired or unknown one has an end, too. Raises
        ``OutageError`` if the server does not answer with TLS, and ``MistakeError`` for a
        file without a certificate.
        """
        try:
            pem = self._read() if self.service == FILE else self._presented()
        except (OSError, UnicodeDecodeError) as error:  # ssl.SSLError is the first
            where = f"the certificate of {self.service} at {self.location}"
            raise OutageError(f"{where} cannot be read: {error}") from error
        return certificates.expires_at(pem)

    def _read(self) -> str:
        return Path(self.location).read_text(encoding="ascii")

    def _presented(self) -> str:
        host, port = _host_port(self.location)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as plain:
            plain.settimeout(_TIMEOUT_S)
            if self.is_postgres:
                plain.sendall(_SSL_REQUEST)
                if plain.recv(1) != b"S":
                    raise ConnectionError("Postgres accepts no TLS: set ssl = on")
            with context.wrap_socket(plain, server_hostname=host) as secured:
                presented = secured.getpeercert(binary_form=True) or b""
        return ssl.DER_cert_to_PEM_cert(presented)


def places_of(settings: Settings) -> list[Place]:
    """Return each place that ``settings`` name, once: servers, then files."""
    files = {
        str(Path(value).absolute())
        for key, value in each_value(settings)
        if value and key[-1].endswith(("ca_file", "certificate_file"))
    }
    files |= {str(Path(file).absolute()) for file in settings.monitoring.certificate_files}
    in_files = [Place(service=FILE, location=path) for path in sorted(files)]
    return list(dict.fromkeys([*_servers(settings), *in_files]))


def _servers(settings: Settings) -> Iterator[Place]:
    kafka, features, triton = settings.kafka, settings.features, settings.triton
    brokers = kafka.addresses if kafka.has_tls else ()
    nodes = features.redis.split(",") if features.redis_tls else ()
    rankers = [triton.grpc, *(replica.grpc for replica in triton.replicas)]
    yield from (Place(service="kafka", location=address) for address in brokers)
    # An option, as db=1, is no node.
    yield from (Place(service="store", location=n) for n in nodes if "=" not in n)
    if registry := _registry_address(features.registry):
        yield Place(service="registry", location=registry, is_postgres=True)
    if triton.tls.enabled:
        yield from (Place(service="triton", location=address) for address in rankers)
    if objects := _objects_address():
        yield Place(service="objects", location=objects)
    for name, address in settings.monitoring.tls_endpoints.items():
        yield Place(service=name, location=address)


def _objects_address() -> str:
    """Return the host and port of the buckets' server; "" if it has no TLS."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    if endpoint.scheme != "https" or not endpoint.hostname:
        return ""
    return f"{endpoint.hostname}:{endpoint.port or 443}"


def _registry_address(registry: str) -> str:
    """Return the host and port of a registry in Postgres; "" if it requires no TLS."""
    parts = urlsplit(registry)
    # Without sslmode the driver takes TLS if it can: that need not be there.
    is_required = "sslmode=verify" in parts.query or "sslmode=require" in parts.query
    if not parts.scheme.startswith("postgresql") or not is_required:
        return ""
    return f"{parts.hostname}:{parts.port or _POSTGRES_PORT}"


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class CertificateWatch(Collector):
    """Exposes the end of each certificate, as the last ``poll`` found it."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = tuple(places)
        self._ends: dict[Place, float] = {}
        self._is_read: dict[Place, bool] = {}

    def poll(self) -> None:
        """Read all certificates; one that cannot be read keeps its last end."""
        for place in self._places:
            try:
                self._ends[place] = place.expires_at()
            except Srp4ctrError as error:
                if self._is_read.get(place, True):  # once, not at every poll
                    LOG.warning("%s", error)
                self._is_read[place] = False
            else:
                self._is_read[place] = True

    def run(self, stop: threading.Event) -> None:
        """Poll at once and every ``INTERVAL_S`` until ``stop`` is set."""
        while not stop.is_set():
            self.poll()
            stop.wait(INTERVAL_S)

    def collect(self) -> Iterator[Metric]:
        """Yield the ends, and whether the last poll read each certificate."""
        ends = metrics.family("srp4ctr_certificate_expiry_seconds")
        is_read = metrics.family("srp4ctr_certificate_read")
        for place, end in list(self._ends.items()):
            ends.add_metric((place.service, place.location), end)
        for place, found in list(self._is_read.items()):
            is_read.add_metric((place.service, place.location), float(found))
        yield from (ends, is_read)


@contextlib.contextmanager
def watching(settings: Settings) -> Iterator[CertificateWatch]:
    """Watch the certificates of ``settings`` in a thread while the block runs.

    The caller registers the watch with the registry of its metrics page.
    """
    watch, stop = CertificateWatch(places_of(settings)), threading.Event()
    threading.Thread(target=watch.run, args=(stop,), daemon=True).start()
    try:
        yield watch
    finally:
        stop.set()
