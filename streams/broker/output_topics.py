"""Labels and rejected messages → their topics.

In: the labels of a batch and what could not be decoded. Out: acknowledged records on
``impression-labels`` and ``behavior-events.dlq``; they are awaited before a commit.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from itertools import islice
from typing import Any

import prometheus_client as metrics
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from mode import Service

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import RejectedRecord
from srp4ctr.streams.events.schema import LABELS_TOPIC, REJECTED_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label

MAX_REQUEST_BYTES = 4 * 1024 * 1024
REJECTED = metrics.Counter("srp4ctr_events_rejected_total", "Rejected messages", ["reason"])
LABELS = metrics.Counter("srp4ctr_labels_total", "Labels published", ["clicked"])
_AT_ONCE = 100  # dead letters that are sent together
_KEPT_BYTES = 64 * 1024  # of a message that even its dead-letter topic refuses


class OutputProducer:
    """The worker's producer."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._producer: Any = None

    async def start(self) -> None:
        """Connect; in the event loop, which aiokafka needs."""
        self._producer = AIOKafkaProducer(
            **client_arguments(self._kafka),
            acks="all",
            linger_ms=5,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is left and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish_labels(self, labels: Collection[ImpressionLabel]) -> None:
        """Return when the broker has acknowledged every one of ``labels``."""
        sent = [
            await self._producer.send(
                LABELS_TOPIC, value=encode_label(label), key=label.user_id.encode()
            )
            for label in labels
        ]
        await asyncio.gather(*sent)
        for clicked, number in Counter(label.clicked for label in labels).items():
            LABELS.labels(str(clicked).lower()).inc(number)

    async def publish_rejected(self, records: Collection[RejectedRecord]) -> None:
        """Return when the broker has acknowledged the raw bytes and the reasons."""
        remaining = iter(records)
        while several := list(islice(remaining, _AT_ONCE)):
            await asyncio.gather(*map(self._publish_letter, several))
        for reason, number in Counter(each.rejected.reason for each in records).items():
            REJECTED.labels(reason).inc(number)

    async def _publish_letter(self, rejected: RejectedRecord) -> None:
        try:
            await self._send_rejected(rejected, _value(rejected), [])
        except MessageSizeTooLargeError:
            # Its headers made it larger than the topic takes; its beginning is enough.
            note = [("truncated_from", str(len(_value(rejected))).encode())]
            await self._send_rejected(rejected, _value(rejected)[:_KEPT_BYTES], note)

    async def _send_rejected(
        self, rejected: RejectedRecord, value: bytes, notes: list[tuple[str, bytes]]
    ) -> None:
        record = rejected.record
        headers = [
            ("reason", str(rejected.rejected.reason).encode()),
            ("detail", rejected.rejected.detail.encode(errors="replace")),
            ("source_topic", record.topic.encode()),
            ("source_partition", str(record.partition).encode()),
            ("source_offset", str(record.offset).encode()),
            ("source_timestamp", str(record.timestamp).encode()),
        ]
        await self._producer.send_and_wait(
            REJECTED_TOPIC, value=value, key=record.key, headers=headers + notes
        )


class OutputService(Service):  # type: ignore[misc]  # mode has no types
    """Connects and disconnects ``producer`` with the application."""

    def __init__(self, kafka: KafkaConfig) -> None:
        super().__init__()
        self.producer = OutputProducer(kafka)

    async def on_start(self) -> None:
        """Connect."""
        await self.producer.start()

    async def on_stop(self) -> None:
        """Disconnect."""
        await self.producer.stop()


def _value(rejected: RejectedRecord) -> bytes:
    return rejected.record.value or b""
