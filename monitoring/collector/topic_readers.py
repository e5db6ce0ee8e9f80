"""Topics ``impression-labels`` and ``behavior-events`` → labels and recent impressions.

There is no consumer group: the monitor keeps the offsets of labels with the sums that they
are in, and reads on from there. Of impressions it needs those since the newest windows
began; older ones have their labels, or are overdue.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    BrokerNotAvailableError,
    CorruptRecordError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnknownBrokerIdError,
    UnknownError,
)

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.collector.partition_order import PartitionOrder, Silence
from srp4ctr.monitoring.collector.snapshot import NOTHING_READ, LabelPosition
from srp4ctr.retries import may_pass
from srp4ctr.streams.broker.clients import opened, reachable
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, Impression
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

LOG = logging.getLogger(__name__)
IsMine = Callable[[int], bool]
"""Whether the partition of this number is to be read."""
MAX_RECORDS = 5000  # a batch takes about 0.1 s, so that the endpoint stays fresh
CONNECT_TIMEOUT_S = 2.0  # short: Triton is polled and a stop is noticed in between
# A reader whose partition gives nothing for so long connects again. One was seen that had
# no record for twelve minutes although there were some, on a machine that was busy.
MAX_SILENCE_S = 30.0
# While all arrived records are read, the broker is queried for the topic's ends this often.
# A fetch has them, too, but one that is never answered leaves the last ones standing: the
# figures would seem current.
LOOK_S = 1.0
LOOK_TIMEOUT_S = 2.0
METADATA_AGE_MS = 5000  # a topic may appear, or grow, after the monitor has started
_MARK = b'impression"'  # skips decoding of other events
# Not retriable by kafka-python: a coordinator or leader that has left the cluster, what a
# broker that stops says of any request, and a batch that was changed on its way.
_MAY_PASS_TOO = (
    BrokerNotAvailableError,
    UnknownBrokerIdError,
    UnknownError,
    CorruptRecordError,
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
    position: LabelPosition = NOTHING_READ
    """Of the reader after this batch."""
    undecodable_in: Mapping[int, int] = field(default_factory=dict)
    """The undecodable ones by partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImpression:
    """An impression and its record's timestamp, UTC ms."""

    impression: Impression
    known_ms: int
    partition: int = 0
    """Of the topic of events."""


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


def labels_topic_id(kafka: KafkaConfig) -> str:
    """Return the id of the topic of labels; "" if the broker has no ids.

    A topic that is deleted and created again has another one.
    """
    where = reachable(kafka, CONNECT_TIMEOUT_S)
    timeout_ms = int(CONNECT_TIMEOUT_S * 1000)
    with broker_errors(LABELS_TOPIC):
        admin = opened(KafkaAdminClient, **where, bootstrap_timeout_ms=timeout_ms)
        with closing(admin):
            (topic,) = admin.describe_topics([LABELS_TOPIC])
    return str(topic["topic_id"] or "")


class _TopicReader(ABC):
    """Reads every partition of a topic, or some.

    The constructor and ``read`` raise as ``broker_errors`` does; a broker that restarts is
    waited for.
    """

    def __init__(
        self, topic: str, kafka: KafkaConfig, is_mine: IsMine | None = None
    ) -> None:
        self._topic = topic
        self._ends: Mapping[Any, int] = {}  # as the broker sent them at ``_looked_ms``
        self._looked_ms = 0
        self._look_due_s = 0.0
        topics = () if is_mine else (topic,)
        # kafka-python would wait its whole timeout.
        where = reachable(kafka, CONNECT_TIMEOUT_S)
        with broker_errors(f"kafka.bootstrap {kafka.bootstrap}"):
            self._consumer = opened(
                KafkaConsumer,
                *topics,
                **where,
                bootstrap_timeout_ms=int(CONNECT_TIMEOUT_S * 1000),
                group_id=None,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                max_poll_records=MAX_RECORDS,
                metadata_max_age_ms=METADATA_AGE_MS,
                allow_auto_create_topics=False,
                # After a process was paused, the broker answered sessions with nothing.
                enable_incremental_fetch_sessions=False,
            )
            if is_mine:
                if not self.partitions():  # it was created just now
                    raise OutageError(f"the broker does not name the partitions of {topic}")
                mine = filter(is_mine, self.partitions())
                self._consumer.assign([TopicPartition(topic, each) for each in mine])

    def partitions(self) -> set[int]:
        """Return the numbers of all partitions of the topic, read or not."""
        return self._consumer.partitions_for_topic(self._topic) or set()

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

    def _behind(self) -> set[Any]:
        """Return the partitions that have records that are not read, or may have some."""
        assigned = self._consumer.assignment()
        behind = set(filter(self._is_behind, assigned))
        is_due = time.monotonic() >= self._look_due_s
        if behind or not (assigned and self.is_connected and is_due):
            return behind
        looked_ms = round(time.time() * 1000)
        try:
            timeout_ms = int(LOOK_TIMEOUT_S * 1000)
            self._ends = self._consumer.end_offsets(assigned, timeout_ms=timeout_ms)
            self._looked_ms = looked_ms
        except KafkaTimeoutError:
            LOG.warning("the broker does not tell the ends of %s", self._topic)
        self._look_due_s = time.monotonic() + LOOK_S
        return set(filter(self._is_behind, assigned))

    def _is_behind(self, partition: Any) -> bool:
        fetched = self._consumer.highwater(partition)
        position = self._consumer.position(partition, timeout_ms=0)
        if fetched is None or position is None:
            return True
        return bool(position < max(fetched, self._ends.get(partition, 0)))

    def _check(self, silence: Silence, behind: set[Any]) -> None:
        """Raise ``OutageError`` if one of ``behind`` has given no record for long."""
        if silence.longest_s > MAX_SILENCE_S:
            silent = sorted(each.partition for each in behind)
            raise OutageError(
                f"{self._topic}: partitions {silent} have unread records, but gave "
                f"none for {MAX_SILENCE_S:.0f} s"
            )

    @abstractmethod
    def _place(self, partitions: set[Any]) -> set[Any]:
        """Seek new partitions to their first record of interest; return those moved."""

    def _seek_to_time(self, partitions: set[Any], since_ms: int) -> None:
        """Seek to the first records of ``since_ms`` or later, otherwise to the ends."""
        if not partitions:
            return
        ends = self._consumer.end_offsets(partitions)  # first: later records are read
        times = dict.fromkeys(partitions, max(0, since_ms))
        for partition, found in self._consumer.offsets_for_times(times).items():
            self._consumer.seek(partition, found.offset if found else ends[partition])


class LabelReader(_TopicReader):
    """Reads every partition of the topic, or some; all of them by time."""

    def __init__(self, kafka: KafkaConfig, is_mine: IsMine | None = None) -> None:
        super().__init__(LABELS_TOPIC, kafka, is_mine)
        self._order = PartitionOrder()
        self._topic_id = labels_topic_id(kafka)
        self._offsets: dict[int, int] = {}  # of the records that ``read`` returned
        self._complete_until_ms = self._since_ms = 0
        self._placed: set[Any] = set()

    def problem_of(self, position: LabelPosition) -> str:
        """Return why the topic cannot be read from ``position``; "" if it can."""
        if position.topic_id != self._topic_id:
            return f"topic {self._topic} was deleted and created again"
        with broker_errors(self._topic):
            existing = self._consumer.partitions_for_topic(self._topic) or set()
            if missing := position.offsets.keys() - existing:
                return f"topic {self._topic} has no partitions {sorted(missing)}"
            partitions = [TopicPartition(self._topic, each) for each in position.offsets]
            firsts = self._consumer.beginning_offsets(partitions)
            ends = self._consumer.end_offsets(partitions)
        for partition in partitions:
            first, offset, end = (
                firsts[partition],
                position.offsets[partition.partition],
                ends[partition],
            )
            if not first <= offset <= end:
                return (
                    f"partition {partition.partition} of {self._topic} has the offsets "
                    f"{first} to {end}, and not {offset}"
                )
        return ""

    def start(self, position: LabelPosition, since_ms: int) -> None:
        """Read from ``position``, and partitions that it lacks from ``since_ms`` on.

        Without this call all records are read. ``position`` has no ``problem_of``.
        """
        self._offsets, self._since_ms = dict(position.offsets), since_ms
        self._complete_until_ms = position.complete_until_ms or since_ms

    def read(self) -> LabelBatch:
        """Return what has arrived since the last call; only looks at the ends may wait."""
        labels: list[ReceivedLabel] = []
        undecodable = Counter[int]()
        for record in self._ordered():
            try:
                label = decode_label(record.value or b"")
            except ValueError:  # counted; the next one may be good
                undecodable[record.partition] += 1
                continue
            labels.append(
                ReceivedLabel(
                    label=label, partition=record.partition, published_ms=record.timestamp
                )
            )
        return LabelBatch(
            labels=tuple(labels),
            undecodable=undecodable.total(),
            position=self._position(),
            undecodable_in=undecodable,
        )

    def _position(self) -> LabelPosition:
        return LabelPosition(
            topic_id=self._topic_id,
            offsets=dict(self._offsets),
            complete_until_ms=self._complete_until_ms,
        )

    def _ordered(self) -> list[Any]:
        for partition, batch in self._batches().items():
            self._order.add(partition, batch)
        with broker_errors(self._topic):
            behind = self._behind()
            taken = self._order.take(behind)
            if not taken:
                self._check(self._order.silence, behind)
            self._consumer.resume(*self._consumer.paused())
            self._consumer.pause(*self._order.full)
        for record in taken:
            self._offsets[record.partition] = record.offset + 1
        if self._placed and not behind and self.is_connected:
            self._complete_until_ms = max(self._complete_until_ms, self._looked_ms)
        elif taken:
            newest_ms = min(taken[-1].timestamp, round(time.time() * 1000))
            self._complete_until_ms = max(self._complete_until_ms, newest_ms)
        return taken

    def _place(self, partitions: set[Any]) -> set[Any]:
        new = partitions - self._placed
        kept = {each for each in new if each.partition in self._offsets}
        for each in kept:
            self._consumer.seek(each, self._offsets[each.partition])
        self._seek_to_time(new - kept, self._since_ms)
        self._placed |= new
        return new


class ImpressionReader(_TopicReader):
    """Reads every partition of the topic, or some, from ``since_ms`` on."""

    def __init__(
        self, kafka: KafkaConfig, since_ms: int, is_mine: IsMine | None = None
    ) -> None:
        super().__init__(BEHAVIOR_EVENTS_TOPIC, kafka, is_mine)
        self._silence = Silence()
        self._since_ms = max(0, since_ms)
        self._placed: set[Any] = set()

    def read(self) -> list[ShownImpression]:
        """Return what has arrived since the last call; only looks at the ends may wait."""
        batches = self._batches()
        for each in batches:
            self._silence.end(each)
        with broker_errors(self._topic):
            behind = self._behind()
        self._silence.note(behind)
        self._check(self._silence, behind)
        return [
            ShownImpression(
                impression=event, known_ms=record.timestamp, partition=record.partition
            )
            for batch in batches.values()
            for record in batch
            if _MARK in (record.value or b"")
            and isinstance(event := decode(record.value, record.timestamp), Impression)
        ]

    def _place(self, partitions: set[Any]) -> set[Any]:
        new = partitions - self._placed
        self._seek_to_time(new, self._since_ms)
        self._placed |= new
        return new


def events_of(is_mine: IsMine | None, labels: LabelReader) -> IsMine | None:
    """Return which partitions of events have labels in those that ``is_mine``.

    The stream worker publishes labels to the partition of the events' number, modulo the
    number of the topic of ``labels``.
    """
    if is_mine is None:
        return None
    count = max(1, len(labels.partitions()))
    return lambda partition: is_mine(partition % count)
