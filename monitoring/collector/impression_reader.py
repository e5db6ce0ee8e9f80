"""Topic ``behavior-events`` → recent impressions, for the provisional figures.

In: Kafka records since the newest windows began. Out: impressions and their record times.
Like labels, they are read without a group. Older ones have their labels, or are overdue.
"""

from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from srp4ctr.monitoring.collector.label_reader import consumer_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Impression

_MARK = b'impression"'  # skips decoding of other events


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImpression:
    """An impression and its record's timestamp, UTC ms."""

    impression: Impression
    known_ms: int


class ImpressionReader:
    """Reads every partition of the topic from ``since_ms`` on.

    The constructor and ``read`` raise ``ConnectionError`` if the broker fails for good.
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
        """Return what has arrived since the last call, without waiting."""
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
        """Seek new partitions to the first record since ``since_ms``."""
        times = dict.fromkeys(partitions, self._since_ms)
        for partition, found in self._consumer.offsets_for_times(times).items():
            if found is None:  # every record is older
                self._consumer.seek_to_end(partition)
            else:
                self._consumer.seek(partition, found.offset)
        self._placed |= partitions
