"""Settings → the intake's process: it listens, serves, and ends when all are answered."""

from collections.abc import Callable
from contextlib import ExitStack, suppress

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

_MAX_CONNECTIONS = 1024  # a further one gets 503 from uvicorn
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
    try:
        made.load()
    except OSError as error:  # ssl.SSLError is one
        files = f"{config.certificate_file}, {config.key_file}"
        raise MistakeError(
            f"intake.certificate_file, key_file ({files}): {error}"
        ) from error
    return uvicorn.Server(made)
