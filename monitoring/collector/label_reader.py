"""Topic ``impression-labels`` → all labels that the topic keeps.

In: Kafka records. Out: batches of labels with their partition. There is no consumer group:
the monitor's state is in memory, so each start reads the whole topic.
"""

from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from srp4ctr.streams.broker.clients import reachable
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import LABELS_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

MAX_RECORDS = 5000  # a batch takes about 0.1 s, so that the endpoint stays fresh
CONNECT_TIMEOUT_S = 2.0  # short: Triton is polled and a stop is noticed in between
METADATA_AGE_MS = 5000  # the topic may appear, or grow, after the monitor has started


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedLabel:
    """A label, the partition it came in, and when it was published."""

    label: ImpressionLabel
    partition: int
    published_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBatch:
    """One poll's labels, and the number of undecodable messages."""

    labels: tuple[ReceivedLabel, ...]
    undecodable: int


def consumer_arguments(kafka: KafkaConfig) -> dict[str, Any]:
    """Return the arguments of a consumer that reads a whole topic without a group.

    Raises ``OutageError`` if no broker is reachable.
    """
    return {
        # kafka-python would wait its whole timeout, and leak a socket
        **reachable(kafka, CONNECT_TIMEOUT_S),
        "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
        "group_id": None,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "max_poll_records": MAX_RECORDS,
        "metadata_max_age_ms": METADATA_AGE_MS,
        "allow_auto_create_topics": False,
    }


class LabelReader:
    """Reads every partition of the topic from its start.

    The constructor and ``read`` raise ``ConnectionError`` if the broker fails for good; a
    broker that restarts is waited for.
    """

    def __init__(self, kafka: KafkaConfig) -> None:
        try:
            self._consumer = KafkaConsumer(LABELS_TOPIC, **consumer_arguments(kafka))
        except KafkaError as error:
            raise ConnectionError(f"kafka.bootstrap {kafka.bootstrap}: {error}") from error

    def read(self) -> LabelBatch:
        """Return what has arrived since the last call, without waiting."""
        try:
            records = self._consumer.poll(timeout_ms=0)
        except KafkaError as error:
            raise ConnectionError(f"{LABELS_TOPIC}: {error}") from error
        labels: list[ReceivedLabel] = []
        undecodable = 0
        for partition, batch in records.items():
            for record in batch:
                try:
                    label = decode_label(record.value or b"")
                except ValueError:  # counted; the next one may be good
                    undecodable += 1
                    continue
                labels.append(
                    ReceivedLabel(
                        label=label,
                        partition=partition.partition,
                        published_ms=record.timestamp,
                    )
                )
        return LabelBatch(labels=tuple(labels), undecodable=undecodable)

    @property
    def is_connected(self) -> bool:
        """Whether a broker is connected; without one, ``read`` returns nothing."""
        metrics = self._consumer.metrics().get("consumer-metrics", {})
        return bool(metrics.get("connection-count", 0) > 0)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
