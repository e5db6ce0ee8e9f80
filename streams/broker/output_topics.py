"""What a worker publishes: labels, and dead letters; all is awaited before a commit."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Mapping, Sequence
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer, errors
from mode import Service

from srp4ctr import metrics
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import RejectedRecord
from srp4ctr.streams.events.schema import LABELS_TOPIC, REJECTED_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label

MAX_REQUEST_BYTES = 4 * 1024 * 1024
REJECTED = metrics.counter("srp4ctr_events_rejected_total")
LABELS = metrics.counter("srp4ctr_labels_total")
_AT_ONCE = 100  # dead letters that are sent together
_KEPT_BYTES = 64 * 1024  # of a message that even its dead-letter topic refuses


class OutputProducer(Service):  # type: ignore[misc]  # mode has no types
    """The worker's producer."""

    def __init__(self, kafka: KafkaConfig) -> None:
        super().__init__()
        self._kafka = kafka
        self._producer: Any = None

    async def on_start(self) -> None:
        """Connect; in the event loop, which aiokafka needs."""
        self._producer = AIOKafkaProducer(
            **client_arguments(self._kafka),
            acks="all",
            linger_ms=5,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        await self._producer.start()

    async def on_stop(self) -> None:
        """Send what is left and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish_labels(self, labels: Mapping[int, Sequence[ImpressionLabel]]) -> None:
        """Return when the broker has acknowledged ``labels``, by the events' partition.

        They go to the partition of the same number. One by one, each takes a future and
        murmur2 in Python.
        """
        sent = []
        for partition, some in labels.items():
            remaining = deque(some)
            while remaining:
                sent.append(await self._send_labels(partition, remaining))
        await asyncio.gather(*sent)
        clicked = Counter(each.clicked for some in labels.values() for each in some)
        for value, number in clicked.items():
            LABELS.labels(str(value).lower()).inc(number)

    async def _send_labels(
        self, partition: int, remaining: deque[ImpressionLabel]
    ) -> Awaitable[Any]:
        """Send as many of ``remaining``, which it removes, as a batch takes."""
        batch, now_ms = self._producer.create_batch(), round(time.time() * 1000)
        while remaining:
            label = remaining[0]
            key, value = label.user_id.encode(), encode_label(label)
            if batch.append(timestamp=now_ms, key=key, value=value) is None:
                break
            remaining.popleft()
        partitions = await self._producer.partitions_for(LABELS_TOPIC)
        at = partition % len(partitions)
        future: Awaitable[Any] = await self._producer.send_batch(
            batch, LABELS_TOPIC, partition=at
        )
        return future

    async def publish_rejected(self, records: Sequence[RejectedRecord]) -> None:
        """Return when the broker has acknowledged the raw bytes and the reasons."""
        remaining = iter(records)
        while several := list(islice(remaining, _AT_ONCE)):
            await asyncio.gather(*map(self._publish_letter, several))
        for reason, number in Counter(record.rejected.reason for record in records).items():
            REJECTED.labels(reason).inc(number)

    async def _publish_letter(self, rejected: RejectedRecord) -> None:
        key, value = rejected.record.key, rejected.record.value or b""
        try:
            await self._send_rejected(rejected, key, value, [])
        except errors.MessageSizeTooLargeError:
            # Its headers made it larger than the topic takes, or it came compressed, of
            # which the size before does not count; the beginnings are enough.
            parts = (("truncated_from", value), ("key_truncated_from", key or b""))
            notes = [
                (name, str(len(part)).encode())
                for name, part in parts
                if len(part) > _KEPT_BYTES
            ]
            kept = (key and key[:_KEPT_BYTES], value[:_KEPT_BYTES])
            await self._send_rejected(rejected, *kept, notes)

    async def _send_rejected(
        self,
        rejected: RejectedRecord,
        key: bytes | None,
        value: bytes,
        notes: list[tuple[str, bytes]],
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
            REJECTED_TOPIC, value=value, key=key, headers=headers + notes
        )
