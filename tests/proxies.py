"""Proxies before a server of this machine: slow, silent, changing what passes, or TLS."""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from srp4ctr.embedded.ports import HOST
from tests.certificates import Certificates

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


@contextmanager
def tls_proxy(port: int, certificates: Certificates) -> Iterator[int]:
    """Yield the port at which the server at ``port`` answers over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.keystore)
    sockets: list[socket.socket] = []

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):  # closed at the end
            while True:
                client, _ = listener.accept()
                sockets.append(client)
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with (
            suppress(OSError),
            socket.create_connection((HOST, port)) as server,
            context.wrap_socket(client, server_side=True) as secured,
        ):
            _pass_secured(secured, server)

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        for each in (listener, *sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _pass_secured(secured: ssl.SSLSocket, server: socket.socket) -> None:
    """Pass bytes both ways, in one thread, until one side ends."""
    pair: dict[socket.socket, socket.socket] = {secured: server, server: secured}
    while True:
        ready = [secured] if secured.pending() else select.select(pair, [], [])[0]
        for source in ready:
            if not (data := source.recv(65_536)):
                return
            pair[source].sendall(data)
