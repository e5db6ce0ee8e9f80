"""``PageSources`` and a port → the page's server on 127.0.0.1.

The socket is bound before the address is printed: a port that is in use is reported in one
sentence, and the guard knows the number of a free port.
"""

import secrets
import socket
from dataclasses import dataclass

import uvicorn

from srp4ctr.listening import bound
from srp4ctr.monitoring.web.app import PageSources, application
from srp4ctr.monitoring.web.request_guard import Guard

HOST = "127.0.0.1"  # only: every client of the page can publish events


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServer:
    """A page whose port is bound; requests wait until ``run``."""

    address: str
    _server: uvicorn.Server
    _listener: socket.socket

    def run(self) -> None:
        """Serve until ``stop``, or until the process gets SIGINT or SIGTERM.

        A signal takes its usual effect after the requests in progress.
        """
        with self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._server.should_exit = True


def bind_page(sources: PageSources, port: int) -> PageServer:
    """Return the page on ``port`` (0: any free one); ``MistakeError`` if it is taken."""
    open_already = f"Is the page already open at http://{HOST}:{port}?"
    advice = f". {open_already} Otherwise: srp4ctr monitor open --port 0"
    listener = bound(HOST, port, advice)
    port = listener.getsockname()[1]
    guard = Guard(port=port, token=secrets.token_urlsafe(24))
    config = uvicorn.Config(
        application(sources, guard),
        log_config=None,  # as every process logs: srp4ctr/logs.py
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=1,  # a click may be waiting for its effect
    )
    return PageServer(
        address=f"http://{HOST}:{port}",
        _server=uvicorn.Server(config),
        _listener=listener,
    )
