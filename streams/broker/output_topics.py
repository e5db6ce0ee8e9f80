"""Labels and rejected messages → their topics.

In: what a batch decided and what it could not read. Out: acknowledged records on
``impression-labels`` and ``behavior-events.dlq``; they are awaited before a commit.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from mode import Service

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import LABELS_TOPIC, REJECTED_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label
from srp4ctr.streams.state.partition_state import RejectedRecord

MAX_REQUEST_BYTES = 4 * 1024 * 1024
_AT_ONCE = 100  # dead letters on their way
_KEPT_BYTES = 64 * 1024  # of a message that even its dead-letter topic refuses


class OutputProducer:
    """The worker's producer."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._producer: Any = None

    async def start(self) -> None:
        """Connect; in the event loop, which aiokafka wants to exist."""
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

    async def publish_labels(self, labels: Iterable[ImpressionLabel]) -> None:
        """Return when the broker has acknowledged every one of ``labels``."""
        sent = [
            await self._producer.send(
                LABELS_TOPIC, value=encode_label(label), key=label.user_id.encode()
            )
            for label in labels
        ]
        await asyncio.gather(*sent)

    async def publish_rejected(self, records: Iterable[RejectedRecord]) -> None:
        """Return when the broker has acknowledged the raw bytes and the reasons."""
        remaining = iter(records)
        while several := list(islice(remaining, _AT_ONCE)):
            await asyncio.gather(*map(self._publish_letter, several))

    async def _publish_letter(self, rejected: RejectedRecord) -> None:
        try:
            await self._send_rejected(rejected, _value(rejected), [])
        except MessageSizeTooLargeError:
            # Its headers made it larger than the topic takes; the head says enough.
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


class OutletService(Service):  # type: ignore[misc]  # mode has no types
    """Opens and closes ``outlets`` with the application."""

    def __init__(self, kafka: KafkaConfig) -> None:
        super().__init__()
        self.outlets = OutputProducer(kafka)

    async def on_start(self) -> None:
        """Connect."""
        await self.outlets.start()

    async def on_stop(self) -> None:
        """Disconnect."""
        await self.outlets.stop()


def _value(rejected: RejectedRecord) -> bytes:
    return rejected.record.value or b""
