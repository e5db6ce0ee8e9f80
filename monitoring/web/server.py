"""The page on a port of 127.0.0.1, until it is told to end.

The socket is bound before anything is said, so that a taken port is a sentence and the
address that is printed answers; the guard knows the port by then, be it any free one.
"""

import secrets
import socket
from dataclasses import dataclass

import uvicorn

from srp4ctr.monitoring.web.app import PageSources, application
from srp4ctr.monitoring.web.request_guard import Guard

HOST = "127.0.0.1"  # and no other: whoever reaches the page may publish events


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServer:
    """A page whose port is its own already; a browser that asks is kept waiting."""

    address: str
    _server: uvicorn.Server
    _listener: socket.socket

    def run(self) -> None:
        """Answer until ``stop``, or until the process gets SIGINT or SIGTERM.

        A signal takes its usual effect once what was under way is answered.
        """
        with self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Let ``run`` return, from another thread."""
        self._server.should_exit = True


def opened(sources: PageSources, port: int) -> PageServer:
    """Return the page on ``port`` (0: any free one); ``ValueError`` if it is taken."""
    listener = _bound(port)
    port = listener.getsockname()[1]
    guard = Guard(port=port, token=secrets.token_urlsafe(24))
    config = uvicorn.Config(
        application(sources, guard),
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


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    # A page that was just closed leaves its port in a state of waiting.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {HOST}:{port} ({error.strerror}). Is the page open already, "
            f"at http://{HOST}:{port}? Else: srp4ctr monitor open --port 0"
        ) from error
    return listener
