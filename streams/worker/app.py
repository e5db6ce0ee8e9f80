"""The stream worker: a Faust application with an agent and two batch services.

In: the broker, a sink and a folder for the raw log. Out: a process that runs until
SIGTERM, and stores and commits everything before it ends.
"""

import gc
from pathlib import Path
from typing import Any

import faust
from prometheus_client import start_http_server

from srp4ctr.streams.broker.clients import sasl_password, tls_context
from srp4ctr.streams.broker.output_topics import OutputService
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.worker.item_agent import add_items_agent
from srp4ctr.streams.worker.sequence_worker import SequenceWorker

_SESSION_S = 10.0  # as aiokafka's own

# A batch makes some 100,000 objects that end with it: collected once, not 140 times.
_GC_THRESHOLDS = (100_000, 20, 20)

__all__ = ["create_app", "ensure_topics", "group_ids", "run_worker"]


def group_ids(config: StreamConfig) -> tuple[str, ...]:
    """Return the consumer groups that a worker joins."""
    return (config.group_id, config.log_group_id, _items_group(config))


def create_app(
    kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, log_dir: Path
) -> faust.App:
    """Return the application; nothing is connected before it starts.

    Faust needs a folder, ``<log_dir>/.faust``; without tables it stays empty.
    """
    app = faust.App(
        _items_group(config),
        broker=[f"aiokafka://{address}" for address in kafka.addresses],
        broker_credentials=_credentials(kafka),
        store="memory://",
        datadir=str(log_dir / ".faust"),
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        # Services start after the agents' group has been joined, and that waits for the
        # session of a killed member to end: Faust's own 60 s would keep a new one idle.
        broker_session_timeout=_SESSION_S,
    )
    outputs = OutputService(kafka)
    add_items_agent(app, sink, outputs.producer)
    app.service(outputs)
    app.service(SequenceWorker(kafka, config, sink, log_dir))
    app.service(EventLogWriter(kafka, config, log_dir))
    return app


def run_worker(
    kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, log_dir: Path
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; blocks. Metrics are served meanwhile.

    Creates missing topics. Raises ``SystemExit``, as Faust's own worker does: 0 after
    a signal.
    """
    ensure_topics(kafka)
    log_dir.mkdir(parents=True, exist_ok=True)
    start_http_server(config.metrics_port, config.metrics_host)
    app = create_app(kafka, config, sink, log_dir)
    # What is imported stays: a full collection need not walk over all of Feast.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False)
    worker.execute_from_commandline()


def _credentials(kafka: KafkaConfig) -> Any:
    """Return ``clients.client_arguments`` under Faust's names; None for none."""
    context = tls_context(kafka) if kafka.has_tls else None
    if kafka.has_sasl:
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism,
            username=kafka.sasl_username,
            password=sasl_password(kafka),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _items_group(config: StreamConfig) -> str:
    return f"{config.group_id}-items"
