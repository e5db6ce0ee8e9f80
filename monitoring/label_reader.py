"""Topic ``impression-labels`` → labels, from the first one kept there.

In: Kafka records. Out: batches of labels with their partition. No consumer group: the
monitor's state is in memory, so each start reads the topic anew, and a group would only
leave offsets behind that nobody may use.
"""

from dataclasses import dataclass

from kafka import KafkaConsumer

from streams.events import LABELS_TOPIC
from streams.labels import ImpressionLabel, decode_label

MAX_RECORDS = 5000  # one batch folds in about 0.1 s: the endpoint stays fresh meanwhile
METADATA_AGE_MS = 5000  # the topic may appear, or grow, after the monitor has started


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedLabel:
    """A label, the partition it came in, and when it was published."""

    label: ImpressionLabel
    partition: int
    published_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBatch:
    """What one poll brought: labels, and how many messages were none."""

    labels: tuple[ReceivedLabel, ...]
    undecodable: int


class LabelReader:
    """Reads every partition of the topic from its start."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = KafkaConsumer(
            LABELS_TOPIC,
            bootstrap_servers=bootstrap.split(","),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=MAX_RECORDS,
            metadata_max_age_ms=METADATA_AGE_MS,
            allow_auto_create_topics=False,
        )

    def read(self) -> LabelBatch:
        """Return what has arrived since the last call; returns at once, maybe empty."""
        records = self._consumer.poll(timeout_ms=0)
        labels: list[ReceivedLabel] = []
        undecodable = 0
        for partition, batch in records.items():
            for record in batch:
                try:
                    label = decode_label(record.value or b"")
                except ValueError:  # counted and shown; the next one may be good
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

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
