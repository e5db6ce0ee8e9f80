"""Topic ``behavior-events`` → the impressions of late, for the provisional figures.

In: Kafka records from when the newest windows began. Out: impressions and when they became
known. No consumer group, as for labels. What is older has its label, or is given up.
"""

from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from srp4ctr.monitoring.collector.label_reader import consumer_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Impression

_MARK = b'impression"'  # most events are none, and are not worth decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImpression:
    """An impression and its record's timestamp, UTC ms."""

    impression: Impression
    known_ms: int


class ImpressionReader:
    """Reads every partition of the topic from ``since_ms`` on.

    Making one, or ``read``, raises ``ConnectionError`` where the broker fails for good.
    """

    def __init__(self, kafka: KafkaConfig, since_ms: int) -> None:
        self._since_ms = max(0, since_ms)
        self._placed: set[Any] = set()
        try:
            arguments = consumer_arguments(kafka)
            self._consumer = KafkaConsumer(BEHAVIOR_EVENTS_TOPIC, **arguments)
        except KafkaError as error:
            raise ConnectionError(f"kafka.bootstrap {kafka.bootstrap}: {error}") from error

    def read(self) -> list[ShownImpression]:
        """Return what has arrived since the last call; returns at once, maybe empty."""
        try:
            records = self._consumer.poll(timeout_ms=0)
            if new := self._consumer.assignment() - self._placed:
                self._place(new)
        except KafkaError as error:
            raise ConnectionError(f"{BEHAVIOR_EVENTS_TOPIC}: {error}") from error
        return [
            ShownImpression(impression=event, known_ms=record.timestamp)
            for partition, batch in records.items()
            if partition not in new
            for record in batch
            if _MARK in (record.value or b"")
            and isinstance(event := decode(record.value, record.timestamp), Impression)
        ]

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _place(self, partitions: set[Any]) -> None:
        """Begin to read new partitions at the first record since ``since_ms``."""
        times = dict.fromkeys(partitions, self._since_ms)
        for partition, found in self._consumer.offsets_for_times(times).items():
            if found is None:  # nothing is as new as that
                self._consumer.seek_to_end(partition)
            else:
                self._consumer.seek(partition, found.offset)
        self._placed |= partitions
