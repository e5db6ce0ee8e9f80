"""The intake's real server in a thread, on a free port."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from srp4ctr.listening import bound
from srp4ctr.streams.config import IntakeConfig, KafkaConfig
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.intake.app import application
from srp4ctr.streams.intake.delivery import Delivery
from srp4ctr.streams.intake.server import http_server
from srp4ctr.streams.intake.tokens import Tokens

TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running intake."""

    url: str
    client: httpx.Client

    def post(self, body: bytes, token: str = TOKEN, query: str = "") -> httpx.Response:
        """Post ``body``, with the token unless another is given."""
        return self.client.post(
            f"{self.url}/events{query}",
            content=body,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def health(self) -> httpx.Response:
        """Return what it says of itself."""
        return self.client.get(f"{self.url}/health")

    def wait_until_up(self) -> None:
        """Wait until it can publish."""
        deadline = time.monotonic() + 60.0
        while self.health().status_code != 200:
            assert time.monotonic() < deadline, self.health().text
            time.sleep(0.05)


@contextmanager
def running(
    kafka: KafkaConfig,
    config: IntakeConfig | None = None,
    pseudonyms: Pseudonyms | None = None,
    authority: Path | None = None,
) -> Iterator[Service]:
    """Yield a service of ``config``, on a port of its own."""
    config = replace(config or IntakeConfig(), port=0)
    listener = bound(config.host, 0, "")
    with listener, Delivery(kafka, pseudonyms, config.ack_timeout_s) as delivery:
        server = http_server(config, application(delivery, Tokens([TOKEN]), config))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        scheme = "https" if authority else "http"
        port = listener.getsockname()[1]
        trusted = ssl.create_default_context(cafile=authority) if authority else True
        try:
            with httpx.Client(verify=trusted, timeout=30.0) as client:
                yield Service(url=f"{scheme}://{config.host}:{port}", client=client)
        finally:
            server.should_exit = True
            thread.join(timeout=30.0)
        assert not thread.is_alive()
