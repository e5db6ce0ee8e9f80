"""A client that finds no broker leaves nothing open, however often it is tried."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

CLIENTS = ("KafkaProducer", "KafkaConsumer", "KafkaAdminClient")
# Tried in a process of its own: in this one, other tests' threads and the server's
# side of each connection open and close files meanwhile.
TRIES = """
import gc, os, sys
import kafka
from srp4ctr.streams.broker.clients import opened

gc.disable()  # it would close them some time, with a warning
for _ in range(4):
    try:
        opened(
            getattr(kafka, sys.argv[1]),
            bootstrap_servers=sys.argv[2],
            bootstrap_timeout_ms=300,
        )
    except kafka.errors.KafkaError:
        print(len(os.listdir("/proc/self/fd")))
"""


@pytest.fixture
def no_broker() -> Iterator[str]:
    """Return the address of something that accepts connections and closes them."""
    handler = socketserver.BaseRequestHandler
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_no_broker_answers_closes_its_sockets(
    client: str, no_broker: str
) -> None:
    command = [sys.executable, "-c", TRIES, client, no_broker]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    opens = result.stdout.split()
    assert len(opens) == 4, result.stderr
    assert len(set(opens)) == 1
