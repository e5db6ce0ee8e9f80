"""A TLS server on a folder of certificates, its clients, and an expired certificate."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srp4ctr.embedded.ports import HOST
from srp4ctr.ops.certificates import Lifetime

SHORT = Lifetime(days=1, renew_days=0)


class TlsServer:
    """Echoes over TLS; it reads its files at its start and at ``load``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._files = (folder / f"{name}.pem", folder / f"{name}.key")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def load(self) -> None:
        self._context.load_cert_chain(*self._files)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._echo, args=(plain,), daemon=True).start()

    def _echo(self, plain: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as sock:
            while data := sock.recv(64):
                sock.sendall(data)


@contextmanager
def tls_server(folder: Path, name: str) -> Iterator[TlsServer]:
    server = TlsServer(folder, name)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def connected(folder: Path, port: int) -> Iterator[ssl.SSLSocket]:
    """Yield a connection of a client that trusts the folder's authority."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    with socket.create_connection((HOST, port), timeout=10) as plain:
        plain.settimeout(10)
        with context.wrap_socket(plain, server_hostname=HOST) as secured:
            yield secured


def echoes(secured: ssl.SSLSocket) -> bool:
    secured.sendall(b"ping")
    return secured.recv(64) == b"ping"


def sign_expired(folder: Path, name: str) -> None:
    """Replace a certificate by one of the same key and authority that has expired."""
    certificate, request = folder / f"{name}.pem", folder / "request"
    certificate.unlink()
    key = ["-key", str(folder / f"{name}.key"), "-subj", f"/CN={name}"]
    authority = [
        "-copy_extensions",
        "copy",
        "-CA",
        str(folder / "ca.pem"),
        "-CAkey",
        str(folder / "ca.key"),
    ]
    named = ["-addext", f"subjectAltName=IP:{HOST}", "-out", str(request)]
    ended = ["-days", "-1", "-set_serial", "7", "-out", str(certificate)]
    for command in (
        ["req", "-new", *key, *named],
        ["x509", "-req", "-in", str(request), *authority, *ended],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    request.unlink()
