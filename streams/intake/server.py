"""Settings → the intake's process: it listens, serves, and ends when all are answered."""

import logging
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from srp4ctr.errors import MistakeError
from srp4ctr.listening import bound, metrics_page
from srp4ctr.processes import ended_by_sigterm
from srp4ctr.streams.config import IntakeConfig, KafkaConfig
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.intake.app import application
from srp4ctr.streams.intake.delivery import Delivery
from srp4ctr.streams.intake.tokens import Tokens

LOG = logging.getLogger(__name__)
_MAX_CONNECTIONS = 1024  # a further one gets 503 from uvicorn
_RENEWAL_POLL_S = 10
_BODY_AND_ANSWER_S = 12  # beyond Kafka's acknowledgement


def serve(
    config: IntakeConfig,
    kafka: KafkaConfig,
    tokens: Tokens,
    pseudonyms: Pseudonyms | None,
    say: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is in progress; ``say`` addresses.

    Raises ``MistakeError`` for a port that is taken, a certificate that cannot be read, or
    a broker that refuses us. A broker that does not answer is waited for.
    """
    listening = bound(config.host, config.port, ": intake.port")
    page = metrics_page(config.metrics_host, config.metrics_port, "intake.metrics_port")
    with ExitStack() as opened:
        opened.enter_context(ended_by_sigterm())
        opened.enter_context(suppress(KeyboardInterrupt))
        opened.enter_context(listening)
        metrics_port = opened.enter_context(page)
        delivery = Delivery(kafka, pseudonyms, config.ack_timeout_s)
        opened.enter_context(delivery)
        server = http_server(config, application(delivery, tokens, config))
        scheme = "https" if config.certificate_file else "http"
        port = listening.getsockname()[1]
        say(f"metrics: http://{config.metrics_host}:{metrics_port}/metrics")
        say(f"events: {scheme}://{config.host}:{port}/events  (Ctrl-C stops)")
        server.run(sockets=[listening])


def http_server(config: IntakeConfig, app: Starlette) -> uvicorn.Server:
    """Return the server of ``app``; ``MistakeError`` for a certificate that is no good."""
    made = uvicorn.Config(
        app,
        log_config=None,  # as every process logs: srp4ctr/logs.py
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http="h11",  # httptools, where it is installed, limits no headers
        ws="none",
        lifespan="off",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=round(config.ack_timeout_s) + _BODY_AND_ANSWER_S,
        ssl_certfile=config.certificate_file or None,
        ssl_keyfile=config.key_file or None,
    )
    if config.certificate_file:
        renewal = CertificateRenewal(made, config.certificate_file, config.key_file)
        made.callback_notify, made.timeout_notify = renewal.poll, _RENEWAL_POLL_S
    try:
        made.load()
    except OSError as error:  # ssl.SSLError is one
        files = f"{config.certificate_file}, {config.key_file}"
        raise MistakeError(
            f"intake.certificate_file, key_file ({files}): {error}"
        ) from error
    return uvicorn.Server(made)


class CertificateRenewal:
    """Loads a renewed certificate and its key; connections that are open stay."""

    def __init__(self, server: uvicorn.Config, certificate: str, key: str) -> None:
        self._server, self._files = server, (certificate, key)
        self._loaded = self._contents()

    async def poll(self) -> None:
        """Load the files if they have changed and belong together.

        It runs in the server's event loop, because the context must not change during a
        handshake.
        """
        contents = self._contents()
        if contents == self._loaded or self._server.ssl is None:
            return
        try:
            # In another context first: a failure would take the key from the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self._server.ssl.load_cert_chain(*self._files)
        except OSError as error:  # half written, or no pair: ssl.SSLError is one
            LOG.warning("the former certificate stays: %s: %s", self._files[0], error)
        else:
            self._loaded = contents
            LOG.info("loaded the renewed certificate %s", self._files[0])

    def _contents(self) -> tuple[bytes, ...]:
        try:
            return tuple(Path(file).read_bytes() for file in self._files)
        except OSError:  # the server's start reports a file that is missing
            return ()
