"""A TCP proxy before a server of this machine: slow, silent, or changing what passes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from srp4ctr.embedded.ports import HOST

Change = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


@contextmanager
def proxy(
    port: int | Callable[[], int], request: Change = unchanged, answer: Change = unchanged
) -> Iterator[str]:
    """Yield the URL at which the server at ``port`` gets what ``request`` makes of it.

    Its answers come as ``answer`` makes them, which may sleep; b"" is not sent. A function
    for ``port`` is called for each connection.
    """
    with socket.create_server((HOST, 0)) as listener:
        sockets = [listener]
        threading.Thread(
            target=_serve, args=(sockets, port, request, answer), daemon=True
        ).start()
        yield f"http://{HOST}:{listener.getsockname()[1]}"
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _serve(
    sockets: list[socket.socket],
    port: int | Callable[[], int],
    request: Change,
    answer: Change,
) -> None:
    with suppress(OSError):  # closed at the end
        while True:
            client, _ = sockets[0].accept()
            at = port if isinstance(port, int) else port()
            server = socket.create_connection((HOST, at))
            sockets += [client, server]
            for pair, change in (((client, server), request), ((server, client), answer)):
                threading.Thread(target=_pass, args=(*pair, change), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, change: Change) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(change(data))
        sink.shutdown(socket.SHUT_WR)
