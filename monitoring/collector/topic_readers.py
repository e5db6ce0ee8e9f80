"""Topics ``impression-labels`` and ``behavior-events`` → labels and recent impressions.

There is no consumer group: the monitor's state is in memory, so each start reads all labels
that the topic keeps. Of impressions it needs those since the newest windows began; older
ones have their labels, or are overdue.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import (
    AuthorizationError,
    BrokerNotAvailableError,
    CorruptRecordError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnknownBrokerIdError,
    UnknownError,
)

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.collector.partition_order import PartitionOrder
from srp4ctr.retries import may_pass
from srp4ctr.streams.broker.clients import opened, reachable
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, Impression
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

MAX_RECORDS = 5000  # a batch takes about 0.1 s, so that the endpoint stays fresh
CONNECT_TIMEOUT_S = 2.0  # short: Triton is polled and a stop is noticed in between
METADATA_AGE_MS = 5000  # a topic may appear, or grow, after the monitor has started
_MARK = b'impression"'  # skips decoding of other events
# Not retriable by kafka-python: a coordinator or leader that has left the cluster, what a
# broker that stops says of any request, and a batch that was changed on its way.
_MAY_PASS_TOO = (
    *(BrokerNotAvailableError, UnknownBrokerIdError),
    *(UnknownError, CorruptRecordError),
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImpression:
    """An impression and its record's timestamp, UTC ms."""

    impression: Impression
    known_ms: int


@contextmanager
def broker_errors(what: str) -> Iterator[None]:
    """Raise ``OutageError`` for a broker's errors that may pass, until a retry.

    Raises ``MistakeError`` for a refusal; any other error is a bug and passes unchanged.
    """
    try:
        yield
    except KafkaError as error:
        if may_pass(error) or isinstance(error, _MAY_PASS_TOO):
            raise OutageError(f"{what}: {error}") from error
        if isinstance(error, AuthorizationError | SaslAuthenticationFailedError):
            rights = "see kafka.sasl_username, its password and its permissions"
            raise MistakeError(
                f"{what}: the broker refuses us ({error}): {rights}"
            ) from error
        raise


class _TopicReader:
    """Reads every partition of a topic.

    The constructor and ``read`` raise as ``broker_errors`` does; a broker that restarts is
    waited for.
    """

    def __init__(self, topic: str, kafka: KafkaConfig) -> None:
        self._topic = topic
        # kafka-python would wait its whole timeout.
        where = reachable(kafka, CONNECT_TIMEOUT_S)
        with broker_errors(f"kafka.bootstrap {kafka.bootstrap}"):
            self._consumer = opened(
                KafkaConsumer,
                topic,
                **where,
                bootstrap_timeout_ms=int(CONNECT_TIMEOUT_S * 1000),
                group_id=None,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                max_poll_records=MAX_RECORDS,
                metadata_max_age_ms=METADATA_AGE_MS,
                allow_auto_create_topics=False,
            )

    @property
    def is_connected(self) -> bool:
        """Whether a broker is connected; without one, ``read`` returns nothing."""
        metrics = self._consumer.metrics().get("consumer-metrics", {})
        return bool(metrics.get("connection-count", 0) > 0)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _batches(self) -> Mapping[Any, list[Any]]:
        """Return what has arrived since the last call by partition, without waiting."""
        with broker_errors(self._topic):
            batches = self._consumer.poll(timeout_ms=0)
            moved = self._place(self._consumer.assignment())
        return {each: batch for each, batch in batches.items() if each not in moved}

    def _place(self, partitions: set[Any]) -> set[Any]:
        """Seek new partitions to their first record of interest; return those moved."""
        return set()


class LabelReader(_TopicReader):
    """Reads every partition of the topic from its start; all of them by time."""

    def __init__(self, kafka: KafkaConfig) -> None:
        super().__init__(LABELS_TOPIC, kafka)
        self._order = PartitionOrder()

    def read(self) -> LabelBatch:
        """Return what has arrived since the last call, without waiting."""
        labels: list[ReceivedLabel] = []
        undecodable = 0
        for record in self._ordered():
            try:
                label = decode_label(record.value or b"")
            except ValueError:  # counted; the next one may be good
                undecodable += 1
                continue
            labels.append(
                ReceivedLabel(
                    label=label, partition=record.partition, published_ms=record.timestamp
                )
            )
        return LabelBatch(labels=tuple(labels), undecodable=undecodable)

    def _ordered(self) -> list[Any]:
        for partition, batch in self._batches().items():
            self._order.add(partition, batch)
        with broker_errors(self._topic):
            behind = set(filter(self._is_behind, self._consumer.assignment()))
            taken = self._order.take(behind)
            self._consumer.resume(*self._consumer.paused())
            self._consumer.pause(*self._order.full)
        return taken

    def _is_behind(self, partition: Any) -> bool:
        """Return whether the partition has records that are not read, or may have some."""
        end = self._consumer.highwater(partition)
        position = self._consumer.position(partition, timeout_ms=0)
        return end is None or position is None or position < end


class ImpressionReader(_TopicReader):
    """Reads every partition of the topic from ``since_ms`` on."""

    def __init__(self, kafka: KafkaConfig, since_ms: int) -> None:
        super().__init__(BEHAVIOR_EVENTS_TOPIC, kafka)
        self._since_ms = max(0, since_ms)
        self._placed: set[Any] = set()

    def read(self) -> list[ShownImpression]:
        """Return what has arrived since the last call, without waiting."""
        return [
            ShownImpression(impression=event, known_ms=record.timestamp)
            for batch in self._batches().values()
            for record in batch
            if _MARK in (record.value or b"")
            and isinstance(event := decode(record.value, record.timestamp), Impression)
        ]

    def _place(self, partitions: set[Any]) -> set[Any]:
        if not (new := partitions - self._placed):
            return new
        times = dict.fromkeys(new, self._since_ms)
        for partition, found in self._consumer.offsets_for_times(times).items():
            if found is None:  # every record is older
                self._consumer.seek_to_end(partition)
            else:
                self._consumer.seek(partition, found.offset)
        self._placed |= new
        return new
