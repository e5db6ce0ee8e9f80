"""Sockets and metrics pages that listen, or a ``MistakeError`` that says why not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import prometheus_client

from srp4ctr.errors import MistakeError


def bound(host: str, port: int, advice: str) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any free one).

    ``advice`` ends the error's text.
    """
    _check_port(f"{host}:{port}{advice}", port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise MistakeError(
            f"cannot listen on {host}:{port} ({error.strerror or error}){advice}"
        ) from error


@contextmanager
def metrics_page(
    host: str,
    port: int,
    setting: str,
    registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY,
) -> Iterator[int]:
    """Serve ``registry`` while the block runs; yield the port. ``setting`` names it."""
    _check_port(f"{host}:{port} ({setting})", port)
    try:
        server, _ = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        where = f"{host}:{port} ({setting})"
        raise MistakeError(f"cannot listen on {where}: {error.strerror}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _check_port(where: str, port: int) -> None:
    if not 0 <= port < 1 << 16:
        raise MistakeError(f"cannot listen on {where}: a port is 0 to 65535")
