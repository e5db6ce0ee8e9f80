"""The page on a port of 127.0.0.1, until Ctrl-C.

The socket is bound before anything is said, so that a taken port is a sentence and the
address that is printed answers; the guard knows the port by then, which may be any free one.
"""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from monitoring.page.app import PageSources, application
from monitoring.page.guard import Guard

HOST = "127.0.0.1"  # and no other: whoever reaches the page may publish events


def serve(sources: PageSources, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page on ``port`` (0: any free one) until the process is told to end.

    ``ready`` hears the address once it answers. Raises ``ValueError`` if the port is taken.
    """
    with _bound(port) as listener:
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
        listener.listen()  # from here on a browser is kept waiting, not refused
        ready(f"http://{HOST}:{port}")
        with suppress(KeyboardInterrupt):  # Ctrl-C is how one ends it
            uvicorn.Server(config).run(sockets=[listener])


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    # A page that was just closed leaves its port in a state of waiting.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {HOST}:{port} ({error.strerror}). Is the page open already, "
            f"at http://{HOST}:{port}? Else: srp4ctr monitor open --port 0"
        ) from error
    return listener
