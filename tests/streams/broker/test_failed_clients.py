"""A client that finds no broker leaves nothing open, however often it is tried."""

import gc
import os
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from srp4ctr.streams.broker.clients import opened

CLIENTS = (KafkaProducer, KafkaConsumer, KafkaAdminClient)


@pytest.fixture
def no_broker() -> Iterator[str]:
    """Return the address of something that accepts connections and closes them."""
    handler = socketserver.BaseRequestHandler
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_client_that_no_broker_answers_closes_its_sockets(
    client: Any, no_broker: str
) -> None:
    def try_it() -> int:
        with pytest.raises(KafkaError):
            opened(client, bootstrap_servers=no_broker, bootstrap_timeout_ms=300)
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    gc.disable()  # it would close them some time, with a warning
    try:
        assert try_it() == try_it() == try_it()
    finally:
        gc.enable()
