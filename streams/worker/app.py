"""The stream worker: a Faust application with an agent for items and two batch services.

In: the broker, a sink and a folder for the raw log. Out: a process that runs until
SIGTERM, and stores and commits everything before it ends. Items are a low-rate topic: a
batch of it is acknowledged only when it is stored.
"""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faust
from mode import CrashingSupervisor
from prometheus_client import start_http_server

from srp4ctr import metrics
from srp4ctr.errors import OutageError, Srp4ctrError
from srp4ctr.streams.broker.clients import sasl_password, tls_context
from srp4ctr.streams.broker.output_topics import OutputProducer
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.broker.worker_clients import retry
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import (
    Record,
    RejectedEvent,
    RejectedRecord,
    decode_published,
    located,
)
from srp4ctr.streams.events.schema import ITEMS_TOPIC, ItemUpdate, item_key
from srp4ctr.streams.raw_log.delta_tables import Log
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.streams.state.state_store import FeatureSink, ItemProfile
from srp4ctr.streams.worker.sequence_worker import SequenceWorker

UPDATES = metrics.counter("srp4ctr_item_updates_total")

_SESSION_S = 10.0  # as aiokafka's own
_STOP_S = 20.0  # containers get 30 s
_MAX_BATCH = 500
_WITHIN_S = 0.1

# A batch makes some 100,000 objects that end with it: collected once, not 140 times.
_GC_THRESHOLDS = (100_000, 20, 20)

_log = logging.getLogger(__name__)

__all__ = ["create_app", "ensure_topics", "group_ids", "run_worker"]


def group_ids(config: StreamConfig) -> tuple[str, ...]:
    """Return the consumer groups that a worker joins."""
    return (config.group_id, config.log_group_id, _items_group(config))


def create_app(
    kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, log: Log, folder: Path
) -> faust.App:
    """Return the application; nothing is connected before it starts.

    Faust needs a folder, ``.faust`` in ``folder``; without tables it stays empty.
    """
    app = faust.App(
        _items_group(config),
        broker=[f"aiokafka://{address}" for address in kafka.addresses],
        broker_credentials=_credentials(kafka),
        store="memory://",
        datadir=str(folder / ".faust"),
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        # Services start after the agents' group has been joined, and that waits for the
        # session of a killed member to end: Faust's own 60 s would keep a new one idle.
        broker_session_timeout=_SESSION_S,
    )
    outputs = OutputProducer(kafka)
    _add_items_agent(app, sink, outputs)
    app.service(outputs)
    app.service(SequenceWorker(kafka, config, sink, log))
    app.service(EventLogWriter(kafka, config, log))
    return app


def run_worker(
    kafka: KafkaConfig, config: StreamConfig, sink: FeatureSink, log: Log, folder: Path
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; blocks. Metrics are served meanwhile.

    Creates missing topics. Raises ``SystemExit``, as Faust's own worker does: 0 after
    a signal. Raises the ``Srp4ctrError`` that ended it, if one did.
    """
    ensure_topics(kafka)
    folder.mkdir(parents=True, exist_ok=True)
    start_http_server(config.metrics_port, config.metrics_host)
    app = create_app(kafka, config, sink, log, folder)
    # What is imported stays: a full collection need not walk over all of Feast.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    worker = _Worker(app, override_logging=False, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if isinstance(worker.crash_reason, Srp4ctrError):
            raise worker.crash_reason from None
        raise


class _Worker(faust.Worker):  # type: ignore[misc]  # has no types
    """A worker that ends in time, also where its broker does not answer any more."""

    def stop_and_shutdown(self) -> None:
        """Stop and commit all; what cannot be committed comes again after a restart."""
        # aiokafka waits for a group's coordinator without end.
        deadline = threading.Timer(_STOP_S, _end_at_once)
        deadline.daemon = True
        deadline.start()
        try:
            super().stop_and_shutdown()
        finally:
            deadline.cancel()


def _end_at_once() -> None:
    _log.error(
        "not stopped within %g s, for the broker does not answer: ends now. What was not "
        "committed comes again after a restart, and counts once",
        _STOP_S,
    )
    logging.shutdown()
    os._exit(OutageError.exit_status)


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


def _add_items_agent(app: faust.App, sink: FeatureSink, outputs: OutputProducer) -> None:
    """Let ``app`` store the item profiles of the topic ``items``."""
    topic = app.topic(ITEMS_TOPIC, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="keep_profiles", supervisor_strategy=CrashingSupervisor)  # type: ignore[untyped-decorator]
    async def keep_profiles(stream: Any) -> None:
        async for events in stream.take_events(_MAX_BATCH, within=_WITHIN_S):
            try:
                await _store(events, sink, outputs)
            except BaseException:
                # take_events acknowledges the batch even then, unless it has one more
                # reference: so it comes again after a restart.
                for event in events:
                    event.message.incref()
                raise


def _profile_of(update: ItemUpdate) -> ItemProfile:
    """Return the profile that ``update`` makes."""
    attributes = {
        name: value if isinstance(value, str) else tuple(value)
        for name, value in update.kept_attributes().items()
    }
    return ItemProfile(
        item_key=item_key(update.item_id),
        item_id=update.item_id,
        attributes=attributes,
        updated_at_ms=update.occurred_at,
    )


async def _store(events: Sequence[Any], sink: FeatureSink, outputs: OutputProducer) -> None:
    """Store the profiles in ``events`` and dead-letter the rest; retry outages."""
    records = [_record(event.message) for event in events]
    with located(records, lambda record: _sort([record])):
        profiles, rejected = _sort(records)
    with located(records):
        if profiles:
            write = partial(asyncio.to_thread, sink.write_profiles, profiles)
            await retry("profiles", write)
        await retry("dead_letters", partial(outputs.publish_rejected, rejected))
    UPDATES.inc(len(profiles))


def _sort(records: Iterable[Record]) -> tuple[list[ItemProfile], list[RejectedRecord]]:
    """Return the latest profile of each item, and what is no item update."""
    latest: dict[int, ItemProfile] = {}
    rejected = []
    for record in records:
        update = decode_published(record)
        if isinstance(update, RejectedEvent):
            rejected.append(RejectedRecord(record=record, rejected=update))
            continue
        assert isinstance(update, ItemUpdate)  # anything else belongs on another topic
        profile = _profile_of(update)
        before = latest.get(profile.item_key)
        if before is None or before.updated_at_ms <= profile.updated_at_ms:
            latest[profile.item_key] = profile
    return list(latest.values()), rejected


def _record(message: Any) -> Record:
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
    )
